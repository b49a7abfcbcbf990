"""Threads that work ahead: results in order, a bound, errors in their place, and an end."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.extract._inorder import Crew, InOrder


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 60),
    threads=st.integers(1, 5),
    ahead=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_results_come_in_order_and_no_work_is_far_ahead(
    count: int, threads: int, ahead: int, seed: int
) -> None:
    """Each item is worked on once, whatever the threads' luck, `ahead` of the results at most."""
    lock, begun = threading.Lock(), list[int]()
    pauses = random.Random(seed).choices([0, 0, 0.0005], k=count)

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        time.sleep(pauses[item])
        return item**2

    with InOrder(work, range(count), threads=threads, ahead=ahead, name="test") as line:
        for taken, (item, result) in enumerate(line):
            assert (item, result) == (taken, taken**2)
            assert len(begun) <= taken + 1 + ahead
    assert sorted(begun) == list(range(count))


def test_an_error_is_raised_where_its_result_is_taken() -> None:
    """Not before: what came earlier is used first."""

    def work(item: int) -> int:
        if item == 8:
            raise ArithmeticError(item)
        return item

    taken = list[int]()

    def take() -> None:
        with InOrder(work, range(20), threads=2, ahead=16, name="test") as line:
            taken.extend(item for item, _ in line)

    with pytest.raises(ArithmeticError, match="8"):
        take()
    assert taken == list(range(8))


def test_leaving_lets_go_of_what_is_not_begun() -> None:
    """Only the items in hand are waited for, not the rest of a thread's four."""
    begun, ended = list[int](), threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        assert ended.wait(60)

    line = InOrder(work, range(50), threads=2, ahead=40, name="test")
    while len(begun) < 2:
        time.sleep(0.001)
    line._ended.set()
    ended.set()
    line.__exit__()
    assert len(begun) == 2


def test_an_interrupt_while_the_first_are_handed_over_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody could leave what nobody has entered: it ends by itself, and begins no more."""
    begun, real = list[int](), InOrder._submit

    def submit(self: InOrder[int, None]) -> None:
        if len(self._waiting) == 5:
            raise KeyboardInterrupt
        real(self)

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)

    monkeypatch.setattr(InOrder, "_submit", submit)
    with pytest.raises(KeyboardInterrupt):
        InOrder(work, range(100), threads=2, ahead=80, name="interrupted")
    count = len(begun)
    assert not [t for t in threading.enumerate() if t.name.startswith("interrupted")]
    assert count < 20
    assert len(begun) == count


def test_a_crew_takes_the_most_urgent_first() -> None:
    """And each of a kind in the order in which it came."""
    crew, done, begun, go_on = Crew(1, "test"), list[str](), threading.Event(), threading.Event()

    def hold(_: str) -> None:
        begun.set()
        assert go_on.wait(60)

    crew.submit(hold, "")
    assert begun.wait(60)
    then = [crew.submit(done.append, name) for name in ("third", "fourth")]
    first = [crew.submit(done.append, name, first=True) for name in ("first", "second")]
    go_on.set()
    for future in then + first:
        future.result(60)
    crew.close()
    assert done == ["first", "second", "third", "fourth"]


def test_a_crew_passes_errors_on_and_lets_go_of_what_is_cancelled() -> None:
    """A thread outlives both."""
    crew, begun, go_on = Crew(1, "test"), threading.Event(), threading.Event()

    def hold(_: int) -> None:
        begun.set()
        assert go_on.wait(60)
        raise ArithmeticError

    failing, done = crew.submit(hold, 0), list[int]()
    assert begun.wait(60)
    dropped, last = crew.submit(done.append, 1), crew.submit(done.append, 2)
    assert dropped.cancel()
    go_on.set()
    with pytest.raises(ArithmeticError):
        failing.result(60)
    last.result(60)
    crew.close()
    assert done == [2]


def test_a_crew_knows_what_it_was_busy_with_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seconds of its threads, of which long past ones count less."""
    clock, crew = 0.0, Crew(1, "test")
    monkeypatch.setattr(time, "perf_counter", lambda: clock)

    def work(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def spend(seconds: float, *, first: bool) -> None:
        crew.submit(work, seconds, first=first).result(60)
        crew.submit(work, 0).result(60)  # the time of the one before is noted by now

    told = [crew.mostly_first]
    spend(3, first=True)
    told.append(crew.mostly_first)
    spend(4, first=False)
    told.append(crew.mostly_first)
    for _ in range(20):
        spend(9, first=True)
    told.append(crew.mostly_first)
    for _ in range(4):
        spend(6, first=False)
    told.append(crew.mostly_first)
    assert told == [False, True, False, True, False]
    crew.close()


def test_a_crew_holds_no_error_that_nobody_holds() -> None:
    """Nor what its traceback holds, such as a batch; nothing has to be collected for that."""

    class Large:
        pass

    held = list[weakref.ref[Large]]()

    def work(_: int) -> int:
        large = Large()
        held.append(weakref.ref(large))
        raise ArithmeticError

    crew = Crew(1, "test")
    gc.disable()
    try:
        assert isinstance(crew.submit(work, 0).exception(60), ArithmeticError)
        crew.close()
        assert held[0]() is None
    finally:
        gc.enable()


def test_closing_a_crew_waits_for_what_is_in_hand_alone() -> None:
    """What is not begun never is."""
    crew, begun, done = Crew(2, "test"), threading.Barrier(3), list[int]()

    def work(item: int) -> None:
        begun.wait(60)
        time.sleep(0.05)
        done.append(item)

    futures = [crew.submit(work, item) for item in range(9)]
    begun.wait(60)
    crew.close()
    assert sorted(done) == [0, 1]
    assert [future.done() for future in futures] == [True] * 2 + [False] * 7
