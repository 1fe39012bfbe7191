"""``tam evaluate`` as a person calls it: what it writes, says and refuses, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend.cli import main
from tam_backend.drawing import PALETTE
from tam_backend.tracking.filestore import hold_lock
from tam_backend.video import open_video
from tests.evaluation.scenes import ids_of, moving_square, square, write_davis, write_ids
from tests.tracking.fakes import fake_engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tam(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``tam`` in this process with the fake engine: exit code, stdout, stderr."""
    monkeypatch.setattr("tam_backend.commands.evaluate.load_engine", lambda name: fake_engine())

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as e:
            code = int(e.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """right: the engine is right on every frame. still: the object does not move, the engine's mask does."""
    return write_davis(
        tmp_path / "set",
        {"right": moving_square(8), "still": moving_square(8, speed=0), "both": _two_objects()},
    )


def _two_objects() -> list[np.ndarray]:
    return [ids_of({1: square(2 + i, 0), 2: square(20, 12)}) for i in range(8)]


def die(*_: object) -> None:
    """In place of a worker's work."""
    os._exit(1)


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def without_timing(value):
    if isinstance(value, dict):
        return {k: without_timing(v) for k, v in value.items() if k != "timing"}
    return [without_timing(v) for v in value] if isinstance(value, list) else value


def content_of(out: Path) -> dict[str, bytes]:
    """Masks and plots byte for byte, and the report without what depends on time."""
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.png"))}
    return files | {"report.json": json.dumps(without_timing(report_of(out)), sort_keys=True).encode()}


class TestOutput:
    def test_figures_by_hand(self, tam, dataset, tmp_path):
        """still: on frame i the mask is i pixels off, so J of 8x8 squares is (8 - i) / (8 + i); frames 1 to 6 count."""
        code, out, err = tam("evaluate", dataset, "--out", tmp_path / "out")
        assert (code, err) == (0, "")
        sequences = {s["sequence"]: s for s in report_of(tmp_path / "out")["sequences"]}
        assert sequences["right"]["figures"]["J&F"] == 1.0
        assert sequences["still"]["objects"]["1"]["frames"] == [1, 2, 3, 4, 5, 6]
        expected = [(8 - i) / (8 + i) for i in range(1, 7)]
        assert sequences["still"]["objects"]["1"]["J"] == pytest.approx(expected)
        assert sequences["still"]["figures"]["J"] == pytest.approx(np.mean(expected))
        assert sequences["both"]["objects"]["1"]["J"] == [1.0] * 6
        # all: the mean over four objects, not over three sequences
        summary = report_of(tmp_path / "out")["summary"]
        assert summary["J"] == pytest.approx((1 + 1 + 2 * np.mean(expected)) / 4)
        assert summary["sequences"] == 3
        assert (tmp_path / "out/report.md").read_text() == out
        assert "| right | 1 | 100.0 | 100.0 | 100.0 | 0.0 |" in out
        assert f"| **all** | 4 | {100 * summary['J&F']:.1f} |" in out

    def test_files(self, tam, dataset, tmp_path):
        out = tmp_path / "out"
        tam("evaluate", dataset, "--out", out)
        with Image.open(out / "masks/both/00003.png") as image:
            assert image.mode == "P"
            assert np.array_equal(np.array(image.getpalette()), PALETTE.ravel())
            assert np.array_equal(np.array(image), ids_of({1: square(5, 0), 2: square(23, 12)}))
        assert len(list((out / "masks/right").iterdir())) == 8
        assert {p.name for p in (out / "plots").iterdir()} == {"right.png", "still.png", "both.png", "overview.png"}
        assert {p.name for p in (out / "overlays").iterdir()} == {"right.mp4", "still.mp4", "both.mp4"}
        with open_video(out / "overlays/still.mp4") as video:
            assert (len(video), video.height, video.width) == (8, 24, 80)

    @pytest.mark.parametrize(
        ("init", "clicks", "given"), [("box", 0, 1.0), ("clicks:1", 1, None), ("clicks:20", None, None)]
    )
    def test_other_ways_to_give_an_object(self, tam, dataset, tmp_path, init, clicks, given):
        code, out, _ = tam("evaluate", dataset, "--init", init, "--limit", 1, "--out", tmp_path / "out")
        assert code == 0
        (sequence,) = report_of(tmp_path / "out")["sequences"]
        scored = sequence["objects"]["1"]
        assert clicks in (None, scored["clicks"])
        assert given in (None, scored["given_IoU"])
        if init == "clicks:1":  # a disc of radius 5 around the middle of an 8x8 square
            assert 0.5 < scored["given_IoU"] < 1
        assert f"Objects are given by: {init}." in out

    def test_merged(self, tam, dataset, tmp_path):
        tam("evaluate", dataset, "--merge", "--out", tmp_path / "out")
        assert all(list(s["objects"]) == ["1"] for s in report_of(tmp_path / "out")["sequences"])

    def test_void_pixels_are_not_scored(self, tam, tmp_path):
        """The engine's mask is one column too far to the right on every frame, and that column is void."""
        ids = [ids_of({1: square(4, 8)})]
        for i in range(1, 4):
            of_frame = ids_of({1: square(5 + i, 8, 7) | square(5 + i, 8, 8) & ~square(11 + i, 8, 8)})
            of_frame[square(4 + i, 8) & (of_frame == 0)] = 255
            ids.append(of_frame)
        write_davis(tmp_path / "set", {"a": ids})
        tam("evaluate", tmp_path / "set", "--out", tmp_path / "out")
        assert report_of(tmp_path / "out")["sequences"][0]["objects"]["1"]["J"] == [1.0, 1.0]


class TestBroken:
    def test_broken_sequences_are_named_and_skipped(self, tam, dataset, tmp_path):
        (dataset / "Annotations/480p/still/00004.png").write_bytes(b"damaged")
        code, out, err = tam("evaluate", dataset, "--out", tmp_path / "out")
        assert code == 0
        assert "tam evaluate: skipped still: the mask 00004.png cannot be read" in err
        assert "Skipped, and in no figure: 1\n\n- still: the mask 00004.png cannot be read" in out
        report = report_of(tmp_path / "out")
        assert [s["sequence"] for s in report["sequences"]] == ["both", "right"]
        assert list(report["skipped"]) == ["still"]

    def test_it_is_tried_again_once_it_is_repaired(self, tam, dataset, tmp_path):
        path = dataset / "Annotations/480p/still/00004.png"
        good = path.read_bytes()
        path.write_bytes(b"damaged")
        tam("evaluate", dataset, "--out", tmp_path / "out")
        path.write_bytes(good)
        assert tam("evaluate", dataset, "--out", tmp_path / "out")[2] == ""
        assert report_of(tmp_path / "out")["summary"]["sequences"] == 3

    def test_an_engine_that_fails_costs_one_sequence(self, tam, dataset, tmp_path, monkeypatch):
        engine = fake_engine()
        steps = engine.propagator.steps

        def fail_once(frame: int) -> None:
            if len(steps) == 20:
                steps.append(-1)
                raise RuntimeError("out of memory")

        engine.propagator.before_step = fail_once
        monkeypatch.setattr("tam_backend.commands.evaluate.load_engine", lambda name: engine)
        code, _, err = tam("evaluate", dataset, "--out", tmp_path / "out")
        assert code == 0
        assert "skipped right: RuntimeError: out of memory (see " in err
        assert "fail_once" in (tmp_path / "out/.tam/errors/right.txt").read_text()

    def test_a_process_that_dies_costs_what_it_had_in_hand(self, dataset, tmp_path, capfd, monkeypatch):
        """And the next call does what is left."""
        arguments = ["evaluate", str(dataset), "--jobs", "2", "--limit", "2", "--out", str(tmp_path / "out")]
        monkeypatch.setattr("tam_backend.evaluation.runner._work", die)
        assert main(arguments) == 1
        err = capfd.readouterr().err
        assert "skipped both: a process at work died" in err
        assert "skipped right: a process at work died" in err
        monkeypatch.undo()
        assert main(arguments) == 0
        assert report_of(tmp_path / "out")["skipped"] == {}

    def test_nothing_at_all(self, tam, dataset, tmp_path):
        for path in dataset.rglob("00000.png"):
            path.write_bytes(b"damaged")
        code, _, err = tam("evaluate", dataset, "--out", tmp_path / "out")
        assert code == 1
        assert "none of the 3 sequences" in err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--init", "clicks:0"], "clicks:N with N from 1 to 20"),
            (["--init", "scribble"], "give first-mask, box or clicks:N"),
            (["--protocol", "noc", "--init", "box"], "--init belongs to the protocol semi-supervised"),
            (["--choose", "suggested"], "--choose belongs to the protocol offline"),
            (["--jobs", "0"], "is not a whole number above 0"),
            (["--imset", "nowhere.txt"], "there is no list of sequences nowhere.txt"),
        ],
    )
    def test_refused(self, tam, dataset, tmp_path, options, message):
        code, _, err = tam("evaluate", dataset, "--out", tmp_path / "out", *options)
        assert code == 2
        assert message in err
        assert not (tmp_path / "out").exists()

    def test_out_must_be_a_folder_of_its_own(self, tam, dataset, tmp_path):
        assert "is inside the data set" in tam("evaluate", dataset, "--out", dataset / "Annotations")[2]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thesis.txt").touch()
        assert "has files that are not from tam evaluate" in tam("evaluate", dataset, "--out", tmp_path / "mine")[2]

    def test_two_at_once_on_one_folder(self, tam, dataset, tmp_path):
        out = tmp_path / "out"
        tam("evaluate", dataset, "--limit", 1, "--out", out)
        with hold_lock(out / ".tam/lock", ""):
            code, _, err = tam("evaluate", dataset, "--out", out)
        assert code == 1
        assert (
            err
            == f"tam evaluate: error: another tam evaluate is writing to {out}; wait for it or choose another --out\n"
        )

    def test_other_conditions_need_another_folder(self, tam, dataset, tmp_path):
        out = tmp_path / "out"
        tam("evaluate", dataset, "--limit", 1, "--out", out)
        code, _, err = tam("evaluate", dataset, "--limit", 1, "--out", out, "--init", "box")
        assert code == 2
        assert "has results with init 'first-mask'" in err
        assert tam("evaluate", dataset, "--limit", 1, "--out", out, "--init", "box", "--force")[0] == 0
        assert report_of(out)["conditions"]["init"] == "box"


