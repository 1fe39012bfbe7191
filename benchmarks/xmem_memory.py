"""Measure how much memory XMem takes over a long video, and how long a frame takes.

    python benchmarks/xmem_memory.py [--frames 3000] [--size 240x426] [--objects 1] [--threads 2] [--checkpoint FILE]
        [--long-term 10000]

The video is a window that moves over a smooth random image; the weights are random unless a checkpoint is given (they
change no size). A row is printed every 100 frames: resident memory of the process, elements of working and long-term
memory, bytes of the memory's tables, median seconds per frame since the row before. --long-term: elements of long-term
memory at most; with fewer, it is full sooner.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.propagators.xmem import XMem, XMemConfig, XMemCore, load_xmem

EVERY = 100


def resident_mb() -> float:
    """Resident memory of this process in MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="240x426", help="height x width")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--long-term", type=int, default=XMemConfig().max_long_term_elements)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    network = load_xmem(args.checkpoint) if args.checkpoint else XMem()
    margin = 64
    world = torch.nn.functional.interpolate(
        torch.randn(1, 3, 20, 36), (height + margin, width + margin), mode="bicubic"
    )

    def image(index: int) -> torch.Tensor:
        top, left = index % margin, (index // 3) % margin
        return world[0, :, top : top + height, left : left + width].contiguous()

    masks = torch.zeros(args.objects, height, width)
    for i in range(args.objects):
        masks[i, height // 4 : height // 2, i * width // args.objects : (2 * i + 1) * width // (2 * args.objects)] = 1
    core = XMemCore(network, XMemConfig(max_long_term_elements=args.long_term))
    core.set_all_labels(list(range(1, args.objects + 1)))
    core.step(image(0), masks)
    assert core.memory is not None
    print("frame  RSS MB  working  long-term  tables MB  s/frame")
    times = []
    for index in range(1, args.frames + 1):
        start = time.perf_counter()
        core.step(image(index))
        times.append(time.perf_counter() - start)
        if index % EVERY == 0 or index == args.frames:
            tables = sum(core.memory.nbytes.values()) / 1e6
            print(
                f"{index:5d}  {resident_mb():6.0f}  {core.memory.work:7d}  {core.memory.long:9d}  {tables:9.1f}  "
                f"{statistics.median(times):7.3f}",
                flush=True,
            )
            times.clear()


if __name__ == "__main__":
    main()
