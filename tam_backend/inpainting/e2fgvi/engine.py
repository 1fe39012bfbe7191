"""The engine e2fgvi: windows of frames go through the network, and where windows overlap, their outputs are blended.

Memory depends on the size of the frames, not on the length of the video: a window has at most 11 frames and a few
references. Where even that is too much, each frame is worked on in tiles around its holes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from tam_backend.checkpoints import CHECKPOINTS, verify
from tam_backend.devices import choose_device, out_of_memory, release_memory
from tam_backend.errors import TamError
from tam_backend.features.filters import window
from tam_backend.inpainting.base import Colours
from tam_backend.inpainting.e2fgvi.loading import load_e2fgvi
from tam_backend.inpainting.e2fgvi.network import E2FGVI
from tam_backend.inpainting.e2fgvi.windows import (
    SMALLEST,
    STRIDE,
    local_frames,
    padded_size,
    prepare,
    reference_frames,
    to_colours,
)
from tam_backend.inpainting.holes import Holes
from tam_backend.sam_xmem import structure_check
from tam_backend.settings import Settings
from tam_backend.tracking.store import BlobStore
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)

TERMS = (
    "It was made with the weights of E2FGVI-HQ, which are licensed CC BY-NC 4.0: not for commercial use without the "
    "permission of their authors (https://github.com/MCG-NKU/E2FGVI)."
)
#: Changes whenever the same weights fill the same holes otherwise.
VERSION = 1
#: Pixels around the holes that a tile keeps, as far as there are any.
AROUND = 64
#: Pixels of a window's frames, all together, beyond which tiles are tried first without a GPU: about 4 GB.
CPU_PIXELS = 11 * 432 * 240 * 2


class E2fgviInpainter:
    """Fills holes with a network. pixels: of a window's frames together, more than which it is not given at once."""

    name, terms = "e2fgvi", TERMS

    def __init__(self, network: E2FGVI, weights: str, pixels: int | None = None) -> None:
        """weights: identifies them."""
        self._network = network
        self._device = next(network.parameters()).device
        self._pixels = pixels if pixels is not None else CPU_PIXELS if self._device.type == "cpu" else 1 << 62
        self.version = f"{VERSION}-{weights}"
        self._told = False

    def begin(self, video: Reader, holes: Holes, frames: range, store: BlobStore) -> E2fgviFilling:
        padded_size(video.height, video.width)
        return E2fgviFilling(self, video, holes, frames, store)

    @torch.inference_mode()
    def outputs(
        self, pictures: list[npt.NDArray[np.uint8]], holes: list[npt.NDArray[np.bool_]], local: int
    ) -> npt.NDArray[np.float32]:
        """Lxhxwx3 float32, 0 to 255, of the local frames, right where there are holes in these.

        Raises TamError if memory does not even suffice for the smallest tiles.
        """
        height, width = holes[0].shape
        result = np.zeros((local, height, width, 3), np.float32)
        tiles = [(slice(0, height), slice(0, width))]
        while tiles:
            tile = tiles.pop()
            covered = np.logical_or.reduce([h[tile] for h in holes[:local]])
            if not covered.any():
                continue
            area = (tile[0].stop - tile[0].start) * (tile[1].stop - tile[1].start) * len(pictures)
            if area > self._pixels and (smaller := self._divided(tile, covered)):
                self._tell()
                tiles += smaller
                continue
            try:
                inside = self._run([p[tile] for p in pictures], [h[tile] for h in holes], local)
            except (RuntimeError, MemoryError) as e:
                if not out_of_memory(e):
                    raise
                reason = e
            else:
                for i in range(local):
                    hole = holes[i][tile]
                    result[i][tile][hole] = inside[i][hole]
                continue
            release_memory(self._device)
            if not (smaller := self._divided(tile, covered)):
                raise TamError(
                    f"not enough memory on {self._device} for frames of {width}x{height} pixels, even in tiles; use a "
                    "smaller video, or --engine embedded"
                ) from reason
            self._pixels = min(self._pixels, area - 1)
            self._tell()
            tiles += smaller
        return result

    def _tell(self) -> None:
        if not self._told:
            log.warning("memory on %s is short for whole frames: e2fgvi works in tiles around the holes", self._device)
            self._told = True

    def _run(
        self, pictures: list[npt.NDArray[np.uint8]], holes: list[npt.NDArray[np.bool_]], local: int
    ) -> list[npt.NDArray[np.float32]]:
        x = prepare(pictures, holes).to(self._device)
        output = self._network(x, local)
        return [to_colours(one, *holes[0].shape) for one in output]

    @staticmethod
    def _divided(tile: tuple[slice, slice], covered: npt.NDArray[np.bool_]) -> list[tuple[slice, slice]]:
        """A tile without what is far from its holes; if that is all of it, its halves; nothing if it is too small."""
        rows, columns = window(covered, AROUND)
        tight = [
            _at_least(slice(s.start, min(s.stop, n)), least, n)
            for s, n, least in zip((rows, columns), covered.shape, SMALLEST, strict=True)
        ]
        sides = [s.stop - s.start for s in tight]
        if sides[0] * sides[1] < 0.9 * covered.size:
            return [_shifted(tile, (tight[0], tight[1]))]
        axis = 0 if sides[0] / SMALLEST[0] > sides[1] / SMALLEST[1] else 1
        side = covered.shape[axis]
        if side < 4 * SMALLEST[axis]:
            return []
        halves = []
        for part in (slice(0, side // 2), slice(side // 2, side)):
            one = [slice(0, n) for n in covered.shape]
            one[axis] = part
            halves.append(_shifted(tile, (one[0], one[1])))
        return halves


def _at_least(part: slice, least: int, side: int) -> slice:
    """A part of a side, made longer if it is shorter than ``least``."""
    missing = max(0, least - (part.stop - part.start))
    start = max(0, part.start - missing)
    return slice(start, min(side, max(part.stop, start + least)))


def _shifted(tile: tuple[slice, slice], part: tuple[slice, slice]) -> tuple[slice, slice]:
    (top, left), (rows, columns) = (tile[0].start, tile[1].start), part
    return slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop)


class E2fgviFilling:
    """See ``base.Filling``. A frame is finished when the last window that shows it has been computed."""

    def __init__(self, engine: E2fgviInpainter, video: Reader, holes: Holes, frames: range, store: BlobStore) -> None:
        self._engine, self._video, self._holes, self._frames, self._store = engine, video, holes, frames, store

    @property
    def total(self) -> int:
        return len(self._frames)

    def steps(self) -> Iterator[int]:
        frames = self._frames
        first = next((f for f in frames if self._store.get(f"filled {f}") is None), frames.stop)
        # Windows that show the first unfinished frame are computed again, from what other frames show, not from
        # what was filled: so the result is the same as without an interruption.
        blended: dict[int, npt.NDArray[np.float32]] = {}
        yield first - frames.start
        for middle in frames[::STRIDE]:
            local = local_frames(middle, frames)
            if local.stop <= first:
                continue
            self._blend(blended, middle, local)
            following = local_frames(middle + STRIDE, frames)
            last = middle + STRIDE >= frames.stop
            for frame in [f for f in blended if last or f < following.start]:
                colours = blended.pop(frame)
                if frame >= first:
                    self._store.put(f"filled {frame}", np.trunc(colours).astype(np.uint8).tobytes())
            done = frames.stop if last else following.start
            yield max(first, done) - frames.start

    def _blend(self, blended: dict[int, npt.NDArray[np.float32]], middle: int, local: range) -> None:
        """Put a window's output to those before it. As in the official script, each new one counts for half of what
        comes out: of three they weigh 1/4, 1/4 and 1/2."""
        shown = [*local, *reference_frames(middle, self._frames)]
        holes = [self._holes.hole(f) for f in shown]
        if any(h.any() for h in holes[: len(local)]):
            outputs = self._engine.outputs([self._video[f] for f in shown], holes, len(local))
        else:
            outputs = np.zeros((len(local), *holes[0].shape, 3), np.float32)
        for i, frame in enumerate(local):
            new = outputs[i][holes[i]]
            blended[frame] = blended[frame] / 2 + new / 2 if frame in blended else new

    def colours(self, frame: int) -> Colours:
        blob = self._store.get(f"filled {frame}")
        if blob is None:
            raise TamError(f"what was computed of frame {frame} is gone; the same command computes it again")
        return np.frombuffer(blob, np.uint8).reshape(-1, 3)

    def unseen(self, frame: int) -> None:
        return None


def make_e2fgvi(settings: Settings) -> E2fgviInpainter:
    """The engine with the weights of the checkpoint folder, which are verified first.

    Raises CheckpointError where the file is missing or wrong, BadInput where the device that was asked for is missing.
    """
    checkpoint = CHECKPOINTS["e2fgvi_hq"]
    file = verify(checkpoint, settings.checkpoint_dir, structure_check(checkpoint))
    device = choose_device(settings.device)
    return E2fgviInpainter(load_e2fgvi(file.path, device), file.sha256[:8])