class TestGoingOn:
    def test_known_sequences_are_not_computed_again(self, tam, dataset, tmp_path, monkeypatch):
        out = tmp_path / "out"
        tam("evaluate", dataset, "--limit", 1, "--out", out)
        engine = fake_engine()
        monkeypatch.setattr("tam_backend.commands.evaluate.load_engine", lambda name: engine)
        tam("evaluate", dataset, "--out", out)
        assert len(engine.propagator.steps) == 2 * 7  # right and still, not both
        assert report_of(out)["summary"]["sequences"] == 3
        write_ids(dataset / "Annotations/480p/right/00003.png", moving_square(8)[4])
        tam("evaluate", dataset, "--out", out)
        assert len(engine.propagator.steps) == 3 * 7  # right has changed
        assert min(report_of(out)["sequences"][1]["objects"]["1"]["J"]) < 1

    def test_several_processes_give_the_same(self, dataset, tmp_path, capfd):
        for jobs in (1, 2):
            out = tmp_path / f"out{jobs}"
            assert main(["evaluate", str(dataset), "--jobs", str(jobs), "--limit", "2", "--out", str(out)]) == 0
        assert content_of(tmp_path / "out1") == content_of(tmp_path / "out2")

    @pytest.mark.parametrize(("protocol", "kills"), [("semi-supervised", 2), ("offline", 1)])
    def test_killed_at_random_moments(self, dataset, tmp_path, protocol, kills):
        """SIGKILL, wherever it strikes; the same call again, until it is done: as if nothing had happened."""
        rng = random.Random()
        undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
        assert self._start(dataset, undisturbed, 0, protocol).wait(timeout=60) == 0
        killed = 0
        for _ in range(kills):
            process = self._start(dataset, out, 0.02, protocol)
            deadline = time.monotonic() + 30
            while not (out / ".tam/store").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            killed += process.wait(timeout=30) == -signal.SIGKILL
        assert killed
        again = self._start(dataset, out, 0, protocol)
        assert again.wait(timeout=60) == 0
        assert content_of(out) == content_of(undisturbed)
        assert not list(out.rglob("*.partial"))
        assert not list((out / ".tam/store").iterdir())

    @staticmethod
    def _start(dataset: Path, out: Path, seconds: float, protocol: str) -> subprocess.Popen[bytes]:
        arguments = ["evaluate", str(dataset), "--protocol", protocol, "--limit", "2", "--out", str(out)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.tam", *arguments],
            cwd=ROOT,
            env={**os.environ, "TAM_TEST_SECONDS": str(seconds)},
            stdout=subprocess.DEVNULL,
        )
