"""Settings of the XMem memory, with the published names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.propagators.xmem.network import HIDDEN_DIM, KEY_DIM, VALUE_DIM


@dataclass(frozen=True, slots=True)
class XMemConfig:
    """How much is remembered, and when. All limits are hard: the memory never grows beyond them.

    Elements are cells of the stride-16 grid; a frame of 854x480 has 1620 of them.

    enable_long_term: keep the essence of older frames as prototypes. Without it, the first frame and the latest
        ``max_work_frames - 1`` memory frames are all there is.
    max_mid_term_frames, min_mid_term_frames: at the first, working memory is consolidated down to the second.
        Frames in which an object first got its mask are kept for as long as the object and are not counted, but one.
    max_long_term_elements, num_prototypes: size of long-term memory, and how much a consolidation adds to it.
    enable_long_term_count_usage: forget the least used long-term elements first (off: the oldest first).
    top_k: how many memory elements each query reads; all of them where there are fewer.
    mem_every: a frame goes into memory every so many frames. deep_update_every: the sensory memory takes in a memory
        frame every so many frames; -1: every memory frame.
    max_work_frames: limit of working memory without long-term memory. max_permanent_frames: limit of ``remember``.
    official: do as the official code does where it is wrong (see ``official.py``).
    """

    key_dim: int = KEY_DIM
    value_dim: int = VALUE_DIM
    hidden_dim: int = HIDDEN_DIM
    enable_long_term: bool = True
    enable_long_term_count_usage: bool = True
    max_mid_term_frames: int = 10
    min_mid_term_frames: int = 5
    max_long_term_elements: int = 10_000
    num_prototypes: int = 128
    top_k: int = 30
    mem_every: int = 5
    deep_update_every: int = -1
    max_work_frames: int = 32
    max_permanent_frames: int = 32
    official: bool = False

    def __post_init__(self) -> None:
        sizes = {"key_dim": KEY_DIM, "value_dim": VALUE_DIM, "hidden_dim": HIDDEN_DIM}
        for name, size in sizes.items():
            if getattr(self, name) != size:
                raise BadInput(f"{name} is {getattr(self, name)}, the published network has {size}")
        lowest = {
            "min_mid_term_frames": 1,
            "max_mid_term_frames": self.min_mid_term_frames + 1,
            "num_prototypes": 1,
            "max_long_term_elements": self.num_prototypes,
            "top_k": 1,
            "mem_every": 1,
            "max_work_frames": 2,
            "max_permanent_frames": 0,
        }
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least {low}")
        if self.deep_update_every < 1 and self.deep_update_every != -1:
            raise BadInput(f"deep_update_every is {self.deep_update_every}, it must be -1 or at least 1")

    @classmethod
    def of(cls, config: XMemConfig | Mapping[str, Any]) -> XMemConfig:
        """The config itself, or one made from names and values. Raises BadInput for a name that does not exist."""
        if isinstance(config, XMemConfig):
            return config
        known = {f.name for f in fields(cls)}
        for name in config:
            if name not in known:
                raise BadInput(f"there is no setting {name!r} of XMem; known settings: {', '.join(sorted(known))}")
        return cls(**config)
