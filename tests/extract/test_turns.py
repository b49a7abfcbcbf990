"""Threads beside each other, or one alone."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.extract._turns import Turns


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), threads=st.integers(2, 6))
def test_nobody_is_beside_one_that_is_alone(seed: int, threads: int) -> None:
    """Whatever the threads' luck; and everyone has a turn."""
    chance, turns, lock = random.Random(seed), Turns(), threading.Lock()
    beside, alone, crowds = 0, 0, list[tuple[int, int]]()

    def change(more: int, more_alone: int) -> None:
        nonlocal beside, alone
        with lock:
            beside, alone = beside + more, alone + more_alone
            crowds.append((beside, alone))

    def work(one: tuple[bool, float]) -> None:
        exclusive, pause = one
        with turns.alone() if exclusive else turns.beside():
            change(not exclusive, exclusive)
            time.sleep(pause)
            change(-(not exclusive), -exclusive)

    jobs = [(chance.random() < 0.3, chance.choice([0, 0.0005])) for _ in range(30)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, jobs))
    assert len(crowds) == 60
    assert crowds[-1] == (0, 0)
    assert all(alone == 0 or (beside, alone) == (0, 1) for beside, alone in crowds)


def test_threads_work_beside_each_other() -> None:
    turns, meeting = Turns(), threading.Barrier(3)

    def meet(_: int) -> None:
        with turns.beside():
            meeting.wait(60)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(meet, range(3)))


def test_whoever_asks_to_be_alone_is_not_overtaken() -> None:
    """Those that come later wait: else they might follow each other for ever."""
    turns, order = Turns(), list[str]()
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with turns.beside():
            inside.set()
            assert go_on.wait(60)
            order.append("first")

    def alone() -> None:
        with turns.alone():
            order.append("alone")

    def later() -> None:
        with turns.beside():
            order.append("later")

    with ThreadPoolExecutor(3) as pool:
        pool.submit(hold)
        assert inside.wait(60)
        waiting = pool.submit(alone)
        for _ in range(60_000):
            time.sleep(0.001)
            if turns._alone:
                break
        late = pool.submit(later)
        time.sleep(0.02)
        assert not waiting.done()
        assert not late.done()
        go_on.set()
    assert order == ["first", "alone", "later"]


@pytest.mark.parametrize("kind", ["beside", "alone"])
def test_an_error_ends_a_turn(kind: str) -> None:
    turns = Turns()
    with pytest.raises(ArithmeticError), getattr(turns, kind)():
        raise ArithmeticError
    with turns.alone():
        pass
