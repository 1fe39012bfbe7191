"""``tam inpaint --task``: what people accepted in Label Studio is taken out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tam_backend.masks import encode_bitmask_url, encode_brush_rle
from tam_backend.video import open_video
from tam_backend.video.write import VideoWriter

WIDTH, HEIGHT, FRAMES = 96, 64, 10
CONFIG = """
<View>
  <Image name="image" valueList="$frames"/>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="Ball"/><Label value="Box"/></KeyPointLabels>
  <BrushLabels name="mask" toName="image"><Label value="Ball"/><Label value="Box"/></BrushLabels>
  <View style="display:none">
    <Text name="video" value="$video"/>
    <RectangleLabels name="box" toName="image"><Label value="Ball"/><Label value="Box"/></RectangleLabels>
  </View>
</View>
"""


def ball(frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    return cv2.circle(mask, (15 + 7 * frame, 30), 8, 1, -1) > 0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    scene = cv2.GaussianBlur(noise, (0, 0), 2)
    with VideoWriter(path, 10, (WIDTH, HEIGHT)) as video:
        for i in range(FRAMES):
            video.write(np.where(ball(i)[..., None], np.uint8(250), scene))
    return path


def region(label: str, index: int, mask: np.ndarray, bitmask: bool = False) -> dict:
    value = {"imageDataURL": encode_bitmask_url(mask)} if bitmask else {"format": "rle", "rle": encode_brush_rle(mask)}
    return {
        "id": f"{label}{index}", "from_name": "mask", "to_name": "image", "type": "brushlabels", "origin": "manual",
        "item_index": index, "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {"brushlabels": [label], **value},
    }  # fmt: skip


@pytest.fixture
def task(studio, film) -> dict:
    """A task of frames 2 to 9 whose newest annotation that counts has the ball."""
    project = studio.add_project(label_config=CONFIG)
    studio.uploads["00000000-film.mp4"] = film.read_bytes()
    shown = range(2, FRAMES)
    balls = [region("Ball", i, ball(frame)) for i, frame in enumerate(shown)]
    boxes = [region("Box", i, np.pad(np.ones((6, 6), bool), ((50, 8), (4, 86)))) for i, _ in enumerate(shown)]
    nothing = {"result": [], "updated_at": "2026-11-28T12:00:00Z"}
    data = {
        "video": "/data/upload/1/00000000-film.mp4",
        "frames": [f"http://b/{i}.jpg" for i in shown],
        "cut": {"first": 2, "count": len(shown), "every": 1},
    }
    return studio.add_task(
        project["id"],
        data,
        annotations=[
            {"id": 1, "was_cancelled": False, **nothing, "updated_at": "2026-11-28T10:00:00Z"},
            {"id": 2, "was_cancelled": False, "result": balls + boxes, "updated_at": "2026-11-28T11:00:00Z"},
            {"id": 3, "was_cancelled": True, **nothing},
        ],
    )


@pytest.mark.parametrize("given", [True, False])
def test_accepted_masks_are_taken_out(ask, studio, task, film, tmp_path, monkeypatch, given):
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    out = tmp_path / "frames"
    result = ask("inpaint", *([film] if given else []), "--task", task["id"], "--object", "Ball", "--out", out)
    assert result.code == 0, result.err
    assert [p.name for p in sorted(out.iterdir())] == [f"{i:05d}.png" for i in range(2, FRAMES)]
    source = open_video(film)
    for i in range(2, FRAMES):
        mine = np.array(Image.open(out / f"{i:05d}.png"))
        assert source[i][ball(i)].mean() > 230 > 180 > mine[ball(i)].mean()
        assert np.array_equal(mine[48:58, 2:12], source[i][48:58, 2:12]), "the box stays"
    assert len(studio.asked("GET", "/data/upload/")) == (0 if given else 1)
    assert [p.name for p in tmp_path.iterdir() if p.name != "data"] == ["frames"]


def test_masks_as_bitmasks_and_strokes_count_alike(ask, task, film, tmp_path):
    for i, entry in enumerate(task["annotations"][1]["result"][:8]):
        entry["value"] = region("Ball", i, ball(2 + i), bitmask=True)["value"]
    result = ask("inpaint", film, "--task", task["id"], "--object", "Ball", "--out", tmp_path / "o.mp4")
    assert result.code == 0, result.err
    assert len(open_video(tmp_path / "o.mp4")) == 8


def test_what_cannot_be_used(ask, studio, task, film, tmp_path):
    def refused(number: object, *more: object) -> str:
        result = ask("inpaint", film, "--task", number, "--out", tmp_path / "o.mp4", *more)
        assert result.code == 2
        assert not list(tmp_path.iterdir())
        return result.err

    assert "task 99: there is no such task on" in refused(99)
    assert "x: a task is a number" in refused("x")
    assert "--object Cat: an object is a number from 1 to 255; the labels there are Ball, Box" in refused(
        task["id"], "--object", "Cat"
    )
    assert "task 1 has no mask for 2 of the 10 frames; the first is frame 0" in refused(task["id"], "--start", 0)
    wide = json.loads(json.dumps(task["annotations"][1]["result"]))
    for entry in wide:
        entry["original_width"] = 100
    task["annotations"][1]["result"] = wide
    assert "was made on a picture of 100x64 pixels, but the video's frames are 96x64" in refused(task["id"])
    task["data"]["cut"]["first"] = 5
    assert "task 1 shows frames 5 to 12, but the video has frames 0 to 9" in refused(task["id"])
    task["annotations"] = task["annotations"][2:]
    assert "nobody has submitted an annotation of this task" in refused(task["id"])


def test_frames_between_have_no_masks(ask, task, film, tmp_path):
    task["data"]["cut"] = {"first": 0, "count": 8, "every": 2}
    task["data"]["frames"] = task["data"]["frames"][:4]
    result = ask("inpaint", film, "--task", task["id"], "--out", tmp_path / "o.mp4")
    assert result.code == 2
    assert "task 1 shows one of 2 frames, and the frames between have no masks: import the video without" in result.err


# ---- masks that Label Studio or tam export wrote


def exported(path: Path, *tasks: dict) -> Path:
    """As Label Studio's export "JSON" writes tasks."""
    keys = ("id", "data", "annotations", "drafts", "predictions", "project")
    path.write_text(json.dumps([{k: t[k] for k in keys} for t in tasks]))
    return path


