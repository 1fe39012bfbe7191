import threading
import time

import pytest

from tam_backend.sessions.turns import CROWD, DeviceTurns


def test_requests_take_turns_in_the_order_they_came():
    turns = DeviceTurns()
    order: list[int] = []

    def ask(number: int) -> None:
        with turns.interactive():
            order.append(number)

    with turns.interactive():
        threads = []
        for i in range(5):
            threads.append(threading.Thread(target=ask, args=(i,)))
            threads[-1].start()
            while len(turns._queue) < i + 1:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_people_take_turns_however_many_requests_each_has():
    turns = DeviceTurns()
    order: list[str] = []

    def ask(person: str) -> None:
        with turns.interactive(person):
            order.append(person)

    with turns.interactive("ann"):
        threads = []
        for person in ("ann", "ann", "ann", "ben", "cleo"):
            threads.append(threading.Thread(target=ask, args=(person,)))
            threads[-1].start()
            while len(turns._queue) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["ben", "cleo", "ann", "ann", "ann"]


def test_as_many_turns_at_once_as_there_are_places():
    turns = DeviceTurns(places=2)
    both = threading.Barrier(2)

    def ask(person: int) -> None:
        with turns.interactive(person):
            both.wait(5)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken
    with turns.interactive("ann"), turns.interactive("ben"), turns.background(0.02) as mine:
        assert not mine


def test_many_people_make_a_crowd_for_a_while(monkeypatch):
    turns = DeviceTurns()
    for person in range(CROWD[0]):
        assert not turns.crowded
        for _ in range(3):
            with turns.interactive(person):
                pass
    assert turns.crowded
    later = time.monotonic() + CROWD[1] + 1
    monkeypatch.setattr("tam_backend.sessions.turns.time.monotonic", lambda: later)
    assert not turns.crowded


def test_a_request_knows_how_many_are_before_it():
    turns = DeviceTurns()
    with turns.request() as first, turns.request() as second:
        assert (first, second) == (0, 1)
    with turns.request() as ahead:
        assert ahead == 0


def test_background_work_stands_still_while_a_request_is_open():
    turns = DeviceTurns()
    with turns.request():
        with turns.background(0.05) as mine:
            assert not mine
        with turns.interactive(), turns.background(0.01) as mine:
            assert not mine
    with turns.background(0.05) as mine:
        assert mine
        with turns.background(0.01) as second:
            assert not second


def test_a_request_waits_for_one_turn_of_the_background_at_most():
    turns = DeviceTurns()
    stop = threading.Event()
    given = 0

    def work() -> None:
        nonlocal given
        while not stop.is_set():
            with turns.background(0.01) as mine:
                if mine:
                    given += 1
                    time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    while given < 3:
        time.sleep(0.001)
    with turns.request():
        before = given
        for _ in range(20):
            with turns.interactive():
                time.sleep(0.001)
        assert given - before <= 1
    stop.set()
    thread.join()


def test_an_error_gives_the_turn_back():
    turns = DeviceTurns()
    with pytest.raises(ZeroDivisionError), turns.request(), turns.interactive():
        raise ZeroDivisionError
    with turns.background(0.05) as mine:
        assert mine
