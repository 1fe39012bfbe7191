"""Masks as Label Studio writes them: brush regions (a run-length bit stream) and bitmask regions (a PNG data URL).

A mask here is always HxW bool, True on the object. Decoders take what a request sent: everything that is wrong with it
ends in BadInput, and no memory is taken before the sizes it claims are known to be those of the frame.

The brush stream is the one of the npm package ``@thi.ng/rle-pack``, which the editor uses and
``label_studio_sdk.converter.brush`` follows. It holds the flat RGBA bytes of the mask, of which only alpha counts.
Big-endian bit fields, without padding between them:

    header   number of values (32 bits), bits of a value - 1 (5), the four count sizes - 1 (4 x 4)
    token    is it a run (1), which count size (2), count - 1 (as many as that says), and the value of the run (8);
             or, if it is not a run (a literal), count values
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from tam_backend.errors import BadInput
from tam_backend.prompts import Mask

ALPHA_THRESHOLD: Final = 128
"""Alpha from which a pixel is on the object; masks drawn in the editor have soft edges."""

_CHANNELS: Final = 4
_VALUE_BITS: Final = 8
_HEADER_BITS: Final = 32 + 5 + 4 * 4
_COUNT_SIZES: Final = (3, 4, 8, 16)
_MAX_VALUES: Final = 2**32 - 1
# One token of the longest kind holds 2**16 values.
_MAX_TOKEN_PIXELS: Final = 2 ** _COUNT_SIZES[-1] // _CHANNELS
# Bytes of stream that are decoded at a time. This bounds the working memory whatever is sent.
_BLOCK_BYTES: Final = 1 << 16
_PNG_URL: Final = "data:image/png;base64,"

_Uint64s = npt.NDArray[np.uint64]
_Int64s = npt.NDArray[np.int64]


def encode_brush_rle(mask: Mask) -> list[int]:
    """The bytes of the brush stream of a mask, as the ``rle`` of a brush region wants them.

    mask: HxW bool. The same bytes as ``mask2rle(mask * 255)`` of the SDK: all four channels are 255 on the object and
    0 elsewhere.
    """
    flat = _flat(mask)
    run_tokens = _run_tokens(flat)
    tokens, widths = _TOKENS.take(run_tokens), _TOKEN_WIDTHS.take(run_tokens)
    ends = np.cumsum(widths) + _HEADER_BITS
    starts = ends - widths
    total_bits = int(ends[-1])

    # Tokens are at most 27 bits long, so one begins in every 64-bit word that is not the last, and only the last token
    # of a word can reach into the next.
    word = starts >> 6
    offset = (starts & 63).astype(np.uint64)
    firsts = np.concatenate(([0], np.flatnonzero(word[1:] != word[:-1]) + 1))
    lasts = np.append(firsts[1:], word.size) - 1
    words = np.zeros((total_bits >> 6) + 2, np.uint64)
    words[: firsts.size] = np.bitwise_or.reduceat(tokens >> offset, firsts)
    words[1 : firsts.size + 1] |= tokens[lasts] << (64 - offset[lasts])
    words[0] |= _header(flat.size * _CHANNELS) << (64 - _HEADER_BITS)
    # The SDK ends a stream that fills its last byte with one more, of zeros.
    return list(words.astype(">u8").tobytes()[: total_bits // 8 + 1])


def decode_brush_rle(rle: Sequence[int] | bytes | npt.NDArray[np.uint8], size: tuple[int, int]) -> Mask:
    """The mask in a brush stream: HxW bool, True where alpha is at least ALPHA_THRESHOLD.

    rle: the bytes of the stream (0..255), from the SDK, the editor or encode_brush_rle. size: (height, width) of the
    frame. Bytes after the last value are ignored, as Label Studio ignores them.
    Raises BadInput if the stream is damaged or is not that of a frame of this size.
    """
    height, width = size
    stream = _stream_bytes(rle)
    count_sizes = _read_header(stream, height, width)
    return _decode_tokens(stream, count_sizes, height * width * _CHANNELS).reshape(height, width)


def encode_bitmask_url(mask: Mask) -> str:
    """The ``imageDataURL`` of a bitmask region: an RGBA PNG like the editor's, opaque black on the object.

    mask: HxW bool.
    """
    alpha = _flat(mask) * np.uint8(255)
    height, width = mask.shape
    image = Image.new("RGBA", (width, height))
    image.putalpha(Image.frombuffer("L", image.size, alpha, "raw", "L", 0, 1))
    png = io.BytesIO()
    # Masks are long runs: this strategy is as fast as level 1 and, for all but noise, smaller than the default level 6.
    # A 1-bit palette would be half as large and faster still, but RGBA is what the editor writes itself.
    image.save(png, "PNG", compress_type=zlib.Z_RLE)
    return _PNG_URL + base64.b64encode(png.getvalue()).decode("ascii")


def decode_bitmask_url(url: str, size: tuple[int, int]) -> Mask:
    """The mask in a PNG data URL: HxW bool, True where alpha is at least ALPHA_THRESHOLD.

    size: (height, width) of the frame. The PNG may have an alpha channel or transparent palette entries or colours.
    One that has neither is refused: Label Studio looks at alpha only and shows such an image as a mask of the whole
    frame, which is never what its author meant.
    Raises BadInput if the URL is not a base64 PNG, or the PNG is damaged or not of this size.
    """
    height, width = size
    if not isinstance(url, str) or url[: len(_PNG_URL)].lower() != _PNG_URL:
        raise BadInput(f"bitmask must be a string that starts with '{_PNG_URL}', not {str(url)[:30]!r}")
    try:
        png = base64.b64decode(url[len(_PNG_URL) :], validate=True)
    except ValueError as error:
        raise BadInput(f"bitmask is not valid base64: {error}") from error
    try:
        # Opening reads the header; the pixels are decoded further down.
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.size != (width, height):
                raise BadInput(f"bitmask is {image.height}x{image.width} (height x width), the frame {height}x{width}")
            if not image.has_transparency_data:
                raise BadInput(
                    "bitmask has no transparency, so Label Studio shows it as a mask of the whole frame; "
                    "it must be an RGBA PNG with alpha 0 outside the object"
                )
            with_alpha = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
            return np.asarray(with_alpha.getchannel("A")) >= ALPHA_THRESHOLD
    except BadInput:
        raise
    except Exception as error:  # Pillow's decoder lets a dozen types out, SyntaxError and struct.error among them
        raise BadInput(f"bitmask is not a readable PNG: {error}") from error


def _flat(mask: Mask) -> npt.NDArray[np.bool_]:
    if mask.ndim != 2 or mask.dtype != np.bool_ or not 0 < mask.size * _CHANNELS <= _MAX_VALUES:
        raise BadInput(f"mask must be HxW bool and not empty, not {mask.dtype} of shape {mask.shape}")
    return np.ascontiguousarray(mask).reshape(-1)


def _header(num_values: int) -> np.uint64:
    header = num_values << 5 | (_VALUE_BITS - 1)
    for size in _COUNT_SIZES:
        header = header << 4 | (size - 1)
    return np.uint64(header)


def _token_tables() -> tuple[_Uint64s, npt.NDArray[np.uint8]]:
    """Tokens, aligned to the top of the word, and their widths.

    Four tables one after the other, each indexed by the pixels of a run: with the smallest count size, value 0 and
    value 255; then with the largest, the same.
    """
    counts = np.maximum(_CHANNELS * np.arange(_TABLE_SIZE) - 1, 0)
    smallest = np.searchsorted(2 ** np.array(_COUNT_SIZES), counts, side="right")
    which = np.concatenate((smallest, smallest, np.full(2 * _TABLE_SIZE, len(_COUNT_SIZES) - 1)))
    sizes = np.array(_COUNT_SIZES)[which]
    widths = 3 + sizes + _VALUE_BITS
    values = np.tile(np.repeat([0, 255], _TABLE_SIZE), 2)
    tokens = ((0b100 | which) << sizes | np.tile(counts, 4)) << _VALUE_BITS | values
    return tokens.astype(np.uint64) << (64 - widths).astype(np.uint64), widths.astype(np.uint8)


_TABLE_SIZE: Final = _MAX_TOKEN_PIXELS + 1
_TOKENS, _TOKEN_WIDTHS = _token_tables()


def _run_tokens(flat: npt.NDArray[np.bool_]) -> _Int64s:
    """Indices into the token tables: the tokens of the runs of a mask, in order."""
    bounds = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    pixels = np.diff(bounds)
    table = (np.arange(pixels.size) & 1 ^ int(flat[0])) * _TABLE_SIZE
    if pixels.max() <= _MAX_TOKEN_PIXELS:
        return table + pixels
    # A run too long for one token is cut into full ones and a rest, which the SDK writes with the largest count size
    # however short it is.
    parts = -(-pixels // _MAX_TOKEN_PIXELS)
    table += 2 * _TABLE_SIZE * (parts > 1)
    tokens = np.repeat(table + _MAX_TOKEN_PIXELS, parts)
    tokens[np.cumsum(parts) - 1] = table + pixels - (parts - 1) * _MAX_TOKEN_PIXELS
    return tokens


def _stream_bytes(rle: Any) -> bytes | bytearray:
    if isinstance(rle, bytes | bytearray):
        return rle
    if isinstance(rle, np.ndarray):
        if rle.dtype != np.uint8 or rle.ndim != 1:
            raise BadInput(f"rle as an array must be one-dimensional uint8, not {rle.dtype} of shape {rle.shape}")
        return rle.tobytes()
    if not isinstance(rle, list | tuple):
        raise BadInput(f"rle must be a list of integers from 0 to 255, not {type(rle).__name__}")
    try:
        return bytearray(rle)  # twice as fast as bytes()
    except (TypeError, ValueError) as error:
        raise BadInput(f"rle must be a list of integers from 0 to 255: {error}") from error


def _read_header(stream: bytes | bytearray, height: int, width: int) -> tuple[int, ...]:
    """The four count sizes, after a check that the stream is that of an RGBA image of this size."""
    if len(stream) * 8 < _HEADER_BITS:
        raise BadInput(f"rle is cut off: {len(stream)} bytes do not even hold its header")
    header = int.from_bytes(stream[:7], "big") >> (7 * 8 - _HEADER_BITS)
    num_values, value_bits = header >> 21, (header >> 16 & 31) + 1
    expected = height * width * _CHANNELS
    if num_values != expected:
        raise BadInput(
            f"rle holds {num_values} values, but a frame of {height}x{width} (height x width) with "
            f"{_CHANNELS} channels has {expected}"
        )
    if value_bits != _VALUE_BITS:
        raise BadInput(f"rle has values of {value_bits} bits, but colours have {_VALUE_BITS}")
    return tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))


@lru_cache(maxsize=4)
def _step_table(count_sizes: tuple[int, ...]) -> _Uint64s:
    """For two bytes of stream: how many bits a token has that begins at bit 0, 1, .. 7 of the first (8 bytes in one).

    The 8 bits from there on tell it for runs and short literals; 0 stands for a literal of which they do not.
    """
    head = np.arange(256)
    steps = np.zeros(256, np.uint8)
    for which, size in enumerate(count_sizes):
        run = head >> 5 == (0b100 | which)
        steps[run] = 3 + size + _VALUE_BITS
        if size <= 4:  # the count is inside the 8 bits, and the sum below 256
            literal = head >> 5 == which
            count = (head >> (5 - size) & (2**size - 1)) + 1
            steps[literal] = (3 + size + _VALUE_BITS * count)[literal]
    pair = np.arange(1 << 16)
    by_phase = np.stack([steps[pair >> (8 - phase) & 255] for phase in range(8)], axis=1)
    return by_phase.view(np.uint64).reshape(-1)


def _decode_tokens(stream: bytes | bytearray, count_sizes: tuple[int, ...], num_values: int) -> npt.NDArray[np.bool_]:
    """The flat mask in the tokens of a stream, which must hold this many values.

    Where a token begins follows from the one before, so that chain is walked in Python, one step a token. Everything
    else is done for all tokens of a block at once.
    """
    total_bits = len(stream) * 8
    padded = stream + bytes(8)
    octets = np.frombuffer(padded, np.uint8)
    sizes_of_kind = np.array(count_sizes * 2)
    parts: list[npt.NDArray[np.bool_]] = []
    done, bit = 0, _HEADER_BITS  # values decoded so far, and where the next token begins
    while done < num_values:
        starts = _token_starts(octets, bit, total_bits, count_sizes)
        base = bit >> 3
        # The 64 bits from each byte of the block on. A token's fields are in the 57 that are left after the shift.
        windows: _Uint64s = np.ndarray((min(_BLOCK_BYTES, len(stream) - base),), ">u8", padded, base, (1,))
        heads = windows.take((starts >> 3) - base).astype(np.uint64) << (starts & 7).astype(np.uint64)
        kinds = (heads >> 61).astype(np.intp)
        sizes = sizes_of_kind[kinds]
        counts = (heads << 3 >> (64 - sizes).astype(np.uint64)).astype(np.int64) + 1
        ends = np.cumsum(counts) + done

        tokens = int(np.searchsorted(ends, num_values)) + 1  # those after the last value are padding
        if tokens < ends.size:
            starts, kinds, sizes, counts, ends = (a[:tokens] for a in (starts, kinds, sizes, counts, ends))
        literal = kinds < 0b100
        firsts = starts + 3 + sizes  # bit of the first value of each token
        begun, done = done, int(ends[-1])
        bit = int(firsts[-1]) + _VALUE_BITS * (int(counts[-1]) if literal[-1] else 1)
        if bit > total_bits or (bit == total_bits and done < num_values):
            raise BadInput(f"rle is cut off: its {len(stream)} bytes hold fewer than {num_values} values")
        if done > num_values:
            raise BadInput(f"rle is damaged: its last run goes beyond the {num_values} values of the frame")

        # Pixel i has its alpha at value 4i + 3: the values from a up to b hold the alphas of pixels a // 4 to b // 4.
        pixel_ends = ends >> 2
        pixel_starts = np.concatenate(([begun >> 2], pixel_ends[:-1]))
        pixels = pixel_ends - pixel_starts
        # The highest bit of a value says whether it is at least ALPHA_THRESHOLD.
        part = np.repeat(_bits_at(octets, firsts), pixels)
        if literal.any():
            alphas = firsts + _VALUE_BITS * (_CHANNELS * pixel_starts + 3 - (ends - counts))
            where, pixels, alphas = (a[literal] for a in (pixel_starts - (begun >> 2), pixels, alphas))
            nth = np.arange(pixels.sum()) - np.repeat(np.cumsum(pixels) - pixels, pixels)
            bits = np.repeat(alphas, pixels) + _VALUE_BITS * _CHANNELS * nth
            part[np.repeat(where, pixels) + nth] = _bits_at(octets, bits)
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _bits_at(octets: npt.NDArray[np.uint8], positions: _Int64s) -> npt.NDArray[np.bool_]:
    return (octets.take(positions >> 3) << (positions & 7).astype(np.uint8)) >= 128


def _token_starts(octets: npt.NDArray[np.uint8], bit: int, total_bits: int, count_sizes: tuple[int, ...]) -> _Int64s:
    """Where (in bits) the tokens begin that begin in the block from ``bit`` on, itself one."""
    base = bit & ~7
    block = octets[base >> 3 :][: _BLOCK_BYTES + 1]
    steps = _step_table(count_sizes).take(block[:-1].astype(np.uint16) << 8 | block[1:]).tobytes()
    end = min(base + 8 * _BLOCK_BYTES, total_bits) - base

    def walk() -> Iterator[int]:
        position = bit - base
        while position < end:
            yield position
            position += steps[position] or _literal_bits(octets, base + position, count_sizes)

    return np.fromiter(walk(), np.int64) + base


def _literal_bits(octets: npt.NDArray[np.uint8], bit: int, count_sizes: tuple[int, ...]) -> int:
    """Length in bits of the literal token that begins at ``bit``."""
    head = int.from_bytes(octets[bit >> 3 :][:4].tobytes(), "big") >> (8 - (bit & 7)) & 0xFFFFFF
    size = count_sizes[head >> 21 & 3]
    count = (head >> (21 - size) & (2**size - 1)) + 1
    return 3 + size + _VALUE_BITS * count
