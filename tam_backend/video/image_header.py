"""Size and orientation of JPEG, PNG, WebP and BMP files from their headers, without decoding a pixel.

Sources: ITU-T T.81 B.1-B.2 (JPEG), W3C PNG third edition 5 and 11, the WebP container specification (RFC 9649),
RFC 6386 9.1, CIPA DC-008 4.5 and 4.6 (EXIF; tag 0x0112 is the orientation).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tam_backend.errors import MediaError
from tam_backend.video.pixels import EXIF_ORIENTATIONS, Orientation

_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG and DAC
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}  # TEM and RST0..RST7 have no length


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """width, height: as stored, in pixels. orientation: how to show it."""

    width: int
    height: int
    orientation: Orientation

    @property
    def shown_size(self) -> tuple[int, int]:
        return self.orientation.size(self.width, self.height)


def read_image_header(path: Path) -> ImageHeader:
    """Raises MediaError: missing, unreadable, empty, or not an image of these four kinds."""
    try:
        with path.open("rb") as file:
            magic = file.read(12)
            file.seek(0)
            if not magic:
                raise MediaError(f"{path.name} is empty (0 bytes)")
            if magic[:2] == b"\xff\xd8":
                width, height, exif = _jpeg(file)
            elif magic[:8] == b"\x89PNG\r\n\x1a\n":
                width, height, exif = _png(file)
            elif magic[:4] == b"RIFF" and magic[8:] == b"WEBP":
                width, height, exif = _webp(file)
            elif magic[:2] == b"BM":
                width, height, exif = *_bmp(file), b""
            else:
                raise MediaError(f"{path.name} is not a JPEG, PNG, WebP or BMP image")
    except FileNotFoundError:
        raise MediaError(f"{path.name} does not exist") from None
    except OSError as error:
        raise MediaError(f"{path.name} cannot be read: {error.strerror}") from None
    except (struct.error, IndexError, ValueError):
        raise MediaError(f"{path.name} is a damaged image: its header is incomplete") from None
    if width < 1 or height < 1:
        raise MediaError(f"{path.name} is a damaged image: its size is {width}x{height}")
    return ImageHeader(width, height, _exif_orientation(exif))


def _jpeg(file: BinaryIO) -> tuple[int, int, bytes]:
    file.seek(2)
    exif = b""
    while True:
        if file.read(1) != b"\xff":
            raise ValueError
        marker = 0xFF
        while marker == 0xFF:  # any number of fill bytes may stand before a marker
            marker = file.read(1)[0]
        if marker in _BARE_MARKERS:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _SIZE_MARKERS:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height, exif
        if marker == 0xDA:  # the pixels begin, and no size was given
            raise ValueError
        payload = file.read(length - 2)
        if marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload[6:]


def _png(file: BinaryIO) -> tuple[int, int, bytes]:
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return width, height, file.read(length)
        if kind == b"IDAT":
            break
        file.seek(length + 4, 1)
    return width, height, b""


def _webp(file: BinaryIO) -> tuple[int, int, bytes]:
    file.seek(12)
    width = height = 0
    exif = b""
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        body = file.tell()
        if kind == b"VP8X":
            bits = file.read(10)
            width = int.from_bytes(bits[4:7], "little") + 1
            height = int.from_bytes(bits[7:10], "little") + 1
        elif kind == b"VP8 " and not width:
            width, height = (n & 0x3FFF for n in struct.unpack("<6xHH", file.read(10)))
        elif kind == b"VP8L" and not width:
            (bits32,) = struct.unpack("<xI", file.read(5))
            width, height = (bits32 & 0x3FFF) + 1, (bits32 >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = file.read(length).removeprefix(b"Exif\0\0")
        file.seek(body + length + length % 2)
    return width, height, exif


def _bmp(file: BinaryIO) -> tuple[int, int]:
    file.seek(14)
    (header_size,) = struct.unpack("<I", file.read(4))
    if header_size == 12:
        width, height = struct.unpack("<HH", file.read(4))
        return width, height
    width, height = struct.unpack("<ii", file.read(8))
    return width, abs(height)  # a negative height means that the rows are stored from the top


def _exif_orientation(exif: bytes) -> Orientation:
    """Orientation from a TIFF structure; as stored if there is none or it is damaged, as viewers do."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return Orientation()
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 0x0112:
                return EXIF_ORIENTATIONS.get(value, Orientation())
    except struct.error:
        pass
    return Orientation()
