"""The published weights: where they come from, what they must be, and how they get here unharmed.

A file put into the checkpoint folder by hand is as good as a downloaded one. Every file is judged by its content:
by its published hash, or where none is known by its structure. A file ``NAME.sha256`` beside it (as ``sha256sum``
writes it) pins the content; it must then fit as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tam_backend.download import PATIENT, Patience, Progress, download
from tam_backend.errors import BadInput
from tam_backend.weights import CheckpointError

_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_XMEM = "https://github.com/hkchengrex/XMem/releases/download/v1.0"
#: What the README of its authors links to. Google wants it confirmed that such a file is not scanned for viruses.
_E2FGVI = "https://drive.usercontent.google.com/download?id=10wGdKSUOie0XmCr8SQ2A2FeDe-mfn5w3&export=download&confirm=t"

#: Looks into a file of which no hash is known; raises CheckpointError if it is not what it should be.
Check = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One published file.

    name: for people. file: as published, and in the checkpoint folder. size in bytes and hashes in hex, as far as they
    are known; the hashes come from third parties, not from the publishers. structure: where no hash is known, the
    network whose tensors the file must hold. restriction: what the licence forbids, in words, if it restricts use: then
    nothing is downloaded without consent.
    """

    name: str
    file: str
    url: str
    purpose: str
    licence: str
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    structure: str = ""
    restriction: str = ""


CHECKPOINTS = {
    c.name: c
    for c in (
        Checkpoint(
            "sam_vit_b", "sam_vit_b_01ec64.pth", f"{_SAM}/sam_vit_b_01ec64.pth",
            "first masks from clicks: SAM, small; the one to use without a GPU", "Apache-2.0",
            375042383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        Checkpoint(
            "sam_vit_l", "sam_vit_l_0b3195.pth", f"{_SAM}/sam_vit_l_0b3195.pth",
            "first masks from clicks: SAM, medium", "Apache-2.0",
            None, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        Checkpoint(
            "sam_vit_h", "sam_vit_h_4b8939.pth", f"{_SAM}/sam_vit_h_4b8939.pth",
            "first masks from clicks: SAM, large; needs a GPU to be quick", "Apache-2.0",
            2564550879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        Checkpoint(
            "xmem_s012", "XMem-s012.pth", f"{_XMEM}/XMem-s012.pth",
            "masks through the video: XMem, as Track-Anything uses it", "MIT", structure="xmem",
        ),
        Checkpoint(
            "xmem", "XMem.pth", f"{_XMEM}/XMem.pth",
            "masks through the video: XMem, trained without BL30K", "MIT",
            249026057, md5="a0c894e24ca02440a3b7b8b4fa6983dc",
        ),
        Checkpoint(
            "e2fgvi_hq", "E2FGVI-HQ-CVPR22.pth", _E2FGVI,
            "what is behind an object that is taken out: E2FGVI-HQ, for tam inpaint --engine e2fgvi", "CC BY-NC 4.0",
            structure="e2fgvi", restriction="no commercial use without the permission of its authors",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that is what it should be. by: what that was seen by: sha256, md5 or structure, and the pin if any."""

    path: Path
    sha256: str
    by: tuple[str, ...]


def find_checkpoint(name: str) -> Checkpoint:
    """A checkpoint by its name or the name of its file. Raises BadInput if there is none."""
    for checkpoint in CHECKPOINTS.values():
        if name in (checkpoint.name, checkpoint.file):
            return checkpoint
    raise BadInput(f"there is no checkpoint {name!r}; known checkpoints: {', '.join(CHECKPOINTS)}")


def verify_file(checkpoint: Checkpoint, path: Path, check: Check, pin: Path | None = None) -> Verified:
    """See whether a file is this checkpoint. check: for its structure, called where no hash is known.

    Raises CheckpointError if the file is missing or not what it should be, with what was expected and what came.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; get it with: tam checkpoints download {checkpoint.name}")
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        raise CheckpointError(f"{path.name} has {size} bytes, the published file has {checkpoint.size}")
    sha256, md5 = _hashes(path)
    by = []
    for kind, expected, got in (("sha256", checkpoint.sha256, sha256), ("md5", checkpoint.md5, md5)):
        if expected and got != expected:
            raise CheckpointError(f"{path.name} has the {kind} {got}, the published file has {expected}")
        by += [kind] if expected else []
    if not by:
        check(path)
        by = ["structure"]
    if pin is not None and pin.is_file():
        pinned = _read_pin(pin)
        if sha256 != pinned:
            raise CheckpointError(f"{path.name} has the sha256 {sha256}, but {pin.name} says {pinned}")
        by.append("pin")
    return Verified(path, sha256, tuple(by))


def verify(checkpoint: Checkpoint, folder: Path, check: Check) -> Verified:
    """``verify_file`` for the file in the checkpoint folder and the pin beside it."""
    return verify_file(checkpoint, folder / checkpoint.file, check, folder / f"{checkpoint.file}.sha256")


def fetch(
    checkpoint: Checkpoint,
    folder: Path,
    check: Check,
    mirror: str = "",
    progress: Progress | None = None,
    patience: Patience = PATIENT,
    *,
    consent: bool = False,
) -> Verified:
    """The checkpoint in this folder: the file that is there, or else one downloaded from its publisher.

    mirror: base URL of a place that has the files under their own names, in place of the publisher. The usual
    environment variables name a proxy. A download that broke off goes on where it stopped, also in a later call.
    consent: somebody has accepted a licence that restricts use.

    Raises BadInput if that is needed. Raises CheckpointError if a file is there but wrong (it stays: it may be
    somebody's own), if there is no way to get it, or if what came is not the published file (then nothing of it stays).
    """
    path = folder / checkpoint.file
    pin = folder / f"{checkpoint.file}.sha256"
    if path.exists():
        try:
            return verify_file(checkpoint, path, check, pin)
        except CheckpointError as e:
            raise CheckpointError(f"{e}. Delete {path} to have it downloaded anew") from e
    if checkpoint.restriction and not consent:
        raise BadInput(
            f"{checkpoint.file} is licensed {checkpoint.licence}: {checkpoint.restriction}. If you accept that, say "
            "--accept-licence, or set TAM_ACCEPT_LICENCE=true"
        )
    url = f"{mirror.rstrip('/')}/{checkpoint.file}" if mirror else checkpoint.url
    verified = download(
        url, path, lambda part: verify_file(checkpoint, part, check, pin), checkpoint.size, progress, patience
    )
    return replace(verified, path=path)


def _hashes(path: Path) -> tuple[str, str]:
    """sha256 and md5 of a file in hex, in one pass."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


def _read_pin(pin: Path) -> str:
    match = re.match(r"\s*([0-9a-fA-F]{64})\b", pin.read_text(errors="replace"))
    if match is None:
        raise CheckpointError(f"{pin.name} does not begin with a sha256 of 64 hexadecimal digits")
    return match[1].lower()
