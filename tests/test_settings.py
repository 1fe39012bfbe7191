from pathlib import Path

import pytest

from tam_backend.errors import BadInput
from tam_backend.settings import Settings, with_library_names


def test_defaults_and_empty_variables():
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"TAM_CLIP_LENGTH": " ", "OTHER": "1"}) == Settings()


#: Variable -> what it holds, and the option that follows. One line each.
EXAMPLES = {
    "TAM_DATA_DIR": ("/data", "data_dir", Path("/data")),
    "TAM_ENGINE": ("SAM-XMem", "engine", "sam-xmem"),
    "TAM_SAM": ("vit_l", "sam", "vit_l"),
    "TAM_DEVICE": ("CUDA:1", "device", "cuda:1"),
    "TAM_XMEM_SHORT_SIDE": ("240", "xmem_short_side", 240),
    "TAM_EMBEDDING_MEMORY_MB": ("13", "embedding_memory_mb", 13),
    "TAM_EMBEDDING_DISK_MB": ("0", "embedding_disk_mb", 0),
    "TAM_INPAINT": ("E2FGVI", "inpaint", "e2fgvi"),
    "TAM_ACCEPT_LICENCE": ("yes", "accept_licence", True),
    "TAM_REFINE": ("Clicks", "refine", "clicks"),
    "TAM_REFINE_BELOW": ("0.5", "refine_below", 0.5),
    "TAM_FINISH": ("true", "finish", True),
    "TAM_CHECKPOINT_DOWNLOAD": ("true", "checkpoint_download", True),
    "TAM_CHECKPOINT_DIR": ("/weights", "checkpoint_dir", Path("/weights")),
    "TAM_CHECKPOINT_URL": ("http://mirror/sam/", "checkpoint_url", "http://mirror/sam"),
    "TAM_LABEL_STUDIO_URL": ("http://ls:8080/", "label_studio_url", "http://ls:8080"),
    "TAM_LABEL_STUDIO_TOKEN": ("t", "label_studio_token", "t"),
    "TAM_PUBLIC_URL": ("https://b/x/", "public_url", "https://b/x"),
    "TAM_BASIC_AUTH_USER": ("ls", "basic_auth_user", "ls"),
    "TAM_BASIC_AUTH_PASSWORD": ("p:" + "x" * 10, "basic_auth_password", "p:" + "x" * 10),
    "TAM_SECRET_PATH": ("s_-" * 6, "secret_path", "s_-" * 6),
    "TAM_MEDIA_HOSTS": ("A.example, b:90,", "media_hosts", ("a.example", "b:90")),
    "TAM_MEDIA_PUBLIC": ("no", "media_public", False),
    "TAM_MEDIA_ROOTS": ("/films:/more/films:", "media_roots", (Path("/films"), Path("/more/films"))),
    "TAM_MEDIA_CACHE_MB": ("9", "media_cache_mb", 9),
    "TAM_CLIP_LENGTH": ("300", "clip_length", 300),
    "TAM_ANSWER_SECONDS": ("2.5", "answer_seconds", 2.5),
    "TAM_FRAME_LINK_DAYS": ("30", "frame_link_days", 30),
    "TAM_QUEUE_LIMIT": ("3", "queue_limit", 3),
    "TAM_FRAME_CAPTION": ("Yes", "frame_caption", True),
    "TAM_PROGRESS_MARK": ("on", "progress_mark", True),
    "TAM_FRAME_QUALITY": ("80", "frame_quality", 80),
    "TAM_FRAME_CACHE_MB": ("5", "frame_cache_mb", 5),
    "TAM_RESULT_CACHE_MB": ("6", "result_cache_mb", 6),
    "TAM_MEMORY_MB": ("1500", "memory_mb", 1500),
    "TAM_STATE_MB": ("90", "state_mb", 90),
    "TAM_FOLLOW_FRAMES": ("0", "follow_frames", 0),
    "TAM_MAX_VIDEO_MB": ("7", "max_video_mb", 7),
    "TAM_MAX_IMAGE_MB": ("10", "max_image_mb", 10),
    "TAM_MAX_VIDEO_MINUTES": ("20", "max_video_minutes", 20),
    "TAM_MAX_VIDEO_FRAMES": ("2000", "max_video_frames", 2000),
    "TAM_MAX_MEGAPIXELS": ("9", "max_megapixels", 9),
    "TAM_FIRST_LOOK_SECONDS": ("30", "first_look_seconds", 30),
    "TAM_FIRST_LOOK_MB": ("900", "first_look_mb", 900),
    "TAM_DOWNLOAD_MINUTES": ("11", "download_minutes", 11),
    "TAM_DOWNLOAD_KB_PER_SECOND": ("12", "download_kb_per_second", 12),
    "TAM_MAX_REQUEST_MB": ("8", "max_request_mb", 8),
    "TAM_CLUSTER": ("head:6379", "cluster", "head:6379"),
    "TAM_CLUSTER_WORKERS": ("4", "cluster_workers", 4),
    "TAM_LOG_FORMAT": ("JSON", "log_format", "json"),
}


