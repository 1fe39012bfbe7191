"""What Label Studio has saved of people's unfinished work at this moment, which may be more than a request carries."""

from __future__ import annotations

import logging
import time

from tam_backend.errors import TamError
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Client, Connection
from tam_backend.labelstudio.requests import Json, parse_asks

log = logging.getLogger(__name__)

#: (connect, read) seconds for one look.
_TIMEOUT = (1.0, 3.0)
#: The editor saves a draft at most 5 s after a change, also while it waits for an answer.
SAVED_WITHIN = 6.0
_LOOK_EVERY = 0.5


class Drafts:
    """The drafts of one task for one request, read when they are needed. Without a connection there are none."""

    def __init__(self, connection: Connection | None, task: Json) -> None:
        self._task = task
        self._since = time.monotonic()
        usable = connection is not None and connection.token and isinstance(task.get("id"), int)
        self._connection = connection if usable else None

    def by_hand(self, context: Json, config: LabelConfig, frames: int) -> set[tuple[str, str, int]]:
        """(mask tag, label, item_index) of all masks by hand in the draft that holds the request's points."""
        ids = {r.get("id") for r in context["result"] if isinstance(r, dict)}
        own = [d for d in self._read() if ids & _region_ids(d)]
        if not own:
            return set()
        try:
            asks = parse_asks({**self._task, "drafts": own}, context, config, frames)
        except TamError as e:
            log.info("task %s: its newest draft cannot be read (%s)", self._task.get("id"), e)
            return set()
        return {(a.mask_control.name, a.label, index) for a in asks for index in a.by_hand}

    def held_together(self, ids: frozenset[str], others: frozenset[str]) -> bool:
        """Whether the points of two requests are in one draft, so that one person made both.

        Waits until the draft with ``ids`` must be saved. If none appears, they count as two people's.
        """
        while self._connection is not None:
            holders = [held for d in self._read() if (held := _region_ids(d)) & ids]
            if any(held & others for held in holders):
                return True
            if holders or time.monotonic() > self._since + SAVED_WITHIN:
                return False
            time.sleep(_LOOK_EVERY)
        return False

    def _read(self) -> list[Json]:
        if self._connection is None:
            return []
        try:
            drafts = Client(self._connection, _TIMEOUT).drafts(self._task["id"])
        except TamError as e:
            log.info("task %s: its newest draft could not be read (%s)", self._task.get("id"), e)
            return []
        return [d for d in drafts if isinstance(d, dict) and isinstance(d.get("result"), list)]


def _region_ids(draft: Json) -> set[str]:
    return {r["id"] for r in draft["result"] if isinstance(r, dict) and isinstance(r.get("id"), str)}
