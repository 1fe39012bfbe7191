"""``tam batch`` in this process: manifests, what is tried again, what is known, reports, dead letters."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from tam_backend.cli import main
from tam_backend.cluster.executors import Event, InProcess
from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import read_manifest
from tam_backend.commands.batch_run import Batch
from tam_backend.commands.batch_work import Finished, track_item
from tam_backend.errors import BadInput
from tests.fakes import fake_engine, make_video

FRAMES = 8


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small videos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAM_ENGINE", "embedded")
    for name in ("a", "b", "c"):
        make_video(tmp_path / f"{name}.mp4", FRAMES)
    return tmp_path


def manifest(folder: Path, *lines: dict[str, Any] | str, name: str = "m.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def click(name: str, /, **more: Any) -> dict[str, Any]:
    return {"video": f"{name}.mp4", "click": ["0,17,17"], **more}


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "report.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def letters(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "dead-letters.jsonl").read_text().splitlines()]


def test_videos_become_folders_with_reports(folder, capsys):
    first = np.zeros((48, 64), np.uint8)
    first[12:22, 12:22] = 7
    Image.fromarray(first).save(folder / "first.png")
    path = manifest(
        folder,
        click("a", label="1=Person"),
        {"video": "b.mp4", "name": "second", "mask": "2=first.png", "start": 1, "end": 5},
    )
    out = folder / "out"
    assert main(["batch", str(path), "--out", "out"]) == 0
    assert "2 of 2 videos done: 12 frames" in capsys.readouterr().out
    assert len(list((out / "a").glob("*.png"))) == FRAMES
    assert sorted(p.name for p in (out / "second").glob("*.png")) == [f"{i:05d}.png" for i in range(1, 6)]
    assert (np.array(Image.open(out / "second" / "00002.png")) == first).all()
    report = json.loads((out / "a.report.json").read_text())
    assert (report["frames"], report["computed"], report["objects"]["1"]["label"]) == (FRAMES, FRAMES, "Person")
    row = rows(out)["second"]
    assert (row["state"], row["attempts"], row["frames"], row["objects"]) == ("done", "1", "5", "1")
    assert letters(out) == []
    assert not (out / ".unfinished" / "a").exists()
    assert main(["export", "out/a", "--format", "coco", "--out", "coco", "--quiet"]) == 0  # it is as of tam track


def test_a_box_begins_a_track(folder, capsys):
    """Of which object it says; one that is not in the picture, or beside another one, is refused."""
    lines = (
        {"video": "a.mp4", "box": ["0,8,8,26,26:2"]},
        {"video": "b.mp4", "box": "0,8,8,99,26"},
        {"video": "c.mp4", "box": ["0,8,8,26,26", "0,9,9,26,26"]},
    )
    assert main(["batch", str(manifest(folder, *lines)), "--out", "out", "--quiet"]) == 1
    ids = np.array(Image.open(folder / "out" / "a" / "00000.png"))
    assert set(np.unique(ids)) == {0, 2}
    assert set(np.unique(ids[10:24, 10:24])) >= {2}
    found = {letter["name"]: letter for letter in letters(folder / "out")}
    assert "must be left < right <= 64" in found["b"]["error"]
    assert "object 1 has a mask or another box on that frame" in found["c"]["error"]
    assert found["b"]["box"] == "0,8,8,99,26"
    digests = {item.digest("e-1") for item in read_manifest(manifest(folder, *lines, name="n.jsonl"))}
    assert len(digests) == 3


def test_a_dry_run_says_what_is_left(folder, capsys):
    path = manifest(folder, click("a"), click("b"))
    main(["batch", str(manifest(folder, click("a"), name="n.jsonl")), "--out", "out", "--quiet"])
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert main(["batch", str(path), "--out", "out", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "b.mp4 would be tracked" in said
    assert "1 done already" in said
    assert sorted(folder.rglob("*")) == before


def test_masks_are_those_of_tam_track(folder):
    main(["batch", str(manifest(folder, click("a"))), "--out", "out", "--quiet"])
    main(["track", "a.mp4", "--click", "0,17,17", "--out", "tracked", "--quiet"])
    for i in range(FRAMES):
        ours, theirs = (folder / f / f"{i:05d}.png" for f in ("out/a", "tracked"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_same_again_does_nothing_and_another_prompt_does(folder, capsys):
    main(["batch", str(manifest(folder, click("a"), click("b"))), "--out", "out", "--quiet"])
    before = (folder / "out" / "a.report.json").stat().st_mtime_ns
    path = manifest(folder, click("a"), {"video": "b.mp4", "click": ["0,18,18"]})
    capsys.readouterr()
    assert main(["batch", str(path), "--out", "out", "--quiet"]) == 0
    assert "1 of 2 videos done, 1 known before" in capsys.readouterr().out
    assert (folder / "out" / "a.report.json").stat().st_mtime_ns == before
    assert {name: row["state"] for name, row in rows(folder / "out").items()} == {"a": "known", "b": "done"}
    assert main(["batch", str(path), "--out", "out", "--quiet", "--force"]) == 0
    assert "2 of 2 videos done:" in capsys.readouterr().out


def test_what_cannot_be_done_is_put_aside_and_can_be_tried_again(folder, capsys):
    (folder / "bad.mp4").write_bytes(b"no video")
    path = manifest(folder, click("a"), click("bad"), click("none"), click("b", end=99), click("c", click="0,999,1"))
    out = folder / "out"
    assert main(["batch", str(path), "--out", "out"]) == 1
    said = capsys.readouterr()
    assert "4 videos failed: see dead-letters.jsonl" in said.out
    found = {letter["name"]: letter["error"] for letter in letters(out)}
    assert found.keys() == {"bad", "none", "b", "c"}
    assert "not a video" in found["bad"]
    assert "there is no file" in found["none"]
    assert "frames 0 to 99 are not in the video" in found["b"]
    assert "0,999,1" in found["c"]
    assert [letter["attempts"] for letter in letters(out)] == [1] * 4  # none would do better a second time
    make_video(folder / "bad.mp4", FRAMES)
    (folder / "none.mp4").write_bytes((folder / "bad.mp4").read_bytes())
    (out / "dead-letters.jsonl").replace(folder / "again.jsonl")
    assert main(["batch", "again.jsonl", "--out", "out", "--quiet"]) == 1
    assert {letter["name"] for letter in letters(out)} == {"b", "c"}
    assert (out / "bad" / "00007.png").exists()


class Moody:
    """An executor whose worker fails so often, and then does what it should."""

    workers = 1

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def run(self, items: deque[Any]):
        while items:
            item = items.popleft()
            yield Event("began", item, 1, "here")
            if self.failures:
                self.failures -= 1
                yield Event("failed", item, 1, "here", error=OSError("the bucket does not answer"))
                continue
            yield from InProcess(lambda: lambda i: track_item(fake_engine(), i, Place("out"))).run(deque([item]))


@pytest.mark.parametrize(("failures", "state", "attempts"), [(2, "done", 4), (9, "failed", 3)])
def test_what_may_pass_is_tried_again(folder, failures, state, attempts):
    items = read_manifest(manifest(folder, click("a")))
    batch = Batch(items, Place("out"), "fake-1", retries=2, quiet=True)
    batch.run(Moody(failures))
    batch.write_reports()
    row = rows(folder / "out")["a"]
    assert (row["state"], int(row["attempts"])) == (state, attempts)
    assert row["error"] == ("" if state == "done" else "the bucket does not answer")
    assert bool(letters(folder / "out")) == (state == "failed")


def test_another_worker_goes_on_where_one_stopped(folder, monkeypatch):
    """It dies after five frames; what it had finished is not computed again."""
    monkeypatch.setattr("tam_backend.cluster.segments.SEGMENT_SECONDS", 0.0)
    [item] = read_manifest(manifest(folder, click("a")))
    engine = fake_engine()

    def die(frame: int) -> None:
        if frame == 5:
            raise OSError("the machine is gone")

    engine.propagator.before_step = die
    with pytest.raises(OSError, match="gone"):
        list(track_item(engine, item, Place("out")))
    assert engine.propagator.steps == [1, 2, 3, 4]
    other = fake_engine()
    *_, finished = track_item(other, item, Place("out"))
    assert isinstance(finished, Finished)
    assert other.propagator.steps[-3:] == [5, 6, 7]
    assert (finished.report["frames"], finished.report["computed"]) == (FRAMES, 3)
    assert not Path("out/.unfinished/a").exists()


def test_a_caller_that_wants_no_more_stops_the_work(folder, monkeypatch):
    monkeypatch.setattr("tam_backend.commands.batch_work._TELL_EVERY", 0.0)
    [item] = read_manifest(manifest(folder, click("a")))
    engine = fake_engine(seconds=0.05)
    messages = track_item(engine, item, Place("out"))
    next(messages)
    messages.close()
    assert len(engine.propagator.steps) < FRAMES - 1
    assert not Path("out/a").exists()


def test_a_bucket_gets_a_zip_for_each_video(folder):
    """fsspec's file system in memory stands for the bucket, also for where the video comes from."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/films/a.mp4", (folder / "a.mp4").read_bytes())
    path = manifest(folder, {"video": "memory://films/a.mp4", "click": "0,17,17"})
    assert main(["batch", str(path), "--out", "memory://masks", "--quiet"]) == 0
    (folder / "a.zip").write_bytes(memory.cat_file("/masks/a.zip"))
    with zipfile.ZipFile(folder / "a.zip") as archive:
        assert {"00000.png", "predictions.json", "label_config.xml", ".tam/run.json"} <= set(archive.namelist())
        assert not [name for name in archive.namelist() if "store" in name or "lock" in name]
    assert memory.exists("/masks/a.report.json")
    assert not memory.exists("/masks/.unfinished/a")


