"""``tam checkpoints``: the published weights of SAM, XMem and E2FGVI-HQ."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tam_backend.checkpoints import CHECKPOINTS, Checkpoint, Verified, fetch, find_checkpoint, verify
from tam_backend.sam_xmem import structure_check
from tam_backend.settings import Settings
from tam_backend.weights import CheckpointError

_EPILOG = """\
examples:
  tam checkpoints list
  tam checkpoints download sam_vit_b xmem_s012
      What the sam-xmem engine needs on a machine without a GPU: 375 MB and 249 MB.
  tam checkpoints verify
      Look at every file that is there. For a site without access to the internet: put the files into the folder
      under their own names and verify them.

No hash of XMem-s012.pth is published or known: it is judged by its structure, and its sha256 is printed. To accept that
very file only, from then on:
  cd checkpoints && sha256sum XMem-s012.pth > XMem-s012.pth.sha256

TAM_CHECKPOINT_DIR: the folder (default: checkpoints). TAM_CHECKPOINT_URL: a mirror to download from. HTTPS_PROXY: a
proxy. Exit codes: 0 all is well, 1 a file is missing, wrong or cannot be had, 2 there is no checkpoint of that name.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "checkpoints",
        help="list, download and verify the published weights of SAM, XMem and E2FGVI-HQ",
        description="The published weights of SAM, XMem and E2FGVI-HQ: list them, download them, verify them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    actions.add_parser("list", help="show the known checkpoints and which are here")
    download = actions.add_parser("download", help="download checkpoints; a broken download goes on where it stopped")
    download.add_argument("name", nargs="+", help="name or file of a checkpoint, as `list` shows them")
    download.add_argument(
        "--accept-licence", action="store_true",
        help="download also what is licensed for some uses only (e2fgvi_hq: CC BY-NC 4.0, no commercial use)",
    )  # fmt: skip
    verifying = actions.add_parser("verify", help="see whether files are the published ones")
    verifying.add_argument("name", nargs="*", help="name or file of a checkpoint (default: all that are here)")


def run(args: argparse.Namespace) -> int:
    """Raises BadInput for an unknown name and CheckpointError for a checkpoint that cannot be had."""
    settings = Settings.from_env(os.environ)
    folder = settings.checkpoint_dir
    if args.action == "list":
        return _list(folder)
    wanted = [find_checkpoint(name) for name in args.name]
    if args.action == "download":
        return _download(wanted, folder, settings.checkpoint_url, args.accept_licence or settings.accept_licence)
    return _verify(wanted, folder)


def _list(folder: Path) -> int:
    print(f"folder: {folder.absolute()}")
    for checkpoint in CHECKPOINTS.values():
        path = folder / checkpoint.file
        here = f"here, {_megabytes(path.stat().st_size)}" if path.is_file() else "not here"
        size = _megabytes(checkpoint.size) if checkpoint.size else "size not known"
        kind = "sha256" if checkpoint.sha256 else "md5" if checkpoint.md5 else ""
        known = f"{kind}, known from third parties" if kind else "structure; no hash is known"
        print(f"\n{checkpoint.name}: {here}\n  {checkpoint.purpose}\n  {checkpoint.file}, {size}, {checkpoint.licence}")
        if checkpoint.restriction:
            print(f"  {checkpoint.restriction}: downloaded with --accept-licence only")
        print(f"  {checkpoint.url}\n  verified by: {known}")
    return 0


def _download(wanted: list[Checkpoint], folder: Path, mirror: str, consent: bool) -> int:
    from tqdm import tqdm

    for checkpoint in wanted:
        with tqdm(desc=checkpoint.file, unit="B", unit_scale=True, disable=None, file=sys.stderr) as bar:

            def show(here: int, total: int | None, bar: Any = bar) -> None:
                bar.total = total
                bar.update(here - bar.n)

            verified = fetch(checkpoint, folder, structure_check(checkpoint), mirror, show, consent=consent)
        _print_verified(checkpoint, verified)
    return 0


def _verify(wanted: list[Checkpoint], folder: Path) -> int:
    code = 0
    wanted = wanted or [c for c in CHECKPOINTS.values() if (folder / c.file).exists()]
    if not wanted:
        print(f"there are no checkpoints in {folder.absolute()}")
    for checkpoint in wanted:
        try:
            _print_verified(checkpoint, verify(checkpoint, folder, structure_check(checkpoint)))
        except CheckpointError as e:
            print(f"{checkpoint.name}: WRONG. {e}")
            code = 1
    return code


def _print_verified(checkpoint: Checkpoint, verified: Verified) -> None:
    print(f"{checkpoint.name}: good, by {' and '.join(verified.by)}\n  {verified.path}\n  sha256 {verified.sha256}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
