from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.labelstudio.hostile import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """Stands for Label Studio, or for any server that is allowed."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Server]:
    """A server that must see no token."""
    server = Server()
    yield server
    assert server.tokens == [None] * len(server.seen)
    server.close()


Names = dict[str, list[str]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Names], None]:
    """Gives host names addresses: one after the other, a comma between several at once. The last one stays.

    Other names have none. Numbers are read as the system reads them.
    """
    real = socket.getaddrinfo
    names: Names = {}

    def getaddrinfo(host, port, *args, **kwargs):
        if host in names:
            answers = names[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [entry for ip in found.split(",") for entry in real(ip, port, *args, **kwargs)]
        try:
            return real(host, port, *args, **kwargs, flags=socket.AI_NUMERICHOST)
        except TypeError:
            return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names.update


@pytest.fixture
def connections_tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Notes every connection that is tried, and lets none succeed."""
    tried: list[tuple[str, int]] = []

    def create_connection(address, *args, **kwargs):
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return tried
