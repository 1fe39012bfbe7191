"""sam-xmem behind the routes that Label Studio calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tam_backend.engines import Engine, load_engine
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.propagators.xmem import XMem
from tam_backend.segmenters.sam import predictor
from tam_backend.settings import Settings
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Tracker
from tests.fakes import FakeLabelStudio
from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of
from tests.server.test_app import replay

Start = Callable[..., Backend]

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def start(settings: Callable[..., Settings], tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Start]:
    """Start a backend on the one data directory of the test."""
    running: list[Backend] = []

    def run(engine: Engine | None = None, **options: Any) -> Backend:
        for backend in running:
            backend.service.close()
        made = engine or load_engine("sam-xmem", settings())
        running[:] = [Backend(tmp_path / "data", label_studio, engine=made, **{"answer_seconds": 60.0} | options)]
        running[0].connect()
        return running[0]

    yield run
    for backend in running:
        backend.service.close()


def mask_bytes(response: Any) -> dict[int, bytes]:
    return {i: decode_region_mask(r, 48, 64).tobytes() for i, r in masks_of(response).items()}


def test_a_recorded_click_gets_masks_on_all_frames(start: Start, label_studio: FakeLabelStudio) -> None:
    for i in range(20):
        image = np.full((480, 854, 3), 60, np.uint8)
        cv2.circle(image, (341 + i, 264), 40, (200, 80, 30), -1)
        cv2.imwrite(str(label_studio.root / f"{i:05d}.jpg"), image)
    backend = start()
    answer = replay(backend, "05_predict_interactive_first_click")
    assert answer.status_code == 200
    assert answer.json["model_version"].endswith("-sam-xmem")
    masks = masks_of(answer)
    # Weights of chance may find nothing on a frame, which then is not sent.
    assert 3 in masks
    assert set(masks) <= set(range(20))
    assert {r["meta"]["engine"] for r in masks.values()} == {"sam-xmem"}
    clicked = decode_region_mask(masks[3], 480, 854)
    assert clicked[int(55.074 / 100 * 480), int(39.956 / 100 * 854)]
    health = backend.client.get("/health").json
    assert (health["engine"], health["engine_version"]) == ("sam-xmem", backend.engine.version)


def test_a_restart_keeps_embeddings_and_masks(start: Start) -> None:
    backend = start()
    task = backend.uploaded()
    first = mask_bytes(backend.click(task, point("p1", 4, 20, 24)))
    cache = backend.engine.segmenter.embeddings
    assert (cache.misses, cache.disk_hits) == (1, 0)
    backend = start()
    cache = backend.engine.segmenter.embeddings
    again = backend.click(task, point("p1", 4, 20, 24))
    assert mask_bytes(again) == first
    assert cache.misses == cache.disk_hits == 0, "the finished mask is kept, too"
    backend.arrived()
    backend.click(task, point("p1", 4, 20, 24, new=False), point("p2", 4, 40, 20, positive=False))
    assert (cache.misses, cache.disk_hits) == (0, 1)


def test_ten_clicks_on_one_frame_encode_once(start: Start) -> None:
    """Of two objects; ``tests/sam/test_segmenter.py`` does it from two threads at once."""
    backend = start()
    task = backend.uploaded()
    for label in LABELS:
        points: list[dict[str, Any]] = []
        for i in range(5):
            new = point(f"{label}{i}", 4, 10 + 9 * i, 8 + 7 * i, positive=i % 2 == 0, label=label)
            assert backend.click(task, *points, new).status_code == 200
            backend.arrived()
            points.append(point(new["id"], 4, 10 + 9 * i, 8 + 7 * i, positive=i % 2 == 0, label=label, new=False))
    assert backend.engine.segmenter.embeddings.misses == 1


def test_clicks_while_a_background_job_runs_change_nothing_of_either(
    start: Start, settings: Callable[..., Settings]
) -> None:
    """The job of the first click and the answer to the second one use one engine by turns."""
    backend = start(answer_seconds=0.1)
    task = backend.uploaded()
    for name, x, label in (("p1", 20, LABELS[0]), ("q1", 40, LABELS[1])):
        assert backend.click(task, point(name, 4, x, 24, label=label)).status_code == 200
    until = time.monotonic() + 60
    while backend.service.jobs.running:
        assert time.monotonic() < until
        time.sleep(0.05)
    tracks = backend.service._tracks.of_task(backend.label_studio.url, task["id"])
    assert [track.label for track in tracks] == [LABELS[1], LABELS[0]]
    store, alone = backend.service._memory, load_engine("sam-xmem", settings())
    assert alone.version == backend.engine.version
    for track in tracks:
        with (
            contextlib.closing(backend.service.library.open(track.video)) as reader,
            Tracker(backend.engine, reader, track.frames, store) as together,
            Tracker(alone, reader, track.frames, MemoryStore(10**9)) as undisturbed,
        ):
            computed = list(undisturbed.track(track.anchors, track.focus))
            assert not any(t.reused for t in computed)
            for tracked in computed:
                kept = together.stored(track.anchors, tracked.frame)
                assert kept is not None
                assert np.array_equal(kept.soft, tracked.soft)


def test_a_full_device_fails_one_click_and_the_service_lives_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = start()
    task = backend.uploaded()

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "encode", full)
        answer = backend.click(task, point("p1", 4, 20, 24))
        assert answer.status_code == 502
        assert "not enough memory on cpu for SAM" in answer.json["error"]
    with monkeypatch.context() as patch:
        patch.setattr(XMem, "segment", full)
        answer = backend.click(task, point("p1", 4, 20, 24))
        assert answer.status_code == 502
        assert "not enough memory on cpu for this video" in answer.json["error"]
    assert backend.client.get("/health").json["status"] == "UP"
    backend.arrived()
    answer = backend.click(task, point("p1", 4, 20, 24))
    assert answer.status_code == 200
    assert 4 in masks_of(answer)
    assert [r["id"] for r in regions_of(answer) if r["type"] == "keypointlabels"] == ["p1"]


def test_another_engine_computes_anew_under_its_own_name(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    backend = start()
    task = backend.uploaded()
    first = backend.click(task, point("p1", 4, 20, 24))
    version = backend.service.model_version
    backend = start(load_engine("embedded"))
    assert "THE ENGINE HAS CHANGED: it is embedded 7-probes3-0.65, and was sam-xmem 3-" in caplog.text
    assert backend.service.model_version != version
    second = backend.click(task, point("p1", 4, 20, 24))
    assert {r["meta"]["engine"] for r in masks_of(second).values()} == {"embedded"}
    assert mask_bytes(second) != mask_bytes(first)
    backend = start()
    assert mask_bytes(backend.click(task, point("p1", 4, 20, 24))) == mask_bytes(first), "those of the old one are kept"


def test_unfinished_work_is_not_taken_over_by_another_engine(start: Start) -> None:
    backend = start(answer_seconds=0.01)
    task = backend.uploaded()
    sent = masks_of(backend.click(task, point("p1", 4, 20, 24)))
    assert len(sent) < 12
    backend = start(load_engine("embedded"))
    [job] = backend.client.get("/status.json").json["jobs"]
    assert (job["state"], job["error"]) == (
        "stopped",
        "the engine has changed: click on the object to track it anew",
    )
    [draft] = backend.label_studio.drafts
    assert [r["id"] for r in draft["result"]] == ["p1"], "nothing came into the person's work"
    assert len(masks_of(backend.click(task, point("p1", 4, 20, 24)))) == 12
