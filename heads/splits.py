"""Which rows of a store are compared on, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.errors import HeadError, StoreError
from headstart.heads.folds import fewest_groups, grouped_folds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Store
    from headstart.heads.folds import Folds

    Int = NDArray[np.int64]

#: Folds, where there is no validation split and no number was asked for.
FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """Labelled rows outside the test split: store rows, classes, groups, and which are measured."""

    numbers: Int
    codes: Int
    groups: Int
    validation: NDArray[np.bool_]
    first_view: NDArray[np.bool_]


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


def labelled_rows(store: Store, group_by: ArrayLike | None) -> Labelled:
    """Return the rows to compare on.

    Raises
    ------
    HeadError
        If there are none, or `group_by` is neither a column of the manifest nor one value a row.
    """
    labels, split = store.labels(), store.splits()
    numbers = np.flatnonzero((labels >= 0) & (split != "test"))
    if len(numbers) == 0:
        raise HeadError(f"{store.path} has no labelled rows outside its test split")
    return Labelled(
        numbers=numbers,
        codes=labels[numbers].astype(np.int64),
        groups=_groups(store, group_by)[numbers],
        validation=split[numbers] == "validation",
        first_view=store.views()[numbers] == 0,
    )


def protocol(store: Store, rows: Labelled, *, cv: int | None, seed: int, grouped: bool) -> Protocol:
    """Return the splits: training against validation where the store has both, else folds.

    Raises
    ------
    HeadError
        If a class has too few rows.
    """
    together = f"identical pictures{' and groups' if grouped else ''}"
    if rows.validation.any():
        return _given_split(rows, cv, together)
    if len(np.unique(rows.codes)) < 2:
        raise HeadError(f"{store.path} has rows of one class only; a head needs two or more")
    wanted = cv or FOLDS
    fewest, smallest = fewest_groups(rows.codes, rows.groups)
    if fewest < wanted:
        raise HeadError(
            f"class {store.classes[smallest]} has {fewest} different pictures"
            f"{' or groups' if grouped else ''}, too few for {wanted} folds: add pictures"
            + (f", or use --cv {fewest}" if fewest > 1 else "")
        )
    folds = grouped_folds(rows.codes, rows.groups, wanted, seed)
    measured = [(train, test[rows.first_view[test]]) for train, test in folds]
    return Protocol(measured, f"{wanted} stratified folds, {together} kept together", 0)


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
    if cv is not None:
        words += ", cv ignored"
    return Protocol([(train, test)], words, int(shared.sum()))


def _groups(store: Store, group_by: ArrayLike | None) -> Int:
    """Return a number for each row, equal where rows must stay together."""
    pictures = np.unique(store.image_sha256(), return_inverse=True)[1].ravel()
    if group_by is None:
        return pictures
    given = _column(store, group_by) if isinstance(group_by, str) else np.asarray(group_by)
    if given.shape != (len(store),):
        raise HeadError(f"group_by needs one value per row ({len(store)}); found {given.shape}")
    named = np.array([str(value) not in ("", "None", "nan", "NaT") for value in given.tolist()])
    texts = np.array([str(value) for value in given.tolist()])
    others = np.unique(texts, return_inverse=True)[1].ravel() + pictures.max() + 1
    size = int(others.max()) + 1
    links = (np.ones(int(named.sum())), (pictures[named], others[named]))
    part = connected_components(coo_array(links, shape=(size, size)), directed=False)[1]
    groups: Int = part[pictures].astype(np.int64)
    return groups


def _column(store: Store, name: str) -> NDArray[Any]:
    """Return a column of the manifest; empty cells group nothing."""
    try:
        return store.column(name)
    except StoreError as error:
        raise HeadError(f"cannot group by {name!r}: {error}") from error
