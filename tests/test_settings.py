from pathlib import Path

import pytest

from tam_backend.errors import BadInput
from tam_backend.settings import Settings


def test_defaults_and_empty_variables():
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"TAM_CLIP_LENGTH": " ", "OTHER": "1"}) == Settings()


def test_every_option_is_read_from_its_variable():
    settings = Settings.from_env(
        {
            "TAM_DATA_DIR": "/data", "TAM_ENGINE": "e", "TAM_LABEL_STUDIO_URL": "http://ls:8080/",
            "TAM_LABEL_STUDIO_TOKEN": "t", "TAM_PUBLIC_URL": "https://b/x/", "TAM_MEDIA_HOSTS": "A.example, b:90,",
            "TAM_CLIP_LENGTH": "300", "TAM_ANSWER_SECONDS": "2.5", "TAM_FRAME_CAPTION": "Yes",
            "TAM_FRAME_QUALITY": "80", "TAM_FRAME_CACHE_MB": "5", "TAM_RESULT_CACHE_MB": "6", "TAM_MAX_VIDEO_MB": "7",
            "TAM_MEDIA_PUBLIC": "no", "TAM_MEDIA_CACHE_MB": "9", "TAM_MAX_IMAGE_MB": "10", "TAM_DOWNLOAD_MINUTES": "11",
            "TAM_DOWNLOAD_KB_PER_SECOND": "12", "TAM_MAX_REQUEST_MB": "8",
            "TAM_CHECKPOINT_DIR": "/weights", "TAM_CHECKPOINT_URL": "http://mirror/sam/",
        }
    )  # fmt: skip
    assert settings == Settings(
        data_dir=Path("/data"), engine="e", label_studio_url="http://ls:8080", label_studio_token="t",
        public_url="https://b/x", media_hosts=("a.example", "b:90"), clip_length=300, answer_seconds=2.5,
        frame_caption=True, frame_quality=80, frame_cache_mb=5, result_cache_mb=6, max_video_mb=7, max_request_mb=8,
        media_public=False, media_cache_mb=9, max_image_mb=10, download_minutes=11, download_kb_per_second=12,
        checkpoint_dir=Path("/weights"), checkpoint_url="http://mirror/sam",
    )  # fmt: skip
    assert len(Settings.describe()) == 21


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TAM_CLIP_LENGTH", "many"), ("TAM_CLIP_LENGTH", "0"), ("TAM_ANSWER_SECONDS", "nan"),
        ("TAM_ANSWER_SECONDS", "100"), ("TAM_FRAME_CAPTION", "maybe"), ("TAM_FRAME_QUALITY", "101"),
        ("TAM_MEDIA_HOSTS", "http://store:9000"), ("TAM_MEDIA_HOSTS", "store/a"), ("TAM_MEDIA_HOSTS", "*.test"),
        ("TAM_MEDIA_HOSTS", "store:0"), ("TAM_MEDIA_HOSTS", "store:x"), ("TAM_MEDIA_HOSTS", "me@store"),
        ("TAM_LABEL_STUDIO_TOKEN", "a b"), ("TAM_LABEL_STUDIO_URL", "ftp://x"), ("TAM_PUBLIC_URL", "http://x/?a=b"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(variable, text):
    with pytest.raises(BadInput, match=variable):
        Settings.from_env({variable: text})


def test_hosts_may_be_ipv6():
    assert Settings.from_env({"TAM_MEDIA_HOSTS": "::1, [::1]:9000"}).media_hosts == ("::1", "[::1]:9000")


def test_every_option_has_a_sentence():
    for variable, _, text in Settings.describe():
        assert variable.startswith("TAM_")
        assert text.endswith(".")
