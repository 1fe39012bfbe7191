"""From nothing to an exported data set, as a team does it: commands, a real Label Studio, a real browser.

Used by the browser test with a made-up video, and by ``benchmarks/dataset.py`` with real ones.
"""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tam_backend.cli import main
from tam_backend.export.dataset import bounding_box
from tam_backend.export.formats import FORMATS, read_export
from tests.browser.editor import Editor

#: Formats that hold masks as they are.
EXACT = [name for name, f in FORMATS.items() if f.reader and name != "yolo-box"]

Json = dict[str, Any]
#: (video, label, frame of the original video) -> HxW bool
Masks = dict[tuple[str, str, int], np.ndarray]


@dataclass(frozen=True)
class Click:
    """A click on the middle of an object, in percent of the picture. frame: of the original video."""

    video: str
    frame: int
    label: str
    x: float
    y: float


@dataclass
class Team:
    """Label Studio, our backend, and a browser that is logged in. picture: takes a screenshot under a name."""

    url: str
    token: str
    backend: str
    editor: Editor
    get: Callable[..., Any]
    picture: Callable[[str], None] = lambda name: None

    def tam(self, *arguments: object) -> str:
        """Run a command against this Label Studio, and return what it printed."""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            ended = main([*map(str, arguments), "--url", self.url, "--token", self.token])
        assert ended == 0, f"$ tam {' '.join(map(str, arguments))}\n{out.getvalue()}"
        return out.getvalue()

    def tasks(self, project: int) -> list[Json]:
        answer = self.get("/api/tasks", project=project, fields="all", page_size=100)
        return sorted(answer["tasks"], key=lambda task: task["id"])

    def project(self, title: str) -> int:
        return next(int(p["id"]) for p in self.get("/api/projects", page_size=100)["results"] if p["title"] == title)

    def open(self, project: int, task: int) -> None:
        self.editor.call("openTask", project, task)
        self.editor.call("setSwitch", "auto-annotation", True)
        self.editor.call("setSwitch", "auto-accept", True)


def frames_of(task: Json) -> list[int]:
    """Frames of the original video that a task shows, by item_index."""
    cut = task["data"]["cut"]
    return [cut["first"] + i * cut["every"] for i in range(cut["count"])]


def name_of(task: Json) -> str:
    return Path(task["data"]["source"].partition("#")[0]).stem


def click_all(team: Team, project: int, clicks: Sequence[Click], *, through: bool = False) -> None:
    """Every click in the first task that shows its frame; then wait until the backend has nothing left to do.

    through: masks that are there do not catch the click (BrushLabels only).
    """
    tasks = team.tasks(project)
    at: dict[int, list[tuple[int, Click]]] = {}
    for click in clicks:
        task = next(t for t in tasks if name_of(t) == click.video and click.frame in frames_of(t))
        at.setdefault(task["id"], []).append((frames_of(task).index(click.frame), click))
    for task, here in at.items():
        team.open(project, task)
        for index, click in here:
            team.editor.call("goToFrame", index)
            how = {"through": through, "timeout": 300_000}
            answer = team.editor.call("smartClick", "point", click.label, click.x, click.y, how)
            assert answer["errors"] == [], answer
            assert index in answer["frames"], answer
        team.picture(f"clicked-{task}")
        deadline = time.monotonic() + 60
        wanted = {c.label for _, c in here}
        while not any(wanted <= _labels(d["result"]) for d in team.get(f"/api/tasks/{task}/drafts")):
            assert time.monotonic() < deadline, "the page saved no draft with all objects"
            time.sleep(0.3)
        team.editor.call("leave")
    deadline = time.monotonic() + 500
    while unfinished := [j for j in _jobs(team.backend) if j["project"] == project and j["state"] != "done"]:
        assert not [j for j in unfinished if j["state"] in ("failed", "stopped")], unfinished
        assert time.monotonic() < deadline, unfinished
        time.sleep(1)
    time.sleep(11)  # for so long a draft must have been left alone before it is completed at its opening


