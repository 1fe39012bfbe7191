"""How well holes are filled: fake holes with known truth.

    python benchmarks/inpainting.py --data DIR [--sequences dog ...] [--size 854x480] [--frames N]
        [--methods telea median recursive embedded e2fgvi] [--save DIR]

DIR in the DAVIS layout. The mask of each sequence's object, moved onto the background beside it and grown by 4 pixels,
is the hole; the object itself is never in it. In each hole: PSNR of the colours and SSIM of the grey values against
the truth, means over the frames, and the flicker: how far, in grey levels, the filling is from that of the frame
before, carried along by the flow of the true frames (of the truth itself: column ``truth``). The last two
columns are seconds a frame: by the clock, and of all cores together.

The floors are here and not in the product: ``telea`` fills each frame by itself (Telea 2004); ``median`` follows the
flow from each pixel to the five nearest frames on each side that show it; ``recursive`` carries colours from frame to
frame, past and future averaged, and leaves the rest to Telea.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.inpainting.base import Inpainter, filled
from tam_backend.inpainting.embedded.completion import smooth_fill
from tam_backend.inpainting.embedded.engine import EmbeddedInpainter
from tam_backend.inpainting.holes import grow
from tam_backend.tracking.store import MemoryStore
from tests.array_video import ArrayVideo

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]

#: Sequence -> where the hole is, relative to the object, in pixels of 432x240.
SHIFTS = {
    "blackswan": (150, -40),
    "bmx-trees": (-100, 0),
    "car-shadow": (-110, 50),
    "dance-twirl": (-140, 0),
    "dog": (120, 10),
    "libby": (90, -30),
    "scooter-black": (100, -60),
}
GROWN = 4


@dataclass
class Clip:
    """frames: HxWx3 uint8 RGB. holes: HxW bool. blanked: the frames with grey holes: all that a method gets."""

    name: str
    frames: list[Frame]
    holes: list[Mask]
    blanked: list[Frame] = field(init=False)

    def __post_init__(self) -> None:
        self.blanked = [np.where(h[..., None], np.uint8(128), f) for f, h in zip(self.frames, self.holes, strict=True)]


def load(data: Path, name: str, size: tuple[int, int], count: int | None) -> Clip:
    frames, holes = [], []
    dx, dy = (round(s * side / of) for s, side, of in zip(SHIFTS[name], size, (432, 240), strict=True))
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    for path in sorted((data / "JPEGImages/480p" / name).iterdir())[:count]:
        frames.append(cv2.resize(np.array(Image.open(path).convert("RGB")), size, interpolation=cv2.INTER_AREA))
        ids = np.array(Image.open(data / "Annotations/480p" / name / f"{path.stem}.png"))
        thing = cv2.resize((ids > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        hole = grow(cv2.warpAffine(thing, move, size, flags=cv2.INTER_NEAREST) > 0, GROWN)
        holes.append(hole & (cv2.dilate(thing, np.ones((5, 5), np.uint8)) == 0))
    return Clip(name, frames, holes)


# ---- floors


def telea(clip: Clip) -> list[Frame]:
    pairs = zip(clip.blanked, clip.holes, strict=True)
    return [cv2.inpaint(f, h.astype(np.uint8), 3, cv2.INPAINT_TELEA) for f, h in pairs]


def _flows(clip: Clip, step: int) -> list[Array | None]:
    """For each frame the flow to the one ``step`` before it, smooth in the hole."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in telea(clip)]
    flows: list[Array | None] = []
    for i, hole in enumerate(clip.holes):
        if not 0 <= i - step < len(grey):
            flows.append(None)
            continue
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = dis.calc(grey[i], grey[i - step], None)
        inside = cv2.dilate(hole.astype(np.uint8), np.ones((5, 5), np.uint8))
        flows.append(np.where(inside[..., None] > 0, smooth_fill(flow, 1 - inside.astype(np.float32)), flow))
    return flows


def _grid(shape: tuple[int, ...]) -> tuple[Array, Array]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return x, y


