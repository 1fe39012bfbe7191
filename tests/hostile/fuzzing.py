"""Random requests to a real server on loopback: ``python -m tests.hostile.fuzzing --requests 10000``.

A third comes from schemathesis, by the description that the server publishes, right and wrong ones; a third are
captured requests of Label Studio with something in them changed; a third are addresses, headers and bodies of any kind.
Nothing may end in a fault of ours, and neither answers nor the log may tell a path, a traceback or a secret.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import functools
import json
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from waitress.server import create_server

from model import TrackAnything
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.labelstudio.service import Service
from tam_backend.server.app import create_app
from tam_backend.server.logs import SafeFormatter
from tam_backend.settings import Settings
from tests.fakes import FakeLabelStudio, fake_engine, make_video

ROOT = Path(__file__).parents[2]
PAYLOADS = ROOT / "tests" / "data" / "payloads"
SECRETS = {
    "TAM_LABEL_STUDIO_TOKEN": FakeLabelStudio.TOKEN,
    "TAM_BASIC_AUTH_PASSWORD": "pass-word-of-the-fuzzer",
    "TAM_SECRET_PATH": "secret-path-of-the-fuzzer",
}
#: A token that comes with requests.
GIVEN_TOKEN = "token-that-was-given-0123456789"
USER = "fuzzer"
#: Answers are as the description says.
CONFORMANCE = [content_type_conformance, response_schema_conformance, status_code_conformance]


class Broken(AssertionError):
    """What must not be."""


class Target:
    """A protected server with a task, and what it wrote to its log."""

    def __init__(self, root: Path) -> None:
        (root / "media").mkdir(parents=True)
        make_video(root / "media" / "a.mp4")
        self.root = root
        self.label_studio = FakeLabelStudio(root / "media")
        self.label_studio.label_config = EXAMPLE
        environ = {**SECRETS, "TAM_DATA_DIR": str(root / "data"), "TAM_LABEL_STUDIO_URL": self.label_studio.url}
        environ |= {"TAM_BASIC_AUTH_USER": USER, "TAM_MEDIA_PUBLIC": "false", "TAM_ANSWER_SECONDS": "0.3"}
        environ |= {"TAM_MEDIA_ROOTS": str(root / "media"), "TAM_FRAME_LINK_DAYS": "2", "TAM_MAX_REQUEST_MB": "2"}
        self.settings = Settings.from_env(environ)
        self.service = Service(self.settings, fake_engine())
        self.app = app = create_app(self.settings, TrackAnything, self.service)
        self.log: list[str] = []
        handler = logging.Handler(logging.INFO)
        plain, safe = logging.Formatter("%(message)s"), SafeFormatter(self.settings)
        handler.emit = lambda record: self.log.extend([plain.format(record), safe.format(record)])  # type: ignore[method-assign]
        self._handler = handler
        logging.getLogger().addHandler(handler)
        self._level = logging.getLogger("tam_backend").level
        logging.getLogger("tam_backend").setLevel(logging.INFO)
        self._server = create_server(app, host="127.0.0.1", port=0, threads=8, max_request_body_size=2_000_000)
        self.origin = f"http://127.0.0.1:{self._server.effective_port}"
        self.url = f"{self.origin}/{self.settings.secret_path}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        credentials = f"{USER}:{SECRETS['TAM_BASIC_AUTH_PASSWORD']}".encode()
        self.headers = {"Authorization": "Basic " + base64.b64encode(credentials).decode()}
        self.session = requests.Session()
        self.frames = self._prepare()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # how waitress ends when its socket is closed
            self._server.run()

    def _prepare(self) -> list[str]:
        """Give the task its frames, as its first opening does."""
        task = self.label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        body = {"tasks": [task], "label_config": EXAMPLE, "project": "1.2", "params": {"context": None}}
        requests.post(f"{self.url}/predict", json=body, headers=self.headers, timeout=30).raise_for_status()
        return self.label_studio.tasks[1]["data"]["frames"]

    def about_the_task(self, body: Any) -> Any:
        """A captured request, as it would be about the task that is there: same frames, sizes and labels."""
        data = {"video": "/data/upload/1/a.mp4", "frames": list(self.frames)}
        text = json.dumps(body).replace('"original_width": 854', '"original_width": 64')
        text = text.replace('"original_height": 480', '"original_height": 48').replace('"Object"', '"Object 1"')
        body = json.loads(text)
        for key in ("label_config", "schema"):
            if key in body:
                body[key] = EXAMPLE
        for task in body.get("tasks") or []:
            task["data"] = dict(data)
        for region in ((body.get("params") or {}).get("context") or {}).get("result", []):
            region["item_index"] = region.get("item_index", 0) % len(self.frames)
        return body

    def close(self) -> None:
        self.session.close()
        self._server.close()
        for channel in list(self._server.active_channels.values()):
            channel.will_close = True  # the loop ends with the last connection: a client may keep one open for ever
        self._thread.join(10)
        self.service.close()
        self.label_studio.close()
        logging.getLogger().removeHandler(self._handler)
        logging.getLogger("tam_backend").setLevel(self._level)

    def check(self, status: int, text: str) -> None:
        """Raise Broken for an answer that must not be. 502 says that Label Studio or a video's place is at fault, and
        503 may say that this server is busy."""
        if status >= 500 and status != 502 and not (status == 503 and "busy, position" in text):
            raise Broken(f"{status}: {text[:500]}; log: {self.log[-1:]}")
        self._check_text(text, "an answer")
        for line in self.log:
            self._check_text(line, "the log")
        del self.log[:]

    def _check_text(self, text: str, where: str) -> None:
        paths = {str(self.root), str(ROOT), sys.prefix, "site-packages", str(Path.home()) + "/"}
        wrong = [*paths, "Traceback", 'File "', *SECRETS.values(), GIVEN_TOKEN, self.headers["Authorization"][6:]]
        wrong += [self.frames[0].partition("sig=")[2][:32]] if hasattr(self, "frames") else []
        for word in wrong:
            if word in text:
                raise Broken(f"{where} tells {word!r}: {text[:1000]}")


# ---- requests

_NASTY = st.sampled_from(
    [
        None, True, False, 0, -1, 1.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**53, 2**63, 2**64, -(2**63),
        10**400, "", " ", "x", "\x00", "a\nWARNING forged", "\ud800", "\u202e", "é" * 3000, "../../etc/passwd",
        "$video", "%s%n%(x)s{0}", "<View>", "file:///etc/passwd", "http://169.254.169.254/", "http://[", "//x@y", "s3://b/k",
        "/data/upload/1/a.mp4", "data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64,", "9" * 5000,
        "1' OR '1'='1", "2026-13-45T99:99:99Z", [], {}, [[]], [None], {"": None}, [0] * 2000, {"id": 1}, ["Object 1"],
    ]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)  # fmt: skip


@functools.cache
def captured() -> list[tuple[str, Any]]:
    """(path, body) of the captured requests that have one."""
    found = []
    for file in sorted(PAYLOADS.glob("*.json")):
        request = json.loads(file.read_text())
        if request["body"] is not None:
            found.append((request["path"], request["body"]))
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> None:
    """Replace what is at a place, if the way there still exists."""
    for key in at[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    last = at[-1]
    if (isinstance(value, dict) and isinstance(last, str)) or (isinstance(value, list) and last in range(len(value))):
        value[last] = new


@st.composite
def changed_payloads(draw: st.DrawFn, target: Target) -> tuple[str, Any]:
    """A captured request, mostly about the task that is there, with one to three things in it changed."""
    path, body = copy.deepcopy(draw(st.sampled_from(captured())))
    if draw(st.booleans()):
        body = target.about_the_task(body)
    if "access_token" in body:
        body["access_token"] = GIVEN_TOKEN
    ways = list(places(body))
    for _ in range(draw(st.integers(0, 3))):
        put(body, draw(st.sampled_from(ways)), copy.deepcopy(draw(_NASTY)))  # a list put into itself is no JSON
    return path, body


@st.composite
def requests_of_any_kind(draw: st.DrawFn, target: Target) -> dict[str, Any]:
    """Any method, address, headers and body."""
    prefix = draw(st.sampled_from([target.url, target.url, target.origin]))
    known = [
        "/", "/health", "/health/ready", "/setup", "/predict", "/webhook", "/versions", "/status", "/status.json",
        "/metrics", "/openapi.json",
    ]  # fmt: skip
    video, signature = target.frames[0].split("/frames/")[1].split("/0.jpg?")
    part = st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=20)
    frame = st.builds(
        lambda v, i, s: f"/frames/{v}/{i}.jpg?{s}",
        st.sampled_from([video, video[::-1], "..", "%2e%2e", "%00"]) | part,
        st.sampled_from([0, 11, 12, -1, 10**12, 10**30, "0x1", "", "%30"]) | st.integers(),
        st.sampled_from([signature, signature + "0", "", "sig=", "sig[]=1", "sig=%ff", signature.replace("&", ";")])
        | part,
    )  # fmt: skip
    path = draw(st.sampled_from(known) | frame | frame | st.builds("/{}".format, part))
    if path.startswith("/frames/"):
        prefix = target.origin
    headers = draw(
        st.dictionaries(
            st.sampled_from(
                ["Accept", "Authorization", "Content-Type", "Cookie", "Expect", "If-None-Match", "Range", "Referer",
                 "Content-Encoding", "X-Forwarded-For", "X-Forwarded-Host", "X-HTTP-Method-Override", "X-Y"]
            ),
            st.sampled_from(
                ["", "*/*", "application/json", "text/html", "Basic Og==", "Basic", "Bearer x", "W/\"x\"", "bytes=0-1",
                 "multipart/form-data", "application/x-www-form-urlencoded", "application/json; charset=utf-7", "gzip"]
            )
            | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip),
            max_size=3,
        )
    )  # fmt: skip
    body = draw(
        st.none() | st.binary(max_size=200) | _NASTY.map(lambda v: json.dumps(v).encode())
        | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"{", b'{"tasks": NaN}', b"1" * 5000])
    )  # fmt: skip
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X"]
    return {"method": draw(st.sampled_from(methods)), "url": prefix + path, "headers": headers, "data": body}


def asks(operation: Any) -> bool:
    """Whether a described operation takes anything that could be wrong."""
    return bool(operation.path_parameters) or any(body.is_required for body in operation.body)


class Fuzzer:
    """Makes requests and counts answers by (kind, status); status 0: this client could not send it."""

    def __init__(self, target: Target, requests_each: int, start: int) -> None:
        self.target = target
        self.counts: Counter[tuple[str, int]] = Counter()
        self.slowest = 0.0
        self._each = requests_each
        self._seed = start

    def run(self) -> None:
        """Raise AssertionError at the first thing that must not be, with the smallest request that shows it."""
        self._described()
        self._examples("captured", changed_payloads(self.target), self._captured)
        self._examples("anything", requests_of_any_kind(self.target), self._anything)

    def _made(self, kind: str) -> int:
        return sum(n for (k, _), n in self.counts.items() if k == kind)

    def _examples(self, kind: str, strategy: Any, send: Callable[[Any], None], share: int | None = None) -> None:
        @seed(self._seed)
        @settings(
            max_examples=share or self._each, deadline=None, database=None, print_blob=False,
            phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def example(data: Any) -> None:
            send(data)

        until = self._made(kind) + (share or self._each)
        while self._made(kind) < until:  # hypothesis ends early where it sees no new examples
            before = self._made(kind)
            example()
            self._seed += 1
            if self._made(kind) == before:
                return

    def _described(self) -> None:
        """Requests by the published description: each operation with right values, and with wrong ones."""
        schema = schemathesis.openapi.from_url(f"{self.target.url}/openapi.json", headers=self.target.headers)
        operations = [(result.ok(), mode) for result in schema.get_all_operations() for mode in GenerationMode]
        # Where nothing is asked for, nothing can be wrong.
        operations = [(o, m) for o, m in operations if m == GenerationMode.POSITIVE or asks(o)]
        for operation, mode in operations:
            strategy = operation.as_strategy(generation_mode=mode)
            self._examples("described", strategy, self._case, -(-self._each // len(operations)))

    def _case(self, case: Any) -> None:
        base = self.target.origin if case.path.startswith("/frames/") else self.target.url
        started = time.monotonic()
        try:
            answer = case.call(base_url=base, headers=self.target.headers, session=self.target.session, timeout=30)
        except (requests.exceptions.InvalidHeader, UnicodeError):
            self.counts["described", 0] += 1  # this client cannot send it
            return
        self._count("described", answer.status_code, answer.content.decode("latin-1"), started)
        case.validate_response(answer, checks=CONFORMANCE)

    def _captured(self, request: tuple[str, Any]) -> None:
        path, body = request
        self._send("captured", "POST", f"{self.target.url}{path}", data=json.dumps(body).encode())

    def _anything(self, request: dict[str, Any]) -> None:
        self._send("anything", **request)

    def _send(self, kind: str, method: str, url: str, **more: Any) -> None:
        headers = self.target.headers | more.pop("headers", {})
        started = time.monotonic()
        try:
            answer = self.target.session.request(
                method, url, headers=headers, timeout=30, allow_redirects=False, **more
            )
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError, ValueError):
            self.counts[kind, 0] += 1
            return
        self._count(kind, answer.status_code, answer.content.decode("latin-1"), started)

    def _count(self, kind: str, status: int, text: str, started: float) -> None:
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.counts[kind, status] += 1
        self.target.check(status, text)


@contextlib.contextmanager
def target() -> Iterator[Target]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    made = Target(root)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="how many at least (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="another one, other requests (default: 1)")
    arguments = parser.parse_args()
    started = time.monotonic()
    with target() as aim:
        fuzzer = Fuzzer(aim, -(-arguments.requests // 3), arguments.seed)
        fuzzer.run()
    for kind in dict.fromkeys(kind for kind, _ in fuzzer.counts):
        answers = {status: n for (k, status), n in sorted(fuzzer.counts.items()) if k == kind}
        said = ", ".join(f"{n} x {status or 'not sent'}" for status, n in answers.items())
        print(f"{kind}: {sum(answers.values())} requests: {said}")
    print(f"{fuzzer.counts.total()} requests in {time.monotonic() - started:.0f} s, slowest {fuzzer.slowest:.1f} s:")
    print("no fault of ours; no path, traceback or secret in answers or log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
