"""Several annotators at work on a server that is killed again and again, compared with an undisturbed one.

    python -m tests.server.crash [--kills 200] [--within 2.5] [--seed 0]

Every annotator clicks, draws by hand, clicks again on another frame, and waits for the masks of all frames after each
of these; meanwhile the server gets SIGKILL at random moments and is started again. After each kill its database must be
sound and hold every prompt that was answered and every frame that was finished; in the end all masks must be those of
the undisturbed run. Prints the figures; exit code 1 if anything was lost or differs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tam_backend.labelstudio.config import EXAMPLE
from tests.browser import scene
from tests.fakes import FakeLabelStudio
from tests.server.kills import Server
from tests.server.page import GONE, Page

Json = dict[str, Any]

#: Frames of each video, and of each of its tasks. People work in the first task of each; the others get predictions.
FRAMES, CLIP = 24, 12
#: Annotators: name, video, label, object of the scene. Two of them work in one task.
PEOPLE = (("ann", 0, "Object 1", "Disc"), ("ben", 0, "Object 2", "Square"), ("cleo", 1, "Object 1", "Square"))


@dataclass
class Outcome:
    """masks: of each annotator's page, frame -> region. predictions: by task. lost_frames, lost_prompts: in all.

    blobs_at_kill: what was stored at each kill. starts: seconds until the server was ready again.
    """

    masks: dict[str, dict[int, Json]] = field(default_factory=dict)
    predictions: dict[int, list[Json]] = field(default_factory=dict)
    kills: int = 0
    lost_frames: int = 0
    lost_prompts: int = 0
    seconds: float = 0.0
    blobs_at_kill: list[int] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)


class Office:
    """A server, a Label Studio, and the annotators' pages."""

    def __init__(self, root: Path, **environ: str) -> None:
        files = root / "files"
        files.mkdir(parents=True)
        self.label_studio = FakeLabelStudio(files)
        self.label_studio.label_config = EXAMPLE
        self.server = Server(root / "data", self.label_studio, CLIP, **environ)
        self.server.start()
        self.pages: list[Page] = []

    def open_tasks(self) -> None:
        """Upload a video for each, and open its task."""
        first: list[int] = []
        for video in sorted({p[1] for p in PEOPLE}):
            scene.write_video(self.label_studio.root / f"{video}.mp4")
            task = self.label_studio.add_task({"video": f"/data/upload/1/{video}.mp4"})
            first.append(task["id"])
            self.server.predict(task, [])
        size = (scene.WIDTH, scene.HEIGHT)
        for name, video, label, _ in PEOPLE:
            self.pages.append(Page(self.label_studio, name, first[video], label, size, EXAMPLE, self._post))

    def _post(self, body: Json) -> Json:
        answer = self.server.post("/predict", body)
        assert isinstance(answer, dict)
        return answer

    def work(self) -> None:
        """All annotators do their work, at the same time."""
        with ThreadPoolExecutor(len(self.pages)) as pool:
            for done in [pool.submit(self._one, *p) for p in zip(self.pages, PEOPLE, strict=True)]:
                done.result()

    def _one(self, page: Page, person: tuple[str, int, str, str]) -> None:
        _, _, _, thing = person
        page.click(3, *scene.centre(thing, 3))
        self._settle(page)
        page.click(8, *scene.centre(thing, 8))
        self._settle(page)
        mask = scene.true_mask(thing, 5)
        mask &= np.arange(scene.WIDTH) < scene.WIDTH * scene.centre(thing, 5)[0] / 100
        page.draw(5, mask)
        x, y = scene.centre(thing, 10)
        page.click(10, x + 3, y)
        self._settle(page)

    def _settle(self, page: Page) -> None:
        """Wait until every frame has its mask, and have them all on the page."""
        while any(j["task"] == page.task and j["state"] in ("waiting", "running") for j in self._jobs()):
            time.sleep(0.05)
        page.ask()

    def _jobs(self) -> list[Json]:
        while True:
            try:
                return self.server.jobs()
            except GONE:
                time.sleep(0.1)

    def finish(self) -> None:
        """Wait until all other tasks have their predictions, and nothing is on its way any more."""
        quiet = 0
        while quiet < 6:
            time.sleep(0.25)
            rest = [j for j in self._jobs() if j["state"] in ("waiting", "running") or j["error"]]
            rest += [j for j in self._jobs() if j["follows"] and j["state"] == "delivering"]
            missing = len(self.label_studio.predictions) < len(self.label_studio.tasks) - len({p[1] for p in PEOPLE})
            quiet = 0 if rest or missing else quiet + 1


