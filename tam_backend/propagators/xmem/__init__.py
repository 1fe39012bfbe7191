"""XMem (Cheng and Schwing, ECCV 2022): masks carried through a video by a memory of three kinds."""

from tam_backend.propagators.xmem.config import XMemConfig
from tam_backend.propagators.xmem.core import XMemCore
from tam_backend.propagators.xmem.frames import InputSize
from tam_backend.propagators.xmem.loading import check_xmem, load_xmem
from tam_backend.propagators.xmem.network import XMem
from tam_backend.propagators.xmem.propagator import XMemPropagation, XMemPropagator

__all__ = [
    "InputSize",
    "XMem",
    "XMemConfig",
    "XMemCore",
    "XMemPropagation",
    "XMemPropagator",
    "check_xmem",
    "load_xmem",
]
