"""``tam batch --project``: what decides, what is sent back to which task, and what goes wrong."""

from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.posting import model_version
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.labelstudio.seeds import SEEDS_KEY, Seed
from tam_backend.prompts import Box
from tests.cli.conftest import read_ids
from tests.fakes import fake_engine, make_video
from tests.teams.masks import CONFIG, HEIGHT, WIDTH, annotation, blob, clip, region
from tests.teams.standin import StandIn

FRAMES = 12
VERSION = model_version("fake")


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which masks stay where they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("tam_backend.labelstudio.projects._PAUSES", (0.05,))
    monkeypatch.setattr("tam_backend.labelstudio.media.Patience", partial(Patience, attempts=2, pause=0.05))
    monkeypatch.setattr("tam_backend.commands.batch.load_engine", lambda name, settings: fake_engine())


@pytest.fixture
def project(studio: StandIn, tmp_path: Path) -> dict:
    """Of one video two clips that share frame 6, of which one has masks of two objects on frame 2; of another video a
    clip on which nobody has worked; and a task without frames."""
    made = studio.add_project("Crossing", CONFIG, task_number=4)
    for name in ("street", "yard"):
        content = make_video(tmp_path / f"{name}.mp4", FRAMES, WIDTH, HEIGHT).read_bytes()
        studio.uploads[f"00000000-{name}.mp4"] = content
    given = [region("Person 1", 2, blob(20), by_hand=True), region("Ball", 2, blob(24), by_hand=True)]
    clip(studio, made["id"], 0, 7, annotations=[annotation(11, given)])
    clip(studio, made["id"], 6, 6)
    clip(studio, made["id"], 0, 4, "yard.mp4")
    studio.add_task(made["id"], {"video": "/data/upload/1/00000000-late.mp4"})
    return made


def sent(studio: StandIn, task: int) -> dict[tuple[str, int], dict]:
    """(label, item_index) -> region of the one prediction of a task; nothing without one."""
    ours = [p for p in studio.tasks[task]["predictions"] if p["model_version"] == VERSION]
    assert len(ours) <= 1
    regions = ours[0]["result"] if ours else []
    found = {(r["value"]["bitmasklabels"][0], r["item_index"]): r for r in regions}
    assert len(found) == len(regions)
    return found


def mask(found: dict) -> np.ndarray:
    return decode_region_mask(found, HEIGHT, WIDTH)


