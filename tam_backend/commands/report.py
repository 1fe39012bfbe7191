"""``tam report``: two runs of ``tam evaluate`` side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tam_backend.errors import BadInput, TamError
from tam_backend.evaluation.compare import compare, load_runs, write_pictures
from tam_backend.evaluation.report import show
from tam_backend.tracking.filestore import write_atomically

_EPILOG = """\
example:
  tam evaluate DAVIS --out embedded
  tam evaluate DAVIS --engine sam-xmem --out sam
  tam report embedded sam

what is written:
  comparison.md     all figures of both runs, and the sequences sorted by how much they differ
  pictures/         the frame of a sequence on which the masks differ most: A, B and the truth, from left to right
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report",
        help="compare two runs of tam evaluate",
        description="Compare two runs of tam evaluate that followed the same protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", type=Path, metavar="DIR_A", help="folder of the first run")
    parser.add_argument("second", type=Path, metavar="DIR_B", help="folder of the second run")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default: A-and-B here, of the names of the two)"
    )


def run(args: argparse.Namespace) -> int:
    """Compare and write. Raises TamError."""
    a, b = load_runs(args.first, args.second)
    out = args.out or Path(f"{args.first.resolve().name}-and-{args.second.resolve().name}")
    if out.resolve() in (args.first.resolve(), args.second.resolve()):
        raise BadInput(f"--out {out} is the folder of a run; choose another one")
    out.mkdir(parents=True, exist_ok=True)
    text = compare(a, b)
    try:
        shown = [
            f"- [{d.sequence}, frame {d.frame}](pictures/{path.name}): J&F {show('J&F', d.gain)} from A to B"
            for d, path in write_pictures(a, b, out / "pictures")
        ]
        if shown:
            text += "\nWhere the masks differ most (A, B and the truth, from left to right):\n\n"
            text += "\n".join(shown) + "\n"
    except (TamError, OSError) as e:  # the figures do not need the data set, the pictures do
        print(f"tam report: note: no pictures: {e}", file=sys.stderr)
    write_atomically(out / "comparison.md", text.encode())
    print(text, end="")
    print(f"\nwritten to {out}")
    return 0
