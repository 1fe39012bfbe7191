"""Lines of the log: one line for a message, whatever it quotes, and no secret of the settings in it."""

from __future__ import annotations

import logging
import re
from dataclasses import fields

from tam_backend.settings import Settings

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Control characters, and what Unicode counts as line breaks or turns the direction of text with.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class SafeFormatter(logging.Formatter):
    """Escapes what could forge a line, and blots out the settings' secrets, should a library quote one."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_FORMAT)
        secrets = [str(getattr(settings, o.name)) for o in fields(settings) if o.metadata["secret"]]
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name in logging)
        """The line before a traceback, whose own line breaks stay."""
        return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def start_logging(settings: Settings) -> None:
    """Write the log to standard error, from info on."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter(settings))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
