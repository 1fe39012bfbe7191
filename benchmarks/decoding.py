"""What reading a 1080p H.264 video costs whoever computes on its frames.

    python benchmarks/decoding.py [--size 1080x1920] [--frames 60] [--busy 0.2]

The video is made. Prints how long the reader of a frame waits, in order without a pause, in order with so many seconds
of matrix products on all threads between two frames, and for frames at random; and for these how many coded pictures
were decoded at most, beside the length of a group of pictures.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from made_video import write_made_video

from tam_backend.video import VideoReader, open_video


def compute(seconds: float) -> None:
    matrix = torch.full((1024, 1024), 1e-3)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(matrix, matrix)


def waits(video: VideoReader, order: list[int], busy: float = 0.0) -> list[float]:
    """Seconds for each frame."""
    seconds = []
    for frame in order:
        start = time.perf_counter()
        video[frame]
        seconds.append(time.perf_counter() - start)
        compute(busy)
    return seconds


def tell(what: str, seconds: list[float]) -> None:
    print(f"{what}: {statistics.median(seconds) * 1e3:.1f} ms (median), {max(seconds) * 1e3:.1f} ms (longest)")


def longest_group(path: Path) -> int:
    with av.open(str(path)) as container:
        keys = [i for i, p in enumerate(p for p in container.demux(video=0) if p.size) if p.is_keyframe]
        total = container.streams.video[0].frames
    return max(b - a for a, b in zip(keys, [*keys[1:], total], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1080x1920", help="height x width")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--busy", type=float, default=0.2)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_made_video(path, args.frames, height, width)
        order = list(range(args.frames))
        print(f"{args.frames} frames of {width}x{height}, {path.stat().st_size / 1e6:.1f} MB")
        for what, busy in (("in order, no pause", 0.0), (f"in order, {args.busy:g} s of work between", args.busy)):
            with open_video(path, cache_bytes=1) as video:
                tell(what, waits(video, order, busy)[3:])  # the first open the file
        with open_video(path, cache_bytes=1) as video:
            seconds, packets = [], []
            for frame in random.Random(0).sample(order, min(20, args.frames)):
                before = video.packets_decoded
                seconds += waits(video, [frame])
                packets.append(video.packets_decoded - before)
        tell("at random", seconds)
        print(f"at random: {max(packets)} coded pictures at most; the longest group has {longest_group(path)}")


if __name__ == "__main__":
    main()
