"""Many annotators on one server for some minutes: errors, mix-ups, lost prompts, how long clicks take, memory.

    python benchmarks/load.py [--annotators 32] [--minutes 10] [--memory-mb 1500]

Real HTTP against ``tam serve`` with the embedded engine, with requests as they were captured from Label Studio 1.23.2,
and a stand-in for Label Studio that keeps tasks and drafts. Every annotator opens a task, fetches frames, clicks
on an object every 20 to 30 s, on another frame each time, and goes on to another task after eight clicks. A third of
them work in pairs on one task. Each answer is checked: the point must come back, the masks must be of this label, and
the one on the clicked frame must be where the object is in this task's video.

Exit code 1 if anything went wrong. Drafts are saved just before a click: what an answer waits for Label Studio's page
to save its draft (up to 6 s, see docs/how-it-works.md) is not in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.made_video import square, write_made_video
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.masks import decode_brush_rle
from tests.fakes import FakeLabelStudio
from tests.labelstudio.payloads import request_body
from tests.server.kills import Server
from tests.server.page import Page

Json = dict[str, Any]

HEIGHT, WIDTH, FRAMES = 480, 854, 100
#: Videos of different content: where the square begins.
LEFTS = (0.15, 0.3, 0.45, 0.55)
CLICKS_A_TASK = 8
#: Seconds between two clicks of a person.
PAUSE = (20.0, 30.0)
LABEL = "Object 1"


@dataclass
class Found:
    """What was seen. clicks, opens, frames, health: seconds each took. rss: MB."""

    clicks: list[float] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    opens: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    busy: int = 0
    errors: list[str] = field(default_factory=list)
    mixups: list[str] = field(default_factory=list)
    prompts: list[tuple[int, frozenset[str]]] = field(default_factory=list)


class Load:
    """A server, a Label Studio, and people."""

    def __init__(self, root: Path, people: int, environ: dict[str, str]) -> None:
        files = root / "files"
        files.mkdir()
        for i, left in enumerate(LEFTS):
            write_made_video(files / f"{i}.mp4", FRAMES, HEIGHT, WIDTH, seed=i, left=left)
        self.label_studio = FakeLabelStudio(files)
        self.label_studio.label_config = EXAMPLE
        self.server = Server(root / "data", self.label_studio, FRAMES, **{"TAM_ANSWER_SECONDS": "20"} | environ)
        self.server.start()
        self.people = people
        self.found = Found()
        self.over = threading.Event()
        self._captured = request_body("07_predict_interactive_with_draft")
        self._lock = threading.Lock()
        self._tasks: dict[tuple[int, int], Json] = {}

    def run(self, seconds: float) -> None:
        watch = [threading.Thread(target=w) for w in (self._watch_health, self._watch_memory)]
        people = [threading.Thread(target=self._annotate, args=(n, seconds)) for n in range(self.people)]
        for thread in (*watch, *people):
            thread.start()
        for thread in people:
            thread.join()
        self.over.set()
        for thread in watch:
            thread.join()
        self.cpu_seconds = self._cpu_seconds()
        stored = self.server.prompts()
        self.lost = [(t, ids) for t, ids in self.found.prompts if not any(t == s and ids <= p for s, _, p in stored)]

    def _cpu_seconds(self) -> float:
        """Of the server, all its cores together."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _watch_health(self) -> None:
        while not self.over.wait(0.5):
            try:
                started = time.monotonic()
                urllib.request.urlopen(f"{self.server.url}/health", timeout=10).close()
                self.found.health.append(time.monotonic() - started)
            except OSError as e:
                self.found.errors.append(f"/health: {e}")

    def _watch_memory(self) -> None:
        while not self.over.wait(1.0):
            status = Path(f"/proc/{self.server.pid}/status").read_text()
            self.found.rss.append(int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6)

    def _annotate(self, number: int, seconds: float) -> None:
        chance = random.Random(number)
        ends = time.monotonic() + seconds
        third = self.people // 3
        group = number // 2 if number < third else number  # pairs share their tasks
        due = time.monotonic() + chance.uniform(0, PAUSE[1])
        at = 0
        while True:
            video = (group + at) % len(LEFTS)
            page = self._open(number, (group, at), video)
            for _ in range(CLICKS_A_TASK):
                if due > ends:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                self._click(page, video, chance)
                due = time.monotonic() + chance.uniform(*PAUSE)
            at += 1

    def _open(self, number: int, key: tuple[int, int], video: int) -> Page:
        with self._lock:  # one opening of a shared task makes it
            task = self._tasks.get(key)
            if task is None:
                name = f"{video}.mp4?of={key[0]}-{key[1]}"
                task = self._tasks[key] = self.label_studio.add_task({"video": f"/data/upload/1/{name}"})
        started = time.monotonic()
        for _ in range(2):  # Label Studio asks twice
            self.server.predict(task, [])
        while "frames" not in task["data"]:
            time.sleep(0.2)
        self.found.opens.append(time.monotonic() - started)
        return Page(
            self.label_studio,
            f"person{number}",
            task["id"],
            LABEL,
            (WIDTH, HEIGHT),
            EXAMPLE,
            self._post,
            self._captured,
        )

    def _post(self, body: Json) -> Json:
        content = json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.server.url}/predict", content, {"Content-Type": "application/json", "User-Agent": "heartex/1.23.2"}
        )
        started = time.monotonic()
        with urllib.request.urlopen(request, timeout=100) as response:
            answer = response.read()
        self.found.clicks.append(time.monotonic() - started)
        return dict(json.loads(answer))

    def _click(self, page: Page, video: int, chance: random.Random) -> None:
        frame = chance.randrange(FRAMES)
        x, y, side = square(frame, HEIGHT, WIDTH, LEFTS[video])
        px, py = (edge + side * chance.uniform(0.35, 0.65) for edge in (x, y))
        try:
            for url in self.label_studio.tasks[page.task]["data"]["frames"][frame : frame + 3]:
                started = time.monotonic()
                urllib.request.urlopen(url, timeout=30).read()
                self.found.frames.append(time.monotonic() - started)
            answer = page.click(frame, 100 * px / WIDTH, 100 * py / HEIGHT)
        except Exception as e:
            self.found.errors.append(f"{page.user}, task {page.task}: {type(e).__name__}: {e}")
            return
        self.found.prompts.append((page.task, page.answered))
        masks = [r for r in answer["result"] if r["type"] == "brushlabels"]
        self.found.masks.append(len(masks))
        if "busy" in answer:
            self.found.busy += 1
            return
        truth = np.zeros((HEIGHT, WIDTH), bool)
        truth[y : y + side, x : x + side] = True
        here = [r for r in masks if r["item_index"] == frame]
        if any(r["meta"]["object"] != LABEL for r in masks) or len(here) != 1:
            self.found.mixups.append(f"{page.user}, task {page.task}: {len(here)} masks on the clicked frame")
            return
        mask = decode_brush_rle(here[0]["value"]["rle"], (HEIGHT, WIDTH))
        iou = (mask & truth).sum() / (mask | truth).sum()
        if not mask[int(py), int(px)] or iou < 0.5:
            self.found.mixups.append(f"{page.user}, task {page.task}: the mask on frame {frame} has IoU {iou:.2f}")

    def close(self) -> None:
        self.server.end(signal.SIGTERM)
        self.label_studio.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--memory-mb", type=int, default=1500, help="TAM_MEMORY_MB of the server")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = Load(Path(folder), args.annotators, {"TAM_MEMORY_MB": str(args.memory_mb)})
        try:
            load.run(60 * args.minutes)
            log = load.server.log.read_text()
        finally:
            load.close()
    found = load.found
    tracebacks = log.count("Traceback")
    print(
        f"{args.annotators} annotators, {args.minutes:g} minutes, {len(found.clicks)} clicks; the server had "
        f"{load.cpu_seconds:.0f} s of CPU"
    )
    print(f"errors {len(found.errors)}, tracebacks in the log {tracebacks}, answers of 'busy' {found.busy}")
    print(f"mixed-up tasks {len(found.mixups)}, lost prompts {len(load.lost)} of {len(found.prompts)}")
    for line in (*found.errors[:5], *found.mixups[:5], *map(str, load.lost[:5])):
        print("  ", line)
    for name, seconds in (
        ("click", found.clicks), ("task opened (two requests)", found.opens), ("frame", found.frames),
        ("/health", found.health),
    ):  # fmt: skip
        p50, p95, p99, worst = (1000 * float(q) for q in np.percentile(seconds, (50, 95, 99, 100)))
        print(f"{name}: p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f}, longest {worst:.0f}")
    print(f"masks in an answer: median {np.median(found.masks):.0f}, at least {min(found.masks)}")
    print(f"RSS: {found.rss[0]:.0f} MB at first, {max(found.rss):.0f} MB at most, limit {args.memory_mb} MB")
    right = not (found.errors or found.mixups or load.lost or tracebacks) and max(found.rss) < args.memory_mb
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
