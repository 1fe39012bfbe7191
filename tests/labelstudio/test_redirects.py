"""Redirects: every hop is checked, and the token stays at home."""

import socket
import threading

import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.media import Downloader
from tests.labelstudio.hostile import File, redirect

LEGACY = "0123456789abcdef0123456789abcdef01234567"
QUICK = Patience(seconds=10, attempts=2, pause=0, window=1, headers_seconds=1)
DATA = b"video" * 1000


def downloader(*servers) -> Downloader:
    return Downloader([f"127.0.0.1:{s.port}" for s in servers], 10**6, patience=QUICK)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_does_not_follow_to_another_host(status, server, other, tmp_path):
    server.answers["/data/v.mp4"] = redirect(f"{other.url}/v.mp4?Signature=s", status)
    other.answers["/v.mp4"] = File(DATA)
    here = Connection(server.url, LEGACY)
    downloader(other).fetch(server.url + "/data/v.mp4", here, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == DATA
    assert server.tokens == [f"Token {LEGACY}"]
    assert len(other.seen) == 1  # without a token: the fixture looks


def test_redirects_within_label_studio_keep_the_token(server, tmp_path):
    server.answers["/data/v.mp4"] = redirect("../files/v.mp4")
    server.answers["/files/v.mp4"] = File(DATA)
    downloader().fetch(server.url + "/data/v.mp4", Connection(server.url, LEGACY), tmp_path / "v.mp4")
    assert server.tokens == [f"Token {LEGACY}"] * 2


def test_redirects_may_have_letters_of_all_kinds(server, tmp_path):
    server.answers["/v.mp4"] = lambda h: h.raw(b"HTTP/1.1 302 Found\r\nLocation: /f\xc3\xbcr alle\r\n\r\n")
    server.answers["/f%C3%BCr%20alle"] = File(DATA, cuts=[100], extra={"ETag": '"\xfc"'})
    downloader(server).fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == DATA


def test_a_redirect_from_elsewhere_to_label_studio_carries_no_token(server, other, tmp_path):
    other.answers["/v.mp4"] = redirect(server.url + "/data/v.mp4")
    server.answers["/data/v.mp4"] = File(DATA)
    here = Connection(server.url, LEGACY)
    downloader(other, server).fetch(other.url + "/v.mp4", here, tmp_path / "v.mp4")
    assert server.tokens == [None]
    with pytest.raises(MediaError, match=f"127.0.0.1:{server.port} to TAM_MEDIA_HOSTS"):
        downloader(other).fetch(other.url + "/v.mp4", here, tmp_path / "w.mp4")
    assert server.tokens == [None]


def test_there_and_back_carries_no_token(server, other, tmp_path):
    server.answers["/data/v.mp4"] = redirect(other.url + "/v.mp4")
    other.answers["/v.mp4"] = redirect(server.url + "/api/token")
    server.answers["/api/token"] = File(DATA)
    here = Connection(server.url, LEGACY)
    downloader(other, server).fetch(server.url + "/data/v.mp4", here, tmp_path / "v.mp4")
    assert server.tokens == [f"Token {LEGACY}", None]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "LOCALHOST"])
def test_other_names_of_the_same_machine_are_another_host(host, server, tmp_path):
    server.answers["/data/v.mp4"] = redirect(f"http://{host}:{server.port}/v.mp4")
    with pytest.raises(MediaError, match="not on the open internet"):
        downloader().fetch(server.url + "/data/v.mp4", Connection(server.url, LEGACY), tmp_path / "v.mp4")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest", "file:///etc/passwd",
        "ftp://127.0.0.1/a", "http://10.0.0.1/a", "//192.168.1.1/a", "http://127.0.0.1:1/a", "data:video/mp4,abc",
        "javascript:alert(1)", "http://[half", "http://user:password@93.184.216.34/a", "\\\\10.0.0.1\\a",
    ],
)  # fmt: skip
def test_redirects_to_forbidden_places(location, server, monkeypatch, tmp_path):
    server.answers["/v.mp4"] = redirect(location)
    tried, real = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda to, *a, **k: tried.append(to) or real(to, *a, **k))
    with pytest.raises(MediaError, match="cannot download"):
        downloader(server).fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert tried == [("127.0.0.1", server.port)]


def test_redirects_have_an_end(server, tmp_path):
    for i in range(9):
        server.answers[f"/{i}"] = redirect(f"/{i + 1}")
    server.answers["/9"] = File(DATA)
    downloader(server).fetch(server.url + "/4", None, tmp_path / "v.mp4")  # five
    with pytest.raises(MediaError, match="more than 5 redirects"):
        downloader(server).fetch(server.url + "/3", None, tmp_path / "w.mp4")
    server.answers["/loop"] = redirect("/loop")
    with pytest.raises(MediaError, match="more than 5 redirects"):
        downloader(server).fetch(server.url + "/loop", None, tmp_path / "w.mp4")


def test_label_studio_that_moved_to_another_scheme_or_port_is_said(server, other, tmp_path):
    server.answers["/data/v.mp4"] = redirect(f"{other.url}/data/v.mp4", 301)
    other.answers["/data/v.mp4"] = File(DATA, statuses=[401])
    with pytest.raises(MediaError, match="gets no token: set TAM_LABEL_STUDIO_URL to the latter"):
        downloader(other).fetch(server.url + "/data/v.mp4", Connection(server.url, LEGACY), tmp_path / "v.mp4")


def test_tls_names_the_host_and_not_the_address(resolver, tmp_path):
    """The connection goes to the checked address; the certificate is asked for, and judged, under the name."""
    hello = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen():
            connection, _ = listener.accept()
            with connection:
                hello.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        resolver({"media.test": ["127.0.0.1"]})
        port = listener.getsockname()[1]
        once = Patience(attempts=1)
        with pytest.raises(MediaError, match="cannot be connected to"):
            Downloader(("media.test",), 10**6, patience=once).fetch(
                f"https://media.test:{port}/v", None, tmp_path / "v"
            )
        thread.join()
    assert hello[0][:1] == b"\x16"  # a TLS handshake
    assert b"media.test" in hello[0]


def test_the_host_header_keeps_the_name(server, resolver, tmp_path):
    resolver({"media.test": ["127.0.0.1"]})
    server.answers["/v.mp4"] = File(DATA)
    listed = Downloader(("media.test",), 10**6, patience=QUICK)
    listed.fetch(f"http://media.test:{server.port}/v.mp4", None, tmp_path / "v.mp4")
    assert server.seen[0].headers["host"] == f"media.test:{server.port}"


def test_the_environment_has_no_say(server, other, tmp_path, monkeypatch):
    """No proxy, no .netrc: neither sees what goes to Label Studio, or replaces its token."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other.url)
    server.answers["/data/v.mp4"] = File(DATA)
    downloader().fetch(server.url + "/data/v.mp4", Connection(server.url, LEGACY), tmp_path / "v.mp4")
    assert server.tokens == [f"Token {LEGACY}"]
    assert other.seen == []
