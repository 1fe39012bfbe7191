"""The embedded engine: what is behind an object, carried there from the frames that show it. No weights.

Two passes. Backward, from the last frame to the first: what the future shows of each hole. Forward: what the past
shows, joined with that; what no frame shows is filled once and carried along. All that a pass hands from frame to frame
is what the hole before was filled with, and that is in the store: it goes on from any frame, and its memory does not
grow with the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.errors import TamError
from tam_backend.features import FrameFeatures
from tam_backend.features.filters import window
from tam_backend.features.shots import Shots
from tam_backend.inpainting.base import Colours
from tam_backend.inpainting.embedded.carry import RING, Array, Picture, Window, bring, relight
from tam_backend.inpainting.embedded.completion import complete_flow, smooth_fill
from tam_backend.inpainting.embedded.masked import MARGIN, MaskedVideo
from tam_backend.inpainting.holes import Holes
from tam_backend.tracking.store import BlobStore
from tam_backend.video.base import Reader

#: What a step leaves of the confidence, because alignment drifts, and what age alone never takes.
STEP, OLD = 0.95, 0.05
#: Past and future are mixed by this power of their confidences.
POWER = np.float32(2)
#: How much of an invention is that of the frame before; the rest is made anew, so that it cannot drift away.
HELD = np.float32(0.8)
#: Motion against the camera from which a thing is one that moves by itself: in units of the background's noise, and
#: in pixels of the flow's size.
MOVING_NOISE, MOVING_PIXELS = 20.0, 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What is known of a hole's pixels, in the order of ``frame[hole]``. colours: Nx3; confidence: N uint8, 0: none."""

    colours: Colours
    confidence: npt.NDArray[np.uint8]

    def pack(self) -> bytes:
        return self.colours.tobytes() + self.confidence.tobytes()

    @staticmethod
    def unpack(blob: bytes) -> Content:
        values = np.frombuffer(blob, np.uint8)
        count = len(values) // 4
        return Content(values[: 3 * count].reshape(count, 3), values[3 * count :])


class EmbeddedInpainter:
    """Fills holes by what other frames show."""

    name, version, terms = "embedded", "1", ""

    def begin(self, video: Reader, holes: Holes, frames: range, store: BlobStore) -> EmbeddedFilling:
        return EmbeddedFilling(video, holes, frames, store)


