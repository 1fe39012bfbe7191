"""A protected backend, as a real Label Studio connects to it and calls it. No page is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from tamdev import DevError
from tamdev.environment import BACKEND
from tamdev.processes import Program, free_port, local_environment
from tamdev.rest import LabelStudio, answers
from tamdev.sample import wait_for_frames

from tam_backend.labelstudio.clips import ClipFiller
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks, load_secret
from tam_backend.labelstudio.media import Downloader
from tam_backend.labelstudio.renewal import LinkRenewal
from tam_backend.settings import Settings
from tests.browser.conftest import Servers
from tests.browser.scene import FRAMES, HEIGHT, WIDTH, centre, write_video
from tests.server.test_auth import PASSWORD, SECRET, USER, basic

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Protected:
    """A backend with basic auth and a secret path."""

    label_studio: LabelStudio
    url: str
    program: Program
    settings: dict[str, str]

    def connect(self, project: int, url: str, password: str = PASSWORD) -> dict:
        return self.label_studio.post(
            "/api/ml",
            {
                "project": project, "url": url, "title": "Track anything", "is_interactive": True,
                "auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": password,
            },
        )  # fmt: skip


@pytest.fixture
def protected(servers: Servers, tmp_path: Path) -> Iterator[Protected]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "TAM_DATA_DIR": str(tmp_path / "backend"),
        "TAM_LABEL_STUDIO_URL": servers.label_studio.url,
        "TAM_LABEL_STUDIO_TOKEN": servers.account.token,
        "TAM_PUBLIC_URL": url,
        "TAM_BASIC_AUTH_USER": USER,
        "TAM_BASIC_AUTH_PASSWORD": PASSWORD,
        "TAM_SECRET_PATH": SECRET,
    }
    command = [BACKEND.program("tam"), "serve", "--port", str(port)]
    with Program("the backend", command, local_environment(settings), tmp_path / "backend.log") as program:
        program.wait_until(lambda: answers(f"{url}/{SECRET}/health", basic()), 60)
        yield Protected(servers.label_studio, url, program, settings)


@pytest.fixture
def project(servers: Servers) -> Iterator[int]:
    project = servers.label_studio.create_project("protected", EXAMPLE, show_collab_predictions=True)
    yield project
    servers.label_studio.delete_project(project)


def renewed(protected: Protected) -> int:
    """Give the tasks addresses that end, as the backend would with TAM_FRAME_LINK_DAYS; returns in how many tasks."""
    settings = Settings.from_env({**protected.settings, "TAM_FRAME_LINK_DAYS": "2"})
    links = FrameLinks(load_secret(settings.data_dir), settings.frame_link_days)
    connections = Connections(settings)
    library = VideoLibrary(settings.data_dir / "videos", Downloader.from_settings(settings), connections)
    clips = ClipFiller(library, links, settings.clip_length, settings.data_dir / "splits")
    renewal = LinkRenewal(clips, links, connections, settings)
    try:
        return renewal.renew()
    finally:
        renewal.close()


def test_connect_upload_and_click(protected: Protected, project: int, tmp_path: Path):
    label_studio = protected.label_studio
    with pytest.raises(DevError, match="authentication parameters were either not provided or are incorrect"):
        protected.connect(project, f"{protected.url}/{SECRET}", password="wrong-0123456")
    with pytest.raises(DevError, match="health check failed"):
        protected.connect(project, protected.url)
    assert label_studio.get("/api/ml", project=project) == []

    made = protected.connect(project, f"{protected.url}/{SECRET}")
    assert made["state"] == "CO"
    [hook] = label_studio.get("/api/webhooks/", project=project)
    assert hook["url"] == f"{protected.url}/{SECRET}/webhook"
    assert hook["headers"] == {}

    # only the webhook tells the backend of an upload that nobody opens
    write_video(tmp_path / "scene.mp4")
    label_studio.upload(project, tmp_path / "scene.mp4")
    task = wait_for_frames(label_studio, project)
    frames = label_studio.tasks(project)[0]["data"]["frames"]
    assert len(frames) == FRAMES
    assert frames[0].startswith(f"{protected.url}/frames/")
    assert requests.get(frames[0], timeout=10).headers["Content-Type"] == "image/jpeg"
    assert renewed(protected) == 1
    frames = label_studio.tasks(project)[0]["data"]["frames"]
    assert "&exp=" in frames[0]
    assert requests.get(frames[0], timeout=10).headers["Content-Type"] == "image/jpeg"

    x, y = centre("Disc", 5)
    point = {
        "id": "p1", "from_name": "point", "to_name": "image", "type": "keypointlabels", "origin": "manual",
        "item_index": 5, "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "is_positive": True,
        "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["Object 1"], "labels": ["Object 1"]},
    }  # fmt: skip
    click = {"task": task, "context": {"result": [point]}}
    answer = label_studio.post(f"/api/ml/{made['id']}/interactive-annotating", click)
    assert not answer.get("errors")
    masks = {r["item_index"] for r in answer["data"]["result"] if r["type"] == "brushlabels"}
    assert 5 in masks
    assert len(masks) > FRAMES // 2

    assert requests.get(f"{protected.url}/health", timeout=10).status_code == 404
    assert requests.get(f"{protected.url}/{SECRET}/status", timeout=10).status_code == 401
    log = protected.program.log.read_text()
    assert "refused a request from 127.0.0.1" in log
    assert SECRET not in log
    assert PASSWORD not in log
