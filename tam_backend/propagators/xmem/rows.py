"""Tables of rows that grow in place, and the values of objects that share a history."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Rows:
    """A table with room for more rows than it has, so that appending copies only what is new."""

    def __init__(self, width: int, room: int, device: torch.device, dtype: torch.dtype) -> None:
        self._data = torch.empty(room, width, device=device, dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Tensor:
        """The rows there are (a view)."""
        return self._data[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of the rows there are; the room beyond is not counted, and not backed by memory before its first use
        on CPU."""
        return self._count * self._data.shape[1] * self._data.element_size()

    def append(self, rows: Tensor) -> None:
        end = self._count + len(rows)
        if end > len(self._data):
            grown = self._data.new_empty(max(end, len(self._data) * 3 // 2), self._data.shape[1])
            grown[: self._count] = self.rows
            self._data = grown
        self._data[self._count : end] = rows
        self._count = end

    def keep(self, order: Tensor) -> None:
        """Keep the rows with these numbers, in this order."""
        kept = self.rows[order]
        self._count = len(kept)
        self._data[: self._count] = kept


class Group:
    """Objects that have values for the same elements.

    members: N x 1 bool over all elements, which of them. values: label -> rows of the member elements only, in order.
    born: number of the first working frame with the objects; None: there is none yet, just permanent ones.
    """

    def __init__(self, born: int | None, values: dict[int, Rows], device: torch.device) -> None:
        self.born, self.values = born, values
        self.members = Rows(1, 1024, device, torch.bool)
        self.count = 0
        self._slots: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether all elements are members."""
        return self.count == len(self.members)

    @property
    def slots(self) -> Tensor:
        """Numbers of the member elements: value row i belongs to element slots[i]."""
        if self._slots is None:
            self._slots = self.members.rows[:, 0].nonzero()[:, 0]
        return self._slots

    def rows_of(self, elements: Tensor) -> Tensor:
        """Value rows of these elements, which must be members."""
        return elements if self.complete else self.members.rows[:, 0].cumsum(0)[elements] - 1

    def append(self, values: Mapping[int, Tensor], valid: Tensor) -> None:
        """Add elements as the last ones. valid: one bool for each, whether it is a member; values: rows for those."""
        self.members.append(valid[:, None])
        for label, rows in values.items():
            self.values[label].append(rows)
        self.changed()

    def keep(self, order: Tensor) -> None:
        """Keep the elements with these numbers, in this order."""
        member = self.members.rows[:, 0][order]
        rows = self.rows_of(order[member])
        for values in self.values.values():
            values.keep(rows)
        self.members.keep(order)
        self.changed()

    def changed(self) -> None:
        """Call after ``members`` or ``values`` were changed from outside."""
        self._slots = None
        self.count = len(next(iter(self.values.values())))
