"""Exported data sets opened by programs that others wrote: they find the same masks."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import supervision
import trackeval
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tam_backend.drawing import PALETTE
from tam_backend.evaluation.datasets import load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.export.dataset import Dataset, MaskedFrame, Video, bounding_box
from tam_backend.export.formats import find_format
from tests.export.scenes import HEIGHT, TRACKS, WIDTH, masks_of, scene

CLASSES = {1: "Person", 2: "Person", 3: "Ball"}


def export(name: str, out: Path) -> Path:
    find_format(name).write(scene(), out)
    return out


def true_masks() -> dict[tuple[str, int], dict[int, np.ndarray]]:
    return {(v.name, m.frame): dict(m.masks) for v in scene().videos for m in v.read()}


def quietly(call, *arguments, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments, **options)


# ---- COCO


def test_pycocotools_finds_the_masks(tmp_path):
    export("coco", tmp_path)
    coco = quietly(COCO, str(tmp_path / "annotations" / "instances.json"))
    truth = true_masks()
    images = coco.loadImgs(coco.getImgIds())
    assert {(i["video"], i["frame"]) for i in images} == set(truth)
    names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    for image in images:
        with Image.open(tmp_path / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        masks = truth[image["video"], image["frame"]]
        assert {a["track_id"] for a in annotations} == set(masks)
        for a in annotations:
            mask = masks[a["track_id"]]
            assert np.array_equal(coco.annToMask(a).astype(bool), mask)
            left, top, right, bottom = bounding_box(mask)
            assert a["bbox"] == [left, top, right - left, bottom - top]
            assert a["area"] == mask.sum()
            assert names[a["category_id"]] == CLASSES[a["track_id"]]


def test_supervision_loads_coco(tmp_path):
    export("coco", tmp_path)
    loaded = supervision.DetectionDataset.from_coco(
        str(tmp_path / "images"), str(tmp_path / "annotations" / "instances.json"), force_masks=True
    )
    assert sorted(loaded.classes) == ["Ball", "Person"]
    compare_with_supervision(loaded)


def compare_with_supervision(loaded: supervision.DetectionDataset, parts: bool = True) -> None:
    """parts: also objects in several parts, which YOLO's readers join by a line."""
    found = {Path(path).stem: detections for path, _, detections in loaded}
    for (video, frame), masks in true_masks().items():
        detections = found[f"{video}_{frame:05d}"]
        assert len(detections) == len(masks)
        for (track, mask), its, class_id in zip(
            sorted(masks.items()), detections.mask if masks else (), detections.class_id, strict=True
        ):
            assert loaded.classes[class_id] == CLASSES[track]
            if parts or track != 2:
                assert np.array_equal(its, mask), (video, frame, track)
            else:
                assert not (mask & ~its).any(), "nothing of it is lost"
                assert (its & ~mask).sum() < 40, "and what is added is the line between its parts"


# ---- YOLO


def test_supervision_loads_yolo_polygons(tmp_path):
    export("yolo-seg", tmp_path)
    loaded = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images" / "train"), str(tmp_path / "labels" / "train"), str(tmp_path / "data.yaml"),
        force_masks=True,
    )  # fmt: skip
    assert loaded.classes == ["Person", "Ball"]
    compare_with_supervision(loaded, parts=False)


def test_supervision_loads_yolo_boxes(tmp_path):
    export("yolo-box", tmp_path)
    loaded = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images" / "train"), str(tmp_path / "labels" / "train"), str(tmp_path / "data.yaml")
    )
    found = {Path(path).stem: detections for path, _, detections in loaded}
    for (video, frame), masks in true_masks().items():
        boxes = found[f"{video}_{frame:05d}"].xyxy
        assert len(boxes) == len(masks)
        for box, (_, mask) in zip(boxes, sorted(masks.items()), strict=True):
            assert np.allclose(box, bounding_box(mask), atol=1e-3)


# ---- DAVIS, YouTube-VOS


@pytest.fixture
def davis(tmp_path):
    return export("davis", tmp_path / "davis")


