"""Mask coders against the Label Studio SDK: median times of both, taken in turns in one run, and their ratio.

    python benchmarks/mask_coders.py [--repeats N] [--png]

--png compares ways to write the bitmask PNG instead (size and time).
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.masks import decode_bitmask_url, decode_brush_rle, encode_bitmask_url, encode_brush_rle
from tam_backend.prompts import Mask

SIZES = ((480, 854), (1080, 1920))


def make_masks(height: int, width: int) -> dict[str, Mask]:
    rng = np.random.default_rng(0)

    def ellipse(centre: tuple[float, float], axes: tuple[float, float], angle: float) -> Mask:
        canvas = np.zeros((height, width), np.uint8)
        at = int(centre[0] * width), int(centre[1] * height)
        radii = int(axes[0] * height), int(axes[1] * height)
        return cv2.ellipse(canvas, at, radii, angle, 0, 360, 1, -1).astype(bool)

    def noise(sigma: float) -> Mask:
        field = cv2.GaussianBlur(rng.random((height, width), dtype=np.float32), (0, 0), sigma)
        return field > np.median(field)

    blobs = [ellipse(tuple(rng.uniform(0.1, 0.9, 2)), tuple(rng.uniform(0.03, 0.2, 2)), 40 * i) for i in range(8)]
    return {
        "empty": np.zeros((height, width), bool),
        "full": np.ones((height, width), bool),
        "ellipse": ellipse((0.5, 0.5), (0.35, 0.22), 20),
        "8 blobs": np.logical_or.reduce(blobs),
        "fragmented": noise(4.0),
        "very fragmented": noise(1.0),
    }


def antialiased_rgba(mask: Mask, colour: tuple[int, int, int] | None) -> npt.NDArray[np.uint8]:
    """Soft edges. Without a colour all channels are equal, as in regions that the editor saves."""
    alpha = cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 1.0)
    channels = [np.where(alpha > 0, c, 0).astype(np.uint8) for c in colour] if colour else [alpha] * 3
    return np.dstack([*channels, alpha])


def in_turns(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """Median time of each action in ms."""
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(repeats):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


def row(name: str, direction: str, ours: float, theirs: float, note: str) -> None:
    print(f"  {name:16} {direction:7} {ours:9.3f} {theirs:10.3f} {theirs / ours:7.1f}x   {note}", flush=True)


def compare_with_sdk(height: int, width: int, repeats: int) -> None:
    size = height, width
    print(f"{width}x{height}\n  {'mask':16} {'':7} {'ours ms':>9} {'SDK ms':>10} {'ratio':>8}")
    masks = make_masks(height, width)
    for name, mask in masks.items():
        grey = mask.astype(np.uint8) * 255
        rle = encode_brush_rle(mask)
        if rle != mask2rle(grey) or not np.array_equal(decode_brush_rle(rle, size), mask):
            raise SystemExit(f"{name}: not what the SDK writes")
        runs = np.count_nonzero(np.diff(mask.reshape(-1))) + 1
        encoding = in_turns(repeats, lambda m=mask: encode_brush_rle(m), lambda g=grey: mask2rle(g))
        row(name, "encode", *encoding, f"{runs} runs, {len(rle)} bytes")
        row(
            name, "decode", *in_turns(repeats, lambda r=rle: decode_brush_rle(r, size), lambda r=rle: decode_rle(r)), ""
        )
    for name, colour in (("antialiased", None), ("same, coloured", (255, 90, 20))):
        rgba = antialiased_rgba(masks["8 blobs"], colour)
        rle = encode_rle(rgba.reshape(-1))
        if not np.array_equal(decode_brush_rle(rle, size), rgba[..., 3] >= 128):
            raise SystemExit(f"{name}: not what the SDK reads")
        decoding = in_turns(repeats, lambda r=rle: decode_brush_rle(r, size), lambda r=rle: decode_rle(r))
        row(name, "decode", *decoding, f"{len(rle)} bytes")
    print("  bitmask URL: " + bitmask_figures(masks, size, repeats) + "\n")


def bitmask_figures(masks: dict[str, Mask], size: tuple[int, int], repeats: int) -> str:
    figures = []
    for name in ("ellipse", "8 blobs", "fragmented"):
        url = encode_bitmask_url(masks[name])
        encode, decode = in_turns(
            repeats, lambda m=masks[name]: encode_bitmask_url(m), lambda u=url: decode_bitmask_url(u, size)
        )
        figures.append(f"{name} {len(url)} bytes, encode {encode:.1f} ms, decode {decode:.1f} ms")
    return "; ".join(figures)


def compare_pngs(height: int, width: int, repeats: int) -> None:
    print(f"{width}x{height}, bytes of PNG and ms to write it")
    for name, mask in make_masks(height, width).items():
        rgba = np.zeros((height, width, 4), np.uint8)
        rgba[..., 3] = mask * np.uint8(255)
        image = Image.fromarray(rgba)
        palette = Image.fromarray(mask.astype(np.uint8), "P")
        palette.putpalette([0, 0, 0, 0, 0, 0])

        def pillow(picture: Image.Image, **options: object) -> bytes:
            out = io.BytesIO()
            picture.save(out, "PNG", **options)
            return out.getvalue()

        def opencv(picture: npt.NDArray[np.uint8] = rgba) -> bytes:
            return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])[1].tobytes()

        ways: dict[str, Callable[[], bytes]] = {
            f"RGBA level {level}": lambda i=image, n=level: pillow(i, compress_level=n) for level in (1, 6, 9)
        }
        ways["RGBA Z_RLE"] = lambda i=image: pillow(i, compress_type=zlib.Z_RLE)
        ways["RGBA OpenCV, RLE"] = opencv
        ways["1-bit palette"] = lambda i=palette: pillow(i, bits=1, transparency=b"\0\xff")
        for way, action in ways.items():
            (taken,) = in_turns(repeats, action)
            print(f"  {name:16} {way:18} {len(action()):8} {taken:8.1f}", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--png", action="store_true")
    options = parser.parse_args()
    for size in SIZES:
        (compare_pngs if options.png else compare_with_sdk)(*size, options.repeats)


if __name__ == "__main__":
    main()
