"""``tam doctor``: what is here, what works, and what to do about what does not."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tam_backend import __version__
from tam_backend.errors import BadInput
from tam_backend.settings import Settings

_EPILOG = """\
It looks at the same environment variables as `tam serve`, and changes and downloads nothing. The self-check of sam-xmem
takes up to half a minute without a GPU.

Exit codes: 0 nothing is wrong (notes may be there), 1 there is a problem.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="see what is installed and whether it works",
        description="See what is installed, which device, checkpoints and engine are used, whether Label Studio can be "
        "reached, how much room there is, and whether each engine tracks ten frames.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="findings as JSON, for programs")
    parser.add_argument("--quick", action="store_true", help="without the self-check of the engines")


def run(args: argparse.Namespace) -> int:
    """Print findings as they come. Returns 0, or 1 if there is a problem."""
    from tam_backend.commands.doctor_checks import Finding, Level

    found: list[Finding] = []
    with _quiet():
        for finding in _examine(quick=args.quick):
            found.append(finding)
            if not args.json:
                mark = "" if finding.level is Level.OK else finding.level.upper()
                print(f"{mark:8}{finding.topic}: {finding.text}", flush=True)
                if finding.advice:
                    print(f"        -> {finding.advice}", flush=True)
    problems = sum(f.level is Level.PROBLEM for f in found)
    if args.json:
        facts = [{"level": f.level, "topic": f.topic, "text": f.text, "advice": f.advice} for f in found]
        print(json.dumps({"ok": not problems, "version": __version__, "findings": facts}, indent=1))
    else:
        print(f"{problems} problem{'s' * (problems != 1)}" if problems else "All is well.")
    return 1 if problems else 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings in the log: the findings say it."""
    log = logging.getLogger("tam_backend")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _examine(*, quick: bool) -> Iterator[Any]:
    """All findings, one after the other."""
    from tam_backend.commands import doctor_checks as checks

    yield from _guarded("programs", checks.programs)
    try:
        settings = Settings.from_env(os.environ)
    except BadInput as e:
        yield checks.problem("settings", str(e), "put it right, then look again: the rest depends on it")
        return
    names = ["device", "checkpoints", "label_studio", "room"] + ([] if quick else ["engines"])
    for name in names:
        check: Callable[[Settings], Iterable[Any]] = getattr(checks, name)
        yield from _guarded(name, lambda check=check: check(settings))  # type: ignore[misc]


def _guarded(name: str, check: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """A check that fails in a way nobody thought of is a finding, too."""
    from tam_backend.commands.doctor_checks import problem

    try:
        yield from check()
    except Exception as e:
        yield problem(name, f"looking at it failed: {type(e).__name__}: {e}", "please report this")
