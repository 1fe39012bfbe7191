"""A propagator whose poor masks are refined before they enter memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated
from tam_backend.propagators.probes import Projected, ReviewedPropagation, ReviewedPropagator
from tam_backend.refine_options import RefineOptions
from tam_backend.tracking.refinement.decision import Decision
from tam_backend.tracking.refinement.evidence import choose, claim, judge, too_few
from tam_backend.tracking.refinement.recipes import RefiningSegmenter, by_clicks, by_probes
from tam_backend.tracking.store import BlobStore
from tam_backend.video.base import Reader

#: Frames after an accepted refinement in which there is none: masks that are made of each other's colours frame after
#: frame drift away together (one of seven test sequences lost five points of J&F that way).
REST = 4

_REST = "refine.rest"


class Journal:
    """Decisions, in a store beside the frames, named by what they were computed from."""

    def __init__(
        self, store: BlobStore, engine: str, decided: Callable[[Decision], None] = lambda decision: None
    ) -> None:
        """engine: name and version of the engine. decided: told of each decision that is written."""
        self._store, self._engine, self._decided = store, engine, decided

    def write(self, video: str, anchors: str, decision: Decision) -> None:
        self._decided(decision)
        self._store.put(self._key(video, anchors, decision.frame, decision.direction), decision.pack())

    def read(self, video: str, anchors: Mapping[int, Mask], frame: int) -> list[Decision]:
        """What was decided about a frame with these anchors around it: in forward direction, then in backward."""
        name = anchors_name(anchors)
        blobs = (self._store.get(self._key(video, name, frame, direction)) for direction in (1, -1))
        return [Decision.unpack(blob) for blob in blobs if blob is not None]

    def _key(self, video: str, anchors: str, frame: int, direction: int) -> str:
        return f"refine/{video}/{self._engine}/{anchors}/{frame}/{direction}"


def anchors_name(anchors: Mapping[int, Mask]) -> str:
    content = ",".join(f"{f}:{FramePrompts(mask=m).digest()}" for f, m in sorted(anchors.items()))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


class RefiningPropagator:
    """What a frame becomes depends on the object's own memory alone: the anchors that bracket the frame, and what was
    computed from them. Other objects take no part, so that adding or correcting one changes another's masks nowhere;
    pixels that two claim are settled afterwards, and refinement claims new ones weakly.
    """

    def __init__(
        self, propagator: ReviewedPropagator, segmenter: RefiningSegmenter, options: RefineOptions, journal: Journal
    ) -> None:
        self.name, self.state_every = propagator.name, propagator.state_every
        self._propagator, self._segmenter, self._options, self._journal = propagator, segmenter, options, journal

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> RefiningPropagation:
        inner = self._propagator.begin(video, anchors, start, state)
        name = anchors_name(anchors)
        rest = 0 if state is None else int(state[_REST])
        return RefiningPropagation(
            inner, self._segmenter, self._options, video, start, rest,
            lambda d: self._journal.write(video.key, name, d),
        )  # fmt: skip


class RefiningPropagation:
    """One object on its way. rest: frames until a mask may be refined again."""

    def __init__(
        self,
        inner: ReviewedPropagation,
        segmenter: RefiningSegmenter,
        options: RefineOptions,
        video: Reader,
        start: int,
        rest: int,
        note: Callable[[Decision], None],
    ) -> None:
        self._inner, self._segmenter, self._options = inner, segmenter, options
        self._video, self._last, self._rest, self._note = video, start, rest, note

    def step(self, frame: int) -> Propagated:
        direction = frame - self._last

        def review(seen: Propagated, project: Callable[[], Sequence[Projected]]) -> Propagated | None:
            if seen.quality >= self._options.below:
                return None
            decision, better = self._refine(frame, direction, seen, project)
            self._note(decision)
            if better is not None:
                self._rest = REST + 1
            return better

        result = self._inner.step(frame, review)
        self._last, self._rest = frame, max(0, self._rest - 1)
        return result

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        return {**self._inner.state(), _REST: np.array(self._rest, np.int64)}

    def cut(self) -> None:
        self._inner.cut()

    def _refine(
        self, frame: int, direction: int, seen: Propagated, project: Callable[[], Sequence[Projected]]
    ) -> tuple[Decision, Propagated | None]:
        decision = Decision(frame, direction, seen.quality, seen.quality, ())
        if self._rest > 0:
            return decision.refuse(f"it was refined {REST + 1 - self._rest} frames ago"), None
        if not (seen.soft >= SOFT_THRESHOLD).any():
            return decision.refuse("the propagated mask is empty"), None
        points = choose(project(), seen.soft)
        decision = replace(decision, points=points)
        if reasons := too_few(points):
            return decision.refuse(*reasons), None
        clicks = [Click(p.x, p.y, p.positive) for p in decision.kept]
        ask = by_clicks if self._options.recipe == "clicks" else by_probes
        refined = ask(self._segmenter, self._video, frame, seen.soft, clicks)
        if refined is None:
            return decision.refuse("clicks into the propagated mask do not lead to it"), None
        before = seen.soft >= SOFT_THRESHOLD
        decision = judge(decision, refined, before)
        if not decision.accepted:
            return decision, None
        # A mask that two kinds of evidence agree on is better than propagation alone knew, though not as sure as the
        # segmenter, which sees one frame, thinks.
        quality = max(seen.quality, (seen.quality + refined.score) / 2)
        return replace(decision, result=quality), Propagated(claim(refined, before), quality)
