"""Masks out of a real Label Studio: what changed is seen, the report, boxes on a video. (Every format:
``test_dataset.py``.)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tamdev.sample import wait_for_frames

from tam_backend.cli import main
from tam_backend.export.dataset import bounding_box
from tam_backend.export.formats import read_export
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.layouts import labeling_config
from tam_backend.labelstudio.regions import mask_region, quality_note
from tam_backend.video import open_video
from tests.browser.conftest import Servers
from tests.browser.editor import Editor, FilePage, VideoTask
from tests.browser.scene import FRAMES, HEIGHT, OBJECTS, WIDTH, true_mask

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: Clips of 13 frames: 0 to 12, and 12 to 23. They share frame 12.
CLIP = 13


def tam(servers: Servers, *arguments: object) -> None:
    given = [*map(str, arguments), "--url", servers.label_studio.url, "--token", servers.account.token, "--quiet"]
    assert main(given) == 0


@pytest.fixture(scope="module")
def annotated(servers: Servers, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A project with the scene in two clips, whose true masks were submitted as ours, accepted."""
    project = servers.label_studio.create_project(
        "Masks out", labeling_config(OBJECTS, "bitmask"), maximum_annotations=2
    )  # fmt: skip
    servers.label_studio.connect_backend(project, servers.backend)
    tam(servers, "import", project, scene, "--clip", CLIP, "--overlap", 1)
    wait_for_frames(servers.label_studio, project)
    [control] = parse_label_config(labeling_config(OBJECTS, "bitmask")).masks
    for task in servers.label_studio.tasks(project):
        first = task["data"]["cut"]["first"]
        regions = []
        for index in range(len(task["data"]["frames"])):
            for name in OBJECTS:
                note = quality_note("embedded", first + index, 0.9, "4")
                mask = true_mask(name, first + index)
                regions.append(mask_region(control, name, index, mask, 0.9, note))
        servers.label_studio.post(f"/api/tasks/{task['id']}/annotations/", {"result": regions, "lead_time": 60.0})
    return project


