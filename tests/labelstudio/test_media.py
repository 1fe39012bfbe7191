"""What stands in a task's data, and what is fetched for it."""

import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.clips import ClipFiller
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.connections import Connection, Connections
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks
from tam_backend.labelstudio.media import Downloader, absolute_url
from tam_backend.settings import Settings
from tests.labelstudio.hostile import File

LEGACY = "0123456789abcdef0123456789abcdef01234567"
QUICK = Patience(seconds=10, attempts=2, pause=0)
DATA = b"video" * 1000


def downloader(*servers) -> Downloader:
    return Downloader([f"127.0.0.1:{s.port}" for s in servers], 10**6, patience=QUICK)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/upload/1/a.mp4", "/data/upload/1/a.mp4"),
        (" /data/upload/1/a b.mp4 ", "/data/upload/1/a%20b.mp4"),
        ("data/upload/1/a.mp4", "/data/upload/1/a.mp4"),
        ("/data/local-files/?d=films/a.mp4", "/data/local-files/?d=films/a.mp4"),
        ("s3://bucket/a.mp4", "/projects/5/presign/?fileuri=czM6Ly9idWNrZXQvYS5tcDQ="),
        ("azure-blob://box/ü.mp4", "/projects/5/presign/?fileuri=YXp1cmUtYmxvYjovL2JveC_DvC5tcDQ="),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/studio"])
def test_what_label_studio_keeps_is_fetched_with_the_token(address, path, prefix, server, tmp_path):
    """prefix: Label Studio can be below a path of its host."""
    here = Connection(server.url + prefix, LEGACY)
    server.answers[prefix + path] = File(DATA)
    downloader().fetch(absolute_url(address, here, 5), here, tmp_path / "videos" / "a.mp4")
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == DATA
    assert server.tokens == [f"Token {LEGACY}"]


def test_what_is_elsewhere_is_fetched_without_the_token(server, other, tmp_path):
    other.answers["/a.mp4"] = File(DATA)
    here = Connection(server.url, LEGACY)
    downloader(other).fetch(absolute_url(f"{other.url}/a.mp4", here, 5), here, tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == DATA
    assert server.seen == []


def test_local_files_are_on_label_studio_whatever_name_their_tasks_have_for_it():
    """Label Studio's LABEL_STUDIO_HOST may be the name for browsers, and TAM_LABEL_STUDIO_URL the one for us."""
    here = Connection("http://label-studio:8080", LEGACY)
    named = "https://labels.test/studio/data/local-files/?d=films/a%20b.mp4"
    assert absolute_url(named, here) == "http://label-studio:8080/data/local-files/?d=films/a%20b.mp4"
    ours = "http://label-studio:8080/data/local-files/?d=a.mp4"
    for address in (ours, "https://labels.test/a.mp4?d=/data/local-files/", "https://labels.test/data/upload/1/a.mp4"):
        assert absolute_url(address, here) == address


def test_settings_reach_the_downloads(server, tmp_path):
    settings = Settings.from_env({"TAM_MEDIA_HOSTS": f"127.0.0.1:{server.port}", "TAM_MAX_VIDEO_MB": "1"})
    server.answers["/a.mp4"] = File(bytes(1_000_001))
    with pytest.raises(MediaError, match="larger than 1 MB"):
        Downloader.from_settings(settings).fetch(f"{server.url}/a.mp4", None, tmp_path / "a.mp4")
    closed = Settings.from_env({"TAM_MEDIA_PUBLIC": "false"})
    with pytest.raises(MediaError, match="TAM_MEDIA_PUBLIC=true"):
        Downloader.from_settings(closed).fetch("http://93.184.216.34/a.mp4", None, tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("ftp://h/a.mp4", "cannot read ftp://h/a.mp4"), ("smb://h/a.mp4", "cannot read smb"),
        ("//h/a.mp4", "cannot read //h"), ("", "where the address"), (None, "where the address"), (7, "where the"),
        ("http://[half", "is not an address"), ("s3://b/\ud800", "is not an address"),
        ("data:video/mp4;base64,AAAA", "cannot read data"), ("redis://h/a", "s3://, gs://, azure-blob://"),
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_read(address, match, server):
    with pytest.raises(MediaError, match=match):
        absolute_url(address, Connection(server.url, LEGACY), 1)


def test_what_is_missing_to_resolve_an_address_is_said(server):
    for address in ("/data/upload/1/a.mp4", "s3://b/a.mp4"):
        with pytest.raises(MediaError, match="TAM_LABEL_STUDIO_URL"):
            absolute_url(address, None, 1)
    with pytest.raises(MediaError, match="to which project"):
        absolute_url("azure-blob://c/a.mp4", Connection(server.url, LEGACY))


# ---- cloud storage


def test_cloud_uris_go_through_label_studio_and_expire(server, other, tmp_path):
    """Signed addresses end after a minute: each attempt asks for a new one."""
    here = Connection(server.url, LEGACY)
    url = absolute_url("s3://bucket/folder/my video.mp4", here, project=3)
    assert url == f"{server.url}/projects/3/presign/?fileuri=czM6Ly9idWNrZXQvZm9sZGVyL215IHZpZGVvLm1wNA=="
    signed = []

    def presign(handler):
        signed.append(f"/bucket/v?X-Amz-Signature={len(signed)}")
        other.answers.clear()  # those before are good no more
        other.answers[signed[-1]] = store
        handler.answer(303, {"Location": other.url + signed[-1]})

    store = File(DATA * 40, cuts=[90_000], etag='"a"')
    server.answers["/projects/3/presign/"] = presign
    downloader(other).fetch(url, here, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == DATA * 40
    assert server.tokens == [f"Token {LEGACY}"] * 2
    assert [(s.path, s.headers["range"]) for s in other.seen] == [
        (signed[0], "bytes=0-"), (signed[1], "bytes=90000-"),
    ]  # fmt: skip


def test_cloud_uris_that_label_studio_cannot_resolve_are_named(server, tmp_path):
    here = Connection(server.url, LEGACY)
    with pytest.raises(MediaError, match=r"cannot download gs://bucket/v.mp4: .* answered 404"):
        downloader().fetch(absolute_url("gs://bucket/v.mp4", here, 3), here, tmp_path / "v.mp4")


def test_the_project_of_a_task_reaches_its_cloud_images(server, tmp_path):
    here = Connection(server.url, LEGACY)
    library = VideoLibrary(tmp_path, downloader(), Connections(Settings()))
    clips = ClipFiller(library, FrameLinks(b"secret"), 100, tmp_path / "splits")
    data = {"frames": ["gs://b/0.jpg", "gs://b/1.jpg"]}
    clip = clips.find(data, parse_label_config(EXAMPLE), here, project=7)
    assert clip.frames == range(2)
    assert f"{server.url}/projects/7/presign/?fileuri=" in (tmp_path / clip.video / "source.json").read_text()
