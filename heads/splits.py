"""Which rows of a store are compared on, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.errors import FewPicturesError, HeadError, StoreError
from headstart.heads.alike import feature_numbers
from headstart.heads.folds import fewest_groups, grouped_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Progress, Store
    from headstart.heads.folds import Folds

    Int = NDArray[np.int64]

#: Folds, where there is no validation split and no number was asked for.
FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """Labelled rows outside the test split.

    Attributes
    ----------
    numbers : ndarray of shape (n,)
        Row of the store.
    codes : ndarray of shape (n,)
        Class.
    groups : ndarray of shape (n,)
        Rows of equal value are never on both sides of a split.
    pictures : ndarray of shape (n,)
        Equal for a picture, its copies and its augmented views.
    validation, first_view : ndarray of shape (n,), bool
        Whether it is in the validation split; whether it is the picture itself.
    equal_features : int
        Pictures whose features are those of another one, though the bytes of the files differ;
        they are in one group.
    """

    numbers: Int
    codes: Int
    groups: Int
    pictures: Int
    validation: NDArray[np.bool_]
    first_view: NDArray[np.bool_]
    equal_features: int = 0


@dataclass(frozen=True)
class Protocol:
    """How rows are split.

    Attributes
    ----------
    splits : list of (train, test)
        Positions among the labelled rows.
    words : str
        A sentence on it.
    shared : int
        Training rows left out because their picture or their group is in the validation split.
    """

    splits: Folds
    words: str
    shared: int

    @property
    def trained(self) -> Int:
        """Rows that any split trains on."""
        rows: Int = np.unique(np.concatenate([train for train, _ in self.splits]))
        return rows

    @property
    def tested(self) -> Int:
        """Rows that are measured, split after split."""
        return np.concatenate([test for _, test in self.splits])


def labelled_rows(
    store: Store,
    group_by: ArrayLike | None,
    *,
    views: bool = True,
    progress: Progress | None = None,
) -> Labelled:
    """Return the rows to compare on, with their augmented views or without.

    Raises
    ------
    HeadError
        If there are none, or `group_by` is neither a column of the manifest nor one value a row.
    """
    labels, split = store.labels(), store.splits()
    wanted = (labels >= 0) & (split != "test")
    numbers = np.flatnonzero(wanted if views else wanted & (store.views() == 0))
    if len(numbers) == 0:
        raise HeadError(f"{store.path} has no labelled rows outside its test split")
    pictures = _pictures(store)
    links = [] if group_by is None else [_given(store, group_by)]
    alike = _alike(store, pictures, numbers, progress)
    if len(alike[0]):
        links.append(alike)
    return Labelled(
        numbers=numbers,
        codes=labels[numbers].astype(np.int64),
        groups=_joined(pictures, links)[numbers],
        pictures=pictures[numbers],
        validation=split[numbers] == "validation",
        first_view=store.views()[numbers] == 0,
        equal_features=len(np.unique(pictures[alike[0]])),
    )


def protocol(
    store: Store, rows: Labelled, *, cv: int | None, seed: int, group_by: ArrayLike | None = None
) -> Protocol:
    """Return the splits: training against validation where the store has both, else folds.

    Raises
    ------
    FewPicturesError
        If a class has too few rows.
    """
    groups = "" if group_by is None else _called(group_by)
    together = f"identical pictures{f' and {groups}' if groups else ''}"
    if rows.validation.any():
        given = _given_split(rows, cv, together)
        return replace(given, words=given.words + _left_out(store))
    if len(np.unique(rows.codes)) < 2:
        raise HeadError(f"{store.path} has rows of one class only; a head needs two or more")
    wanted = cv or FOLDS
    fewest, smallest = fewest_groups(rows.codes, rows.groups)
    if fewest < wanted:
        raise FewPicturesError(
            f"class {store.classes[smallest]} has {fewest} different picture{'s' * (fewest != 1)}"
            f"{f' or {groups}' if groups else ''}, too few for {wanted} folds: add pictures",
            fewest,
        )
    # Of the pictures themselves: with augmented views the folds are the same.
    whole = np.flatnonzero(rows.first_view)
    folds = grouped_folds(rows.codes[whole], rows.groups[whole], wanted, seed)
    tests = [whole[test] for _, test in folds]
    splits = [(np.flatnonzero(~np.isin(rows.groups, rows.groups[test])), test) for test in tests]
    words = f"{wanted} stratified folds, {together} kept together{_of_alike(rows)}{_of_views(rows)}"
    return Protocol(splits, words + _left_out(store), 0)


def _called(group_by: ArrayLike) -> str:
    return f"rows of equal {group_by!r}" if isinstance(group_by, str) else "groups"


def _of_alike(rows: Labelled) -> str:
    count = rows.equal_features
    return f", {count:,} of other bytes but equal features taken for identical" if count else ""


def _left_out(store: Store) -> str:
    """Say which pictures of the store are not compared on, if any."""
    own, test = store.views() == 0, store.splits() == "test"
    unlabelled = int((own & ~test & (store.labels() < 0)).sum())
    left = {"of the test split": int((own & test).sum()), "without a label": unlabelled}
    words = [f"{count:,} {which}" for which, count in left.items() if count]
    return f", {' and '.join(words)} left out" if words else ""


def _of_views(rows: Labelled) -> str:
    count = int((~rows.first_view).sum())
    return f", {count:,} augmented views trained on beside" if count else ""


def _given_split(rows: Labelled, cv: int | None, together: str) -> Protocol:
    """Return the store's own split, less the training rows which validation knows already."""
    held = rows.validation
    shared = ~held & np.isin(rows.groups, rows.groups[held])
    train, test = np.flatnonzero(~held & ~shared), np.flatnonzero(held & rows.first_view)
    if len(np.unique(rows.codes[train])) < 2 or len(test) == 0:
        raise HeadError(
            "the training split needs rows of two classes or more, without those shared with the "
            f"validation split ({int(shared.sum()):,} {together})"
        )
    words = f"validation split of {len(test):,} rows"
    if shared.any():
        words += f", {int(shared.sum()):,} training rows left out as {together} shared with it"
    words += _of_alike(rows) + _of_views(rows)
    if cv is not None:
        words += ", cv ignored"
    return Protocol([(train, test)], words, int(shared.sum()))


