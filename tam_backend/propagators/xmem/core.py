"""XMem on one video, frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tam_backend.errors import BadInput
from tam_backend.propagators.xmem.config import XMemConfig
from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.network import HIDDEN_DIM, STRIDE, FrameEncoding, XMem, aggregate
from tam_backend.propagators.xmem.official import OfficialMemory


class XMemCore:
    """Carries masks from frame to frame. One instance serves one video in one direction; not thread-safe.

    Say which objects there are with ``set_all_labels``, then call ``step`` once per frame; the first step needs a mask.
    Objects come by a new label together with a mask in the next step, and go when their label is left out.
    """

    def __init__(self, network: XMem, config: XMemConfig | Mapping[str, Any] | None = None, amp: bool = False) -> None:
        """config: names and values as in ``XMemConfig``. amp: mixed precision; only on CUDA."""
        self.network = network
        self.config = XMemConfig.of(config or {})
        self.memory: Memory | None = None
        self._amp = amp and network.device.type == "cuda"
        self._labels: list[int] = []
        self._hidden: dict[int, Tensor] = {}
        self._size: tuple[int, int] | None = None
        self._time, self._last_memory, self._last_deep = -1, 0, -abs(self.config.deep_update_every)

    @property
    def labels(self) -> list[int]:
        return list(self._labels)

    def set_all_labels(self, labels: Sequence[int]) -> None:
        """Say which objects there are, in the order of the planes of masks and results.

        A label that is left out is forgotten and its memory freed. A new one needs a mask in the next step.
        """
        labels = [int(label) for label in labels]
        if not labels or len(set(labels)) < len(labels) or min(labels) < 0:
            raise BadInput(f"labels must be different numbers, at least one and none below 0, got {labels}")
        for gone in set(self._labels) - set(labels):
            self._hidden.pop(gone, None)
            if self.memory is not None:
                self.memory.forget(gone)
        self._labels = labels

    @torch.no_grad()
    def encode(self, image: Tensor) -> FrameEncoding:
        """What ``step`` computes from the image alone. image: 3xHxW float, normalised. Give it to ``step`` to have it
        computed once for several objects."""
        return self._encode(_pad(image.to(self.network.device)))

    @torch.no_grad()
    def step(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        valid_labels: Sequence[int] | None = None,
        end: bool = False,
        encoding: FrameEncoding | None = None,
        review: Callable[[FrameEncoding, Tensor], Tensor | None] | None = None,
    ) -> Tensor:
        """Go on to the next frame.

        image: 3xHxW float, normalised by ImageNet's mean and deviation. mask: OxHxW in [0, 1], one plane per label;
        it replaces the prediction and goes into memory. valid_labels: labels for which the mask counts; the others
        keep their prediction where the mask is empty (None: it counts for all, and the frame is still segmented, so
        that the sensory memory moves on). end: this is the last frame, nothing of it needs to be remembered.
        encoding: ``encode(image)``, if it is at hand. review: is shown the prediction, as it would be returned, before
        anything of the frame is remembered, and may give a mask. Then everything is as if that had been ``mask``; else
        as if there were no review.

        Returns (O+1)xHxW float32 probabilities that sum to 1, background first, on the network's device.
        Raises BadInput where the shapes do not fit, or where an object never had a mask.
        """
        self._check(image, mask, valid_labels)
        known = [label for label in self._labels if label in self._hidden]
        device = self.network.device
        now = self._time + 1
        remember, deep, update = self._duties(now, mask is not None, end)
        segment = now > 0 and (mask is None or valid_labels is None or len(valid_labels) != len(self._labels))

        padded = _pad(image.to(device))
        frame = encoding if encoding is not None else self._encode(padded)
        hidden_before = dict(self._hidden)
        probability = self._segment(frame, known, update) if segment and known else None
        if review is not None and mask is None and probability is not None:
            size = (int(image.shape[1]), int(image.shape[2]))
            mask = review(frame, _unpad(probability, size))
            if mask is not None:
                remember, deep, now_update = self._duties(now, True, end)
                if update and not now_update:
                    self._hidden = hidden_before
        if mask is not None:
            given = _pad(mask.to(device, torch.float32))
            probability = aggregate(self._merge(given, probability, known, valid_labels)).softmax(0)
            for label in self._labels:
                if label not in self._hidden:
                    self._hidden[label] = torch.zeros(HIDDEN_DIM, *frame.grid, device=device)
        assert probability is not None
        if remember:
            with self._autocast():
                value = self.network.encode_value(padded, frame, probability[1:])
                hidden = self.network.deep_update(value, self._stack(self._labels)) if deep else None
            self._memory(frame).add_frame(now, frame, value, self._labels)
            self._last_memory = now
            if hidden is not None:
                self._set_hidden(self._labels, hidden)
                self._last_deep = now
        self._time, self._size = now, (int(image.shape[1]), int(image.shape[2]))
        return _unpad(probability, self._size)

    def _duties(self, now: int, given: bool, end: bool) -> tuple[bool, bool, bool]:
        """Whether a frame goes into memory, whether its value then updates the sensory memory, and whether its
        segmentation does."""
        config = self.config
        remember = not end and (given or now - self._last_memory >= config.mem_every)
        together = config.deep_update_every < 0
        deep = not end and (remember if together else now - self._last_deep >= config.deep_update_every)
        return remember, deep, not end and not (together and deep)

    @property
    def remembered(self) -> int | None:
        """The number of the last frame (steps since the first) if it went into working memory, else None."""
        return self._time if self._last_memory == self._time else None

    def forget_sensory(self) -> None:
        """Sensory memory begins anew, as for a first frame; all other memory stays."""
        self._hidden = {label: torch.zeros_like(hidden) for label, hidden in self._hidden.items()}

    @torch.no_grad()
    def remember(self, image: Tensor, mask: Tensor, encoding: FrameEncoding | None = None) -> None:
        """Put a frame of the video into permanent memory: it is read from now on and not forgotten.

        image and mask as for ``step``, at any time, also before the first step. The frame may lie anywhere in the
        video; time does not move on. Raises BadInput if permanent memory is full.
        """
        self._check(image, mask, None)
        padded = _pad(image.to(self.network.device))
        frame = encoding if encoding is not None else self._encode(padded)
        given = aggregate(_pad(mask.to(self.network.device, torch.float32))).softmax(0)[1:]
        with self._autocast():
            value = self.network.encode_value(padded, frame, given)
        self._memory(frame).add_permanent(frame, value, self._labels)
        self._size = (int(image.shape[1]), int(image.shape[2]))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that is carried from frame to frame, as arrays."""
        times = [self._time, self._last_memory, self._last_deep]
        arrays: dict[str, npt.NDArray[Any]] = {"times": np.array(times, np.int64), "labels": np.array(self._labels)}
        if self._size is not None:
            arrays["size"] = np.array(self._size, np.int64)
        arrays |= {f"hidden.{label}": h.float().cpu().numpy().copy() for label, h in self._hidden.items()}
        if self.memory is not None:
            arrays["grid"] = np.array(self.memory.grid, np.int64)
            arrays |= {f"memory.{name}": a for name, a in self.memory.state()}
        return arrays

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on where ``state`` was taken: on CPU, with results that are equal bit for bit. For a fresh core with the
        same network and config."""
        self._time, self._last_memory, self._last_deep = (int(n) for n in state["times"])
        self._labels = [int(label) for label in state["labels"]]
        device = self.network.device
        for label in self._labels:
            if f"hidden.{label}" in state:
                self._hidden[label] = torch.from_numpy(np.asarray(state[f"hidden.{label}"])).to(device)
        if "size" in state:
            self._size = (int(state["size"][0]), int(state["size"][1]))
        if "grid" in state:
            self.memory = self._new_memory((int(state["grid"][0]), int(state["grid"][1])))
            self.memory.restore({n.removeprefix("memory."): a for n, a in state.items() if n.startswith("memory.")})

    def _encode(self, padded: Tensor) -> FrameEncoding:
        with self._autocast():
            return self.network.encode_frame(padded)

    def _segment(self, frame: FrameEncoding, labels: list[int], update: bool) -> Tensor:
        assert self.memory is not None
        readout = self.memory.read(frame, labels)
        with self._autocast():
            logits, hidden = self.network.segment(frame, readout, self._stack(labels), update)
        if hidden is not None:
            self._set_hidden(labels, hidden)
        return logits.softmax(0)

    def _merge(
        self, given: Tensor, predicted: Tensor | None, known: list[int], valid_labels: Sequence[int] | None
    ) -> Tensor:
        """The given mask, with the prediction of the labels it does not count for."""
        if predicted is None or valid_labels is None:
            return given
        merged = given.clone()
        elsewhere = given.sum(0) <= 0.5
        for row, label in enumerate(known, 1):
            if label not in valid_labels:
                merged[self._labels.index(label)] = predicted[row] * elsewhere
        return merged

    def _memory(self, frame: FrameEncoding) -> Memory:
        if self.memory is None:
            self.memory = self._new_memory(frame.grid)
        return self.memory

    def _new_memory(self, grid: tuple[int, int]) -> Memory:
        kind = OfficialMemory if self.config.official else Memory
        return kind(self.config, grid, self.network.device, torch.float16 if self._amp else torch.float32)

    def _stack(self, labels: Sequence[int]) -> Tensor:
        return torch.stack([self._hidden[label] for label in labels])

    def _set_hidden(self, labels: Sequence[int], hidden: Tensor) -> None:
        for label, h in zip(labels, hidden.float(), strict=True):
            self._hidden[label] = h

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self._amp else contextlib.nullcontext()

    def _check(self, image: Tensor, mask: Tensor | None, valid_labels: Sequence[int] | None) -> None:
        if not self._labels:
            raise BadInput("there are no objects yet: call set_all_labels first")
        if image.dim() != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise BadInput(f"image is {image.dtype} {tuple(image.shape)}, it must be floating point 3xHxW")
        size = (int(image.shape[1]), int(image.shape[2]))
        if self._size is not None and size != self._size:
            raise BadInput(f"image is {size} (height, width), the frames before were {self._size}")
        if mask is not None and tuple(mask.shape) != (len(self._labels), *size):
            raise BadInput(f"mask is {tuple(mask.shape)}, it must be {(len(self._labels), *size)}: a plane per label")
        unknown = set(valid_labels or ()) - set(self._labels)
        if unknown:
            raise BadInput(f"valid_labels names {sorted(unknown)}, which set_all_labels did not")
        new = [label for label in self._labels if label not in self._hidden]
        if mask is None and new:
            raise BadInput(f"objects {new} have no mask yet: give one in the step after set_all_labels")


def _margins(size: int) -> tuple[int, int]:
    missing = -size % STRIDE
    return missing // 2, missing - missing // 2


def _pad(planes: Tensor) -> Tensor:
    """Zeros around CxHxW up to multiples of the stride, the odd row below and the odd column to the right."""
    (top, bottom), (left, right) = _margins(planes.shape[1]), _margins(planes.shape[2])
    return F.pad(planes, (left, right, top, bottom))


def _unpad(planes: Tensor, size: tuple[int, int]) -> Tensor:
    top, left = _margins(size[0])[0], _margins(size[1])[0]
    return planes[:, top : top + size[0], left : left + size[1]]
