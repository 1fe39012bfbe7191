"""One click, then away. Later everything is there: in the person's own task, and in the video's other ones."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tamdev.processes import free_port
from tamdev.servers import start_backend

from tests.browser.conftest import Servers
from tests.browser.editor import Editor
from tests.browser.scene import FRAMES, centre, true_mask
from tests.browser.test_annotate import CONFIG, decode, iou, masks, open_with_switches, points

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CLIP = 8
LABELS = '<Label value="Disc" background="red"/><Label value="Square" background="blue"/>'


def jobs(backend: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{backend}/status.json", timeout=10) as response:
        return list(json.load(response)["jobs"])


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
def test_come_back_later(
    tag: str, servers: Servers, open_editor: Callable[[str], Editor], screenshots: Path, scene: Path, tmp_path: Path
) -> None:
    port = free_port()
    backend = f"http://127.0.0.1:{port}"
    # an answer carries a frame or two: the rest has to come by itself
    options = {"TAM_CLIP_LENGTH": str(CLIP), "TAM_ANSWER_SECONDS": "0.1"}
    label_studio = servers.label_studio
    log = tmp_path / "backend.log"
    with start_backend(tmp_path / "data", port, label_studio, servers.account, log, options) as program:
        project = label_studio.create_project(f"Come back {tag}", CONFIG.format(tag=tag, labels=LABELS))
        label_studio.connect_backend(project, backend)
        label_studio.upload(project, scene)
        deadline = time.monotonic() + 60
        while len(tasks := label_studio.tasks(project)) < FRAMES // CLIP or not all(
            t["data"].get("frames") for t in tasks
        ):
            assert time.monotonic() < deadline, program.last_lines()
            time.sleep(0.3)
        middle = tasks[1]["id"]
        editor = open_editor(backend)
        open_with_switches(editor, project, middle)
        editor.call("goToFrame", 2)
        answer = editor.call("smartClick", "point", "Disc", *centre("Disc", CLIP + 2))
        assert answer["errors"] == []
        assert 0 < len(answer["frames"]) < CLIP
        while not label_studio.get(f"/api/tasks/{middle}/drafts"):
            assert time.monotonic() < deadline + 20, "the page saved no draft"
            time.sleep(0.3)
        editor.call("leave")

        deadline = time.monotonic() + 90
        while not [j for j in jobs(backend) if j["follows"] and j["state"] == "done"]:
            assert time.monotonic() < deadline, program.last_lines()
            time.sleep(0.5)
        time.sleep(11)  # for so long a draft must have been left alone

        for number, task in enumerate(tasks):
            open_with_switches(editor, project, task["id"])
            result = editor.call("serialize")
            editor.call("screenshot", str(screenshots / f"task-{number}.png"))
            found = masks(result)
            assert sorted(found) == [("Disc", i) for i in range(CLIP)], f"task {number}"
            quality = [iou(decode(found["Disc", i]), true_mask("Disc", number * CLIP + i)) for i in range(CLIP)]
            assert min(quality) > 0.5, quality
            assert points(result) == ([("Disc", 2)] if number == 1 else [])
        # the last one was begun with its prediction: it can be submitted as it is
        submitted = editor.call("submit")["result"]
        assert sorted(masks(submitted)) == [("Disc", i) for i in range(CLIP)]
        assert [len(label_studio.get("/api/predictions/", task=t["id"])) for t in tasks] == [1, 0, 1]
