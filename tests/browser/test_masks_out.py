"""From what was accepted in a real Label Studio to data sets, videos and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tamdev.sample import wait_for_frames

from tam_backend.cli import main
from tam_backend.export.dataset import bounding_box
from tam_backend.export.formats import FORMATS, read_export
from tam_backend.labelstudio.layouts import labeling_config
from tam_backend.video import open_video
from tests.browser.conftest import Servers
from tests.browser.editor import Editor, FilePage, VideoTask
from tests.browser.scene import FRAMES, HEIGHT, OBJECTS, WIDTH, Mask, centre
from tests.browser.test_annotate import decode, masks, open_with_switches

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: Clips of 13 frames: 0 to 12, and 12 to 23. They share frame 12.
CLIP = 13


def tam(servers: Servers, *arguments: object) -> None:
    given = [*map(str, arguments), "--url", servers.label_studio.url, "--token", servers.account.token, "--quiet"]
    assert main(given) == 0


def accepted(servers: Servers, project: int) -> dict[int, dict[int, Mask]]:
    """Frame of the video -> object -> mask, of the submitted annotations, by Label Studio's own decoder."""
    found: dict[int, dict[int, Mask]] = {frame: {} for frame in range(FRAMES)}
    for place, task in enumerate(servers.label_studio.tasks(project)):
        [annotation] = servers.label_studio.get(f"/api/tasks/{task['id']}/annotations/")
        for (label, index), region in masks(annotation["result"]).items():
            # On the frame that both clips show the earlier clip counts.
            found[place * (CLIP - 1) + index].setdefault(OBJECTS.index(label) + 1, decode(region))
    return found


@pytest.fixture(scope="module")
def annotated(servers: Servers, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A project in which a person has clicked both objects in both clips, and submitted."""
    project = servers.label_studio.create_project(
        "Masks out", labeling_config(OBJECTS, "bitmask"), maximum_annotations=2
    )  # fmt: skip
    servers.label_studio.connect_backend(project, servers.backend)
    tam(servers, "import", project, scene, "--clip", CLIP, "--overlap", 1)
    wait_for_frames(servers.label_studio, project)
    with Editor(servers.label_studio.url, [servers.backend]) as editor:
        editor.call("login", servers.account.username, servers.account.password)
        for place, task in enumerate(servers.label_studio.tasks(project)):
            open_with_switches(editor, project, task["id"])
            for name in OBJECTS:
                click_in_clip(editor, name, place * (CLIP - 1))
            editor.call("submit")
    return project


def click_in_clip(editor: Editor, name: str, first: int) -> None:
    """Click the middle of an object on the second frame of a clip that begins with a frame of the video."""
    editor.call("goToFrame", 1)
    x, y = centre(name, first + 1)
    assert editor.call("smartClick", "point", name, x, y)["errors"] == []


def test_every_format_has_what_was_accepted(
    annotated: int, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    truth = accepted(servers, annotated)
    assert sum(len(m) for m in truth.values()) >= 2 * FRAMES - 4
    for name, format_ in FORMATS.items():
        out = tmp_path / name
        tam(servers, "export", annotated, "--format", name, "--out", out)
        if not format_.reader:
            continue
        [video] = read_export(out).videos
        assert (video.name, video.height, video.width, list(video.frames)) == ("scene", HEIGHT, WIDTH, [*range(FRAMES)])
        for masked in video.read():
            wanted = truth[masked.frame]
            assert set(masked.masks) == set(wanted), (name, masked.frame)
            for track, mask in masked.masks.items():
                same = bounding_box(mask) == bounding_box(wanted[track])
                assert same if name == "yolo-box" else np.array_equal(mask, wanted[track]), (name, masked.frame, track)
        assert len(list(out.rglob("*.jpg"))) == FRAMES, name
    with open_video(tmp_path / "overlay" / "scene.mp4") as video:
        assert len(video) == FRAMES


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
    truth = accepted(servers, annotated)
    with VideoTask(servers.label_studio.url, [servers.backend]) as page:
        page.call("login", servers.account.username, servers.account.password)
        page.call("open", project, task["id"])
        shown = page.call("boxes", FRAMES)
        page.call("goToFrame", 13)
        page.call("screenshot", str(screenshots / "boxes.png"))
    assert set(shown) == set(OBJECTS)
    for number, name in enumerate(OBJECTS, 1):
        for frame, box in enumerate(shown[name]):
            mask = truth[frame].get(number)
            assert (box is None) == (mask is None), (name, frame)
            if box is not None and mask is not None:
                x, y, width, height = np.array(box) / 100 * (WIDTH, HEIGHT, WIDTH, HEIGHT)
                found = np.array([x, y, x + width, y + height])
                assert np.abs(found - bounding_box(mask)).max() <= 1 + 1e-6, (name, frame)
    assert all(len(sequence) < FRAMES / 2 for sequence in keyframes), "steady ways need few keyframes"
