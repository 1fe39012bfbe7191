"""What is computed from frames: colours, dense flow between neighbours, the motion of the camera."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.errors import TamError
from tam_backend.features.camera import Array, CameraMotion
from tam_backend.features.colour import Bins, colour_bins
from tam_backend.features.edges import Edges
from tam_backend.features.geometry import Geometry
from tam_backend.features.store import FeatureStore
from tam_backend.video.base import Reader

#: Forward-backward error (squared pixels) at which flow is half trusted, and its growth with the squared motion
#: (Sundaram, Brox and Keutzer, ECCV 2010).
CYCLE_ERROR, CYCLE_SHARE = 1.0, 0.02
#: Bound of what is kept for a short while: at 854x480 about 15 MB for each frame.
PASSING_BYTES = 60 * 1024 * 1024
#: Bound of what is kept of clicked frames.
CLICKED_BYTES = 256 * 1024 * 1024
#: Bound of the colours that are kept: at 854x480 those of 15 frames, as fades are looked for 11 frames ahead.
COLOURS_BYTES = 20 * 1024 * 1024
#: Dense inverse search works on 8x8 patches over a pyramid; smaller images are padded to this side.
MIN_DIS_SIDE = 64
#: Pixels between the patches of the search, and steps of each towards its best place. Where patches are closer to each
#: other than this, it takes longer and gains nothing; where they are further apart, it loses.
PATCH_STRIDE, DESCENT_STEPS = 5, 16


@dataclass(frozen=True, slots=True, eq=False)
class FlowPair:
    """Dense flow between two frames, both ways. Each hxwx2 float16, in pixels of the flow's size; with the motion of
    the background in each.

    A pixel x of the first frame is at ``x + there[x]`` in the second; one of the second at ``x + back[x]`` in the
    first. Half precision resolves 1/64 pixel at 32 pixels of motion, far below what the flow itself is good for.
    """

    there: npt.NDArray[np.float16]
    back: npt.NDArray[np.float16]
    camera_there: CameraMotion
    camera_back: CameraMotion

    @property
    def nbytes(self) -> int:
        return self.there.nbytes + self.back.nbytes + self.camera_there.nbytes + self.camera_back.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """Where the pixels of a frame come from. All at the working size.

    back: HxWx2 float32, a pixel x was at ``x + back[x]``. consistent: HxW float32 in [0, 1], how well the flow there
    and back agree.
    """

    back: Array
    consistent: Array

    @property
    def nbytes(self) -> int:
        return self.back.nbytes + self.consistent.nbytes


class FrameFeatures:
    """Features of the frames of any number of videos. Thread-safe.

    What is slow to compute is kept in ``store``: objects, directions and corrections share it. What is quick but large
    is kept in ``passing``, just long enough for the objects of a frame to share it; colours and luma a little longer,
    so that what looks ahead does not drive out what it looked at before that is used.
    What segmenters find out about frames that people click on is kept in ``clicked``, where propagation does not drive
    it out: people come back to those frames.
    Only the frames that are asked for are read; a flow reads its two frames where they are not held any more.
    """

    def __init__(self, store: FeatureStore | None = None, passing: FeatureStore | None = None) -> None:
        self.store = store if store is not None else FeatureStore()
        self.passing = passing if passing is not None else FeatureStore(min(PASSING_BYTES, self.store.max_bytes))
        self.clicked = FeatureStore(min(CLICKED_BYTES, 4 * self.store.max_bytes))
        self._colours = FeatureStore(min(COLOURS_BYTES, self.store.max_bytes))
        self._helper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flow")
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")

    def clear(self) -> None:
        """Forget all that is held; it is computed again where it is needed."""
        for store in (self.store, self.passing, self._colours):
            store.clear()

    def prepare(self, video: Reader, source: int, target: int) -> None:
        """Begin to compute, in the background, what propagation from ``source`` to ``target`` needs of the two frames.

        Does nothing where there is no such frame, or only one core. What fails is computed again by whoever asks for
        it, and fails there.
        """
        if 0 <= target < len(video) and cv2.getNumThreads() > 1:
            self._ahead.submit(self._prepare, video, source, target)

    def _prepare(self, video: Reader, source: int, target: int) -> None:
        with contextlib.suppress(TamError):
            self.speed(video, target)
            self.arrival(video, source, target)
            self.bins(video, target)
            self.edges(video, target)
            self.small_lab(video, target)

    def geometry(self, video: Reader) -> Geometry:
        return Geometry.of(video.height, video.width)

    def lab(self, video: Reader, frame: int) -> npt.NDArray[np.uint8]:
        """HxWx3 uint8 CIE Lab as OpenCV scales it (L x 2.55, a + 128, b + 128), at the working size. Read-only."""

        def compute() -> npt.NDArray[np.uint8]:
            lab = np.asarray(cv2.cvtColor(self.geometry(video).to_work(video[frame]), cv2.COLOR_RGB2LAB), np.uint8)
            lab.setflags(write=False)
            return lab

        return self._colours.get((video.key, "lab", frame), compute)

    def bins(self, video: Reader, frame: int) -> Bins:
        """HxW uint16: the number of each pixel's colour (see ``colour``), at the working size. Read-only."""
        return self.passing.get((video.key, "bins", frame), lambda: colour_bins(self.lab(video, frame)))

    def edges(self, video: Reader, frame: int) -> Edges:
        """The edges of ``lab``."""
        return self.passing.get((video.key, "edges", frame), lambda: Edges(self.lab(video, frame)))

    def small_lab(self, video: Reader, frame: int) -> npt.NDArray[np.uint8]:
        """``lab`` at the flow's size, hxwx3 uint8: single pixels of it. Read-only."""

        def compute() -> npt.NDArray[np.uint8]:
            geometry = self.geometry(video)
            size = (geometry.flow_width, geometry.flow_height)
            lab = np.asarray(cv2.resize(self.lab(video, frame), size, interpolation=cv2.INTER_NEAREST), np.uint8)
            lab.setflags(write=False)
            return lab

        return self.passing.get((video.key, "small lab", frame), compute)

    def flow(self, video: Reader, source: int, target: int) -> Array:
        """hxwx2 float32 at the flow's size: the way of each pixel of ``source`` to where it is in ``target``.

        Read-only.
        """

        def compute() -> Array:
            pair = self._pair(video, min(source, target), max(source, target))
            flow = (pair.there if source < target else pair.back).astype(np.float32)
            flow.setflags(write=False)
            return flow

        return self.passing.get((video.key, "wide flow", source, target), compute)

    def camera(self, video: Reader, source: int, target: int) -> CameraMotion:
        """The motion of the background from ``source`` to ``target``."""
        pair = self._pair(video, min(source, target), max(source, target))
        return pair.camera_there if source < target else pair.camera_back

    def relative_speed(self, video: Reader, frame: int) -> Array | None:
        """hxw float32 at the flow's size: motion relative to the camera, in units of the background's noise.

        The smaller of the motions to the next and from the previous frame, because each alone bleeds into what the
        object covers or uncovers. None where there is no neighbouring frame.
        """
        neighbours = [other for other in (frame - 1, frame + 1) if 0 <= other < len(video)]
        if not neighbours:
            return None

        def compute() -> Array:
            speeds = (self.camera(video, frame, o).speed(self.flow(video, frame, o)) for o in neighbours)
            return functools.reduce(np.minimum, speeds)

        return self.passing.get((video.key, "speed", frame), compute)

    def speed(self, video: Reader, frame: int) -> Array | None:
        """``relative_speed`` enlarged to the working size, HxW float32."""
        small = self.relative_speed(video, frame)
        if small is None:
            return None
        return self.passing.get((video.key, "large speed", frame), lambda: self._enlarge(video, small))

    def arrival(self, video: Reader, source: int, target: int) -> Arrival:
        """How the pixels of ``target`` come from ``source``, its neighbour."""

        def compute() -> Arrival:
            back = self.flow(video, target, source)
            geometry = self.geometry(video)
            scale = np.array([geometry.work_width / back.shape[1], geometry.work_height / back.shape[0]], np.float32)
            return Arrival(
                self._enlarge(video, back * scale), self._enlarge(video, self.consistency(video, source, target))
            )

        return self.passing.get((video.key, "arrival", source, target), compute)

    def consistency(self, video: Reader, source: int, target: int) -> Array:
        """hxw float32 in [0, 1] at the flow's size: how well, for each pixel of ``target``, the flow to ``source`` and
        the one from there agree."""
        back, there = self.flow(video, target, source), self.flow(video, source, target)
        height, width = back.shape[:2]
        x = np.arange(width, dtype=np.float32) + back[..., 0]
        y = np.arange(height, dtype=np.float32)[:, None] + back[..., 1]
        returned = np.asarray(cv2.remap(there, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
        returned += back
        error, motion = _squared(returned), _squared(back)
        return np.asarray(np.exp(-error / (CYCLE_ERROR + CYCLE_SHARE * motion)), np.float32)

    def _enlarge(self, video: Reader, values: Array) -> Array:
        height, width = self.geometry(video).work_shape
        return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)

    def _pair(self, video: Reader, first: int, second: int) -> FlowPair:
        def compute() -> FlowPair:
            a, b = self.gray(video, first), self.gray(video, second)
            if cv2.getNumThreads() == 1:
                (there, camera_there), (back, camera_back) = _motion(a, b), _motion(b, a)
            else:
                other = self._helper.submit(_motion, b, a)  # OpenCV and numpy let the other thread run meanwhile
                there, camera_there = _motion(a, b)
                back, camera_back = other.result()
            return FlowPair(there, back, camera_there, camera_back)

        return self.store.get((video.key, "flow", first, second), compute)

    def gray(self, video: Reader, frame: int) -> npt.NDArray[np.uint8]:
        """hxw uint8: luma at the flow's size. Read-only."""

        def compute() -> npt.NDArray[np.uint8]:
            geometry = self.geometry(video)
            luma = cv2.extractChannel(self.lab(video, frame), 0)
            size = (geometry.flow_width, geometry.flow_height)
            gray = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)
            gray.setflags(write=False)
            return gray

        return self._colours.get((video.key, "gray", frame), compute)


