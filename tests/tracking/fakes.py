"""A video in memory, and an engine whose every result can be worked out by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from hypothesis import settings

from tam_backend.engines import Engine
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.propagators.base import Propagated
from tam_backend.segmenters.base import Segmentation
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video.base import Frame

#: For hypothesis: how long an example takes says nothing on a machine that others use.
relaxed = settings(deadline=None)

HEIGHT, WIDTH = 24, 32

#: How often the fake propagator's state is stored.
STATE_EVERY = 16

#: Pixels that everything moves to the right from one frame to the next.
MOTION = 1


class MemoryReader:
    """Frames in memory. After ``close`` it refuses to read; ``clones`` are those it gave out."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames
        self.key = hashlib.blake2b(frames.tobytes(), digest_size=8).hexdigest()
        self.height, self.width = frames.shape[1:3]
        self.closed = False
        self.clones: list[MemoryReader] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Frame:
        assert not self.closed, "read after close"
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self) - 1, -1, -1))

    def time(self, index: int) -> float:
        return index / 10

    def clone(self) -> MemoryReader:
        copy = MemoryReader(self._frames)
        self.clones.append(copy)
        return copy

    def close(self) -> None:
        self.closed = True


def memory_video(length: int, seed: int = 0) -> MemoryReader:
    rng = np.random.default_rng(seed)
    return MemoryReader(rng.integers(0, 256, (length, HEIGHT, WIDTH, 3), np.uint8))


def disc(x: float, y: float, radius: float, height: int = HEIGHT, width: int = WIDTH) -> Mask:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


class DiscSegmenter:
    """Discs around the positive clicks without discs around the negative ones. ``asked`` records what it was given."""

    name = "disc"

    def __init__(self) -> None:
        self.asked: list[tuple[int, FramePrompts]] = []

    def segment(self, video: Any, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        assert prompts.locates, "a segmenter is never asked without knowing where the object is"
        video[frame]
        self.asked.append((frame, prompts))
        mask = np.zeros((video.height, video.width), bool)
        for click in prompts.clicks:
            if click.positive:
                mask |= disc(click.x, click.y, 5, *mask.shape)
        for click in prompts.clicks:
            if not click.positive:
                mask &= ~disc(click.x, click.y, 2, *mask.shape)
        for click in prompts.clicks:
            mask[int(click.y), int(click.x)] = click.positive
        if prompts.box is not None:
            b = prompts.box
            mask[int(b.top) : int(b.bottom), int(b.left) : int(b.right)] = True
        return Segmentation(mask=mask, score=0.9)


class _Shift:
    """Moves the mask with the known motion. Its soft values depend on every frame it came through and on its anchors,
    so that a step left out, done twice or done from a wrong state shows in the bytes of all later frames."""

    def __init__(self, owner: ShiftPropagator, video: Any, at: int, memory: int, state: Mapping[str, Any]) -> None:
        self._owner, self._video, self._at, self._memory = owner, video, at, memory
        self._mask = np.array(state["mask"])
        self._trace = int(state["trace"])
        self._direction = 0

    def step(self, frame: int) -> Propagated:
        direction = frame - self._at
        assert direction in (1, -1)
        assert self._direction in (0, direction), "a propagation never turns round"
        self._direction = direction
        self._at = frame
        self._mask = np.roll(self._mask, MOTION * direction, axis=1)
        self._owner.before_step(frame)  # half-way through, when the state fits no frame
        pixel = int(self._video[frame][0, 0, 0])
        self._trace = (31 * self._trace + 7 * frame + pixel + self._memory) % 9973
        self._owner.steps.append(frame)
        level = self._trace % 100
        soft = np.where(self._mask, 255 - level, level).astype(np.uint8)
        return Propagated(soft=soft, quality=self._owner.quality or 1 - level / 200)

    def state(self) -> Mapping[str, np.ndarray]:
        return {"mask": self._mask, "trace": np.int64(self._trace)}


class ShiftPropagator:
    """``steps`` records the frames computed, ``begins`` where propagations began and whether from a state.

    most_anchors: how many may be memory. quality: of every mask, if it is not to depend on the mask's trace.
    """

    name = "shift"
    state_every = STATE_EVERY

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.begins: list[tuple[int, bool]] = []
        self.before_step: Callable[[int], None] = lambda frame: None
        self.most_anchors = 2
        self.quality = 0.0

    def begin(
        self, video: Any, anchors: Mapping[int, Mask], start: int, state: Mapping[str, Any] | None = None
    ) -> _Shift:
        assert 1 <= len(anchors) <= self.most_anchors
        assert state is not None or start in anchors
        self.begins.append((start, state is not None))
        memory = sum((f + 1) * int(m.sum()) for f, m in anchors.items())
        return _Shift(self, video, start, memory, state or {"mask": anchors[start], "trace": start})


def fake_engine(version: str = "1", *, concurrent: bool = False) -> Engine:
    return Engine("fake", version, DiscSegmenter(), ShiftPropagator(), concurrent=concurrent)


class DictStore:
    """A BlobStore whose content a test can look at, copy and damage."""

    def __init__(self, blobs: Mapping[str, bytes] | None = None) -> None:
        self.blobs = dict(blobs or {})

    def get(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    def put(self, key: str, blob: bytes) -> None:
        self.blobs[key] = blob


def clicked(x: float = 10.5, y: float = 12.5) -> Anchor:
    return Anchor(FramePrompts(clicks=(Click(x, y),)))


def drawn(mask: Mask) -> Anchor:
    return Anchor(FramePrompts(mask=mask))


def content(tracked: TrackedFrame) -> tuple[Any, ...]:
    """What a caller gets of a frame, comparable byte for byte."""
    return tracked.frame, tracked.soft.tobytes(), tracked.quality, tracked.anchor, tracked.by_hand


def run(
    video: MemoryReader,
    anchors: Mapping[int, Anchor],
    focus: int,
    store: BlobStore | None = None,
    engine: Engine | None = None,
    frames: range | None = None,
) -> list[TrackedFrame]:
    """One whole, undisturbed run, in the order in which the frames came."""
    tracker = Tracker(engine or fake_engine(), video, frames or range(len(video)), store or DictStore())
    with tracker:
        return list(tracker.track(anchors, focus))


def sides_of(frame: int, anchors: Iterable[int]) -> list[int]:
    """The anchors from which a frame that is none is reached: the slow model of who has a say.

    With an anchor on one side only, that one. Between two, the nearer one alone in the outer quarters of the span.
    """
    before = max((a for a in anchors if a < frame), default=None)
    after = min((a for a in anchors if a > frame), default=None)
    if before is None or after is None:
        return [a for a in (before, after) if a is not None]
    if 4 * (frame - before) <= after - before:
        return [before]
    if 4 * (after - frame) <= after - before:
        return [after]
    return [before, after]


def steps_between(frames: Iterable[int], anchors: Iterable[int]) -> list[int]:
    """The frames that a propagator computes for those that are no anchors, sorted; twice if both sides have a say."""
    anchors = set(anchors)
    return sorted(f for f in frames if f not in anchors for _ in sides_of(f, anchors))


def by_frame(tracked: list[TrackedFrame]) -> dict[int, tuple[Any, ...]]:
    assert len({t.frame for t in tracked}) == len(tracked), "a frame came twice"
    return {t.frame: content(t) for t in tracked}
