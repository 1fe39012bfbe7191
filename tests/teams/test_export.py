"""``tam export`` and ``tam render`` of projects: which annotation counts, clips put together, and what goes wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend.export import manifest
from tam_backend.export.formats import FORMATS, read_export
from tam_backend.video import open_video
from tests.fakes import make_video
from tests.teams.masks import CONFIG, HEIGHT, WIDTH, annotation, blob, clip, region
from tests.teams.standin import StandIn


@pytest.fixture
def project(studio: StandIn, tmp_path: Path) -> dict:
    """Two clips of one video of 12 frames that share frame 6: an object on all frames, another on the last three."""
    made = studio.add_project("Crossing", CONFIG, task_number=2)
    content = make_video(tmp_path / "made.mp4", 12, WIDTH, HEIGHT).read_bytes()
    studio.uploads["00000000-street.mp4"] = content
    first = [region("Person 1", i, blob(i)) for i in range(7)]
    second = [region("Person 1", i, blob(6 + i)) for i in range(6)]
    second += [region("Ball", i, blob(40, 5)) for i in (3, 4, 5)]
    clip(studio, made["id"], 0, 7, annotations=[annotation(11, first)])
    clip(studio, made["id"], 6, 6, annotations=[annotation(12, second)])
    return made


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))


def masks_in(out: Path) -> dict[int, dict[int, np.ndarray]]:
    [video] = read_export(out).videos
    return {m.frame: dict(m.masks) for m in video.read()}


# ---- what comes out


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.reader and n != "yolo-box"])
def test_clips_become_one_video_with_its_own_frame_numbers(name, ask, project, tmp_path):
    result = ask("export", "Crossing", "--format", name, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    dataset = read_export(tmp_path / "out")
    [video] = dataset.videos
    assert (video.name, list(video.frames), video.fps) == ("street", list(range(12)), 10.0)
    assert [(t.id, t.label, t.category) for t in dataset.tracks] == [
        (1, "Person 1", "Person"), (2, "Person 2", "Person"), (3, "Ball", "Ball"),
    ]  # fmt: skip
    for frame, masks in masks_in(tmp_path / "out").items():
        assert set(masks) == ({1, 3} if frame >= 9 else {1})
        assert np.array_equal(masks[1], blob(frame))
    with video.pictures() as pictures:
        assert abs(int(pictures(7)[0, 0, 0]) - 45) < 8
    assert "street: 12 frames of 64x48 (0 to 11)" in result.out


def test_the_ground_truth_counts_else_what_was_saved_last(ask, studio, tmp_path):
    made = studio.add_project("P", CONFIG)
    ours, theirs = [region("Ball", 0, blob(3))], [region("Ball", 0, blob(30))]
    late = "2026-01-02T10:00:00Z"
    clip(studio, 1, 0, 2, annotations=[annotation(1, ours, ground_truth=True), annotation(2, theirs, late)])
    clip(studio, 1, 2, 2, annotations=[annotation(3, ours), annotation(4, theirs, late)])
    skipped = annotation(6, theirs, late, was_cancelled=True)
    clip(studio, 1, 4, 2, annotations=[annotation(5, ours), skipped])
    clip(studio, 1, 6, 2, annotations=[skipped])
    clip(studio, 1, 8, 2, annotations=[annotation(7, [])])
    result = ask("export", made["id"], "--format", "png", "--out", tmp_path / "out", "--no-pictures")
    assert result.code == 0, result.err
    masks = masks_in(tmp_path / "out")
    assert sorted(masks) == [0, 1, 2, 3, 4, 5, 8, 9], "a task without a submitted annotation is left out"
    assert [np.flatnonzero(masks[f][3].any(0))[0] for f in (0, 2, 4)] == [3, 30, 3]
    assert masks[8] == masks[9] == {}, "submitted empty: nothing is there"
    assert "1 task(s) left out, nothing was submitted: 4" in result.out
    noted = json.loads((tmp_path / "out" / manifest.FILE).read_text())["tasks"]
    assert [n["used"] for n in noted] == ["annotation 1", "annotation 4", "annotation 5", "annotation 7"]


def test_predictions_are_taken_when_they_are_asked_for(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    old, new = (
        {"id": i, "result": [region("Ball", 0, blob(x))], "created_at": f"2026-01-0{i}"} for i, x in ((1, 3), (2, 9))
    )
    clip(studio, 1, 0, 1, predictions=[new, old], total_predictions=2)
    own = [annotation(7, [region("Ball", 0, blob(30))])]
    clip(studio, 1, 1, 1, predictions=[old], total_predictions=1, annotations=own)

    def lefts(kind: str) -> list[int]:
        out = tmp_path / kind
        result = ask("export", 1, "--format", "npz", "--out", out, "--from", kind, "--no-pictures")
        assert result.code == 0, result.err
        return [int(np.flatnonzero(m[3].any(0))[0]) for m in masks_in(out).values()]

    assert lefts("predictions") == [9, 3]
    assert lefts("either") == [9, 30]
    assert lefts("annotations") == [30]


def test_on_a_shared_frame_the_mask_by_hand_counts(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    early, late = "2026-01-01T10:00:00Z", "2026-01-03T10:00:00Z"
    clip(
        studio,
        1,
        0,
        3,
        annotations=[annotation(1, [region("Ball", 2, blob(1)), region("Person 1", 2, blob(20, 2), True)], late)],
    )
    clip(
        studio,
        1,
        2,
        3,
        annotations=[
            annotation(2, [region("Ball", 0, blob(9), True), region("Person 1", 0, blob(33, 2), True)], early)
        ],
    )
    assert ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures").code == 0
    masks = masks_in(tmp_path / "out")[2]
    assert np.array_equal(masks[3], blob(9)), "drawn goes before tracked"
    assert np.array_equal(masks[1], blob(20, 2)), "of two drawn ones the one saved last"


def test_a_mask_of_ours_with_a_strayed_label_is_known_by_its_id(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    strayed = region("Ball", 0, blob(9))
    strayed["value"]["bitmasklabels"] = ["Person 2"]
    clip(studio, 1, 0, 1, annotations=[annotation(1, [strayed])])
    assert ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures").code == 0
    assert list(masks_in(tmp_path / "out")[0]) == [3]


def test_every_second_frame_keeps_its_number(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    task = clip(studio, 1, 0, 3, annotations=[annotation(1, [region("Ball", 1, blob(9))])])
    task["data"]["cut"] = {"first": 10, "count": 3, "every": 2}
    assert ask("export", 1, "--format", "davis", "--out", tmp_path / "out", "--no-pictures").code == 0
    assert {f: list(m) for f, m in masks_in(tmp_path / "out").items()} == {10: [], 12: [3], 14: []}


def test_pictures_come_from_the_video_or_else_from_those_that_tasks_list(ask, studio, project, tmp_path):
    for task in studio.tasks.values():
        first = int(task["data"]["frames"][0].rpartition("/")[2].partition(".")[0])
        for i in range(len(task["data"]["frames"])):
            name = f"0000000{task['id']}-{i}.png"
            picture = io.BytesIO()
            Image.new("RGB", (WIDTH, HEIGHT), (0, 20 * (first + i), 255)).save(picture, "PNG")
            studio.uploads[name] = picture.getvalue()
            task["data"]["frames"][i] = f"/data/upload/1/{name}"
        task["data"]["cut"] = {"first": first, "count": len(task["data"]["frames"]), "every": 1}

    def colour(out: str, frame: int) -> list[int]:
        assert ask("export", 1, "--format", "coco", "--out", tmp_path / out).code == 0
        [video] = read_export(tmp_path / out).videos
        with video.pictures() as pictures:
            return pictures(frame)[0, 0].tolist()

    assert max(colour("video", 7)) < 60, "made from the video, the pictures are of it"
    for task in studio.tasks.values():
        task["data"] |= {"video": "street.mov", "source": "street.mov"}
    found = colour("pictures", 7)
    assert abs(found[1] - 140) < 8
    assert found[2] > 245


def test_an_export_can_be_exported_as_another_format(tam, ask, project, tmp_path):
    ask("export", 1, "--format", "coco", "--out", tmp_path / "coco")
    result = tam("export", tmp_path / "coco", "--format", "mots", "--out", tmp_path / "mots")
    assert result.code == 0, result.err
    for (frame, one), (other, two) in zip(
        masks_in(tmp_path / "coco").items(), masks_in(tmp_path / "mots").items(), strict=True
    ):
        assert frame == other
        assert {t: m.tolist() for t, m in one.items()} == {t: m.tolist() for t, m in two.items()}


# ---- what is written where


def test_a_dry_run_writes_nothing(ask, project, tmp_path):
    before = set(tmp_path.rglob("*"))
    result = ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--dry-run")
    assert result.code == 0, result.err
    assert "street: 12 frames of 64x48" in result.out
    assert "nothing is written" in result.out
    assert set(tmp_path.rglob("*")) == before


def test_a_newer_export_takes_the_place_of_the_old_one(ask, project, tmp_path):
    out = tmp_path / "out"
    ask("export", 1, "--format", "coco", "--out", out)
    assert ask("export", 1, "--format", "davis", "--out", out, "--no-pictures").code == 0
    assert sorted(p.name for p in out.iterdir()) == ["Annotations", "ImageSets", "export.json"]
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_files_of_others_are_not_replaced(ask, project, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    result = ask("export", 1, "--format", "coco", "--out", out)
    assert result.code == 2
    assert "has files that are not from an export" in result.err
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_the_old_export(ask, studio, project, tmp_path):
    out = tmp_path / "out"
    ask("export", 1, "--format", "coco", "--out", out, "--no-pictures")
    before = (out / "annotations" / "instances.json").read_bytes()
    broken = region("Ball", 0, blob(3)) | {"original_width": 5}
    studio.tasks[2]["annotations"] = [annotation(13, [broken])]
    result = ask("export", 1, "--format", "coco", "--out", out, "--no-pictures")
    assert result.code == 2
    assert "task 2, annotation 13" in result.err
    assert (out / "annotations" / "instances.json").read_bytes() == before


# ---- what goes wrong


def test_a_server_that_vanishes_is_met_again_where_it_left(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    for i in range(12):
        clip(studio, 1, i, 1, annotations=[annotation(i + 1, [region("Ball", 0, blob(i))])])
    studio.answers = 10
    result = ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures")
    assert result.code == 1
    assert "the same command goes on from here" in result.err
    assert not (tmp_path / "out").exists()
    fetched = len(studio.asked("GET", r"/annotations/$"))
    assert 0 < fetched < 12
    studio.answers = None
    result = ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures")
    assert result.code == 0, result.err
    assert len(masks_in(tmp_path / "out")) == 12
    assert len(studio.asked("GET", r"/annotations/$")) == 12, "nothing is fetched twice"


def test_what_changed_meanwhile_is_fetched_again(ask, studio, tmp_path):
    studio.add_project("P", CONFIG)
    for i in range(4):
        clip(studio, 1, i, 1, annotations=[annotation(i + 1, [region("Ball", 0, blob(i))])])
    studio.answers = 5
    assert ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures").code == 1
    studio.answers = None
    studio.tasks[1] |= {"updated_at": "2027-01-01", "annotations": [annotation(1, [region("Ball", 0, blob(40))])]}
    assert ask("export", 1, "--format", "coco", "--out", tmp_path / "out", "--no-pictures").code == 0
    assert np.array_equal(masks_in(tmp_path / "out")[0][3], blob(40))


def test_a_project_without_anything_says_so(ask, studio, tmp_path):
    studio.add_project("Empty", CONFIG)
    result = ask("export", "Empty", "--format", "coco", "--out", tmp_path / "out")
    assert result.code == 2
    assert "nothing to export in project 'Empty' (it has no tasks)" in result.err


def test_a_video_that_cannot_be_read_is_said(ask, studio, project, tmp_path):
    studio.uploads["00000000-street.mp4"] = b"no video"
    result = ask("export", 1, "--format", "coco", "--out", tmp_path / "out")
    assert result.code == 1
    assert "Without pictures: --no-pictures" in result.err


# ---- render


def test_render_draws_what_was_submitted(ask, project, tmp_path):
    result = ask("render", 1, "--out", tmp_path / "videos")
    assert result.code == 0, result.err
    with open_video(tmp_path / "videos" / "street.mp4") as video:
        assert len(video) == 12
        assert video.height > HEIGHT
    result = ask("render", 1, "--out", tmp_path / "videos")
    assert result.code == 2
    assert "exists" in result.err


def test_render_puts_predictions_beside_what_was_submitted(ask, studio, project, tmp_path):
    for task in studio.tasks.values():
        task |= {
            "predictions": [{"id": 50 + task["id"], "result": [region("Ball", 0, blob(9))]}],
            "total_predictions": 1,
        }
    result = ask("render", 1, "--as", "side-by-side", "--out", tmp_path / "videos")
    assert result.code == 0, result.err
    with open_video(tmp_path / "videos" / "street.mp4") as video:
        assert video.width == 2 * WIDTH
        left, right = video[0][:, :WIDTH].astype(int), video[0][:HEIGHT, WIDTH:].astype(int)
        assert left[24, 13, 1] > left[24, 13, 2] + 10, "the ball's colour on the left"
        assert right[24, 4, 0] > right[24, 4, 1] + 10, "the person's colour on the right"


def test_render_shows_the_worst_frames(ask, studio, project, tmp_path):
    result = ask("render", 1, "--as", "worst", "--count", 3, "--out", tmp_path / "sheets")
    assert result.code == 0, result.err
    assert "3 frames, 0 of them need a look; the worst is 0" in result.out
    assert (tmp_path / "sheets" / "street-worst.jpg").read_bytes()[:2] == b"\xff\xd8"
