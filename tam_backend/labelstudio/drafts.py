"""What Label Studio has saved of people's unfinished work at this moment, which may be more than a request carries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tam_backend.errors import TamError
from tam_backend.labelstudio.connections import Client, Connection
from tam_backend.labelstudio.prompts import Json, is_waiting

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

    @property
    def readable(self) -> bool:
        """Whether drafts can be read at all."""
        return self._connection is not None

    def saved_after(
        self, new_prompts: frozenset[str], give_up: Callable[[], bool], *, patient: bool = True
    ) -> list[Json]:
        """The drafts that hold the prompts of a request: saved after them, so they have every change made before.

        Waits for one, if patient. Empty if there is none in time: the editor (1.23.2) forgets to save when a person
        pages on within 5 s.
        """
        while self._connection is not None and not give_up():
            own = [d for d in self._read() if new_prompts <= _region_ids(d)]
            if own:
                return own
            if not patient or time.monotonic() > self._since + SAVED_WITHIN:
                break
            time.sleep(_LOOK_EVERY)
        return []

    def held_together(self, ids: frozenset[str], others: frozenset[str], *, answered: bool) -> bool:
        """Whether the prompts of two requests are in one draft, so that one person made both.

        answered: the request with ``others`` was answered already; then they must still wait for that answer in the
        draft, which means that it has not reached the page. Waits until the draft with ``ids`` must be saved. If none
        appears, they count as two people's.
        """
        while self._connection is not None:
            holders = [d for d in self._read() if _region_ids(d) & ids]
            if any((_waiting_ids(d) if answered else _region_ids(d)) & others for d in holders):
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


def _waiting_ids(draft: Json) -> set[str]:
    """Prompts that no answer has reached."""
    return {r["id"] for r in draft["result"] if isinstance(r, dict) and r.get("id") and is_waiting(r)}


def _region_ids(draft: Json) -> set[str]:
    return {r["id"] for r in draft["result"] if isinstance(r, dict) and isinstance(r.get("id"), str)}
