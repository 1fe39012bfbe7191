"""``tam track --explain``: the table, the points and the pictures, read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend.commands.track_explain import DROPPED, OFF, ON, draw_points
from tam_backend.refine_options import RefineOptions
from tam_backend.tracking.refinement import Decision, Point
from tests.cli.conftest import FRAMES, HEIGHT, WIDTH, write_indexed
from tests.tracking.test_refinement import TRUE, RefiningDisc, engine, probes

WEAK = {3: 0.5, 5: 0.4, 15: 0.3}


@pytest.fixture
def refining(monkeypatch: pytest.MonkeyPatch) -> RefiningDisc:
    segmenter = RefiningDisc(TRUE)
    made = engine(segmenter, WEAK, RefineOptions())
    monkeypatch.setattr("tam_backend.commands.track.load_engine", lambda name, settings: made)
    return segmenter


@pytest.fixture
def mask(tmp_path: Path) -> str:
    return f"0={write_indexed(tmp_path / 'first.png', TRUE.astype(np.uint8))}"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "explain" / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_frame_has_a_line_and_every_decision_its_points(tam, video, refining, mask, tmp_path):
    out = tmp_path / "out"
    assert tam("track", video, "--mask", mask, "--out", out, "--explain").code == 0
    rows = table(out)
    assert [int(r["frame"]) for r in rows] == list(range(1, FRAMES))  # frame 0 is a person's
    outcomes = {int(r["frame"]): r["outcome"] for r in rows}
    assert {f: o for f, o in outcomes.items() if o != "not looked at"} == {
        3: "refined", 5: "left as it was", 15: "refined",
    }  # fmt: skip
    third, fifth = rows[2], rows[4]
    assert (third["quality"], third["quality_after"], third["score"]) == ("0.500", "0.700", "0.900")
    assert (third["direction"], third["positive"], third["negative"]) == ("forward", "4", "4")
    assert third["dropped"] == "1"  # the witness, which is where the coarse mask is not
    assert fifth["reasons"] == "it was refined 2 frames ago"
    lines = [json.loads(line) for line in (out / "explain" / "points.jsonl").read_text().splitlines()]
    assert [d["frame"] for d in lines] == [3, 5, 15]
    assert {(p["x"], p["y"]) for p in lines[0]["points"]} == {(p.x, p.y) for p in probes()}
    pictures = sorted(p.name for p in (out / "explain").glob("*.jpg"))
    assert pictures == ["00003-object1-forward.jpg", "00015-object1-forward.jpg"]
    with Image.open(out / "explain" / pictures[0]) as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_the_same_is_explained_of_frames_that_were_known_before(tam, video, refining, mask, tmp_path):
    out = tmp_path / "out"
    tam("track", video, "--mask", mask, "--out", out, "--explain")
    before = {p.name: p.read_bytes() for p in (out / "explain").iterdir()}
    asked = len(refining.refined)
    result = tam("track", video, "--mask", mask, "--out", out, "--explain")
    assert f"{FRAMES} known before" in result.out
    assert {p.name: p.read_bytes() for p in (out / "explain").iterdir()} == before
    assert len(refining.refined) == asked


def test_an_explanation_of_other_prompts_does_not_stay(tam, video, refining, mask, tmp_path):
    out = tmp_path / "out"
    tam("track", video, "--mask", mask, "--out", out, "--explain")
    assert tam("track", video, "--mask", mask, "--click", "9,14.5,12.5", "--out", out).code == 0
    assert not (out / "explain").exists()


def test_a_folder_of_somebody_else_is_left_alone(tam, video, refining, mask, tmp_path):
    theirs = tmp_path / "out" / "explain" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    result = tam("track", video, "--mask", mask, "--out", tmp_path / "out", "--explain")
    assert result.code != 0
    assert "not from an earlier call" in result.err
    assert not list((tmp_path / "out").glob("*.png"))
    assert theirs.read_text() == "mine"


def test_points_are_drawn_where_they_are():
    dropped = Point(90.5, 30.5, False, 0.1, 0, "weak")
    points = (Point(20.5, 30.5, True, 0.9, 0), Point(60.5, 30.5, False, 0.9, 0), dropped)
    frame = np.zeros((60, 120, 3), np.uint8)
    image = draw_points(frame, Decision(1, 1, 0.5, 0.5, points))
    assert not frame.any()
    assert [tuple(image[30, x]) for x in (20, 60, 90)] == [ON, OFF, OFF]
    assert any(tuple(c) == DROPPED for c in image[30, 86:95])
    assert not image[50:].any()
