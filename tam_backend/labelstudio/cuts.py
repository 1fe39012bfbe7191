"""Which frames of a video its tasks show: how a video is to be cut into clips, and what a finished clip shows.

Both stand in the data of tasks, so that whoever reads a task (the backend, ``tam export``, a script) knows the frame
numbers of the original video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.links import frame_of

#: Keys of task data: how a task without frames is to be cut; which frames a task shows; the name of its video.
PLAN_KEY, CUT_KEY, SOURCE_KEY = "cut_plan", "cut", "source"

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_CONTENT_SUFFIX = re.compile(r"-[0-9a-f]{12}$")
_MAX_FRAME = 10_000_000


@dataclass(frozen=True, slots=True)
class CutPlan:
    """How to cut a video: clips of ``length`` frames, of which each shares its first ``overlap`` with the one before;
    of every ``every``-th frame from ``first`` to ``last`` (None: the video's last one).

    length counts frames that are shown. Raises BadInput for numbers that make no clips.
    """

    length: int = 100
    overlap: int = 0
    every: int = 1
    first: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        for name in ("length", "overlap", "every", "first", "last"):
            value = getattr(self, name)
            low = 1 if name in ("length", "every") else 0
            if value is None and name == "last":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _MAX_FRAME:
                raise BadInput(f"{name} must be a whole number from {low} to {_MAX_FRAME}, not {value!r:.40}")
        if self.overlap >= self.length:
            raise BadInput(f"clips of {self.length} frames cannot share {self.overlap}: overlap must be smaller")
        if self.last is not None and self.last < self.first:
            raise BadInput(f"the last frame, {self.last}, is before the first one, {self.first}")

    def cuts(self, count: int) -> list[Cut]:
        """The clips of a video of ``count`` frames, in order. Raises BadInput if it has none of the frames."""
        if self.first >= count:
            raise BadInput(f"there is no frame {self.first}, the video has frames 0 to {count - 1}")
        stop = count if self.last is None else min(self.last + 1, count)
        shown = range(self.first, stop, self.every)
        cuts, at = [], 0
        while True:
            part = shown[at : at + self.length]
            cuts.append(Cut(part.start, len(part), self.every))
            if at + self.length >= len(shown):
                return cuts
            at += self.length - self.overlap

    def as_json(self) -> dict[str, int | None]:
        return asdict(self)

    @classmethod
    def of_task(cls, data: Mapping[str, Any]) -> CutPlan | None:
        """The plan in a task's data, None if there is none. Raises BadInput if it is no plan."""
        plan = data.get(PLAN_KEY)
        if plan is None:
            return None
        if not isinstance(plan, dict) or not set(plan) <= set(cls.__dataclass_fields__):
            raise BadInput(f"{PLAN_KEY} of the task is {plan!r:.80}, not an object with {', '.join(cls.__slots__)}")
        return cls(**plan)


@dataclass(frozen=True, slots=True)
class Cut:
    """The frames of a task: ``count`` of them, every ``every``-th of the original video from ``first`` on."""

    first: int
    count: int
    every: int = 1

    @property
    def frames(self) -> range:
        """Frame numbers of the original video; that of ``item_index`` i is at [i]."""
        return range(self.first, self.first + self.count * self.every, self.every)

    def as_json(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def of_task(cls, data: Mapping[str, Any], config: LabelConfig) -> Cut | None:
        """What a task shows, None if it has no frames yet. Pictures of which nothing is known are numbered from 0."""
        frames = data.get(config.frames_key())
        return cls.of_frames(data, frames) if isinstance(frames, list) and frames else None

    @classmethod
    def of_frames(cls, data: Mapping[str, Any], frames: Sequence[object]) -> Cut:
        """The same of a task whose list of frames is known."""
        cut = data.get(CUT_KEY)
        if isinstance(cut, dict):
            first, every = cut.get("first"), cut.get("every")
            if isinstance(first, int) and isinstance(every, int) and first >= 0 and every >= 1:
                return cls(first, len(frames), every)
        ours = frame_of(frames[0])
        return cls(ours[1] if ours else 0, len(frames))


def video_of(data: Mapping[str, Any], config: LabelConfig) -> str:
    """What says that tasks show the same video: its address, or what stands for one. "" if nothing does."""
    address = data.get(config.video_key) or data.get(SOURCE_KEY)
    return str(address) if isinstance(address, str) else ""


def video_name(data: Mapping[str, Any], config: LabelConfig) -> str:
    """A short name of a task's video."""
    source = data.get(SOURCE_KEY)
    return short_name(source.partition("#")[0] if isinstance(source, str) and source else video_of(data, config))


def short_name(text: str) -> str:
    """Of a video's address or path, fit for a folder: the file's name without its ending, and without what Label Studio
    puts before it."""
    parts = urlsplit(text)
    path = parse_qs(parts.query).get("d", [parts.path])[0] if "?" in text else parts.path
    name = _UPLOAD_PREFIX.sub("", PurePosixPath(unquote(path)).name)
    stem = _CONTENT_SUFFIX.sub("", name.rpartition(".")[0] or name)
    return re.sub(r"[^\w.-]+", "_", stem).strip("._") or "video"
