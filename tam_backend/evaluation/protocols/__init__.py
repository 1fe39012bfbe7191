"""The protocols by name. Each is a robot that does with a video what a person would do."""

from __future__ import annotations

from tam_backend.evaluation.protocols import interactive, noc, offline, online, semi
from tam_backend.evaluation.protocols.base import ProtocolModule

PROTOCOLS: dict[str, ProtocolModule] = {m.NAME: m for m in (semi, noc, offline, online, interactive)}
