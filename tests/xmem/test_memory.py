"""The memory against a slow, obvious one, and the behaviour that the official code gets wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tam_backend.errors import BadInput
from tam_backend.propagators.xmem import XMemConfig
from tam_backend.propagators.xmem.affinity import gather, product_of_rows, query_terms
from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.network import FrameEncoding
from tam_backend.propagators.xmem.official import OfficialMemory
from tests.xmem.slow_memory import SlowMemory

GRID = (2, 3)
CELLS = 6
CPU = torch.device("cpu")
CONFIG = XMemConfig(max_mid_term_frames=4, min_mid_term_frames=2, max_long_term_elements=20, num_prototypes=5, top_k=4)


@dataclass
class Both:
    """Our memory and the slow one, given the same frames."""

    fast: Memory
    slow: SlowMemory
    random: np.random.Generator
    spread: float = 0.3

    @classmethod
    def make(cls, config: XMemConfig, seed: int = 0, spread: float = 0.3) -> Both:
        return cls(Memory(config, GRID, CPU, torch.float32), SlowMemory(config), np.random.default_rng(seed), spread)

    def frame(self) -> FrameEncoding:
        r = self.random
        key = torch.from_numpy(r.normal(0, self.spread, (CELLS, 64)).astype(np.float32))
        shrinkage = torch.from_numpy(1 + r.uniform(0, 3, (CELLS, 1)).astype(np.float32))
        selection = torch.from_numpy(r.uniform(0.1, 1, (CELLS, 64)).astype(np.float32))
        return FrameEncoding(GRID, key, shrinkage, selection, torch.empty(0), None, None)

    def add(self, number: int, labels: list[int], permanent: bool = False) -> None:
        frame = self.frame()
        values = torch.from_numpy(self.random.normal(0, 1, (len(labels), 512, *GRID)).astype(np.float32))
        if permanent:
            self.fast.add_permanent(frame, values, labels)
        else:
            self.fast.add_frame(number, frame, values, labels)
        rows = values.flatten(2).transpose(1, 2).double().numpy()
        self.slow.add(
            "permanent" if permanent else "work",
            -1 if permanent else number,
            frame.key.double().numpy(),
            frame.shrinkage.double().numpy()[:, 0],
            frame.selection.double().numpy(),
            dict(zip(labels, rows, strict=True)),
        )

    def remove(self, label: int) -> None:
        self.fast.forget(label)
        self.slow.remove(label)

    def check(self, labels: list[int]) -> npt.NDArray[np.float32]:
        """Read a new frame from both. They must say the same and hold the same number of elements of each kind."""
        frame = self.frame()
        ours = self.fast.read(frame, labels)
        theirs = self.slow.read(frame.key.double().numpy(), frame.selection.double().numpy(), labels)
        result = ours.flatten(2).transpose(1, 2).numpy()
        np.testing.assert_allclose(result, theirs, atol=2e-4)
        kinds = (len(self.slow.of("permanent")), len(self.slow.of("long")), len(self.slow.of("work")))
        assert (self.fast.permanent, self.fast.long, self.fast.work) == kinds
        return result


@pytest.mark.parametrize("long_term", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_objects_that_come_and_go_are_remembered_as_by_the_slow_memory(seed: int, long_term: bool) -> None:
    config = replace(CONFIG, enable_long_term=long_term, max_work_frames=5)
    both = Both.make(config, seed)
    random = np.random.default_rng(100 + seed)
    labels, unused = [1], list(range(2, 30))
    for number in range(40):
        if random.random() < 0.25 and len(labels) < 10:
            labels.append(unused.pop(0))
        if random.random() < 0.15 and len(labels) > 1:
            gone = labels.pop(int(random.integers(len(labels))))
            if gone in both.fast.labels:
                both.remove(gone)
        if random.random() < 0.1 and both.fast.permanent < 3 * CELLS and set(labels) <= set(both.fast.labels):
            both.add(-1, labels, permanent=True)
        both.add(number, labels)
        both.check(labels)


def test_ten_objects_that_come_one_by_one() -> None:
    both = Both.make(CONFIG)
    for number in range(16):
        labels = list(range(1, min(number, 9) + 2))
        both.add(number, labels)
        both.check(labels)
    assert both.fast.long > 0
    assert len(both.fast.groups) == 10


def test_an_object_added_later_keeps_its_own_first_frame() -> None:
    """The official code reads its first values with the keys of the first frame of the video."""
    both = Both.make(CONFIG)
    for number in range(4):
        both.add(number, [1] if number < 3 else [1, 2])
    first = both.fast.groups[1].values[2].rows[:CELLS].clone()
    key = both.fast.table("key")[both.fast.groups[1].slots[:CELLS]].clone()
    for number in range(4, 20):
        both.check([1, 2])
        both.add(number, [1, 2])
    group = both.fast.groups[1]
    work = group.slots >= both.fast.long
    assert torch.equal(group.values[2].rows[work][:CELLS], first)
    assert torch.equal(both.fast.table("key")[group.slots[work][:CELLS]], key)


def test_eviction_when_long_term_memory_is_exactly_at_its_limit() -> None:
    """The official code asks for the 0 least used elements there, and crashes."""
    config = replace(CONFIG, max_long_term_elements=15)  # 5 a time: 10 is exactly the limit before a consolidation
    both = Both.make(config)
    sizes = []
    for number in range(30):
        both.add(number, [1])
        both.check([1])
        sizes.append(both.fast.long)
    assert max(sizes) == 15
    assert 10 in sizes


def test_eviction_with_several_groups_of_objects() -> None:
    """The official code refuses."""
    both = Both.make(replace(CONFIG, max_long_term_elements=12))
    for number in range(30):
        labels = [1] if number < 7 else [1, 2] if number < 13 else [1, 2, 3]
        both.add(number, labels)
        both.check(labels)
        assert both.fast.long <= 12
    assert len(both.fast.groups) == 3


def test_eviction_drops_no_more_than_it_must() -> None:
    """Elements that were never read are all used alike; the official code would drop every one of them."""
    usage = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.7])
    assert Memory(CONFIG, GRID, CPU, torch.float32)._most_used(usage, 3).tolist() == [0, 3, 4]
    assert OfficialMemory(CONFIG, GRID, CPU, torch.float32)._most_used(usage, 3).tolist() == [0, 4]


def test_long_term_memory_without_usage_forgets_the_oldest() -> None:
    both = Both.make(replace(CONFIG, enable_long_term_count_usage=False, max_long_term_elements=12))
    for number in range(20):
        both.add(number, [1])
        both.check([1])


def test_very_low_similarities_stay_finite() -> None:
    """Without subtracting the maximum, exp(-100) is 0 in float32, and 0 / 0 is NaN for good."""
    both = Both.make(CONFIG, spread=4.0)
    for number in range(8):
        both.add(number, [1])
        assert np.isfinite(both.check([1])).all()
    query = both.frame()
    similarity = query_terms(query.key, query.selection) @ both.fast.table("terms").T
    assert similarity.amax(1).min() < -104  # exp of that is 0 in float32


def test_fewer_elements_than_top_k() -> None:
    both = Both.make(replace(CONFIG, top_k=30))
    both.add(0, [1])
    both.check([1])


def test_fewer_candidates_than_prototypes() -> None:
    both = Both.make(replace(CONFIG, num_prototypes=100, max_long_term_elements=100))
    for number in range(12):
        both.add(number, [1])
        both.check([1])
    assert both.fast.long > 0


def test_removing_an_object_frees_its_memory() -> None:
    both = Both.make(CONFIG)
    for number in range(6):
        both.add(number, [1] if number < 4 else [1, 2])
    before = both.fast.nbytes
    both.remove(1)
    after = both.fast.nbytes
    assert 1 not in after
    assert after[2] == before[2]
    assert after[None] < before[None]  # elements of which only object 1 knew are gone
    assert both.fast.work == 2 * CELLS
    both.check([2])
    both.remove(2)
    assert both.fast.nbytes == {None: 0}


def test_permanent_memory_is_bounded() -> None:
    both = Both.make(replace(CONFIG, max_permanent_frames=2))
    both.add(-1, [1], permanent=True)
    both.add(-1, [1], permanent=True)
    with pytest.raises(BadInput, match="permanent memory is full: it holds 2 frames"):
        both.add(-1, [1], permanent=True)


def test_permanent_frames_are_never_forgotten() -> None:
    both = Both.make(CONFIG)
    both.add(-1, [1], permanent=True)
    kept = both.fast.groups[0].values[1].rows[:CELLS].clone()
    for number in range(30):
        both.add(number, [1])
        both.check([1])
    assert torch.equal(both.fast.groups[0].values[1].rows[:CELLS], kept)


def test_similarities_larger_than_the_buffer_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tam_backend.propagators.xmem.affinity.SimilarityBlocks.FLOATS", 40)
    both = Both.make(CONFIG)
    for number in range(10):
        both.add(number, [1] if number < 5 else [1, 2])
        both.check([1] if number < 5 else [1, 2])


def test_the_readout_without_the_fused_kernel_is_the_same() -> None:
    random = torch.Generator().manual_seed(0)
    values, weights = torch.randn(50, 512, generator=random), torch.rand(7, 5, generator=random)
    columns = torch.randint(0, 50, (7, 5), generator=random)
    fused = torch.empty(7, 512)
    gather(values, columns, weights, fused)
    assert torch.allclose(product_of_rows(values, columns, weights), fused, atol=1e-5)


def test_the_memory_stops_growing() -> None:
    memory = Memory(CONFIG, GRID, CPU, torch.float32)
    both = Both(memory, SlowMemory(CONFIG), np.random.default_rng(0))
    sizes = []
    for number in range(200):
        frame = both.frame()
        memory.add_frame(number, frame, torch.zeros(1, 512, *GRID), [1])
        memory.read(frame, [1])
        sizes.append((memory.nbytes[1], sum(t._data.nbytes for t in memory._tables.values())))
    assert max(s[0] for s in sizes[:100]) == max(s[0] for s in sizes[100:])
    assert sizes[50][1] == sizes[-1][1]
    assert max(s[0] for s in sizes) <= (4 * CELLS + 20) * 512 * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"key_dim": 32}, "key_dim is 32, the published network has 64"),
        ({"max_mid_term_frames": 5}, "max_mid_term_frames is 5, it must be at least 6"),
        ({"top_k": 0}, "top_k is 0, it must be at least 1"),
        ({"deep_update_every": 0}, "deep_update_every is 0, it must be -1 or at least 1"),
        ({"max_long_term_elements": 100}, "max_long_term_elements is 100, it must be at least 128"),
        ({"topk": 3}, "there is no setting 'topk' of XMem"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        XMemConfig.of(wrong)
