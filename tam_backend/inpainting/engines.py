"""Engines of inpainting by name."""

from __future__ import annotations

from tam_backend.engines import EngineUnavailable
from tam_backend.errors import BadInput
from tam_backend.inpainting.base import Inpainter
from tam_backend.sam_xmem import INSTALL
from tam_backend.settings import INPAINT_ENGINES, Settings


def load_inpainter(name: str, settings: Settings) -> Inpainter:
    """Raises BadInput for an unknown name, and another TamError where what the engine needs cannot be had.

    There is no ``auto``: the licence of E2FGVI's weights is nothing to come upon unasked.
    """
    if name == "embedded":
        from tam_backend.inpainting.embedded.engine import EmbeddedInpainter

        return EmbeddedInpainter()
    if name == "e2fgvi":
        try:
            from tam_backend.inpainting.e2fgvi.engine import make_e2fgvi
        except (ImportError, OSError) as e:
            raise EngineUnavailable(f"e2fgvi needs PyTorch and torchvision: {e}. Install with: {INSTALL}") from e
        return make_e2fgvi(settings)
    raise BadInput(f"there is no inpainting engine {name!r}; known engines: {', '.join(INPAINT_ENGINES)}")