def _sample(image: npt.NDArray[Any], x: Array, y: Array) -> npt.NDArray[Any]:
    """The image at n points; what is outside is 0."""
    # remap takes no more than 32767 rows, so the points are laid out in rows of 256.
    rows = -(-len(x) // 256)
    at = [np.resize(a, rows * 256).reshape(rows, 256) for a in (x, y)]
    values = cv2.remap(image, *at, cv2.INTER_LINEAR)
    return values.reshape(rows * 256, *image.shape[2:])[: len(x)]


def _carried(clip: Clip, step: int) -> tuple[list[Array], list[Mask]]:
    """Frames with holes filled from one side, and what is known of them then."""
    flows, colours, known = _flows(clip, step), list(map(np.float32, clip.blanked)), [~h for h in clip.holes]
    x, y = _grid(clip.holes[0].shape)
    order = range(len(clip.frames)) if step > 0 else reversed(range(len(clip.frames)))
    for i in order:
        flow = flows[i]
        if flow is None:
            continue
        at = (x + flow[..., 0], y + flow[..., 1])
        there = cv2.remap(known[i - step].astype(np.float32), *at, cv2.INTER_LINEAR) > 0.99
        moved = cv2.remap(colours[i - step], *at, cv2.INTER_LINEAR)
        use = clip.holes[i] & there
        colours[i] = np.where(use[..., None], moved, colours[i])
        known[i] = known[i] | use
    return colours, known


def recursive(clip: Clip) -> list[Frame]:
    (past, seen_past), (future, seen_future) = _carried(clip, 1), _carried(clip, -1)
    result = []
    for i, hole in enumerate(clip.holes):
        weights = [s.astype(np.float32)[..., None] for s in (seen_past[i], seen_future[i])]
        total = weights[0] + weights[1]
        mixed = (past[i] * weights[0] + future[i] * weights[1]) / np.maximum(total, 1)
        frame = np.where(hole[..., None], np.rint(mixed), clip.blanked[i]).astype(np.uint8)
        unseen = hole & (total[..., 0] == 0)
        result.append(cv2.inpaint(frame, unseen.astype(np.uint8), 3, cv2.INPAINT_TELEA))
    return result


def median(clip: Clip) -> list[Frame]:
    flows = {step: _flows(clip, step) for step in (1, -1)}
    result = []
    for i, hole in enumerate(clip.holes):
        ys, xs = (a.astype(np.float32) for a in np.nonzero(hole))
        found = np.full((10, len(xs), 3), np.nan, np.float32)
        for side, step in enumerate((1, -1)):
            x, y, at, have = xs.copy(), ys.copy(), i, np.zeros(len(xs), int)
            while (flow := flows[step][at]) is not None and (have < 5).any() and len(xs):
                way = _sample(flow, x, y)
                x, y, at = x + way[:, 0], y + way[:, 1], at - step
                known = _sample((~clip.holes[at]).astype(np.float32), x, y)
                colour = _sample(clip.blanked[at], x, y)
                use = (known > 0.99) & (have < 5)
                found[5 * side + have[use], np.flatnonzero(use)] = colour[use]
                have[use] += 1
        frame, unseen = clip.blanked[i].copy(), hole.copy()
        if len(xs):
            seen = ~np.isnan(found[..., 0]).all(0)
            values = np.nanmedian(found[:, seen], axis=0)
            rows, columns = np.nonzero(hole)
            frame[rows[seen], columns[seen]] = np.rint(values)
            unseen[rows[seen], columns[seen]] = False
        result.append(cv2.inpaint(frame, unseen.astype(np.uint8), 3, cv2.INPAINT_TELEA))
    return result


# ---- scores


def psnr(clip: Clip, result: Sequence[Frame]) -> float:
    values = []
    for truth, hole, mine in zip(clip.frames, clip.holes, result, strict=True):
        if hole.any():
            error = np.mean((truth[hole].astype(np.float64) - mine[hole]) ** 2)
            values.append(10 * np.log10(255**2 / max(error, 1e-3)))
    return float(np.mean(values))


def ssim(clip: Clip, result: Sequence[Frame]) -> float:
    def blur(image: Array) -> Array:
        return cv2.GaussianBlur(image, (0, 0), 1.5)

    values = []
    for truth, hole, mine in zip(clip.frames, clip.holes, result, strict=True):
        if not hole.any():
            continue
        a, b = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float64) for f in (truth, mine))
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        score = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        values.append(score[hole].mean())
    return float(np.mean(values))


