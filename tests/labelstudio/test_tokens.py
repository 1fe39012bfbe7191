"""Legacy tokens, and personal access tokens that are exchanged, renewed in time, and never shown."""

import base64
import json
import threading
import time
from email.utils import formatdate

import pytest

from tam_backend.errors import BadInput, LabelStudioError, MediaError
from tam_backend.labelstudio.connections import Client, Connection, Connections
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.media import Downloader
from tam_backend.settings import Settings
from tests.labelstudio.hostile import File, Server

LEGACY = "0123456789abcdef0123456789abcdef01234567"
QUICK = Patience(seconds=10, attempts=2, pause=0)


def jwt(**claims: object) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


PERSONAL = jwt(token_type="refresh", exp=8106732277, iat=1764532277, user_id=1)


class Office:
    """Label Studio's side of personal access tokens: gives out access tokens and honours the ``lasting`` latest uses.

    skew: by how much its clock is ahead of ours. life: what its tokens say. lasting: requests until one ends early.
    """

    def __init__(self, server: Server, skew: float = 0.0, life: float = 300.0, lasting: int = 10**9) -> None:
        self.server = server
        self.skew = skew
        self.life = life
        self.lasting = lasting
        self.given = 0
        self.status = 200
        self.delay = 0.0
        self.claims: dict[str, object] = {}
        self._left: dict[str, int] = {}
        server.answers["/api/token/refresh/"] = self._refresh

    def guarded(self, answer):
        def check(handler):
            token = (handler.headers["Authorization"] or "").removeprefix("Bearer ")
            self._left[token] = self._left.get(token, 0) - 1
            if self._left[token] < 0:
                handler.answer(401)
            else:
                answer(handler)

        return check

    def _refresh(self, handler) -> None:
        assert json.loads(handler.body) == {"refresh": PERSONAL}
        assert handler.headers["Authorization"] is None
        time.sleep(self.delay)
        if self.status != 200:
            handler.answer(self.status, body=b'{"detail": "Token is invalid", "code": "token_not_valid"}')
            return
        self.given += 1
        now = time.time() + self.skew
        access = jwt(**{"token_type": "access", "exp": now + self.life, "iat": now, "n": self.given} | self.claims)
        self._left[access] = self.lasting
        handler.date_time_string = lambda timestamp=None: formatdate(now, usegmt=True)
        handler.answer(200, body=json.dumps({"access": access}).encode())


@pytest.fixture
def office(server: Server) -> Office:
    office = Office(server)
    server.answers["/api/annotations/1/"] = office.guarded(lambda h: h.answer(200, body=b'{"id": 1}'))
    return office


def ask(connection: Connection) -> object:
    return Client(connection).annotation(1)


def test_a_legacy_token_goes_as_it_is(server):
    server.answers["/api/annotations/1/"] = lambda h: h.answer(200, body=b'{"id": 1}')
    assert ask(Connection(server.url, LEGACY)) == {"id": 1}
    assert server.tokens == [f"Token {LEGACY}"]


def test_a_personal_token_is_exchanged_once_for_many_calls(server, office):
    connection = Connection(server.url, PERSONAL)
    assert [ask(connection) for _ in range(5)] == [{"id": 1}] * 5
    assert office.given == 1
    assert all(t is None or t.startswith("Bearer ") for t in server.tokens)


@pytest.mark.parametrize("skew", [0.0, 86_400.0, -86_400.0])
@pytest.mark.parametrize("claims", [{}, {"iat": 1764532277}, {"iat": None}])
def test_it_is_renewed_before_it_ends_whatever_the_clocks_say(skew, claims, server, office, monkeypatch):
    """iat: some versions copy it from the personal token, so it may be years old."""
    office.skew, office.claims = skew, claims
    clock = [time.monotonic()]
    monkeypatch.setattr("tam_backend.labelstudio.tokens.time.monotonic", lambda: clock[0])
    credentials = Connection(server.url, PERSONAL).credentials
    first = credentials.headers()
    clock[0] += 265
    assert credentials.headers() == first
    clock[0] += 10
    assert credentials.headers() != first
    assert office.given == 2


@pytest.mark.parametrize("claims", [{"exp": None}, {"exp": 1}, {"exp": "soon"}])
def test_a_token_without_a_readable_end_is_renewed_soon(claims, server, office, monkeypatch):
    office.claims = claims
    clock = [time.monotonic()]
    monkeypatch.setattr("tam_backend.labelstudio.tokens.time.monotonic", lambda: clock[0])
    connection = Connection(server.url, PERSONAL)
    ask(connection)
    clock[0] += 61
    ask(connection)
    assert office.given == 2


