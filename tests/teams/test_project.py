"""``tam project create``: what it makes, that it can be run again, and what it says when something is wrong."""

from __future__ import annotations

import pytest

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.layouts import CONTROLS, distinct_colours, labeling_config

CREATE = ("project", "create", "Street", "--label", "Person", "--label", "Ball", "--instances", "Person=2")
BACKEND = ("--backend", "http://backend.test:9090/SECRETPATH0123456")


def test_a_project_ready_for_annotators(ask, studio):
    result = ask(*CREATE, *BACKEND, "--annotators", "2")
    assert result.code == 0, result.err
    [project] = studio.projects.values()
    vocabulary = Vocabulary.of_config(parse_label_config(project["label_config"]))
    assert [(i.label, i.category, i.track) for i in vocabulary] == [
        ("Person 1", "Person", 1), ("Person 2", "Person", 2), ("Ball", "Ball", 1),
    ]  # fmt: skip
    assert project["show_collab_predictions"] is True
    assert project["evaluate_predictions_automatically"] is False
    assert project["maximum_annotations"] == 2
    assert "Person 1" in project["expert_instruction"]
    [backend] = studio.backends.values()
    assert (backend["is_interactive"], backend["url"]) == (True, BACKEND[1])
    assert [h["url"] for h in studio.webhooks] == [f"{BACKEND[1]}/webhook"]
    assert "Auto-Annotation on" in result.out
    assert "class Person: 2 objects (Person 1, Person 2)" in result.out
    assert "SECRETPATH" not in result.out + result.err


def test_twice_changes_nothing(ask, studio):
    assert ask(*CREATE, *BACKEND).code == 0
    before = (dict(studio.projects), dict(studio.backends), list(studio.webhooks))
    result = ask(*CREATE, *BACKEND)
    assert result.code == 0
    assert "is there already" in result.out
    assert (studio.projects, studio.backends, studio.webhooks) == before
    assert not studio.asked("PATCH", ".")


@pytest.mark.parametrize("done", range(8))
def test_it_goes_on_where_label_studio_vanished(done, ask, studio, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.projects._PAUSES", (0.05,))
    studio.answers, studio.carried = done, bool(done % 2)
    broken = ask(*CREATE, *BACKEND, "--wait", "0.1")
    if broken.code:
        assert broken.code == 1
        assert "does not answer" in broken.err
        assert broken.err.count("\n") == 1 or "backend is not connected" in broken.err
    studio.answers = None
    assert ask(*CREATE, *BACKEND).code == 0
    assert (len(studio.projects), len(studio.backends), len(studio.webhooks)) == (1, 1, 1)


def test_a_dry_run_changes_nothing(ask, studio):
    result = ask(*CREATE, "--dry-run")
    assert result.code == 0
    assert "would be made" in result.out
    assert '<Label value="Person 2"' in result.out
    assert studio.projects == {}
    assert all(method == "GET" for method, _ in studio.requests)


def test_another_project_of_the_name_is_left_alone(ask, studio):
    studio.add_project("Street", "<View/>")
    result = ask(*CREATE)
    assert result.code == 2
    assert "another labeling configuration" in result.err
    assert len(studio.projects) == 1


def test_a_backend_that_cannot_be_used(ask, studio):
    studio.backend_works = False
    result = ask(*CREATE, "--backend", "http://nowhere.test:1")
    assert result.code == 1
    assert "the project is there, but the backend is not connected" in result.err
    assert "http://nowhere.test:1" in result.err
    studio.backend_works = True
    assert ask(*CREATE, "--backend", "http://nowhere.test:1").code == 0
    assert len(studio.projects) == 1


def test_what_the_lead_has_to_know(ask, studio):
    studio.webhooks_work = studio.legacy_tokens = False
    result = ask(*CREATE, *BACKEND)
    assert result.code == 0
    assert "refuses a webhook" in result.out
    assert "the backend needs a token of its own" in result.out


def test_basic_auth_goes_into_the_connection(ask, studio, monkeypatch):
    monkeypatch.setenv("TAM_BASIC_AUTH_USER", "label")
    monkeypatch.setenv("TAM_BASIC_AUTH_PASSWORD", "a-long-password")
    result = ask(*CREATE, *BACKEND)
    [backend] = studio.backends.values()
    assert (backend["auth_method"], backend["basic_auth_user"]) == ("BASIC_AUTH", "label")
    assert backend["basic_auth_pass"] == "a-long-password"
    assert "a-long-password" not in result.out + result.err


def test_boxes_on_a_video_need_no_backend(ask, studio):
    result = ask("project", "create", "Boxes", "--label", "Car", "--control", "rectangle")
    assert result.code == 0
    assert not studio.backends
    assert "<VideoRectangle" in studio.projects[1]["label_config"]
    assert "Auto-Annotation" not in result.out


@pytest.mark.parametrize("control", ["brush", "bitmask"])
def test_configurations_that_this_backend_can_use(control):
    config = parse_label_config(labeling_config(['A "b" & c', "Ä 1"], control))
    [masks] = config.masks
    assert masks.labels == ('A "b" & c', "Ä 1")
    assert masks.type == f"{control}labels"
    assert config.boxes == ()
    assert set(CONTROLS) == {"brush", "bitmask", "rectangle"}


def test_colours_of_labels_differ():
    colours = distinct_colours(15)
    values = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in colours]
    near = min(sum(abs(a - b) for a, b in zip(x, y, strict=True)) for i, x in enumerate(values) for y in values[:i])
    assert near > 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("project", "create", "ab", "--label", "Dog"), "3 to 50"),
        (("project", "create", "Dogs"), "say what is to be labelled"),
        (("project", "create", "Dogs", "--label", "Dog", "--instances", "Cat=2"), "there is no --label 'Cat'"),
        (("project", "create", "Dogs", "--label", "Dog", "--instances", "Dog"), "is not CLASS=N"),
        (("project", "create", "Dogs", "--label", "Dog", "--backend", "ftp://x"), "is not an address"),
        (("project", "create", "Dogs", "--label", "Dog", "--control", "polygon"), "invalid choice"),
        (
            ("project", "create", "Dogs", "--label", "Dog", "--control", "rectangle", "--backend", "http://x"),
            "cannot go with --control rectangle",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_asked(arguments, message, ask, studio):
    result = ask(*arguments)
    assert result.code == 2
    assert message in result.err
    assert studio.requests == []
