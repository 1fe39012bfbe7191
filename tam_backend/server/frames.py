"""GET /frames/<video>/<index>.jpg: one frame of a video as JPEG, decoded when asked for, cached on disk.

With TAM_PROGRESS_MARK, frames of a clip that is worked on carry a strip that says how far the work is. It is drawn into
a copy on its way to the browser: the cache holds frames without it, and the engines read the video itself.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import diskcache
import numpy as np
import numpy.typing as npt
from flask import Blueprint, Response, abort, request

from tam_backend.drawing import draw_progress
from tam_backend.errors import MediaError
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks, Permission
from tam_backend.sessions.progress import ClipProgress, Progress
from tam_backend.settings import Settings
from tam_backend.video.jpeg import decode_jpeg, encode_jpeg, placeholder
from tam_backend.video.subsample import original_frame

log = logging.getLogger(__name__)

#: Seconds for which browsers keep a frame that stays as it is.
YEAR = 31_536_000
_DISK_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the strip shows. done: (n,) float32 in [0, 1], the share of objects finished on each frame of the clip.

    at: place of the frame in the clip.
    """

    done: npt.NDArray[np.float32]
    at: int

    @property
    def key(self) -> str:
        """Equal for marks that look the same."""
        return hashlib.blake2b(self.done.tobytes() + str(self.at).encode(), digest_size=12).hexdigest()


def mark_of(progress: ClipProgress, frame: int) -> Mark | None:
    """The mark of a frame; None if there is nothing to show: no object, all finished, or a frame of another clip."""
    clip, objects = progress.clip, progress.done.values()
    if frame not in clip or not objects:
        return None
    finished = np.zeros((len(objects), len(clip)), bool)
    for row, ranges in zip(finished, objects, strict=True):
        for part in ranges:
            row[max(part.start - clip.start, 0) : max(part.stop - clip.start, 0)] = True
    return None if finished.all() else Mark(finished.mean(0, dtype=np.float32), frame - clip.start)


class FrameServer:
    """Frames as JPEG bytes. Thread-safe. The cache on disk stays within its bound; the oldest frames go first.

    progress: who knows about work in the background, for the mark. looked_up: told of each lookup in the cache: disk or
    miss.
    """

    def __init__(
        self,
        library: VideoLibrary,
        settings: Settings,
        progress: Progress | None = None,
        looked_up: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._looked_up = looked_up
        self._library = library
        self._settings = settings
        self._progress = progress
        #: What decides how a frame looks, apart from its mark.
        self._look = f"{settings.frame_quality}/{int(settings.frame_caption)}"
        path = settings.data_dir / "frames"
        self._cache = diskcache.Cache(
            str(path), size_limit=settings.frame_cache_mb * 1_000_000, eviction_policy="least-recently-stored"
        )

    def close(self) -> None:
        self._cache.close()

    @property
    def lasting(self) -> bool:
        """Whether a frame looks the same for ever. With marks it does not, so browsers have to ask each time."""
        return not self._settings.progress_mark

    def mark(self, video: str, index: int) -> Mark | None:
        """What a frame is to be marked with now."""
        if self.lasting or self._progress is None:
            return None
        progress = self._progress.clip_progress(video, index)
        return mark_of(progress, index) if progress else None

    def tag(self, mark: Mark | None) -> str:
        """Names the look of a frame: another mark, another tag."""
        return f"{self._look}/{mark.key if mark else 'plain'}"

    def jpeg(self, video: str, index: int, mark: Mark | None = None) -> bytes | None:
        """The frame; None if the video has no such frame. Raises MediaError if it cannot be read."""
        data = self._plain(video, index)
        if data is None or mark is None:
            return data
        # From the JPEG and not from the video: 3 ms for 854x480 in any case, where a seek could cost a hundred.
        return encode_jpeg(draw_progress(decode_jpeg(data), mark.done, mark.at), quality=self._settings.frame_quality)

    def _plain(self, video: str, index: int) -> bytes | None:
        key = f"{video}/{index}/{self._look}"
        cached = self._kept(key)
        self._looked_up("miss" if cached is None else "disk")
        if cached is not None:
            return cached
        reader = self._library.shared(video)
        if not 0 <= index < len(reader):
            return None
        caption = None
        if self._settings.frame_caption:
            seconds = reader.time(index)
            number, last = original_frame(reader, index), original_frame(reader, len(reader) - 1)
            caption = f"frame {number} of 0-{last}   {int(seconds // 60)}:{seconds % 60:06.3f}"
        data = encode_jpeg(reader[index], quality=self._settings.frame_quality, caption=caption)
        self._keep(key, data)
        return data

    def _kept(self, key: str) -> bytes | None:
        try:
            cached = self._cache.get(key)
        except _DISK_ERRORS:
            return None
        return None if cached is None else bytes(cached)

    def _keep(self, key: str, data: bytes) -> None:
        """A disk that is full or cannot be written costs the time to decode again, nothing else."""
        try:
            self._cache.set(key, data)
        except _DISK_ERRORS as e:
            log.warning("frames cannot be kept on disk (%s)", e)


def frames_blueprint(frames: FrameServer, library: VideoLibrary, links: FrameLinks) -> Blueprint:
    """The route. Apart from the signature anybody may ask: browsers send neither cookies nor credentials here."""
    blueprint = Blueprint("frames", __name__)

    @blueprint.get("/frames/<video>/<int:index>.jpg")
    def frame(video: str, index: int) -> Response:
        permission = Permission.read(request.args)
        if not links.signed(video, permission):
            abort(403, "the signature of this frame's address is missing or wrong")
        left = links.seconds_left(permission)
        if left <= 0:
            abort(403, "this frame's address has ended: open the task again")
        mark = frames.mark(video, index)
        tag = frames.tag(mark)
        if not frames.lasting and request.if_none_match.contains_weak(tag):
            return _picture(None, "no-cache", tag)  # the browser has it: nothing is read, drawn or encoded
        try:
            data = frames.jpeg(video, index, mark)
        except MediaError as e:
            log.warning("frame %s of video %s: %s", index, video, e)
            text = library.error(video) or str(e)
            picture = encode_jpeg(placeholder(960, 540, ["This video cannot be shown.", text]), quality=90)
            return _picture(picture, "no-store")  # it may be mended
        if data is None:
            abort(404, "the video has no such frame")
        if frames.lasting:
            forever = math.isinf(left)
            return _picture(data, f"{'public' if forever else 'private'}, max-age={int(min(left, YEAR))}, immutable")
        return _picture(data, "no-cache", tag)

    return blueprint


def _picture(data: bytes | None, cache_control: str, tag: str | None = None) -> Response:
    """data: None for "not modified"."""
    response = Response(data, status=200 if data is not None else 304, mimetype="image/jpeg")
    # Label Studio's page fetches frames from another origin, and shows nothing without this header.
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cache-Control"] = cache_control
    if tag:
        response.set_etag(tag, weak=True)
    return response
