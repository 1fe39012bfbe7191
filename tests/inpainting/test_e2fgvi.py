"""The engine around the network: windows, references, blending, tiles, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tam_backend.checkpoints import CHECKPOINTS, fetch
from tam_backend.errors import BadInput, TamError
from tam_backend.inpainting.base import filled
from tam_backend.inpainting.e2fgvi.engine import TERMS, E2fgviInpainter
from tam_backend.inpainting.e2fgvi.loading import check_e2fgvi, load_e2fgvi
from tam_backend.inpainting.e2fgvi.network import E2FGVI
from tam_backend.inpainting.e2fgvi.windows import local_frames, padded_size, prepare, reference_frames, to_colours
from tam_backend.tracking.store import MemoryStore
from tam_backend.weights import CheckpointError
from tests.array_video import ArrayVideo

HEIGHT, WIDTH = 60, 108


class Square:
    """The same square hole on every frame."""

    key = "square"

    def __init__(self, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.mask = np.zeros((height, width), bool)
        self.mask[20:32, 30:46] = True

    def hole(self, frame: int) -> np.ndarray:
        return self.mask

    def avoid(self, frame: int) -> None:
        return None


class Mean(torch.nn.Module):
    """In place of the network: every local frame becomes as bright as the window's first frame at its corner, and it
    notes what it was given. fails_above: pixels of a window for which there is no memory."""

    def __init__(self, fails_above: int | None = None) -> None:
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.given: list[tuple[tuple[int, ...], int]] = []
        self.fails_above = fails_above

    def forward(self, frames: torch.Tensor, local: int) -> torch.Tensor:
        self.given.append((tuple(frames.shape), local))
        if self.fails_above is not None and frames[:, 0].numel() > self.fails_above:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return frames[:1, :, :1, :1].expand(local, -1, *frames.shape[2:]).clone()


def grey_video(count: int, height: int = HEIGHT, width: int = WIDTH) -> ArrayVideo:
    levels = (np.arange(count) * 2).astype(np.uint8)
    return ArrayVideo(np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy())


def run(engine: E2fgviInpainter, video: Any, frames: range, store: MemoryStore, holes: Square | None = None) -> Any:
    filling = engine.begin(video, holes or Square(), frames, store)
    steps = list(filling.steps())
    assert steps == sorted(steps)
    assert steps[-1] == filling.total == len(frames)
    return filling


def test_windows_and_references_are_the_official_ones_as_long_as_those_are_few() -> None:
    frames = range(23)
    shown = {m: (local_frames(m, frames), reference_frames(m, frames)) for m in frames[::5]}
    assert shown == {
        0: (range(6), [10, 20]),
        5: (range(11), [20]),
        10: (range(5, 16), [0, 20]),
        15: (range(10, 21), [0]),
        20: (range(15, 23), [0, 10]),
    }


def test_a_long_video_takes_no_more_memory_than_a_short_one() -> None:
    network = Mean()
    run(E2fgviInpainter(network, "w"), grey_video(120), range(120), MemoryStore(1 << 24))
    assert max(shape[0] for shape, _ in network.given) == 11 + 6
    assert reference_frames(60, range(1000)) == [30, 40, 50, 70, 80, 90]


def test_overlapping_windows_weigh_as_in_the_official_script() -> None:
    video, holes = grey_video(23), Square()
    filling = run(E2fgviInpainter(Mean(), "w"), video, range(23), MemoryStore(1 << 24))
    firsts = {m: 2 * local_frames(m, range(23)).start for m in range(0, 23, 5)}

    def shown(level: float) -> float:  # as the network's input and output round it
        return float(np.trunc((np.float32(level) / np.float32(255) * 2 - 1 + 1) / 2 * 255))

    expected = {
        3: shown(firsts[0]) / 2 + shown(firsts[5]) / 2,
        10: (shown(firsts[5]) / 2 + shown(firsts[10]) / 2) / 2 + shown(firsts[15]) / 2,
        22: shown(firsts[20]),
    }
    for frame, level in expected.items():
        picture = filled(video, holes, filling, frame)
        assert (picture[holes.mask] == int(level)).all(), frame
        assert np.array_equal(picture[~holes.mask], video[frame][~holes.mask])
        assert filling.unseen(frame) is None


@pytest.mark.parametrize(("stop", "left"), [(1, 5), (2, 5), (4, 3)])
def test_it_goes_on_where_it_was_stopped_with_the_same_result(stop: int, left: int) -> None:
    video, whole, parts = grey_video(23), MemoryStore(1 << 24), MemoryStore(1 << 24)
    run(E2fgviInpainter(Mean(), "w"), video, range(23), whole)
    steps = E2fgviInpainter(Mean(), "w").begin(video, Square(), range(23), parts).steps()
    for _ in range(stop + 1):
        next(steps)
    network = Mean()
    run(E2fgviInpainter(network, "w"), video, range(23), parts)
    assert len(network.given) == left, "windows"
    for frame in range(23):
        assert parts.get(f"filled {frame}") == whole.get(f"filled {frame}"), frame


def test_short_memory_means_tiles_around_the_holes(caplog: pytest.LogCaptureFixture) -> None:
    video, holes = grey_video(8, 300, 540), Square(300, 540)
    large = 8 * 300 * 540
    network = Mean(fails_above=large // 4)
    filling = run(E2fgviInpainter(network, "w", pixels=1 << 40), video, range(8), MemoryStore(1 << 26), holes)
    assert "e2fgvi works in tiles around the holes" in caplog.text
    assert network.given[0][0][2:] == (300, 540)
    assert all(s[0] * s[2] * s[3] <= large // 4 for s, _ in network.given[1:])
    assert (filled(video, holes, filling, 0)[holes.mask] <= 2).all()
    with pytest.raises(TamError, match=r"not enough memory on cpu for frames of 540x300 pixels, even in tiles"):
        run(E2fgviInpainter(Mean(fails_above=0), "w"), video, range(8), MemoryStore(1 << 26), holes)


def test_any_size_from_half_a_window_on() -> None:
    assert padded_size(30, 54) == (60, 108)
    assert padded_size(131, 109) == (180, 216)
    for height, width in ((29, 54), (30, 53)):
        with pytest.raises(BadInput, match=f"at least 54x30 pixels, these are {width}x{height}"):
            padded_size(height, width)


def test_the_real_network_fills_a_small_video(network: E2FGVI) -> None:
    rng = np.random.default_rng(0)
    video, holes = ArrayVideo(rng.integers(0, 255, (3, 45, 70, 3), np.uint8)), Square(45, 70)
    filling = run(E2fgviInpainter(network, "w"), video, range(3), MemoryStore(1 << 24), holes)
    output = network(prepare(list(video), [holes.mask] * 3), 3)
    assert np.array_equal(filling.colours(2), to_colours(output[2], 45, 70)[holes.mask].astype(np.uint8))


# ---- weights


def save(state: Mapping[str, Any], path: Path) -> Path:
    torch.save(dict(state), path)
    return path


def test_the_state_dict_is_loaded_strictly(network: E2FGVI, tmp_path: Path) -> None:
    state = network.state_dict()
    loaded = load_e2fgvi(save(state, tmp_path / "good.pth"))
    assert all(torch.equal(t, state[k]) for k, t in loaded.state_dict().items())
    (tmp_path / "good.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 entries, such as 'decoder\.6\.bias'"):
        check_e2fgvi(save({k: t for k, t in state.items() if k != "decoder.6.bias"}, tmp_path / "a.pth"))
    (tmp_path / "a.pth").unlink()
    other = {k: t for k, t in state.items() if not k.startswith("sc.bias_conv")} | {"sc.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"E2FGVI-HQ is needed: E2FGVI-HQ-CVPR22\.pth"):
        check_e2fgvi(save(other, tmp_path / "b.pth"))


def test_nobody_gets_restricted_weights_without_consent(tmp_path: Path) -> None:
    checkpoint = CHECKPOINTS["e2fgvi_hq"]
    assert checkpoint.licence == "CC BY-NC 4.0"
    assert "CC BY-NC 4.0" in TERMS
    with pytest.raises(BadInput, match=r"is licensed CC BY-NC 4\.0: no commercial use .*--accept-licence"):
        fetch(checkpoint, tmp_path, lambda path: None)
    assert not list(tmp_path.iterdir())
