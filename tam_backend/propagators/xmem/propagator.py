"""XMem as a propagator: one object at a time, from its anchors outwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tam_backend.devices import DeviceError, out_of_memory, release_memory
from tam_backend.features import FeatureStore
from tam_backend.prompts import Mask
from tam_backend.propagators.base import Propagated
from tam_backend.propagators.probes import Projected, Review
from tam_backend.propagators.xmem.config import XMemConfig
from tam_backend.propagators.xmem.core import XMemCore
from tam_backend.propagators.xmem.frames import EncodedFrame, InputSize, Size, to_input, to_plane, to_soft
from tam_backend.propagators.xmem.network import FrameEncoding, XMem
from tam_backend.propagators.xmem.probing import PERMANENT, ProbeBook, cell_shares, project
from tam_backend.video.base import Reader

#: Enough for eight frames of 854x480. Objects and directions visit the same frames shortly after each other.
CACHE_BYTES = 512 * 1024 * 1024

#: How often a state is stored. With a GPU, storing 35 MB takes as long as computing some frames.
STATE_EVERY, STATE_EVERY_ON_GPU = 16, 64

#: A retry after memory ran out sees half the pixels.
RETRY_AREA = 0.5

#: Frames in memory give probes if their masks have at least this quality.
PROBE_QUALITY = 0.9

LABEL = 1

CoreReview = Callable[[FrameEncoding, Tensor], Tensor | None]

T = TypeVar("T")


class XMemPropagator:
    """The frame that a propagation begins at enters working memory and is kept; the other anchor is permanent memory.

    What the network sees in a frame without regard to any object is computed once and shared through a cache by all
    propagations of this propagator; it may be used from several threads.
    """

    name = "xmem"
    reviewable = True

    def __init__(
        self,
        network: XMem,
        config: XMemConfig | Mapping[str, Any] | None = None,
        size: InputSize | None = None,
        amp: bool | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """amp: mixed precision on CUDA (None: yes); it has no effect on other devices."""
        self.network = network
        self.config = XMemConfig.of(config or {})
        self.size = size or InputSize()
        self.amp = network.device.type == "cuda" if amp is None else amp
        self.state_every = STATE_EVERY if network.device.type == "cpu" else STATE_EVERY_ON_GPU
        self.frames = FeatureStore(cache_bytes)

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> XMemPropagation:
        return XMemPropagation(self, video, anchors, start, state)


class XMemPropagation:
    """One object on its way through a video in one direction.

    When the device's memory runs out, the way from the anchor to the present frame is gone once more at half the
    pixels, once; the masks that were handed out already stay as they are. DeviceError if that is not enough.
    """

    def __init__(
        self,
        propagator: XMemPropagator,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None,
    ) -> None:
        self._propagator, self._video = propagator, video
        self._anchors = dict(sorted(anchors.items()))
        self._origin = self._last = start
        self._size = propagator.size.fit(video.height, video.width)
        self._reduced = False
        self._core: XMemCore | None = None
        self._book: ProbeBook | None = None
        self._cuts: set[int] = set()
        self._crossing = False
        self._absent = not any(mask.any() for mask in anchors.values())
        if self._absent:  # there is nothing to look for, and nothing to compute
            return
        if state is None:
            self._guarded(lambda: self._go_to(start))
            return
        self._origin = int(state["origin"])
        self._size = (int(state["size"][0]), int(state["size"][1]))
        self._reduced = bool(state["reduced"])
        self._cuts = {int(f) for f in state["cuts"]}
        if any(n.startswith("probes.") for n in state):
            self._book = ProbeBook.of(state)
        self._core = self._new_core()
        self._core.restore({n.removeprefix("core."): a for n, a in state.items() if n.startswith("core.")})

    def step(self, frame: int, review: Review | None = None) -> Propagated:
        """See ``Propagation``. The quality is the mean certainty |2p - 1| of the pixels of the mask, p being their
        probability; where the mask is empty, that of the pixel most like the object. It is a rule
        of thumb and no estimate of the IoU: no trained weights were at hand to calibrate it with."""
        if self._absent:
            self._last = frame
            return Propagated(np.zeros((self._video.height, self._video.width), np.uint8), 1.0)
        if self._crossing:
            self._crossing = False
            self._cuts.add(frame)
        result = self._guarded(lambda: self._reviewed(frame, review))
        self._last = frame
        return result

    def cut(self) -> None:
        """See ``ReviewedPropagation``: sensory memory ends, what was remembered stays."""
        self._crossing = True

    def _reviewed(self, frame: int, review: Review | None) -> Propagated:
        if review is None:
            return self._result(self._go_to(frame))
        if self._book is None:
            self._book = self._first_book()
        results: list[Propagated] = []  # the propagated mask, and what took its place

        def ask(seen: FrameEncoding, probability: Tensor) -> Tensor | None:
            results.append(self._result(probability[1]))
            better = review(results[0], lambda: self._project(seen, frame))
            if better is None:
                return None
            results.append(better)
            share = better.soft.astype(np.float32) / np.float32(255)
            return to_plane(share, self._size, self._propagator.network.device)

        probability, result = self._go_to(frame, ask), results[-1]
        assert self._core is not None
        number = self._core.remembered
        if number is not None and result.quality >= PROBE_QUALITY:
            self._book.add(number, cell_shares(probability[None]))
        return result

    def _first_book(self) -> ProbeBook:
        """The anchors: the one this began at is working frame 0, the other one permanent."""
        device = self._propagator.network.device
        planes = {f: cell_shares(to_plane(m, self._size, device)) for f, m in self._anchors.items()}
        return ProbeBook({(0 if f == self._origin else PERMANENT): plane for f, plane in planes.items()})

    def _project(self, seen: FrameEncoding, frame: int) -> list[Projected]:
        assert self._core is not None
        assert self._core.memory is not None
        assert self._book is not None
        direction = 1 if frame > self._origin else -1
        source = {number: self._origin + direction * number for number in self._book.planes}
        source[PERMANENT] = next((f for f in self._anchors if f != self._origin), self._origin)
        shown = (self._video.height, self._video.width)
        return project(self._book, self._core.memory, seen, LABEL, self._size, shown, source)

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Bit-exact on CPU. At 854x480 about 3.5 MB for every frame in working memory and 2.5 KB for every element of
        long-term memory: 35 to 65 MB."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "origin": np.array(self._origin, np.int64),
            "size": np.array(self._size, np.int64),
            "reduced": np.array(self._reduced),
            "cuts": np.array(sorted(self._cuts), np.int64),
        }
        if self._book is not None:
            arrays |= self._book.state()
        if self._core is not None:
            arrays |= {f"core.{name}": array for name, array in self._core.state().items()}
        return arrays

    def _guarded(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns; at a smaller size if memory runs out."""
        try:
            return compute()
        except (RuntimeError, MemoryError) as e:
            if not out_of_memory(e):
                raise
        # outside the except clause, so that the error does not keep the failed step's tensors alive
        self._drop()
        if not self._reduced:
            self._reduced, self._size = True, _smaller(self._size)
            try:
                return compute()
            except (RuntimeError, MemoryError) as e:
                if not out_of_memory(e):
                    raise
            self._drop()
        height, width = self._size
        raise DeviceError(
            f"not enough memory on {self._propagator.network.device} for this video, even at {width}x{height}. "
            "Choose a smaller size (TAM_XMEM_SHORT_SIDE), end other programs that use the device, or set TAM_DEVICE=cpu"
        )

    def _go_to(self, frame: int, review: CoreReview | None = None) -> Tensor:
        """Step to a frame; with nothing in memory (any more), all the way from the anchor. Returns the probability of
        the object there, hxw at the network's size. Only the frame itself is reviewed: on the way from the anchor,
        masks that were refined before come as they are propagated."""
        if self._core is None:
            core = self._new_core()
            core.set_all_labels([LABEL])
            probability = self._enter(core)
            direction = 1 if frame >= self._origin else -1
            for passed in range(self._origin + direction, self._last + direction, direction):
                self._advance(core, passed)
            self._core = core
            if frame == self._origin:
                return probability
        return self._advance(self._core, frame, review)

    def _result(self, probability: Tensor) -> Propagated:
        inside = probability >= 0.5
        certainty = (2 * probability - 1).abs()
        quality = certainty[inside].mean() if inside.any() else certainty.min()
        return Propagated(to_soft(probability, (self._video.height, self._video.width)), float(quality))

    def _enter(self, core: XMemCore) -> Tensor:
        """Give the core its anchors; returns the mask of the first one as the core sees it."""
        device = self._propagator.network.device
        for other in self._anchors.keys() - {self._origin}:
            seen = self._encoded(core, other)
            core.remember(seen.image, to_plane(self._anchors[other], self._size, device), encoding=seen.encoding)
        seen = self._encoded(core, self._origin)
        plane = to_plane(self._anchors[self._origin], self._size, device)
        return core.step(seen.image, plane, valid_labels=[LABEL], encoding=seen.encoding)[1]

    def _advance(self, core: XMemCore, frame: int, review: CoreReview | None = None) -> Tensor:
        if frame in self._cuts:
            core.forget_sensory()
        seen = self._encoded(core, frame)
        return core.step(seen.image, encoding=seen.encoding, review=review)[1]

    def _encoded(self, core: XMemCore, frame: int) -> EncodedFrame:
        def encode() -> EncodedFrame:
            image = to_input(self._video[frame], self._size, self._propagator.network.device)
            return EncodedFrame(image, core.encode(image))

        return self._propagator.frames.get((self._video.key, frame, self._size), encode)

    def _new_core(self) -> XMemCore:
        return XMemCore(self._propagator.network, self._propagator.config, amp=self._propagator.amp)

    def _drop(self) -> None:
        """Let go of everything that can be computed again."""
        self._core = self._book = None
        self._propagator.frames.clear()
        release_memory(self._propagator.network.device)


def _smaller(size: Size) -> Size:
    scale = RETRY_AREA**0.5
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