def rows(out: Path = Path("out")) -> dict[str, dict[str, str]]:
    with (out / "report.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def changes(studio: StandIn) -> list[tuple[str, str]]:
    return [(method, path) for method, path in studio.requests if method != "GET"]


BATCH = ("batch", "--project", "Crossing", "--out", "out")


def test_each_task_of_a_video_gets_the_masks_of_its_frames(ask, project, studio):
    result = ask(*BATCH)
    assert result.code == 0, result.err
    first, second = sent(studio, 1), sent(studio, 2)
    assert {(label, i) for label in ("Person 1", "Ball") for i in range(7)} == first.keys()
    assert {(label, i) for label in ("Person 1", "Ball") for i in range(6)} == second.keys()
    assert np.array_equal(mask(first["Person 1", 2]), blob(20))  # as people drew them, where they overlap as well
    assert np.array_equal(mask(first["Ball", 2]), blob(24))
    [control] = parse_label_config(CONFIG).masks
    late = second["Person 1", 5]  # frame 11
    assert (late["id"], late["from_name"], late["type"]) == (
        control.region_id("Person 1", 5),
        control.name,
        control.type,
    )
    assert (late["meta"]["engine"], late["meta"]["version"], late["meta"]["frame"]) == ("fake", "1", 11)
    assert 0 < late["score"] == late["meta"]["quality"] < first["Person 1", 2]["score"] == 1.0
    assert not (mask(late) & mask(second["Ball", 5])).any()
    assert studio.tasks[1]["annotations"][0]["result"]
    [prediction] = studio.tasks[2]["predictions"]
    assert 0 < prediction["score"] < 1
    assert prediction["task"] == 2

    ids = read_ids(Path("out/street/00011.png"))
    assert set(np.unique(ids)) == {0, 1, 3}  # the project's own numbers
    assert np.array_equal(ids == 1, mask(late))
    assert not Path("out/.given/street").exists()
    street = rows()["street"]
    assert (street["state"], street["frames"], street["tasks"], street["sent"]) == ("done", "12", "1 2", "1 2")


def test_what_has_nothing_to_start_from_is_said(ask, project, studio):
    result = ask(*BATCH)
    found = rows()
    assert {n: (r["state"], r["tasks"]) for n, r in found.items()} == {
        "street": ("done", "1 2"), "yard": ("nothing to start from", "3"), "task-4": ("nothing to start from", "4"),
    }  # fmt: skip
    assert "nothing was submitted, and it has no seeds" in found["yard"]["error"]
    assert "it has no frames yet" in found["task-4"]["error"]
    assert "yard (task 3): nothing to start from: nothing was submitted" in result.out
    assert "1 of 1 videos done" in result.out
    assert "2 tasks have their prediction" in result.out
    assert not studio.tasks[3]["predictions"]


def test_the_same_again_changes_nothing_and_another_mask_replaces(ask, project, studio):
    ask(*BATCH)
    before = changes(studio)
    result = ask(*BATCH)
    assert (result.code, changes(studio)) == (0, before), result.err
    assert "0 of 1 videos done, 1 known before" in result.out
    assert rows()["street"]["sent"] == "1 2"
    work = studio.tasks[1]["annotations"][0]
    work["result"][0] = region("Person 1", 2, blob(5), by_hand=True)
    studio.tasks[1]["updated_at"] = "2030-01-01T00:00:00Z"
    assert ask(*BATCH).code == 0
    assert [m for m, _ in changes(studio)[len(before) :]] == ["PATCH", "PATCH"]
    assert np.array_equal(mask(sent(studio, 2)["Person 1", 0]), blob(5))


def test_a_prediction_that_was_removed_is_sent_again(ask, project, studio):
    ask(*BATCH)
    whole = sent(studio, 2)
    studio.tasks[2]["predictions"].clear()
    result = ask(*BATCH)
    assert "1 known before" in result.out
    assert sent(studio, 2) == whole


def test_seeds_begin_where_nothing_was_submitted(ask, project, studio):
    """A mask, and a box; those of a task that was submitted count no more."""
    there = Seed("Person 2", 1, mask=blob(30)), Seed("Ball", 0, box=Box(4, 4, 12, 12))
    studio.tasks[3]["data"][SEEDS_KEY] = [s.as_json() for s in there]
    studio.tasks[1]["data"][SEEDS_KEY] = [Seed("Person 2", 0, mask=blob(40)).as_json()]
    result = ask(*BATCH)
    assert result.code == 0, result.err
    yard = sent(studio, 3)
    assert yard.keys() == {(label, i) for label in ("Person 2", "Ball") for i in range(4)}
    assert np.array_equal(mask(yard["Person 2", 3]), blob(30))
    assert mask(yard["Ball", 0])[5:11, 5:11].all()
    assert "Person 2" not in {label for label, _ in sent(studio, 1)}


def test_predictions_of_others_may_begin(ask, project, studio):
    others = {"id": 77, "model_version": "detector", "result": [region("Ball", 0, blob(3))], "updated_at": "2026-01-01"}
    ours = {"id": 78, "model_version": VERSION, "result": [region("Ball", 0, blob(9))], "updated_at": "2026-02-01"}
    studio.tasks[3].update(predictions=[others, ours], total_predictions=2)
    assert ask(*BATCH, "--from", "either").code == 0
    assert np.array_equal(mask(sent(studio, 3)["Ball", 3]), blob(3))
    assert sent(studio, 1)


def test_of_every_third_frame(ask, studio, project):
    """All frames are tracked; the task gets those that it shows, with numbers as the server counts."""
    frames = [f"http://backend/frames/{'ab' * 16}/{i}.jpg?sig=x" for i in (1, 2, 3)]
    cut = {"first": 3, "count": 3, "every": 3}
    data = {"video": "/data/upload/1/00000000-yard.mp4", "frames": frames, "cut": cut}
    work = annotation(40, [region("Ball", 1, blob(8))])
    task = studio.add_task(project["id"], data, annotations=[work], total_annotations=1)
    del studio.tasks[3]
    assert ask(*BATCH).code == 0
    found = sent(studio, task["id"])
    assert [(i, r["meta"]["frame"]) for (_, i), r in found.items()] == [(0, 1), (1, 2), (2, 3)]
    assert sorted(p.name for p in Path("out/yard").glob("*.png")) == [f"{i:05d}.png" for i in range(3, 10)]


def test_nothing_is_sent_if_so_asked(ask, project, studio):
    assert ask(*BATCH, "--no-send").code == 0
    assert changes(studio) == []
    assert rows()["street"]["state"] == "done"
    assert ask(*BATCH).code == 0  # it is known, and sent now
    assert sent(studio, 1)


def test_a_dry_run_names_tasks_and_what_decides(ask, project, studio):
    result = ask(*BATCH, "--dry-run")
    assert "street: frames 0 to 11 would be tracked, beginning with annotation 11; tasks 1, 2" in result.out
    assert "yard (task 3): nothing to start from" in result.out
    assert not Path("out").exists()
    assert not Path("data").exists()


def test_a_bucket(ask, project, studio):
    result = ask("batch", "--project", "Crossing", "--out", "memory://project-masks")
    assert result.code == 0, result.err
    assert fsspec.filesystem("memory").exists("/project-masks/street.zip")
    assert len(sent(studio, 1)) == 14


@pytest.mark.parametrize("carried", [False, True])
def test_a_server_that_vanishes_when_masks_are_sent(carried, ask, project, studio):
    """What is tracked stays, the error says what to do, and the same command sends what is missing, once."""
    ask(*BATCH, "--no-send")
    needed = len(studio.requests)
    for folder in ("out", "data"):
        shutil.rmtree(folder)
    studio.answers, studio.carried = needed + 3, carried  # the predictions of the first task, and one of the second
    result = ask(*BATCH, "--wait", "0.1")
    studio.answers = None
    assert result.code == 1
    assert "nothing more is sent by this call" in result.err
    assert "What is done stays done: the same command goes on from here" in result.err
    assert "1 of 1 videos done" in result.out
    assert len(studio.tasks[2]["predictions"]) == carried
    assert (rows()["street"]["state"], rows()["street"]["sent"]) == ("done", "")
    again = ask(*BATCH)
    assert "1 known before" in again.out
    assert [len(studio.tasks[t]["predictions"]) for t in (1, 2)] == [1, 1]
    assert rows()["street"]["sent"] == "1 2"


@pytest.mark.parametrize("answers", range(1, 6))
def test_a_server_that_vanishes_before(answers, ask, project, studio):
    studio.answers = answers
    result = ask(*BATCH, "--wait", "0.1")
    studio.answers = None
    assert result.code == 1
    assert "does not answer" in result.err
    assert "the same command goes on from here" in result.err
    assert not Path("out/report.csv").exists()
    assert "Traceback" not in result.err
    again = ask(*BATCH)
    assert again.code == 0, again.err
    assert len(sent(studio, 1)) == 14
    assert len(sent(studio, 2)) == 12
    assert [len(studio.tasks[t]["predictions"]) for t in (1, 2)] == [1, 1]


def test_a_task_that_was_deleted_meanwhile_is_named(ask, project, studio, monkeypatch):
    answer = studio.answer

    def deleting(method, path, query, body):
        if method == "POST" and path == "/api/predictions/" and body["task"] == 1:
            return 400, {"detail": "Validation error", "validation_errors": {"task": ['Invalid pk "1"']}}
        return answer(method, path, query, body)

    monkeypatch.setattr(studio, "answer", deleting)
    result = ask(*BATCH)
    assert result.code == 1
    assert "not sent: street, task 1: Label Studio answered 400" in result.err
    assert rows()["street"]["sent"] == "2"


def test_a_video_that_cannot_be_read_does_not_stop_the_others(ask, project, studio):
    studio.uploads["00000000-yard.mp4"] = b"no video"
    studio.tasks[3].update(annotations=[annotation(31, [region("Ball", 0, blob(3))])], total_annotations=1)
    result = ask(*BATCH)
    assert result.code == 1
    assert rows()["yard"]["state"] == "failed"
    assert "not a video" in rows()["yard"]["error"]
    assert len(sent(studio, 2)) == 12


def test_a_project_with_nothing_to_start_from(ask, project, studio):
    studio.tasks[1].update(annotations=[annotation(11, [])])
    result = ask(*BATCH)
    assert result.code == 2
    assert "there is nothing to start from in project 'Crossing' (it has no frames yet" in result.err
    assert not Path("out").exists()
    studio.tasks.clear()
    assert "(it has no tasks)" in ask(*BATCH).err


def test_a_project_without_our_frames(ask, project, studio):
    plain = {"video": "a.mp4", "frames": ["/data/upload/1/0.jpg"]}
    for task in studio.tasks.values():
        task["data"] = plain
    assert "its frames are not those of a video that its data names" in ask(*BATCH).err
    project["label_config"] = '<View><Image name="i" value="$image"/></View>'
    result = ask(*BATCH)
    assert (result.code, "shows one picture" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "out"], "say which videos: a MANIFEST, or --project PROJECT"),
        (["m.jsonl", "--project", "Crossing", "--out", "out"], "say which videos"),
        (["m.jsonl", "--out", "out", "--no-send"], "--no-send and --from go with --project"),
        ([*BATCH[1:], "--return-masks", "--address", "local"], "--return-masks goes with a MANIFEST"),
    ],
)
def test_options_that_make_no_sense_are_refused(ask, project, options, says):
    result = ask("batch", *options)
    assert (result.code, says in result.err) == (2, True), result.err
