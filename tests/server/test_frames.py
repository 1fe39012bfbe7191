"""Upload -> frames, and the frames themselves."""

import threading
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from model import TrackAnything
from tam_backend.server.app import create_app
from tam_backend.sessions.progress import ClipProgress
from tests.fake_progress import FakeProgress
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
        backend.service._new_tasks._fill_now((label_studio.url, 1), 1, *_fill_arguments(backend))
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


class Marked:
    """A backend that draws progress marks, a task of ten frames, and what it is told about the work on that task."""

    def __init__(self, backend: Backend) -> None:
        self.progress = FakeProgress()
        self.backend = backend
        self.urls = [local(u) for u in backend.uploaded(frames=10)["data"]["frames"]]
        self.video = self.urls[0].split("/")[2]
        self.client = create_app(backend.settings, TrackAnything, backend.service, self.progress).test_client()

    def work(self, clip: range | None = None, **done: list[range]) -> None:
        self.progress.clips[self.video] = ClipProgress(clip or range(10), done)

    def get(self, index: int, tag: str | None = None) -> object:
        return self.client.get(self.urls[index], headers={"If-None-Match": tag} if tag else {})

    def strip(self, index: int) -> list[int]:
        """How bright the middle of the strip's part for each frame of the clip is, BGR averaged."""
        row = decode(self.get(index).data)[1].mean(1)
        return [round(float(row[int((i + 0.5) * 6.4)])) for i in range(10)]


@pytest.fixture
def marked(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, progress_mark=True)
    yield Marked(backend)
    backend.service.close()


def test_a_frame_shows_how_far_its_clip_is(marked):
    plain = decode(marked.get(9).data).astype(int)
    marked.work(A=[range(2, 4), range(6, 7)], B=[range(3, 5), range(-3, 1), range(9, 20)])
    shown = decode(marked.get(9).data).astype(int)
    assert np.abs(shown - plain)[16:].max() < 8, "more than the strip has changed"
    shares = [0.5, 0, 0.5, 1, 0.5, 0, 0.5, 0, 0]
    np.testing.assert_allclose(marked.strip(9)[:9], [80 + 160 * s for s in shares], atol=30)
    blue, _, red = (int(v) for v in shown[1, int(9.5 * 6.4)])
    assert red > blue + 60, "no tick at the present frame"


@pytest.mark.parametrize(
    ("clip", "done"),
    [
        (range(10), {"A": [range(5), range(5, 10)]}), (range(10), {}), (range(4, 10), {"A": []}), (range(0), {"A": []}),
        (range(10), {"A": [range(-5, 30)], "B": [range(10)]}),
    ],
)  # fmt: skip
def test_no_mark_where_all_is_finished_or_the_work_is_elsewhere(marked, clip, done):
    plain = marked.get(2).data
    marked.progress.clips[marked.video] = ClipProgress(clip, done)
    assert marked.get(2).data == plain


def test_browsers_ask_again_and_learn_when_the_mark_has_changed(marked):
    """One address, plain and marked in turn. A browser that has what is right gets 304 and no picture."""
    plain = marked.get(4)
    tags = [plain.headers["ETag"]]
    for done in ([], [range(3)], [range(3, 5), range(3)]):
        marked.work(A=done)
        answer = marked.get(4, tags[-1])
        assert answer.status_code == 200
        tags.append(answer.headers["ETag"])
        again = marked.get(4, tags[-1])
        assert (again.status_code, again.data) == (304, b"")
        for each in (answer, again):
            assert each.headers["Cache-Control"] == "no-cache"
            assert each.headers["Access-Control-Allow-Origin"] == "*"
            assert each.headers["ETag"] == tags[-1]
    assert len(set(tags)) == 4
    assert marked.get(5, tags[-1]).status_code == 200, "the tick is elsewhere"
    marked.work(A=[range(2), range(1, 5)])
    assert marked.get(4, tags[-1]).status_code == 304, "other ranges, the same frames"
    marked.work(A=[range(10)])
    answer = marked.get(4, tags[-1])
    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (200, plain.data, tags[0])


def test_an_unchanged_frame_costs_nothing(marked, monkeypatch):
    marked.work(A=[range(3)])
    tag = marked.get(4).headers["ETag"]
    monkeypatch.setattr("tam_backend.server.frames.FrameServer.jpeg", lambda *_: pytest.fail("the frame was made"))
    assert marked.get(4, tag).status_code == 304


def test_an_address_without_a_signature_gets_no_304_either(marked):
    marked.work(A=[range(3)])
    tag = marked.get(4).headers["ETag"]
    answer = marked.client.get(marked.urls[4].partition("?")[0], headers={"If-None-Match": tag})
    assert answer.status_code == 403


def test_the_cache_has_no_marks(marked):
    """What is cached while work goes on is what a backend without marks shows, to browsers and for ever."""
    marked.work(A=[range(3)])
    marked.get(4)
    for file in (marked.backend.settings.data_dir / "videos").rglob("*.mp4"):
        file.unlink()
    marked.backend.service.library._readers.clear()
    without = Backend(marked.backend.settings.data_dir, marked.backend.label_studio)
    answer = without.client.get(marked.urls[4])
    assert "immutable" in answer.headers["Cache-Control"]
    assert "ETag" not in answer.headers
    assert decode(answer.data)[:4].std() < 3
    marked.progress.clips.clear()
    assert marked.get(4).data == answer.data


def test_engines_see_no_marks(marked):
    marked.work(A=[range(3)])
    marked.get(4)
    frame = marked.backend.service.library.shared(marked.video)[4]
    assert frame[:4].std() < 3


def test_without_the_setting_there_are_no_marks(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio)
    marked = Marked(backend)
    plain = marked.get(4).data
    marked.work(A=[])
    answer = marked.get(4)
    assert answer.data == plain
    assert "immutable" in answer.headers["Cache-Control"]


def test_a_broken_video_is_asked_for_anew(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, progress_mark=True)
    backend.connect()
    backend.batch(label_studio.add_task({"video": "/data/upload/1/gone.mp4"}))
    answer = backend.client.get(local(label_studio.tasks[1]["data"]["frames"][0]))
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers
