"""What the server counts and times while it works. One registry for each process, made once and passed down.

Counting costs about a microsecond and takes no other lock than its own, so it may be done anywhere. Nothing here names
a project, a task, a person or a file: whoever may read figures learns figures only, and their number stays bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tam_backend.tracking.refinement import Decision

log = logging.getLogger(__name__)

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 100)
_FRAME_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

#: Who a frame was computed for: somebody who waits for it, or nobody yet; the finishing pass is apart.
CLICK, BACKGROUND, FINISHING = "click", "background", "finishing"


@dataclass(frozen=True, slots=True)
class Reading:
    """Something that is looked up when it is asked for: one figure, or one for each value of ``label``."""

    name: str
    text: str
    read: Callable[[], float | Mapping[str, float]]
    label: str = ""


class Metrics:
    """Counters and histograms, and readings of what others know (``watch``). Thread-safe."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.about = Info("tam_build", "What this process is", registry=registry)
        self.requests = Counter(
            "tam_http_requests", "Requests answered, by route and status", ["method", "route", "status"],
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "tam_http_request_seconds", "Time from a request to its answer", ["route"], buckets=_REQUEST_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.click_seconds = Histogram(
            "tam_click_seconds", "Time from a click to its masks; busy: it was told to come again",
            ["outcome"], buckets=_REQUEST_SECONDS, registry=registry,
        )  # fmt: skip
        self.turn_seconds = Histogram(
            "tam_turn_wait_seconds", "How long a click's next frame waited for its turn on the device",
            buckets=_REQUEST_SECONDS, registry=registry,
        )  # fmt: skip
        self.frame_seconds = Histogram(
            "tam_frame_seconds", "Computing time of one object's mask on one frame; the count is the number of masks",
            ["work"], buckets=_FRAME_SECONDS, registry=registry,
        )  # fmt: skip
        self._refinements = Counter(
            "tam_refinements",
            "Poor masks that were looked at: a refined one was accepted, or rejected, or there was too little evidence",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self._lookups = Counter(
            "tam_cache_lookups", "Lookups in caches, by where it was found", ["cache", "outcome"], registry=registry
        )
        self.jobs_ended = Counter("tam_jobs_ended", "Background jobs that ended", ["state"], registry=registry)
        self.jobs_resumed = Counter(
            "tam_jobs_resumed", "Background jobs of an earlier process that this one goes on with", registry=registry
        )
        for work in (CLICK, BACKGROUND, FINISHING):
            self.frame_seconds.labels(work)
        for outcome in ("accepted", "rejected", "no_evidence"):
            self._refinements.labels(outcome)
        for outcome in ("answered", "busy", "failed"):
            self.click_seconds.labels(outcome)

    def decided(self, decision: Decision) -> None:
        """A poor mask was looked at. Where the segmenter was not even asked, nothing was accepted or rejected."""
        asked = decision.score is not None
        outcome = "accepted" if decision.accepted else "rejected" if asked else "no_evidence"
        self._refinements.labels(outcome).inc()

    def lookup(self, cache: str) -> Callable[[str], None]:
        """What a cache calls with the outcome of each lookup: where it was found, or ``miss``."""
        of_cache = {name: self._lookups.labels(cache, name) for name in ("memory", "disk", "miss")}
        return lambda outcome: of_cache[outcome].inc()

    def watch(self, readings: Iterable[Reading]) -> None:
        """Have these read whenever the figures are asked for. They must be quick, and wait for nothing."""
        self.registry.register(_Readings(tuple(readings)))


@dataclass(frozen=True, slots=True)
class _Readings(Collector):
    readings: tuple[Reading, ...] = field(default=())

    def describe(self) -> list[Metric]:
        return []  # the registry must not read what may not be there yet

    def collect(self) -> Iterable[Metric]:
        for reading in self.readings:
            try:
                found = reading.read()
            except Exception:  # one figure that cannot be had must not cost all others
                log.exception("the figure %s could not be read", reading.name)
                continue
            family = GaugeMetricFamily(reading.name, reading.text, labels=[reading.label] if reading.label else None)
            if isinstance(found, Mapping):
                for name, value in found.items():
                    family.add_metric([name], value)
            else:
                family.add_metric([], found)
            yield family
