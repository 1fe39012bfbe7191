"""Ways out of the directories that files may be read from. There is a file at the end of each that must not be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tam_backend.errors import BadInput, MediaError
from tam_backend.labelstudio.library import _file_name
from tam_backend.labelstudio.localfiles import LocalFiles
from tam_backend.settings import Settings
from tests.fakes import FakeLabelStudio, make_video
from tests.hostile.conftest import Open
from tests.server.conftest import Backend

#: {out}: a folder beside the one that is allowed, with secret.mp4 in it. {shelf}: the allowed one.
WAYS_OUT = [
    ("file://{out}/secret.mp4", "plainly elsewhere"),
    ("file://{shelf}/../out/secret.mp4", "a step upward"),
    ("file://{shelf}/sub/../../out/secret.mp4", "down and up"),
    ("file://{shelf}/%2e%2e/out/secret.mp4", "escaped dots"),
    ("file://{shelf}/%2E%2E%2Fout%2Fsecret.mp4", "escaped slashes"),
    ("file://{shelf}/..%2fout/secret.mp4", "half escaped"),
    ("file://{shelf}/.%2e/out/secret.mp4", "half a dot escaped"),
    ("file://{shelf}/%252e%252e/out/secret.mp4", "escaped twice"),
    ("file://{shelf}/....//out/secret.mp4", "what is left when ../ is taken out once"),
    ("file://{shelf}/..\\out\\secret.mp4", "backslashes"),
    ("file://{shelf}/..%5cout%5csecret.mp4", "escaped backslashes"),
    ("file://{shelf}/%c0%ae%c0%ae/out/secret.mp4", "overlong UTF-8"),
    ("file://{shelf}/\uff0e\uff0e/out/secret.mp4", "full-width dots"),
    ("file://{shelf}-too/secret.mp4", "a folder whose name begins the same"),
    ("file://{shelf}/link.mp4", "a link to the file"),
    ("file://{shelf}/links/secret.mp4", "a link to its folder"),
    ("file://{shelf}/chain.mp4", "a link to a link"),
    ("file://{shelf}/relative.mp4", "a relative link"),
    ("file://{shelf}/loop.mp4", "a link to itself"),
    ("file://{shelf}", "the folder itself"),
    ("file://{shelf}/", "the folder itself"),
    ("file://{shelf}/sub", "another folder"),
    ("file://{shelf}/pipe.mp4", "a pipe, which never ends"),
    ("file://{shelf}/link.mp4%00.mp4", "a zero byte"),
    ("file://{shelf}/a.mp4\n/../../out/secret.mp4", "a line break"),
    ("file:///proc/self/environ", "the environment"),
    ("file:///proc/self/root{out}/secret.mp4", "a link of the kernel"),
    ("file:///dev/zero", "a device"),
    ("file:////{out}/secret.mp4", "four slashes"),
    ("file:{out}/secret.mp4", "no slashes"),
    ("file:../out/secret.mp4", "relative"),
    ("file://localhost{out}/secret.mp4", "this host by name"),
    ("file://evil.test{shelf}/a.mp4", "another host"),
    ("file://127.0.0.1{shelf}/a.mp4", "another host"),
    ("FILE://{out}/secret.mp4", "capital letters"),
    ("file://{shelf}/a.mp4?x=/../../out/secret.mp4", "a query"),
    ("file://{shelf}/a.mp4#/../../out/secret.mp4", "a fragment"),
    ("file://{shelf}/~root/secret.mp4", "a home folder"),
    ("file://{shelf}/$HOME/secret.mp4", "a variable"),
]


@pytest.fixture
def places(tmp_path: Path, shelf: Path) -> dict[str, Path]:
    out, beside = tmp_path / "out", tmp_path / "shelf-too"
    for folder in (out, beside, shelf / "sub"):
        folder.mkdir()
    video = make_video(out / "secret.mp4")
    for copy in (beside / "secret.mp4", shelf / "a.mp4"):
        copy.write_bytes(video.read_bytes())
    (shelf / "link.mp4").symlink_to(video)
    (shelf / "links").symlink_to(out)
    (shelf / "chain.mp4").symlink_to(shelf / "link.mp4")
    (shelf / "relative.mp4").symlink_to("../out/secret.mp4")
    (shelf / "loop.mp4").symlink_to(shelf / "loop.mp4")
    os.mkfifo(shelf / "pipe.mp4")
    return {"out": out, "shelf": shelf}


@pytest.mark.parametrize(("url", "why"), WAYS_OUT)
def test_ways_out(url: str, why: str, places, open_local: Open):
    with pytest.raises(MediaError) as refused:
        open_local(url.format(**places))
    assert "/" not in re.sub(r"file:///", "", str(refused.value)), "a path is told"


def test_what_is_elsewhere_looks_like_what_is_not_there(places, open_local: Open):
    said = set()
    for name in ("secret.mp4", "none.mp4", ""):
        with pytest.raises(MediaError) as refused:
            open_local(f"file://{places['out']}/{name}")
        said.add(str(refused.value))
    assert len(said) == 1


def test_files_below_are_read_also_by_links_that_stay_below(places, open_local: Open):
    shelf = places["shelf"]
    (shelf / "sub" / "inner.mp4").symlink_to("../a.mp4")
    (shelf / "b c.mp4").write_bytes((shelf / "a.mp4").read_bytes())
    for name in ("a.mp4", "sub/inner.mp4", "b%20c.mp4", "//a.mp4"):
        assert len(open_local(f"file://{shelf}/{name}")) == 12


def test_a_root_may_be_a_link(places, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(places["shelf"])
    local = LocalFiles([link], 10**6)
    assert local.find(f"file://{link}/a.mp4") == places["shelf"].resolve() / "a.mp4"


def test_without_roots_no_file_is_read(places):
    with pytest.raises(MediaError, match="TAM_MEDIA_ROOTS"):
        LocalFiles().find(f"file://{places['shelf']}/a.mp4")


def test_a_broken_local_file_stays_where_it_is(shelf: Path, open_local: Open):
    """What is downloaded and broken is deleted; this is somebody's file."""
    (shelf / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match="not a video"):
        open_local(f"file://{shelf}/broken.mp4")
    assert (shelf / "broken.mp4").read_bytes() == b"no video"


