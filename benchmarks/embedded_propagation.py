"""Measure the propagation of the embedded engine on video object segmentation data in the DAVIS layout.

    python benchmarks/embedded_propagation.py --data DIR [--sequences dog libby] [--what masks speed memory cues]

DIR holds JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png. J and F as in the DAVIS 2017
evaluation (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017).

masks: J&F with the true mask of the first frame and one pass (over the frames without the first and the last), and with
the true masks of the first, middle and last frame (over all others). Anything but background is one object; with
--each-object every id is one, and pixels go to the object that claims them most.
speed: ms a frame of one pass forward with nothing known, of that and the pass back over the same frames, and the time
of five objects (the same mask, each moved a little, so that no result is shared) by that of one. All that tracking does
for a frame is in it: reading, cuts, quality, refinement, packing. cpu: of all cores together.
memory: the largest resident memory of a fresh process that tracks one object, three, and five, through a made video of
1,000 frames of 720p, results in files, with the reader of the server.
cues: what J&F loses when a cue is switched off.
``embedded_bars.py`` holds these figures against what is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.made_video import write_made_video
from benchmarks.tables import print_table
from tam_backend.engines import load_engine
from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.features.edges import Edges
from tam_backend.prompts import FramePrompts
from tam_backend.propagators.embedded import propagator, sighting
from tam_backend.tracking import runs
from tam_backend.tracking.filestore import FileStore
from tam_backend.tracking.objects import ObjectsFrame, track_objects
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, Tracker
from tam_backend.video import open_source, open_video

Ids = npt.NDArray[np.uint8]
STORE_BYTES = 10**9
OBJECTS, OBJECT_COUNTS = 5, (1, 3, 5)
#: Pixels by which the mask of each further object is moved to the right.
MOVED = 3
MEMORY_FRAMES, MEMORY_SIZE = 1000, (720, 1280)


def read_ids(folder: Path, each_object: bool, count: int | None) -> list[Ids]:
    maps = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))[:count]]
    if not maps:
        raise SystemExit(f"no masks (*.png) in {folder}")
    return maps if each_object else [(ids > 0).astype(np.uint8) for ids in maps]


def measure_masks(images: Path, truth: list[Ids]) -> dict[str, float]:
    last = len(truth) - 1
    first = j_and_f(images, truth, [0], range(1, last))
    three = [0, len(truth) // 2, last]
    return {
        "first mask": first,
        "three masks": j_and_f(images, truth, three, [f for f in range(last) if f not in three]),
    }


def j_and_f(images: Path, truth: list[Ids], given: list[int], scored: range | list[int]) -> float:
    """In percent, mean over the objects of the first frame. given: the frames with true masks."""
    objects = [int(i) for i in np.unique(truth[0]) if i]
    anchors = {i: {f: Anchor(FramePrompts(mask=truth[f] == i)) for f in given} for i in objects}
    with (
        open_source(images) as video,
        Tracker(load_engine("embedded"), video, range(len(truth)), MemoryStore(STORE_BYTES)) as tracker,
    ):
        steps = track_objects(tracker, anchors, given[0])
        found = {s.frame: s.ids for s in steps if isinstance(s, ObjectsFrame) and s.frame in scored}
    values = [
        measure(found[f] == i, truth[f] == i)
        for f in scored
        for i in objects
        for measure in (region_similarity, boundary_measure)
    ]
    return 100 * float(np.mean(values))


def measure_speed(images: Path, truth: list[Ids]) -> dict[str, float]:
    last = len(truth) - 1
    (forward, cpu), (back, cpu_back) = milliseconds(images, truth, 1, (0, last))
    ((five, cpu_five),) = milliseconds(images, truth, OBJECTS, (0,))
    return {
        "one way": forward / last,
        "cpu one way": cpu / last,
        "both ways": (forward + back) / last,
        "cpu both ways": (cpu + cpu_back) / last,
        "5 objects / 1": five / forward,
        "cpu 5 / 1": cpu_five / cpu,
    }


def milliseconds(images: Path, truth: list[Ids], objects: int, starts: tuple[int, ...]) -> list[tuple[float, float]]:
    """By the clock, and of all cores, for one pass after the other through the same frames, each with the true mask of
    the frame it starts at."""
    times = []
    with (
        open_source(images) as video,
        Tracker(load_engine("embedded"), video, range(len(truth)), MemoryStore(STORE_BYTES)) as tracker,
    ):
        for start in starts:
            anchors = moved_objects(truth[start], start, objects)
            began, spent = time.perf_counter(), time.process_time()
            for _ in track_objects(tracker, anchors, start):
                pass
            times.append((1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - spent)))
    return times


def moved_objects(truth: Ids, frame: int, objects: int) -> dict[int, dict[int, Anchor]]:
    """So many objects of the same true mask on a frame, each moved a little, so that no result is shared."""
    masks = [np.roll(truth > 0, MOVED * i, axis=1) for i in range(objects)]
    return {i + 1: {frame: Anchor(FramePrompts(mask=mask))} for i, mask in enumerate(masks)}


def measure_memory(objects: int) -> dict[str, float]:
    """In a fresh process, so that nothing else counts."""
    with tempfile.TemporaryDirectory() as folder:
        write_made_video(Path(folder) / "made.mp4", MEMORY_FRAMES, *MEMORY_SIZE)
        command = [sys.executable, __file__, "--data", folder, "--resident", str(objects)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"MB": float(result.stdout)}


def print_resident(folder: Path, objects: int) -> None:
    """Track through the made video of ``folder`` and print the largest resident memory in MB (Linux)."""
    height, width = MEMORY_SIZE
    masks = np.zeros((objects, height, width), bool)
    for i in range(objects):
        masks[i, height // 3 : 2 * height // 3, (3 * i + 1) * width // (3 * objects) :][:, : width // (3 * objects)] = (
            True
        )
    anchors = {i + 1: {0: Anchor(FramePrompts(mask=mask))} for i, mask in enumerate(masks)}
    with (
        open_video(folder / "made.mp4", cache_bytes=96 << 20) as video,
        Tracker(load_engine("embedded"), video, range(len(video)), FileStore(folder / "store")) as tracker,
    ):
        for _ in track_objects(tracker, anchors, 0):
            pass
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))


def without(target: object, **values: object) -> Callable[[], contextlib.AbstractContextManager[object]]:
    return functools.partial(mock.patch.multiple, target, **values)


def nearest_only(frame: int, earlier: int, later: int) -> float:
    return float(later - frame < frame - earlier)


CUES: Mapping[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "motion against the camera": without(propagator, _motion_evidence=lambda speed, depth, inner: 0.0),
    "colours of the anchors": without(propagator, COLOUR_WEIGHT=0.0),
    "recall of the first frame": without(propagator, RECALL_WEIGHT=0.0, RECALL_CERTAIN=0.0),
    "edges of the image": without(Edges, snap=lambda self, values, part: values),
    "search for what was lost": without(sighting, SEARCH_FRAMES=-1),
    "fusion from both sides": without(runs, share_of_later=nearest_only),
}


def measure_cues(folders: Mapping[str, Path], truth: Mapping[str, list[Ids]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Mean J&F over the sequences with everything, and what is lost without each cue."""

    def means() -> dict[str, float]:
        rows = [measure_masks(folders[name], truth[name]) for name in truth]
        return {column: float(np.mean([row[column] for row in rows])) for column in rows[0]}

    whole = means()
    yield "everything", whole
    for name, off in CUES.items():
        with off():
            part = means()
        yield f"- {name}", {column: part[column] - whole[column] for column in whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    parser.add_argument("--sequences", nargs="+", help="names of sequences; all of them by default")
    parser.add_argument("--frames", type=int, help="use only this many frames of each sequence")
    parser.add_argument("--each-object", action="store_true", help="every id is an object of its own")
    parser.add_argument("--what", nargs="+", choices=["masks", "speed", "memory", "cues"], default=["masks", "speed"])
    parser.add_argument("--resident", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resident:
        print_resident(arguments.data, arguments.resident)
        return
    images, annotations = arguments.data / "JPEGImages" / "480p", arguments.data / "Annotations" / "480p"
    if not images.is_dir() or not annotations.is_dir():
        parser.error(f"--data must hold JPEGImages/480p and Annotations/480p, {arguments.data} does not")
    names = arguments.sequences or sorted(p.name for p in annotations.iterdir() if p.is_dir())
    for name in names:
        if not (annotations / name).is_dir():
            parser.error(f"there is no sequence {name} in {annotations}")
    truth = {name: read_ids(annotations / name, arguments.each_object, arguments.frames) for name in names}
    if "masks" in arguments.what:
        print_table("J&F", {name: measure_masks(images / name, truth[name]) for name in names})
    if "speed" in arguments.what:
        rows = {name: measure_speed(images / name, truth[name]) for name in names}
        print_table("ms a frame", rows, ("5 objects / 1", "cpu 5 / 1"))
    if "memory" in arguments.what:
        print_table("memory", {f"{n} objects": measure_memory(n) for n in OBJECT_COUNTS}, mean=False)
    if "cues" in arguments.what:
        print(f"\n{'J&F, cue off: loss':32}{'first mask':>12}{'three masks':>12}")
        for name, row in measure_cues({n: images / n for n in names}, truth):
            print(f"{name:32}" + "".join(f"{value:12.1f}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
