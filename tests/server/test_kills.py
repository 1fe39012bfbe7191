"""Killed at random moments, the backend loses nothing that was finished, and ends where an undisturbed one does."""

from __future__ import annotations

from pathlib import Path

from tests.browser import scene
from tests.server.kills import track

KILLS = 8


def test_random_kills(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(scene, "FRAMES", 150)
    monkeypatch.setattr(scene, "centre", lambda name, frame: _CENTRE(name, frame / 6))
    video = tmp_path / "scene.mp4"
    scene.write_video(video)
    frame = 70
    click = (frame, *scene.centre("Disc", frame))
    calm = track(tmp_path / "calm", video, click, 30)
    assert len(calm.predictions) == 4
    assert len([r for r in calm.answer if r["type"] == "brushlabels"]) == 30
    killed = track(tmp_path / "killed", video, click, 30, kills=KILLS, seed=11)
    assert killed.kills == KILLS
    assert killed.blobs_at_kill[0] < killed.blobs_at_kill[-1]
    assert killed.predictions == calm.predictions
    by_frame = {r["id"]: r for r in calm.answer}
    assert {r["id"]: r for r in killed.answer} == by_frame


_CENTRE = scene.centre
