"""Cuts are found from the frames around them alone, and tracking through one asks for a look."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tam_backend.engines import Engine
from tam_backend.errors import MediaError
from tam_backend.features import FeatureStore, FrameFeatures
from tam_backend.features.shots import Shots
from tam_backend.tracking.shots import CUT_QUALITY
from tam_backend.tracking.tracker import Tracker
from tam_backend.video.base import Frame
from tests.embedded.scenes import ArrayReader
from tests.tracking.fakes import DictStore, DiscSegmenter, ShiftPropagator, content, disc, drawn

HEIGHT, WIDTH = 72, 128


def texture(seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    """A picture larger than a frame."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32), (0, 0), 6)
    return np.clip(np.asarray(colour, np.float32) + 45 * noise / noise.std(), 0, 255).astype(np.float32)


RED, GREEN = texture(1, (170, 90, 70)), texture(2, (70, 140, 80))


def pan(picture: np.ndarray, frame: int, speed: float = 1.0) -> np.ndarray:
    x, y = (int(abs((v + s) % (2 * s) - s)) for v, s in ((speed * frame, WIDTH - 1), (0.4 * speed * frame, HEIGHT - 1)))
    return picture[y : y + HEIGHT, x : x + WIDTH]


def video(mix: Callable[[int], np.ndarray], count: int = 40, key: str = "shots") -> ArrayReader:
    frames: list[Frame] = [np.clip(mix(f), 0, 255).astype(np.uint8) for f in range(count)]
    return ArrayReader(frames, f"{key}-{np.stack(frames).sum()}")


def faded(begin: int, length: int) -> ArrayReader:
    def mix(frame: int) -> np.ndarray:
        share = np.clip((frame - begin + 0.5) / length, 0, 1)
        return (1 - share) * pan(RED, frame) + share * pan(GREEN, frame)

    return video(mix)


def cuts(shots: Shots, reader: ArrayReader, frames: range | None = None) -> list[int]:
    return [f for f in frames or range(1, len(reader)) if shots.cut(reader, f - 1, f)]


@pytest.mark.parametrize("at", [1, 7, 20, 39])
def test_a_hard_cut_is_found_where_it_is(at: int) -> None:
    reader = video(lambda f: pan(RED if f < at else GREEN, f))
    if at in (1, 39):  # one frame of a shot may be a flash
        assert set(cuts(Shots(), reader)) <= {at}
    else:
        assert cuts(Shots(), reader) == [at]


@pytest.mark.parametrize("length", [2, 4, 8, 12])
def test_a_fade_is_found_once_near_its_middle(length: int) -> None:
    found = cuts(Shots(), faded(16, length))
    assert len(found) == 1
    assert abs(found[0] - (16 + length / 2)) <= 2


def test_a_fade_through_black_is_found() -> None:
    def mix(frame: int) -> np.ndarray:
        return pan(RED if frame < 20 else GREEN, frame) * min(1.0, abs(frame - 19.5) / 4)

    found = cuts(Shots(), video(mix))
    assert found
    assert all(15 <= f <= 25 for f in found)


@pytest.mark.parametrize(
    "mix",
    [
        lambda f: pan(RED, f, 7),  # a fast camera
        lambda f: pan(RED, f) * (0.5 + 0.012 * f),  # light that grows
        lambda f: pan(RED, f) + (120 if f in (12, 25, 26) else 0),  # flashes
        lambda f: np.where(np.roll(disc(20, 36, 30, HEIGHT, WIDTH), 4 * f, 1)[..., None], 240, pan(RED, 0)),
    ],
    ids=["pan", "light", "flash", "object"],
)
def test_what_is_no_cut(mix: Callable[[int], np.ndarray]) -> None:
    assert cuts(Shots(), video(mix)) == []


def test_the_answer_does_not_depend_on_where_and_how_one_comes_there() -> None:
    reader = faded(16, 6)
    expected = cuts(Shots(), reader)
    shots = Shots()
    assert [f for f in range(39, 0, -1) if shots.cut(reader, f, f - 1)] == expected
    assert cuts(Shots(FrameFeatures(FeatureStore(10_000))), reader, range(15, 24)) == expected  # hardly any cache


def test_a_few_frames_around_are_read_each_once() -> None:
    reader, shots = faded(16, 6), Shots()
    shots.cut(reader, 20, 21)
    assert len(reader.reads) == len(set(reader.reads)) <= 30
    assert min(reader.reads) >= 21 - 15


def test_frames_that_cannot_be_read_are_no_cut() -> None:
    class Broken(ArrayReader):
        def __getitem__(self, index: int) -> Frame:
            if index == 20:
                raise MediaError("frame 20 cannot be decoded")
            return super().__getitem__(index)

    good = video(lambda f: pan(RED, f))
    assert cuts(Shots(), Broken(good.frames, "broken")) == []


class CutShift(ShiftPropagator):
    """Counts the cuts it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[int] = []

    def begin(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        propagation = super().begin(*args, **kwargs)
        propagation.cut = lambda: self.cuts.append(propagation._at)
        return propagation


def engine(propagator: ShiftPropagator, shots: Shots | None) -> Engine:
    return Engine("shift", "1", DiscSegmenter(), propagator, shots=shots)


def test_tracking_through_a_cut_tells_the_propagator_and_needs_a_look() -> None:
    reader = video(lambda f: pan(RED if f < 9 or f >= 28 else GREEN, f))
    anchors = {15: drawn(disc(30, 30, 9, HEIGHT, WIDTH))}
    propagator, plain = CutShift(), {}
    with Tracker(engine(CutShift(), None), reader, range(40), DictStore()) as tracker:
        plain = {t.frame: t for t in tracker.track(anchors, 15)}
    with Tracker(engine(propagator, Shots()), reader, range(40), DictStore()) as tracker:
        for tracked in tracker.track(anchors, 15):
            crossed = tracked.frame < 9 or tracked.frame >= 28
            before = plain[tracked.frame].quality
            assert tracked.quality == pytest.approx(before * CUT_QUALITY if crossed else before)
            assert not crossed or tracked.quality < 0.75
    assert sorted(propagator.cuts) == [9, 27]  # where they were when they were told


def test_a_stopped_track_remembers_the_cuts_it_crossed() -> None:
    reader = video(lambda f: pan(RED if f < 9 else GREEN, f))
    anchors = {2: drawn(disc(30, 30, 9, HEIGHT, WIDTH))}
    with Tracker(engine(CutShift(), Shots()), reader, range(40), DictStore()) as tracker:
        expected = {t.frame: content(t) for t in tracker.track(anchors, 2)}
    store = DictStore()
    for stop in (12, 25, 40):
        with Tracker(engine(CutShift(), Shots()), reader, range(40), store) as tracker:
            steps = tracker.track(anchors, 2)
            found = {t.frame: content(t) for t, _ in zip(steps, range(stop), strict=False)}
            steps.close()
    assert found == expected
