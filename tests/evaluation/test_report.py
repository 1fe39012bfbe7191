"""Tables, published figures, and the comparison of two runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tam_backend.cli import main
from tam_backend.evaluation import figures, published
from tam_backend.evaluation.report import show
from tests.evaluation.scenes import ids_of, moving_square, square, write_davis
from tests.tracking.fakes import fake_engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tam(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run ``tam`` in this process with the fake engine: exit code, stdout, stderr."""
    monkeypatch.setattr("tam_backend.commands.evaluate.load_engine", lambda name: fake_engine())

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def runs(tam, tmp_path: Path) -> tuple[Path, Path]:
    """A gives the true mask, B a box around it: of an L-shaped object that is too much, of a square it is the same."""
    bent = square(4, 4) & ~square(8, 4, 4)
    root = write_davis(
        tmp_path / "set", {"bent": [ids_of({1: _shifted(bent, i)}) for i in range(6)], "square": moving_square(6)}
    )
    for name, init in (("a", "first-mask"), ("b", "box")):
        assert tam("evaluate", root, "--init", init, "--out", tmp_path / name)[0] == 0
    return tmp_path / "a", tmp_path / "b"


def _shifted(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.roll(mask, pixels, axis=1)


class TestComparison:
    def test_by_hand(self, tam, runs, tmp_path):
        """48 of 64 pixels of the box are the object, on every frame."""
        code, out, err = tam("report", *runs, "--out", tmp_path / "c")
        assert (code, err) == (0, "")
        assert "| J | 100.0 | 87.5 | -12.5 |" in out
        a, b = (json.loads((r / "report.json").read_text())["sequences"][0]["figures"] for r in runs)
        assert (a["J"], b["J"]) == (1.0, 0.75)
        lines = out.splitlines()
        first = lines.index("J&F of each sequence, sorted by the difference:") + 4
        assert lines[first].startswith("| bent | 100.0 | ")
        assert lines[first + 1] == "| square | 100.0 | 100.0 | +0.0 |"
        assert "- A: engine fake-1, objects given by first-mask" in out
        assert (tmp_path / "c/comparison.md").read_text() in out

    def test_a_picture_of_each_sequence_that_differs(self, tam, runs, tmp_path):
        out = tam("report", *runs, "--out", tmp_path / "c")[1]
        (picture,) = (tmp_path / "c/pictures").iterdir()
        assert picture.name == "bent-00001.png"
        assert cv2.imread(str(picture)).shape == (24, 3 * 40, 3)
        assert "- [bent, frame 1](pictures/bent-00001.png): J&F -" in out

    def test_without_the_data_set_there_are_figures_and_no_pictures(self, tam, runs, tmp_path):
        shutil.rmtree(tmp_path / "set")
        code, out, err = tam("report", *runs, "--out", tmp_path / "c")
        assert code == 0
        assert "| bent | 100.0 |" in out
        assert "tam report: note: no pictures: there is no folder" in err

    def test_only_common_sequences_count(self, tam, runs, tmp_path):
        path = runs[1] / "report.json"
        report = json.loads(path.read_text())
        report["sequences"] = report["sequences"][1:]
        path.write_text(json.dumps(report))
        out = tam("report", *runs, "--out", tmp_path / "c")[1]
        assert "over 1 common sequences" in out
        assert "| J | 100.0 | 100.0 | +0.0 |" in out
        assert "Only in A, and in no figure here: bent" in out

    def test_refused(self, tam, runs, tmp_path):
        assert "has no report of tam evaluate" in tam("report", tmp_path, runs[0])[2]
        (runs[0] / "report.json").write_text("{}")
        assert "is missing or damaged" in tam("report", *runs)[2]
        assert tam("report", runs[1], runs[1], "--out", runs[1])[2].endswith(
            "is the folder of a run; choose another one\n"
        )
        tam("evaluate", tmp_path / "set", "--protocol", "noc", "--out", tmp_path / "n")
        code, _, err = tam("report", runs[1], tmp_path / "n")
        assert code == 2
        assert "is a run of semi-supervised" in err


class TestPublished:
    def test_splits_are_recognised_whole(self):
        names = published._data()["splits"]["davis-2016-val"]["sequences"]
        assert len(names) == 20
        assert published.find_split(names, one_object=True) == "davis-2016-val"
        assert published.find_split(names, one_object=False) is None
        assert published.find_split(names[:-1], one_object=True) is None
        assert published.find_split([], one_object=False) is None

    def test_the_table_of_the_paper(self):
        methods = ["STM", "AOT", "XMem", "SiamMask", "MiVOS", "TAM"]
        for split in ("davis-2016-val", "davis-2017-test-dev"):
            assert [p.method for p in published.published_on(split)] == methods
        tam = published.published_on("davis-2016-val")[-1]
        assert (tam.init, tam.figures["J&F"]) == ("clicks", 88.4)

    @pytest.mark.parametrize("split", published.splits())
    def test_every_figure_has_a_source_and_adds_up(self, split):
        rows = published.published_on(split)
        assert rows
        for row in rows:
            assert row.source
            assert row.venue
            assert row.verified <= {k for k, v in row.figures.items() if v is not None}
            if row.figures["J"] is not None:
                assert row.figures["J&F"] == pytest.approx((row.figures["J"] + row.figures["F"]) / 2, abs=0.1001)

    def test_what_was_not_looked_up_is_marked(self):
        stm, xmem = published.published_on("davis-2016-val")[0], published.published_on("davis-2016-val")[2]
        assert stm.row()[3:6] == ["89.3 (?)", "88.7 (?)", "89.9 (?)"]
        assert xmem.row()[3:6] == ["92.0", "90.7", "93.2"]

    def test_ours_stands_beneath_them_and_is_marked(self, tam, tmp_path, monkeypatch):
        root = write_davis(tmp_path / "set", {"a": moving_square(5), "b": moving_square(5)})
        assert "Published" not in tam("evaluate", root, "--out", tmp_path / "x")[1]
        monkeypatch.setattr(published, "_data", _with_split(published._data(), ["a", "b"]))
        out = tam("evaluate", root, "--out", tmp_path / "x")[1].splitlines()
        start = out.index("Published figures, not measured here, and what was measured, marked:")
        assert [line.split(" | ")[0] for line in out[start + 4 :]] == [
            "| STM", "| AOT", "| XMem", "| SiamMask", "| MiVOS", "| TAM", "| fake-1 (measured here)",
        ]  # fmt: skip
        assert out[-1] == "| fake-1 (measured here) |  | first-mask | 100.0 | 100.0 | 100.0 | this report |"
        # a part of a split is not the split
        assert "Published" not in tam("evaluate", root, "--limit", 1, "--out", tmp_path / "x")[1]


def _with_split(data: dict, names: list[str]):
    changed = json.loads(json.dumps(data))
    changed["splits"]["davis-2016-val"]["sequences"] = names
    return lambda: changed


def test_figures_are_shown_in_their_unit():
    assert show("J&F@3", 0.5) == show("failed@85", 0.5) == "50.0"
    assert show("NoC@85", 2.5) == show("clicks", 2.5) == show("ms per mask", 2.5) == "2.50"
    assert show("quality r", None) == "-"


def test_without_matplotlib_there_is_a_note_and_everything_else(tam, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    root = write_davis(tmp_path / "set", {"a": moving_square(5)})
    code, _, err = tam("evaluate", root, "--out", tmp_path / "x")
    assert code == 0
    assert err == "tam evaluate: note: plots need Matplotlib: pip install -r requirements-evaluate.txt\n"
    assert (tmp_path / "x/overlays/a.mp4").is_file()


def test_plots_of_clicks(tam, tmp_path):
    root = write_davis(tmp_path / "set", {"a": moving_square(5)})
    tam("evaluate", root, "--protocol", "noc", "--out", tmp_path / "x")
    assert {p.name for p in (tmp_path / "x/plots").iterdir()} == {"a.png", "overview.png"}
    assert not (tmp_path / "x/overlays").exists()


def test_the_worst_is_ranked_by_what_was_scored():
    scored = {"objects": {"1": {"J": [1.0, 0.5], "F": [0.5, 0.0]}, "2": {"J": [], "F": []}}}
    assert figures.score_of(scored) == 0.5
    assert figures.score_of({"objects": {"1": {"IoU": [[0.1, 0.2, 0.3, 0.9], [0.7]]}}}) == 0.5


def test_the_note_is_made_from_results(tam, tmp_path):
    """With every run of it, its command, and nothing of where it was made."""
    root = write_davis(tmp_path / "set", {"a": moving_square(5), "b": moving_square(5)})
    tam("evaluate", root, "--init", "clicks:3", "--out", tmp_path / "runs/tiny/clicks")
    tam("evaluate", root, "--protocol", "offline", "--choose", "suggested", "--out", tmp_path / "runs/tiny/follow")
    (tmp_path / "scoring.txt").write_text("8 masks in 0.1 s\n")
    script = [sys.executable, "benchmarks/evaluation_note.py", tmp_path / "runs", "--scoring", tmp_path / "scoring.txt"]
    subprocess.run([*script, "--out", tmp_path / "note.md"], cwd=ROOT, check=True)
    note = (tmp_path / "note.md").read_text()
    assert "a (5 frames), b (5 frames). Engine fake-1." in note
    assert "`tam evaluate DATASET --imset LIST --engine fake --init clicks:3 --out DIR`" in note
    assert "--protocol offline --choose suggested --out DIR`" in note
    assert "| **all (2 objects)** |" in note
    assert "8 masks in 0.1 s" in note
    assert str(tmp_path) not in note
