"""Killed at random moments, the backend loses nothing that people made or that was finished, and ends where an
undisturbed one does. ``make crash-test`` does the same with 200 kills."""

from __future__ import annotations

from pathlib import Path

from tests.server.crash import CLIP, PEOPLE, pixels, run, same

KILLS = 5


def test_random_kills(tmp_path: Path) -> None:
    calm = run(tmp_path / "calm")
    assert [sorted(masks) for masks in calm.masks.values()] == [list(range(CLIP))] * len(PEOPLE)
    assert len(calm.predictions) == 2
    # All kills while there is work: a quick machine is done in a few seconds.
    killed = run(tmp_path / "killed", kills=KILLS, within=min(1.5, calm.seconds / KILLS), seed=11)
    assert killed.kills == KILLS
    assert killed.blobs_at_kill[0] < killed.blobs_at_kill[-1]
    assert (killed.lost_prompts, killed.lost_frames) == (0, 0)
    for name, masks in calm.masks.items():
        assert pixels(killed.masks[name]) == pixels(masks)
    assert killed.predictions == calm.predictions
    assert same(calm, killed)
