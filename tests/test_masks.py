"""The mask coders, judged by the Label Studio SDK, by Pillow and OpenCV, and by regions saved in the real editor."""

from __future__ import annotations

import base64
import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle
from PIL import Image

from tam_backend import masks
from tam_backend.errors import BadInput
from tam_backend.masks import decode_bitmask_url, decode_brush_rle, encode_bitmask_url, encode_brush_rle
from tam_backend.prompts import Mask

DATA = Path(__file__).parent / "data" / "masks"
MiB = 1 << 20
URL = "data:image/png;base64,"
Size = tuple[int, int]

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sdk_rle(mask: Mask) -> list[int]:
    return mask2rle(mask.astype(np.uint8) * 255)


def sdk_mask(rle: Any, size: Size) -> Mask:
    return decode_rle(rle).reshape(*size, 4)[..., 3] >= 128


def as_url(png: bytes) -> str:
    return URL + base64.b64encode(png).decode()


def png_of(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def samples(name: str) -> list[Any]:
    return json.loads((DATA / name).read_text())


@st.composite
def hw_masks(draw: st.DrawFn) -> Mask:
    """Noise and long runs, from 1x1 to 64x64."""
    height, width = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    n = height * width
    if draw(st.booleans()):
        data = draw(st.binary(min_size=n // 8 + 1, max_size=n // 8 + 1))
        flat = np.unpackbits(np.frombuffer(data, np.uint8))[:n].astype(bool)
    else:
        edges = draw(st.lists(st.integers(0, n - 1), max_size=40))
        flat = np.zeros(n, bool)
        for edge in edges:
            flat[edge:] ^= True
    return flat.reshape(height, width)


def strips() -> list[Mask]:
    """Runs at and around the limits of each count size, up to several tokens a run."""
    out = []
    for length in (1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 2 * 16384, 40000):
        for mask in (np.zeros((1, length + 2), bool), np.ones((length + 2, 1), bool)):
            out.append(mask.copy())
            flat = mask.reshape(-1)
            flat[1 : 1 + length] ^= True
            out.append(mask)
    return [*out, np.zeros((480, 854), bool), np.ones((480, 854), bool), np.zeros((1, 1), bool), np.ones((1, 1), bool)]


class TestBrushAgainstTheSdk:
    @many
    @given(hw_masks())
    def test_round_trips(self, mask: Mask) -> None:
        ours, theirs = encode_brush_rle(mask), sdk_rle(mask)
        assert ours == theirs
        assert np.array_equal(sdk_mask(ours, mask.shape), mask)
        assert np.array_equal(decode_brush_rle(theirs, mask.shape), mask)

    @pytest.mark.parametrize("mask", strips(), ids=lambda m: f"{m.shape[0]}x{m.shape[1]}-{int(m.sum())}")
    def test_long_and_odd_runs(self, mask: Mask) -> None:
        rle = encode_brush_rle(mask)
        assert rle == sdk_rle(mask)
        assert np.array_equal(decode_brush_rle(rle, mask.shape), mask)

    def test_fragmented_mask_of_several_blocks(self) -> None:
        mask = np.random.default_rng(5).random((480, 854)) < 0.5
        rle = encode_brush_rle(mask)
        assert len(rle) > 3 * masks._BLOCK_BYTES
        assert rle == sdk_rle(mask)
        assert np.array_equal(decode_brush_rle(rle, mask.shape), mask)

    def test_a_stream_that_fills_its_last_byte(self) -> None:
        # 53 bits of header and one token of 27: the SDK adds a byte of zeros.
        rle = encode_brush_rle(np.ones((1, 100), bool))
        assert rle == sdk_rle(np.ones((1, 100), bool))
        assert (len(rle), rle[-1]) == (11, 0)
        assert decode_brush_rle(rle[:-1], (1, 100)).all()  # the editor does not add it

    def test_masks_that_are_not_contiguous(self) -> None:
        base = np.random.default_rng(1).random((40, 60)) < 0.3
        for view in (base.T, base[::-1], base[5:30, 7:50]):
            assert encode_brush_rle(view) == sdk_rle(np.ascontiguousarray(view))

    @many
    @given(st.integers(1, 24), st.integers(1, 24), st.data())
    def test_any_rgba_image_is_cut_at_alpha_128(self, height: int, width: int, data: st.DataObject) -> None:
        levels = data.draw(st.sampled_from([(0, 255), (0, 127, 128, 255), tuple(range(256))]))
        raw = data.draw(st.binary(min_size=4 * height * width, max_size=4 * height * width))
        rgba = np.array(levels, np.uint8)[np.frombuffer(raw, np.uint8).astype(int) % len(levels)].reshape(
            height, width, 4
        )
        rle = encode_rle(rgba.reshape(-1))
        assert np.array_equal(decode_brush_rle(rle, (height, width)), rgba[..., 3] >= 128)


@st.composite
def token_streams(draw: st.DrawFn) -> tuple[list[int], npt.NDArray[np.uint8]]:
    """Any stream the format allows, with literals and unusual count sizes, and the RGBA values (Nx4) it stands for."""
    sizes = draw(st.sampled_from([(3, 4, 8, 16), (3, 4, 8, 16), (1, 2, 5, 9), (16, 8, 4, 3), (4, 5, 6, 7)]))
    values: list[int] = []
    fields: list[tuple[int, int]] = []

    def token(is_run: bool, which: int, content: list[int]) -> None:
        fields.extend([(is_run, 1), (which, 2), (len(content) - 1, sizes[which])])
        fields.extend((v, 8) for v in (content[:1] if is_run else content))
        values.extend(content)

    for _ in range(draw(st.integers(1, 25))):
        is_run, which = draw(st.booleans()), draw(st.integers(0, 3))
        longest = 2 ** sizes[which]
        count = draw(st.integers(1, min(longest, 400 if is_run else 60)) | st.just(min(longest, 300)))
        token(
            is_run,
            which,
            [draw(st.integers(0, 255))] * count if is_run else list(draw(st.binary(min_size=count, max_size=count))),
        )
    while len(values) % 4:
        token(False, 0, [draw(st.integers(0, 255))])
    header = [(len(values), 32), (7, 5), *((size - 1, 4) for size in sizes)]
    bits = "".join(f"{value:0{width}b}" for value, width in header + fields)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big")), np.array(values, np.uint8).reshape(-1, 4)


class TestStreamsWithLiterals:
    @many
    @given(token_streams(), st.sampled_from([1, 2, 3, 7, 32, 1 << 16]))
    def test_every_token_kind(
        self, monkeypatch: pytest.MonkeyPatch, case: tuple[list[int], npt.NDArray[np.uint8]], block: int
    ) -> None:
        rle, rgba = case
        size = (1, len(rgba))
        expected = rgba[None, :, 3] >= 128
        assert np.array_equal(sdk_mask(rle, size), expected)  # the stream of this test is what it says it is
        with monkeypatch.context() as patch:
            patch.setattr(masks, "_BLOCK_BYTES", block)
            assert np.array_equal(decode_brush_rle(rle, size), expected)

    @many
    @given(token_streams(), st.data())
    def test_cut_off_anywhere(self, case: tuple[list[int], npt.NDArray[np.uint8]], data: st.DataObject) -> None:
        rle, rgba = case
        length = data.draw(st.integers(0, len(rle) - 1))
        with pytest.raises(BadInput, match="rle is cut off"):
            decode_brush_rle(rle[:length], (1, len(rgba)))

    @pytest.mark.parametrize("name", ["brush_regions.json", "brush_coloured.json"])
    def test_regions_of_the_editor(self, name: str) -> None:
        # brush_regions.json was saved in the editor; brush_coloured.json is a drawn RGBA image that went through the
        # editor's encoder, for the literals that coloured soft edges make.
        for region in samples(name):
            size = region["original_height"], region["original_width"]
            rle = region["value"]["rle"]
            rgba = decode_rle(rle).reshape(*size, 4)
            expected = rgba[..., 3] >= 128
            mask = decode_brush_rle(rle, size)
            assert np.array_equal(mask, expected)
            assert decode_brush_rle(encode_brush_rle(mask), size).sum() == expected.sum() > 0

    def test_the_samples_have_what_they_are_for(self) -> None:
        predicted, fixed = (decode_rle(r["value"]["rle"]).reshape(-1, 4) for r in samples("brush_regions.json"))
        assert np.unique(predicted[:, 3]).tolist() == [0, 255]
        assert np.unique(fixed[:, 3]).size > 100  # soft edges
        (coloured,) = (decode_rle(r["value"]["rle"]).reshape(-1, 4) for r in samples("brush_coloured.json"))
        inside = coloured[coloured[:, 3] > 200]
        assert np.ptp(inside[:, :3].mean(axis=0)) > 100  # three different channels, so long literals


class TestBrushInput:
    MASK = np.random.default_rng(2).random((9, 11)) < 0.5

    @pytest.mark.parametrize("kind", [list, tuple, bytes, bytearray, lambda rle: np.array(rle, np.uint8)])
    def test_accepted_types(self, kind: Callable[[list[int]], Any]) -> None:
        mask = decode_brush_rle(kind(encode_brush_rle(self.MASK)), (9, 11))
        assert np.array_equal(mask, self.MASK)
        assert mask.dtype == np.bool_
        assert mask.flags.writeable

    def test_the_given_array_is_not_changed(self) -> None:
        rle = bytearray(encode_brush_rle(self.MASK))
        before = bytes(rle)
        decode_brush_rle(rle, (9, 11))
        assert rle == before

    @pytest.mark.parametrize(
        ("rle", "message"),
        [
            (None, "list of integers"),
            ("AAAA", "list of integers"),
            (7, "list of integers"),
            ({"0": 1}, "list of integers"),
            ([1.0] * 20, "list of integers"),
            ([None] * 20, "list of integers"),
            (["1"] * 20, "list of integers"),
            ([[1]] * 20, "list of integers"),
            ([-1] * 20, "list of integers"),
            ([256] * 20, "list of integers"),
            ([10**400] * 20, "list of integers"),
            (np.zeros((4, 4), np.uint8), "one-dimensional uint8"),
            (np.zeros(30, np.int64), "one-dimensional uint8"),
            (np.zeros(30, np.float32), "one-dimensional uint8"),
            ([], "cut off"),
            ([0, 0, 1, 140, 0, 0], "cut off"),
            ([255] * 20, "holds 4294967295 values"),
            ([0] * 20, "holds 0 values"),
        ],
        ids=lambda x: repr(x)[:24],
    )
    def test_refused(self, rle: Any, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            decode_brush_rle(rle, (9, 11))

    def test_another_frame_size(self) -> None:
        rle = encode_brush_rle(self.MASK)
        with pytest.raises(BadInput, match=r"rle holds 396 values, but a frame of 9x12 .* has 432"):
            decode_brush_rle(rle, (9, 12))

    def test_values_that_are_not_bytes(self) -> None:
        rle = encode_brush_rle(self.MASK)
        rle[4] = 15 << 3 | rle[4] & 7
        with pytest.raises(BadInput, match="16 bits"):
            decode_brush_rle(rle, (9, 11))

    def test_a_last_run_that_is_too_long(self) -> None:
        rle = encode_brush_rle(np.ones((1, 100), bool))
        rle[:4] = struct.pack(">I", 4 * 99)
        with pytest.raises(BadInput, match="goes beyond the 396 values"):
            decode_brush_rle(rle, (1, 99))

    def test_bytes_after_the_last_value_are_ignored(self) -> None:
        rle = encode_brush_rle(self.MASK) + list(range(256)) * 5
        assert np.array_equal(decode_brush_rle(rle, (9, 11)), self.MASK)

    @pytest.mark.parametrize("claim", [2**32 - 1, 2**31, 4 * 480 * 854 + 1])
    def test_a_huge_claim_takes_no_memory(self, claim: int) -> None:
        rle = encode_brush_rle(np.zeros((480, 854), bool))
        rle[:4] = struct.pack(">I", claim)
        assert refused_within(MiB // 16, lambda: decode_brush_rle(rle, (480, 854)))

    def test_working_memory_is_bounded_by_the_block(self) -> None:
        # The shortest tokens there are, one value each: the most work for the fewest bytes.
        header = encode_brush_rle(np.zeros((480, 854), bool))[:6]
        noise = np.random.default_rng(3).integers(0, 256, 3 * MiB, dtype=np.uint8)
        for body in (bytes(3 * MiB), noise.tobytes()):
            stream = bytes(header) + b"\x78" + body
            peak = peak_memory(lambda stream=stream: decode_or_none(stream, (480, 854)))
            assert peak < len(stream) + 480 * 854 + 8 * MiB

    @many
    @given(
        st.lists(st.integers(-2, 300) | st.none() | st.floats() | st.text(max_size=2), max_size=40)
        | st.binary(max_size=60)
        | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
    )
    def test_fuzz_anything(self, rle: Any) -> None:
        decode_or_none(rle, (2, 3))

    @many
    @given(hw_masks(), st.data())
    def test_fuzz_damaged_streams(self, mask: Mask, data: st.DataObject) -> None:
        rle = encode_brush_rle(mask)
        for _ in range(data.draw(st.integers(1, 4))):
            rle[data.draw(st.integers(0, len(rle) - 1))] = data.draw(st.integers(0, 255))
        decode_or_none(rle, mask.shape)

    @many
    @given(st.binary(min_size=0, max_size=300), st.integers(0, 2**16 - 1))
    def test_fuzz_bodies_of_a_valid_header(self, body: bytes, count_sizes: int) -> None:
        head = (4 * 30 * 40) << 21 | 7 << 16 | count_sizes
        decode_or_none((head << 3).to_bytes(7, "big") + body, (30, 40))


def decode_or_none(rle: Any, size: Size) -> None:
    """Decoding ends in a mask of the right shape or in BadInput with a sentence; anything else fails the test."""
    try:
        mask = decode_brush_rle(rle, size)
    except BadInput as error:
        require_sentence(error)
    else:
        assert mask.shape == size


def require_sentence(error: BadInput) -> None:
    assert len(str(error).split()) > 4


def peak_memory(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused_within(limit: int, action: Callable[[], object]) -> bool:
    def refused() -> None:
        with pytest.raises(BadInput):
            action()

    return peak_memory(refused) < limit


@pytest.mark.parametrize("encode", [encode_brush_rle, encode_bitmask_url])
@pytest.mark.parametrize(
    "mask", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), bool), np.zeros(4, bool), np.zeros((0, 4), bool)]
)
def test_encoders_say_what_a_mask_is(encode: Callable[[Any], object], mask: Any) -> None:
    with pytest.raises(BadInput, match="mask must be HxW bool and not empty"):
        encode(mask)


def soft_alpha() -> npt.NDArray[np.uint8]:
    return np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)  # every value from 0 to 255


class TestBitmask:
    @many
    @given(hw_masks())
    def test_round_trip(self, mask: Mask) -> None:
        url = encode_bitmask_url(mask)
        image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(URL), validate=True)))
        assert (image.format, image.mode) == ("PNG", "RGBA")
        rgba = np.asarray(image)
        assert np.array_equal(rgba[..., 3], mask * np.uint8(255))
        assert not rgba[..., :3].any()
        assert np.array_equal(decode_bitmask_url(url, mask.shape), mask)

    def test_masks_that_are_not_contiguous(self) -> None:
        base = np.random.default_rng(1).random((40, 60)) < 0.3
        assert np.array_equal(decode_bitmask_url(encode_bitmask_url(base.T[::2]), (30, 40)), base.T[::2])

    def test_small(self) -> None:
        ellipse = cv2.ellipse(np.zeros((480, 854), np.uint8), (427, 240), (170, 120), 20, 0, 360, 1, -1).astype(bool)
        assert len(encode_bitmask_url(ellipse)) < 4200

    def test_regions_saved_by_the_editor(self) -> None:
        predicted, fixed = samples("bitmask_regions.json")
        for region, soft in ((predicted, False), (fixed, True)):
            url = region["value"]["imageDataURL"]
            png = np.frombuffer(base64.b64decode(url.removeprefix(URL)), np.uint8)
            alpha = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)[..., 3]
            assert (np.unique(alpha).size > 2) == soft
            mask = decode_bitmask_url(url, (region["original_height"], region["original_width"]))
            assert np.array_equal(mask, alpha >= 128)
            assert mask.any()

    def test_pngs_with_an_alpha_channel(self) -> None:
        alpha = soft_alpha()
        rgba = np.dstack([np.full((20, 30, 3), 77, np.uint8), alpha])
        deep = cv2.imencode(".png", np.dstack([np.zeros((20, 30, 3), np.uint16), alpha.astype(np.uint16) * 257]))[1]
        for png in (
            png_of(Image.fromarray(rgba)),
            png_of(Image.fromarray(np.dstack([255 - alpha, alpha]), "LA")),
            deep.tobytes(),  # 16 bits a channel
        ):
            assert np.array_equal(decode_bitmask_url(as_url(png), (20, 30)), alpha >= 128)

    @pytest.mark.parametrize("bits", [1, 8])
    def test_palettes_with_transparency(self, bits: int) -> None:
        mask = soft_alpha() >= 100
        image = Image.fromarray(mask.astype(np.uint8), "P")
        image.putpalette([10, 20, 30, 40, 50, 60])
        png = png_of(image, bits=bits, transparency=b"\x7f\x80")
        assert np.array_equal(decode_bitmask_url(as_url(png), (20, 30)), mask)

    @pytest.mark.parametrize(
        ("mode", "transparent"), [("L", 0), ("RGB", (0, 0, 0)), ("1", 0)], ids=["grey", "colour", "black and white"]
    )
    def test_one_transparent_colour(self, mode: str, transparent: Any) -> None:
        mask = soft_alpha() >= 100
        image = Image.fromarray(mask * np.uint8(255)).convert(mode)
        png = png_of(image, transparency=transparent)
        assert np.array_equal(decode_bitmask_url(as_url(png), (20, 30)), mask)

    @pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "I;16"])
    def test_no_transparency_is_refused(self, mode: str) -> None:
        with pytest.raises(BadInput, match="no transparency"):
            decode_bitmask_url(as_url(png_of(Image.new(mode, (30, 20)))), (20, 30))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header_chunk(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = chunk(b"IDAT", zlib.compress(bytes(20 * (1 + 4 * 30))))
END = chunk(b"IEND", b"")
GOOD = SIGNATURE + header_chunk(30, 20) + PIXELS + END


class TestBitmaskInput:
    def test_the_png_that_the_table_below_spoils_is_good(self) -> None:
        assert not decode_bitmask_url(as_url(GOOD), (20, 30)).any()
        assert not decode_bitmask_url(as_url(GOOD).replace("image/png", "image/PNG"), (20, 30)).any()

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            (None, "must be a string that starts with"),
            (b"data:image/png;base64,", "must be a string that starts with"),
            (["data"], "must be a string that starts with"),
            ("", "must be a string that starts with"),
            (as_url(GOOD).replace("png", "jpeg"), "must be a string that starts with .* not 'data:image/jpeg"),
            (as_url(GOOD).replace("base64", "utf8"), "must be a string that starts with"),
            ("http://localhost/mask.png", "must be a string that starts with"),
            (URL + "@@@@", "not valid base64"),
            (URL + "AAA", "not valid base64"),
            (URL + "é" * 8, "not valid base64"),
            (as_url(GOOD) + "\n", "not valid base64"),
            (URL, "not a readable PNG"),
            (as_url(b"GIF89a" + bytes(40)), "not a readable PNG"),
            (as_url(SIGNATURE), "not a readable PNG"),
            (as_url(GOOD[:60]), "not a readable PNG"),
            (as_url(SIGNATURE + header_chunk(30, 20) + END), "not a readable PNG"),
            (as_url(GOOD.replace(PIXELS, chunk(b"IDAT", b"not zlib at all"))), "not a readable PNG"),
            (as_url(GOOD[:45] + b"\xff" + GOOD[46:]), "not a readable PNG"),
            (as_url(SIGNATURE + header_chunk(20, 30) + PIXELS + END), "30x20 .height x width., the frame 20x30"),
        ],
        ids=lambda x: repr(x)[:40],
    )
    def test_refused(self, url: Any, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            decode_bitmask_url(url, (20, 30))

    @pytest.mark.parametrize(
        "head",
        [
            header_chunk(9000, 9000),
            header_chunk(60000, 60000),
            header_chunk(2**31 - 1, 2**31 - 1),
            header_chunk(30, 20) + header_chunk(9000, 9000),
            header_chunk(30, 20) + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 * MiB))),
        ],
        ids=["9000", "60000", "2**31", "second header", "text"],
    )
    def test_bombs_take_no_memory(self, head: bytes) -> None:
        pixels = chunk(b"IDAT", zlib.compress(bytes(16 * MiB)))
        url = as_url(SIGNATURE + head + pixels + END)
        assert refused_within(4 * MiB, lambda: decode_bitmask_url(url, (20, 30)))

    def test_pixels_beyond_the_image_are_not_decompressed(self) -> None:
        pixels = chunk(b"IDAT", zlib.compress(bytes(64 * MiB)))
        url = as_url(SIGNATURE + header_chunk(30, 20) + pixels + END)
        assert peak_memory(lambda: decode_bitmask_url(url, (20, 30))) < MiB

    @many
    @given(st.data())
    def test_fuzz_damaged_pngs(self, data: st.DataObject) -> None:
        png = bytearray(
            GOOD if data.draw(st.booleans()) else base64.b64decode(encode_bitmask_url(FRAGMENTS)[len(URL) :])
        )
        for _ in range(data.draw(st.integers(0, 4))):
            png[data.draw(st.integers(0, len(png) - 1))] = data.draw(st.integers(0, 255))
        self.decode_or_none(as_url(bytes(png[: data.draw(st.integers(0, len(png)))])))

    @many
    @given(
        st.text(max_size=20)
        | st.text(max_size=40).map(lambda text: URL + text)
        | st.binary(max_size=80).map(as_url)
        | st.binary(max_size=80).map(lambda data: as_url(SIGNATURE + header_chunk(30, 20) + data))
        | st.lists(
            st.builds(
                chunk,
                st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"iCCP", b"pHYs", b"acTL", b"fcTL", b"fdAT"]),
                st.binary(max_size=40),
            ),
            max_size=4,
        ).map(lambda chunks: as_url(SIGNATURE + header_chunk(30, 20) + b"".join(chunks) + PIXELS + END))
    )
    def test_fuzz_anything(self, url: str) -> None:
        self.decode_or_none(url)

    @staticmethod
    def decode_or_none(url: str) -> None:
        try:
            mask = decode_bitmask_url(url, (20, 30))
        except BadInput as error:
            require_sentence(error)
        else:
            assert mask.shape == (20, 30)


FRAGMENTS = np.random.default_rng(4).random((20, 30)) < 0.5
