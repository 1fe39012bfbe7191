"""Downloads against a server that cuts connections, lies about lengths and serves wrong bytes."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tam_backend.download import download
from tam_backend.weights import CheckpointError
from tests.checkpoints.conftest import CONTENT
from tests.checkpoints.server import FileServer

SIZE = len(CONTENT)


def accept(path: Path) -> int:
    if path.read_bytes() != CONTENT:
        raise CheckpointError("it has the wrong content")
    return 42


@pytest.fixture
def get(server: FileServer, tmp_path: Path) -> Callable[..., int]:
    def run(size: int | None = SIZE, progress: Callable[[int, int | None], None] | None = None) -> int:
        return download(f"{server.url}/weights.pth", tmp_path / "in" / "weights.pth", accept, size, progress)

    return run


def there(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "in").iterdir())


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_file_is_downloaded(server: FileServer, tmp_path: Path, get: Callable[..., int], size: int | None) -> None:
    seen: list[tuple[int, int | None]] = []
    assert get(size, lambda here, total: seen.append((here, total))) == 42
    assert (tmp_path / "in" / "weights.pth").read_bytes() == CONTENT
    assert there(tmp_path) == ["weights.pth"]
    assert seen[-1] == (SIZE, SIZE)
    assert [here for here, _ in seen] == sorted(here for here, _ in seen)


@pytest.mark.parametrize("size", [SIZE, None])
def test_broken_connections_are_taken_up_where_they_broke(
    server: FileServer, tmp_path: Path, get: Callable[..., int], size: int | None
) -> None:
    server.cuts = [1_000_000, 500_000, 1, 1_000_000]
    get(size)
    assert [asked for _, asked in server.requests] == [
        None, "bytes=1000000-", "bytes=1500000-", "bytes=1500001-", "bytes=2500001-",
    ]  # fmt: skip
    assert there(tmp_path) == ["weights.pth"]


def test_a_server_without_ranges_is_asked_for_everything_again(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    server.cuts, server.ranges = [1_000_000, 2_000_000], False
    get()
    assert len(server.requests) == 3
    assert (tmp_path / "in" / "weights.pth").read_bytes() == CONTENT


def test_a_server_that_goes_on_somewhere_else_is_not_believed(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    server.cuts, server.shift = [1_000_000], 7
    get()
    assert [asked for _, asked in server.requests] == [None, "bytes=1000000-", None]
    assert (tmp_path / "in" / "weights.pth").read_bytes() == CONTENT


def test_a_download_that_keeps_breaking_is_given_up_and_taken_up_by_the_next_call(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    server.cuts = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(CheckpointError, match=r"broke off 5 times without getting on.*1000000 bytes are kept"):
        get()
    assert there(tmp_path) == ["weights.pth.part"]
    get()
    assert server.requests[-1][1] == "bytes=1000000-"
    assert there(tmp_path) == ["weights.pth"]


def test_a_part_that_is_whole_already_is_not_fetched_again(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    for size in (SIZE, None):
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "weights.pth.part").write_bytes(CONTENT)
        assert get(size) == 42
        assert there(tmp_path) == ["weights.pth"]
    assert server.requests == [("/weights.pth", f"bytes={SIZE}-")]  # asked only where the size was not known


@pytest.mark.parametrize("size", [SIZE, None])
def test_wrong_bytes_leave_nothing_behind(
    server: FileServer, tmp_path: Path, get: Callable[..., int], size: int | None
) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(CheckpointError, match="was wrong, and has been deleted: it has the wrong content"):
        get(size)
    assert there(tmp_path) == []


def test_the_rest_of_another_file_leaves_nothing_behind(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights.pth.part").write_bytes(b"y" * 1000)
    with pytest.raises(CheckpointError, match="has been deleted"):
        get()
    assert there(tmp_path) == []
    get()


@pytest.mark.parametrize("content", [b"<html>Log in to the network</html>", CONTENT[:2_000_000], CONTENT + b"more"])
def test_a_file_of_another_size_is_refused_at_once(
    server: FileServer, tmp_path: Path, get: Callable[..., int], content: bytes
) -> None:
    server.content = content
    with pytest.raises(CheckpointError, match=rf"it has {len(content)} bytes, the published file {SIZE}"):
        get()
    assert there(tmp_path) == []
    assert len(server.requests) == 1


def test_a_truncated_file_of_unknown_size_leaves_nothing_behind(
    server: FileServer, tmp_path: Path, get: Callable[..., int]
) -> None:
    server.content = CONTENT[:2_000_000]
    with pytest.raises(CheckpointError, match="was wrong, and has been deleted"):
        get(None)
    assert there(tmp_path) == []


def test_a_server_that_claims_too_little(server: FileServer, tmp_path: Path, get: Callable[..., int]) -> None:
    server.length = 1_000_000
    for size, message in ((SIZE, "it has 1000000 bytes"), (None, "has been deleted")):
        with pytest.raises(CheckpointError, match=message):
            get(size)
        assert there(tmp_path) == []


def test_a_server_that_claims_too_much(server: FileServer, tmp_path: Path, get: Callable[..., int]) -> None:
    """It looks like a connection that breaks shortly before the end, until the server is asked for the rest."""
    server.length = SIZE + 1000
    with pytest.raises(CheckpointError, match=f"it has {SIZE + 1000} bytes, the published file {SIZE}"):
        get()
    assert there(tmp_path) == []
    assert get(None) == 42  # asked for the rest, it says that there is none, and the content is right


def test_a_server_that_is_busy_is_asked_again(server: FileServer, tmp_path: Path, get: Callable[..., int]) -> None:
    server.statuses = [503, 429, 500]
    get()
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_server_that_refuses_is_not_asked_again(
    server: FileServer, tmp_path: Path, get: Callable[..., int], status: int
) -> None:
    server.statuses = [status] * 9
    with pytest.raises(CheckpointError, match=f"the server answered {status}. TAM_CHECKPOINT_URL names another"):
        get()
    assert len(server.requests) == 1
    assert there(tmp_path) == []


def test_nobody_there(tmp_path: Path) -> None:
    closed = FileServer(b"")
    closed.close()
    with pytest.raises(CheckpointError, match="broke off 5 times"):
        download(f"{closed.url}/weights.pth", tmp_path / "weights.pth", accept)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_is_followed(server: FileServer, tmp_path: Path, get: Callable[..., int]) -> None:
    other = FileServer(b"")
    other.redirect = f"{server.url}/elsewhere"
    try:
        assert download(f"{other.url}/weights.pth", tmp_path / "weights.pth", accept, SIZE) == 42
    finally:
        other.close()


def test_encryption_is_not_given_up_on_the_way(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = requests.get
    monkeypatch.setattr("requests.get", lambda url, **options: real(f"{server.url}/weights.pth", **options))
    with pytest.raises(CheckpointError, match=r"https://example\.org/weights\.pth leads to http://.*not encrypted"):
        download("https://example.org/weights.pth", tmp_path / "weights.pth", accept)


def test_a_proxy_from_the_environment(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    assert download("http://weights.invalid/weights.pth", tmp_path / "weights.pth", accept) == 42
    assert server.requests == [("http://weights.invalid/weights.pth", None)]


def test_a_full_disk_is_found_out_beforehand(
    server: FileServer, tmp_path: Path, get: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(SIZE))
    with pytest.raises(CheckpointError, match=f"not enough room in .*: {SIZE} bytes are to come"):
        get()
    assert there(tmp_path) == []


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot write"):
        download(f"{server.url}/weights.pth", tmp_path / "file" / "weights.pth", accept)


def test_two_downloads_of_one_file_at_once(server: FileServer, tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(path: Path) -> int:
        inside.set()
        assert go_on.wait(20)
        return accept(path)

    path = tmp_path / "weights.pth"
    first = threading.Thread(target=download, args=(f"{server.url}/weights.pth", path, wait))
    first.start()
    try:
        assert inside.wait(20)
        with pytest.raises(CheckpointError, match=r"another process is downloading weights\.pth at this moment"):
            download(f"{server.url}/weights.pth", path, accept)
    finally:
        go_on.set()
        first.join()
    assert path.read_bytes() == CONTENT
