"""Splits of rows that never put identical pictures on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.errors import HeadError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    Folds = list[tuple[Int, Int]]


#: Groups to rows above which groups are stratified instead of rows: most are single rows, and to
#: go through them one by one, as StratifiedGroupKFold does, takes longer than to train a head.
_MOSTLY_ALONE = 0.7


def grouped_folds(codes: Int, groups: NDArray[Any] | None, n_splits: int, seed: int) -> Folds:
    """Return stratified folds ``[(train, test), ...]`` that keep groups whole.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class of each row.
    groups : ndarray of shape (n,), optional
        Rows of equal value (identical pictures) stay together.
    n_splits : int
        Number of folds; every class needs as many groups.
    seed : int
        Decides the shuffle.

    Raises
    ------
    HeadError
        If a class has fewer groups than there are folds.
    """
    fewest, smallest = fewest_groups(codes, groups)
    if n_splits < 2 or fewest < n_splits:
        raise HeadError(
            f"{n_splits} folds need 2 or more folds and {n_splits} different rows of every class; "
            f"class {smallest} has {fewest}"
        )
    each = np.arange(len(codes)) if groups is None else groups
    _, first, numbers = np.unique(each, return_index=True, return_inverse=True)
    if len(first) > _MOSTLY_ALONE * len(codes) and np.bincount(codes[first]).min() >= n_splits:
        one_each = StratifiedKFold(n_splits, shuffle=True, random_state=seed)
        held = [np.isin(numbers, test) for _, test in one_each.split(first, codes[first])]
        return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in held]
    grouped = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    return list(grouped.split(codes, codes, numbers))


def fewest_groups(codes: Int, groups: NDArray[Any] | None) -> tuple[int, int]:
    """Return the smallest number of different groups in a class, and which class that is."""
    numbers = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    pairs = np.unique(np.column_stack([codes, numbers.ravel()]), axis=0)[:, 0]
    classes, counts = np.unique(pairs, return_counts=True)
    smallest = int(np.argmin(counts))
    return int(counts[smallest]), int(classes[smallest])


def inner_folds(
    codes: Int,
    groups: NDArray[Any] | None,
    cv: int | Iterable[tuple[Int, Int]],
    seed: int,
    used: NDArray[np.bool_],
) -> Folds:
    """Return the folds in which a head chooses its hyperparameters.

    As many as asked for, fewer if a class has fewer different rows, and none at all if it has
    only one. Folds that are given count all rows; those not `used` are taken out of them.
    """
    if isinstance(cv, int):
        n_splits = min(cv, fewest_groups(codes, groups)[0])
        return grouped_folds(codes, groups, n_splits, seed) if n_splits >= 2 else []
    place = np.cumsum(used) - 1
    return [
        (place[np.asarray(train)[used[train]]], place[np.asarray(test)[used[test]]])
        for train, test in cv
    ]


def best(scores: NDArray[np.float64]) -> int:
    """Return the candidate with the highest mean score ``(folds, candidates)``; ties: the first."""
    mean = scores.mean(0)
    return int(np.flatnonzero(mean >= mean.max() - 1e-12)[0])