def _joined(pictures: Int, links: Sequence[tuple[Int, Int]]) -> Int:
    """Return a number for each row, equal where rows must stay together.

    Parameters
    ----------
    pictures : ndarray of shape (N,)
        Rows of equal value stay together.
    links : sequence of (rows, values)
        And so do those of `rows` that are equal in `values`.
    """
    if not links:
        return pictures
    size = int(pictures.max()) + 1
    ends: list[tuple[Int, Int]] = []
    for rows, values in links:
        ends.append((pictures[rows], values + size))
        size += int(values.max(initial=-1)) + 1
    left, right = map(np.concatenate, zip(*ends, strict=True))
    edges = coo_array((np.ones(len(left)), (left, right)), shape=(size, size))
    part = connected_components(edges, directed=False)[1]
    groups: Int = part[pictures].astype(np.int64)
    return groups


def _given(store: Store, group_by: ArrayLike) -> tuple[Int, Int]:
    """Return the rows that the user groups, and a number for each; empty cells group nothing."""
    given = _column(store, group_by) if isinstance(group_by, str) else np.asarray(group_by)
    if given.shape != (len(store),):
        raise HeadError(f"group_by needs one value per row ({len(store)}); found {given.shape}")
    texts = np.array([str(value) for value in given.tolist()])
    named = np.flatnonzero(~np.isin(texts, ("", "None", "nan", "NaT")))
    return named, np.unique(texts[named], return_inverse=True)[1].ravel()


def _alike(store: Store, pictures: Int, numbers: Int, progress: Progress | None) -> tuple[Int, Int]:
    """Return rows of different pictures with equal features, and a number for each.

    Only the pictures among `numbers` are looked at, not their views, which differ by the bytes.
    """
    own = numbers[store.views()[numbers] == 0]
    different = own[np.unique(pictures[own], return_index=True)[1]]
    values = feature_numbers(store, different, progress)
    shared = np.bincount(values)[values] > 1
    return different[shared], values[shared]


def _pictures(store: Store) -> Int:
    """Return a number for each row, equal for rows of the same picture."""
    pictures: Int = np.unique(store.image_sha256(), return_inverse=True)[1].ravel()
    return pictures


def _column(store: Store, name: str) -> NDArray[Any]:
    """Return a column of the manifest; empty cells group nothing."""
    try:
        return store.column(name)
    except StoreError as error:
        raise HeadError(f"cannot group by {name!r}: {error}") from error
