"""From a video's frames to clips, and from a task back to frames."""

import itertools

import pytest

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.cuts import Cut, CutPlan, video_name

CONFIG = parse_label_config(EXAMPLE)


def shown(plan: CutPlan, count: int) -> list[list[int]]:
    return [list(cut.frames) for cut in plan.cuts(count)]


def test_clips_share_their_border_frame():
    assert shown(CutPlan(4, overlap=1), 10) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert shown(CutPlan(4), 10) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_every_nth_frame_of_a_part():
    assert shown(CutPlan(3, overlap=1, every=5, first=2, last=24), 100) == [[2, 7, 12], [12, 17, 22]]
    assert shown(CutPlan(100, last=500), 3) == [[0, 1, 2]]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_no_frame_is_left_out_and_no_clip_is_superfluous(length, overlap, count):
    if overlap >= length:
        with pytest.raises(BadInput, match="overlap must be smaller"):
            CutPlan(length, overlap)
        return
    clips = shown(CutPlan(length, overlap), count)
    assert sorted({f for clip in clips for f in clip}) == list(range(count))
    assert all(clip[:overlap] == before[len(before) - overlap :] for before, clip in itertools.pairwise(clips))
    assert all(not set(clip) <= set(before) for before, clip in itertools.pairwise(clips))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 0}, "length must be"),
        ({"every": True}, "every must be"),
        ({"first": 5, "last": 4}, "before the first"),
        ({"first": -1}, "first must be"),
        ({"last": "10"}, "last must be"),
    ],
)
def test_a_plan_that_makes_no_clips_is_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        CutPlan(**fields)


def test_a_part_that_is_not_there():
    with pytest.raises(BadInput, match="there is no frame 30, the video has frames 0 to 9"):
        CutPlan(first=30).cuts(10)


def test_plan_and_cut_come_back_from_a_task():
    plan = CutPlan(50, 1, 2, 10, 300)
    assert CutPlan.of_task({"cut_plan": plan.as_json()}) == plan
    assert CutPlan.of_task({}) is None
    with pytest.raises(BadInput, match="not an object"):
        CutPlan.of_task({"cut_plan": {"size": 3}})
    with pytest.raises(BadInput, match="not an object"):
        CutPlan.of_task({"cut_plan": "50"})
    cut = Cut(10, 3, 2)
    assert Cut.of_task({"frames": ["a", "b", "c"], "cut": cut.as_json()}, CONFIG) == cut
    assert list(cut.frames) == [10, 12, 14]


def test_frames_of_tasks_that_nobody_cut_here():
    ours = [f"http://host/frames/{'ab' * 16}/{i}.jpg?sig=1" for i in (40, 41)]
    assert Cut.of_task({"frames": ours}, CONFIG) == Cut(40, 2)
    assert Cut.of_task({"frames": ["/data/upload/1/a.jpg"]}, CONFIG) == Cut(0, 1)
    assert Cut.of_task({"frames": []}, CONFIG) is None
    assert Cut.of_task({}, CONFIG) is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"video": "/data/upload/3/1a2b3c4d-street.mp4"}, "street"),
        ({"video": "/data/upload/3/1a2b3c4d-street-0123456789ab.mp4"}, "street"),
        ({"video": "/data/local-files/?d=shoot/day%201/a.b.mov"}, "a.b"),
        ({"video": "s3://bucket/x/y.mp4", "source": "Street corner.mp4#99"}, "Street_corner"),
        ({"video": "https://host/%C3%BCber.webm?x=1"}, "über"),
        ({}, "video"),
    ],
)
def test_a_name_for_people(data, name):
    assert video_name(data, CONFIG) == name
