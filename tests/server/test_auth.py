"""Basic auth, the secret path, what passes without either, and what is said about it."""

from __future__ import annotations

import base64
import io
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.server.auth import LOG_SECONDS, Guard
from tam_backend.settings import Settings
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import BASE, Backend
from tests.server.test_serve import free_port, start

USER, PASSWORD, SECRET = "label-studio", "pass:word-0123456", "s3cret_-path-0123456"
BASIC = {"basic_auth_user": USER, "basic_auth_password": PASSWORD}
PATH = {"secret_path": SECRET}
EVENT = {"action": "PROJECT_UPDATED", "project": {"id": 1, "label_config": EXAMPLE}}


def basic(user: str = USER, password: str = PASSWORD, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture
def make(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Any]:
    made: list[Backend] = []

    def make(**settings: Any) -> Backend:
        made.append(Backend(tmp_path / f"data{len(made)}", label_studio, **settings))
        return made[-1]

    yield make
    for backend in made:
        backend.service.close()


def routes(backend: Backend) -> list[tuple[str, str]]:
    """(method, path) of all routes but those of files."""
    rules = [r for r in backend.app.url_map.iter_rules() if "<" not in r.rule]
    return sorted((method, r.rule) for r in rules for method in (r.methods or ()) if method in ("GET", "POST"))


def test_every_route_but_frames_wants_the_credentials(make):
    backend = make(**BASIC)
    assert {path for _, path in routes(backend)} >= {
        "/", "/health", "/setup", "/predict", "/webhook", "/versions", "/status",
    }  # fmt: skip
    for method, path in [*routes(backend), ("GET", "/nothing"), ("DELETE", "/predict"), ("OPTIONS", "/setup")]:
        refused = backend.client.open(path, method=method)
        assert refused.status_code == 401, path
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="track anything"'
        assert set(refused.json) == {"error"}
        assert backend.client.open(path, method=method, headers=basic()).status_code != 401, path


@pytest.mark.parametrize(
    "headers",
    [
        {}, basic(user="other"), basic(password="other-0123456"), basic(user=PASSWORD, password=USER),
        basic(password=PASSWORD[:-1]), basic(password=PASSWORD + "x"), basic(user="", password=""),
        basic(scheme="Bearer"), basic(scheme=""), {"Authorization": "Basic"}, {"Authorization": "Basic ???"},
        {"Authorization": f"Basic {USER}:{PASSWORD}"}, {"Authorization": "Basic \xe9\xff"},
    ],
)  # fmt: skip
def test_wrong_credentials(make, headers):
    assert make(**BASIC).client.get("/health", headers=headers).status_code == 401


def test_the_scheme_is_case_insensitive_as_its_standard_says(make):
    assert make(**BASIC).client.get("/health", headers=basic(scheme="bAsIc")).status_code == 200


def test_all_else_lives_below_the_secret_path_and_is_not_found_elsewhere(make):
    backend = make(**PATH)
    for method, path in routes(backend):
        assert backend.client.open(f"/{SECRET}{path}", method=method).status_code not in (401, 404), path
    assert backend.client.get(f"/{SECRET}").status_code == 200
    unknown = backend.client.get(f"/{SECRET}/nothing")
    wrong = [path for _, path in routes(backend)]
    wrong += [f"/{SECRET[:-1]}/health", f"/{SECRET}x/health", f"/{SECRET.upper()}/health", f"//{SECRET}/health"]
    wrong += [f"/x/{SECRET}/health", f"/health/{SECRET}", "/%E9/health", "/\N{SNOWMAN}"]
    for path in wrong:
        for method in ("GET", "POST"):
            answer = backend.client.open(path, method=method)
            assert answer.status_code == 404, path
            assert answer.data == unknown.data
            assert answer.headers == unknown.headers


@pytest.mark.parametrize("settings", [BASIC, PATH, BASIC | PATH])
def test_frames_need_their_signature_only(make, label_studio, settings):
    backend = make(**settings)
    make_video(label_studio.root / "a.mp4")
    video = backend.service.library.register(
        "video", [f"{label_studio.url}/data/a.mp4"], _connected(backend, label_studio)
    )
    url = backend.service.links.url("", video, 3)
    assert backend.client.get(url).mimetype == "image/jpeg"
    assert backend.client.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403


def _connected(backend: Backend, label_studio: FakeLabelStudio):
    backend.service.connections.remember(label_studio.url, label_studio.TOKEN)
    return backend.service.connections.current()


class Unreadable(io.BytesIO):
    """A body that must not be touched."""

    def read(self, *args: object) -> bytes:
        raise AssertionError("the body was read")

    readline = readlines = readinto = read1 = read


@pytest.mark.parametrize(("settings", "status"), [(BASIC, 401), (PATH, 404), (BASIC | PATH, 404)])
def test_refused_before_the_body_is_read(make, settings, status):
    backend = make(**settings)
    answer = backend.client.post("/predict", input_stream=Unreadable(b"x" * 100))
    assert answer.status_code == status


def test_webhooks_pass_below_the_secret_path_without_credentials(make):
    backend = make(**BASIC, **PATH)
    client = backend.client
    assert client.post(f"/{SECRET}/webhook", json=EVENT).status_code == 200
    assert client.post("/webhook", json=EVENT, headers=basic()).status_code == 404
    for path in ("/setup", "/predict", "/webhook/", "//webhook", "/webhook/../setup", "/WEBHOOK", "/webhook%2f"):
        assert client.post(f"/{SECRET}{path}", json=EVENT).status_code == 401, path


def test_webhooks_without_a_secret_path_need_the_credentials(make, caplog):
    backend = make(**BASIC)
    assert "TAM_SECRET_PATH" in caplog.text  # said at the start
    assert backend.client.post("/webhook", json=EVENT).status_code == 401
    assert backend.client.post("/webhook", json=EVENT, headers=basic()).status_code == 200


def test_nothing_is_asked_for_and_nothing_said_without_settings(make, caplog):
    backend = make()
    for method, path in routes(backend):
        assert backend.client.open(path, method=method).status_code not in (401, 404), path
    assert "TAM_SECRET_PATH" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "script_name", "base"),
    [
        ({}, "", "http://host.test:9090"),
        ({}, "/mounted", "http://host.test:9090/mounted"),
        (PATH, "", "http://host.test:9090"),
        (PATH, "/mounted", "http://host.test:9090/mounted"),
        (PATH | {"public_url": BASE}, "/mounted", BASE),
    ],
)
def test_addresses_of_frames(make, label_studio, settings, script_name, base):
    """Without the secret, with the path that a server mounted us at; what a client says of proxies is not believed."""
    backend = make(**{"public_url": ""} | settings)
    make_video(label_studio.root / "a.mp4")
    _connected(backend, label_studio)
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    answer = backend.client.post(
        f"{'/' + SECRET if 'secret_path' in settings else ''}/predict",
        json=backend._request([task], None),
        base_url="http://host.test:9090",
        environ_overrides={"SCRIPT_NAME": script_name},
        headers={"X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"},
    )
    assert answer.status_code == 200
    frames = label_studio.tasks[task["id"]]["data"]["frames"]
    assert re.fullmatch(re.escape(base) + r"/frames/[0-9a-f]{32}/0\.jpg\?sig=[0-9a-f]{32}", frames[0])


