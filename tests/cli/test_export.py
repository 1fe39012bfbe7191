"""``tam export`` and ``tam render`` of what ``tam track`` wrote."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tam_backend.export.formats import FORMATS, read_export
from tam_backend.video import open_video
from tests.cli.conftest import FRAMES, HEIGHT, WIDTH, read_ids


@pytest.fixture
def tracked(tam, video, engine, tmp_path):
    """Frames 3 to 12 with two objects."""
    out = tmp_path / "masks"
    labels = ("--label", "1=Person 1", "--label", "7=Ball")
    clicks = ("--click", "4,10.5,12.5:1", "--click", "4,24,6:7")
    result = tam("track", video, *clicks, *labels, "--start", 3, "--end", 12, "--out", out)
    assert result.code == 0, result.err
    return out


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.reader and n != "yolo-box"])
def test_every_format_has_the_masks_of_the_folder(name, tam, tracked, video, tmp_path):
    result = tam("export", tracked, "--video", video, "--format", name, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    [found] = read_export(tmp_path / "out").videos
    assert (found.name, found.fps, list(found.frames)) == ("tiny", 10.0, list(range(3, 13)))
    assert {(t.id, t.label, t.category) for t in found.tracks} == {(1, "Person 1", "Person"), (7, "Ball", "Ball")}
    for masked in found.read():
        ids = read_ids(tracked / f"{masked.frame:05d}.png")
        assert set(masked.masks) == set(np.unique(ids).tolist()) - {0}
        for track, mask in masked.masks.items():
            assert np.array_equal(mask, ids == track)


def test_boxes_for_label_studios_video(tam, tracked, video, tmp_path):
    assert tam("export", tracked, "--video", video, "--format", "video-rectangle", "--out", tmp_path / "out").code == 0
    [task] = json.loads((tmp_path / "out" / "tasks.json").read_text())
    for region in task["predictions"][0]["result"]:
        sequence = region["value"]["sequence"]
        assert region["value"]["framesCount"] == FRAMES
        assert (sequence[0]["frame"], sequence[0]["enabled"]) == (4, True), "Label Studio counts from 1"
        assert sequence[-1]["enabled"] is False


def test_without_a_video_there_are_masks_alone(tam, tracked, tmp_path):
    assert tam("export", tracked, "--format", "coco", "--out", tmp_path / "out").code == 0
    assert not list((tmp_path / "out").rglob("*.jpg"))
    result = tam("export", tracked, "--format", "overlay", "--out", tmp_path / "other")
    assert result.code == 2
    assert "there are no pictures of tiny to draw on: give --video" in result.err
    result = tam("export", tracked, "--format", "overlay", "--no-pictures", "--out", tmp_path / "other")
    assert result.code == 2
    assert "draws on the pictures" in result.err


def test_pictures_that_tam_track_wrote_are_taken(tam, video, engine, tmp_path):
    clicks = ("--click", "4,10.5,12.5", "--pictures")
    assert tam("track", video, *clicks, "--out", tmp_path / "masks").code == 0
    assert tam("export", tmp_path / "masks", "--format", "yolo-seg", "--out", tmp_path / "out").code == 0
    assert len(list((tmp_path / "out" / "images" / "train").glob("tiny_*.jpg"))) == FRAMES


def test_another_video_is_refused(tam, tracked, folder, tmp_path):
    result = tam("export", tracked, "--video", folder, "--format", "coco", "--out", tmp_path / "out")
    assert result.code == 2
    assert "is not the video that was tracked" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing/here"], "there is no folder nothing/here"),
        (["{tmp}"], "neither tam track nor tam export wrote it"),
        (["{masks}", "--from", "predictions"], "--from predictions is for projects"),
        (["12", "--video", "v.mp4"], "--video is for a folder of tam track"),
        (["12"], "say where Label Studio is"),
    ],
)
def test_sources_that_are_none_are_refused(arguments, message, tam, tracked, tmp_path, monkeypatch):
    monkeypatch.delenv("TAM_LABEL_STUDIO_URL", raising=False)
    given = [a.format(tmp=tmp_path, masks=tracked) for a in arguments]
    result = tam("export", *given, "--format", "coco", "--out", tmp_path / "out")
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_the_folder_that_is_read_is_not_written(tam, tracked):
    result = tam("export", tracked, "--format", "coco", "--out", tracked)
    assert result.code == 2
    assert "is the folder that is read" in result.err


def test_render_draws_before_and_after(tam, tracked, video, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tracked, other)
    arguments = ("--video", video, "--as", "side-by-side", "--before", other, "--out", tmp_path / "videos")
    result = tam("render", tracked, *arguments)
    assert result.code == 0, result.err
    with open_video(tmp_path / "videos" / "tiny.mp4") as found:
        assert (len(found), found.width) == (10, 2 * WIDTH)
        image = found[5].astype(int)[:HEIGHT]
        assert np.abs(image[:, :WIDTH] - image[:, WIDTH:]).mean() < 6, "the same masks on both sides"
    plain = tam("render", tracked, *arguments[:4], "--out", tmp_path / "plain")
    assert plain.code == 0, plain.err
    with open_video(tmp_path / "plain" / "tiny.mp4") as found:
        image = found[5].astype(int)[:HEIGHT]
        assert np.abs(image[:, :WIDTH] - image[:, WIDTH:]).mean() > 6, "no masks on the left"


def test_the_worst_frames_are_those_that_the_predictions_call_poor(tam, tracked, video, tmp_path):
    result = tam("render", tracked, "--video", video, "--as", "worst", "--count", 2, "--out", tmp_path / "sheets")
    assert result.code == 0, result.err
    regions = json.loads((tracked / "predictions.json").read_text())["predictions"][0]["result"]
    poor = min((r for r in regions if r["meta"]["frame"] != 4), key=lambda r: r["meta"]["quality"])
    assert f"the worst is {poor['meta']['frame']}" in result.out
