import threading
import time

import pytest

from tam_backend.sessions.turns import DeviceTurns


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
