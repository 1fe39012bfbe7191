"""Every format written, and read back by our reader: the same masks, pixel for pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Video, bounding_box
from tam_backend.export.formats import FORMATS, find_format, read_export
from tests.export.scenes import HEIGHT, TRACKS, WIDTH, picture, scene

WITH_MASKS = [name for name, f in FORMATS.items() if f.reader]
EXACT = [name for name in WITH_MASKS if name != "yolo-box"]
KEEP_OVERLAPS = ["coco", "coco-video", "yolo-seg", "png", "npz"]


def export(dataset: Dataset, name: str, out: Path) -> list[str]:
    notes = find_format(name).write(dataset, out)
    (out / manifest.FILE).write_text(manifest.describe(dataset, name))
    return notes


def assert_equal(found: Dataset, wanted: Dataset) -> None:
    assert found.tracks == wanted.tracks
    assert {v.name for v in found.videos} == {v.name for v in wanted.videos}
    by_name = {v.name: v for v in found.videos}
    for video in wanted.videos:
        other = by_name[video.name]
        assert (other.height, other.width, other.fps) == (video.height, video.width, video.fps)
        assert list(other.frames) == list(video.frames)
        for ours, theirs in zip(video.read(), other.read(), strict=True):
            assert ours.frame == theirs.frame
            assert set(ours.masks) == set(theirs.masks), (video.name, ours.frame)
            for track, mask in ours.masks.items():
                assert np.array_equal(mask, theirs.masks[track]), (video.name, ours.frame, track)


@pytest.mark.parametrize("name", EXACT)
def test_a_round_trip_gives_the_same_masks(name, tmp_path):
    assert export(scene(), name, tmp_path) == []
    found = read_export(tmp_path)
    assert found is not None
    assert_equal(found, scene())


@pytest.mark.parametrize("name", EXACT)
def test_the_pictures_come_along(name, tmp_path):
    export(scene(), name, tmp_path)
    for video in read_export(tmp_path).videos:
        with video.pictures() as pictures:
            for frame in video.frames:
                assert np.abs(pictures(frame).astype(int) - picture(frame)).max() < 12


@pytest.mark.parametrize("name", WITH_MASKS)
def test_without_pictures_the_masks_are_the_same(name, tmp_path):
    import dataclasses

    bare = Dataset(tuple(dataclasses.replace(v, pictures=None) for v in scene().videos), TRACKS)
    export(bare, name, tmp_path)
    assert not list(tmp_path.rglob("*.jpg"))
    assert all(v.pictures is None for v in read_export(tmp_path).videos)


@pytest.mark.parametrize("name", KEEP_OVERLAPS)
def test_overlaps_are_kept(name, tmp_path):
    assert export(scene(overlap=True), name, tmp_path) == []
    assert_equal(read_export(tmp_path), scene(overlap=True))


@pytest.mark.parametrize("name", sorted(set(EXACT) - set(KEEP_OVERLAPS)))
def test_where_one_object_has_a_pixel_the_first_label_gets_it_and_a_note_says_so(name, tmp_path):
    notes = export(scene(overlap=True), name, tmp_path)
    assert [n.partition(":")[0] for n in notes] == ["street", "court-2"]
    for ours, theirs in zip(scene(overlap=True).videos, read_export(tmp_path).videos[::-1], strict=True):
        for mine, its in zip(ours.read(), theirs.read(), strict=True):
            taken = np.zeros((HEIGHT, WIDTH), bool)
            for track in sorted(mine.masks):
                mask = mine.masks[track] & ~taken
                assert np.array_equal(its.masks.get(track, np.zeros_like(mask)), mask)
                taken |= mask


def test_what_a_person_drew_goes_before_what_was_tracked(tmp_path):
    both = {1: np.ones((HEIGHT, WIDTH), bool), 3: np.ones((HEIGHT, WIDTH), bool)}
    video = Video("v", HEIGHT, WIDTH, [0], TRACKS, lambda: iter([MaskedFrame(0, both, frozenset({3}))]))
    export(Dataset((video,), TRACKS), "davis", tmp_path)
    [masked] = read_export(tmp_path).videos[0].read()
    assert list(masked.masks) == [3]


def test_boxes_of_yolo_are_those_of_the_masks(tmp_path):
    export(scene(), "yolo-box", tmp_path)
    found = {v.name: v for v in read_export(tmp_path).videos}
    for video in scene().videos:
        for ours, theirs in zip(video.read(), found[video.name].read(), strict=True):
            boxes = {t: bounding_box(m) for t, m in ours.masks.items()}
            assert boxes == {t: bounding_box(m) for t, m in theirs.masks.items()}


@pytest.mark.parametrize("name", EXACT)
def test_a_data_set_without_our_note_is_read_as_well(name, tmp_path):
    find_format(name).write(scene(), tmp_path)
    found = find_format(name).read(tmp_path)
    wanted = {(v.name, m.frame): len(m.masks) for v in scene().videos for m in v.read()}
    if name == "png":  # an object has a file for every frame, so that those without one are known
        assert {t.label for t in found.tracks} == {"Person_1", "Person_2", "Ball"}
    assert {(v.name, m.frame): len(m.masks) for v in found.videos for m in v.read()} == wanted
    names = {t.category for t in found.tracks}
    assert names == ({"Object"} if name == "davis" else {"Person", "Ball"})


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(BadInput, match="no format 'kitti'; the formats are davis, youtube-vos, coco"):
        find_format("kitti")


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("coco", "annotations/instances.json", b"[]"),
        ("coco", "annotations/instances.json", b"{"),
        ("coco-video", "instances.json", b'{"videos": [{}], "annotations": [], "categories": []}'),
        ("youtube-vos", "train/meta.json", b"nonsense"),
        ("davis", "Annotations/480p/a/00000.png", b"no picture"),
        ("mots", "instances/a/000000.png", b"no picture"),
        ("npz", "a.npz", b"no archive"),
        ("png", "masks/a/001_x/00000.png", b"no picture"),
        ("yolo-seg", "labels/train/a_00000.txt", b"0 0.1 0.2 nan 0.3"),
    ],
)
def test_what_cannot_be_read_is_named(name, file, content, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"\S"):
        [list(v.read()) for v in find_format(name).read(tmp_path).videos]


@pytest.mark.parametrize("counts", ["PPYo1", "0" * 12, "P?", [5, 1], [-1, 1729]])
def test_run_lengths_that_do_not_fit_are_refused(counts, tmp_path):
    export(scene(), "coco", tmp_path)
    path = tmp_path / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"]["counts"] = counts
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="annotation 1: its run lengths"):
        [list(v.read()) for v in read_export(tmp_path).videos]
