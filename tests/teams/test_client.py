"""The client for whole projects: paging, tokens, patience, and what it says when something is wrong."""

import pytest

from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.projects import Patience, ProjectClient, Vanished
from tests.teams.standin import LEGACY, PERSONAL, StandIn


def test_every_page_is_read_once_and_in_order(studio, client):
    project = studio.add_project()["id"]
    for i in range(450):
        studio.add_task(project, {"n": i})
    assert [t["data"]["n"] for t in client.tasks(project)] == list(range(450))
    assert [t["data"]["n"] for t in client.tasks(project, whole=True)] == list(range(450))
    assert len(studio.asked("GET", r"^/api/tasks\?")) == 9 + 45
    for i in range(220):
        studio.add_project(f"P{i}")
    assert len(list(client.projects())) == 221


def test_whole_tasks_have_what_people_made(studio, client):
    project = studio.add_project()["id"]
    studio.add_task(project, {}, annotations=[{"id": 1}])
    assert next(client.tasks(project, whole=True))["annotations"] == [{"id": 1}]
    assert "annotations" not in next(client.tasks(project))


def test_a_personal_token_is_exchanged(studio):
    studio.add_project("Mine")
    client = ProjectClient(Connection(studio.url, PERSONAL), Patience(0))
    assert client.find_project("Mine")["id"] == 1
    assert studio.access_given == 1
    studio.access_given += 1  # the one that we have has ended
    assert client.find_project("1")["title"] == "Mine"
    assert studio.access_given == 3


@pytest.mark.parametrize(
    ("token", "message"), [("f" * 40, "refuses the token"), (PERSONAL + "x", "refuses the personal")]
)
def test_a_wrong_token_is_said_at_once(token, message, studio):
    client = ProjectClient(Connection(studio.url, token), Patience(60))
    with pytest.raises(LabelStudioError, match=message) as error:
        client.whoami()
    assert not isinstance(error.value, Vanished)
    assert token not in str(error.value)


def test_a_project_is_found_by_id_address_or_title(studio, client):
    studio.add_project("First")
    number = studio.add_project("2024")["id"]
    studio.add_project("Twice")
    studio.add_project("Twice")
    assert client.find_project("First")["id"] == 1
    assert client.find_project(f"{studio.url}/projects/{number}/data?task=3")["title"] == "2024"
    assert client.find_project("2024")["id"] == number  # there is no project with that id
    with pytest.raises(BadInput, match=r"2 projects are called 'Twice'.*4, 3"):
        client.find_project("Twice")
    with pytest.raises(BadInput, match=r"there is no project 'Third'.*'First' \(1\)"):
        client.find_project("Third")
    with pytest.raises(BadInput, match="there is no project 77"):
        client.find_project(f"{studio.url}/projects/77/")
    with pytest.raises(BadInput, match="on another Label Studio"):
        client.find_project("http://other:8080/projects/1/data")


def test_uploads_keep_their_names(studio, client):
    project = studio.add_project()["id"]
    ids = client.upload(project, [("a.jpg", b"1"), ("b.jpg", b"2\r\n--3"), ("c.jpg", b"")])
    assert ids == [1, 2, 3]
    files = client.uploads(project)
    assert [f.name for f in files] == ["a.jpg", "b.jpg", "c.jpg"]
    assert list(studio.uploads.values()) == [b"1", b"2\r\n--3", b""]
    assert files[1].url == f"/data/upload/{project}/00000001-b.jpg"
    with pytest.raises(LabelStudioError, match=r"clip\.mov"):
        client.upload(project, [("clip.mov", b"")])


def test_a_backend_that_does_not_answer_is_said(studio, client):
    project = studio.add_project()["id"]
    studio.backend_works = False
    with pytest.raises(LabelStudioError, match="Can't connect to ML backend http://b"):
        client.connect_backend(project, {"url": "http://b", "is_interactive": True})
    studio.backend_works = True
    backend = client.connect_backend(project, {"url": "http://b", "is_interactive": True, "state": "CO"})
    assert client.backends(project) == [backend]
    with pytest.raises(LabelStudioError, match="cannot use the backend at http://b: ER"):
        client.change_backend(backend["id"], {"state": "ER"})


# ---- patience


def test_it_waits_for_a_label_studio_that_restarts(studio):
    project = studio.add_project()["id"]
    studio.answers, studio.seconds_away = 0, 0.8
    assert ProjectClient(Connection(studio.url, LEGACY), Patience(20)).project(project)["id"] == project


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_it_waits_for_a_proxy(status, studio, client):
    studio.add_project()
    studio.busy = [status, status]
    assert client.project(1)["id"] == 1


def test_it_does_not_wait_for_ever(studio, client):
    studio.add_project()
    studio.answers = 0
    with pytest.raises(Vanished, match="does not answer"):
        client.project(1)
    studio.answers = None
    studio.busy = [502] * 100_000
    with pytest.raises(Vanished, match="answers 502: it, or a proxy"):
        client.project(1)


@pytest.mark.parametrize("carried", [False, True])
def test_what_may_have_been_created_is_not_created_twice(carried, studio, client):
    studio.answers, studio.carried = 0, carried
    with pytest.raises(Vanished):
        client.create_project({"title": "Once", "label_config": "<View/>"})
    assert len(studio.projects) == carried
    studio.answers = None
    studio.busy = [502]
    with pytest.raises(Vanished):
        client.create_project({"title": "Once", "label_config": "<View/>"})


def test_creating_waits_while_nobody_listens():
    """A request that never arrived may be sent again."""
    gone = StandIn()
    gone.close()
    pauses = []
    client = ProjectClient(Connection(gone.url, LEGACY), Patience(1.2, sleep=pauses.append))
    with pytest.raises(Vanished, match="cannot be connected to"):
        client.create_project({"title": "Once", "label_config": "<View/>"})
    assert pauses == [0.5, 1.0]
