"""XMem here against the official code: frame by frame in turns, in one process.

    python benchmarks/compare_xmem.py --official CHECKOUT [--objects 1] [--size 480x854] [--warm 30] [--frames 15]
        [--threads 2] [--device cpu] [--read] [--spread [--top-k 30]]

CHECKOUT: of https://github.com/hkchengrex/XMem. The weights are those of tests/deterministic_weights.py, the video is
made. Both see the same frames; each frame is computed by the one, then by the other, and the order changes every
frame. Prints the times of both, their ratio, and the largest difference in probability over all frames. --read
measures the memory read alone, at 14,000 elements. --spread asks how much of the difference is rounding: the official
code runs in float64, which is taken for the truth, and in float32 on one thread, on two, and with channels last; it
prints how far each of these and ours are from it, frame by frame (some 20 s a frame of 854x480). With --top-k 0 all
read all of the memory, so that nothing has to be chosen.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import Turns, load_xmem

from tam_backend.propagators.xmem import XMem, XMemConfig, XMemCore
from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.network import FrameEncoding
from tests.deterministic_weights import XMEM, fill

MARGIN = 64


def video(height: int, width: int, objects: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """A window that moves over a smooth random picture; masks of ellipses on the first frame."""
    world = torch.nn.functional.interpolate(
        torch.randn(1, 3, 30, 54, generator=torch.Generator().manual_seed(0)),
        (height + MARGIN, width + MARGIN),
        mode="bicubic",
    )[0]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    masks = torch.stack(
        [
            ((rows - height / 2) / (height / 4)) ** 2
            + ((columns - width * (i + 0.5) / objects) / (width / (3 * objects))) ** 2
            < 1
            for i in range(objects)
        ]
    ).float()
    index = 0
    while True:
        top, left = index % MARGIN, (index // 2) % MARGIN
        yield world[:, top : top + height, left : left + width].contiguous(), masks if index == 0 else None
        index += 1


class Comparison:
    def __init__(self, checkout: Path, height: int, width: int, objects: int, device: str) -> None:
        ours = XMem()
        fill(ours, XMEM)
        config = XMemConfig()
        network, core = load_xmem(checkout, ours.state_dict(), asdict(config))
        self.device = device
        self.labels = list(range(1, objects + 1))
        self.ours = XMemCore(ours.to(device), config, amp=device != "cpu")
        self.theirs = core(network.to(device), asdict(config))
        self.ours.set_all_labels(self.labels)
        self.theirs.set_all_labels(self.labels)
        self.frames = video(height, width, objects)
        self.error = self.beyond = 0.0
        self.count = 0

    @torch.no_grad()
    def run(self, frames: int) -> Turns:
        turns = Turns(self.device)
        for _ in range(frames):
            image, mask = (None if t is None else t.to(self.device) for t in next(self.frames))
            valid = None if mask is None else self.labels
            given = None if mask is None else mask.clone()  # the official code writes into it
            with torch.autocast("cuda", enabled=self.device != "cpu"):
                ours, theirs = turns.run(
                    partial(self.ours.step, image, mask, valid), partial(self.theirs.step, image, given, valid)
                )
            difference = (ours - theirs).abs()
            self.error = max(self.error, float(difference.max()))
            self.beyond = max(self.beyond, float((difference > 1e-3).float().mean()))
            self.count += 1
        return turns


@torch.no_grad()
def tell_spread(checkout: Path, height: int, width: int, objects: int, frames: int, top_k: int) -> None:
    """How far the official code in float32, run in three ways, and ours are from the official code in float64."""
    ours = XMem()
    fill(ours, XMEM)
    config = XMemConfig(top_k=top_k or sys.maxsize)
    network, core = load_xmem(checkout, ours.state_dict(), asdict(config))
    labels, threads = list(range(1, objects + 1)), torch.get_num_threads()
    exact, across = copy.deepcopy(network).double(), copy.deepcopy(network).to(memory_format=torch.channels_last)
    ways = {
        "float64": (core(exact, asdict(config)), torch.float64, threads),
        f"official, {threads} threads": (core(network, asdict(config)), torch.float32, threads),
        "official, 1 thread": (core(network, asdict(config)), torch.float32, 1),
        "official, channels last": (core(across, asdict(config)), torch.float32, threads),
        "ours": (XMemCore(ours, config), torch.float32, threads),
    }
    for name, (way, *_) in ways.items():
        way.set_all_labels(labels)
        if not top_k and name != "ours":
            way.memory.top_k = None
    errors: dict[str, list[float]] = {name: [] for name in ways if name != "float64"}
    moving = video(height, width, objects)
    for number in range(frames):
        image, mask = next(moving)
        results = {}
        for name, (way, dtype, count) in ways.items():
            torch.set_num_threads(count)
            given = None if mask is None else mask.to(dtype, copy=True)  # the official code writes into it
            results[name] = way.step(image.to(dtype), given, None if mask is None else labels).double()
        for name, seen in errors.items():
            seen.append(float((results[name] - results["float64"]).abs().max()))
        print(f"frame {number}: " + ", ".join(f"{name} {seen[-1]:.1e}" for name, seen in errors.items()), flush=True)
    for name, seen in errors.items():
        print(f"{name}: at most {max(seen):.1e} from float64, beyond 1e-3 in {sum(e > 1e-3 for e in seen)} frames")


@torch.no_grad()
def compare_reads(checkout: Path, elements: int, repeats: int) -> None:
    """One memory read at 30x54 cells: similarity, top 30, readout, and what is counted of their use."""
    load_xmem(checkout, XMem().state_dict(), asdict(XMemConfig()))
    from inference.memory_manager import MemoryManager  # the checkout's

    config = XMemConfig(max_mid_term_frames=1000)
    grid, random = (30, 54), torch.Generator().manual_seed(0)
    cells = grid[0] * grid[1]

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    def encoding() -> FrameEncoding:
        key, shrinkage, selection = rand(cells, 64), 1 + rand(cells, 1).square(), rand(cells, 64).sigmoid()
        return FrameEncoding(grid, key, shrinkage, selection, torch.empty(0), None, None)

    ours, theirs = Memory(config, grid, torch.device("cpu"), torch.float32), MemoryManager(asdict(config))

    def plane(rows: Tensor) -> Tensor:
        return rows.T.reshape(1, rows.shape[1], *grid)

    for number in range(-(-elements // cells)):
        frame, value = encoding(), rand(1, 512, *grid)
        ours.add_frame(number, frame, value, [1])
        theirs.add_memory(plane(frame.key), plane(frame.shrinkage), value[None], [1], selection=plane(frame.selection))
    turns, errors = Turns(), []
    for _ in range(repeats):
        query = encoding()
        read, official = turns.run(
            partial(ours.read, query, [1]),
            partial(theirs.match_memory, plane(query.key), plane(query.selection)),
        )
        errors.append((read - official).abs().amax(1).flatten())
    turns.tell(f"memory read, {len(ours)} elements")
    error = torch.cat(errors)
    share = float((error > 1e-4).float().mean())
    print(
        f"largest difference of a readout {float(error.max()):.1e}; beyond 1e-4 in {share:.1e} of the cells: there, "
        "the 30th and the 31st similarity are equal up to rounding"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--size", default="480x854", help="height x width")
    parser.add_argument("--warm", type=int, default=30)
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--top-k", type=int, default=30, help="of --spread; 0: all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.read:
        compare_reads(args.official, 14_000, args.frames)
        return
    height, width = map(int, args.size.split("x"))
    if args.spread:
        tell_spread(args.official, height, width, args.objects, args.frames, args.top_k)
        return
    comparison = Comparison(args.official, height, width, args.objects, args.device)
    comparison.run(args.warm)
    turns = comparison.run(args.frames)
    turns.tell(f"{args.objects} object(s), {width}x{height}, after {args.warm} frames")
    print(
        f"largest difference in probability over {comparison.count} frames {comparison.error:.1e}; "
        f"at most {comparison.beyond:.1e} of the numbers of a frame differ by more than 1e-3"
    )


if __name__ == "__main__":
    main()
