"""GET /frames/<video>/<index>.jpg: one frame of a video as JPEG, decoded when asked for, cached on disk."""

from __future__ import annotations

import logging

import diskcache
from flask import Blueprint, Response, abort, request

from tam_backend.errors import MediaError
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks
from tam_backend.settings import Settings
from tam_backend.video.jpeg import encode_jpeg, placeholder

log = logging.getLogger(__name__)


class FrameServer:
    """Frames as JPEG bytes. Thread-safe. The cache on disk stays within its bound; the oldest frames go first."""

    def __init__(self, library: VideoLibrary, settings: Settings) -> None:
        self._library = library
        self._settings = settings
        path = settings.data_dir / "frames"
        self._cache = diskcache.Cache(
            str(path), size_limit=settings.frame_cache_mb * 1_000_000, eviction_policy="least-recently-stored"
        )

    def close(self) -> None:
        self._cache.close()

    def jpeg(self, video: str, index: int) -> bytes | None:
        """The frame; None if the video has no such frame. Raises MediaError if it cannot be read."""
        key = f"{video}/{index}/{self._settings.frame_quality}/{int(self._settings.frame_caption)}"
        cached = self._cache.get(key)
        if cached is not None:
            return bytes(cached)
        reader = self._library.shared(video)
        if not 0 <= index < len(reader):
            return None
        caption = None
        if self._settings.frame_caption:
            seconds = reader.time(index)
            caption = f"frame {index} of 0-{len(reader) - 1}   {int(seconds // 60)}:{seconds % 60:06.3f}"
        data = encode_jpeg(reader[index], quality=self._settings.frame_quality, caption=caption)
        self._cache.set(key, data)
        return data


def frames_blueprint(frames: FrameServer, library: VideoLibrary, links: FrameLinks) -> Blueprint:
    """The route. Apart from the signature anybody may ask: browsers send neither cookies nor credentials here."""
    blueprint = Blueprint("frames", __name__)

    @blueprint.get("/frames/<video>/<int:index>.jpg")
    def frame(video: str, index: int) -> Response:
        if not links.valid(video, request.args.get("sig", "")):
            abort(403, "the signature of this frame's address is missing or wrong")
        lasting = True
        try:
            data = frames.jpeg(video, index)
        except MediaError as e:
            log.warning("frame %s of video %s: %s", index, video, e)
            text = library.error(video) or str(e)
            data = encode_jpeg(placeholder(960, 540, ["This video cannot be shown.", text]), quality=90)
            lasting = False  # it may be mended
        if data is None:
            abort(404, "the video has no such frame")
        response = Response(data, mimetype="image/jpeg")
        # Label Studio's page fetches frames from another origin, and shows nothing without this header.
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if lasting else "no-store"
        return response

    return blueprint
