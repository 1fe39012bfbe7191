"""Whether every frame of real videos comes out exactly, in any order, and at what cost.

    python benchmarks/video_exactness.py VIDEO...

The truth is one decoding from beginning to end with PyAV's defaults and PyAV's own conversion to RGB, turned as the
display matrix says with NumPy. For each file: the time to open it (hash and index, nothing cached), the frames of both,
then all frames forward, all backward and 50 at random, each compared bit for bit, with milliseconds per frame. Every
file is read in a process of its own, whose peak memory is measured; the truth is kept as one hash per frame.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.video import open_video
from tam_backend.video.base import Frame

RANDOM_ACCESSES = 50


def digest(frame: Frame) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frame), digest_size=16).digest()


def truth(path: Path, queue: multiprocessing.Queue) -> None:
    hashes = []
    start = time.perf_counter()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            # Unnamed matrices are BT.709 from 720 lines on, as viewers have it; PyAV alone would take BT.601.
            matrix = None if frame.colorspace != 2 else (1 if frame.height >= 720 else 5)
            rgb = frame.to_ndarray(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix)
            hashes.append(digest(np.rot90(rgb, frame.rotation // 90)))
    queue.put((hashes, time.perf_counter() - start))


def measure(path: Path, expected: list[bytes], threads: int, queue: multiprocessing.Queue) -> None:
    start = time.perf_counter()
    reader = open_video(path, threads=threads)
    opened = time.perf_counter() - start
    n = min(len(reader), len(expected))

    def compare(frames: Iterable[tuple[int, Callable[[], Frame]]]) -> tuple[int, float]:
        """Wrong frames, and milliseconds per frame for reading alone."""
        wrong, spent, count = 0, 0.0, 0
        for i, read in frames:
            begin = time.perf_counter()
            frame = read()
            spent += time.perf_counter() - begin
            wrong += digest(frame) != expected[i]
            count += 1
        return wrong, 1000 * spent / count

    forward = iter(reader)
    ahead = compare((i, lambda: next(forward)) for i in range(n))
    seeks = reader.seeks
    reader.close()
    reader = reader.clone()
    backward = reversed(reader)
    back = compare((i, lambda: next(backward)) for i in reversed(range(n)))
    reader.close()
    reader = reader.clone()
    rng = random.Random(0)
    jumps = compare((i, lambda i=i: reader[i]) for i in (rng.randrange(n) for _ in range(RANDOM_ACCESSES)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put((opened, len(reader), (reader.width, reader.height), reader.warning, ahead, seeks, back, jumps, peak))


def in_process(work: Callable, *arguments: object) -> tuple:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(*arguments, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=0, help="decoder threads, 0 = one per core")
    arguments = parser.parse_args()
    faults = 0
    for path in arguments.videos:
        expected, seconds = in_process(truth, path)
        result = in_process(measure, path, expected, arguments.threads)
        opened, frames, size, warning, ahead, seeks, back, jumps, peak = result
        wrong = ahead[0] + back[0] + jumps[0] + abs(frames - len(expected))
        faults += wrong
        print(f"{path.name}: {size[0]}x{size[1]}, {frames} frames ({len(expected)} decoded in {seconds:.2f} s)")
        print(f"  open {1000 * opened:.0f} ms; peak memory {peak:.0f} MiB; warning: {warning}")
        for name, (bad, milliseconds) in (("forward", ahead), ("backward", back), ("random", jumps)):
            print(f"  {name:8} {bad} wrong, {milliseconds:.2f} ms per frame")
        print(f"  seeks while reading forward: {seeks}")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