class EmbeddedFilling:
    """See ``base.Filling``."""

    def __init__(self, video: Reader, holes: Holes, frames: range, store: BlobStore) -> None:
        self._video, self._holes, self._frames, self._store = video, holes, frames, store
        self._masked = MaskedVideo(video, holes)
        self._features = FrameFeatures()
        self._shots = Shots(self._features)
        self._frame = lru_cache(maxsize=3)(video.__getitem__)  # only to be read

    @property
    def total(self) -> int:
        return 2 * len(self._frames)

    def steps(self) -> Iterator[int]:
        done = 0
        for kind, order in (("future", self._frames[::-1]), ("filled", self._frames)):
            before: int | None = None
            for frame in order:
                if self._store.get(f"{kind} {frame}") is None:
                    if kind == "future":
                        self._put("future", frame, self._side("future", frame, before))
                    else:
                        self._join(frame, before)
                before = frame
                done += 1
                yield done

    def colours(self, frame: int) -> Colours:
        return self._get("filled", frame).colours

    def unseen(self, frame: int) -> int:
        return int(np.count_nonzero(self._get("filled", frame).confidence == 0))

    def _side(self, side: str, frame: int, source: int | None) -> Content:
        """What one side shows of a frame's hole. source: the frame beside it, of which that is known already."""
        hole = self._holes.hole(frame)
        if source is None or not hole.any() or self._shots.cut(self._masked, frame, source):
            return _nothing(int(np.count_nonzero(hole)))
        at = window(hole, RING)
        colours, confidence = bring(self._picture(side, source), self._way(frame, source, at), at)
        colours = relight(colours, confidence, self._frame(frame)[at], hole[at])
        sure = confidence[hole[at]]
        sure = np.where(sure > 0, np.maximum(sure * STEP, OLD), 0)
        return Content(_to_bytes(colours[hole[at]]), np.floor(255 * sure).astype(np.uint8))

    def _join(self, frame: int, before: int | None) -> None:
        """Past and future together, and something for what neither shows."""
        past, future = self._side("past", frame, before), self._get("future", frame)
        self._put("past", frame, past)
        of_past, of_future = ((side.confidence * np.float32(1 / 255)) ** POWER for side in (past, future))
        total = of_past + of_future
        mixed = past.colours * of_past[:, None] + future.colours * of_future[:, None]
        mixed /= np.maximum(total, np.float32(1e-9))[:, None]
        unseen = total == 0
        if unseen.any():
            mixed[unseen] = self._invent(frame, before, mixed, unseen)
        seen = np.where(unseen, 0, np.maximum(past.confidence, future.confidence)).astype(np.uint8)
        self._put("filled", frame, Content(_to_bytes(mixed), seen))

    def _invent(self, frame: int, before: int | None, colours: Array, unseen: npt.NDArray[np.bool_]) -> Array:
        """Colours for the pixels of a hole that no frame shows: those of the frame before, or made from around them.

        colours: Nx3, what the other pixels of the hole are. Returns those of the unseen ones.
        """
        hole = self._holes.hole(frame)
        at = window(hole, MARGIN)
        inside = hole[at]
        picture, missing = self._frame(frame)[at].astype(np.float32), np.zeros(inside.shape, np.bool_)
        picture[inside], missing[inside] = colours, unseen
        known = (~missing).astype(np.float32)
        result = smooth_fill(picture, known)
        if before is not None and not self._shots.cut(self._masked, frame, before):
            way = self._way(frame, before, at)
            carried, confidence = bring(self._picture("filled", before), way, at)
            carried = relight(carried, confidence * known, picture, missing)
            result += (carried - result) * (HELD * (confidence > 0))[..., None]
        return result[missing]

    def _picture(self, side: str, frame: int) -> Picture:
        """A frame with what a side has shown of its hole; ``filled``: with everything, all of it known."""
        picture, hole = self._frame(frame).copy(), self._holes.hole(frame)
        content = self._get(side, frame)
        if side == "filled":
            confidence = np.ones(hole.shape, np.float32)
        else:
            confidence = self._background(frame)
            confidence[hole] = content.confidence * np.float32(1 / 255)
        picture[hole] = content.colours
        return Picture(picture, confidence)

    def _background(self, frame: int) -> Array:
        """HxW float32, 1 or 0: not where another object is, or something that moves by itself."""
        height, width = self._holes.hole(frame).shape
        result: Array = np.ones((height, width), np.float32)
        speed = self._features.relative_speed(self._masked, frame)
        if speed is not None:
            beside = frame + 1 if frame + 1 < len(self._video) else frame - 1
            noise = self._features.camera(self._masked, frame, beside).noise
            still = (speed < max(MOVING_NOISE, MOVING_PIXELS / noise)).astype(np.float32)
            still = np.asarray(cv2.erode(still, np.ones((3, 3), np.uint8)), np.float32)
            result = np.asarray(cv2.resize(still, (width, height), interpolation=cv2.INTER_NEAREST), np.float32)
        avoid = self._holes.avoid(frame)
        if avoid is not None:
            result[avoid] = 0
        return result

    def _way(self, frame: int, source: int, at: Window) -> Array:
        """hxwx2 float32: where the background of a window's pixels is in ``source``, relative to them, in pixels."""
        flow = self._features.flow(self._masked, frame, source)
        hole = self._holes.hole(frame)
        size = (flow.shape[1], flow.shape[0])
        covered = cv2.dilate(cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.ones((5, 5)))
        trust = np.where(covered > 0, np.float32(0), self._features.consistency(self._masked, source, frame))
        whole = complete_flow(flow, self._features.camera(self._masked, frame, source), trust)
        large = cv2.resize(whole, (hole.shape[1], hole.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(large, np.float32)[at] * np.array(
            [hole.shape[1] / size[0], hole.shape[0] / size[1]], np.float32
        )

    def _get(self, kind: str, frame: int) -> Content:
        blob = self._store.get(f"{kind} {frame}")
        if blob is None:
            raise TamError(f"what was computed of frame {frame} is gone; the same command computes it again")
        return Content.unpack(blob)

    def _put(self, kind: str, frame: int, content: Content) -> None:
        self._store.put(f"{kind} {frame}", content.pack())


def _nothing(count: int) -> Content:
    return Content(np.zeros((count, 3), np.uint8), np.zeros(count, np.uint8))


def _to_bytes(colours: Array) -> Colours:
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)
