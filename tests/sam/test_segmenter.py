from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from tam_backend.devices import DeviceError
from tam_backend.errors import BadInput
from tam_backend.prompts import Box, Click, FramePrompts
from tam_backend.segmenters.sam import Candidates, EmbeddingCache, Predictor, SamSegmenter
from tam_backend.segmenters.sam.segmenter import agree
from tests.array_video import ArrayVideo

SIZE = (48, 64)


@pytest.fixture(scope="module")
def video() -> ArrayVideo:
    return ArrayVideo(np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Grows by the frames that are encoded and by the mask prompts that are decoded."""
    seen: dict[str, list[Any]] = {"encode": [], "decode": []}
    encode, decode = Predictor.encode, Predictor.decode

    def count_encode(self: Predictor, frame: Any) -> Any:
        seen["encode"].append(frame.shape)
        return encode(self, frame)

    def count_decode(self: Predictor, embedding: Any, points: Any, labels: Any, box: Any, low_res: Any, several: bool):
        seen["decode"].append((labels, low_res, several))
        return decode(self, embedding, points, labels, box, low_res, several)

    monkeypatch.setattr(Predictor, "encode", count_encode)
    monkeypatch.setattr(Predictor, "decode", count_decode)
    return seen


def clicks(count: int, seed: int = 0) -> tuple[Click, ...]:
    random = np.random.default_rng(seed)
    places = random.uniform(0, 1, (count, 2)) * (SIZE[1], SIZE[0])
    return tuple(Click(float(x), float(y), positive=i % 3 != 1) for i, (x, y) in enumerate(places))


def test_ten_clicks_on_one_frame_encode_once(tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]) -> None:
    segmenter = SamSegmenter(tiny)
    for count in range(1, 11):
        segmenter.segment(video, 2, FramePrompts(clicks(count)))
    assert len(calls["encode"]) == 1
    assert len(calls["decode"]) == 10
    assert segmenter.embeddings.misses == 1


def test_ten_clicks_from_two_threads_encode_once(tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]) -> None:
    segmenter = SamSegmenter(tiny)
    barrier = threading.Barrier(2)

    def annotator(seed: int) -> list[Any]:
        barrier.wait()
        return [segmenter.segment(video, 2, FramePrompts(clicks(n, seed))).mask for n in range(1, 11)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(annotator, (1, 2)))
    assert len(calls["encode"]) == 1
    assert segmenter.embeddings.misses == 1
    for seed, masks in zip((1, 2), results, strict=True):
        alone = SamSegmenter(tiny)
        for n, mask in enumerate(masks, 1):
            assert np.array_equal(alone.segment(video, 2, FramePrompts(clicks(n, seed))).mask, mask)


def test_other_frames_and_videos_are_encoded_on_their_own(
    tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]
) -> None:
    segmenter = SamSegmenter(tiny)
    other = ArrayVideo(video[0][None], key="other")
    for source, frame in ((video, 0), (video, 1), (other, 0), (video, 0)):
        segmenter.segment(source, frame, FramePrompts(clicks(1)))
    assert len(calls["encode"]) == 3


def test_the_embedding_cache_is_bounded_in_bytes(tiny: Sam, video: ArrayVideo) -> None:
    segmenter = SamSegmenter(tiny, embeddings=EmbeddingCache(2 * (32 * 16 * 16 * 2 + 32 * 4)), answer_bytes=0)
    for frame in (0, 1, 2, 2, 1, 0):
        segmenter.segment(video, frame, FramePrompts(clicks(1)))
    assert len(segmenter.embeddings) == 2
    assert (segmenter.embeddings.misses, segmenter.embeddings.hits) == (4, 2)


@pytest.mark.parametrize("seed", range(8))
def test_every_click_is_respected(tiny: Sam, video: ArrayVideo, seed: int) -> None:
    segmenter = SamSegmenter(tiny)
    for count in (1, 2, 4, 7):
        made = clicks(count, seed)
        result = segmenter.segment(video, 0, FramePrompts(made, Box(3, 4, 60, 40) if seed % 2 else None))
        assert result.mask.shape == SIZE
        assert result.mask.dtype == bool
        assert 0 <= result.score <= 1
        assert all(bool(result.mask[int(c.y), int(c.x)]) == c.positive for c in made)


def test_the_same_prompts_give_the_same_mask_whatever_was_asked_before(tiny: Sam, video: ArrayVideo) -> None:
    one_by_one, at_once = SamSegmenter(tiny), SamSegmenter(tiny, answer_bytes=0)
    for count in range(1, 6):
        first = one_by_one.segment(video, 0, FramePrompts(clicks(count)))
    second = at_once.segment(video, 0, FramePrompts(clicks(5)))
    assert np.array_equal(first.mask, second.mask)
    assert first.score == second.score


def test_one_click_asks_for_candidates_and_further_ones_for_one_mask(
    tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]
) -> None:
    segmenter = SamSegmenter(tiny)
    segmenter.segment(video, 0, FramePrompts(clicks(3)))
    assert [(labels, low_res is None, several) for labels, low_res, several in calls["decode"]] == [
        ([1], True, True),
        ([1, 0], False, False),
        ([1, 0, 1], False, False),
    ]
    segmenter.segment(video, 1, FramePrompts((), Box(3, 4, 40, 30)))
    segmenter.segment(video, 1, FramePrompts(clicks(1), Box(3, 4, 40, 30)))
    boxed, with_click = calls["decode"][3:]
    assert boxed == (None, None, False)
    assert with_click[0] == [1]
    assert with_click[1] is not None
    assert not with_click[2]


def test_negative_clicks_before_the_first_positive_one(
    tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]
) -> None:
    made = (Click(3, 4, positive=False), Click(30, 20))
    result = SamSegmenter(tiny).segment(video, 0, FramePrompts(made))
    assert not result.mask[4, 3]
    assert result.mask[20, 30]
    assert [labels for labels, _, _ in calls["decode"]] == [[0, 1]]


class Scripted(Predictor):
    """Answers one click with three nested squares around the middle, trusting the middle one most."""

    def decode(self, embedding: Any, points: Any = None, labels: Any = None, box: Any = None, low_res: Any = None, several: bool = False) -> Candidates:  # fmt: skip  # noqa: E501
        self.given = low_res
        if not several:
            return Candidates(np.asarray(low_res)[None], np.array([0.5], np.float32))
        squares = np.full((3, 64, 64), -1.0, np.float32)
        for i, size in enumerate((4, 10, 20)):  # the frame is 64 wide and 48 high: low-res pixels are frame pixels
            squares[i, 24 - size : 24 + size, 32 - size : 32 + size] = 1
        return Candidates(squares, np.array([0.3, 0.9, 0.6], np.float32))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (Click(32 + 7, 24), 20),  # in the middle square, as chosen before
        (Click(32 + 15, 24), 40),  # positive outside the chosen one: the whole
        (Click(32 + 7, 24, positive=False), 8),  # negative inside the chosen one: the part
        (Click(32 + 15, 24, positive=False), 20),
        (Click(2, 2), 20),  # in none: the chosen one, and SAM has to see
    ],
)
def test_a_second_click_switches_between_part_and_whole(
    tiny: Sam, video: ArrayVideo, second: Click, expected: int
) -> None:
    segmenter = SamSegmenter(tiny)
    segmenter._predictor = Scripted(tiny)
    first = Click(32.5, 24.5)
    assert segmenter.segment(video, 0, FramePrompts((first,))).mask.any(0).sum() == 20
    segmenter.segment(video, 0, FramePrompts((first, second)))
    assert (segmenter._predictor.given > 0).any(0).sum() == expected


def test_the_mask_that_clicks_correct_is_a_mask_prompt(
    tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]
) -> None:
    """SIZE is 48x64 and the encoder's image 256 wide, so a pixel of the frame is one of the low-res logits."""
    segmenter = SamSegmenter(tiny)
    prior = np.zeros(SIZE, bool)
    prior[10:30, 20:50] = True
    corrected = segmenter.segment(video, 0, FramePrompts(clicks(2)), prior)
    (labels, low_res, several), (_, fed_back, _) = calls["decode"]
    assert (labels, several) == ([1], False), "with a mask beside it, one click is not ambiguous"
    assert low_res.shape == (64, 64)
    assert np.array_equal(low_res[:48] == 10, prior)
    assert np.array_equal(low_res == -10, ~np.pad(prior, ((0, 16), (0, 0))))
    assert not np.array_equal(fed_back, low_res), "further clicks get SAM's own logits"
    calls["decode"].clear()
    alone = segmenter.segment(video, 0, FramePrompts(clicks(2)))
    assert len(calls["decode"]) == 2, "answers with and without that mask are kept apart"
    assert not np.array_equal(alone.mask, corrected.mask)
    assert len(calls["encode"]) == 1
    again = SamSegmenter(tiny).segment(video, 0, FramePrompts(clicks(2)), prior)
    assert np.array_equal(again.mask, corrected.mask)


def test_a_mask_drawn_by_hand_is_the_truth(tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]) -> None:
    mask = np.zeros(SIZE, bool)
    mask[3:9, 4:30] = True
    result = SamSegmenter(tiny).segment(video, 0, FramePrompts(clicks(2), mask=mask))
    assert np.array_equal(result.mask, mask)
    assert calls["encode"] == []


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (FramePrompts((Click(64, 3),)), r"click \(64, 3\) is outside the frame"),
        (FramePrompts((), Box(3, 3, 65, 9)), "must be left < right <= 64"),
        (FramePrompts((Click(3, 3, positive=False),)), "negative clicks alone"),
        (FramePrompts(), "negative clicks alone"),
    ],
)
def test_prompts_that_do_not_fit(tiny: Sam, video: ArrayVideo, prompts: FramePrompts, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SamSegmenter(tiny).segment(video, 0, prompts)


def test_a_full_device_fails_with_advice_and_the_next_frame_works(
    tiny: Sam, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = SamSegmenter(tiny)

    def fail(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("tam_backend.segmenters.sam.predictor.encode", fail)
        with pytest.raises(DeviceError, match=r"not enough memory on cpu for SAM to segment a frame\. Choose"):
            segmenter.segment(video, 0, FramePrompts(clicks(1)))
    assert segmenter.segment(video, 0, FramePrompts(clicks(1))).mask.shape == SIZE


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_device_that_has_room_again_is_tried_once_more(
    tiny: Sam, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = SamSegmenter(tiny).segment(video, 0, FramePrompts(clicks(2)))
    room: list[bool] = []
    segmenter = SamSegmenter(tiny, make_room=lambda: room.append(True))
    encode = Predictor.encode

    def fail_without_room(self: Predictor, frame: Any) -> Any:
        if not room:
            raise error
        return encode(self, frame)

    monkeypatch.setattr(Predictor, "encode", fail_without_room)
    assert np.array_equal(segmenter.segment(video, 0, FramePrompts(clicks(2))).mask, expected.mask)
    assert room == [True]


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tiny: Sam, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Predictor, "decode", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        SamSegmenter(tiny).segment(video, 0, FramePrompts(clicks(1)))


def test_agree_changes_little_and_only_where_it_must() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    made = (Click(2.5, 3.5), Click(4, 4, positive=False), Click(5, 4), Click(15, 15))
    result = agree(mask, made)
    assert [bool(result[int(c.y), int(c.x)]) for c in made] == [c.positive for c in made]
    assert (result != mask).sum() < 30
    assert np.array_equal(agree(mask, (Click(1, 1), Click(19, 19, positive=False))), mask)


def test_refine_is_one_question_with_points_and_logits(tiny: Sam, video: ArrayVideo, calls: dict[str, list[Any]]):
    logits = np.random.default_rng(3).normal(0, 4, SIZE).astype(np.float32)
    refined = SamSegmenter(tiny).refine(video, 1, clicks(4), logits)
    ((labels, low_res, several),) = calls["decode"]
    assert labels == [1, 0, 1, 1]
    assert not several
    predictor = Predictor(tiny)
    height, width = (side // 4 for side in predictor.input_shape(SIZE))
    assert low_res[:height, :width].mean() == pytest.approx(logits.mean(), abs=0.05)  # logits, not probabilities
    assert np.abs(low_res[:height, :width]).max() > 2
    assert (low_res[height:] == -10).all()
    shift = 0.5 / predictor.scale(SIZE)
    answer = predictor.decode(
        predictor.encode(video[1]), [(c.x - shift, c.y - shift) for c in clicks(4)], labels, None, low_res, False
    )
    large = predictor.enlarge(answer.low_res[:1], SIZE)[0]
    assert np.array_equal(refined.mask, large > 0)
    assert np.array_equal(refined.mask, refined.soft >= 128)
    assert refined.stability == pytest.approx((large > 1).sum() / max(1, (large > -1).sum()))
    assert refined.score == pytest.approx(np.clip(answer.iou[0], 0, 1))
