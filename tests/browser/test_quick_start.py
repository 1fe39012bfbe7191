"""docs/quick-start.md, step by step with the sample video. Its pictures are those of the page."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tamdev.sample import sample_clip

from tam_backend.video import open_video
from tam_backend.video.jpeg import encode_jpeg
from tests.browser.conftest import Servers
from tests.browser.dataset import Click, Team, accept_all, click_all, frames_of
from tests.browser.editor import Editor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

TITLE = "Opossums"


def test_quick_start(servers: Servers, editor: Editor, screenshots: Path, tmp_path: Path) -> None:
    studio, clip = servers.label_studio, sample_clip()
    pictures: list[str] = []

    def picture(name: str) -> None:
        name = {0: "clicked", 1: "", 2: "next-clip"}.get(len(pictures), "")
        pictures.append(name)
        if name:
            editor.call("screenshot", str(screenshots / f"{name}.png"))

    team = Team(studio.url, servers.account.token, servers.backend, editor, studio.get, picture)
    team.tam("project", "create", TITLE, "--label", "Animal", "--instances", "Animal=2", "--backend", servers.backend)
    project = team.project(TITLE)
    team.tam("import", TITLE, clip, "--clip", 20, "--end", 29)
    tasks = team.tasks(project)
    assert [frames_of(t) for t in tasks] == [list(range(20)), list(range(19, 30))]
    editor.call("openTaskList", project)
    editor.call("screenshot", str(screenshots / "tasks.png"))

    click_all(team, project, [Click(clip.stem, 10, "Animal 1", 66, 58)])
    opened = time.monotonic()
    accepted = accept_all(team, project)
    print(f"opened and submitted in {time.monotonic() - opened:.1f} s")
    assert {k[2] for k in accepted} == set(range(30))

    team.tam("export", TITLE, "--format", "coco", "--out", tmp_path / "coco")
    assert (tmp_path / "coco" / "annotations" / "instances.json").is_file()
    team.tam("export", TITLE, "--format", "overlay", "--out", tmp_path / "overlay")
    [video] = (tmp_path / "overlay").rglob("*.mp4")
    with open_video(video) as frames:
        assert len(frames) == 30
        (screenshots / "overlay.jpg").write_bytes(encode_jpeg(frames[25], 85))
    team.tam("render", TITLE, "--out", tmp_path / "videos")
    team.tam("review", TITLE, "--out", tmp_path / "report.html")