def test_refusals_are_logged_now_and_then_and_without_secrets(caplog):
    now = [100.0]
    app = Flask("guarded")
    app.add_url_rule("/health", view_func=lambda: "ok")
    app.add_url_rule("/frames/x", view_func=lambda: "ok", endpoint="frame")
    Guard(app, Settings(**BASIC, **PATH), lambda: now[0])
    client = app.test_client()
    nearby = {"REMOTE_ADDR": "127.0.0.1"}

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    for _ in range(5):
        client.get(f"/{SECRET}/health", headers=basic(password=PASSWORD + "typo"), environ_overrides=nearby)
    assert lines() == ["refused a request from 127.0.0.1: user name and password are wrong or missing"]
    now[0] += LOG_SECONDS
    client.get(f"/{SECRET}typo/health", headers=basic(), environ_overrides=nearby)
    assert lines()[1:] == [
        "refused a request from 127.0.0.1: its address does not begin with TAM_SECRET_PATH "
        "(4 more since the last such line)"
    ]
    now[0] += LOG_SECONDS
    assert client.get(f"/{SECRET}/health", headers=basic()).status_code == 200
    assert client.get("/frames/x").status_code == 200
    assert len(lines()) == 2
    for secret in (SECRET, PASSWORD, basic()["Authorization"].split()[1]):
        assert secret not in caplog.text


def healthy(port: int, environ: dict[str, str]) -> bool:
    """What the health check of a container says."""
    command = [sys.executable, "-m", "tam_backend.server.health", str(port)]
    environ = environ | {"HTTP_PROXY": "http://127.0.0.1:1"}  # which is not for this machine
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20)
    assert done.returncode in (0, 1)
    assert bool(done.returncode) == done.stderr.startswith("not healthy: ")
    return done.returncode == 0


PROTECTED = {"TAM_SECRET_PATH": SECRET, "TAM_BASIC_AUTH_USER": USER, "TAM_BASIC_AUTH_PASSWORD": PASSWORD}


@pytest.mark.parametrize(
    ("host", "environ", "warns"), [("0.0.0.0", {}, True), ("0.0.0.0", PROTECTED, False), ("127.0.0.1", {}, False)]
)
def test_a_server_that_others_reach_warns_unless_it_is_protected(tmp_path, host, environ, warns):
    port = free_port()
    process = start(port, tmp_path / "data", "--host", host, **environ)
    try:
        assert process.stdout.readline().startswith("Track anything is ready")
        assert healthy(port, environ)
        assert not healthy(port, {"TAM_SECRET_PATH": "another-secret-path"})
    finally:
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert (f"whoever reaches 0.0.0.0:{port} can use this server: set TAM_SECRET_PATH" in err) == warns
    assert SECRET not in err
    assert PASSWORD not in err


def test_the_health_check_gives_up_after_a_second():
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        assert not healthy(silent.getsockname()[1], {})
        assert 1 <= time.monotonic() - started < 10