def accept_all(team: Team, project: int, erase: tuple[int, list[list[float]]] | None = None) -> Masks:
    """Open every task, submit what is there, and return the masks that were accepted.

    erase: (place of a task, points of a stroke in percent): there something is erased by hand on the last frame first.
    """
    accepted: Masks = {}
    for place, task in enumerate(team.tasks(project)):
        team.open(project, task["id"])
        numbers = frames_of(task)
        if erase and erase[0] == place:
            team.editor.call("goToFrame", len(numbers) - 1)
            team.editor.call("selectMask", *erase[1][0])
            team.editor.call("chooseTool", "eraser")
            team.editor.call("stroke", erase[1])
        team.picture(f"task-{place}")
        saved = team.editor.call("submit")
        kept = team.get(f"/api/annotations/{saved['id']}/")["result"]
        for region in kept:
            if region["type"] in ("brushlabels", "bitmasklabels"):
                mask = decode(region)
                key = name_of(task), region["value"][region["type"]][0], numbers[region["item_index"]]
                if mask.any() and (key not in accepted or _by_hand(region)):
                    accepted[key] = mask
    return accepted


def decode(region: Json) -> np.ndarray:
    """The mask of a region, by Label Studio's own decoder."""
    size = region["original_height"], region["original_width"]
    if region["type"] == "brushlabels":
        return np.asarray(decode_rle(region["value"]["rle"]).reshape(*size, 4)[..., 3] >= 128)
    data = base64.b64decode(region["value"]["imageDataURL"].split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3] >= 128


def exported(team: Team, project: int, name: str, out: Path) -> Masks:
    """Export in a format, and read it back."""
    team.tam("export", project, "--format", name, "--out", out, *(["--no-pictures"] if name != "overlay" else []))
    dataset = read_export(out) if FORMATS[name].reader else None
    if dataset is None:
        return {}
    labels = {t.id: t.label for t in dataset.tracks}
    return {
        (video.name, labels[track], masked.frame): mask
        for video in dataset.videos
        for masked in video.read()
        for track, mask in masked.masks.items()
    }


def judge(team: Team, project: int, accepted: Masks, out: Path) -> dict[str, int]:
    """Export in every format and compare with what was accepted: format -> number of masks that are equal.

    Raises AssertionError at the first that is not.
    """
    equal: dict[str, int] = {}
    for name in FORMATS:
        found = exported(team, project, name, out / name)
        if name in EXACT:
            assert found.keys() == accepted.keys(), (name, found.keys() ^ accepted.keys())
            assert all(np.array_equal(found[key], mask) for key, mask in accepted.items()), name
            equal[name] = len(found)
        elif name == "yolo-box":
            assert {k: bounding_box(m) for k, m in found.items()} == {k: bounding_box(m) for k, m in accepted.items()}
            equal[name] = len(found)
        else:
            equal[name] = sum(p.stat().st_size > 0 for p in (out / name).rglob("*") if p.is_file())
            assert equal[name]
    # Once more by programs that we did not write: pycocotools, and a picture library for the indexed PNGs.
    equal["coco, by pycocotools"] = _by_pycocotools(out / "coco", accepted)
    equal["davis, by Pillow"] = _by_pillow(out / "davis", accepted)
    return equal


def _by_pycocotools(root: Path, accepted: Masks) -> int:
    with redirect_stdout(io.StringIO()):
        data = COCO(str(root / "annotations" / "instances.json"))
    masks = [data.annToMask(a).astype(bool) for a in data.loadAnns(data.getAnnIds())]
    assert sorted(m.tobytes() for m in masks) == sorted(m.tobytes() for m in accepted.values())
    assert all(coco.area(data.annToRLE(a)) == a["area"] for a in data.loadAnns(data.getAnnIds()))
    return len(masks)


def _by_pillow(root: Path, accepted: Masks) -> int:
    count = 0
    for path in sorted((root / "Annotations").rglob("*.png")):
        ids = np.asarray(Image.open(path))
        here = {k: m for k, m in accepted.items() if k[0] == path.parent.name and k[2] == int(path.stem)}
        drawn = [ids == v for v in np.unique(ids) if v]
        assert sorted(m.tobytes() for m in drawn) == sorted(m.tobytes() for m in here.values()), path
        count += len(drawn)
    assert count == len(accepted)
    return count


def _labels(result: list[Json]) -> set[str]:
    kinds = ("brushlabels", "bitmasklabels")
    return {r["value"][r["type"]][0] for r in result if r["type"] in kinds}


def _by_hand(region: Json) -> bool:
    return region.get("origin") in ("manual", "prediction-changed")


def _jobs(backend: str) -> list[Json]:
    with urllib.request.urlopen(f"{backend}/status.json", timeout=30) as response:
        return list(json.load(response)["jobs"])
