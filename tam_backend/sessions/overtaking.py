"""A newer request on the same object makes the older one moot: who computes for whom right now."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Ticket:
    """One request under way."""

    def __init__(self, subject: Hashable, ids: frozenset[str]) -> None:
        self.subject = subject
        self.ids = ids
        self._overtaken = threading.Event()

    @property
    def overtaken(self) -> bool:
        return self._overtaken.is_set()

    def overtake(self) -> None:
        self._overtaken.set()


class Overtaking:
    """Hands out tickets. A new ticket overtakes those on the same subject whose ids it shares at least one of.

    subject: task and object. ids: what the request carries of the person's work (draft or annotation, point ids), so
    that two people who click the same object of the same task do not overtake each other.
    """

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._lock = threading.Lock()

    def begin(self, subject: Hashable, ids: frozenset[str]) -> Ticket:
        ticket = Ticket(subject, ids)
        with self._lock:
            for other in self._tickets:
                if other.subject == subject and other.ids & ids:
                    other.overtake()
            self._tickets.append(ticket)
        return ticket

    def end(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.remove(ticket)

    @property
    def running(self) -> int:
        with self._lock:
            return sum(not t.overtaken for t in self._tickets)