def test_too_large_a_local_file_is_not_even_read(shelf: Path, open_local: Open):
    with (shelf / "big.mp4").open("wb") as file:
        file.truncate(6_000_000)
    with pytest.raises(MediaError, match="larger than 5 MB"):
        open_local(f"file://{shelf}/big.mp4")


@pytest.mark.parametrize("text", ["videos", "/", "/a:b", "/a/../.."])
def test_roots_are_absolute_and_not_everything(text: str):
    with pytest.raises(BadInput, match="TAM_MEDIA_ROOTS"):
        Settings.from_env({"TAM_MEDIA_ROOTS": text})
    assert Settings.from_env({"TAM_MEDIA_ROOTS": "/a:/b"}).media_roots == (Path("/a"), Path("/b"))


# ---- names and paths in other places


@pytest.mark.parametrize(
    "url",
    [
        "http://h/..", "http://h/a/..%2f..%2fetc%2fpasswd", "http://h/%2e%2e", "http://h/a%00b", "http://h/.",
        "http://h/a\\..\\b", "http://h/data/local-files/?d=../../etc/passwd", "http://h/data/local-files/?d=..",
        "http://h/projects/1/presign/?fileuri=czM6Ly9iLy4uLy4uL2V0Yy9wYXNzd2Q=", "http://h/" + "a" * 5000,
        "http://h/.part", "http://h/\u202etxt.exe", "http://h/",
    ],
)  # fmt: skip
def test_names_of_downloads_stay_in_their_folder(url: str):
    name = _file_name(url)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name)


@pytest.mark.parametrize(
    "path",
    [
        "/frames/../secret", "/frames/..%2fsecret", "/frames/%2e%2e/secret", "/frames/{video}/../../secret",
        "/frames/{video}/0.jpg/../../../secret", "/frames/{video}/..%2f..%2fsource.json?sig={sig}",
        "/frames/..%2f..%2f/0.jpg?sig={sig}", "/frames/{video}%2f..%2f{video}/0.jpg?sig={sig}",
        "/frames/{video}/-1.jpg?sig={sig}", "/frames/{video}/0%00.jpg?sig={sig}", "/frames/{video}/0.jpg",
        "/frames/{video}/99999999999999999999.jpg?sig={sig}", "/frames//{video}/0.jpg?sig={sig}",
    ],
)  # fmt: skip
def test_the_paths_of_frames_lead_to_frames_only(path: str, tmp_path: Path, label_studio: FakeLabelStudio):
    backend = Backend(tmp_path / "data", label_studio)
    frames = backend.uploaded()["data"]["frames"]
    video, sig = re.fullmatch(r".*/frames/(\w+)/0\.jpg\?sig=(\w+)", frames[0]).groups()
    answer = backend.client.get(path.format(video=video, sig=sig))
    assert answer.status_code in (403, 404)
    assert answer.mimetype == "application/json"
    assert (tmp_path / "data" / "secret").read_text() not in answer.text
