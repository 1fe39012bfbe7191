"""What XMem remembers: permanent, long-term and working memory in one table, with the values of each object beside it.

A memory *element* is one cell of the stride-16 grid of some frame (or a prototype made from several). Its key,
shrinkage and selection are shared by all objects; each object has a value for it, or none, because the object came
later. Objects that have values for the same elements form a *group* and share one affinity.

Elements are rows, in the order permanent, long-term, working; all three are read by one matrix product. Tables are
allocated with room to grow; only consolidation, eviction and removal move rows.

Limits: permanent memory max_permanent_frames frames, long-term memory max_long_term_elements elements, working memory
max_mid_term_frames frames plus one for every further frame in which living objects first got a mask (without long-term
memory: max_work_frames in place of max_mid_term_frames).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tam_backend.errors import BadInput
from tam_backend.propagators.xmem.affinity import SimilarityBlocks, attend, gather, memory_terms, query_terms
from tam_backend.propagators.xmem.config import XMemConfig
from tam_backend.propagators.xmem.network import KEY_DIM, VALUE_DIM, FrameEncoding
from tam_backend.propagators.xmem.rows import Group, Rows

#: Life of a new element, so that its use can be divided by it.
NEWBORN = 1e-7


class Memory:
    """Made for one grid size (h, w at stride 16). Objects are known by their labels."""

    def __init__(self, config: XMemConfig, grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> None:
        """dtype: of the values (float16 halves them under mixed precision); everything else is float32."""
        self.config, self.grid = config, grid
        self.cells = grid[0] * grid[1]
        self._device, self._dtype = device, dtype
        self.groups: list[Group] = []
        self.permanent, self.long, self.work = 0, 0, 0
        frames = config.max_mid_term_frames + 1 if config.enable_long_term else config.max_work_frames + 1
        long = config.max_long_term_elements if config.enable_long_term else 0
        self._room = frames * self.cells + long
        self._tables = {
            name: Rows(width, self._room, device, torch.int64 if name == "frame" else torch.float32)
            for name, width in (
                ("key", KEY_DIM),
                ("shrinkage", 1),
                ("selection", KEY_DIM),
                ("terms", 2 * KEY_DIM + 1),
                ("use", 1),
                ("life", 1),
                ("frame", 1),
            )
        }
        #: Similarities of a frame to all elements, block by block.
        self.blocks = SimilarityBlocks()

    def table(self, name: str) -> Tensor:
        """Rows of all elements: key, shrinkage, selection, terms, use, life, frame (number of a working frame)."""
        return self._tables[name].rows

    def __len__(self) -> int:
        return self.permanent + self.long + self.work

    @property
    def labels(self) -> list[int]:
        return [label for group in self.groups for label in group.values]

    @property
    def nbytes(self) -> dict[int | None, int]:
        """Bytes in use by the values of each object, by its label; under None, those that all objects share."""
        shared = sum(t.nbytes for t in self._tables.values()) + sum(g.members.nbytes for g in self.groups)
        return {None: shared, **{label: v.nbytes for g in self.groups for label, v in g.values.items()}}

    # ---- reading

    def read(self, frame: FrameEncoding, labels: Sequence[int]) -> Tensor:
        """What the memory says about each cell of the frame: O x 512 x h x w, one plane per label."""
        where = {label: i for i, label in enumerate(labels)}
        out = torch.empty(len(labels), self.cells, VALUE_DIM, device=self._device, dtype=self._dtype)
        use = self.table("use")[:, 0]
        for part, similarity in self.blocks(query_terms(frame.key, frame.selection), self.table("terms")):
            for group in self.groups:
                seen = similarity if group.complete else similarity.index_select(1, group.slots)
                weights, columns = attend(seen, self.config.top_k)
                if group is self.groups[0]:  # the oldest group has values for every element that is ever forgotten
                    slots = columns if group.complete else group.slots[columns]
                    use.scatter_add_(0, slots.flatten(), weights.flatten())
                for label, values in group.values.items():
                    gather(values.rows, columns, weights, out[where[label], part])
        self.table("life").add_(1)
        return out.unflatten(1, self.grid).permute(0, 3, 1, 2)

    # ---- writing

    def add_frame(self, number: int, frame: FrameEncoding, values: Tensor, labels: Sequence[int]) -> None:
        """Put a frame into working memory. values: O x 512 x h x w, one plane per label.

        ``labels`` are all objects there are: those that are not known yet form a new group that begins here.
        """
        self._append(frame, number, values, labels)
        for group in self.groups:
            group.born = number if group.born is None else group.born
        self.work += self.cells
        self._forget_frames()

    def add_permanent(self, frame: FrameEncoding, values: Tensor, labels: Sequence[int]) -> None:
        """Put a frame into permanent memory, from where it goes only with the objects. Arguments as for ``add_frame``.

        Raises BadInput if there are max_permanent_frames already.
        """
        if self.permanent >= self.config.max_permanent_frames * self.cells:
            raise BadInput(f"permanent memory is full: it holds {self.config.max_permanent_frames} frames")
        self._append(frame, -1, values, labels)
        end, first = len(self), self.permanent
        order = torch.arange(end + self.cells, device=self._device)
        self._keep(torch.cat([order[:first], order[end:], order[first:end]]))
        self.permanent += self.cells

    def forget(self, label: int) -> None:
        """Drop an object's values, and the elements for which no other object has one."""
        for group in self.groups:
            group.values.pop(label, None)
        self.groups = [group for group in self.groups if group.values]
        if not self.groups:
            self._keep(torch.empty(0, dtype=torch.int64, device=self._device))
            self.permanent = self.long = self.work = 0
            return
        wanted = torch.stack([group.members.rows[:, 0] for group in self.groups]).any(0)
        ends = (self.permanent, self.permanent + self.long)
        self.permanent, self.long, self.work = (
            int(part.sum()) for part in (wanted[: ends[0]], wanted[ends[0] : ends[1]], wanted[ends[1] :])
        )
        self._keep(wanted.nonzero()[:, 0])

    def _append(self, frame: FrameEncoding, number: int, values: Tensor, labels: Sequence[int]) -> None:
        """Add a frame's elements as the last rows, with values for all objects; new objects form a group."""
        rows = values.permute(0, 2, 3, 1).reshape(len(labels), self.cells, VALUE_DIM).to(self._dtype)
        of = dict(zip(labels, rows, strict=True))
        life = torch.full_like(frame.shrinkage, NEWBORN)
        self._append_elements(frame.key, frame.shrinkage, frame.selection, life, number)
        valid = torch.ones(self.cells, dtype=torch.bool, device=self._device)
        for group in self.groups:
            group.append({label: of.pop(label) for label in group.values}, valid)
        if of:
            group = self._new_group(None, of)
            group.append({}, valid.new_zeros(len(self)))
            group.append(of, valid)
            self.groups.append(group)

    def _append_elements(self, key: Tensor, shrinkage: Tensor, selection: Tensor, life: Tensor, number: int) -> None:
        rows = {
            "key": key,
            "shrinkage": shrinkage,
            "selection": selection,
            "terms": memory_terms(key, shrinkage),
            "use": torch.zeros_like(life),
            "life": life,
            "frame": torch.full_like(life, number, dtype=torch.int64),
        }
        for name, table in self._tables.items():
            table.append(rows[name])

    def _new_group(self, born: int | None, labels: Iterable[int]) -> Group:
        values = {label: Rows(VALUE_DIM, self._room, self._device, self._dtype) for label in labels}
        return Group(born, values, self._device)

    def _keep(self, order: Tensor) -> None:
        """Keep these rows (old numbers, int64) in this order, in all tables."""
        for group in self.groups:
            group.keep(order)
        for table in self._tables.values():
            table.keep(order)

    # ---- forgetting

    def _anchors(self) -> list[int]:
        """Numbers of the working frames that are never forgotten: those in which living objects first got a mask."""
        return sorted({group.born for group in self.groups if group.born is not None})

    def _ordinary(self) -> Tensor:
        """Rows of the working frames that are no anchors, oldest first."""
        begin = self.permanent + self.long
        numbers = self.table("frame")[begin:, 0]
        anchors = torch.tensor(self._anchors(), device=self._device, dtype=numbers.dtype)
        return begin + (~torch.isin(numbers, anchors)).nonzero()[:, 0]

    def _forget_frames(self) -> None:
        ordinary = self._ordinary()
        config = self.config
        if not config.enable_long_term:
            if len(ordinary) > (config.max_work_frames - 1) * self.cells:
                self._drop(ordinary[: self.cells])
        elif len(ordinary) >= (config.max_mid_term_frames - 1) * self.cells:
            if self.long >= config.max_long_term_elements - config.num_prototypes:
                self._evict(config.max_long_term_elements - config.num_prototypes)
            # rows have moved
            ordinary = self._ordinary()
            self._consolidate(ordinary[: len(ordinary) - (config.min_mid_term_frames - 1) * self.cells])

    def _drop(self, rows: Tensor) -> None:
        """Forget working elements."""
        stays = torch.ones(len(self), dtype=torch.bool, device=self._device)
        stays[rows] = False
        self._keep(stays.nonzero()[:, 0])
        self.work -= len(rows)

    def _evict(self, size: int) -> None:
        """Shrink long-term memory to ``size`` elements."""
        if self.long <= size:
            return
        begin, end = self.permanent, self.permanent + self.long
        if self.config.enable_long_term_count_usage:
            usage = (self.table("use") / self.table("life"))[begin:end, 0]
            kept = begin + self._most_used(usage, size)
        else:
            kept = torch.arange(end - size, end, device=self._device)
        order = torch.arange(len(self), device=self._device)
        self._keep(torch.cat([order[:begin], kept, order[end:]]))
        self.long = len(kept)

    def _most_used(self, usage: Tensor, size: int) -> Tensor:
        """Indices of the ``size`` largest, ascending. Of equal ones, the younger stay."""
        order = torch.sort(usage, stable=True).indices
        return order[len(usage) - size :].sort().values

    def _consolidate(self, candidates: Tensor) -> None:
        """Turn working elements into long-term prototypes (the paper's memory potentiation).

        The most used candidates become prototypes. Each takes a mixture of all candidates' values and shrinkages,
        by a full softmax over the similarities between the candidates' keys and its own. An object has a value for a
        prototype if it has one for the candidate, and the mixture is over its own candidates only.
        """
        usage = (self.table("use") / self.table("life"))[candidates, 0]
        # of equally used candidates (those never read), the older ones: topk would not say which
        chosen = candidates[usage.sort(descending=True, stable=True).indices[: self.config.num_prototypes]]
        key, selection = self.table("key")[chosen], self.table("selection")[chosen]
        similarity = query_terms(key, selection) @ self.table("terms")[candidates].T
        shrinkage = similarity.softmax(1) @ self.table("shrinkage")[candidates]
        additions = []
        for group in self.groups:
            member = group.members.rows[:, 0]
            valid, columns = member[chosen], member[candidates]
            weights = similarity[valid][:, columns].softmax(1).to(self._dtype)
            rows = group.rows_of(candidates[columns])
            additions.append((valid, {label: weights @ v.rows[rows] for label, v in group.values.items()}))
        end, begin = len(self), self.permanent + self.long
        self._append_elements(key, shrinkage, selection, torch.full_like(shrinkage, NEWBORN), -1)
        for group, (valid, values) in zip(self.groups, additions, strict=True):
            group.append(values, valid)
        stays = torch.ones(end, dtype=torch.bool, device=self._device)
        stays[candidates] = False
        order = torch.arange(end + len(chosen), device=self._device)
        self._keep(torch.cat([order[:begin], order[end:], begin + stays[begin:].nonzero()[:, 0]]))
        self.long += len(chosen)
        self.work -= len(candidates)

    # ---- saving

    def state(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Everything as named arrays; ``restore`` makes a memory from them that goes on bit for bit alike."""
        yield "sections", np.array([self.permanent, self.long, self.work], np.int64)
        for name, table in self._tables.items():
            if name != "terms":  # follow from key and shrinkage
                yield name, table.rows.cpu().numpy().copy()
        for i, group in enumerate(self.groups):
            yield f"group.{i}.born", np.array(-1 if group.born is None else group.born, np.int64)
            yield f"group.{i}.members", group.members.rows.cpu().numpy().copy()
            for label, values in group.values.items():
                yield f"group.{i}.value.{label}", values.rows.cpu().numpy().copy()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill an empty memory of the same config and grid."""
        self.permanent, self.long, self.work = (int(n) for n in state["sections"])
        arrays = {name: torch.from_numpy(np.asarray(a)).to(self._device) for name, a in state.items()}
        for name, table in self._tables.items():
            table.append(memory_terms(arrays["key"], arrays["shrinkage"]) if name == "terms" else arrays[name])
        for i in range(sum(name.endswith(".born") for name in state)):
            prefix = f"group.{i}.value."
            labels = [int(name.removeprefix(prefix)) for name in state if name.startswith(prefix)]
            born = int(state[f"group.{i}.born"])
            group = self._new_group(None if born < 0 else born, labels)
            group.append({label: arrays[f"{prefix}{label}"] for label in labels}, arrays[f"group.{i}.members"][:, 0])
            self.groups.append(group)
