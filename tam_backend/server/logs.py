"""Lines of the log: one line for a message, whatever it quotes, and no secret of the settings in it.

For people a line is text. For programs (TAM_LOG_FORMAT=json) it is an object of JSON, which also says what the message
is about: request, project, task, session.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from tam_backend.logfacts import current_facts
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

    def blot(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def format(self, record: logging.LogRecord) -> str:
        return self.blot(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name in logging)
        """The line before a traceback, whose own line breaks stay."""
        return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


class JsonFormatter(SafeFormatter):
    """One object of JSON a line. Line breaks and control characters of a message are escaped by JSON itself.

    time, level, logger, message are always there; ``error`` is a traceback; all else says what the line is about.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.blot(record.getMessage()),
        }
        # facts that a call itself gives (extra={"facts": ...}) go before those of the blocks around it
        about = {**current_facts(), **getattr(record, "facts", {})}
        line |= {name: self.blot(v) if isinstance(v, str) else v for name, v in about.items() if name not in line}
        if record.exc_info:
            line["error"] = self.blot(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def start_logging(settings: Settings) -> None:
    """Write the log to standard error, from info on."""
    handler = logging.StreamHandler()
    handler.setFormatter((JsonFormatter if settings.log_format == "json" else SafeFormatter)(settings))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
