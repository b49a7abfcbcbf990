"""Independent work on all cores: as many threads as there are, and no more."""

from __future__ import annotations

from threading import Barrier
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from headstart.heads import parallel as module
from headstart.heads.parallel import free_cores, parallel, single_threaded


@pytest.fixture(autouse=True)
def libraries() -> None:
    """Look for libraries anew: another test may have loaded more of them."""
    module._libraries.cache_clear()


def threads() -> set[int]:
    """Return how many threads each library of linear algebra uses."""
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_linear_algebra_has_one_thread_meanwhile(all_threads: int) -> None:
    """And as many as before, afterwards."""
    assert threads() == {all_threads}
    with single_threaded():
        assert threads() == {1}
    assert threads() == {all_threads}


def test_tasks_run_beside_each_other_with_one_thread_each(
    all_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the tasks; within one of them, one after another."""
    monkeypatch.setattr(module, "cores", lambda: 2)
    together = Barrier(2, timeout=30)

    def work(task: int) -> Any:
        together.wait()
        return task, threads(), free_cores(), parallel(abs, [-task, task])

    assert parallel(work, [1, 2]) == [(n, {1}, 1, [n, n]) for n in (1, 2)]
    assert threads() == {all_threads}


@pytest.mark.usefixtures("all_threads")
def test_the_number_of_threads_changes_no_more_than_rounding() -> None:
    """A product is the same by several threads, by one, and by those of tasks."""
    rows = np.random.default_rng(0).normal(size=(600, 400))
    expected = np.einsum("ij,kj->ik", rows, rows)
    with single_threaded():
        alone = rows @ rows.T
    for found in (rows @ rows.T, alone, *parallel(lambda X: X @ X.T, [rows, rows])):
        np.testing.assert_allclose(found, expected, atol=1e-10)
