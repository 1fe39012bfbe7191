"""The videos that most tests read, each made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.video.make import make_video, set_edit


@dataclass(frozen=True)
class Kind:
    """A way in which videos differ.

    group: packets of the longest stretch that one frame can need: its group of pictures, for open groups also the
    leading pictures behind the next key frame. decoded: whether indexing has to decode the whole file.
    """

    file: str
    arguments: dict = field(default_factory=dict)
    frames: int = 48
    group: int = 48
    decoded: bool = False
    change: Callable[[Path], None] | None = None


def x264(parameters: str) -> dict[str, str]:
    return {"x264-params": parameters}


_CLOSED = x264("keyint=12:min-keyint=12:scenecut=0:bframes=2:b-adapt=0")
_OPEN = x264("keyint=16:min-keyint=16:scenecut=0:open-gop=1:bframes=3:b-adapt=0")
_PYRAMID = x264("keyint=24:scenecut=0:bframes=7:b-pyramid=normal:b-adapt=0")
_X265 = {"x265-params": "keyint=16:open-gop=1:bframes=3:log-level=none"}
_VP9 = {"g": "12", "cpu-used": "8", "lag-in-frames": "12"}
_FRAGMENTED = {"movflags": "+frag_keyframe+empty_moov"}
_UNEVEN = [0, 33, 100, 133, 167, 250, 283, 290, 400, 1000]
_VARIABLE = [1100 * (i // 10) + _UNEVEN[i % 10] for i in range(48)]

KINDS = {
    "closed groups": Kind("a.mp4", {"options": _CLOSED}, group=12),
    "open groups": Kind("a.mp4", {"options": _OPEN}, group=20),
    "one long group": Kind("a.mp4", {"options": x264("keyint=250:bframes=3:scenecut=0")}),
    "pyramid of B-frames": Kind("a.mkv", {"options": _PYRAMID}, group=24),
    "intra refresh": Kind("a.mp4", {"options": x264("keyint=12:intra-refresh=1:bframes=0")}),
    "variable rate": Kind("a.mp4", {"options": _CLOSED, "stamps": _VARIABLE}, group=12),
    "start offset": Kind("a.mp4", {"options": _CLOSED, "stamps": [730 + 40 * i for i in range(48)]}, group=12),
    "start offset in mkv": Kind("a.mkv", {"options": _CLOSED, "stamps": [730 + 40 * i for i in range(48)]}, group=12),
    "edit list": Kind("a.mp4", {"options": _CLOSED}, 30, 12, decoded=True, change=lambda path: set_edit(path, 5, 30)),
    "fragmented": Kind("a.mp4", {"options": _CLOSED, "container_options": _FRAGMENTED}, group=12),
    "audio first": Kind("a.mov", {"options": _CLOSED, "audio_first": True}, group=12),
    "10 bit": Kind("a.mp4", {"options": _CLOSED, "pixel_format": "yuv420p10le"}, group=12),
    "odd size": Kind("a.webm", {"codec": "libvpx", "options": {"g": "12"}, "size": (97, 65)}, group=12),
    "full range": Kind("a.mp4", {"options": _CLOSED, "pixel_format": "yuvj420p"}, group=12),
    "interlaced": Kind("a.mp4", {"options": x264("keyint=12:interlaced=1"), "size": (96, 128)}, group=16, decoded=True),
    "hevc, open groups": Kind("a.mp4", {"codec": "libx265", "options": _X265}, group=24),
    "vp9": Kind("a.webm", {"codec": "libvpx-vp9", "options": _VP9}, group=12),
    "avi without timestamps": Kind("a.avi", {"options": _CLOSED}, group=12, decoded=True),
    "mpeg4 in avi": Kind("a.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, group=16, decoded=True),
    "mpeg2 stream": Kind("a.ts", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}, group=16, decoded=True),
    "motion jpeg": Kind("a.mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, group=1),
}


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a kind, which no test changes."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            kind = KINDS[name]
            path = make_video(tmp_path_factory.mktemp("videos") / kind.file, **kind.arguments)
            if kind.change:
                kind.change(path)
            made[name] = path
        return made[name]

    return get
