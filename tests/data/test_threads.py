import threading
import time

import pytest

from snowmelt.data.threads import for_each


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1000])
def test_every_item_is_done_once_and_counted(count):
    seen, done = [], []
    for_each(seen.append, count, done.append)
    assert sorted(seen) == list(range(count))
    assert sum(done) == count


def test_the_work_is_shared_by_threads(monkeypatch):
    monkeypatch.setattr("snowmelt.data.threads._cores", lambda: 4)
    idents, barrier = set(), threading.Barrier(4, timeout=10)

    def meet(index):
        if index % 32 == 0:
            barrier.wait()
        idents.add(threading.get_ident())

    for_each(meet, 128, lambda _: None)
    assert len(idents) == 4
    assert threading.get_ident() not in idents


def test_an_exception_is_raised_and_what_has_not_begun_is_dropped():
    begun = []

    def work(index):
        begun.append(index)
        time.sleep(0.001)
        if index == 5:
            raise ValueError("item 5")

    with pytest.raises(ValueError, match="item 5"):
        for_each(work, 100_000, lambda _: None)
    assert len(begun) < 1000


def test_ctrl_c_stops_within_an_item(monkeypatch):
    monkeypatch.setattr("snowmelt.data.threads._cores", lambda: 2)
    begun, at_interrupt = [], []

    def work(index):
        begun.append(index)
        time.sleep(0.002)

    def interrupt(_):
        at_interrupt.append(len(begun))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for_each(work, 100_000, interrupt)
    assert len(begun) - at_interrupt[0] <= 8
