"""``tam track`` as a person uses it: what it writes, read back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tam_backend.drawing import PALETTE
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.regions import check_regions
from tam_backend.masks import decode_bitmask_url
from tam_backend.quality import NEEDS_A_LOOK, suggest
from tam_backend.video import open_video
from tests.cli.conftest import FRAMES, HEIGHT, WIDTH, masks_in, read_ids, write_indexed
from tests.tracking.fakes import disc, steps_between

CLICK = ("--click", "4,10.5,12.5")
FIRST = disc(10.5, 12.5, 5)


def moved(frame: int, first: np.ndarray = FIRST, origin: int = 4) -> np.ndarray:
    return np.roll(first, frame - origin, axis=1)


def regions(out: Path) -> list[dict]:
    return json.loads((out / "predictions.json").read_text())["predictions"][0]["result"]


def contents(out: Path) -> dict[Path, bytes]:
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix != ".mp4"}


# ---- masks


def test_a_click_gives_a_mask_on_every_frame(tam, video, engine, tmp_path):
    result = tam("track", video, *CLICK, "--out", tmp_path / "new" / "out")
    assert result.code == 0, result.err
    masks = sorted((tmp_path / "new" / "out").glob("*.png"))
    assert [p.name for p in masks] == [f"{i:05d}.png" for i in range(FRAMES)]
    for i, path in enumerate(masks):
        assert np.array_equal(read_ids(path), moved(i)), i
    with Image.open(masks[0]) as image:
        assert image.getpalette() == PALETTE.ravel().tolist()


def test_the_report_says_what_was_done_and_where_to_look(tam, video, engine, tmp_path):
    result = tam("track", video, *CLICK, "--out", tmp_path)
    assert f"{FRAMES} frames in {tmp_path}: {FRAMES} computed in " in result.out
    assert " ms a frame)" in result.out
    qualities = {r["item_index"]: r["score"] for r in regions(tmp_path)}
    look = [f for f, q in qualities.items() if q < NEEDS_A_LOOK and f != 4]
    share = round(100 * len(look) / FRAMES)
    [said] = re.findall(r"^Object 1: (\d+) frames need a look \((\d+) %\)\. Fix frame (\d+) next\.$", result.out, re.M)
    assert (int(said[0]), int(said[1])) == (len(look), share)
    assert int(said[2]) == suggest(qualities, [4]).frame != 4
    assert [r["item_index"] for r in regions(tmp_path) if r["meta"].get("fix_next")] == [int(said[2])]
    assert result.err == ""


def test_two_objects_with_prompts_on_several_frames(tam, video, engine, tmp_path):
    result = tam(
        *("track", video, "--click", "4,10.5,12.5:1", "--click", "4,12.5,12.5:7", "--click", "15,9,9:7"),
        *("--click", "4,17.5,12.5,-:7", "--out", tmp_path),
    )
    assert result.code == 0, result.err
    assert len(masks_in(tmp_path)) == FRAMES
    ids = read_ids(tmp_path / "00004.png")
    seven = disc(12.5, 12.5, 5) & ~disc(17.5, 12.5, 2)
    assert np.array_equal(ids, np.where(FIRST, 1, np.where(seven, 7, 0))), "equally sure of both: the smaller id"
    assert np.array_equal(
        read_ids(tmp_path / "00015.png") == 7, disc(9, 9, 5) & (read_ids(tmp_path / "00015.png") != 1)
    )
    # Away from the prompts the surer one gets the pixels that both claim.
    scores = {(r["item_index"], r["value"]["brushlabels"][0]): r["meta"]["quality"] for r in regions(tmp_path)}
    for i in (3, 5, 6):  # nearer to frame 4 than where frame 15 begins to count
        both = moved(i) & moved(i, seven)
        owner = 7 if scores[i, "Object 7"] > scores[i, "Object 1"] else 1
        assert (read_ids(tmp_path / f"{i:05d}.png")[both] == owner).all(), i


def test_a_folder_of_pictures(tam, folder, engine, tmp_path):
    result = tam("track", folder, "--click", "0,10.5,12.5", "--out", tmp_path, "--overlay")
    assert result.code == 0, result.err
    assert [np.array_equal(read_ids(p), moved(i, origin=0)) for i, p in enumerate(sorted(tmp_path.glob("*.png")))] == [
        True
    ] * 5
    assert len(open_video(tmp_path / "overlay.mp4")) == 5


def test_a_range_keeps_the_numbers_of_the_video(tam, video, engine, tmp_path):
    assert tam("track", video, *CLICK, "--start", 3, "--end", 6, "--out", tmp_path).code == 0
    assert list(masks_in(tmp_path)) == ["00003.png", "00004.png", "00005.png", "00006.png"]
    assert np.array_equal(read_ids(tmp_path / "00006.png"), moved(6))


# ---- masks that are given


def test_a_given_mask_is_the_truth_on_its_frame(tam, video, engine, tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH)) * 100  # objects 100 and 200, pixel by pixel
    path = write_indexed(tmp_path / "given.png", ids)
    # The click claims pixels that the picture gives to other objects, on the same frame.
    result = tam("track", video, "--mask", f"6={path}", "--click", "6,10,12:50", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    shown = read_ids(tmp_path / "out" / "00006.png")
    assert np.array_equal(np.where(shown == 50, 0, shown), ids)
    assert np.array_equal(shown == 50, disc(10, 12, 5) & (ids == 0))
    later = read_ids(tmp_path / "out" / "00009.png")
    assert not (moved(9, ids == 0, 6) & (later == 100) | moved(9, ids == 0, 6) & (later == 200)).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize(("suffix", "object_id"), [("", 1), (":9", 9)])
def test_a_black_and_white_mask(tam, video, engine, tmp_path, mode, suffix, object_id):
    path = tmp_path / "black-and-white.png"
    Image.fromarray(FIRST.astype(np.uint8) * 255).convert(mode).save(path)
    assert tam("track", video, "--mask", f"0={path}{suffix}", "--out", tmp_path / "out").code == 0
    assert np.array_equal(read_ids(tmp_path / "out" / "00000.png"), FIRST * object_id)
    assert np.array_equal(read_ids(tmp_path / "out" / "00002.png"), moved(2, origin=0) * object_id)


def test_rough_masks_are_refined_if_asked_and_take_clicks(tam, video, engine, tmp_path):
    path = tmp_path / "rough.png"
    Image.fromarray(disc(10.5, 12.5, 3)).save(path)
    rough = ("--mask", f"0={path}", "--refine-masks")
    assert tam("track", video, *rough, "--out", tmp_path / "refined").code == 0
    assert np.array_equal(read_ids(tmp_path / "refined" / "00000.png"), disc(10.5, 12.5, 5))
    result = tam("track", video, *rough, "--click", "0,24,12", "--out", tmp_path / "clicked")
    assert result.code == 0, result.err
    assert np.array_equal(read_ids(tmp_path / "clicked" / "00000.png") > 0, disc(10.5, 12.5, 5) | disc(24, 12, 5))


def test_a_grey_mask_of_ids(tam, video, engine, tmp_path):
    path = tmp_path / "ids.png"
    Image.fromarray((FIRST * 2 + disc(25, 5, 3) * 3).astype(np.uint8)).save(path)
    assert tam("track", video, "--mask", f"0={path}", "--out", tmp_path / "out").code == 0
    assert np.array_equal(read_ids(tmp_path / "out" / "00000.png"), FIRST * 2 + disc(25, 5, 3) * 3)


def test_an_empty_mask_says_that_the_object_is_not_there(tam, video, engine, tmp_path):
    engine.propagator.quality = 0.9  # from either side, so that the nearer one decides
    path = write_indexed(tmp_path / "empty.png", np.zeros((HEIGHT, WIDTH)))
    result = tam("track", video, *CLICK, "--mask", f"10={path}:1", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    seen = [bool(read_ids(p).any()) for p in sorted((tmp_path / "out").glob("*.png"))]
    assert seen == [True] * 8 + [False] * 12
    assert [r["item_index"] for r in regions(tmp_path / "out")] == list(range(8))
    assert re.search(r"^Object 1: .* It was not found on 11 frames \(first: 8\)\.$", result.out, re.M)


def test_a_name_with_a_colon_is_a_name_when_there_is_such_a_file(tam, video, engine, tmp_path):
    path = write_indexed(tmp_path / "mask.png", FIRST).rename(tmp_path / "mask:2")
    assert tam("track", video, "--mask", f"0={path}", "--out", tmp_path / "out").code == 0
    assert np.array_equal(read_ids(tmp_path / "out" / "00000.png"), FIRST)


# ---- corrections


def test_a_negative_click_alone_takes_away_from_what_the_others_give_there(tam, video, engine, tmp_path):
    with_leak = write_indexed(tmp_path / "leak.png", FIRST | disc(10.5, 20, 2))
    prompts = ("track", video, "--mask", f"4={with_leak}")
    assert tam(*prompts, "--out", tmp_path / "once").code == 0
    engine.propagator.steps.clear()
    result = tam(*prompts, "--click", "10,16.5,20,-", "--out", tmp_path / "once")
    assert result.code == 0, result.err
    assert np.array_equal(read_ids(tmp_path / "once" / "00010.png"), moved(10))
    assert np.array_equal(read_ids(tmp_path / "once" / "00012.png"), moved(12))
    assert np.array_equal(read_ids(tmp_path / "once" / "00005.png"), moved(5, FIRST | disc(10.5, 20, 2)))
    computed = steps_between(range(5, FRAMES), [4, 10])
    assert sorted(engine.propagator.steps) == computed, "frames 0 to 3 stay as they are"

    assert tam(*prompts, "--click", "10,16.5,20,-", "--out", tmp_path / "at once").code == 0
    assert masks_in(tmp_path / "at once") == masks_in(tmp_path / "once")


def test_other_prompts_compute_only_what_they_change(tam, video, engine, tmp_path):
    assert tam("track", video, *CLICK, "--out", tmp_path, "--overlay").code == 0
    before = masks_in(tmp_path)
    engine.propagator.steps.clear()
    result = tam("track", video, *CLICK, "--click", "12,9,9", "--out", tmp_path)
    after = masks_in(tmp_path)
    assert sorted(engine.propagator.steps) == steps_between(range(5, FRAMES), [4, 12])
    assert {n: b for n, b in after.items() if n < "00005"} == {n: b for n, b in before.items() if n < "00005"}
    assert len(after) == FRAMES
    assert not (tmp_path / "overlay.mp4").exists(), "it shows the masks of the other prompts"
    assert f"{FRAMES - 5} computed" in result.out
    assert "5 known before" in result.out


def test_a_shorter_range_leaves_no_masks_of_the_longer_one(tam, video, engine, tmp_path):
    assert tam("track", video, *CLICK, "--out", tmp_path).code == 0
    engine.propagator.steps.clear()
    assert tam("track", video, *CLICK, "--out", tmp_path, "--end", 5).code == 0
    assert len(masks_in(tmp_path)) == 6
    assert engine.propagator.steps == []


def test_the_same_call_again_computes_nothing_and_changes_nothing(tam, video, engine, tmp_path):
    call = ("track", video, *CLICK, "--out", tmp_path, "--overlay", "--pictures")
    assert tam(*call).code == 0
    files, overlay = contents(tmp_path), (tmp_path / "overlay.mp4").read_bytes()
    steps = len(engine.propagator.steps)
    result = tam(*call)
    assert result.code == 0
    assert len(engine.propagator.steps) == steps
    assert contents(tmp_path) == files
    assert (tmp_path / "overlay.mp4").read_bytes() == overlay
    assert re.search(rf": 0 computed in [0-9.]+ s, {FRAMES} known before", result.out)


def test_a_finishing_pass_rewrites_the_masks_that_it_improves(tam, video, engine, tmp_path):
    """With three prompts each span knows of one more. What comes of that is taken for better on every frame."""
    engine.propagator.most_anchors = 3
    prompts = [*CLICK, "--click", "0,6.5,12.5", "--click", "9,15.5,12.5"]
    plain = tam("track", video, *prompts, "--out", tmp_path / "plain")
    assert plain.code == 0, plain.err
    assert "finishing pass" not in plain.out
    before = {r["item_index"]: r["score"] for r in regions(tmp_path / "plain")}
    engine.propagator.quality = 1.0
    result = tam("track", video, *prompts, "--finish", "--out", tmp_path / "plain")
    assert result.code == 0, result.err
    [count] = re.findall(r"The finishing pass has improved (\d+) masks", result.out)
    after = {r["item_index"]: r["score"] for r in regions(tmp_path / "plain")}
    assert int(count) == sum(after[f] > before[f] for f in after) > FRAMES / 2
    assert all(after[f] >= before[f] for f in after)
    again = tam("track", video, *prompts, "--finish", "--out", tmp_path / "plain")
    assert ": 0 computed in " in again.out


def test_masks_that_were_deleted_come_back(tam, video, engine, tmp_path):
    call = ("track", video, *CLICK, "--out", tmp_path)
    tam(*call)
    before = masks_in(tmp_path)
    (tmp_path / "00003.png").unlink()
    (tmp_path / "00007.png").write_bytes(b"damaged")
    engine.propagator.steps.clear()
    tam(*call)
    assert masks_in(tmp_path) == before
    assert engine.propagator.steps == []
    shutil.rmtree(tmp_path / ".tam" / "store")
    tam(*call)
    assert masks_in(tmp_path) == before


def test_force_computes_everything_anew(tam, video, folder, engine, tmp_path):
    tam("track", folder, "--click", "0,5,5", "--out", tmp_path, "--pictures")
    result = tam("track", video, *CLICK, "--out", tmp_path, "--force", "--end", 10)
    assert result.code == 0, result.err
    assert len(masks_in(tmp_path)) == 11
    tam("track", video, *CLICK, "--out", tmp_path, "--end", 10, "--pictures")
    with Image.open(tmp_path / "frames" / "00002.jpg") as picture:
        assert np.abs(np.array(picture).astype(int) - open_video(video)[2]).mean() < 4, "of this video, not the other"
    engine.propagator.steps.clear()
    tam("track", video, *CLICK, "--out", tmp_path, "--force", "--end", 10)
    assert len(engine.propagator.steps) == 10


# ---- overlay


def test_the_overlay_shows_the_masks_on_the_frames(tam, tmp_path, engine):
    root = tmp_path / "black"
    root.mkdir()
    for i in range(4):
        Image.new("RGB", (160, 120)).save(root / f"{i}.png")
    assert tam("track", root, "--click", "0,80.5,60.5:2", "--out", tmp_path / "out", "--overlay").code == 0
    video = open_video(tmp_path / "out" / "overlay.mp4")
    assert (len(video), video.width, video.height, video.fps) == (4, 160, 120, 24.0)
    green = video[2].astype(int)
    assert 15 < green[60, 82, 1] - green[60, 82, 2] < 100, "inside: translucent, in the colour of object 2"
    assert green[100, 30].max() < 20, "outside: as it was"
    assert video[2][:20, :20].max() > 120, "the number of the frame"


# ---- for Label Studio


@pytest.mark.parametrize("kind", ["brush", "bitmask"])
def test_predictions_are_a_task_that_fits_its_configuration(tam, video, engine, tmp_path, kind):
    out = tmp_path / "my clip"
    result = tam(
        *("track", video, *CLICK, "--click", "4,25,5:3", "--start", 2, "--end", 9, "--out", out, "--pictures"),
        *("--label", '3=A & "B"', "--from-name", "masks", "--to-name", "picture", "--region-type", kind),
    )
    assert result.code == 0, result.err
    task = json.loads((out / "predictions.json").read_text())
    assert task["data"]["video"] == "tiny.mp4"
    assert task["data"]["frames"] == [f"/data/local-files/?d=my%20clip/frames/{i:05d}.jpg" for i in range(2, 10)]
    assert sorted(p.name for p in (out / "frames").iterdir()) == [f"{i:05d}.jpg" for i in range(2, 10)]
    with Image.open(out / "frames" / "00005.jpg") as picture:
        assert np.abs(np.array(picture).astype(int) - open_video(video)[5]).mean() < 4

    [prediction] = task["predictions"]
    xml = (out / "label_config.xml").read_text()
    judge = LabelInterface(xml)
    judge.validate()
    assert judge.validate_task({"data": task["data"]})
    assert judge.validate_prediction(prediction, return_errors=True) == []
    config = parse_label_config(xml)
    check_regions(prediction["result"], config, frames=8)
    assert {c.name for c in config.masks} == {"masks"}
    assert config.masks[0].labels == config.points[0].labels == ("Object 1", 'A & "B"')
    assert prediction["model_version"].endswith("-fake")
    assert 0 < prediction["score"] <= 1
    assert len(prediction["result"]) == 16
    for region in prediction["result"]:
        frame = region["item_index"] + 2
        assert region["meta"]["frame"] == frame
        assert (region["original_width"], region["original_height"]) == (WIDTH, HEIGHT)
        value = region["value"]
        [label] = value[f"{kind}labels"]
        ids = read_ids(out / f"{frame:05d}.png")
        if kind == "brush":
            mask = decode_rle(value["rle"]).reshape(HEIGHT, WIDTH, 4)[..., 3] > 0
        else:
            mask = decode_bitmask_url(value["imageDataURL"], (HEIGHT, WIDTH))
        assert np.array_equal(mask, ids == (1 if label == "Object 1" else 3))


def test_frames_at_another_address(tam, video, engine, tmp_path):
    tam("track", video, *CLICK, "--end", 4, "--out", tmp_path, "--pictures-url", "https://host/a/")
    task = json.loads((tmp_path / "predictions.json").read_text())
    assert task["data"]["frames"] == [f"https://host/a/{i:05d}.jpg" for i in range(5)]
    assert not (tmp_path / "frames").exists()
