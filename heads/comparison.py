"""Heads on the same rows, the same splits and the same seeds, in one table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.base import clone

from headstart.errors import HeadError
from headstart.heads import table
from headstart.heads.evaluation import HeadResult, evaluate, test_name, with_p_values
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.registry import make_head, make_streamed
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import RowSpace, available_memory, memory_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Store
    from headstart.cache.store import Pool
    from headstart.heads.base import ClassWeight
    from headstart.heads.folds import Folds
    from headstart.heads.gram import Progress

    Int = NDArray[np.int64]

#: Folds in which hyperparameters are chosen, inside the training part of each outer fold.
_INNER = 3
#: Rows beyond which the factorisation of their inner products takes too long.
MOST_GRAM_ROWS = 30_000


@dataclass(frozen=True)
class Comparison:
    """Heads on the same rows; printing it gives the table, `to_dict` the JSON.

    Attributes
    ----------
    store : str
    layer, pool : str
    rows : int
        Rows used, for training or evaluation.
    classes : tuple of str
    heads : tuple of HeadResult
        Best accuracy first.
    protocol : str
        How rows were split.
    features : str
        In which form heads were given the features, and why.
    majority : str
        The most frequent class of the training rows.
    majority_accuracy : float
        What always answering it would reach.
    extract_seconds : float
        What extraction cost, once.
    evaluated : int
        Rows evaluated.
    test : str
        The paired test behind the p-values.
    """

    store: str
    layer: str
    pool: str
    rows: int
    classes: tuple[str, ...]
    heads: tuple[HeadResult, ...]
    protocol: str
    features: str
    majority: str
    majority_accuracy: float
    extract_seconds: float
    evaluated: int
    test: str

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ``store``, ``rows``, ``classes``, ``heads`` and more."""
        plain = vars(self) | {"heads": [result.to_dict() for result in self.heads]}
        return plain | {"classes": list(self.classes)}

    def __str__(self) -> str:
        """Return the table for a terminal."""
        return "\n".join(table.lines(self))


@dataclass(frozen=True)
class _Rows:
    """What is compared on: store rows, their classes and groups, which may be evaluated."""

    numbers: Int
    codes: Int
    groups: Int
    validation: NDArray[np.bool_]
    first_view: NDArray[np.bool_]


