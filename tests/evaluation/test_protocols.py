"""The protocols on scenes in which every click and every figure can be counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tam_backend.engines import Engine
from tam_backend.evaluation.datasets import load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.evaluation.protocols import PROTOCOLS, interactive, noc, offline, online, semi
from tam_backend.evaluation.protocols.base import Options
from tam_backend.segmenters.base import Segmentation
from tests.evaluation.scenes import ids_of, moving_square, square, write_davis, write_sequence
from tests.fakes import StillPropagator
from tests.tracking.fakes import DiscSegmenter, disc

HERE, THERE = square(2, 2), square(26, 12)


class Knowing:
    """A segmenter that knows the truth: it answers with the true mask of the object that is clicked."""

    name = "knowing"

    def __init__(self, root: Path) -> None:
        (paths,) = find_sequences(root).sequences
        self._sequence = load_sequence(paths)

    def segment(self, video, frame, prompts, prior=None) -> Segmentation:
        truth = self._sequence.truth(frame)
        clicked = {int(truth[int(c.y), int(c.x)]) for c in prompts.clicks if c.positive} - {0}
        return Segmentation(np.isin(truth, list(clicked)), 1.0)


class Never:
    """A segmenter that answers with nothing."""

    name = "never"

    def segment(self, video, frame, prompts, prior=None) -> Segmentation:
        return Segmentation(np.zeros((video.height, video.width), bool), 0.0)


@pytest.fixture
def jump(tmp_path: Path) -> Path:
    """Ten frames; the object is here on frames 0 to 4 and over there from frame 5 on."""
    return write_davis(tmp_path / "set", {"jump": [ids_of({1: HERE if i < 5 else THERE}) for i in range(10)]})


def still_engine(root: Path) -> Engine:
    """Knows the truth where it is clicked; where it is not, masks stay as they are."""
    return Engine("still", "1", Knowing(root), StillPropagator())


class TestOffline:
    def test_rounds_by_hand(self, jump, make_work):
        """Round 1: one click, right on frames 0 to 4. Round 2: the first of the wrong frames, 5, takes one click to add
        and one to remove; frames 3 and 4 are nearer to it than to frame 0 and become wrong. Round 3 sets that right."""
        result = offline.run(make_work(jump, engine=still_engine(jump)))
        rounds = result["objects"]["1"]["rounds"]
        assert [r["frame"] for r in rounds] == [0, 5, 3, None, None, None, None, None]
        assert [r["clicks"] for r in rounds] == [1, 3, 5, 5, 5, 5, 5, 5]
        assert [r["J&F"] for r in rounds] == pytest.approx([0.5, 0.8] + [1.0] * 6)
        figures = offline.total([result])
        assert figures["J&F@2"] == pytest.approx(0.8)
        assert figures["mean of rounds"] == pytest.approx(7.3 / 8)
        assert figures["clicks"] == 5

    def test_following_the_suggestion(self, jump, make_work):
        """All frames are of one quality, so the earliest one is suggested; only on frame 5 is anything to be done."""
        options = Options(choose="suggested")
        result = offline.run(make_work(jump, options, still_engine(jump)))
        rounds = result["objects"]["1"]["rounds"]
        assert [r["frame"] for r in rounds] == [0, 1, 2, 3, 4, 5, 6, 7]
        assert [r["clicks"] for r in rounds] == [1, 1, 1, 1, 1, 3, 3, 3]
        assert [r["J&F"] for r in rounds] == pytest.approx([0.5] * 5 + [0.8] * 3)

    def test_the_suggestion_is_a_seam(self, jump, make_work, monkeypatch):
        asked = []

        def suggest(quality, decided):
            asked.append((dict(quality), set(decided)))
            return 7 if len(asked) == 1 else None

        monkeypatch.setattr(offline, "product_suggestion", suggest)
        result = offline.run(make_work(jump, Options(choose="suggested"), still_engine(jump)))
        assert [r["frame"] for r in result["objects"]["1"]["rounds"]] == [0, 7, *[None] * 6]
        assert asked[0] == (dict.fromkeys(range(1, 10), 0.8), {0})
        assert asked[1] == (dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 9), 0.8), {0, 7})

    def test_objects_are_corrected_on_frames_of_their_own(self, tmp_path, make_work):
        ids = [ids_of({1: HERE, 2: square(14, 2) if i < 3 else THERE}) for i in range(6)]
        root = write_davis(tmp_path / "two", {"two": ids})
        result = offline.run(make_work(root, engine=still_engine(root)))
        assert [r["frame"] for r in result["objects"]["1"]["rounds"][:2]] == [0, None]
        assert [r["frame"] for r in result["objects"]["2"]["rounds"][:3]] == [0, 3, 2]


class TestOnline:
    def test_one_pass_by_hand(self, jump, make_work):
        """It stops on frame 5. What it passed was right; in the end frames 3 and 4 follow the correction."""
        result = online.run(make_work(jump, engine=still_engine(jump)))
        scored = result["objects"]["1"]
        assert scored["corrected"] == [0, 5]
        assert scored["clicks"] == 3
        assert scored["passed"]["J&F"] == 1.0
        assert scored["J"] == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
        assert online.total([result]) == pytest.approx(
            {"passed J&F": 1.0, "J&F": 0.8, "frames clicked": 2, "clicks": 3}
        )

    def test_at_most_eight_frames(self, tmp_path, make_work):
        ids = [ids_of({1: HERE if i % 2 else THERE}) for i in range(12)]
        root = write_davis(tmp_path / "set", {"flicker": ids})
        scored = online.run(make_work(root, engine=still_engine(root)))["objects"]["1"]
        assert scored["corrected"] == [0, 1, 2, 3, 4, 5, 6, 7]
        assert scored["clicks"] == 1 + 7 * 2
        assert scored["passed"]["J"] == [1] * 8 + [0, 1, 0, 1]  # the last mask, of frame 7, stays

    def test_it_does_not_stop_above_the_threshold(self, tmp_path, make_work):
        """Masks stay, the object moves: 8x8 pixels, 1 off is 7/9, above 0.75, 2 off is 6/10, below."""
        root = write_davis(tmp_path / "set", {"slow": moving_square(5)})
        scored = online.run(make_work(root, engine=still_engine(root)))["objects"]["1"]
        assert scored["corrected"] == [0, 2, 4]


class TestNoc:
    @staticmethod
    def work(make_work, tmp_path, mask, segmenter, frames=9):
        ids = np.zeros((24, 40), np.uint8)
        ids[mask] = 1
        write_davis(tmp_path / "set", {"a": [ids] * frames})
        return make_work(tmp_path / "set", engine=Engine("e", "1", segmenter, StillPropagator()))

    def test_one_click_a_part(self, tmp_path, make_work):
        """Discs of radius 5 are what the segmenter makes of a click, so one of them takes one click and two take two.
        IoU is 0.5 after the first of these."""
        two = disc(8.5, 8.5, 5, 24, 40) | disc(28.5, 12.5, 5, 24, 40)
        result = noc.run(self.work(make_work, tmp_path, two, DiscSegmenter()))
        assert result["objects"]["1"] == {"frames": [0, 2, 4, 6, 8], "IoU": [[0.5, 1.0]] * 5}
        figures = noc.total([result])
        assert figures["NoC@85"] == figures["NoC@90"] == 2
        assert figures["failed@85"] == 0
        assert (figures["IoU@1"], figures["IoU@3"], figures["IoU@10"]) == (0.5, 1.0, 1.0)

    def test_a_failure_counts_20(self, tmp_path, make_work):
        result = noc.run(self.work(make_work, tmp_path, HERE, Never()))
        assert result["objects"]["1"]["IoU"] == [[0.0] * 20] * 5
        figures = noc.total([result])
        assert (figures["NoC@85"], figures["NoC@90"], figures["failed@85"], figures["failed@90"]) == (20, 20, 1, 1)

    def test_targets_by_hand(self):
        ious = [0.3, 0.86, 0.84, 0.91]
        assert (noc.clicks_needed(ious, 0.85), noc.clicks_needed(ious, 0.90)) == (2, 4)
        assert noc.clicks_needed(ious, 0.95) == 20
        assert (noc.iou_after(ious, 1), noc.iou_after(ious, 3), noc.iou_after(ious, 10)) == (0.3, 0.84, 0.91)

    def test_frames_on_which_the_object_is_hidden_are_not_taken(self, tmp_path, make_work):
        ids = [ids_of({1: HERE} if i not in (4, 8) else {}) for i in range(9)]
        root = write_davis(tmp_path / "set", {"hidden": ids})
        result = noc.run(make_work(root, engine=still_engine(root)))
        assert result["objects"]["1"]["frames"] == [0, 2, 3, 5, 7]

    def test_each_frame_is_begun_without_a_mask(self, tmp_path, make_work):
        segmenter = DiscSegmenter()
        noc.run(self.work(make_work, tmp_path, disc(8.5, 8.5, 5, 24, 40), segmenter, frames=3))
        assert [(frame, len(p.clicks)) for frame, p in segmenter.asked] == [(0, 1), (1, 1), (2, 1)]


class TestInteractive:
    def test_rounds_by_hand(self, jump, make_work):
        """As offline; once all is right the robot looks on, frame by frame, and clicks nothing."""
        result = interactive.run(make_work(jump, engine=still_engine(jump)))
        assert [r["frames"] for r in result["rounds"]] == [[0], [5], [3], [1], [2], [4], [6], [7]]
        assert [r["clicks"] for r in result["rounds"]] == [1, 3, 5, 5, 5, 5, 5, 5]
        assert [r["J&F"]["1"] for r in result["rounds"]] == pytest.approx([0.5, 0.8] + [1.0] * 6)
        assert len(result["timing"]["rounds"]) == 8
        assert all(s >= 0 for s in result["timing"]["rounds"])

    def test_a_round_is_on_one_frame_for_all_objects(self, tmp_path, make_work):
        """Object 2 moves on frame 3, object 1 on frame 4: on frames 4 and 5 both are wrong, so 4 is the worst one."""
        ids = [ids_of({1: HERE if i < 4 else square(2, 14), 2: square(14, 2) if i < 3 else THERE}) for i in range(6)]
        root = write_davis(tmp_path / "two", {"two": ids})
        rounds = interactive.run(make_work(root, engine=still_engine(root)))["rounds"]
        assert [r["frames"] for r in rounds[:2]] == [[0], [4]]
        assert [r["clicks"] for r in rounds[:2]] == [2, 6]

    @staticmethod
    def result(values: list[float], seconds: list[float], objects: int = 1) -> dict:
        ids = [str(i + 1) for i in range(objects)]
        rounds = [{"J&F": dict.fromkeys(ids, v), "clicks": 3 * objects} for v in values]
        return {"objects": {i: {} for i in ids}, "rounds": rounds, "timing": {"rounds": seconds}}

    def test_area_by_hand(self):
        """10 s a round: 0.5 at 10 s, then 1.0 from 20 s to the 240 s that an object is allowed."""
        result = self.result([0.5] + [1.0] * 7, [10.0] * 8)
        times, values = interactive.curve([result])
        assert times == [0, 10, 20, 30, 40, 50, 60, 70, 80, 240]
        assert values == [0, 0.5, *[1.0] * 8]
        figures = interactive.total([result])
        assert figures["AUC"] == pytest.approx((2.5 + 7.5 + 220) / 240)
        assert figures["J&F@60s"] == 1.0
        assert figures["J&F@1"] == 0.5

    def test_at_60_seconds_between_two_rounds(self):
        assert interactive.total([self.result([0.4, 0.8] + [0.8] * 6, [50.0, 20.0] + [1.0] * 6)])[
            "J&F@60s"
        ] == pytest.approx(0.6)

    def test_rounds_out_of_time_do_not_count(self):
        """50 s a round: the fifth ends after 250 s, and one object has 240 s. With two objects there are 480 s."""
        values = [0.1 * n for n in range(1, 9)]
        times, counted = interactive.curve([self.result(values, [50.0] * 8)])
        assert times == [0, 50, 100, 150, 200, 200, 200, 200, 200, 240]
        assert counted == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
        times, counted = interactive.curve([self.result(values, [50.0] * 8, objects=2)])
        assert times == [0, *range(50, 401, 50), 480]
        assert counted[-1] == pytest.approx(0.8)

    def test_means_over_sequences_and_objects(self):
        """Times are means over sequences, J&F means over objects."""
        times, values = interactive.curve(
            [self.result([0.2] * 8, [10.0] * 8), self.result([0.8] * 8, [30.0] * 8, objects=3)]
        )
        assert times[1] == 20
        assert values[1] == pytest.approx((0.2 + 3 * 0.8) / 4)
        assert times[-1] == 480


class TestSemiSupervised:
    def test_late_objects(self, tmp_path, make_work):
        """Object 2 is given on frame 4. Before that it is nowhere; it is scored on frames 6 and 8, without the last."""
        ids = [ids_of({1: square(i, 2)} | ({2: square(16 + i, 14)} if i >= 4 else {})) for i in range(11)]
        sparse = [of_frame if i % 2 == 0 else None for i, of_frame in enumerate(ids)]
        write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", sparse)
        written = {}
        work = dataclasses.replace(make_work(tmp_path), write=written.__setitem__)
        result = semi.run(work)
        late = result["objects"]["2"]
        assert (late["given_on"], late["frames"], late["J"]) == (4, [6, 8], [1.0, 1.0])
        assert result["objects"]["1"]["frames"] == [2, 4, 6, 8]
        assert [sorted(set(np.unique(written[f])) - {0}) for f in (3, 4, 5)] == [[1], [1, 2], [1, 2]]
        assert np.array_equal(written[9], ids[9])

    def test_an_object_that_is_never_scored_is_in_no_mean(self, tmp_path, make_work):
        ids = moving_square(6)
        ids[-1][0:3, 0:3] = 2
        write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", ids)
        result = semi.run(make_work(tmp_path))
        assert result["objects"]["2"]["frames"] == []
        assert semi.total([result])["J&F"] == 1.0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_progress_never_goes_back_and_ends(name, jump, make_work):
    shares = []
    work = dataclasses.replace(make_work(jump, engine=still_engine(jump)), advance=shares.append)
    PROTOCOLS[name].run(work)
    assert shares == sorted(shares)
    assert 0.85 < shares[-1] <= 1
