"""Single requests that are made to do harm; the fuzzer finds others like them."""

from __future__ import annotations

import io
import json
import logging
import time
from pathlib import Path

import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.config import EXAMPLE, MAX_LENGTH
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.media import absolute_url
from tam_backend.server.logs import SafeFormatter
from tam_backend.settings import Settings
from tests.fakes import FakeLabelStudio
from tests.server.conftest import Backend, point

LAUGHS = "<!DOCTYPE v [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)
) + "]><View>&a11;</View>"  # fmt: skip


@pytest.fixture
def backend(tmp_path: Path, label_studio: FakeLabelStudio) -> Backend:
    return Backend(tmp_path / "data", label_studio, max_request_mb=4)


@pytest.mark.parametrize("text", ["[" * 900_000, '{"a":' * 300_000, "[" * 500 + "]" * 500, "9" * 1_000_000, "NaN"])
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_json_that_goes_deep_or_far(backend: Backend, path: str, text: str):
    answer = backend.client.post(path, data=text, content_type="application/json")
    assert answer.status_code == 400
    assert set(answer.json) == {"error"}


def test_what_is_deep_inside_a_region(backend: Backend):
    task = backend.uploaded()
    for depth in range(100, 1000, 100):
        region = point("p", 3, 20, 24)
        region["meta"] = json.loads('{"a":' * depth + "1" + "}" * depth)
        assert backend.click(task, region).status_code in (200, 400)


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (LAUGHS, "not valid XML"),
        ("<!DOCTYPE v [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><View>&x;</View>", "not valid XML"),
        ("<!DOCTYPE v SYSTEM 'http://127.0.0.1:1/x.dtd'><View/>", "it has no <Image>"),
        ("<View>" * 100_000, "not valid XML"),
        ("<View>" + " " * MAX_LENGTH + "</View>", "the limit is"),
        ("<View \ud800/>", "not valid XML"),
    ],
)
def test_labeling_configurations(backend: Backend, xml: str, says: str):
    for path, body in (("/setup", {"schema": xml}), ("/predict", {"tasks": [], "label_config": xml})):
        started = time.monotonic()
        answer = backend.client.post(path, json=body)
        assert time.monotonic() - started < 5
        assert answer.status_code == 400
        assert says in answer.json["error"]


def test_a_configuration_that_says_how_it_is_encoded_works(backend: Backend):
    """The parser of Label Studio's library raises on it."""
    backend.config = f"<?xml version='1.0' encoding='utf-8'?>{EXAMPLE}"
    assert backend.connect().status_code == 200
    assert backend.batch(backend.label_studio.add_task({"video": "/data/none.mp4"})).status_code == 200


def test_names_that_are_no_words(backend: Backend):
    task, region = backend.uploaded(), point("p", 3, 20, 24)
    for name in ("id", "type", "from_name", "to_name", "origin"):
        for value in (["a"], {"a": 1}):
            wrong = region | {name: value}
            event = {"project": {"id": 1, "label_config": EXAMPLE}, "annotation": _work(wrong)}
            for answer in (
                backend.click(task, wrong),
                backend.click(task, region, annotations=[_work(wrong)]),
                backend.client.post("/webhook", json=event | {"action": "ANNOTATION_UPDATED"}),
            ):
                assert answer.status_code == 400
                assert f".{name} must be a text" in answer.json["error"]


def _work(region: dict) -> dict:
    return {"id": 1, "updated_at": "2026-01-01T00:00:00Z", "result": [region]}


def test_many_addresses_of_this_server_are_not_all_remembered(tmp_path: Path, label_studio: FakeLabelStudio):
    """Without TAM_PUBLIC_URL it is what the caller says."""
    backend = Backend(tmp_path / "data", label_studio, public_url="")
    for i in range(100):
        answer = backend.client.post("/setup", json={"schema": EXAMPLE}, base_url=f"http://host{i}.test")
        assert answer.status_code == 200
    assert len(backend.service._bases) <= 20


# ---- what is told


@pytest.mark.parametrize(
    "address",
    [
        "ftp://user:hunter2@h/a.mp4", "smb://h/a?X-Amz-Signature=hunter2", "http://user:hunter2@[half",
        "//user:hunter2@h/a.mp4", "rtsp://user:hunter2@h/\ud800", "s3://b/\ud800?sig=hunter2",
    ],
)  # fmt: skip
def test_addresses_are_told_without_what_is_secret_in_them(address: str):
    with pytest.raises(MediaError) as refused:
        absolute_url(address, Connection("http://ls", ""), 1)
    assert "hunter2" not in str(refused.value)


@pytest.fixture
def log() -> io.StringIO:
    """What `tam serve` would write."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    secret = Settings(secret_path="a-secret-path-0123", label_studio_url="http://h", label_studio_token="tok3n")
    handler.setFormatter(SafeFormatter(secret))
    logger = logging.getLogger("tam_backend")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_a_request_cannot_forge_a_line_of_the_log(backend: Backend, log: io.StringIO):
    for text in ("x\nERROR forged", "x\r\x1b[31mforged", "x\u2028forged", "x\u202egro.live"):
        backend.client.post("/webhook", json={"action": "TASKS_CREATED", "project": text})
        backend.client.post("/predict", json={"tasks": [{"id": text, "data": {}}], "label_config": text})
        logging.getLogger("tam_backend.test").warning("%s", text)
    lines = log.getvalue().splitlines()
    assert lines
    assert all(line.startswith("20") for line in lines)
    assert log.getvalue().replace("\n", "").isprintable()


def test_secrets_of_the_settings_are_blotted_out(log: io.StringIO):
    logging.getLogger("tam_backend.test").warning("GET /a-secret-path-0123/health with tok3n")
    assert "GET /***/health with ***" in log.getvalue()
    try:
        raise ValueError("tok3n")
    except ValueError:
        logging.getLogger("tam_backend.test").exception("fault")
    assert "tok3n" not in log.getvalue()
    assert "Traceback" in log.getvalue()
