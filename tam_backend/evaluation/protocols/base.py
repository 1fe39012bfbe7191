"""What the protocols have in common: a sequence in the works, its scores, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from tam_backend.engines import Engine
from tam_backend.errors import BadInput
from tam_backend.evaluation.datasets import Sequence
from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.evaluation.robot import box_around, next_click
from tam_backend.evaluation.session import Session
from tam_backend.prompts import Mask
from tam_backend.tracking.objects import IdMap
from tam_backend.tracking.store import BlobStore
from tam_backend.video.base import Reader

Json = dict[str, Any]

#: Shares and IoU in [0, 1], counts as they are; None: there is no such figure.
Figures = dict[str, float | None]

#: Clicks that a robot makes on a frame to start or to correct, in the protocols of SAM 2 (Ravi et al., 2024, E.1.2).
CLICKS_PER_FRAME = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the results beside engine and data.

    init: first-mask, clicks or box, and init_clicks how many. choose: worst or suggested (see ``offline``). merge: all
    objects are one.
    """

    init: str = "first-mask"
    init_clicks: int = CLICKS_PER_FRAME
    choose: str = "worst"
    merge: bool = False

    @property
    def init_text(self) -> str:
        return f"clicks:{self.init_clicks}" if self.init == "clicks" else self.init

    def as_json(self) -> Json:
        return asdict(self)


def parse_init(text: str) -> tuple[str, int]:
    """``first-mask``, ``box`` or ``clicks:N``. Raises BadInput."""
    kind, _, number = text.partition(":")
    if text in ("first-mask", "box"):
        return text, CLICKS_PER_FRAME
    if kind == "clicks" and number.isascii() and number.isdigit() and 1 <= int(number) <= 20:
        return kind, int(number)
    raise BadInput(f"--init {text}: give first-mask, box or clicks:N with N from 1 to 20, such as clicks:3")


@dataclass(slots=True, eq=False)
class Scores:
    """Of one object: frames, J and F of each of them."""

    frames: list[int] = field(default_factory=list)
    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)

    @property
    def j_and_f(self) -> float | None:
        """The mean over the frames; None if there are none."""
        return float(np.mean(self.j) + np.mean(self.f)) / 2 if self.frames else None

    def add(self, sequence: Sequence, frame: int, object_id: int, mask: Mask) -> None:
        truth, void = sequence.mask(frame, object_id), sequence.void(frame)
        self.frames.append(frame)
        self.j.append(region_similarity(mask, truth, void))
        self.f.append(boundary_measure(mask, truth, void))

    def as_json(self) -> Json:
        return {"frames": self.frames, "J": self.j, "F": self.f}


@dataclass(slots=True, eq=False)
class Work:
    """A sequence being evaluated.

    advance: told which share of the work is done, in [0, 1]. write: (frame, HxW uint8 ids), keeps a final mask.
    """

    engine: Engine
    sequence: Sequence
    video: Reader
    store: BlobStore
    options: Options
    advance: Callable[[float], None]
    write: Callable[[int, IdMap], None]

    def session(self, object_id: int) -> Session:
        """For an object, from the frame on which it is given to the end; the caller closes it."""
        frames = range(self.sequence.first[object_id], len(self.video))
        return Session(self.engine, self.video, self.store, frames)

    def initialise(self, session: Session, object_id: int, init: str, clicks: int) -> Mask:
        """Say where the object is, on the frame on which it is given, and get the mask there."""
        frame = self.sequence.first[object_id]
        truth = self.sequence.mask(frame, object_id)
        if init == "first-mask":
            return session.draw(frame, truth)
        if init == "box":
            return session.box(frame, box_around(truth))
        return self.click(session, object_id, frame, clicks)

    def click(self, session: Session, object_id: int, frame: int, clicks: int) -> Mask:
        """Up to so many clicks of the robot on a frame, each one where the last answer is most wrong."""
        truth, void = self.sequence.mask(frame, object_id), self.sequence.void(frame)
        mask = session.shown(frame)
        for _ in range(clicks):
            click = next_click(mask, truth, void)
            if click is None:
                break
            mask = session.click(frame, click)
        return np.zeros_like(truth) if mask is None else mask

    def seen(self, object_id: int) -> list[int]:
        """The annotated frames from the one on which the object is given: on which a person may judge it."""
        return [f for f in self.sequence.annotations if f >= self.sequence.first[object_id]]


def timing(sessions: Iterable[Session]) -> Json:
    """Not part of the results: it differs from run to run."""
    everyone = list(sessions)
    return {"seconds": sum(s.seconds for s in everyone), "masks": sum(s.computed for s in everyone)}


class ProtocolModule(Protocol):
    """What a module of this package offers.

    NAME, SUMMARY: for the command line. RESUMES: whether a sequence may go on from what a killed process had computed.
    TIMED: figures that come from measured times, and differ from run to run. MAIN: what runs are compared by.
    """

    NAME: str
    SUMMARY: str
    RESUMES: bool
    TIMED: tuple[str, ...]
    MAIN: str

    def run(self, work: Work) -> Json:
        """Evaluate one sequence. JSON data: ``objects``, by id, and ``timing``, which is no result."""

    def total(self, results: list[Json]) -> Figures:
        """The figures of one sequence or of many, by name, in the order in which they are shown."""
