"""``tam storage`` on the directory of a server that was used."""

from __future__ import annotations

import json

import pytest

from tam_backend.cli import main
from tests.server.conftest import Backend, masks_of, point
from tests.server.test_background import FRAMES, accepted, quick, tracked, until


@pytest.fixture
def used(backend: Backend, tmp_path, monkeypatch):
    """A server on whose only task somebody clicked; and the task."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    backend.click(task, point("p1", 5, 20, 24))
    tracked(backend)
    return backend, task


def submit(backend: Backend, task, *regions) -> None:
    """Label Studio's event when an annotation is submitted."""
    annotation = {"id": 3, "task": task["id"], "result": list(regions)}
    event = {"action": "ANNOTATION_CREATED", "annotation": annotation, "project": {"id": 1}, "task": task}
    event["project"]["label_config"] = backend.config
    assert backend.client.post("/webhook", json=event).status_code == 200


def test_masks_stay_until_they_are_submitted(used, capsys):
    backend, task = used
    steps = len(backend.engine.propagator.steps)
    assert main(["storage", "prune", "--max-mb", "0"]) == 0
    assert "dropped: 0 masks" in capsys.readouterr().out
    backend.service._memory._blobs.clear()
    assert len(masks_of(backend.click(task, point("p1", 5, 20, 24)))) == FRAMES
    assert len(backend.engine.propagator.steps) == steps
    tracked(backend)
    backend.service.jobs.drop(lambda track: True, "enough")
    submit(backend, task, *accepted(point("other", 5, 20, 24)))
    submit(backend, task, *accepted(point("p1", 5, 20, 24)))
    until(lambda: all(t.submitted for t in backend.service._tracks.of_task(backend.label_studio.url, task["id"])))
    assert main(["storage", "prune", "--max-mb", "0", "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert dry.startswith("would go: ")
    assert main(["storage", "prune", "--max-mb", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == dry.splitlines()[0].replace("would go", "dropped")
    backend.service._memory._blobs.clear()
    assert len(masks_of(backend.click(task, point("p1", 5, 20, 24)))) == 1, "computed again, nearest first"
    tracked(backend)
    assert len(backend.engine.propagator.steps) == 2 * steps


@pytest.mark.usefixtures("used")
def test_show_says_what_is_there(capsys):
    assert main(["storage", "show", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["masks"] > FRAMES
    [project] = facts["projects"]
    assert (project["project"], project["tasks"], project["unsubmitted"]) == (1, 1, 1)
    assert facts["bytes"]["videos"] > 0
    assert main(["storage", "show"]) == 0
    out = capsys.readouterr().out
    assert "project 1 of http://127.0.0.1" in out
    assert "1 objects not submitted" in out


def test_videos_go_unless_they_are_needed_or_in_use(used, tmp_path, capsys):
    backend, task = used
    [video] = (tmp_path / "data" / "videos").glob("*/media/*/*")
    assert main(["storage", "prune", "--project", "1", "--videos"]) == 0
    assert "kept: 1 downloaded videos" in capsys.readouterr().out
    submit(backend, task, *accepted(point("p1", 5, 20, 24)))
    backend.service.jobs.drop(lambda track: True, "enough")
    until(lambda: not backend.service._tracks.needing())
    backend.service.library._release(video.parts[-4])
    backend.service.close()
    assert main(["storage", "prune", "--project", "1", "--videos", "--dry-run"]) == 0
    assert video.exists()
    assert main(["storage", "prune", "--project", "1", "--videos"]) == 0
    assert not video.exists()
    assert "what was noted of 1 tasks" in capsys.readouterr().out
    assert main(["storage", "compact"]) == 0
    assert main(["storage", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["projects"] == []


@pytest.mark.usefixtures("used")
def test_compacting_beside_a_server_is_refused(capsys):
    assert main(["storage", "compact"]) == 1
    assert "stop it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say what may go"),
        (["--older-than", "-1"], "--older-than must be 0 or more"),
        (["--max-mb", "nan"], "--max-mb must be 0 or more"),
        (["--max-mb", "5", "--videos"], "--videos needs"),
        (["--older-than", "5", "--label-studio", "http://x"], "goes with --project"),
    ],
)
def test_conditions_that_make_no_sense_are_named(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path))
    assert main(["storage", "prune", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_directory_that_holds_nothing_is_named_and_left_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path))
    assert main(["storage", "show"]) == 2
    assert "set TAM_DATA_DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
