"""Where the milliseconds of one frame go.

    python benchmarks/frame_profile.py embedded --data DAVIS_FOLDER --sequences blackswan dog ... [--objects 1]
    python benchmarks/frame_profile.py xmem [--objects 1] [--size 480x854] [--warm 30] [--frames 10] [--threads 2]
    python benchmarks/frame_profile.py sam [--size 480x854] [--frames 3] [--threads 2]

Each part has the time that is spent in it and in none of the others. embedded: on one core, where nothing is computed
ahead, so that the parts add up; the first 25 frames of each sequence, the true mask of the first, one pass forward; the
mean of the sequences. xmem and sam: ViT-B and XMem at their full sizes with the weights of
tests/deterministic_weights.py, a made video; means. There the multiplications and additions of each part are counted
(once, on one thread, where they can be), and "at least" is their time at the speed that a large product of matrices
reaches in the same process: what a part would take that did nothing else, in float32.
"""

from __future__ import annotations

import argparse
import functools
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2

REST = "the rest"
PRODUCT = 4096


class Parts:
    """Seconds, and operations where they are counted, of each part without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, float] = defaultdict(float)
        self._counter: Callable[[], float] = lambda: 0.0
        self._local = threading.local()

    def watch(self, part: str, owner: Any, *names: str) -> None:
        """From now on a call of one of these attributes of a class or module belongs to the part."""
        for name in names:
            inner = getattr(owner, name)

            @functools.wraps(inner)
            def timed(*args: Any, inner: Callable[..., Any] = inner, **kwargs: Any) -> Any:
                return self.run(part, functools.partial(inner, *args, **kwargs))

            setattr(owner, name, timed)

    def run(self, part: str, work: Callable[[], Any]) -> Any:
        inside: list[list[float]] = self._local.__dict__.setdefault("inside", [])
        inside.append([0.0, 0.0])
        began, before = time.perf_counter(), self._counter()
        try:
            return work()
        finally:
            spent, counted = time.perf_counter() - began, self._counter() - before
            inner_spent, inner_counted = inside.pop()
            self.seconds[part] += spent - inner_spent
            self.operations[part] += counted - inner_counted
            if inside:
                inside[-1][0] += spent
                inside[-1][1] += counted

    def count(self, work: Callable[[], Any]) -> None:
        """Run with operations counted, and time forgotten."""
        from torch.utils.flop_counter import FlopCounterMode

        self.operations.clear()
        with FlopCounterMode(display=False) as counter:
            self._counter = counter.get_total_flops
            self.run(REST, work)
        self._counter = lambda: 0.0
        self.seconds.clear()

    def table(self, frames: int, speed: float | None = None) -> None:
        """speed: operations a second of a large product; adds the columns that need it."""
        total = sum(self.seconds.values())
        print("| part | ms a frame | share |" + (" GFLOP | at least, ms |" if speed else ""))
        print("| --- | --- | --- |" + (" --- | --- |" if speed else ""))
        rows = sorted(self.seconds, key=lambda part: -self.seconds[part])
        for part in [*(r for r in rows if r != REST), *(r for r in rows if r == REST)]:
            row = f"| {part} | {1e3 * self.seconds[part] / frames:.1f} | {100 * self.seconds[part] / total:.0f} % |"
            print(row + (self._compute(self.operations[part], speed) if speed else ""))
        row = f"| together | {1e3 * total / frames:.1f} | |"
        print(row + (self._compute(sum(self.operations.values()), speed) if speed else ""), flush=True)

    @staticmethod
    def _compute(operations: float, speed: float) -> str:
        return f" {operations / 1e9:.1f} | {1e3 * operations / speed:.0f} |"


def profile_embedded(args: argparse.Namespace) -> None:
    from benchmarks.embedded_propagation import STORE_BYTES, moved_objects, read_ids
    from tam_backend.engines import load_engine
    from tam_backend.features import camera, colour, edges, frames, shots
    from tam_backend.features.geometry import Geometry
    from tam_backend.propagators.embedded import assessment, origin, propagator, sighting
    from tam_backend.tracking import tracker
    from tam_backend.tracking.objects import track_objects
    from tam_backend.tracking.store import MemoryStore
    from tam_backend.video import open_source
    from tam_backend.video.images import ImageReader

    cv2.setNumThreads(1)
    parts = Parts()
    parts.watch("flow there and back", frames, "dense_flow")
    parts.watch("camera's motion, relative speed", camera.CameraMotion, "fit", "speed")
    parts.watch("agreement of the flows, enlarging", frames.FrameFeatures, "arrival", "consistency", "_enlarge", "flow")
    parts.watch("colours of the frame", frames.FrameFeatures, "lab", "bins", "small_lab", "gray")
    parts.watch("edges of the frame", edges.Edges, "__init__")
    parts.watch("mask onto edges", edges.Edges, "snap")
    parts.watch("odds by colour", colour.ColourModel, "log_odds", "learn")
    parts.watch("way back to the first frame", origin.Origin, "step", "recall")
    parts.watch("evidence, carrying the mask", propagator.EmbeddedPropagation, "_follow")
    parts.watch("is the object there", sighting.Sighting, "update", "search")
    parts.watch("quality", assessment.Assessment, "quality")
    parts.watch("review and refinement", propagator.EmbeddedPropagation, "_reviewed")
    parts.watch("cuts and fades", shots.Shots, "cut")
    parts.watch("mask to full size", Geometry, "to_full")
    parts.watch("packing", tracker, "pack_frame", "pack_state")
    parts.watch("reading a frame", ImageReader, "__getitem__")
    images, annotations = args.data / "JPEGImages" / "480p", args.data / "Annotations" / "480p"
    total = 0
    for name in args.sequences:
        truth = read_ids(annotations / name, False, args.frames)
        with (
            open_source(images / name) as video,
            tracker.Tracker(load_engine("embedded"), video, range(len(truth)), MemoryStore(STORE_BYTES)) as job,
        ):
            objects = moved_objects(truth[0], 0, args.objects)
            parts.run(REST, functools.partial(deque, track_objects(job, objects, 0), 0))
        total += len(truth) - 1
    print(f"embedded engine, {args.objects} object(s), one core, {total} frames")
    parts.table(total)


def product_speed() -> float:
    """Operations a second of a large product of matrices, on all threads that PyTorch may use."""
    import torch

    a = torch.randn(PRODUCT, PRODUCT)
    out = torch.empty_like(a)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(a, a, out=out)
        times.append(time.perf_counter() - began)
    return float(2 * PRODUCT**3 / min(times))


def counted_and_timed(
    parts: Parts,
    work: Callable[[], Any],
    threads: int,
    frames: int,
    per_count: int = 1,
    counted: Callable[[], Any] | None = None,
) -> None:
    """per_count: calls that are counted, so that what happens on some frames only has its share. counted: what is
    counted in place of ``work``, where that computes what PyTorch does not know of."""
    import torch

    torch.set_num_threads(1)
    parts.count(lambda: [(counted or work)() for _ in range(per_count)])
    operations = {part: number / per_count for part, number in parts.operations.items()}
    torch.set_num_threads(threads)
    work()
    parts.seconds.clear()
    parts.run(REST, lambda: [work() for _ in range(frames)])
    parts.operations.clear()
    parts.operations.update(operations)
    speed = product_speed()
    print(f"{threads} threads, {frames} frames; a product of {PRODUCT}x{PRODUCT}: {speed / 1e9:.0f} GFLOP/s")
    parts.table(frames, speed)


def profile_xmem(args: argparse.Namespace) -> None:
    from compare_xmem import video

    from tam_backend.propagators.xmem import XMem, XMemCore
    from tam_backend.propagators.xmem.memory import Memory
    from tests.deterministic_weights import XMEM, fill

    parts = Parts()
    parts.watch("key encoder", XMem, "encode_frame")
    parts.watch("memory read", Memory, "read")
    parts.watch("decoder", XMem, "segment")
    parts.watch("value encoder (one frame in five)", XMem, "encode_value", "deep_update")
    parts.watch("memory: keeping, consolidating", Memory, "add_frame")
    network = XMem()
    fill(network, XMEM)
    core = XMemCore(network)
    core.set_all_labels(list(range(1, args.objects + 1)))
    height, width = map(int, args.size.split("x"))
    frames = video(height, width, args.objects)
    for _ in range(args.warm):
        core.step(*next(frames))
    print(f"XMem, {args.objects} object(s), {width}x{height}, after {args.warm} frames")
    every = core.config.mem_every
    counted_and_timed(parts, lambda: core.step(next(frames)[0]), args.threads, every * -(-args.frames // every), every)


def profile_sam(args: argparse.Namespace) -> None:
    from compare_sam import picture
    from segment_anything.build_sam import build_sam_vit_b

    from tam_backend.segmenters.sam import Predictor, encoder, encoder_cpu, predictor
    from tests.deterministic_weights import SAM, fill

    parts = Parts()
    parts.watch("attention over all places (4 blocks)", encoder_cpu, "_by_rows")
    parts.watch("attention in windows (8 blocks)", encoder_cpu, "_by_windows")
    parts.watch("linear layers, norms, GELU", encoder_cpu, "_block")
    parts.watch("patches, neck", encoder, "encode")
    parts.watch("patches, neck", predictor, "encode")
    height, width = map(int, args.size.split("x"))
    image = picture(height, width, 0)
    sams = build_sam_vit_b(), build_sam_vit_b()
    for sam in sams:
        fill(sam, SAM)
    ours = Predictor(sams[0])
    with mock.patch.object(predictor, "split_layers"):
        plain = Predictor(sams[1])
    print(f"SAM ViT-B, set_image, {width}x{height}")
    counted_and_timed(parts, lambda: ours.encode(image), args.threads, args.frames, counted=lambda: plain.encode(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines = parser.add_subparsers(dest="engine", required=True)
    embedded = engines.add_parser("embedded")
    embedded.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    embedded.add_argument("--sequences", nargs="+", required=True, help="names of sequences")
    embedded.add_argument("--objects", type=int, default=1, help="the same mask, each moved a little")
    embedded.add_argument("--frames", type=int, default=25, help="frames of each sequence")
    xmem = engines.add_parser("xmem")
    xmem.add_argument("--objects", type=int, default=1)
    xmem.add_argument("--warm", type=int, default=30)
    sam = engines.add_parser("sam")
    for parser_of, frames in ((xmem, 10), (sam, 3)):
        parser_of.add_argument("--size", default="480x854", help="height x width")
        parser_of.add_argument("--frames", type=int, default=frames)
        parser_of.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    profiles: Mapping[str, Callable[[argparse.Namespace], None]] = {
        "embedded": profile_embedded,
        "xmem": profile_xmem,
        "sam": profile_sam,
    }
    profiles[args.engine](args)


if __name__ == "__main__":
    main()
