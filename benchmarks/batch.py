"""Throughput of `tam batch` on Ray with one and with two workers of one core each, alternating, on this machine.

    python -m benchmarks.batch [--rounds 3] [--videos 4] [--frames 60]

Makes its videos. Ray's start and the loading of engines are timed apart from the work, which counts from the first
video begun to the last one done.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from tam_backend.cluster.on_ray import connect

SIZE = (640, 360)


def make_video(path: Path, frames: int, seed: int) -> None:
    """A textured disc that moves over a textured ground."""
    random = np.random.default_rng(seed)
    width, height = SIZE
    ground = np.kron(random.integers(60, 120, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    disc = np.kron(random.integers(150, 250, (10, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    rows, columns = np.mgrid[:80, :80] - 39.5
    inside = rows**2 + columns**2 < 38**2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            picture = ground.copy()
            left, top = 40 + 3 * i, 100 + round(40 * np.sin(i / 9))
            picture[top : top + 80, left : left + 80][inside] = disc[inside]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def run(folder: Path, workers: int, out: str, address: str) -> tuple[float, float]:
    """(seconds until the first video was begun, seconds from then to the end)."""
    command = [
        sys.executable, "-m", "tam_backend.cli", "batch", folder / "manifest.jsonl", "--out", folder / out,
        "--engine", "embedded", "--address", address, "--workers", workers,
    ]  # fmt: skip
    started = time.monotonic()
    first = last = 0.0
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as p:
        assert p.stderr is not None
        for line in p.stderr:
            if re.search(r"worker \d+ .* begins", line) and not first:
                first = time.monotonic()
            elif ": done" in line:
                last = time.monotonic()
    assert p.returncode == 0
    return first - started, last - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    total = args.videos * args.frames
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "manifest.jsonl").open("w") as manifest:
            for i in range(args.videos):
                make_video(folder / f"v{i}.mp4", args.frames, i)
                manifest.write(json.dumps({"video": f"v{i}.mp4", "click": ["0,80,140"]}) + "\n")
        ratios = []
        cluster = connect("local", cores=2)
        for i in range(args.rounds):
            seconds = {}
            for workers in (1, 2):
                start, seconds[workers] = run(folder, workers, f"out-{i}-{workers}", cluster.address)
                print(
                    f"{workers} worker(s): start {start:.1f} s; {total} frames in {seconds[workers]:.1f} s, "
                    f"{total / seconds[workers]:.1f} frames/s",
                    flush=True,
                )
            ratios.append(seconds[1] / seconds[2])
        cluster.close()
        print(
            f"2 workers against 1: {statistics.median(ratios):.2f} (median of {', '.join(f'{r:.2f}' for r in ratios)})"
        )


if __name__ == "__main__":
    main()
