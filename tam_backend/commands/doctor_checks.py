"""What ``tam doctor`` looks at. Each check gives findings, and none changes anything."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tam_backend import __version__
from tam_backend.checkpoints import CHECKPOINTS, verify
from tam_backend.commands.doctor_trial import FRAMES, try_engine
from tam_backend.engines import load_engine
from tam_backend.errors import BadInput, LabelStudioError, TamError
from tam_backend.sam_xmem import INSTALL, choose_checkpoints, missing_packages, structure_check
from tam_backend.settings import Settings
from tam_backend.weights import CheckpointError

_PACKAGES = (
    "numpy", "opencv-python-headless", "av", "pillow", "Flask", "label-studio-ml", "torch", "torchvision",
    "segment-anything",
)  # fmt: skip

#: A mask that overlaps less than this with the true one is wrong.
_WRONG = 0.5
#: Free bytes below which work will fail soon, on disk and in memory. sam-xmem with ViT-B took 2.1 GB on CPU.
_LITTLE_DISK, _LITTLE_MEMORY, _MEMORY_OF_SAM = 2_000_000_000, 1_000_000_000, 3_000_000_000
#: (connect, read) seconds for Label Studio.
_TIMEOUT = (5.0, 15.0)


class Level(StrEnum):
    """NOTE: nothing is broken, but it is good to know. PROBLEM: something will not work."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """advice: what to do about it, "" where there is nothing to do."""

    level: Level
    topic: str
    text: str
    advice: str = ""


def ok(topic: str, text: str) -> Finding:
    return Finding(Level.OK, topic, text)


def note(topic: str, text: str, advice: str = "") -> Finding:
    return Finding(Level.NOTE, topic, text, advice)


def problem(topic: str, text: str, advice: str = "") -> Finding:
    return Finding(Level.PROBLEM, topic, text, advice)


def programs() -> Iterator[Finding]:
    """Versions of what is installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    yield ok("programs", f"tam {__version__}, Python {platform.python_version()}, {versions}")
    for name in _PACKAGES[:6]:
        if name not in found:
            yield problem("programs", f"{name} is not installed", "make install")


def device(settings: Settings) -> Iterator[Finding]:
    """Where networks would run."""
    if missing := missing_packages():
        yield note("device", f"no {', '.join(missing)} installed: only the embedded engine, on cpu", INSTALL)
        return
    try:
        import torch

        from tam_backend.devices import choose_device

        chosen = choose_device(settings.device)
    except (ImportError, OSError) as e:
        yield problem("device", f"PyTorch is installed but does not load: {e}", f"install it anew: {INSTALL}")
        return
    except BadInput as e:
        yield problem("device", str(e), "set TAM_DEVICE to what there is, or to auto")
        return
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen)
        name = torch.cuda.get_device_name(chosen)
        yield ok("device", f"{chosen}: {name}, {_gb(free)} of {_gb(total)} free")
    elif chosen.type == "mps":
        yield ok("device", "mps: the GPU of this Mac")
    else:
        yield note(
            "device",
            f"cpu, {torch.get_num_threads()} threads: sam-xmem takes seconds a frame here",
            "without a GPU, TAM_XMEM_SHORT_SIDE=240 is about four times as quick",
        )


def checkpoints(settings: Settings) -> Iterator[Finding]:
    """Every file that is there, verified."""
    folder = settings.checkpoint_dir
    here = [c for c in CHECKPOINTS.values() if (folder / c.file).exists()]
    for checkpoint in here:
        if checkpoint.structure and missing_packages():
            yield note("checkpoints", f"{checkpoint.name}: {checkpoint.file} cannot be judged without PyTorch", INSTALL)
            continue
        try:
            verified = verify(checkpoint, folder, structure_check(checkpoint))
        except CheckpointError as e:
            yield problem("checkpoints", f"{checkpoint.name}: {e}", f"delete it, and: {_get(checkpoint.name)}")
        else:
            by = " and ".join(verified.by)
            yield ok("checkpoints", f"{checkpoint.name}: {checkpoint.file} is good by {by}, sha256 {verified.sha256}")
    missing = [c.name for c in choose_checkpoints(settings, gpu=False) if c not in here]
    if missing:
        finding = problem if settings.engine == "sam-xmem" else note
        lacking = " and ".join(missing)
        yield finding("checkpoints", f"sam-xmem lacks {lacking} in {folder.absolute()}", _get(" ".join(missing)))


