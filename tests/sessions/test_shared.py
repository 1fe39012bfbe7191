import threading
import time

import pytest

from tam_backend.sessions.shared import Shared


def test_who_asks_at_the_same_time_gets_the_same_and_it_is_computed_once():
    shared: Shared[object] = Shared()
    begun, go = threading.Event(), threading.Event()
    computed: list[object] = []

    def compute() -> object:
        begun.set()
        assert go.wait(5)
        computed.append(object())
        return computed[-1]

    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(shared.get("k", compute))) for _ in range(4)]
    for thread in threads:
        thread.start()
        assert begun.wait(5)
    assert shared.get("other", lambda: 7) == 7
    time.sleep(0.05)  # all wait
    go.set()
    for thread in threads:
        thread.join()
    assert answers == computed * 4
    assert shared.get("k", lambda: 8) == 8, "an answer that is out is not kept"


def test_an_error_goes_to_all_who_asked_and_is_not_kept():
    shared: Shared[int] = Shared()
    with pytest.raises(ZeroDivisionError):
        shared.get("k", lambda: 1 // 0)
    assert shared.get("k", lambda: 1) == 1