def test_a_token_that_ends_early_is_renewed_after_a_401(server, office):
    office.lasting = 2  # in the middle of a series
    connection = Connection(server.url, PERSONAL)
    assert [ask(connection) for _ in range(7)] == [{"id": 1}] * 7
    assert office.given == 4


def test_a_401_that_stays_is_said(server, office):
    server.answers["/api/annotations/1/"] = lambda h: h.answer(401)
    with pytest.raises(LabelStudioError, match="refuses the access token"):
        ask(Connection(server.url, PERSONAL))
    assert office.given == 2  # once more, not for ever


def test_images_go_on_over_tokens_that_end(server, office, tmp_path):
    office.lasting = 20
    for i in range(90):
        server.answers[f"/data/{i}.jpg"] = office.guarded(File(bytes([i]) * 100))
    files = [(f"{server.url}/data/{i}.jpg", tmp_path / str(i)) for i in range(90)]
    Downloader((), 10**6, patience=QUICK).fetch_images(files, Connection(server.url, PERSONAL))
    assert all(path.read_bytes() == bytes([i]) * 100 for i, (_, path) in enumerate(files))
    assert office.given >= 5


def test_many_at_once_make_one_exchange(server, office):
    office.delay = 0.2
    connection, answers = Connection(server.url, PERSONAL), []
    threads = [threading.Thread(target=lambda: answers.append(ask(connection))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"id": 1}] * 12
    assert office.given == 1


def test_a_refused_personal_token_is_said_and_not_tried_by_everybody(server, office, tmp_path):
    office.status = 401
    connection = Connection(server.url, PERSONAL)
    for _ in range(4):
        with pytest.raises(LabelStudioError, match="refuses the personal access token"):
            ask(connection)
    with pytest.raises(MediaError, match="refuses the personal access token"):
        Downloader((), 10**6, patience=QUICK).fetch(server.url + "/data/a", connection, tmp_path / "a")
    assert [s.path for s in server.seen] == ["/api/token/refresh/"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"access": ""}', b'{"access": "a\\nb"}'])
def test_an_exchange_that_gives_nothing_is_said(body, server):
    server.answers["/api/token/refresh/"] = lambda h: h.answer(200, body=body)
    with pytest.raises(LabelStudioError, match="gave no access token"):
        ask(Connection(server.url, PERSONAL))


def test_a_refused_legacy_token_says_what_to_do(server, tmp_path):
    server.answers["/api/annotations/1/"] = server.answers["/data/a"] = lambda h: h.answer(401)
    connection = Connection(server.url, LEGACY)
    advice = r"TAM_LABEL_STUDIO_TOKEN .* personal access token .* switch legacy tokens on"
    with pytest.raises(LabelStudioError, match=advice):
        ask(connection)
    with pytest.raises(MediaError, match=advice):
        Downloader((), 10**6, patience=QUICK).fetch(server.url + "/data/a", connection, tmp_path / "a")
    with pytest.raises(LabelStudioError, match="wants a token, and none is known"):
        ask(Connection(server.url, ""))
    with pytest.raises(LabelStudioError, match="it is an access token"):
        ask(Connection(server.url, jwt(token_type="access", exp=1)))


def test_api_calls_do_not_follow_redirects(server, other):
    server.answers["/api/annotations/1/"] = lambda h: h.answer(301, {"Location": other.url + "/api/annotations/1/"})
    with pytest.raises(LabelStudioError, match="set TAM_LABEL_STUDIO_URL to the address where it really is"):
        ask(Connection(server.url, LEGACY))
    assert other.seen == []