class Killer(threading.Thread):
    """Kills the server at random moments, looks at what it left, and starts it again."""

    def __init__(self, office: Office, outcome: Outcome, limit: int, within: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._office, self._outcome, self._limit, self._within = office, outcome, limit, within
        self._chance = random.Random(seed)
        self._done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            stored: set[bytes] = set()
            while self._outcome.kills < self._limit:
                if self._done.wait(self._chance.uniform(0.0, self._within)):
                    return
                stored = self._kill(stored)
        except BaseException as e:
            self.error = e
            raise

    def _kill(self, stored: set[bytes]) -> set[bytes]:
        answered = [(p.task, p.label, p.answered) for p in self._office.pages]
        server = self._office.server
        server.end(signal.SIGKILL)
        now, prompts = server.blobs(), server.prompts()
        self._outcome.lost_frames += len(stored - now)
        self._outcome.lost_prompts += sum(
            not any((t, name) == (task, label) and ids <= known for t, name, known in prompts)
            for task, label, ids in answered
            if ids
        )
        self._outcome.kills += 1
        self._outcome.blobs_at_kill.append(len(now))
        started = time.monotonic()
        server.start()
        self._outcome.starts.append(time.monotonic() - started)
        return now

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self.error:
            raise self.error


def run(root: Path, kills: int = 0, within: float = 2.5, seed: int = 0) -> Outcome:
    """One run of the script. kills: at most so many, each up to ``within`` seconds after the server was ready."""
    outcome = Outcome()
    office = Office(root)
    try:
        office.open_tasks()
        started = time.monotonic()
        killer = Killer(office, outcome, kills, within, seed)
        killer.start()
        try:
            office.work()
        finally:
            killer.stop()
        office.finish()
        outcome.seconds = time.monotonic() - started
        for page in office.pages:
            page.ask()
        outcome.masks = {p.user: p.masks for p in office.pages}
        outcome.predictions = {p["task"]: p["result"] for p in office.label_studio.predictions.values()}
        log = office.server.log.read_text()
        assert "Traceback" not in log, log
        assert "damaged" not in log, log
        return outcome
    finally:
        office.server.end(signal.SIGTERM)
        office.label_studio.close()


def pixels(masks: dict[int, Json]) -> dict[int, object]:
    """What masks look like, by frame."""
    return {frame: (r["origin"], r["value"]) for frame, r in masks.items()}


def same(one: Outcome, other: Outcome) -> bool:
    """Whether all masks are equal, on the pages and in the predictions."""
    return {u: pixels(m) for u, m in one.masks.items()} == {u: pixels(m) for u, m in other.masks.items()} and (
        one.predictions == other.predictions
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--within", type=float, default=2.5, help="seconds of life at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm = run(Path(folder) / "calm")
        masks = sum(len(m) for m in calm.masks.values())
        print(
            f"undisturbed: {len(PEOPLE)} annotators, {masks} masks on their pages, "
            f"{len(calm.predictions)} predictions, {calm.seconds:.0f} s",
            flush=True,
        )
        total = Outcome()
        equal, rounds = True, 0
        while total.kills < args.kills:
            root = Path(folder) / f"round{rounds}"
            killed = run(root, args.kills - total.kills, args.within, args.seed + rounds)
            rounds += 1
            equal &= same(calm, killed)
            total.kills += killed.kills
            total.lost_frames += killed.lost_frames
            total.lost_prompts += killed.lost_prompts
            total.starts += killed.starts
            print(
                f"round {rounds}: {killed.kills} kills in {killed.seconds:.0f} s, equal: {same(calm, killed)}, stored "
                f"at the kills: {' '.join(map(str, killed.blobs_at_kill))}",
                flush=True,
            )
            shutil.rmtree(root)
    starts = sorted(total.starts)
    print(
        f"{total.kills} kills in {rounds} rounds: {total.lost_prompts} lost prompts, {total.lost_frames} lost finished "
        f"frames, 0 corrupt databases, final masks equal: {equal}; ready again after {starts[len(starts) // 2]:.1f} s "
        f"(median), {starts[-1]:.1f} s at most"
    )
    return 0 if equal and not total.lost_frames and not total.lost_prompts else 1


if __name__ == "__main__":
    sys.exit(main())