def true_flows(clip: Clip) -> list[Array]:
    """From each frame but the first to the one before it."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in clip.frames]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return [dis.calc(b, a, None) for a, b in pairwise(grey)]


def flicker(clip: Clip, result: Sequence[Frame], flows: Sequence[Array]) -> float:
    x, y = _grid(clip.holes[0].shape)
    values = []
    for i, flow in enumerate(flows, 1):
        before = cv2.remap(result[i - 1], x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
        if (hole := clip.holes[i]).any():
            values.append(np.abs(before[hole].astype(np.float64) - result[i][hole]).mean())
    return float(np.mean(values))


# ---- ours


class _FakeHoles:
    def __init__(self, clip: Clip) -> None:
        self.key, self._clip = f"fake hole in {clip.name}", clip

    def hole(self, frame: int) -> Mask:
        return self._clip.holes[frame]

    def avoid(self, frame: int) -> None:
        return None


def _fill(engine: Inpainter, clip: Clip) -> list[Frame]:
    video, holes, frames = ArrayVideo(np.stack(clip.blanked)), _FakeHoles(clip), range(len(clip.frames))
    filling = engine.begin(video, holes, frames, MemoryStore(1 << 32))
    for _ in filling.steps():
        pass
    return [filled(video, holes, filling, i) for i in frames]


def embedded(clip: Clip) -> list[Frame]:
    return _fill(EmbeddedInpainter(), clip)


def e2fgvi(clip: Clip) -> list[Frame]:
    """With weights of chance: shows that the way through the engine is open, and what it takes. Not its quality."""
    from tam_backend.inpainting.e2fgvi.engine import E2fgviInpainter
    from tam_backend.inpainting.e2fgvi.network import E2FGVI
    from tests.deterministic_weights import E2FGVI as PROFILE
    from tests.deterministic_weights import fill

    network = E2FGVI().requires_grad_(False)
    fill(network, PROFILE)
    return _fill(E2fgviInpainter(network, "deterministic"), clip)


METHODS: dict[str, Callable[[Clip], list[Frame]]] = {
    "telea": telea, "median": median, "recursive": recursive, "embedded": embedded, "e2fgvi": e2fgvi,
}  # fmt: skip


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sequences", nargs="+", default=list(SHIFTS), choices=list(SHIFTS))
    parser.add_argument("--size", default="854x480", help="WIDTHxHEIGHT (default: 854x480)")
    parser.add_argument("--frames", type=int, help="of each sequence, the first so many")
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:-1], choices=list(METHODS))
    parser.add_argument("--save", type=Path, metavar="DIR", help="write a picture of each sequence's middle frame")
    args = parser.parse_args(None if arguments is None else list(arguments))
    width, height = map(int, args.size.split("x"))
    table: dict[str, dict[str, tuple[float, ...]]] = {m: {} for m in args.methods}
    print(f"{'sequence':15}{'method':11}{'PSNR':>7}{'SSIM':>7}{'flicker':>9}{'truth':>7}{'s/frame':>9}{'of CPU':>9}")
    for name in args.sequences:
        clip = load(args.data, name, (width, height), args.frames)
        flows = true_flows(clip)
        own = flicker(clip, clip.frames, flows)
        for method in args.methods:
            began, worked = time.perf_counter(), time.process_time()
            result = METHODS[method](clip)
            took, work = ((now - then) / len(result) for now, then in (
                (time.perf_counter(), began), (time.process_time(), worked)
            ))  # fmt: skip
            row = (psnr(clip, result), ssim(clip, result), flicker(clip, result, flows), own, took, work)
            table[method][name] = row
            print(_line(name, method, row), flush=True)
            if args.save:
                args.save.mkdir(parents=True, exist_ok=True)
                middle = len(result) // 2
                Image.fromarray(result[middle]).save(args.save / f"{name}-{method}.png")
    for method, rows in table.items():
        print(_line("mean", method, np.mean(list(rows.values()), axis=0)))


def _line(name: str, method: str, row: Sequence[float]) -> str:
    return f"{name:15}{method:11}{row[0]:7.2f}{row[1]:7.3f}{row[2]:9.2f}{row[3]:7.2f}{row[4]:9.3f}{row[5]:9.3f}"


if __name__ == "__main__":
    main()
