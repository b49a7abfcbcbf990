"""Folds keep groups whole, and choose the first of equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import HeadError
from headstart.heads.folds import best, fewest_groups, grouped_folds, inner_folds


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 4), st.integers(0, 10**6), st.sampled_from([25, 120, 600]))
def test_no_group_is_on_both_sides(n_splits: int, seed: int, most: int) -> None:
    """Each row is tested once, and never with a row of its group in training.

    Be the groups many rows each, or mostly single rows, some of two classes.
    """
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, most, 60)
    codes = np.where(rng.random(60) < 0.1, 1 - groups % 2, groups % 2)
    if fewest_groups(codes, groups)[0] < n_splits:
        return
    folds = grouped_folds(codes, groups, n_splits, seed)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(60))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])


def test_classes_have_their_share_of_every_fold() -> None:
    """Where most rows are alone, folds are as stratified as those of single rows."""
    codes = np.repeat([0, 1], [90, 30])
    groups = np.arange(120)
    groups[5], groups[100] = groups[4], groups[101]
    for _, test in grouped_folds(codes, groups, 5, 0):
        assert np.abs(np.bincount(codes[test]) - [18, 6]).max() <= 1


def test_the_same_seed_gives_the_same_folds() -> None:
    codes = np.arange(40) % 2
    first, second, other = (grouped_folds(codes, None, 4, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_too_few_groups_are_named() -> None:
    """Ten copies of one picture are one picture."""
    codes, groups = np.array([0] * 10 + [1] * 10), np.array([0] * 10 + list(range(1, 11)))
    assert fewest_groups(codes, groups) == (1, 0)
    with pytest.raises(HeadError, match="class 0 has 1"):
        grouped_folds(codes, groups, 2, 0)
    everything = np.ones(20, bool)
    assert inner_folds(codes, groups, 5, 0, everything) == []


def test_given_folds_lose_the_rows_that_are_not_used() -> None:
    """Positions count the rows that are left."""
    used = np.array([True, False, True, True])
    given_folds = [(np.array([0, 1, 2]), np.array([3])), (np.array([3]), np.array([0, 1, 2]))]
    codes = np.array([0, 1, 0])
    ((train, test), _) = inner_folds(codes, None, given_folds, 0, used)
    assert train.tolist() == [0, 1]
    assert test.tolist() == [2]


def test_the_first_of_equals_is_chosen() -> None:
    assert best(np.array([[0.1, 0.3, 0.2], [0.3, 0.3, 0.4]])) == 1