def test_what_a_person_changed_later_is_exported(
    annotated: int, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio says that the task changed, so that what was fetched before is not taken."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    task = servers.label_studio.tasks(annotated)[0]
    before = task["updated_at"]
    [annotation] = servers.label_studio.get(f"/api/tasks/{task['id']}/annotations/")
    kept = [r for r in annotation["result"] if r.get("item_index") != 3]
    servers.label_studio.patch(f"/api/annotations/{annotation['id']}/", {"result": kept})
    try:
        assert servers.label_studio.tasks(annotated)[0]["updated_at"] > before
        tam(servers, "export", annotated, "--format", "coco", "--out", tmp_path / "out", "--no-pictures")
        [video] = read_export(tmp_path / "out").videos
        assert [m.frame for m in video.read() if not m.masks] == [3]
    finally:
        servers.label_studio.patch(f"/api/annotations/{annotation['id']}/", {"result": annotation["result"]})


def test_the_report_opens_offline_and_its_links_open_tasks(
    annotated: int, servers: Servers, editor: Editor, screenshots: Path, tmp_path: Path
) -> None:
    task = servers.label_studio.tasks(annotated)[0]["id"]
    [annotation] = servers.label_studio.get(f"/api/tasks/{task}/annotations/")
    poor = [json.loads(json.dumps(r)) for r in annotation["result"]]
    for region in poor:  # another annotator's work, and the quality of a hard stretch
        if region.get("item_index", 0) > 7 and "quality" in region.get("meta", {}):
            region["meta"]["quality"] = 0.5
    second = servers.label_studio.post(f"/api/tasks/{task}/annotations/", {"result": poor[:-6], "lead_time": 95.0})
    try:
        out = tmp_path / "report.html"
        tam(servers, "review", annotated, "--out", out)
        with FilePage(out.as_uri(), [out.as_uri()]) as page:
            page.call("open")
            text = page.call("text")
            assert "Fix next" in text
            assert "Counted by the backend whenever somebody submitted." in text
            assert re.search(r"embedded 4\s+\d+\s+0\s+0", text)
            assert page.call("charts") >= 4
            link = page.call("links")[0]
            assert page.call("traffic") == {"requests": [out.as_uri()], "problems": []}
            for width in (1100, 420):
                assert not page.call("overflows", width)
                page.call("screenshot", str(screenshots / f"report-{width}.png"))
        assert link == f"{servers.label_studio.url}/projects/{annotated}/data?task={task}"
        editor.call("openTask", annotated, int(link.rpartition("=")[2]))
        assert editor.call("frameCount") == CLIP
    finally:
        servers.label_studio._call("DELETE", f"/api/annotations/{second['id']}/")


def test_videos_play_and_objects_are_taken_out_of_them(
    annotated: int, servers: Servers, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, by the backend, and by a file that Label Studio exported: the same video, and browsers play it."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    task = servers.label_studio.tasks(annotated)[0]["id"]
    take_out = ("--object", "Disc", "--dilate", 3, "--out")
    tam(servers, "render", annotated, "--out", tmp_path)
    tam(servers, "inpaint", "--task", task, *take_out, tmp_path / "here.mp4")
    tam(servers, "inpaint", "--task", task, "--backend", servers.backend, *take_out, tmp_path / "there.mp4")
    exported = servers.label_studio.get(f"/api/projects/{annotated}/export", exportType="JSON")
    (tmp_path / "export.json").write_text(json.dumps(exported))
    tam(servers, "inpaint", scene, tmp_path / "export.json", "--end", CLIP - 1, *take_out, tmp_path / "by-file.mp4")
    before = open_video(scene)
    videos = [open_video(tmp_path / f"{name}.mp4") for name in ("here", "there", "by-file")]
    for frame in range(CLIP):
        pictures = [video[frame] for video in videos]
        assert all(np.array_equal(pictures[0], other) for other in pictures[1:]), frame
        square, disc = true_mask("Square", frame), true_mask("Disc", frame)
        change = np.abs(pictures[0].astype(int) - before[frame]).mean(2)
        assert change[disc].mean() > 4 * change[square].mean(), frame
    (tmp_path / "player.html").write_text("<!doctype html><title>player</title>")
    with FilePage((tmp_path / "player.html").as_uri(), [(tmp_path / "player.html").as_uri()]) as page:
        page.call("open")
        for name, frames in ((scene.stem, FRAMES), ("here", CLIP), ("there", CLIP)):
            seen = page.call("playVideo", (tmp_path / f"{name}.mp4").as_uri())
            assert seen["width"] == WIDTH, name
            assert seen["height"] >= HEIGHT, name
            assert abs(seen["seconds"] - frames / before.fps) < 0.2, name
            assert seen["played"] > 0.9 * seen["seconds"], name
        assert page.call("traffic")["problems"] == []


def test_boxes_are_shown_on_a_video(
    annotated: int, servers: Servers, screenshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    tam(servers, "export", annotated, "--format", "video-rectangle", "--out", tmp_path / "boxes")
    config = (tmp_path / "boxes" / "label_config.xml").read_text()
    project = servers.label_studio.create_project("Boxes out", config, model_version="tam export")
    tasks: list[dict[str, Any]] = json.loads((tmp_path / "boxes" / "tasks.json").read_text())
    servers.label_studio.post(f"/api/projects/{project}/import", tasks)
    [task] = servers.label_studio.tasks(project)
    keyframes = [r["value"]["sequence"] for r in tasks[0]["predictions"][0]["result"]]
    with VideoTask(servers.label_studio.url, [servers.backend]) as page:
        page.call("login", servers.account.username, servers.account.password)
        page.call("open", project, task["id"])
        shown = page.call("boxes", FRAMES)
        page.call("goToFrame", 13)
        page.call("screenshot", str(screenshots / "boxes.png"))
    assert set(shown) == set(OBJECTS)
    for name in OBJECTS:
        for frame, box in enumerate(shown[name]):
            x, y, width, height = np.array(box) / 100 * (WIDTH, HEIGHT, WIDTH, HEIGHT)
            found = np.array([x, y, x + width, y + height])
            assert np.abs(found - bounding_box(true_mask(name, frame))).max() <= 1 + 1e-6, (name, frame)
    assert all(len(sequence) < FRAMES / 2 for sequence in keyframes), "steady ways need few keyframes"
