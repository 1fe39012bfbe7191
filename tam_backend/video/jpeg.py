"""JPEG bytes for showing frames, with or without a caption, and pictures that say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tam_backend.video.base import Frame

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 21.0  # pixels of a capital letter at scale 1
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_BACKGROUND, _INK = (38, 38, 42), (235, 235, 235)


def encode_jpeg(frame: Frame, quality: int = 90, caption: str | None = None) -> bytes:
    """Encode a frame, HxWx3 uint8 RGB, as JPEG of quality 1..100.

    caption: a line of small text in the lower left corner, on a dark strip so that it can be read on any picture. It
    grows with the frame and shrinks to fit the frame's width. The frame itself is not changed.
    """
    if caption:
        frame = _with_caption(frame, caption)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode a frame of shape {frame.shape} as JPEG")
    return data.tobytes()


def decode_jpeg(data: bytes) -> Frame:
    """HxWx3 uint8 RGB. Raises ValueError if the bytes are no picture."""
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError("these bytes are no JPEG picture")
    return np.asarray(frame, np.uint8)


def placeholder(width: int, height: int, lines: Sequence[str]) -> Frame:
    """A height x width RGB picture with a message, wrapped at words, in the largest type (up to a limit) that fits."""
    image = np.full((height, width, 3), _BACKGROUND, np.uint8)
    margin = max(2, min(width, height) // 16)
    scale = max(0.2, min(width, height) / 480)
    while True:
        wrapped = [part for line in lines for part in _wrap(_printable(line), width - 2 * margin, scale)]
        step = round(2 * _FONT_HEIGHT * scale)
        if step * len(wrapped) <= height - 2 * margin or scale <= 0.2:
            break
        scale *= 0.9
    y = max(margin, (height - step * len(wrapped)) // 2) + round(1.5 * _FONT_HEIGHT * scale)
    for line in wrapped:
        _draw(image, line, margin, y, scale, _INK, thickness=max(1, round(scale)))
        y += step
    return image


def _with_caption(frame: Frame, caption: str) -> Frame:
    height, width = frame.shape[:2]
    text = _printable(caption)
    scale = max(0.3, min(height, width) / 900)
    while scale > 0.2 and _text_width(text, scale) > width - 4:
        scale *= 0.9
    pad = max(2, round(8 * scale))
    letter = round(_FONT_HEIGHT * scale)
    image = frame.copy()
    strip = image[max(0, height - letter - 2 * pad) :, : min(width, _text_width(text, scale) + 2 * pad)]
    strip //= 4  # darkened rather than covered: what is below stays visible
    _draw(image, text, pad, height - pad, scale, _BLACK, thickness=max(1, round(scale)) + 2)
    _draw(image, text, pad, height - pad, scale, _WHITE, thickness=max(1, round(scale)))
    return image


def _draw(
    image: Frame, text: str, x: int, y: int, scale: float, colour: tuple[int, int, int], *, thickness: int
) -> None:
    cv2.putText(image, text, (x, y), _FONT, scale, colour, thickness, cv2.LINE_AA)


def _printable(text: str) -> str:
    """OpenCV's fonts have ASCII letters only; others would each become several question marks."""
    return text.encode("ascii", "replace").decode("ascii")


def _text_width(text: str, scale: float) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, max(1, round(scale)))
    return int(width)


def _wrap(text: str, width: int, scale: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if _text_width(longer, scale) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # a word wider than the picture, a path for example, is broken anywhere
            if lines[-1] and _text_width(lines[-1] + letter, scale) > width:
                lines.append("")
            lines[-1] += letter
    return lines
