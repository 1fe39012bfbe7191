"""The layouts of data sets, and what is said about those that are broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tam_backend.errors import BadInput
from tam_backend.evaluation.datasets import BrokenSequence, load_sequence
from tam_backend.evaluation.layouts import find_sequences, read_imset
from tests.evaluation.scenes import (
    HEIGHT,
    WIDTH,
    ids_of,
    moving_square,
    square,
    write_davis,
    write_frame,
    write_ids,
    write_sequence,
)


def load_only(root: Path, **options):
    (paths,) = find_sequences(root).sequences
    return load_sequence(paths, **options)


class TestDavis:
    def test_sequences_by_name_or_as_listed(self, tmp_path):
        root = write_davis(tmp_path, {"b": moving_square(), "a": moving_square(), "c": moving_square()})
        (tmp_path / "ImageSets/2017/two.txt").write_text("c\n\n  a\n")
        layout = find_sequences(root)
        assert (layout.kind, layout.split, [s.name for s in layout.sequences]) == ("davis", "", ["a", "b", "c"])
        listed = find_sequences(root, Path("2017/two.txt"))
        assert (listed.split, [s.name for s in listed.sequences]) == ("two", ["c", "a"])
        assert [s.name for s in find_sequences(root, Path("2017/two.txt"), 1).sequences] == ["c"]

    def test_a_list_of_davis_2016_names_every_frame(self, tmp_path):
        path = tmp_path / "val.txt"
        path.write_text(
            "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png\n"
            "/JPEGImages/480p/dog/00001.jpg /Annotations/480p/dog/00001.png\n"
            "/JPEGImages/480p/cat/00000.jpg /Annotations/480p/cat/00000.png\n"
        )
        assert read_imset(path) == ["dog", "cat"]

    def test_objects_frames_and_masks(self, tmp_path):
        ids = [ids_of({1: square(i, 2), 3: square(20, 4 + i)}) for i in range(4)]
        sequence = load_only(write_davis(tmp_path, {"two": ids}))
        assert sequence.first == {1: 0, 3: 0}
        assert (sequence.height, sequence.width, sequence.stems[:2]) == (HEIGHT, WIDTH, ("00000", "00001"))
        assert sequence.scored(1) == [1, 2]  # without the first and the last
        assert np.array_equal(sequence.mask(2, 3), square(20, 6))
        with sequence.open() as video:
            assert len(video) == 4

    def test_merged_as_in_davis_2016(self, tmp_path):
        ids = [ids_of({1: square(i, 2), 3: square(20, 4)}) for i in range(4)]
        ids[1][0, 0] = 255
        sequence = load_only(write_davis(tmp_path, {"two": ids}), merge=True)
        assert sequence.objects == [1]
        assert np.array_equal(sequence.mask(1, 1), square(1, 2) | square(20, 4))
        assert np.argwhere(sequence.void(1)).tolist() == [[0, 0]]
        assert sequence.void(2) is None

    @pytest.mark.parametrize("mode", ["L", "RGB", "1"])
    def test_black_and_white_masks_are_one_object(self, tmp_path, mode):
        frames, masks = tmp_path / "JPEGImages/480p/a", tmp_path / "Annotations/480p/a"
        write_sequence(frames, masks, [255 * (i > 0).astype(np.uint8) for i in moving_square(4)], mode=mode)
        sequence = load_only(tmp_path)
        assert sequence.first == {1: 0}
        assert np.array_equal(sequence.mask(1, 1), square(5, 8))
        assert sequence.void(1) is None

    def test_255_beside_ids_is_void(self, tmp_path):
        ids = moving_square(4)
        ids[2][0, 5:7] = 255
        sequence = load_only(write_davis(tmp_path, {"a": ids}))
        assert sequence.objects == [1]
        assert np.argwhere(sequence.void(2)).tolist() == [[0, 5], [0, 6]]


class TestYoutubeVos:
    def test_late_objects_and_sparse_masks(self, tmp_path):
        """Names count by 5, as in YouTube-VOS; every second frame has a mask; object 2 comes on frame 4."""
        ids = [ids_of({1: square(i, 2)} | ({2: square(20, 8)} if i >= 4 else {})) for i in range(11)]
        sparse = [of_frame if i % 2 == 0 else None for i, of_frame in enumerate(ids)]
        write_sequence(tmp_path / "JPEGImages/a1b2", tmp_path / "Annotations/a1b2", sparse, step=5)
        assert find_sequences(tmp_path).kind == "youtube-vos"
        sequence = load_only(tmp_path)
        assert sequence.first == {1: 0, 2: 4}
        assert list(sequence.annotations) == [0, 2, 4, 6, 8, 10]
        assert sequence.stems[4] == "00020"
        assert sequence.scored(1) == [2, 4, 6, 8]
        assert sequence.scored(2) == [6, 8]

    def test_an_object_that_is_only_on_the_last_frame_is_not_scored(self, tmp_path):
        ids = moving_square(4)
        ids[-1][0, 0] = 2
        write_sequence(tmp_path / "JPEGImages/a", tmp_path / "Annotations/a", ids)
        sequence = load_only(tmp_path)
        assert sequence.scored(1) == [1, 2]
        assert sequence.scored(2) == []


class TestPlain:
    @pytest.mark.parametrize(("frames", "masks"), [("frames", "masks"), ("images", "annotations"), (".", ".")])
    def test_one_sequence(self, tmp_path, frames, masks):
        root = tmp_path / "walk"
        write_sequence(root / frames, root / masks, moving_square(4))
        layout = find_sequences(root)
        assert (layout.kind, [s.name for s in layout.sequences]) == ("plain", ["walk"])
        sequence = load_sequence(layout.sequences[0])
        assert (len(sequence.frames), list(sequence.annotations)) == (4, [0, 1, 2, 3])

    def test_many_sequences(self, tmp_path):
        for name in ("one", "two"):
            write_sequence(tmp_path / name / "frames", tmp_path / name / "masks", moving_square(4))
        assert [s.name for s in find_sequences(tmp_path).sequences] == ["one", "two"]


class TestErrors:
    @pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "JPEGImages").mkdir()])
    def test_unknown_layout(self, tmp_path, make):
        make(tmp_path)
        with pytest.raises(BadInput, match="is not laid out like a data set; expected one of:\n  DAVIS: JPEGImages"):
            find_sequences(tmp_path)

    def test_no_folder(self, tmp_path):
        with pytest.raises(BadInput, match=r"there is no folder .*nowhere"):
            find_sequences(tmp_path / "nowhere")

    def test_no_sequences(self, tmp_path):
        for name in ("JPEGImages/480p", "Annotations/480p"):
            (tmp_path / name).mkdir(parents=True)
        with pytest.raises(BadInput, match="has no sequences"):
            find_sequences(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("../secret\n", "names no sequence|lists none"),
            ("..\n", "names no sequence"),
            ("dog\n", "lists none of the sequences"),
            (None, "there is no list of sequences"),
        ],
    )
    def test_lists(self, tmp_path, text, message):
        root = write_davis(tmp_path / "set", {"a": moving_square()})
        if text is not None:
            (tmp_path / "list.txt").write_text(text)
        with pytest.raises(BadInput, match=message):
            find_sequences(root, tmp_path / "list.txt")

    def test_what_is_listed_and_missing_is_broken_not_left_out(self, tmp_path):
        root = write_davis(tmp_path, {"a": moving_square()})
        (tmp_path / "list.txt").write_text("a\nghost\n")
        ghost = find_sequences(root, tmp_path / "list.txt").sequences[1]
        with pytest.raises(BrokenSequence, match="ghost: there is no folder of frames"):
            load_sequence(ghost)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda f, m: [p.unlink() for p in f.iterdir()], "there are no frames"),
            (lambda f, m: [p.unlink() for p in m.iterdir()], "there are no masks"),
            (lambda f, m: (f / "00002.jpg").unlink(), "1 of 4 masks have no frame of the same name, such as 00002.png"),
            (lambda f, m: write_frame(f / "00002.png", 0), "two frames are called 00002"),
            (lambda f, m: write_frame(f / "00002.jpg", 0, 10, 10), "all images must have one size: 00002.jpg is 10x10"),
            (lambda f, m: (f / "00001.jpg").write_bytes(b"no picture"), "00001.jpg"),
            (lambda f, m: (m / "00001.png").write_bytes(b"no picture"), "the mask 00001.png cannot be read"),
            (lambda f, m: (m / "00001.png").write_bytes((m / "00001.png").read_bytes()[:-60]), "00001.png cannot be"),
            (lambda f, m: write_ids(m / "00001.png", np.ones((5, 7), np.uint8)), "is 7x5, the frames are 40x24"),
            (lambda f, m: write_frame(m / "00001.png", 3), "it is in colours"),
            (lambda f, m: [write_ids(p, np.zeros((24, 40), np.uint8)) for p in m.iterdir()], "no mask has an object"),
            (lambda f, m: [(m / f"0000{i}.png").unlink() for i in (1, 2)], "no frame is left to score"),
        ],
    )
    def test_broken_sequences_say_what_is_wrong(self, tmp_path, damage, message):
        root = write_davis(tmp_path, {"a": moving_square(4)})
        damage(root / "JPEGImages/480p/a", root / "Annotations/480p/a")
        with pytest.raises(BrokenSequence, match=f"^a: .*{message}"):
            load_only(root)
