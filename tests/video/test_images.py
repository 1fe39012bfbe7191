"""Folders and lists of images."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tam_backend.errors import MediaError
from tam_backend.video import open_images, open_source
from tam_backend.video.images import images_in
from tests.video.make import number_of, picture
from tests.video.test_pixels import TURNS

# EXIF orientation to the matrix of TURNS that shows the same
ORIENTATIONS = dict(enumerate([(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0),
                               (0, -1, -1, 0), (0, -1, 1, 0)], 1))  # fmt: skip


def save(path: Path, image: np.ndarray) -> Path:
    """Write an RGB(A) or gray image as OpenCV does."""
    swapped = image[..., [2, 1, 0, 3][: image.shape[2]]] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), np.ascontiguousarray(swapped))
    return path


def exif(orientation: int, order: str) -> bytes:
    """A TIFF structure with two entries, the second of which is the orientation."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    tags = [(0x0100, 640), (0x0112, orientation)]
    entries = b"".join(struct.pack(order + "HHIHxx", tag, 3, 1, value) for tag, value in tags)
    return magic + struct.pack(order + "IH", 8, 2) + entries + struct.pack(order + "I", 0)


def with_exif(path: Path, block: bytes) -> Path:
    data = path.read_bytes()
    if path.suffix == ".jpg":
        payload = b"Exif\0\0" + block
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]
    elif path.suffix == ".png":
        chunk = b"eXIf" + block
        data = data[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    else:
        height, width = cv2.imread(str(path)).shape[:2]
        extended = struct.pack("<4sIB3x", b"VP8X", 10, 8) + (width - 1).to_bytes(3, "little")
        extended += (height - 1).to_bytes(3, "little")
        body = (
            b"WEBP" + extended + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
        )
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    path.write_bytes(data)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures 0..11 as 1.png ... 12.png, and what does not belong to them."""
    for i in range(12):
        save(tmp_path / f"{i + 1}.png", picture(i))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_numbers(folder):
    with open_source(folder) as reader:
        assert len(reader) == 12
        assert [number_of(frame) for frame in reader] == list(range(12))
        assert [number_of(frame) for frame in reversed(reader.clone())] == list(range(11, -1, -1))
        np.testing.assert_array_equal(reader[np.int32(7)], picture(7))
        assert (reader.width, reader.height) == (96, 64)
        assert reader.time(6) == pytest.approx(6 / reader.fps)
        assert reader.warning is None
        for outside in (-1, 12):
            with pytest.raises(IndexError, match="0 to 11"):
                reader[outside]


def test_names_are_sorted_as_people_do(tmp_path):
    names = ["a2b10.jpg", "A10b1.JPG", "a2b9.jpg", "10.jpeg", "9.webp", "009a.bmp", "b.png", "x²1.png"]
    for name in names:
        (tmp_path / name).touch()
    expected = ["9.webp", "009a.bmp", "10.jpeg", "a2b9.jpg", "a2b10.jpg", "A10b1.JPG", "b.png", "x²1.png"]
    assert [path.name for path in images_in(tmp_path)] == expected


def test_a_list_keeps_its_order_and_needs_no_endings(folder):
    paths = []
    for i in (3, 1, 2):
        path = folder / f"download-{i}"
        path.write_bytes((folder / f"{i + 1}.png").read_bytes())
        paths.append(str(path))
    with open_images(paths, fps=10) as reader:
        assert [number_of(frame) for frame in reader] == [3, 1, 2]
        assert reader.time(2) == pytest.approx(0.2)


def test_one_image_is_a_source_too(folder):
    with open_source(folder / "5.png") as reader:
        assert len(reader) == 1
        assert number_of(reader[0]) == 4


@pytest.mark.parametrize(("suffix", "tolerance"), [(".jpg", 60), (".png", 0), (".webp", 0), (".bmp", 0)])
@pytest.mark.parametrize("kind", ["rgb", "gray"])
def test_every_format_becomes_rgb(tmp_path, suffix, tolerance, kind):
    image = picture(5, 97, 65)
    expected = image
    if kind == "gray":
        image = image[..., 1]
        expected = np.repeat(image[..., None], 3, axis=2)
    with open_images([save(tmp_path / f"a{suffix}", image)]) as reader:
        assert reader[0].dtype == np.uint8
        assert reader[0].shape == (65, 97, 3)
        difference = np.abs(reader[0].astype(int) - expected)
        assert difference.max() <= tolerance
        assert difference.mean() <= tolerance / 10


def test_transparency_is_dropped_and_of_16_bits_the_upper_8_are_kept(tmp_path):
    rgb = picture(5, 97, 65)
    alpha = np.arange(97 * 65).reshape(65, 97, 1).astype(np.uint8)
    deep = rgb.astype(np.uint16) * 256 + 99
    gray = np.repeat(rgb[..., :1], 3, axis=2)
    cases = [(np.dstack([rgb, alpha]), rgb), (deep, rgb), (deep[..., 0], gray)]
    for i, (image, expected) in enumerate(cases):
        with open_images([save(tmp_path / f"{i}.png", image)]) as reader:
            np.testing.assert_array_equal(reader[0], expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_exif_orientation_is_applied(tmp_path, suffix, orientation, order):
    path = save(tmp_path / f"a{suffix}", picture(9))
    with open_images([path]) as reader:
        stored = reader[0]
    with_exif(path, exif(orientation, order))
    with open_images([path]) as reader:
        expected = TURNS[ORIENTATIONS[orientation]](stored)
        assert (reader.height, reader.width) == expected.shape[:2]
        np.testing.assert_array_equal(reader[0], expected)


@pytest.mark.parametrize("block", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", exif(9, "<"), exif(0, ">"), b"garbage" * 9])
def test_damaged_exif_is_no_reason_to_refuse(tmp_path, block):
    path = with_exif(save(tmp_path / "a.jpg", picture(9)), block)
    with open_images([path]) as reader:
        assert number_of(reader[0]) == 9


def test_all_images_must_have_one_size(folder):
    save(folder / "8.png", picture(0, 64, 96))
    with pytest.raises(MediaError, match=r"one size: 8\.png is 64x96, 1\.png is 96x64"):
        open_source(folder)


def test_turned_images_of_one_shown_size_belong_together(tmp_path):
    upright = save(tmp_path / "1.png", picture(1))
    turned = save(tmp_path / "2.png", np.rot90(picture(2)))
    with pytest.raises(MediaError, match="one size"):
        open_images([upright, turned])
    with_exif(turned, exif(6, "<"))
    with open_images([upright, turned]) as reader:
        assert [number_of(frame) for frame in reader] == [1, 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<html>404</html>", "not a JPEG, PNG, WebP or BMP"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 \xff\0\0\0", "damaged"),
        (b"BM\0\0\0\0\0\0", "damaged"),
    ],
)
def test_what_is_not_an_image_is_named(folder, content, says):
    (folder / "3.png").write_bytes(content)
    with pytest.raises(MediaError, match=rf"3\.png .*{says}"):
        open_source(folder)


def test_an_image_that_fails_when_it_is_read_is_named(folder):
    with open_source(folder) as reader:
        data = (folder / "3.png").read_bytes()
        (folder / "3.png").write_bytes(data[:40])
        with pytest.raises(MediaError, match=r"image 2, 3\.png, cannot be decoded"):
            reader[2]
        save(folder / "4.png", picture(0, 64, 96))
        with pytest.raises(MediaError, match=r"4\.png, changed"):
            reader[3]
        (folder / "5.png").unlink()
        with pytest.raises(MediaError, match=r"image 4, 5\.png, cannot be read: No such file"):
            reader[4]
        assert number_of(reader[5]) == 5
    with pytest.raises(MediaError, match="closed"):
        reader[5]


def test_missing_images_and_empty_folders(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.png does not exist"):
        open_images([tmp_path / "gone.png"])
    with pytest.raises(MediaError, match="no images"):
        open_images([])
    with pytest.raises(MediaError, match="has no images"):
        open_source(tmp_path)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    path = save(tmp_path / "a.png", picture(0))
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, 16, 60_000, 60_000)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"a\.png is 60000x60000 pixels; the limit is 64 million"):
        open_images([path])


def test_the_key_names_contents_in_their_order(folder):
    paths = images_in(folder)
    key = open_images(paths).key
    assert key == open_source(folder).key == open_source(folder, cache_dir=folder / "cache").key
    assert key != open_images(paths[::-1]).key
    assert key != open_images(paths[:-1]).key
    paths[0].rename(folder / "0.png")
    assert key == open_source(folder).key
