"""What is computed from frames: colours, dense flow between neighbours, the motion of the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.camera import Array, CameraMotion
from tam_backend.features.geometry import Geometry
from tam_backend.features.store import FeatureStore
from tam_backend.video.base import Reader

#: Dense inverse search works on 8x8 patches over a pyramid; smaller images are padded to this side.
MIN_DIS_SIDE = 64


@dataclass(frozen=True, slots=True, eq=False)
class FlowPair:
    """Dense flow between two frames, both ways. Each hxwx2 float16, in pixels of the flow's size.

    A pixel x of the first frame is at ``x + there[x]`` in the second; one of the second at ``x + back[x]`` in the
    first. Half precision resolves 1/64 pixel at 32 pixels of motion, far below what the flow itself is good for.
    """

    there: npt.NDArray[np.float16]
    back: npt.NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        return self.there.nbytes + self.back.nbytes


class FrameFeatures:
    """Features of the frames of any number of videos, through one store. Thread-safe.

    Only the frames that are asked for are read; a flow reads its two frames where they are not held any more.
    """

    def __init__(self, store: FeatureStore | None = None) -> None:
        self.store = store if store is not None else FeatureStore()

    def geometry(self, video: Reader) -> Geometry:
        return Geometry.of(video.height, video.width)

    def lab(self, video: Reader, frame: int) -> npt.NDArray[np.uint8]:
        """HxWx3 uint8 CIE Lab as OpenCV scales it (L x 2.55, a + 128, b + 128), at the working size. Read-only."""

        def compute() -> npt.NDArray[np.uint8]:
            lab = np.asarray(cv2.cvtColor(self.geometry(video).to_work(video[frame]), cv2.COLOR_RGB2LAB), np.uint8)
            lab.setflags(write=False)
            return lab

        return self.store.get((video.key, "lab", frame), compute)

    def flow(self, video: Reader, source: int, target: int) -> Array:
        """hxwx2 float32 at the flow's size: where each pixel of ``source`` is in ``target``."""
        pair = self._pair(video, min(source, target), max(source, target))
        return (pair.there if source < target else pair.back).astype(np.float32)

    def camera(self, video: Reader, source: int, target: int) -> CameraMotion:
        """The motion of the background from ``source`` to ``target``."""
        return self.store.get(
            (video.key, "camera", source, target),
            lambda: CameraMotion.fit(self.flow(video, source, target)),
        )

    def relative_speed(self, video: Reader, frame: int) -> Array | None:
        """hxw float32 at the flow's size: motion relative to the camera, in units of the background's noise.

        The smaller of the motions to the next and from the previous frame, because each alone bleeds into what the
        object covers or uncovers. None where there is no neighbouring frame.
        """
        neighbours = [other for other in (frame - 1, frame + 1) if 0 <= other < len(video)]
        if not neighbours:
            return None

        def compute() -> Array:
            speeds = []
            for other in neighbours:
                residual = self.camera(video, frame, other).residual(self.flow(video, frame, other))
                speeds.append(np.hypot(residual[..., 0], residual[..., 1]))
            return np.asarray(np.min(speeds, axis=0), np.float32)

        return self.store.get((video.key, "speed", frame), compute)

    def _pair(self, video: Reader, first: int, second: int) -> FlowPair:
        def compute() -> FlowPair:
            a, b = self._gray(video, first), self._gray(video, second)
            return FlowPair(_dense_flow(a, b), _dense_flow(b, a))

        return self.store.get((video.key, "flow", first, second), compute)

    def _gray(self, video: Reader, frame: int) -> npt.NDArray[np.uint8]:
        """Luma at the flow's size. Cheap enough from the stored colours that it is not stored itself."""
        geometry = self.geometry(video)
        luma = self.lab(video, frame)[..., 0]
        size = (geometry.flow_width, geometry.flow_height)
        return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def _dense_flow(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Dense inverse search (Kroeger et al., ECCV 2016) at its medium preset; the fast one costs several points."""
    height, width = a.shape
    bottom, right = max(0, MIN_DIS_SIDE - height), max(0, MIN_DIS_SIDE - width)
    if bottom or right:
        a, b = (np.pad(i, ((0, bottom), (0, right)), mode="edge") for i in (a, b))
    # An instance has buffers of its own and is not thread-safe; making one costs microseconds.
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)  # type: ignore[call-overload]
    return flow[:height, :width].astype(np.float16)