def _motion(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float16], CameraMotion]:
    """``dense_flow``, and the motion of the background in it."""
    flow = dense_flow(a, b)
    return flow, CameraMotion.fit(flow)


def _squared(vectors: Array) -> Array:
    """HxWx2 to HxW: squared lengths."""
    return vectors[..., 0] ** 2 + vectors[..., 1] ** 2


def dense_flow(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """From ``a`` to ``b``, neighbouring frames, hxw uint8 each: hxwx2, pixels.

    Dense inverse search (Kroeger et al., ECCV 2016) down to single pixels: thin and small things move otherwise than
    what is around them, and on coarser levels they are lost. Smoothing by variational refinement would take most of the
    time there, and blurs the edges of motion.
    """
    # An instance has buffers of its own and is not thread-safe; making one costs microseconds.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchStride(PATCH_STRIDE)
    search.setGradientDescentIterations(DESCENT_STEPS)
    search.setVariationalRefinementIterations(0)
    return _searched(search, a, b)


def quick_flow(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """As ``dense_flow``, for images that are nearly alike already. Between neighbouring frames it costs points."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setVariationalRefinementIterations(0)  # it would take half of the time
    return _searched(search, a, b)


def _searched(
    search: cv2.DISOpticalFlow, a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float16]:
    height, width = a.shape
    bottom, right = max(0, MIN_DIS_SIDE - height), max(0, MIN_DIS_SIDE - width)
    if bottom or right:
        a, b = (np.pad(i, ((0, bottom), (0, right)), mode="edge") for i in (a, b))
    flow = search.calc(a, b, None)  # type: ignore[call-overload]
    return flow[:height, :width].astype(np.float16)