def test_masks_may_come_back_through_the_executor(folder):
    items = read_manifest(manifest(folder, click("a")))
    batch = Batch(items, Place("out"), "fake-1", retries=0, quiet=True)
    batch.run(InProcess(lambda: lambda item: track_item(fake_engine(), item, None)))
    assert batch.counts == {"done": 1}
    assert len(list(Path("out/a").glob("*.png"))) == FRAMES


def test_ctrl_c_keeps_what_is_finished(folder):
    """And the same command goes on: with what the video under way had, too."""
    make_video(folder / "long.mp4", 120, 320, 240)
    path = manifest(folder, click("a"), click("long"))
    command = [sys.executable, "-m", "tam_backend.cli", "batch", str(path), "--out", "out"]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    for line in process.stderr:
        if re.search(r"long: \d\d+ of 120", line):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopped; the same command goes on from here" in err
    assert "Traceback" not in err
    assert {name: row["state"] for name, row in rows(folder / "out").items()} == {"a": "done", "long": "unfinished"}
    assert "1 of 2 videos done" in out
    assert main(["batch", str(path), "--out", "out", "--quiet"]) == 0
    row = rows(folder / "out")["long"]
    assert (row["state"], row["frames"]) == ("done", "120")
    assert 0 < int(row["computed"]) < 120


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: it is no JSON"),
        ("[]", "it must be a JSON object"),
        ({"click": "0,1,1"}, 'it has no "video"'),
        ({"video": "a.mp4"}, "it must say what to track"),
        ({"video": 3, "click": "0,1,1"}, "video must be a text, not 3"),
        (click("a", klick=1), "there is no 'klick'"),
        (click("a", click="0,1"), "'0,1' is not FRAME,X,Y"),
        (click("a", click=[1]), "click must be a list of texts"),
        (click("a", mask="first.png"), "mask 'first.png' is not FRAME=PNG"),
        (click("a", mask="0=first.png:999"), "is not FRAME=PNG"),
        (click("a", label="2=Dog"), "no object 2 is tracked"),
        (click("a", box="0,1,1,2"), "'0,1,1,2' is not FRAME,LEFT,TOP,RIGHT,BOTTOM"),
        (click("a", box="0,1,1,2,x:2"), "is not FRAME,LEFT,TOP,RIGHT,BOTTOM"),
        (click("a", start=-1), "start must be the number of a frame"),
        (click("a", start=True), "start must be the number of a frame"),
        (click("a", start=5, end=4), "start 5 is after end 4"),
        (click("a", name="../x"), "must be letters, digits"),
        (click("a", refine_masks="yes"), "refine_masks must be true or false"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_where_and_why(folder, line, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        read_manifest(manifest(folder, line))


def test_names_are_needed_where_files_are_called_the_same(folder):
    with pytest.raises(BadInput, match="line 2: line 1 is called 'a', too"):
        read_manifest(manifest(folder, click("a"), click("x/a")))
    with pytest.raises(BadInput, match="names no video"):
        read_manifest(manifest(folder, ""))
    with pytest.raises(BadInput, match="cannot be read"):
        read_manifest(folder / "none.jsonl")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--workers", "2"], "--workers goes with --address"),
        (["--address", "local", "--workers", "0"], "--workers must be 1 or more"),
        (["--retries", "-1"], "--retries must be 0 or more"),
        (["--return-masks"], "--return-masks goes with --address"),
        (["--out", "s3://bucket/x"], "s3fs"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder, capsys, options, says):
    path = manifest(folder, click("a"))
    assert main(["batch", str(path), "--out", "out", *options]) == 2
    assert says in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = manifest(folder, click("a"))
    assert main(["batch", str(path), "--out", "out", "--address", "local"]) == 1
    assert "Ray is not installed: pip install" in capsys.readouterr().err