@pytest.mark.parametrize(
    "answer", [lambda h: h.cut(), lambda h: h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")]
)
def test_api_calls_that_break_are_said(answer, server):
    server.answers["/api/annotations/1/"] = answer
    with pytest.raises(LabelStudioError, match="does not answer: the connection broke"):
        ask(Connection(server.url, LEGACY))


def test_tokens_are_not_shown(server, office, caplog, tmp_path):
    caplog.set_level(0)
    connection = Connection(server.url, PERSONAL)
    settings = Settings(label_studio_url=server.url, label_studio_token=PERSONAL)
    ask(connection)
    access = connection.credentials.headers()["Authorization"].removeprefix("Bearer ")
    server.answers["/data/a"] = lambda h: h.answer(401)
    errors = []
    for broken in (PERSONAL, LEGACY, LEGACY + "\n", PERSONAL + "ü"):
        with pytest.raises((LabelStudioError, MediaError)) as error:
            Downloader((), 10**6, patience=QUICK).fetch(
                server.url + "/data/a", Connection(server.url, broken), tmp_path
            )
        while error := getattr(error, "value", error).__cause__:
            errors.append(error)
    with pytest.raises(BadInput) as refused:
        Settings.from_env({"TAM_LABEL_STUDIO_URL": "http://a", "TAM_LABEL_STUDIO_TOKEN": "two words"})
    shown = [caplog.text, repr(connection), str(connection), repr(settings), repr(connection.credentials)]
    shown += [repr(e) for e in errors] + [str(refused.value)]
    for secret in (PERSONAL, access, LEGACY, "two words"):
        assert not any(secret in text for text in shown)


def test_settings_keep_token_and_address_together():
    with pytest.raises(BadInput, match="TAM_LABEL_STUDIO_URL is not"):
        Settings.from_env({"TAM_LABEL_STUDIO_TOKEN": LEGACY})
    with pytest.raises(BadInput, match="the whole personal access token"):
        Settings.from_env({"TAM_LABEL_STUDIO_TOKEN": PERSONAL.rpartition(".")[0]})


# ---- which Label Studio, and with which token


def test_settings_name_the_only_label_studio():
    connections = Connections(Settings(label_studio_url="http://ls:8080", label_studio_token="t1"))
    connections.remember("http://evil:1", "t2")
    connections.remember("http://ls:8080", "t3")
    assert connections.current() == Connection("http://ls:8080", "t1")
    with pytest.raises(LabelStudioError, match="works for http://ls:8080"):
        connections.get("http://evil:1")


def test_settings_without_a_token_take_the_one_from_that_address(caplog):
    connections = Connections(Settings(label_studio_url="http://ls:8080"))
    connections.remember("http://localhost:8080", "t1")
    assert connections.current() == Connection("http://ls:8080", "")
    assert "TAM_LABEL_STUDIO_TOKEN" in caplog.text
    connections.remember("http://LS:8080/", "t2")
    assert connections.current() == Connection("http://ls:8080", "t2")


def test_a_wrong_first_address_can_be_put_right():
    connections = Connections(Settings())
    assert connections.current() is None
    connections.remember("http://localhost:8080", "t1")  # the default, which means nothing in a container
    connections.remember("http://ls:8080/", "t1")
    assert connections.current() == Connection("http://ls:8080", "t1")
    assert connections.get("http://ls:8080") == connections.current()
    with pytest.raises(LabelStudioError, match="works for http://ls:8080"):
        connections.get("http://localhost:8080")


def test_once_it_has_worked_nobody_takes_its_place(server, other, caplog):
    """Whoever reaches this server can send a /setup. He gets no token, and no work."""
    server.answers["/api/annotations/1/"] = lambda h: h.answer(200, body=b"{}")
    connections = Connections(Settings())
    connections.remember(server.url, LEGACY)
    ask(connections.current())
    for name in (other.url, other.url, server.url + "/prefix", server.url.replace("127.0.0.1", "localhost")):
        connections.remember(name, "t")
    connections.remember(other.url, LEGACY)
    assert connections.current() == Connection(server.url, LEGACY)
    assert caplog.text.count(f"is at {other.url};") == 1
    assert "set TAM_LABEL_STUDIO_URL" in caplog.text
    again = Connections(Settings())  # as after a restart
    again.remember(other.url, "t")
    assert again.current() == Connection(other.url, "t")


def test_a_token_that_works_is_not_replaced_by_one_that_does_not(server):
    def answer(handler):
        handler.answer(200 if handler.headers["Authorization"] == f"Token {good[0]}" else 401, body=b"{}")

    good = ["t1"]
    server.answers["/api/annotations/1/"] = answer
    connections = Connections(Settings())
    connections.remember(server.url, "t1")
    ask(connections.current())
    for token in ("garbage1", "garbage2", "garbage3", "garbage4", "garbage5", "", "bad\ntoken"):
        connections.remember(server.url, token)
    ask(connections.current())
    good[0] = "garbage5"  # the first person's token is withdrawn
    with pytest.raises(LabelStudioError):
        ask(connections.current())
    ask(connections.current())
    assert connections.current().token == "garbage5"


@pytest.mark.parametrize(
    "hostname",
    ["not a url", "ftp://ls", "http://", "", None, "http://u:p@ls", "http://ls?x=", "http://ls/#", "http://ls\\evil"],
)
def test_what_is_no_address_is_not_remembered(hostname):
    connections = Connections(Settings())
    connections.remember(hostname, "t")
    assert connections.current() is None


def test_metadata_services_are_no_label_studio(connections_tried):
    connections = Connections(Settings())
    connections.remember("http://169.254.169.254/latest", "t")
    with pytest.raises(LabelStudioError, match="no Label Studio"):
        ask(connections.current())
    assert connections_tried == []
