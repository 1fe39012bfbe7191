"""Where the official XMem code is wrong, what we do instead, and how to get the official behaviour back.

``XMemConfig(official=True)`` reproduces the first two, which change results; the parity tests use it. The other four
are failures of the official code: there is no result to reproduce.

1. *Objects added later are read with wrong keys.* The official code does not note which elements an object has values
   for; it pairs an object's values with the last keys, as many as there are values. That holds until the first
   consolidation after the object came: the object's own first frame is then consolidated away as a key but kept as a
   value, which moves into the place of the first frame of the video; and of the prototypes, which are sorted by usage
   and not by time, it takes the last ones. We keep a membership bit for every object and element, and keep the frame
   in which an object first got its mask together with its keys, for as long as the object lives.
2. *Eviction drops ties.* Everything that is used as little as the element at the cut goes, even beyond the number
   that is needed. We drop exactly as many as needed, the older first.
3. *Eviction crashes when long-term memory is exactly full* (it asks for the least used 0 elements). We drop none.
4. *Eviction refuses to work with more than one group of objects.* Ours works on membership bits, for any number.
5. *The top-k softmax subtracts no maximum:* where all similarities of a cell are below about -100, it divides 0 by 0
   and the cell becomes NaN for good. We subtract the maximum.
6. *Top-k fails with fewer than k elements,* as in images with fewer than k cells. We read all there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.rows import Group


class OfficialMemory(Memory):
    """Memory with the official behaviour where it differs in results (see the module's text)."""

    def _anchors(self) -> list[int]:
        return super()._anchors()[:1]

    def _most_used(self, usage: Tensor, size: int) -> Tensor:
        cut = usage.sort().values[len(usage) - size - 1]
        return (usage > cut).nonzero()[:, 0]

    def _consolidate(self, candidates: Tensor) -> None:
        for group in self.groups[1:]:
            self._misplace_first_frame(group, candidates)
        super()._consolidate(candidates)
        for group in self.groups[1:]:
            self._take_last_prototypes(group)

    def _misplace_first_frame(self, group: Group, candidates: Tensor) -> None:
        """The first working values of a later group move under the keys of the first frame, if their own keys go.

        The order of its rows stays the same: they were its first working values, and the first frame is the first.
        """
        work = slice(self.permanent + self.long, len(self))
        member = group.members.rows[work, 0]
        first = member.nonzero()[: self.cells, 0]
        if first[0] == 0 or work.start + first[0] not in candidates:
            return
        member[first] = False
        member[: self.cells] = True
        if int(member.sum()) == (self.config.min_mid_term_frames + 1) * self.cells:
            # one frame too many to stay, too few to be consolidated: it is lost
            lost = candidates[group.members.rows[candidates, 0]]
            rows = group.rows_of(lost)
            stay = torch.ones(group.count, dtype=torch.bool, device=rows.device)
            stay[rows] = False
            for values in group.values.values():
                values.keep(stay.nonzero()[:, 0])
            group.members.rows[lost] = False
        group.changed()

    def _take_last_prototypes(self, group: Group) -> None:
        """The long-term values of a later group are read with the last long-term keys, whichever they were made for."""
        member = group.members.rows[self.permanent : self.permanent + self.long, 0]
        count = int(member.sum())
        member[:] = False
        member[self.long - count :] = True
        group.changed()
