"""The engine sam-xmem: SAM makes a mask from clicks, XMem carries it through the video. From files to an engine.

PyTorch is imported when an engine is made, not before.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from pathlib import Path

from tam_backend.checkpoints import CHECKPOINTS, Check, Checkpoint, Verified, fetch, verify
from tam_backend.download import Patience
from tam_backend.engines import Engine, EngineUnavailable
from tam_backend.features import FeatureStore, FrameFeatures
from tam_backend.features.shots import Shots
from tam_backend.settings import SAM_SIZES, Settings
from tam_backend.weights import CheckpointError

log = logging.getLogger(__name__)

#: Changes whenever this code makes other masks of the same weights and prompts.
VERSION = 3

#: As imported, and what installs them.
PACKAGES = ("torch", "torchvision", "segment_anything")
INSTALL = "make install-torch, or pip install -r requirements-torch.txt"

#: In the order in which they are taken.
XMEM_FILES = ("xmem_s012", "xmem")

#: The start of a server without a network must not hang.
AT_START = Patience(attempts=2, connect=4.0, silence=15.0)

#: Memory for the small pictures in which cuts are looked for, and for what they are made from.
SHOT_BYTES = 48 * 1024 * 1024

#: Seconds between two lines about a download.
_TELL_EVERY = 10.0

#: Pixels that XMem sees at most, in squares of the short side: frames up to 2.78:1 are reduced by their short side.
_AREA = 640_000 / 480**2


def missing_packages() -> list[str]:
    """Those that the engine needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def structure_check(checkpoint: Checkpoint) -> Check:
    """What looks into a file of which no hash is known. It imports PyTorch when it is called."""

    def look(path: Path) -> None:
        try:
            if checkpoint.structure == "e2fgvi":
                from tam_backend.inpainting.e2fgvi.loading import check_e2fgvi as check
            else:
                from tam_backend.propagators.xmem import check_xmem as check
        except ImportError as e:
            raise CheckpointError(
                f"{path.name} can only be judged by its structure, which takes PyTorch: {e}. Install it with: {INSTALL}"
            ) from e
        check(path)

    return look


def choose_checkpoints(settings: Settings, gpu: bool) -> tuple[Checkpoint, Checkpoint]:
    """The files for SAM and for XMem: what the settings name, else the best that is there, else what to get."""
    folder = settings.checkpoint_dir
    sizes = [settings.sam] if settings.sam != "auto" else [s for s in SAM_SIZES if _there(folder, f"sam_{s}")]
    size = (sizes[-1] if gpu else sizes[0]) if sizes else "vit_b"
    xmem = next((name for name in XMEM_FILES if _there(folder, name)), XMEM_FILES[0])
    return CHECKPOINTS[f"sam_{size}"], CHECKPOINTS[xmem]


def make_sam_xmem(settings: Settings) -> Engine:
    """The engine with the weights of the checkpoint folder, which are verified first.

    Raises EngineUnavailable where a package is missing, CheckpointError where a file is missing, wrong or cannot be
    downloaded, BadInput where the device that was asked for is not there, DeviceError if the device is too small.
    """
    if missing := missing_packages():
        raise EngineUnavailable(f"sam-xmem needs {', '.join(missing)}, not installed here. Install with: {INSTALL}")
    for checkpoint in choose_checkpoints(settings, gpu=False):
        if not _there(settings.checkpoint_dir, checkpoint.name) and not settings.checkpoint_download:
            raise CheckpointError(  # before PyTorch is imported for nothing
                f"{checkpoint.file} is not in {settings.checkpoint_dir.absolute()}. Get it with: "
                f"tam checkpoints download {checkpoint.name}"
            )
    try:
        from tam_backend.devices import DeviceError, choose_device, out_of_memory
        from tam_backend.propagators.xmem import InputSize, XMemPropagator, load_xmem
        from tam_backend.segmenters.sam import EmbeddingCache, SamSegmenter, load_sam

        device = choose_device(settings.device)
    except (ImportError, OSError) as e:  # a library that PyTorch links to
        raise EngineUnavailable(f"sam-xmem needs PyTorch, which is installed but does not load: {e}") from e
    checkpoints = choose_checkpoints(settings, gpu=device.type != "cpu")
    sam_file, xmem_file = (_obtain(settings, checkpoint) for checkpoint in checkpoints)
    try:
        sam, network = load_sam(sam_file.path, device), load_xmem(xmem_file.path, device)
    except (RuntimeError, MemoryError) as e:
        if not out_of_memory(e):
            if device.type == "cpu":
                raise
            reason = str(e).partition("\n")[0][:200]  # drivers and builds of PyTorch that do not fit each other
            raise DeviceError(f"{device} cannot be used: {reason}. TAM_DEVICE=cpu goes without it") from e
        raise DeviceError(
            f"not enough memory on {device} to load {checkpoints[0].file}. Choose a smaller SAM (TAM_SAM=vit_b), end "
            "other programs that use the device, or set TAM_DEVICE=cpu"
        ) from e
    side = settings.xmem_short_side
    precision = "fp16" if device.type == "cuda" else "fp32"
    propagator = XMemPropagator(network, size=InputSize(side, max(256, round(_AREA * side**2))))
    embeddings = EmbeddingCache(
        settings.embedding_memory_mb * 1_000_000,
        settings.data_dir / "embeddings",
        settings.embedding_disk_mb * 1_000_000,
        encoder=f"{sam_file.sha256[:16]}-{precision}",
    )
    segmenter = SamSegmenter(sam, embeddings=embeddings, make_room=propagator.frames.clear)
    version = f"{VERSION}-{sam_file.sha256[:8]}-{xmem_file.sha256[:8]}-{side}-{precision}"
    detail = f"{', '.join(c.file for c in checkpoints)}, {device}, {precision}, frames reduced to {side} for XMem"
    options = settings.refine_options
    if options is not None:
        version += f"-{options.tag}"
    features = FrameFeatures(FeatureStore(SHOT_BYTES))
    forget = (features.clear, propagator.frames.clear, embeddings.clear)
    return Engine("sam-xmem", version, segmenter, propagator, detail, Shots(features), options, forget=forget)


def _there(folder: Path, name: str) -> bool:
    return (folder / CHECKPOINTS[name].file).is_file()


def _obtain(settings: Settings, checkpoint: Checkpoint) -> Verified:
    """The verified file, downloaded if it is not there and that is allowed."""
    folder, check = settings.checkpoint_dir, structure_check(checkpoint)
    if _there(folder, checkpoint.name):
        return verify(checkpoint, folder, check)
    size = f"{checkpoint.size / 1e6:.0f} MB" if checkpoint.size else "about 250 MB"
    log.warning("downloading %s, %s, before anything else starts", checkpoint.file, size)
    try:
        verified = fetch(checkpoint, folder, check, settings.checkpoint_url, _Progress(checkpoint.file), AT_START)
    except CheckpointError as e:
        raise CheckpointError(f"{checkpoint.file} is not there and could not be downloaded: {e}") from e
    log.warning("%s is here, sha256 %s", checkpoint.file, verified.sha256)
    return verified


class _Progress:
    """Lines in the log about a download."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._told = time.monotonic()

    def __call__(self, here: int, total: int | None) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            of = f" of {total / 1e6:.0f}" if total else ""
            log.info("%s: %.0f%s MB", self._file, here / 1e6, of)
