"""Which prompts may be missing in the saved work that a request carries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

_REMEMBERED = 1000


class UnsavedPrompts:
    """Remembers what was asked since people's work was last saved. Thread-safe.

    Label Studio's page sends the prompts of one tag; those of the other tag are in the saved work, unless they were
    made so lately that nothing was saved since.
    """

    def __init__(self) -> None:
        self._asked: OrderedDict[Hashable, dict[Hashable, str]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, subject: Hashable, tag: Hashable, saved: str) -> bool:
        """Note a request about ``subject`` with prompts of ``tag`` that came with the saved work named ``saved``.

        Returns whether prompts of another tag came with the same saved work before, so that they may not be in it.
        """
        with self._lock:
            asked = self._asked.setdefault(subject, {})
            self._asked.move_to_end(subject)
            missing = any(other != tag and state == saved for other, state in asked.items())
            asked[tag] = saved
            while len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        return missing