def compare(
    store: Store,
    heads: Sequence[str | Any] = ("logreg", "svm", "dense"),
    *,
    layer: str | None = None,
    pool: Pool = "none",
    cv: int = 5,
    seed: int = 0,
    class_weight: ClassWeight = None,
    group_by: ArrayLike | None = None,
    plain: bool = False,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train heads on the same rows and measure each on rows it was not trained on.

    Where the store has a validation split, heads are trained on the training rows and measured
    there; else in stratified folds which keep identical pictures together. Hyperparameters are
    chosen inside the training part only. Rows without a label and the test split are left out,
    and augmented views are never measured.

    Parameters
    ----------
    store : Store
    heads : sequence of str or scikit-learn classifier
        Names of heads (`HEAD_NAMES`), or classifiers as they are.
    layer : str, optional
        The store's first layer by default.
    pool : {"none", "avg", "max"}
        Pooling over height and width.
    cv : int
        Folds, where there is no validation split.
    seed : int
        Of folds, and of heads that have a ``random_state``.
    class_weight : dict or "balanced", optional
        Given to every head that has such a parameter.
    group_by : array-like of shape (rows of the store,), optional
        Rows of equal value never straddle a fold; identical pictures never do anyway.
    plain : bool
        Give heads the features themselves instead of row-space coordinates.
    max_memory : int, optional
        Bytes to use for features; half of the machine's memory by default.
    progress : callable, optional
        Called with (description, done, total).

    Raises
    ------
    HeadError
        If a head is unknown, or a class has too few rows for the folds.

    Examples
    --------
    >>> print(compare(store, ["logreg", "svm"]))  # doctest: +SKIP
    """
    if not heads:
        raise HeadError("name at least one head")
    rows = _rows(store, group_by)
    source = FeatureRows(store, layer, rows.numbers, pool)
    reason = _past_memory(source, plain=plain, max_memory=max_memory)
    make = partial(make_streamed, max_memory=max_memory) if reason else make_head
    splits, protocol = _splits(store, rows, cv, seed)
    inner = _INNER if len(splits) > 1 else None
    options = {
        "random_state": seed,
        "class_weight": class_weight,
        "plain": plain or None,
        "cv": inner,
    }
    entries = _named(heads, make, options)
    X: NDArray[Any] | FeatureRows = source
    features = f"batches read from the store, because {reason}"
    if not reason:
        X, features = _features(source, plain=plain, max_memory=max_memory, progress=progress)
    results = []
    for number, (name, head) in enumerate(entries):
        if progress:
            progress(name, number, len(entries))
        results.append(evaluate(name, head, X, codes=rows.codes, groups=rows.groups, splits=splits))
    if progress:
        progress("done", len(entries), len(entries))
    results.sort(key=lambda result: (-result.accuracy, result.log_loss or np.inf))
    tested = np.concatenate([test for _, test in splits])
    majority = _majority(rows, splits)
    return Comparison(
        store=str(store.path),
        layer=layer or store.layers[0],
        pool=pool,
        rows=len(rows.codes),
        classes=tuple(store.classes),
        heads=tuple(with_p_values(results, splits)),
        protocol=protocol,
        features=features,
        majority=store.classes[majority],
        majority_accuracy=float((rows.codes[tested] == majority).mean()),
        extract_seconds=store.extract_seconds,
        evaluated=len(tested),
        test=test_name(splits),
    )


def _past_memory(source: FeatureRows, *, plain: bool, max_memory: int | None) -> str:
    """Return why the rows cannot be held, or nothing if they can."""
    n, d = source.shape
    needed = 16 * n * d if plain else memory_needed((n, d))
    budget = max_memory or available_memory()
    if not plain and min(n, d) > MOST_GRAM_ROWS:
        return f"a row space of {n:,} rows would take hours (the most is {MOST_GRAM_ROWS:,})"
    if needed > budget:
        what = "features" if plain else "a row space"
        return (
            f"{what} of {n:,} rows would take {needed / 1e6:,.0f} MB of memory, "
            f"and {budget / 1e6:,.0f} MB may be used"
        )
    return ""


def _named(
    heads: Sequence[str | Any], make: Callable[[str], Any], options: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return a new classifier for each entry, under a name of its own."""
    taken: Counter[str] = Counter()
    result = []
    for entry in heads:
        head = make(entry) if isinstance(entry, str) or make is not make_head else clone(entry)
        name = entry if isinstance(entry, str) else type(entry).__name__
        taken[name] += 1
        known = head.get_params(deep=False)
        for parameter, value in options.items():
            if parameter not in known:
                continue
            open_to_us = parameter in {"random_state", "class_weight"} and known[parameter] is None
            ours = isinstance(entry, str) or open_to_us
            if value is not None and ours:
                head.set_params(**{parameter: value})
        result.append((name if taken[name] == 1 else f"{name} {taken[name]}", head))
    return result


def _rows(store: Store, group_by: ArrayLike | None) -> _Rows:
    """Return the rows to compare on: labelled, and not of the test split."""
    labels, split = store.labels(), store.splits()
    numbers = np.flatnonzero((labels >= 0) & (split != "test"))
    if len(numbers) == 0:
        raise HeadError(f"{store.path} has no labelled rows outside its test split")
    return _Rows(
        numbers=numbers,
        codes=labels[numbers].astype(np.int64),
        groups=_groups(store, group_by)[numbers],
        validation=split[numbers] == "validation",
        first_view=store.views()[numbers] == 0,
    )


def _groups(store: Store, group_by: ArrayLike | None) -> Int:
    """Return a number for each row, equal where rows must stay together."""
    pictures = np.unique(store.image_sha256(), return_inverse=True)[1].ravel()
    if group_by is None:
        return pictures
    given = np.asarray(group_by)
    if given.shape != (len(store),):
        raise HeadError(f"group_by needs one value per row ({len(store)}); found {given.shape}")
    others = np.unique(given, return_inverse=True)[1].ravel() + pictures.max() + 1
    size = int(others.max()) + 1
    links = coo_array((np.ones(len(given)), (pictures, others)), shape=(size, size))
    groups: Int = connected_components(links, directed=False)[1][pictures].astype(np.int64)
    return groups


def _splits(store: Store, rows: _Rows, cv: int, seed: int) -> tuple[Folds, str]:
    """Return ``[(train, test), ...]`` and a sentence that says how they were made."""
    held = rows.validation
    if held.any():
        train, test = np.flatnonzero(~held), np.flatnonzero(held & rows.first_view)
        if len(np.unique(rows.codes[train])) < 2 or len(test) == 0:
            raise HeadError("the training split needs rows of two classes or more")
        return [(train, test)], f"validation split of {len(test):,} rows"
    if len(np.unique(rows.codes)) < 2:
        raise HeadError(f"{store.path} has rows of one class only; a head needs two or more")
    fewest, smallest = fewest_groups(rows.codes, rows.groups)
    if fewest < cv:
        raise HeadError(
            f"class {store.classes[smallest]} has {fewest} different pictures, too few for {cv} "
            f"folds: add pictures, or use --cv {max(fewest, 2)}"
        )
    folds = grouped_folds(rows.codes, rows.groups, cv, seed)
    return (
        [(train, test[rows.first_view[test]]) for train, test in folds],
        f"{cv} stratified folds, identical pictures kept together",
    )


def _features(
    source: FeatureRows, *, plain: bool, max_memory: int | None, progress: Progress | None
) -> tuple[NDArray[Any], str]:
    """Return what heads are given ``(n, r)``, and a sentence on it."""
    if plain:
        X = source.load().astype(np.float32)
        X /= np.sqrt(np.mean(np.einsum("ij,ij->i", X, X, dtype=np.float64)))
        return X, f"the features themselves, {X.shape[1]:,} numbers a row"
    space = RowSpace(max_memory=max_memory).fit_rows(source, progress=progress)
    cost = f"computed in {space.seconds_:.1f} s" if space.seconds_ else "kept from an earlier run"
    return space.coordinates_, (
        f"row space of {len(source):,} rows, rank {space.rank_:,} of "
        f"{space.n_features_in_:,} features, {cost}"
    )


def _majority(rows: _Rows, splits: Folds) -> int:
    """Return the most frequent class of the training rows."""
    trained = np.unique(np.concatenate([train for train, _ in splits]))
    return int(np.bincount(rows.codes[trained]).argmax())
