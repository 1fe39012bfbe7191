"""``tam import``: videos become tasks, once, whatever happens in between."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.layouts import labeling_config
from tam_backend.labelstudio.seeds import seeded_anchors
from tests.fakes import make_video

FRAMES, WIDTH, HEIGHT = 20, 32, 24
CONFIG = labeling_config(["Person 1", "Person 2", "Ball"], "bitmask")


@pytest.fixture
def project(studio):
    project = studio.add_project("Street", CONFIG)
    studio.backends[1] = {"id": 1, "project": project["id"], "url": "http://backend.test", "state": "CO"}
    return project["id"]


def cut(task: dict) -> None:
    """The backend gives a task its frames at once."""
    if "cut_plan" in task["data"]:
        task["data"]["frames"] = ["http://backend.test/frames/x/0.jpg"]


def data_of(studio) -> list[dict]:
    return [task["data"] for task in studio.tasks.values()]


# ---- frames by the backend


def test_the_backend_cuts(ask, studio, project, video):
    studio.on_task = cut
    result = ask("import", "Street", video, "--clip", "8", "--every", "2", "--start", "1", "--end", "18")
    assert result.code == 0, result.err
    [data] = data_of(studio)
    assert data["cut_plan"] == {"length": 8, "overlap": 1, "every": 2, "first": 1, "last": 18}
    assert data["source"].startswith("tiny.mp4#")
    [(name, content)] = studio.uploads.items()
    assert content == video.read_bytes()
    assert data["video"] == f"/data/upload/{project}/{name}"
    assert "20 frames, 2 clips: 1 to 15, 15 to 17" in result.out
    again = ask("import", "Street", video)
    assert again.code == 0
    assert "is in the project already: task 1" in again.out
    assert (len(studio.tasks), len(studio.uploads)) == (1, 1)


def test_addresses_are_handed_on(ask, studio, project):
    studio.on_task = cut
    addresses = ["s3://bucket/a.mp4", "https://host.test/b.webm?x=1", "/data/local-files/?d=c/d.mov"]
    assert ask("import", "1", *addresses).code == 0
    assert [d["video"] for d in data_of(studio)] == addresses
    assert studio.uploads == {}


def test_what_the_backend_says_is_wrong_is_said(ask, studio, project, video):
    studio.on_task = lambda t: t["data"].update(frames=["http://x"], clip="ERROR: it has no pictures")
    result = ask("import", "Street", video)
    assert result.code == 1
    assert "tiny.mp4: it has no pictures" in result.err


def test_a_backend_that_is_not_there_or_slow(ask, studio, project, video, monkeypatch):
    monkeypatch.setattr("tam_backend.commands.import_videos._NUDGE_SECONDS", 0.0)
    monkeypatch.setattr("tam_backend.commands.import_videos._POLL_SECONDS", 0.05)
    result = ask("import", "Street", video, "--frames-wait", "0.3")
    assert result.code == 1
    assert "has not made the clips of tiny.mp4 within 0.3 s" in result.err
    assert len(studio.asked("GET", r"^/api/tasks/1\?")) == 1  # it was asked by opening the task
    studio.backends.clear()
    result = ask("import", "Street", video)
    assert result.code == 2
    assert "has no backend" in result.err


# ---- pictures


@pytest.fixture
def upload(ask, project):
    return lambda video, *more: ask("import", "Street", video, "--frames-from", "upload", "--clip", "8", *more)


def test_pictures_are_uploaded_with_the_video_beside_them(upload, studio, video):
    result = upload(video, "--overlap", "1", "--every", "2")
    assert result.code == 0, result.err
    clips = data_of(studio)
    assert [c["cut"] for c in clips] == [{"first": 0, "count": 8, "every": 2}, {"first": 14, "count": 3, "every": 2}]
    assert [c["clip"] for c in clips] == ["frames 0 to 14 of 20, every 2", "frames 14 to 18 of 20, every 2"]
    assert clips[0]["frames"][7] == clips[1]["frames"][0]  # the border is one picture
    assert len({c["video"] for c in clips}) == 1
    assert len(studio.uploads) == 10 + 1
    name = clips[1]["frames"][2].rpartition("/")[2]
    picture = np.asarray(Image.open(io.BytesIO(studio.uploads[name])))
    assert abs(int(picture[2, 2, 0]) - (10 + 5 * 18)) < 6


@pytest.mark.parametrize("answers", [1, 3, 5, 7, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("carried", [False, True])
def test_it_goes_on_where_label_studio_vanished(answers, carried, upload, studio, video, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.projects._PAUSES", (0.05,))
    monkeypatch.setattr("tam_backend.commands.import_frames._BATCH", 5)
    studio.answers, studio.carried = answers, carried
    broken = upload(video, "--wait", "0.1")
    if broken.code:
        assert broken.code == 1
        assert "does not answer" in broken.err
    studio.answers = None
    assert upload(video).code == 0
    assert [d["cut"]["first"] for d in data_of(studio)] == [0, 7, 14]
    pictures = [name.partition("-")[2] for name in studio.uploads]
    assert len(pictures) == len(set(pictures)) == FRAMES + 1


def test_a_label_studio_that_restarts_is_waited_for(upload, studio, video):
    studio.answers, studio.seconds_away = 4, 0.6
    assert upload(video, "--wait", "20").code == 0
    assert len(studio.tasks) == 3


def test_what_is_missing_is_added_and_nothing_else(upload, studio, video):
    upload(video)
    del studio.tasks[2]
    assert "1 task made" in upload(video).out
    assert sorted(d["cut"]["first"] for d in data_of(studio)) == [0, 7, 14]
    other = upload(video, "--every", "3")
    assert other.code == 1
    assert "cut in another way" in other.err
    assert len(studio.tasks) == 3


def test_pictures_of_a_folder_are_a_video(upload, ask, studio, folder):
    assert "for a folder of pictures say --frames-from upload" in ask("import", "Street", folder).err
    result = upload(folder)
    assert result.code == 0
    assert "only the pictures are in Label Studio" in result.out
    [data] = data_of(studio)
    assert len(data["frames"]) == 5
    assert data["video"] == f"{folder.name}/"


def test_local_files(ask, studio, project, video, tmp_path):
    root = tmp_path / "served"
    root.mkdir()
    options = ("--frames-from", "local-files", "--local-root", root, "--local-root-there", "/data/files")
    assert ask("import", "Street", video, *options, "--clip", "8").code == 0
    assert [s["path"] for s in studio.storages] == ["/data/files/tam"]
    clips = data_of(studio)
    address = clips[0]["frames"][3]
    assert address.startswith("/data/local-files/?d=tam/tiny-")
    with Image.open(root / address.partition("?d=")[2]) as picture:
        assert picture.size == (WIDTH, HEIGHT)
    assert (root / clips[0]["video"].partition("?d=")[2]).read_bytes() == video.read_bytes()
    written = {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")}
    studio.tasks.clear()
    assert ask("import", "Street", video, *options, "--clip", "8").code == 0
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.jpg")} == written
    assert len(studio.storages) == 1


# ---- what is named


def test_files_folders_and_patterns(ask, studio, project, tmp_path):
    studio.on_task = cut
    for name in ("b.mp4", "a.mp4"):
        make_video(tmp_path / name, 3 if name == "a.mp4" else 4, WIDTH, HEIGHT)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "b.mp4").write_bytes((tmp_path / "b.mp4").read_bytes())
    (tmp_path / "notes.txt").write_text("no video")
    result = ask("import", "Street", tmp_path, f"{tmp_path}/**/*.mp4", tmp_path / "a.mp4")
    assert result.code == 0, result.err
    assert [d["source"].partition("#")[0] for d in data_of(studio)] == ["a.mp4", "b.mp4"]


def test_a_video_that_cannot_be_read_does_not_stop_the_others(upload, studio, video, tmp_path, ask):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    result = ask("import", "Street", tmp_path / "broken.mp4", video, "--frames-from", "upload")
    assert result.code == 1
    assert "broken.mp4" in result.err
    assert "Traceback" not in result.err
    assert len(studio.tasks) == 1


def test_a_dry_run_changes_nothing(upload, ask, studio, project, video):
    assert "20 pictures and 3 task(s) would be made" in upload(video, "--dry-run").out
    assert "would be uploaded, and cut by the backend" in ask("import", "Street", video, "--dry-run").out
    assert all(method == "GET" for method, _ in studio.requests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Street", "missing.mp4"), "there is no video missing.mp4"),
        (("Street", "ftp://host/a.mp4"), "a video is a file, or an address"),
        (("Street", "VIDEO", "--clip", "2", "--overlap", "2"), "overlap must be smaller"),
        (("Street", "VIDEO", "--start", "9", "--end", "3"), "before the first"),
        (("Street", "VIDEO", "--quality", "0"), "--quality 0"),
        (("Street", "VIDEO", "--frames-from", "local-files"), "--local-root go together"),
        (("Street", "VIDEO", "--frames-from", "ftp"), "invalid choice"),
        (("Nowhere", "VIDEO"), "there is no project 'Nowhere'"),
        (("99", "VIDEO"), "there is no project '99'"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message, ask, studio, project, video):
    result = ask("import", *(video if a == "VIDEO" else a for a in arguments))
    assert result.code == 2
    assert message in result.err
    assert studio.tasks == {}


def test_a_part_that_a_video_does_not_have(ask, studio, project, video):
    result = ask("import", "Street", video, "--start", "30")
    assert result.code == 1
    assert "there is no frame 30, the video has frames 0 to 19" in result.err


def test_a_project_whose_configuration_cannot_work(ask, studio, video):
    studio.add_project("Text", '<View><Text name="t" value="$t"/></View>')
    result = ask("import", "Text", video)
    assert result.code == 2
    assert "this labeling configuration cannot work" in result.err


def test_a_project_with_video_gets_the_video_as_it_is(ask, studio, video):
    studio.add_project("Boxes", labeling_config(["Car"], "rectangle"))
    assert ask("import", "Boxes", video).code == 0
    [data] = data_of(studio)
    assert data["fps"] == "10.0"
    assert "frames" not in data
    assert ask("import", "Boxes", video, "--every", "2").code == 1


# ---- seeds


@pytest.fixture
def seeded(ask, studio, project, video):
    """Import with seeds; returns the result and what the backend reads: (label, frame) -> prompts."""
    studio.on_task = cut

    def run(*arguments):
        result = ask("import", "Street", video, "--frames-from", "upload", *arguments)
        found = {}
        for data in data_of(studio):
            frames = dict.fromkeys(range(FRAMES))
            anchors = seeded_anchors(data, parse_label_config(CONFIG), {n: n for n in frames}, HEIGHT, WIDTH)
            found |= {(label, f): a.prompts for (_, label), by in anchors.items() for f, a in by.items()}
        return result, found

    return run


def coco(path: Path, annotations: list[dict], images=((1, "street_00000.jpg"), (2, "street_00005.jpg"))) -> Path:
    content = {
        "images": [{"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in images],
        "categories": [{"id": 7, "name": "person"}, {"id": 8, "name": "Ball"}],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
    }
    path.write_text(json.dumps(content))
    return path


def test_detections_in_coco(seeded, tmp_path):
    result, found = seeded(
        "--seed",
        coco(
            tmp_path / "d.json",
            [
                {"image_id": 1, "category_id": 7, "bbox": [2, 3, 10, 5]},
                {"image_id": 1, "category_id": 7, "bbox": [20, 3, 40, 5]},
                {"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]},
                {"image_id": 2, "category_id": 7, "bbox": [3, 3, 10, 5]},
                {"image_id": 2, "category_id": 8, "segmentation": [[0, 0, 8, 0, 8, 8, 0, 8]]},
                {"image_id": 1, "category_id": 8, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            ],
        ),
    )
    assert result.code == 0, result.err
    assert found.keys() == {("Person 1", 0), ("Person 2", 0), ("Ball", 5)}
    box = found["Person 2", 0].box
    assert (box.left, box.top, box.right, box.bottom) == (20, 3, WIDTH, 8)  # within the picture
    assert found["Ball", 5].mask.sum() == 64
    assert "3 seeds for 3 objects" in result.out
    assert "1 of more objects of a class than the project has labels" in result.out
    assert "1 on later frames" in result.out


def test_track_ids_say_what_is_the_same(seeded, tmp_path):
    _, found = seeded(
        "--seed",
        coco(
            tmp_path / "d.json",
            [
                {"image_id": 1, "category_id": 7, "bbox": [2, 3, 4, 5], "track_id": 17},
                {"image_id": 2, "category_id": 7, "bbox": [9, 3, 4, 5], "track_id": 4},
                {"image_id": 2, "category_id": 7, "bbox": [3, 3, 4, 5], "track_id": 17},
            ],
        ),
    )
    assert found.keys() == {("Person 1", 0), ("Person 1", 5), ("Person 2", 5)}
    assert found["Person 1", 5].box.left == 3


def test_yolo_boxes_and_polygons(seeded, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "classes.txt").write_text("ball\nhuman\n")
    (folder / "street_00003.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    result, found = seeded("--seed", folder, "--seed-class", "human=Person")
    assert result.code == 0, result.err
    box = found["Person 1", 3].box
    assert (box.left, box.top, box.right, box.bottom) == (12, 6, 20, 18)
    assert 16 * 12 <= found["Ball", 3].mask.sum() <= 17 * 13


def test_masks_as_in_davis_stay_as_they_are(seeded, tmp_path):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[2:6, 3:9], ids[10:20, 10:30], ids[0, 0] = 1, 3, 255
    folder = tmp_path / "tiny"
    folder.mkdir()
    image = Image.fromarray(ids, "P")
    image.putpalette(list(range(256)) * 3)
    image.save(folder / "00004.png")
    result, found = seeded("--seed", tmp_path)  # a folder with one for each video
    assert result.code == 0, result.err
    assert found.keys() == {("Person 1", 4), ("Ball", 4)}
    assert (found["Person 1", 4].mask == (ids == 1)).all()
    assert (found["Ball", 4].mask == (ids == 3)).all()


def test_seeds_on_frames_that_are_left_out(seeded, tmp_path):
    path = coco(tmp_path / "d.json", [{"image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 5]}])
    result, found = seeded("--seed", path, "--every", "2")
    assert found == {}
    assert "1 on frames that are not imported" in result.out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", "[]", "no COCO file"),
        ("d.json", {"category_id": 7}, "lacks"),
        ("d.json", {"image_id": 1, "category_id": 7}, "neither segmentation nor bbox"),
        ("0.txt", "9 0 0 1 1", "with a class from 0 to 1"),
        ("0.txt", "0 0 0 1", "neither a box nor a polygon"),
        ("labels.txt", "0 0 0 1 1", "has no frame number"),
        ("x.csv", "1", "seeds are COCO"),
        ("0.png", "no picture", "cannot be read"),
    ],
)
def test_seeds_that_cannot_be_read(name, content, message, seeded, studio, tmp_path):
    path = tmp_path / name
    if isinstance(content, dict):
        coco(path, [content])
    else:
        path.write_text(content)
    result, _ = seeded("--seed", path)
    assert result.code == 1
    assert message in result.err
    assert name in result.err
    assert studio.tasks == {}


def test_a_class_that_the_project_does_not_have(seeded, tmp_path):
    path = coco(tmp_path / "d.json", [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5]}])
    result, _ = seeded("--seed", path, "--seed-class", "person=Dog")
    assert "the project has no class 'Dog'; its classes are Person, Ball" in result.err


def test_seeds_for_several_videos_need_names(ask, project, studio, video, tmp_path):
    other = make_video(tmp_path / "other.mp4", 3, WIDTH, HEIGHT)
    path = coco(tmp_path / "d.json", [])
    result = ask("import", "Street", video, other, "--seed", path)
    assert result.code == 2
    assert "for several videos" in result.err
    assert studio.tasks == {}
