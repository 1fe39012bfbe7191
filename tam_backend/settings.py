"""Every option of the server, read from the environment once into one frozen object that is passed down."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tam_backend.errors import BadInput
from tam_backend.refine_options import RECIPES, RefineOptions

ENGINES = ("auto", "embedded", "sam-xmem")
INPAINT_ENGINES = ("embedded", "e2fgvi")
SAM_SIZES = ("vit_b", "vit_l", "vit_h")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return value

    return parse


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


def _url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("an address like http://host:8080, or nothing")
    return text.rstrip("/")


def _boolean(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise ValueError("true or false")
    return known[text.lower()]


def _choice(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text.lower()

    return parse


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text.lower()):
        raise ValueError("auto, cuda, mps or cpu; cuda:1 is the second GPU")
    return text.lower()


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(h.strip().lower() for h in text.split(",") if h.strip())
    for host in hosts:
        parts = urlsplit(f"//{host if host.count(':') < 2 or '[' in host else f'[{host}]'}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if not parts.hostname or port == 0 or set(host) & set("/@?#* "):
            raise ValueError(f"names or name:port, with commas between them; {host!r} is none")
    return hosts


def _folders(text: str) -> tuple[Path, ...]:
    folders = tuple(Path(f.strip()) for f in text.split(":") if f.strip())
    for folder in folders:
        if not folder.is_absolute() or len(folder.resolve().parts) < 2:
            raise ValueError(f"absolute paths of directories, colons between them, and not all of /; {folder} is none")
    return folders


def _text(pattern: str, expected: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(expected)
        return text

    return parse


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("one token, without spaces")
    if text.count(".") == 1:
        raise ValueError("the whole personal access token, of three parts with dots between them")
    return text


def _option(default: Any, variable: str, parse: Callable[[str], Any], text: str, *, secret: bool = False) -> Any:
    """secret: never shown, neither in an error nor in the repr."""
    metadata = {"variable": variable, "parse": parse, "help": text, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's options. ``Settings.from_env()`` reads them; each one's help says what it does."""

    data_dir: Path = _option(
        Path.home() / ".tam", "TAM_DATA_DIR", Path, "Directory for downloaded videos, frame indexes and the secret."
    )
    engine: str = _option(
        "auto", "TAM_ENGINE", _choice(*ENGINES),
        "Which engine tracks: embedded (no download, CPU), sam-xmem (SAM and XMem; the server does not start without "
        "their checkpoints), or auto: sam-xmem where it can be had, else embedded.",
    )  # fmt: skip
    sam: str = _option(
        "auto", "TAM_SAM", _choice("auto", *SAM_SIZES),
        "Size of SAM: vit_b, vit_l or vit_h. auto: of those that are there the largest with a GPU, else the smallest.",
    )  # fmt: skip
    device: str = _option(
        "auto", "TAM_DEVICE", _device,
        "Where sam-xmem computes: cuda, cuda:1 and so on, mps or cpu. auto: the first of these that there is.",
    )  # fmt: skip
    xmem_short_side: int = _option(
        480, "TAM_XMEM_SHORT_SIDE", _integer(16, 2160),
        "XMem sees frames reduced to this short side, in pixels; it was trained at 480. Less is quicker and coarser.",
    )  # fmt: skip
    embedding_memory_mb: int = _option(
        500, "TAM_EMBEDDING_MEMORY_MB", _integer(0, 1_000_000),
        "Memory for what SAM knows of frames, in MB. A frame takes 2 MB.",
    )  # fmt: skip
    embedding_disk_mb: int = _option(
        4000, "TAM_EMBEDDING_DISK_MB", _integer(0, 100_000_000),
        "Disk space for the same, in MB: a click on a frame that was clicked before a restart need not encode it "
        "again. 0: none.",
    )  # fmt: skip
    inpaint: str = _option(
        "embedded", "TAM_INPAINT", _choice(*INPAINT_ENGINES),
        "What fills holes where objects are taken out: embedded (no download), or e2fgvi (weights for non-commercial "
        "use only).",
    )  # fmt: skip
    accept_licence: bool = _option(
        False, "TAM_ACCEPT_LICENCE", _boolean,
        "Whether checkpoints may be downloaded whose licence restricts their use (E2FGVI: CC BY-NC 4.0).",
    )  # fmt: skip
    refine: str = _option(
        "probes", "TAM_REFINE", _choice("off", *RECIPES),
        "How the segmenter refines poor masks while they are propagated. probes: it gets points that memory knows, and "
        "the mask. clicks: it is first clicked to that mask, which takes longer. off: not at all.",
    )  # fmt: skip
    refine_below: float = _option(
        RefineOptions().below, "TAM_REFINE_BELOW", _share,
        "Masks whose quality is below this are refined where there is evidence, from 0 to 1.",
    )  # fmt: skip
    finish: bool = _option(
        False, "TAM_FINISH", _boolean,
        "Whether objects that were corrected are tracked once more when nothing else is to be done, with all corrected "
        "frames in memory. Masks change where the second result is better.",
    )  # fmt: skip
    checkpoint_download: bool = _option(
        False, "TAM_CHECKPOINT_DOWNLOAD", _boolean,
        "Whether checkpoints that sam-xmem needs and that are not there are downloaded at the start, before the server "
        "answers (625 MB with vit_b).",
    )  # fmt: skip
    checkpoint_dir: Path = _option(
        Path("checkpoints"), "TAM_CHECKPOINT_DIR", Path,
        "Directory of the published weights. Files may be put there by hand.",
    )  # fmt: skip
    checkpoint_url: str = _option(
        "", "TAM_CHECKPOINT_URL", _url,
        "Base URL of a mirror that has the published weights under their file names. Empty: their publishers.",
    )  # fmt: skip
    label_studio_url: str = _option(
        "", "TAM_LABEL_STUDIO_URL", _url,
        "Address of Label Studio as this server reaches it; set it wherever others reach this server. "
        "Empty: the one that the first Label Studio names when it connects.",
    )  # fmt: skip
    label_studio_token: str = _option(
        "", "TAM_LABEL_STUDIO_TOKEN", _token,
        "Personal access token, or legacy token, for TAM_LABEL_STUDIO_URL. "
        "Empty: the legacy token that Label Studio sends when it connects, which works only where those are on.",
        secret=True,
    )  # fmt: skip
    public_url: str = _option(
        "", "TAM_PUBLIC_URL", _url,
        "Address of this server as annotators' browsers reach it, used in the URLs of frames. "
        "Empty: the address that Label Studio uses.",
    )  # fmt: skip
    basic_auth_user: str = _option(
        "", "TAM_BASIC_AUTH_USER", _text("[!-9;-~]+", "printable ASCII characters, no spaces and no colon"),
        "User name that every request but those for frames must give (HTTP basic auth). Goes with the password.",
    )  # fmt: skip
    basic_auth_password: str = _option(
        "", "TAM_BASIC_AUTH_PASSWORD", _text("[!-~]{12,}", "12 or more printable ASCII characters, no spaces"),
        "Password of TAM_BASIC_AUTH_USER. Label Studio's webhooks cannot give it: set TAM_SECRET_PATH too.",
        secret=True,
    )  # fmt: skip
    secret_path: str = _option(
        "", "TAM_SECRET_PATH", _text("[A-Za-z0-9_-]{16,}", "16 or more of the characters A-Z a-z 0-9 _ -"),
        "Secret first part of every address but those of frames: Label Studio then connects to "
        "http://host:9090/<secret>. It protects the webhooks too.",
        secret=True,
    )  # fmt: skip
    media_hosts: tuple[str, ...] = _option(
        (), "TAM_MEDIA_HOSTS", _hosts,
        "Further hosts (name or name:port, comma-separated) from which videos may be fetched, also on private "
        "networks. Label Studio itself is always allowed.",
    )  # fmt: skip
    media_public: bool = _option(
        True, "TAM_MEDIA_PUBLIC", _boolean,
        "Whether videos may be fetched from every host on the open internet. false: only from Label Studio and "
        "TAM_MEDIA_HOSTS.",
    )  # fmt: skip
    media_roots: tuple[Path, ...] = _option(
        (), "TAM_MEDIA_ROOTS", _folders,
        "Directories of this machine (absolute, colon-separated) from which tasks may name videos as file:///path. "
        "Whoever may call this server can have any video below them tracked. Empty: none.",
    )  # fmt: skip
    media_cache_mb: int = _option(
        50_000, "TAM_MEDIA_CACHE_MB", _integer(1, 100_000_000),
        "Disk space for downloaded videos, in MB. Those not used for longest are dropped, and fetched again when "
        "needed.",
    )  # fmt: skip
    clip_length: int = _option(
        100, "TAM_CLIP_LENGTH", _integer(1, 10_000),
        "Frames a task at most. Longer videos become several tasks. Label Studio packs all brush regions before each "
        "click, so stay near 100 with BrushLabels; 300 is fine with BitmaskLabels.",
    )  # fmt: skip
    answer_seconds: float = _option(
        20.0, "TAM_ANSWER_SECONDS", _seconds(0.1, 90),
        "How long one click may compute before what is finished is sent (Label Studio gives up after 100 s).",
    )  # fmt: skip
    queue_limit: int = _option(
        16, "TAM_QUEUE_LIMIT", _integer(1, 1000),
        "Clicks that are computed at once. A further one is told that the server is busy; its masks are computed in "
        "the background and come with the next click.",
    )  # fmt: skip
    frame_link_days: int = _option(
        0, "TAM_FRAME_LINK_DAYS", _integer(0, 3650),
        "How many days the address of a frame is good. The tasks get new ones in the background when half of the time "
        "is over. 0: for ever.",
    )  # fmt: skip
    frame_caption: bool = _option(
        False, "TAM_FRAME_CAPTION", _boolean, "Draw frame number and time into a corner of the served frames."
    )
    progress_mark: bool = _option(
        False, "TAM_PROGRESS_MARK", _boolean,
        "Draw a thin strip along the top edge of served frames while objects are tracked in the background: it "
        "stands for the clip, what is finished is bright. Browsers then ask for a frame anew each time.",
    )  # fmt: skip
    frame_quality: int = _option(90, "TAM_FRAME_QUALITY", _integer(1, 100), "JPEG quality of the served frames.")
    frame_cache_mb: int = _option(
        1000, "TAM_FRAME_CACHE_MB", _integer(1, 1_000_000), "Disk space for served JPEG frames, in MB."
    )
    result_cache_mb: int = _option(
        500, "TAM_RESULT_CACHE_MB", _integer(1, 1_000_000), "Memory for finished masks, in MB."
    )
    memory_mb: int = _option(
        0, "TAM_MEMORY_MB", _integer(0, 10_000_000),
        "Memory that the server may take, in MB: its caches share a part of that, and are dropped when it comes near. "
        "0: three quarters of the machine's, or the container's.",
    )  # fmt: skip
    state_mb: int = _option(
        20_000, "TAM_STATE_MB", _integer(10, 10_000_000),
        "Disk space for finished masks, in MB. Beyond it those unused for longest are dropped, and computed again when "
        "they are needed.",
    )  # fmt: skip
    follow_frames: int = _option(
        3000, "TAM_FOLLOW_FRAMES", _integer(0, 1_000_000),
        "How many frames beyond its task a clicked object is followed in the background, forward and backward, into "
        "the video's other tasks that nobody has worked on. They get predictions. 0: not at all.",
    )  # fmt: skip
    max_video_mb: int = _option(
        4000, "TAM_MAX_VIDEO_MB", _integer(1, 1_000_000),
        "Largest video that is downloaded, in MB; also all images of a task together.",
    )  # fmt: skip
    max_image_mb: int = _option(
        50, "TAM_MAX_IMAGE_MB", _integer(1, 100_000), "Largest single image that is downloaded, in MB."
    )
    max_video_minutes: int = _option(
        600, "TAM_MAX_VIDEO_MINUTES", _integer(1, 100_000), "Longest video that is opened, in minutes."
    )
    max_video_frames: int = _option(
        1_000_000, "TAM_MAX_VIDEO_FRAMES", _integer(1, 4_000_000), "Most frames of a video that is opened."
    )
    max_megapixels: int = _option(
        64, "TAM_MAX_MEGAPIXELS", _integer(1, 500), "Largest frame or image that is decoded, in million pixels."
    )
    first_look_seconds: int = _option(
        600, "TAM_FIRST_LOOK_SECONDS", _integer(1, 100_000),
        "Longest time for the first look at a file, which a process of its own takes. Files whose container cannot be "
        "believed are decoded once from end to end in it.",
    )  # fmt: skip
    first_look_mb: int = _option(
        4000, "TAM_FIRST_LOOK_MB", _integer(100, 1_000_000), "Most memory for the same, in MB."
    )
    download_minutes: int = _option(
        60, "TAM_DOWNLOAD_MINUTES", _integer(1, 10_000),
        "Longest time for one download. What has come by then is kept, and the next try goes on from there.",
    )  # fmt: skip
    download_kb_per_second: int = _option(
        20, "TAM_DOWNLOAD_KB_PER_SECOND", _integer(1, 1_000_000),
        "A download that stays slower than this is cut and tried again, five times at most, in KB per second.",
    )  # fmt: skip
    max_request_mb: int = _option(
        256, "TAM_MAX_REQUEST_MB", _integer(1, 4000), "Largest request body that is read, in MB."
    )
    cluster: str = _option(
        "", "TAM_CLUSTER", _text(r"local|auto|[A-Za-z0-9.-]+:\d{1,5}", "local, auto, or HOST:PORT of a Ray cluster"),
        "Ray cluster whose workers compute for tam serve: auto, the one started on this machine; HOST:PORT of its "
        "head; local, workers on this machine alone. Empty: the server computes by itself.",
    )  # fmt: skip
    cluster_workers: int = _option(
        0, "TAM_CLUSTER_WORKERS", _integer(0, 10_000),
        "How many workers of TAM_CLUSTER this server takes. 0: one for each core, beside which tam batch has the time "
        "that is left; with GPUs one for each, so that none is left for it.",
    )  # fmt: skip
    log_format: str = _option(
        "text", "TAM_LOG_FORMAT", _choice("text", "json"),
        "Lines of the log: text, for people, or json, one object a line with the ids of request, project, task and "
        "session.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Raises BadInput when options contradict each other."""
        if bool(self.basic_auth_user) != bool(self.basic_auth_password):
            missing = "PASSWORD" if self.basic_auth_user else "USER"
            raise BadInput(f"TAM_BASIC_AUTH_{missing} is not set; basic auth needs both, user name and password")
        if self.secret_path and self.secret_path in self.public_url:
            raise BadInput(
                "TAM_PUBLIC_URL must not hold TAM_SECRET_PATH: frames are served without it, and annotators see their "
                "addresses"
            )

    @property
    def refine_options(self) -> RefineOptions | None:
        """None: no refinement."""
        return None if self.refine == "off" else RefineOptions(self.refine, self.refine_below)

    def without_secrets(self) -> Settings:
        """For workers, whose business they are not."""
        return replace(self, label_studio_token="", basic_auth_user="", basic_auth_password="", secret_path="")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the options from environment variables. An empty variable counts as not set.

        Raises BadInput naming the variable, what it holds and what would be right.
        """
        values = {}
        for option in fields(cls):
            variable = option.metadata["variable"]
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[option.name] = option.metadata["parse"](text)
            except ValueError as e:
                shown = "not right" if option.metadata["secret"] else repr(text)
                raise BadInput(f"{variable} is {shown}; it must be {e}") from e
        if values.get("label_studio_token") and not values.get("label_studio_url"):
            raise BadInput(
                "TAM_LABEL_STUDIO_TOKEN is set, but TAM_LABEL_STUDIO_URL is not: a token is sent only to an address "
                "that you name, so set both"
            )
        return cls(**values)

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """(variable, default, help) of every option, for help texts."""
        rows = []
        for option in fields(cls):
            default = ",".join(option.default) if isinstance(option.default, tuple) else str(option.default)
            rows.append((option.metadata["variable"], default, option.metadata["help"]))
        return rows


#: What label-studio-ml 2.x calls the address of Label Studio and its token.
_LIBRARY_NAMES = {"TAM_LABEL_STUDIO_URL": "LABEL_STUDIO_URL", "TAM_LABEL_STUDIO_TOKEN": "LABEL_STUDIO_API_KEY"}


def with_library_names(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the library's names for Label Studio and its token read as ours if neither of ours is set.

    Never one of each, nor a token alone: it must not go to an address that it was not meant for.
    """
    if any(environ.get(ours, "").strip() for ours in _LIBRARY_NAMES) or not environ.get("LABEL_STUDIO_URL", "").strip():
        return dict(environ)
    return {**environ, **{ours: environ.get(theirs, "") for ours, theirs in _LIBRARY_NAMES.items()}}