def test_a_file_that_label_studio_exported_says_the_same_as_the_task(ask, task, film, tmp_path):
    masks = exported(tmp_path / "project-1.json", task)
    given = ("--object", "Ball", "--start", 2, "--out")
    assert ask("inpaint", film, masks, *given, tmp_path / "by-file").code == 0
    assert ask("inpaint", film, "--task", task["id"], *given, tmp_path / "by-task").code == 0
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("by-file", "by-task"))
    assert len(one) == 8
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_clips_in_a_file_are_one_video(ask, studio, task, film, tmp_path):
    """The border frame that both show has the mask that a person made; tasks of other videos do not count."""
    first = json.loads(json.dumps(task))
    first |= {"id": 7}
    first["data"] |= {"cut": {"first": 0, "count": 3, "every": 1}, "frames": task["data"]["frames"][:3]}
    tracked = [region("Ball", i, ball(i)) | {"origin": "prediction"} for i in range(2)]
    tracked.append(region("Ball", 2, np.ones((HEIGHT, WIDTH), bool)) | {"origin": "prediction"})
    newer = {"id": 4, "was_cancelled": False, "result": tracked, "updated_at": "2026-11-29T11:00:00Z"}
    first["annotations"] = [newer]
    other = json.loads(json.dumps(task)) | {"id": 8}
    other["data"]["video"] = "/data/upload/1/00000000-other.mp4"
    masks = exported(tmp_path / "project-1.json", task, first, other)
    result = ask("inpaint", film, masks, "--object", "Ball", "--out", tmp_path / "frames")
    assert result.code == 0, result.err
    source = open_video(film)
    for i in range(FRAMES):
        mine = np.array(Image.open(tmp_path / "frames" / f"{i:05d}.png"))
        assert mine[ball(i)].mean() < 180
        assert np.array_equal(mine[:, -2:], source[i][:, -2:]), "not the tracked mask of the whole frame"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no", "cannot be read as JSON"),
        ('{"a": 1}', "is not an export of Label Studio: in its dialog Export choose JSON"),
        ('[{"data": {"video": "film.mp4"}}]', "choose JSON, not JSON-MIN"),
        ("[]", "has no task of this video that was submitted"),
        ('[{"id": 1, "data": {"video": "film.mp4"}, "annotations": []}]', "has no task of this video"),
        (
            '[{"id": 1, "data": {"video": "film.mp4"}, "annotations": [{"id": 2, "result": []}]}]',
            "task 1 in the file has no list of frames",
        ),
        (
            '[{"data": {"video": "a.mp4"}, "annotations": []}, {"data": {"video": "b.mp4"}, "annotations": []}]',
            "has tasks of 2 videos (a, b), and none of them is called film.mp4",
        ),
    ],
)
def test_files_that_are_no_masks(ask, film, tmp_path, content, message):
    (tmp_path / "masks.json").write_text(content)
    result = ask("inpaint", film, tmp_path / "masks.json", "--out", tmp_path / "o.mp4")
    assert result.code == 2
    assert message in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["masks.json"]


@pytest.mark.parametrize(("name", "folder"), [("davis", "Annotations/480p/film"), ("png", "masks/film/001_Ball")])
def test_masks_that_tam_export_wrote(ask, task, film, tmp_path, monkeypatch, name, folder):
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    task |= {"total_annotations": 2, "total_predictions": 0}
    assert ask("export", 1, "--format", name, "--out", tmp_path / "set", "--no-pictures").code == 0
    [masks] = (p for p in (tmp_path / "set").glob(folder.replace("480p", "*")) if p.is_dir())
    given = ("--start", 2, "--end", FRAMES - 1, "--object", 1, "--out")
    result = ask("inpaint", film, masks, *given, tmp_path / "by-export")
    assert result.code == 0, result.err
    assert ask("inpaint", film, "--task", task["id"], *given, tmp_path / "by-task").code == 0
    for frame in range(2, FRAMES):
        mine, other = (np.array(Image.open(tmp_path / n / f"{frame:05d}.png")) for n in ("by-export", "by-task"))
        assert np.abs(mine[ball(frame)].astype(int) - other[ball(frame)]).mean() < 2
