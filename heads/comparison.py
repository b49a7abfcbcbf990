"""Heads on the same rows, the same splits and the same seeds, in one table."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from headstart.cache import Store
from headstart.errors import HeadError
from headstart.heads import table
from headstart.heads.base import class_weights, weighted
from headstart.heads.evaluation import HeadResult, evaluate_all, test_name, with_p_values
from headstart.heads.forms import Form, Forms, described
from headstart.heads.registry import make_head, make_streamed
from headstart.heads.rows import FeatureRows
from headstart.heads.splits import labelled_rows, protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike

    from headstart.cache.store import Pool
    from headstart.heads.base import ClassWeight
    from headstart.heads.folds import Folds
    from headstart.heads.gram import Progress
    from headstart.heads.splits import Labelled, Protocol

DEFAULT_HEADS = ("logreg", "svm", "dense")
#: Folds in which hyperparameters are chosen, inside the training part of each outer fold.
_INNER = 3


@dataclass(frozen=True)
class Evidence:
    """What stands behind a comparison, for those who look closer.

    Attributes
    ----------
    store : Store
    rows : Labelled
        The rows compared on.
    splits : list of (train, test)
        Positions among these rows.
    source : FeatureRows
        Their features.
    options : dict
        What `compare` was asked for, by the names of its parameters.
    """

    store: Store
    rows: Labelled
    splits: Folds
    source: FeatureRows
    options: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Heads on the same rows; printing it gives the table, `to_dict` the JSON.

    Attributes
    ----------
    store : str
    layer, pool : str
    rows : int
        Rows used, for training or evaluation.
    shared_rows_left_out : int
        Training rows not used, because their picture or group is in the validation split.
    equal_features : int
        Pictures whose features are those of another one, though the files' bytes differ.
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
    seconds : float
        What the comparison took.
    evaluated : int
        Rows evaluated.
    test : str
        The paired test behind the p-values.
    evidence : Evidence
        Rows, splits and features; not in `to_dict`.
    """

    store: str
    layer: str
    pool: str
    rows: int
    shared_rows_left_out: int
    equal_features: int
    classes: tuple[str, ...]
    heads: tuple[HeadResult, ...]
    protocol: str
    features: str
    majority: str
    majority_accuracy: float
    extract_seconds: float
    seconds: float
    evaluated: int
    test: str
    evidence: Evidence = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ``store``, ``rows``, ``classes``, ``heads`` and more."""
        plain = vars(self) | {"heads": [result.to_dict() for result in self.heads]}
        del plain["evidence"]
        return plain | {"classes": list(self.classes)}

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        from headstart.heads import notebook

        return notebook.comparison(self)

    def __str__(self) -> str:
        """Return the table for a terminal."""
        return "\n".join(table.lines(self))


def compare(
    store: Store | str | PathLike[str],
    heads: str | Sequence[str | Any] = DEFAULT_HEADS,
    *,
    layer: str | None = None,
    pool: Pool = "none",
    cv: int | None = None,
    seed: int = 0,
    class_weight: ClassWeight = None,
    group_by: str | ArrayLike | None = None,
    plain: bool = False,
    average_views: bool = False,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train heads on the same rows and measure each on rows it was not trained on.

    Where the store has a validation split, heads are trained on the training rows and measured
    there; else in stratified folds which keep identical pictures together. Training rows whose
    picture or group is also in the validation split are left out. Hyperparameters are chosen
    inside the training part only. Rows without a label and the test split are left out, and
    augmented views are never measured.

    Parameters
    ----------
    store : Store or path
    heads : str, or sequence of str or scikit-learn classifier
        Names of heads (`HEAD_NAMES`), in a string with commas between them, or classifiers as
        they are. One that is not known to be
        rotation invariant is given the features themselves; an attribute
        ``rotation_invariant = True`` says that it is.
    layer : str, optional
        The store's first layer by default.
    pool : {"none", "avg", "max"}
        Pooling over height and width.
    cv : int, optional
        Folds, where there is no validation split; 5 by default.
    seed : int
        Of folds, and of heads that have a ``random_state``.
    class_weight : dict or "balanced", optional
        Given to every head that has such a parameter. Keys are names of classes; one that is not
        named weighs 1.
    group_by : str or array-like of shape (rows of the store,), optional
        A column of the manifest, or one value a row: rows of equal value are never on both
        sides of a split; identical pictures never are anyway. Empty cells group nothing.
    plain : bool
        Give heads the features themselves instead of row-space coordinates.
    average_views : bool
        Measure the mean probability over the views of a picture, where the store has such of the
        rows that are measured.
    max_memory : int, optional
        Bytes to use for features; half of the machine's memory by default.
    progress : callable, optional
        Called with (description, done, total); the description of a head at work is its name.

    Raises
    ------
    HeadError
        If a head is unknown or needs features that do not fit in memory, a class has too few
        rows for the folds, or there is no such column or class.

    Examples
    --------
    >>> print(compare(store, ["logreg", "svm"]))  # doctest: +SKIP
    """
    started, store = time.perf_counter(), Store.open(store)
    weights = class_weights(class_weight, store.classes)
    rows = labelled_rows(store, group_by, progress=progress)
    split = protocol(store, rows, cv=cv, seed=seed, group_by=group_by)
    words = split.words + weighted(weights, store.classes)
    words += _averaged(store, rows, split) if average_views else ""
    source = FeatureRows(store, layer, rows.numbers, pool)
    forms = Forms(source, plain=plain, max_memory=max_memory, progress=progress)
    entries = prepared(
        heads,
        forms,
        max_memory=max_memory,
        random_state=seed,
        class_weight=weights,
        plain=plain or None,
        cv=_INNER if len(split.splits) > 1 else None,
    )
    results = evaluate_all(
        entries,
        rows=rows,
        splits=split.splits,
        average_views=average_views,
        progress=progress,
    )
    results.sort(key=_rank)
    majority = int(np.bincount(rows.codes[split.trained]).argmax())
    return Comparison(
        store=store.place,
        layer=layer or store.layers[0],
        pool=pool,
        rows=len(rows.codes) - split.shared,
        shared_rows_left_out=split.shared,
        equal_features=rows.equal_features,
        classes=tuple(store.classes),
        heads=tuple(with_p_values(results, split.splits)),
        protocol=words,
        features=described((name, form) for name, _, form in entries),
        majority=store.classes[majority],
        majority_accuracy=float((rows.codes[split.tested] == majority).mean()),
        extract_seconds=store.extract_seconds,
        seconds=time.perf_counter() - started,
        evaluated=len(split.tested),
        test=test_name(split.splits),
        evidence=Evidence(
            store,
            rows,
            split.splits,
            source,
            {
                "cv": cv,
                "seed": seed,
                "class_weight": class_weight,
                "group_by": group_by,
                "plain": plain,
                "max_memory": max_memory,
            },
        ),
    )


