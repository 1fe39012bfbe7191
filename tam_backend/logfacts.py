"""What the lines of the log are about: facts that hold for all that is logged inside a block.

Threads do not inherit them: whoever hands work to another thread says there what it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_FACTS: ContextVar[Mapping[str, Any]] = ContextVar("tam_log_facts", default=MappingProxyType({}))


@contextmanager
def log_about(**facts: Any) -> Iterator[None]:
    """Inside the block, lines carry these facts beside those of the blocks around it. None: leave that one out."""
    known = {name: value for name, value in facts.items() if value is not None}
    token = _FACTS.set({**_FACTS.get(), **known})
    try:
        yield
    finally:
        _FACTS.reset(token)


def current_facts() -> Mapping[str, Any]:
    """Those that hold here."""
    return _FACTS.get()
