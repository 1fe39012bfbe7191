"""What `tam batch` costs the annotators of a server whose workers are on the same cores: seconds of a frame of theirs.

    python -m benchmarks.sharing [--rounds 2] [--frames 40]

On a Ray of this machine alone, with a worker of the server and one of a batch on every core: a click's frames alone,
beside a batch as it is, and beside one that takes its turn as everybody (which root may have it do). Linux.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.batch import make_video
from tam_backend.cluster.on_ray import RayWorkers, session_workers
from tam_backend.cluster.sessions import Elsewhere
from tam_backend.commands.batch_manifest import Item
from tam_backend.commands.batch_work import start_worker
from tam_backend.commands.track_prompts import parse_click
from tam_backend.engines import load_engine
from tam_backend.prompts import Click, FramePrompts
from tam_backend.settings import Settings
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor
from tam_backend.video import open_video

#: Enough that a batch does not end before the measurement: frames of a video, and videos for each worker.
BATCH_FRAMES, BATCH_VIDEOS = 160, 4
#: Seconds within which Ray ends the workers of a batch that is gone.
_ENDING = 3.0
_ALONE, _BESIDE, _USUAL = "alone", "beside a batch", "beside one that does not let others go first"


def start(out: str, usual: bool) -> Callable[[Item], Iterator[Any]]:
    """A batch's worker. usual: one that does not let others go first."""
    if usual:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return start_worker(Settings(), "embedded", out)


def batch(address: str, video: str, out: str, usual: bool) -> None:
    """Work until somebody ends this process; says when all workers are at it."""
    workers = RayWorkers(functools.partial(start, out, usual), address)
    clicks = (parse_click("0,80,140"),)
    items = deque(
        Item(f"v{i}", video, clicks, (), (), 0, None, False, {}) for i in range(BATCH_VIDEOS * workers.workers)
    )
    at_work: set[int] = set()
    for event in workers.run(items):
        if event.kind == "message" and event.worker not in at_work:
            at_work.add(event.worker)
            if len(at_work) == workers.workers:
                print("all at work", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--batch", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        address, video, out, way = args.batch
        batch(address, video, out, way == _USUAL)
        return
    engine = load_engine("embedded", Settings())
    workers, count = session_workers(Settings(cluster="local"), engine)
    import ray

    address = ray.get_runtime_context().gcs_address
    executor = Elsewhere(engine, workers)
    seconds: dict[str, list[float]] = {way: [] for way in (_ALONE, _BESIDE, _USUAL)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_video(folder / "click.mp4", args.frames, 1)
        make_video(folder / "batch.mp4", BATCH_FRAMES, 2)

        def measure() -> float:
            """Median seconds from one frame to the next."""
            with (
                open_video(folder / "click.mp4") as video,
                executor.tracker(video, range(args.frames), MemoryStore(10**8), range(args.frames)) as tracker,
            ):
                at = [time.monotonic() for _ in tracker.track({0: Anchor(FramePrompts((Click(80, 140),)))}, 0)]
            return statistics.median(b - a for a, b in itertools.pairwise(at))

        measure()
        for i in range(args.rounds):
            for way in seconds:
                if way == _ALONE:
                    seconds[way].append(measure())
                    continue
                command = [sys.executable, "-m", "benchmarks.sharing", "--batch", address]
                command += [str(folder / "batch.mp4"), str(folder / f"out-{i}-{len(way)}"), way]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    assert process.stdout is not None
                    assert process.stdout.readline() == "all at work\n"
                    seconds[way].append(measure())
                    assert process.poll() is None, "the batch ended too soon"
                    process.terminate()
                time.sleep(_ENDING)
    executor.close()
    alone = statistics.median(seconds[_ALONE])
    print(f"{count} workers of the server, as many of the batch, {os.cpu_count()} cores")
    for way, found in seconds.items():
        shown = ", ".join(f"{1000 * s:.0f}" for s in found)
        print(f"{way}: {shown} ms a frame; {statistics.median(found) / alone:.2f} times alone")


if __name__ == "__main__":
    main()