@pytest.mark.parametrize(
    ("name", "folder"), [("davis", "Annotations/Full-Resolution"), ("youtube-vos", "train/Annotations")]
)
def test_trackeval_loads_indexed_masks_and_finds_them_equal_to_themselves(name, folder, tmp_path):
    masks = export(name, tmp_path / name) / folder
    shutil.copytree(masks, tmp_path / "trackers" / "same" / "data")
    lengths = {v.name: len(v.frames) for v in scene().videos}
    loader = trackeval.datasets.DAVIS(
        {
            "GT_FOLDER": str(masks), "TRACKERS_FOLDER": str(tmp_path / "trackers"), "SEQ_INFO": lengths,
            "PRINT_CONFIG": False,
        }
    )  # fmt: skip
    for video in scene().videos:
        raw = loader.get_raw_seq_data("same", video.name)
        for place, masked in enumerate(video.read()):
            found = dict(zip(raw["gt_ids"][place].tolist(), raw["gt_dets"][place], strict=True))
            assert {i: coco_mask.decode(rle).astype(bool).tolist() for i, rle in found.items()} == {
                i: m.tolist() for i, m in masked.masks.items()
            }
        scores = trackeval.metrics.HOTA().eval_sequence(loader.get_preprocessed_seq_data(raw, "general"))
        assert scores["HOTA"] == pytest.approx(1.0)


def test_davis_has_its_palette_and_lists(davis):
    files = sorted(davis.rglob("*.png"))
    assert len(files) == 20
    for path in files:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("P", (WIDTH, HEIGHT))
            assert image.getpalette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
            assert image.getpalette() == PALETTE.ravel().tolist()
    assert (davis / "ImageSets" / "2017" / "val.txt").read_text() == "street\ncourt-2\n"
    names = sorted(p.stem for p in (davis / "JPEGImages" / "Full-Resolution" / "street").iterdir())
    assert names == [f"{i:05d}" for i in range(7, 15)], "frames keep the numbers of the video"


@pytest.mark.parametrize(("height", "folder"), [(480, "480p"), (360, "Full-Resolution")])
def test_davis_names_its_folders_by_resolution(height, folder, tmp_path):
    mask = np.zeros((height, 40), bool)
    mask[5:9, 5:9] = True
    made = Video("v", height, 40, [0], TRACKS, lambda: iter([MaskedFrame(0, {1: mask})]))
    find_format("davis").write(Dataset((made,), TRACKS), tmp_path)
    assert (tmp_path / "Annotations" / folder / "v" / "00000.png").is_file()


@pytest.mark.parametrize(("name", "kind", "root"), [("davis", "davis", "."), ("youtube-vos", "youtube-vos", "train")])
def test_tam_evaluate_reads_it(name, kind, root, tmp_path):
    layout = find_sequences(export(name, tmp_path) / root)
    assert layout.kind == kind
    for paths in layout.sequences:
        sequence = load_sequence(paths)
        place = [v.name for v in scene().videos].index(sequence.name)
        for i, stem in enumerate(sequence.stems):
            for track, mask in masks_of(place, int(stem)).items():
                assert np.array_equal(sequence.mask(i, track), mask)


def test_youtube_vos_says_which_frames_show_an_object(tmp_path):
    export("youtube-vos", tmp_path)
    meta = json.loads((tmp_path / "train" / "meta.json").read_text())["videos"]
    for video in scene().videos:
        objects = meta[video.name]["objects"]
        for track, of_track in objects.items():
            shown = [f"{m.frame:05d}" for m in video.read() if int(track) in m.masks]
            assert of_track == {"category": CLASSES[int(track)], "frames": shown}
        assert set(objects) == {str(t) for m in video.read() for t in m.masks}


# ---- YouTube-VIS


def test_trackeval_loads_coco_video(tmp_path):
    folder = export("coco-video", tmp_path / "gt" / "youtube_vis_train")
    tracker = tmp_path / "trackers" / "youtube_vis_train" / "same" / "data"
    tracker.mkdir(parents=True)
    content = json.loads((folder / "instances.json").read_text())
    predictions = [
        a | {"score": 1.0, "segmentations": [s and coco_mask.frPyObjects(s, HEIGHT, WIDTH) for s in a["segmentations"]]}
        for a in content["annotations"]
    ]
    for segment in (s for p in predictions for s in p["segmentations"] if s):
        segment["counts"] = segment["counts"].decode()
    (tracker / "results.json").write_text(json.dumps(predictions))
    loader = trackeval.datasets.YouTubeVIS(
        {
            "GT_FOLDER": f"{tmp_path}/gt/", "TRACKERS_FOLDER": f"{tmp_path}/trackers/", "SPLIT_TO_EVAL": "train",
            "PRINT_CONFIG": False,
        }
    )  # fmt: skip
    ids = {a["id"]: a["track_id"] for a in content["annotations"]}
    assert len(loader.seq_list) == 2
    for video, sequence in zip(scene().videos, loader.seq_list, strict=True):
        raw = loader.get_raw_seq_data("same", sequence)
        assert raw["num_timesteps"] == len(video.frames)
        for place, masked in enumerate(video.read()):
            found = zip(raw["gt_ids"][place].tolist(), raw["gt_dets"][place], strict=True)
            shown = {ids[i]: coco_mask.decode(rle).astype(bool) for i, rle in found}
            shown = {i: m for i, m in shown.items() if m.any()}
            assert set(shown) == set(masked.masks)
            assert all(np.array_equal(m, masked.masks[i]) for i, m in shown.items())