def _averaged(store: Store, rows: Labelled, split: Protocol) -> str:
    """Say over how many views a measured picture's probabilities are averaged."""
    views = np.isin(rows.pictures, rows.pictures[split.tested]) & ~rows.first_view
    if not views.any():
        raise HeadError(
            f"{store.path} has no augmented views of the rows that are measured: extract with "
            "--views, and without a validation split"
        )
    return f"; probabilities averaged over {1 + int(store.views().max())} views of a picture"


def _rank(result: HeadResult) -> tuple[float, float]:
    """Sort by accuracy, then by log loss; heads without probabilities come last."""
    return -result.accuracy, np.inf if result.log_loss is None else result.log_loss


def prepared(
    heads: str | Sequence[str | Any], forms: Forms, *, max_memory: int | None, **options: Any
) -> list[tuple[str, Any, Form]]:
    """Return for each entry its name, a new classifier and the form of the rows it is given.

    Parameters
    ----------
    heads : str, or sequence of str or scikit-learn classifier
    forms : Forms
    max_memory : int, optional
        For heads that read rows from the store.
    **options
        Parameters for those of our heads that have them; None leaves a head's own.

    Raises
    ------
    HeadError
        If none is named, a head is unknown, or needs features that do not fit in memory.
    """
    if isinstance(heads, str):
        heads = [name.strip() for name in heads.split(",") if name.strip()]
    if not heads:
        raise HeadError("name at least one head")
    make = partial(make_streamed, max_memory=max_memory) if forms.streamed else make_head
    return [(name, head, forms.of(name, head)) for name, head in _named(heads, make, options)]


def _named(
    heads: Sequence[str | Any], make: Callable[[str], Any], options: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return a new classifier for each entry, under a name of its own."""
    taken: Counter[str] = Counter()
    result = []
    for entry in heads:
        ours = isinstance(entry, str)
        head = make(entry) if ours or make is not make_head else _copy(entry)
        name = entry if ours else type(entry).__name__
        taken[name] += 1
        known = head.get_params(deep=False)
        for parameter, value in options.items():
            if parameter not in known:
                continue
            open_to_us = parameter in {"random_state", "class_weight"} and known[parameter] is None
            if value is not None and (ours or open_to_us):
                head.set_params(**{parameter: value})
        result.append((name if taken[name] == 1 else f"{name} {taken[name]}", head))
    return result


def _copy(entry: Any) -> Any:
    """Return an unfitted copy, which says what the original says of its rotation invariance."""
    head = clone(entry)
    said = getattr(entry, "rotation_invariant", None)
    if said is not None and getattr(head, "rotation_invariant", None) is None:
        head.rotation_invariant = said
    return head
