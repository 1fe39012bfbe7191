"""``tam inpaint --task ID --backend URL``: the work is done by a running backend, and the result fetched from there."""

from __future__ import annotations

import argparse
import sys
import time

from tam_backend.commands.backend import Away, Backend, Json, Patient
from tam_backend.commands.track_progress import Interruption, progress
from tam_backend.errors import BadInput, TamError
from tam_backend.inpainting.objects import Summary

#: Seconds between two looks at how far it is.
LOOK_EVERY = 1.0


def run(args: argparse.Namespace) -> int:
    """Ask, wait, fetch. Returns 0, or 130 if Ctrl-C stopped the waiting. Raises TamError."""
    _check_options(args)
    backend = Backend(args.backend)
    asked = {
        "task": args.task, "objects": args.object or None, "start": args.start, "end": args.end,
        "dilate": args.dilate, "engine": args.engine, "keep_audio": args.keep_audio,
    }  # fmt: skip
    if args.dry_run:
        backend.ask("GET", "/health")
        print(f"the backend at {backend.shown} answers; it would be asked to fill task {args.task}, for {args.out}")
        print("nothing is asked for: this was a dry run")
        return 0
    call = Patient(args.wait)
    try:
        with Interruption() as interruption:
            begun = call(backend.ask, "POST", "/removals", asked)
            removal = _wait(backend, begun, interruption, call, quiet=args.quiet)
            if removal is None:
                print(
                    f"tam inpaint: the backend goes on; the same command waits for it again ({backend.shown}/status)",
                    file=sys.stderr,
                )
                return 130
            call(backend.fetch, f"/removals/{removal['id']}/video.mp4", args.out)
    except Away as e:
        raise TamError(f"{e}. It goes on there when it is back: the same command goes on from here") from e
    print(_report(args, removal))
    call(backend.ask, "DELETE", f"/removals/{removal['id']}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if args.task is None or args.video is not None:
        raise BadInput(
            "--backend goes with --task ID alone: the backend has the video and asks Label Studio for the masks"
        )
    if args.out.suffix.lower() != ".mp4":
        raise BadInput(f"--out {args.out}: with --backend a video comes back; name it .mp4")
    if args.compare:
        raise BadInput("--compare cannot go with --backend")


def _wait(backend: Backend, removal: Json, interruption: Interruption, call: Patient, *, quiet: bool) -> Json | None:
    """Until it is done; None if Ctrl-C came first. Raises TamError if it failed."""
    with progress(None, None, "the backend fills", unit="step", quiet=quiet) as bar:
        while removal["state"] != "done":
            if removal["state"] not in ("waiting", "running"):
                raise TamError(f"the backend could not do it: {removal['error']}")
            if interruption.requested:
                return None
            bar.total = removal["total"] or None
            bar.update(removal["steps"] - bar.n)
            time.sleep(LOOK_EVERY)
            removal = call(backend.ask, "GET", f"/removals/{removal['id']}")
    return removal


def _report(args: argparse.Namespace, removal: Json) -> str:
    report = dict(removal["report"])
    terms = report.pop("terms")
    summary = Summary(**report)
    text = f"{summary.frames} frames in {args.out}: holes on {summary.with_hole} of them{summary.sentences()}"
    return f"{text}\n{terms}" if terms else text