def engines(settings: Settings) -> Iterator[Finding]:
    """Ten frames by each engine that can be used, with their timing."""
    settings = replace(settings, checkpoint_download=False, embedding_disk_mb=0)  # nothing is changed here
    there, usable = ["embedded"], []
    if not missing_packages() and all(
        (settings.checkpoint_dir / c.file).is_file() for c in choose_checkpoints(settings, gpu=False)
    ):
        there.append("sam-xmem")
    for name in there:
        topic = f"engine {name}"
        wrong = problem if settings.engine in ("auto", name) else note
        began = time.perf_counter()
        try:
            engine = load_engine(name, settings)
            loaded = time.perf_counter() - began
            usable.append(name)  # the server would start with it, however the trial ends
            trial = try_engine(engine)
        except TamError as e:
            yield wrong(topic, str(e))
            continue
        text = (
            f"{FRAMES} frames: loaded in {loaded:.1f} s, first mask {trial.first:.2f} s after the click, then "
            f"{trial.each:.2f} s a frame; overlap with the true masks at least {trial.worst:.2f} ({engine.detail})"
        )
        if trial.worst < _WRONG:
            yield wrong(topic, f"the masks are wrong. {text}", "are the checkpoints the trained ones? Get them anew")
        else:
            yield ok(topic, text)
    chosen = [name for name in usable if settings.engine in ("auto", name)]
    if chosen:
        yield ok("engine", f"TAM_ENGINE={settings.engine}: the server uses {chosen[-1]}")
    else:
        yield problem("engine", f"TAM_ENGINE={settings.engine}: it cannot be used, for the reasons above")


def label_studio(settings: Settings) -> Iterator[Finding]:
    """Whether Label Studio answers, and whether it takes our token."""
    from tam_backend.labelstudio.connections import Client, Connections
    from tam_backend.labelstudio.transport import ask_label_studio

    topic, url = "Label Studio", settings.label_studio_url
    if not url:
        advice = "set TAM_LABEL_STUDIO_URL and TAM_LABEL_STUDIO_TOKEN, the surest way"
        yield note(topic, "no address is set: the server takes that of the first Label Studio that connects", advice)
        return
    try:
        status, _, _ = ask_label_studio("GET", f"{url}/health", {}, _TIMEOUT, None)
    except LabelStudioError as e:
        yield problem(topic, str(e), f"is it running, and is {url} right as seen from this machine?")
        return
    if status != 200:
        yield problem(topic, f"{url}/health answers {status}", "is this the address of Label Studio itself?")
        return
    if not settings.label_studio_token:
        yield note(topic, f"{url} answers; no token is set", "set TAM_LABEL_STUDIO_TOKEN")
        return
    connection = Connections(settings).current()
    assert connection is not None
    try:
        person = Client(connection, _TIMEOUT).whoami()
    except LabelStudioError as e:
        yield problem(topic, str(e), "make a token under Account & Settings, and set TAM_LABEL_STUDIO_TOKEN")
    else:
        yield ok(topic, f"{url} answers, and the token is that of {person}")


def room(settings: Settings) -> Iterator[Finding]:
    """Free disk and memory."""
    for what, folder in (("data", settings.data_dir), ("checkpoints", settings.checkpoint_dir)):
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        if what == "data" and not (there.is_dir() and os.access(there, os.W_OK)):
            yield problem("disk", f"{folder} cannot be written", "set TAM_DATA_DIR to a folder of the server's own")
            continue
        free = shutil.disk_usage(there).free
        text = f"{what} in {folder.absolute()}, {_gb(free)} free"
        if free < _LITTLE_DISK:
            yield problem("disk", text, "free some, or choose another disk")
            continue
        megabytes = settings.media_cache_mb + settings.state_mb + settings.frame_cache_mb + settings.embedding_disk_mb
        if what == "data" and free + _used(folder) < megabytes * 1_000_000:
            advice = "lower TAM_MEDIA_CACHE_MB and TAM_STATE_MB"
            yield note("disk", f"{text}, less than the {_gb(megabytes * 1e6)} that its caches may grow to", advice)
        else:
            yield ok("disk", text)
    free_memory = available_memory()
    if free_memory is None:
        yield note("memory", "how much is free cannot be seen on this system")
    elif free_memory < _LITTLE_MEMORY:
        yield problem("memory", f"{_gb(free_memory)} free", "end other programs, or use a larger machine")
    elif free_memory < _MEMORY_OF_SAM:
        yield note("memory", f"{_gb(free_memory)} free: little for sam-xmem, which takes 2 to 3 GB with vit_b on cpu")
    else:
        yield ok("memory", f"{_gb(free_memory)} free")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: of the machine, or of its container if that is less. None if unknown."""
    limits = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except OSError:
        pass
    try:
        limit = (root / "sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((root / "sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def _used(folder: Path) -> int:
    used = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # a server at work removes files, too
            used += path.stat().st_size
    return used


def _get(names: str) -> str:
    return f"tam checkpoints download {names}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