def test_every_option_is_read_from_its_variable():
    settings = Settings.from_env({variable: text for variable, (text, _, _) in EXAMPLES.items()})
    assert settings == Settings(**{option: value for _, option, value in EXAMPLES.values()})
    assert settings != Settings()
    assert {variable for variable, _, _ in Settings.describe()} == EXAMPLES.keys()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TAM_ENGINE", "magic"), ("TAM_SAM", "vit_x"), ("TAM_DEVICE", "gpu"), ("TAM_DEVICE", "cpu:1"),
        ("TAM_REFINE", "on"), ("TAM_REFINE_BELOW", "1.5"), ("TAM_REFINE_BELOW", "nan"),
        ("TAM_XMEM_SHORT_SIDE", "8"), ("TAM_CLIP_LENGTH", "many"), ("TAM_CLIP_LENGTH", "0"),
        ("TAM_ANSWER_SECONDS", "nan"),
        ("TAM_ANSWER_SECONDS", "100"), ("TAM_FRAME_CAPTION", "maybe"), ("TAM_LOG_FORMAT", "xml"), ("TAM_CLUSTER", "ray://head"),
        ("TAM_FRAME_QUALITY", "101"),
        ("TAM_MEDIA_HOSTS", "http://store:9000"), ("TAM_MEDIA_HOSTS", "store/a"), ("TAM_MEDIA_HOSTS", "*.test"),
        ("TAM_MEDIA_HOSTS", "store:0"), ("TAM_MEDIA_HOSTS", "store:x"), ("TAM_MEDIA_HOSTS", "me@store"),
        ("TAM_LABEL_STUDIO_TOKEN", "a b"), ("TAM_LABEL_STUDIO_URL", "ftp://x"), ("TAM_PUBLIC_URL", "http://x/?a=b"),
        ("TAM_BASIC_AUTH_USER", "a:b"), ("TAM_BASIC_AUTH_PASSWORD", "short"),
        ("TAM_BASIC_AUTH_PASSWORD", "with a space in it"), ("TAM_SECRET_PATH", "short"),
        ("TAM_SECRET_PATH", "x" * 20 + "/"),
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


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TAM_BASIC_AUTH_USER": "ls"}, "TAM_BASIC_AUTH_PASSWORD is not set"),
        ({"TAM_BASIC_AUTH_PASSWORD": "x" * 12}, "TAM_BASIC_AUTH_USER is not set"),
        ({"TAM_SECRET_PATH": "s" * 16, "TAM_PUBLIC_URL": "http://x/" + "s" * 16}, "TAM_PUBLIC_URL must not hold"),
    ],
)
def test_options_that_contradict_each_other_are_named(environ, says):
    with pytest.raises(BadInput, match=says):
        Settings.from_env(environ)


def test_secrets_are_never_shown():
    secrets = {"TAM_BASIC_AUTH_PASSWORD": "p@ssword-of-it", "TAM_SECRET_PATH": "path-that-is-secret",
               "TAM_LABEL_STUDIO_TOKEN": "token-of-it"}  # fmt: skip
    shown = repr(Settings.from_env(secrets | {"TAM_BASIC_AUTH_USER": "ls", "TAM_LABEL_STUDIO_URL": "http://ls"}))
    for secret in secrets.values():
        assert secret not in shown
    with pytest.raises(BadInput) as error:
        Settings.from_env({"TAM_BASIC_AUTH_USER": "ls", "TAM_BASIC_AUTH_PASSWORD": "my secret"})
    assert "my secret" not in str(error.value)


def test_names_of_the_library_stand_in_for_ours_as_a_pair_only():
    theirs = {"LABEL_STUDIO_URL": "http://theirs:8080", "LABEL_STUDIO_API_KEY": "their-token"}
    assert Settings.from_env(theirs) == Settings()
    settings = Settings.from_env(with_library_names(theirs))
    assert (settings.label_studio_url, settings.label_studio_token) == ("http://theirs:8080", "their-token")
    settings = Settings.from_env(with_library_names({**theirs, "TAM_LABEL_STUDIO_URL": "http://ours:8080"}))
    assert (settings.label_studio_url, settings.label_studio_token) == ("http://ours:8080", "")
    for alone in ({}, {"LABEL_STUDIO_API_KEY": "their-token"}):
        assert Settings.from_env(with_library_names(alone)) == Settings()