# ---- MOTS


def test_trackeval_loads_mots(tmp_path):
    folder = export("mots", tmp_path / "mots")
    shutil.copytree(folder / "instances_txt", tmp_path / "trackers" / "same" / "data")
    loader = trackeval.datasets.KittiMOTS(
        {
            "GT_FOLDER": str(folder), "TRACKERS_FOLDER": str(tmp_path / "trackers"), "PRINT_CONFIG": False,
            "SEQ_INFO": {v.name: v.frames[-1] + 1 for v in scene().videos},
            "GT_LOC_FORMAT": "{gt_folder}/instances_txt/{seq}.txt",
        }
    )  # fmt: skip
    for video in scene().videos:
        raw = loader.get_raw_seq_data("same", video.name)
        truth = {m.frame: m.masks for m in video.read()}
        for frame in range(loader.seq_lengths[video.name]):
            ids = raw["gt_ids"][frame].tolist()
            assert sorted(i % 1000 for i in ids) == sorted(truth.get(frame, {}))
            for number, class_id, rle in zip(
                ids, raw["gt_classes"][frame].tolist(), raw["gt_dets"][frame], strict=True
            ):
                assert number // 1000 == class_id == {"Person": 1, "Ball": 2}[CLASSES[number % 1000]]
                assert np.array_equal(coco_mask.decode(rle), truth[frame][number % 1000])


def test_mots_follows_the_rules_of_the_format(tmp_path):
    """16 bits, class * 1000 + instance, and the same in pictures and text."""
    folder = export("mots", tmp_path)
    for video in scene().videos:
        lines = [line.split() for line in (folder / "instances_txt" / f"{video.name}.txt").read_text().splitlines()]
        assert [int(line[0]) for line in lines] == sorted(int(line[0]) for line in lines)
        for frame in video.frames:
            with Image.open(folder / "instances" / video.name / f"{frame:06d}.png") as image:
                assert image.mode == "I;16"
                values = np.array(image)
            here = [line for line in lines if int(line[0]) == frame]
            assert {int(line[1]) for line in here} == set(np.unique(values).tolist()) - {0}
            for line in here:
                assert line[3:5] == [str(HEIGHT), str(WIDTH)]
                rle = {"size": [HEIGHT, WIDTH], "counts": line[5].encode()}
                assert np.array_equal(coco_mask.decode(rle).astype(bool), values == int(line[1]))


# ---- the rest


def test_numpy_loads_npz(tmp_path):
    export("npz", tmp_path)
    for video in scene().videos:
        with np.load(tmp_path / f"{video.name}.npz") as arrays:
            masks = arrays["masks"]
            assert masks.dtype == bool
            assert masks.shape == (len(video.frames), 3, HEIGHT, WIDTH)
            assert arrays["frames"].tolist() == list(video.frames)
            assert arrays["labels"].tolist() == ["Person 1", "Person 2", "Ball"]
            for place, masked in enumerate(video.read()):
                for n, track in enumerate(arrays["track_ids"].tolist()):
                    assert np.array_equal(masks[place, n], masked.masks.get(track, np.zeros((HEIGHT, WIDTH), bool)))


def test_label_studio_takes_the_boxes(tmp_path):
    export("video-rectangle", tmp_path)
    interface = LabelInterface((tmp_path / "label_config.xml").read_text())
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [t["data"]["video"] for t in tasks] == ["street.mp4", "court-2.mp4"]
    for task in tasks:
        assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
        assert {r["value"]["labels"][0] for r in task["predictions"][0]["result"]} <= {"Person 1", "Person 2", "Ball"}


def test_an_overlay_is_h264_that_browsers_play(tmp_path):
    export("overlay", tmp_path)
    for video in scene().videos:
        with av.open(str(tmp_path / f"{video.name}.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert len(frames) == len(video.frames)
        assert frames[0].shape[1] == WIDTH
        assert frames[0].shape[0] > HEIGHT, "the bar is below the picture"
