"""Engines by name: a segmenter with a propagator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tam_backend.errors import BadInput, TamError
from tam_backend.propagators.base import Propagator
from tam_backend.refine_options import RefineOptions
from tam_backend.segmenters.base import Segmenter
from tam_backend.settings import ENGINES, Settings

if TYPE_CHECKING:
    from tam_backend.features.shots import Shots
    from tam_backend.tracking.refinement import Decision

log = logging.getLogger(__name__)


class EngineUnavailable(TamError):
    """An engine cannot be used here: something that it needs is not installed."""


@dataclass(frozen=True)
class Engine:
    """name and version: together they change whenever the masks of the same prompts may change.

    detail: what it is made of and where it computes, for people. shots: finds cuts; None: they are not looked for.
    refine: how poor masks are refined; None: not at all. concurrent: several objects may be worked on at once, and gain
    by it (networks use all cores by themselves). forget: drops what is kept to save time, one kind after the other,
    that which is made again most quickly first. decided: told of each decision about a poor mask.
    """

    name: str
    version: str
    segmenter: Segmenter
    propagator: Propagator
    detail: str = ""
    shots: Shots | None = None
    refine: RefineOptions | None = None
    concurrent: bool = False
    forget: tuple[Callable[[], None], ...] = ()
    decided: Callable[[Decision], None] = lambda decision: None

    @property
    def id(self) -> str:
        """Name and version in one."""
        return f"{self.name}-{self.version}"


def _embedded(settings: Settings) -> Engine:
    from tam_backend.features import FrameFeatures
    from tam_backend.features.shots import Shots
    from tam_backend.propagators.embedded import EmbeddedPropagator
    from tam_backend.segmenters.embedded import EmbeddedSegmenter

    features = FrameFeatures()  # one for both, so that a flow computed for a click serves the propagation
    segmenter, propagator = EmbeddedSegmenter(features), EmbeddedPropagator(features)
    options = settings.refine_options
    version = "7" if options is None else f"7-{options.tag}"
    return Engine(
        "embedded", version, segmenter, propagator, "no weights, cpu", Shots(features), options,
        concurrent=True, forget=(features.clear, features.clicked.clear),
    )  # fmt: skip


def _sam_xmem(settings: Settings) -> Engine:
    from tam_backend.sam_xmem import make_sam_xmem

    return make_sam_xmem(settings)


def _auto(settings: Settings) -> Engine:
    """sam-xmem, else embedded. What is wrong with the settings is not passed over."""
    try:
        engine = _sam_xmem(settings)
    except BadInput:
        raise
    except TamError as e:
        log.warning(
            "THE ENGINE IS embedded, not sam-xmem: %s. Its masks need corrections more often. TAM_ENGINE=embedded says "
            "that you want it; TAM_ENGINE=sam-xmem refuses to start without the checkpoints",
            e,
        )
        return _embedded(settings)
    log.info("the engine is sam-xmem: %s", engine.detail)
    return engine


#: Imports happen inside the makers: nobody pays for an engine that is not used.
_MAKERS: dict[str, Callable[[Settings], Engine]] = {"auto": _auto, "embedded": _embedded, "sam-xmem": _sam_xmem}


def load_engine(name: str, settings: Settings | None = None) -> Engine:
    """Make an engine of its own (its features are shared with no other). It stays what it is: no engine is changed for
    another while it works.

    Raises BadInput for an unknown name or device, and another TamError where what the engine needs cannot be had.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise BadInput(f"there is no engine {name!r}; known engines: {', '.join(ENGINES)}")
    return maker(settings or Settings())


def last_engine(folder: Path) -> str:
    """Name and version, with a space between, of the engine that worked on a data directory last; "" if none did."""
    path = folder / "engine"
    return path.read_text().strip() if path.is_file() else ""


def engine_changed(engine: Engine, folder: Path) -> bool:
    """Note which engine works on a data directory, and say loudly if it was another one at the last start.

    Returns whether it was.
    """
    now = f"{engine.name} {engine.version}"
    before = last_engine(folder) or now
    if before != now:
        name = before.partition(" ")[0]
        same = "its checkpoints or settings are others" if name == engine.name else f"TAM_ENGINE={name} goes back"
        log.warning(
            "THE ENGINE HAS CHANGED: it is %s, and was %s at the last start (%s). Masks that are there stay, and "
            "unfinished background work stops, until somebody clicks on the object again: then the new engine computes "
            "all of its frames that no person fixed",
            now, before, same,
        )  # fmt: skip
    (folder / "engine").write_text(now + "\n")
    return before != now
