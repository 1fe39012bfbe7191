import http.server
import threading

import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.connections import Connection, Connections
from tam_backend.labelstudio.media import Downloader, absolute_url
from tam_backend.settings import Settings


def connection(label_studio) -> Connection:
    return Connection(label_studio.url, label_studio.TOKEN)


def test_download(label_studio, tmp_path):
    (label_studio.root / "a.mp4").write_bytes(b"x" * 100_000)
    target = tmp_path / "videos" / "a.mp4"
    here = connection(label_studio)
    Downloader((), 10**6).fetch(absolute_url("/data/upload/1/a.mp4", here), here, target)
    assert target.read_bytes() == b"x" * 100_000
    assert [p.name for p in target.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("address", "limit", "token", "says"),
    [
        ("/data/upload/1/missing.mp4", 10**6, None, "404"),
        ("/data/upload/1/a.mp4", 10**6, "wrong", "refuses the token"),
        ("/data/upload/1/a.mp4", 1000, None, "larger than"),
        ("http://127.0.0.1:1/a.mp4", 10**6, None, "TAM_MEDIA_HOSTS"),
        ("http://169.254.169.254/latest/meta-data", 10**6, None, "TAM_MEDIA_HOSTS"),
        ("s3://bucket/a.mp4", 10**6, None, "cannot read s3:"),
        ("file:///etc/passwd", 10**6, None, "cannot read file:"),
        ("//evil/a.mp4", 10**6, None, "cannot read //evil"),
        ("", 10**6, None, "should be"),
        (None, 10**6, None, "should be"),
        (["a"], 10**6, None, "should be"),
    ],
)
def test_failures_say_why_and_leave_nothing(label_studio, tmp_path, address, limit, token, says):
    (label_studio.root / "a.mp4").write_bytes(b"x" * 5000)
    here = Connection(label_studio.url, token or label_studio.TOKEN)
    with pytest.raises(MediaError, match=says):
        Downloader((), limit).fetch(absolute_url(address, here), here, tmp_path / "v" / "a.mp4")
    assert not (tmp_path / "v").exists() or not list((tmp_path / "v").iterdir())


def test_unknown_label_studio_is_said():
    with pytest.raises(MediaError, match="TAM_LABEL_STUDIO_URL"):
        absolute_url("/data/upload/1/a.mp4", None)


@pytest.fixture
def other_host():
    """A host that is not Label Studio. /short breaks off; /bounce redirects to ?to=; it notes the headers it saw."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            if self.path.startswith("/bounce"):
                self.send_response(302)
                self.send_header("Location", self.path.partition("to=")[2])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"y" * (40 if self.path == "/short" else 100))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    server.url, server.seen = f"http://127.0.0.1:{server.server_port}", seen
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_allowed_hosts_never_see_the_token(label_studio, other_host, tmp_path):
    downloader = Downloader((f"127.0.0.1:{other_host.server_port}",), 10**6)
    downloader.fetch(other_host.url + "/v.mp4", connection(label_studio), tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == b"y" * 100
    assert other_host.seen == [None]


def test_broken_off_downloads_are_noticed(label_studio, other_host, tmp_path):
    downloader = Downloader((f"127.0.0.1:{other_host.server_port}",), 10**6)
    with pytest.raises(MediaError, match=r"broke off|cannot download"):
        downloader.fetch(other_host.url + "/short", None, tmp_path / "v.mp4")
    assert not (tmp_path / "v.mp4").exists()


def test_redirects_are_checked_at_every_hop(label_studio, other_host, tmp_path):
    downloader = Downloader((f"127.0.0.1:{other_host.server_port}",), 10**6)
    with pytest.raises(MediaError, match="TAM_MEDIA_HOSTS"):
        downloader.fetch(other_host.url + "/bounce?to=http://127.0.0.1:1/x", None, tmp_path / "v.mp4")
    with pytest.raises(MediaError, match="redirects"):
        downloader.fetch(other_host.url + "/bounce?to=/bounce?to=/bounce", None, tmp_path / "v.mp4")
    with pytest.raises(MediaError, match="TAM_MEDIA_HOSTS"):
        downloader.fetch(other_host.url + "/bounce?to=file:///etc/passwd", None, tmp_path / "v.mp4")


def test_settings_name_the_only_label_studio():
    connections = Connections(Settings(label_studio_url="http://ls:8080", label_studio_token="t1"))
    connections.remember("http://evil:1", "t2")
    assert connections.current() == Connection("http://ls:8080", "t1")
    assert connections.get("http://evil:1") == Connection("http://ls:8080", "t1")


def test_without_settings_a_token_goes_only_where_it_came_with():
    connections = Connections(Settings())
    assert connections.current() is None
    connections.remember("http://one:1/", "t1")
    connections.remember("http://two:2", "t2")
    connections.remember("not a url", "t3")
    assert connections.current() == Connection("http://two:2", "t2")
    assert connections.get("http://one:1") == Connection("http://one:1", "t1")
    assert connections.get("http://three:3").token == ""
