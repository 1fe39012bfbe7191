"""Upload -> frames, and the frames themselves."""

import threading
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from tests.fakes import make_video
from tests.server.conftest import BASE, Backend


def created(backend: Backend, *tasks: dict) -> object:
    event = {"action": "TASKS_CREATED", "tasks": list(tasks), "project": {"id": 1, "label_config": backend.config}}
    return backend.client.post("/webhook", json=event)


def finish(backend: Backend) -> None:
    """Wait for the work behind webhooks."""
    backend.service._workers.shutdown(wait=True)


def local(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_new_task_gets_frames_that_can_be_seen(backend, label_studio):
    make_video(label_studio.root / "a.mp4", 12)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4", "note": "keep me"})
    assert created(backend, task).status_code == 200
    finish(backend)
    data = label_studio.tasks[1]["data"]
    assert data["note"] == "keep me"
    assert data["video"] == "/data/upload/1/a.mp4"
    assert data["clip"] == "frames 0 to 11 of 12"
    assert len(data["frames"]) == 12
    for i, url in enumerate(data["frames"]):
        assert url.startswith(BASE + "/frames/")
        answer = backend.client.get(local(url))
        assert answer.status_code == 200
        assert answer.mimetype == "image/jpeg"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "max-age" in answer.headers["Cache-Control"]
        image = decode(answer.data)
        assert image.shape == (48, 64, 3)
        assert abs(float(image[40, 5].mean()) - (10 + 5 * i)) < 6


def test_frames_come_from_the_cache_the_second_time(backend, label_studio):
    task = backend.uploaded()
    url = local(task["data"]["frames"][3])
    first = backend.client.get(url).data
    for file in (backend.settings.data_dir / "videos").rglob("*.mp4"):
        file.unlink()
    backend.service.library._readers.clear()
    assert backend.client.get(url).data == first


@pytest.mark.parametrize("query", ["", "?sig=", "?sig=0123", "?sig=%ff"])
def test_unsigned_frames_are_refused(backend, query):
    task = backend.uploaded()
    path = urlsplit(task["data"]["frames"][0]).path
    answer = backend.client.get(path + query)
    assert answer.status_code == 403
    assert "signature" in answer.json["error"]


def test_frame_beyond_the_end(backend):
    task = backend.uploaded()
    assert backend.client.get(local(task["data"]["frames"][0]).replace("/0.jpg", "/99.jpg")).status_code == 404


def test_long_video_becomes_several_tasks(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, clip_length=5)
    task = backend.uploaded(frames=12)
    assert len(label_studio.tasks) == 3
    clips = [t["data"] for t in label_studio.tasks.values()]
    assert [c["clip"] for c in clips] == ["frames 0 to 4 of 12", "frames 5 to 9 of 12", "frames 10 to 11 of 12"]
    assert [len(c["frames"]) for c in clips] == [5, 5, 2]
    assert clips[1]["frames"][0].partition("?")[0].endswith("/5.jpg")
    for t in list(label_studio.tasks.values()):  # their own events, and later openings, change nothing
        created(backend, t)
        backend.batch(t)
    finish(backend)
    assert len(label_studio.tasks) == 3
    assert label_studio.tasks[1] == task


def test_split_goes_on_after_a_crash_without_doubles(tmp_path, label_studio, monkeypatch):
    backend = Backend(tmp_path / "data", label_studio, clip_length=4)
    from tam_backend.labelstudio.connections import Client

    monkeypatch.setattr(Client, "replace_task_data", lambda *a: (_ for _ in ()).throw(RuntimeError("crash")))
    make_video(label_studio.root / "a.mp4", 12)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    with pytest.raises(RuntimeError):
        backend.service._fill_now((label_studio.url, 1), 1, *_fill_arguments(backend))
    assert len(label_studio.tasks) == 3
    del label_studio.tasks[3]  # as if the last one had not arrived
    monkeypatch.undo()
    assert backend.batch(task).status_code == 200
    starts = sorted(t["data"]["clip"] for t in label_studio.tasks.values())
    assert starts == ["frames 0 to 3 of 12", "frames 4 to 7 of 12", "frames 8 to 11 of 12"]


def _fill_arguments(backend: Backend):
    from tam_backend.labelstudio.config import parse_label_config

    return parse_label_config(backend.config), backend.service.connections.current(), BASE


def test_opening_a_task_twice_at_once_fills_it_once(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, clip_length=5)
    make_video(label_studio.root / "a.mp4", 12)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(backend.batch(task).json)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [answers[0]] * 4
    assert len(label_studio.tasks) == 3
    assert sum(method == "PATCH" for method, _, _ in label_studio.requests) == 1
    assert sum("/data/upload" in path for _, path, _ in label_studio.requests) == 1


@pytest.mark.parametrize(
    ("content", "video"), [(b"this is no video", "/data/upload/1/a.mp4"), (None, "/data/upload/1/gone.mp4"), (b"", 5)]
)
def test_broken_video_shows_what_is_wrong_in_one_frame(backend, label_studio, content, video):
    if content is not None:
        (label_studio.root / "a.mp4").write_bytes(content)
    backend.connect()
    task = label_studio.add_task({"video": video})
    assert backend.batch(task).status_code == 200
    data = label_studio.tasks[1]["data"]
    assert len(data["frames"]) == 1
    assert data["clip"].startswith("ERROR: ")
    answer = backend.client.get(local(data["frames"][0]))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert decode(answer.data).std() > 5  # there is writing on it


def test_mended_video_gets_its_frames_at_the_next_opening(backend, label_studio, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.library.RETRY_SECONDS", 0.0)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    backend.batch(task)
    make_video(label_studio.root / "a.mp4", 7)
    backend.batch(label_studio.tasks[1])
    assert len(label_studio.tasks[1]["data"]["frames"]) == 7
    assert label_studio.tasks[1]["data"]["clip"] == "frames 0 to 6 of 7"


def test_frames_follow_the_backend_to_another_address(tmp_path, label_studio):
    first = Backend(tmp_path / "data", label_studio)
    task = first.uploaded()
    second = Backend(tmp_path / "data", label_studio, public_url="http://moved:1")
    second.connect()
    second.batch(task)
    assert all(f.startswith("http://moved:1/frames/") for f in label_studio.tasks[1]["data"]["frames"])
    assert second.client.get(local(label_studio.tasks[1]["data"]["frames"][2])).status_code == 200


@pytest.mark.parametrize("data", [{}, {"frames": ["http://x/1.jpg"], "video": "/data/upload/1/a.mp4"}, {"video": ""}])
def test_tasks_that_are_none_of_our_business_are_left_alone(backend, label_studio, data):
    backend.connect()
    task = label_studio.add_task(dict(data))
    assert backend.batch(task).status_code == 200
    assert label_studio.tasks[1]["data"] == data
    assert not any(method == "PATCH" for method, _, _ in label_studio.requests)


@pytest.mark.parametrize("frames", [None, [], "http://x/1.jpg", [1]])
def test_improper_frames_are_replaced(backend, label_studio, frames):
    make_video(label_studio.root / "a.mp4", 3)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4", "frames": frames})
    backend.batch(task)
    assert len(label_studio.tasks[1]["data"]["frames"]) == 3


def test_label_studio_down_is_no_fault_of_the_request(backend, label_studio):
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    label_studio.failing = True
    assert backend.batch(task).status_code == 200
    label_studio.failing = False
    make_video(label_studio.root / "a.mp4", 3)
    assert backend.batch(task).status_code == 200
    assert len(label_studio.tasks[1]["data"]["frames"]) == 3


def test_paging_through_decodes_each_frame_once(backend):
    task = backend.uploaded(frames=30)
    for url in task["data"]["frames"]:
        assert backend.client.get(local(url)).status_code == 200
    [reader] = backend.service.library._readers.values()
    assert reader.packets_decoded == 30
    assert reader.seeks <= 1


def test_caption_is_drawn_when_asked_for(tmp_path, label_studio):
    plain = Backend(tmp_path / "data", label_studio)
    url = local(plain.uploaded()["data"]["frames"][3])
    captioned = Backend(tmp_path / "data", label_studio, frame_caption=True)
    without, with_caption = (decode(b.client.get(url).data).astype(int) for b in (plain, captioned))
    assert np.abs(without - with_caption).max() > 50
    assert np.abs(without - with_caption)[: 48 // 2].max() < 12 or np.abs(without - with_caption)[48 // 2 :].max() < 12
