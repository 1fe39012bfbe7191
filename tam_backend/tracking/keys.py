"""Under which keys a tracker stores what it computes: they name all that decides it, beginning with the video."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tam_backend.tracking.runs import bracket_of, plan_runs

_NO_MASK = np.zeros((0, 0), bool)


class Digested(Protocol):
    """An anchor, as far as its name goes."""

    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Keys:
    """video: key of its content. engine: its name and version, ``NAME-VERSION``."""

    video: str
    engine: str

    def anchor(self, frame: int, anchor: Digested) -> str:
        """The mask that prompts on a frame lead to."""
        return f"anchor/{self.video}/{self.engine}/{frame}/{anchor.digest()}"

    def run(self, origin: int, memory: tuple[int, ...], digests: Mapping[int, str]) -> str:
        """A run from an anchor; the keys of its frames and states begin with this. memory: the anchors it reads."""
        return f"track/{self.video}/{self.engine}/{origin}/{_name(memory, digests)}"

    def finished(self, anchors: Mapping[int, Digested], frame: int) -> str:
        """What a finishing pass made of a frame."""
        bracket = bracket_of(anchors, frame)
        name = _name(bracket, {f: anchors[f].digest() for f in bracket})
        return f"finished/{self.video}/{self.engine}/{name}/{frame}"

    @staticmethod
    def state(run: str, direction: int) -> str:
        """The state of a run to go on from."""
        return f"{run}/state2/{direction}"

    def needed(self, frames: range, anchors: Mapping[int, Digested]) -> Iterator[str]:
        """All that tracking ``frames`` from these anchors stores, or goes on from."""
        digests = {f: a.digest() for f, a in anchors.items()}
        masks, given = dict.fromkeys(anchors, _NO_MASK), dict.fromkeys(anchors, 1.0)
        for frame, anchor in anchors.items():
            yield self.anchor(frame, anchor)
        for finish in (False, True):
            plan = plan_runs(frames, masks, given, lambda o, m: self.run(o, m, digests), finish=finish)
            for run in {id(r): r for due in plan.values() for r in due.runs}.values():
                yield self.state(run.key, run.frames.step)
                yield from (f"{run.key}/{frame}" for frame in run.frames)
        if anchors:
            yield from (self.finished(anchors, frame) for frame in frames if frame not in anchors)


def video_of(key: str) -> str:
    """The video's content that a key of a tracker's blob is about."""
    return key.partition("/")[2].partition("/")[0]


def _name(memory: tuple[int, ...], digests: Mapping[int, str]) -> str:
    content = ",".join(f"{f}:{digests[f]}" for f in memory)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
