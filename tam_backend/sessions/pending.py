"""Requests under way, and which of them a newer one has made moot.

Label Studio's page uses only the answer to the last request it sent. So a newer request on the same object overtakes
the older one, whose computation stops; and one on another object of the same task takes the older one's object over,
because nobody will look at the older one's answer. That holds for some seconds after the older one was answered, too:
its answer may not have reached the page yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

#: An answer has reached the page, and the page has taken it over, this long after it was given.
ARRIVES_WITHIN = 5.0


class Ticket(Generic[T]):
    """One request. subject: what it is about; ids: the prompts it carries; draft: the person's draft ("" if unknown).
    person: names who asks, to be fair to all.

    work: what it asks for, and what it has taken over from older requests. busy: why nothing was computed for it, "" if
    something was.
    """

    def __init__(
        self,
        task: Hashable,
        subject: Hashable,
        ids: frozenset[str],
        draft: str,
        work: list[T],
        person: Hashable = None,
    ) -> None:
        self.person = person
        self.task = task
        self.subject = subject
        self.ids = ids
        self.draft = draft
        self.work = work
        self.busy = ""
        self._overtaken = threading.Event()
        self.answered_at: float | None = None

    @property
    def overtaken(self) -> bool:
        return self._overtaken.is_set()

    def overtake(self) -> None:
        self._overtaken.set()


class PendingRequests(Generic[T]):
    """Hands out tickets. Thread-safe."""

    def __init__(self) -> None:
        self._tickets: list[Ticket[T]] = []
        self._lock = threading.Lock()

    def begin(self, ticket: Ticket[T]) -> list[Ticket[T]]:
        """Enter a request. It overtakes older ones on the same subject that share a prompt or the draft with it.

        Returns the older requests on other subjects of the same task whose answers are not on the page yet. Whether
        they are the same person's, the caller must find out (``same_draft`` may tell).
        """
        with self._lock:
            self._forget_arrived()
            siblings = []
            for other in self._tickets:
                if other.task != ticket.task:
                    continue
                if other.subject != ticket.subject:
                    if not other.ids & ticket.ids:  # else it was about the same point, under another name
                        siblings.append(other)
                elif other.ids & ticket.ids or same_draft(other, ticket):
                    other.overtake()
            self._tickets.append(ticket)
        return siblings

    def end(self, ticket: Ticket[T]) -> None:
        """The request is answered."""
        with self._lock:
            ticket.answered_at = time.monotonic()
            self._forget_arrived()

    def _forget_arrived(self) -> None:
        now = time.monotonic()
        self._tickets = [t for t in self._tickets if t.answered_at is None or now - t.answered_at < ARRIVES_WITHIN]

    @property
    def running(self) -> int:
        with self._lock:
            return sum(t.answered_at is None and not t.overtaken for t in self._tickets)


def same_draft(one: Ticket[T], other: Ticket[T]) -> bool | None:
    """Whether two requests come from one person's draft; None if that is not known of both."""
    return one.draft == other.draft if one.draft and other.draft else None
