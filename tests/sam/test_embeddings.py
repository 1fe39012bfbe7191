"""What SAM knows of frames, kept on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tam_backend.segmenters.sam import Embedding, EmbeddingCache
from tam_backend.segmenters.sam.embeddings import pack_embedding, unpack_embedding

#: Bytes of the disk for one of our embeddings, with what the cache needs itself.
ONE = 40_000


def embedding(seed: int) -> Embedding:
    random = np.random.default_rng(seed)
    codes = random.integers(-32767, 32767, (1, 16, 32, 32)).astype(np.int16)
    return Embedding(codes, random.random((1, 16, 1, 1)).astype(np.float32), (480, 854))


def same(a: Embedding, b: Embedding) -> bool:
    return np.array_equal(a.codes, b.codes) and np.array_equal(a.scale, b.scale) and a.frame == b.frame


def never() -> Embedding:
    raise AssertionError("encoded again")


def test_an_embedding_outlives_its_cache(tmp_path: Path) -> None:
    first = EmbeddingCache(10**9, tmp_path, 10**9, "weights-fp32")
    made = first.get("video", 3, lambda: embedding(0))
    assert (first.hits, first.disk_hits, first.misses) == (0, 0, 1)
    first.close()
    second = EmbeddingCache(10**9, tmp_path, 10**9, "weights-fp32")
    assert same(second.get("video", 3, never), made)
    assert same(second.get("video", 3, never), made)
    assert (second.hits, second.disk_hits, second.misses) == (1, 1, 0)
    second.close()


@pytest.mark.parametrize(
    ("encoder", "video", "frame"),
    [("weights-fp16", "video", 3), ("weights-fp32", "other", 3), ("weights-fp32", "video", 4)],
)
def test_others_are_not_taken_for_it(tmp_path: Path, encoder: str, video: str, frame: int) -> None:
    first = EmbeddingCache(10**9, tmp_path, 10**9, "weights-fp32")
    first.get("video", 3, lambda: embedding(0))
    second = EmbeddingCache(10**9, tmp_path, 10**9, encoder)
    assert same(second.get(video, frame, lambda: embedding(1)), embedding(1))
    assert second.misses == 1
    first.close()
    second.close()


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    bound = 30 * ONE
    cache = EmbeddingCache(0, tmp_path, bound, "w")
    for frame in range(100):
        cache.get("video", frame, lambda: embedding(0))
    assert bound / 2 < sum(p.stat().st_size for p in tmp_path.rglob("*.val")) <= bound
    cache.get("video", 99, never)
    assert cache.disk_hits == 1
    cache.get("video", 0, lambda: embedding(0))
    assert cache.misses == 101, "the one unused for longest was dropped"
    cache.close()


def test_damaged_content_counts_as_missing(tmp_path: Path) -> None:
    cache = EmbeddingCache(0, tmp_path, 10**9, "w")
    cache.get("video", 0, lambda: embedding(0))
    [file] = tmp_path.rglob("*.val")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    cache.get("video", 0, lambda: embedding(0))
    assert cache.misses == 2
    assert same(cache.get("video", 0, never), embedding(0))
    [file] = tmp_path.rglob("*.val")
    file.write_bytes(b"")
    cache.get("video", 0, lambda: embedding(0))
    assert cache.misses == 3
    cache.close()


def test_packed_and_unpacked() -> None:
    packed = pack_embedding(embedding(5))
    unpacked = unpack_embedding(packed)
    assert unpacked is not None
    assert same(unpacked, embedding(5))
    for content in (b"", b"PK", packed[:-30], packed[:1000]):
        assert unpack_embedding(content) is None


def test_a_disk_that_fails_is_told_once_and_nothing_else_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    cache = EmbeddingCache(10**9, file / "folder", 10**9, "w")
    assert same(cache.get("video", 0, lambda: embedding(0)), embedding(0))
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    caplog.clear()
    cache = EmbeddingCache(0, tmp_path / "cache", 10**9, "w")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diskcache.Cache.set", full)
    for _ in range(3):
        cache.get("video", 0, lambda: embedding(0))
    assert cache.misses == 3
    [line] = [r.getMessage() for r in caplog.records]
    assert "embeddings of frames cannot be kept on disk ([Errno 28] No space left on device)" in line
    cache.close()
