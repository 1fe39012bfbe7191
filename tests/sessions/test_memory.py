import logging

import pytest

from tam_backend.sessions.memory import MemoryWatch, default_limit, resident_bytes


class Process:
    """Takes memory, and has caches that can be dropped: name -> bytes."""

    def __init__(self, own: int, **caches: int) -> None:
        self.own, self.caches = own, caches
        self.dropped: list[str] = []

    def taken(self) -> int:
        return self.own + sum(self.caches.values())

    def drops(self):
        def drop(name: str) -> None:
            self.dropped.append(name)
            self.caches[name] = 0

        return [lambda name=name: drop(name) for name in self.caches]


@pytest.fixture
def watched(monkeypatch):
    """Makes a watch that looks only when it is told to."""
    monkeypatch.setattr("tam_backend.sessions.memory._LOOK_EVERY", 3600.0)
    made: list[MemoryWatch] = []

    def make(limit: int, process: Process) -> MemoryWatch:
        made.append(MemoryWatch(limit, process.drops(), process.taken))
        return made[-1]

    yield make
    for watch in made:
        watch.close()


def test_the_least_useful_goes_first_and_no_more_than_is_needed(watched):
    process = Process(500, frames=200, features=100, masks=150)
    watched(1000, process).look()
    assert process.dropped == ["frames"]


def test_nothing_goes_without_need(watched):
    process = Process(500, frames=300)
    watched(1000, process).look()
    assert process.dropped == []


def test_a_limit_that_is_too_small_is_told_once_in_a_while(watched, caplog):
    caplog.set_level(logging.INFO)
    process = Process(2000, frames=1)
    watch = watched(1000, process)
    for _ in range(3):
        watch.look()
    assert caplog.text.count("TAM_MEMORY_MB") == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_this_process_takes_something_and_no_more_than_the_machine_has():
    assert 10e6 < resident_bytes() < default_limit()
