"""Where networks run: the device that was asked for or the best there is, and what to do when its memory is full."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from tam_backend.errors import BadInput, TamError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "mps", "cpu")


class DeviceError(TamError):
    """A device cannot do what is asked of it."""


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name; ``auto`` takes the first there is of cuda, mps and cpu. ``cuda:1`` is a name, too.

    Raises BadInput for an unknown name and for a device that this machine does not have.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kind, _, index = name.partition(":")
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if kind not in there or (index and not (kind == "cuda" and index.isdigit())):
        raise BadInput(f"there is no device {name!r}; known devices: {', '.join(DEVICES)}, or cuda:1 and so on")
    found = ", ".join(kind for kind, available in there.items() if available)
    if not there[kind]:
        raise BadInput(f"the device {name!r} was asked for, but PyTorch sees none here. It sees: {found}. Try 'auto'")
    if index and int(index) >= torch.cuda.device_count():
        raise BadInput(f"the device {name!r} was asked for, but there are {torch.cuda.device_count()}, counted from 0")
    return torch.device(name)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was not enough memory, on whichever device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()  # PyTorch has no exception class of its own for these
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release_memory(device: torch.device) -> None:
    """Hand memory that nothing refers to any more back to the device."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
