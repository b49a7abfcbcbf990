"""Heads on the same rows, the same splits and the same seeds, in one table."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from headstart.errors import HeadError
from headstart.heads import metrics
from headstart.heads.folds import fewest_groups, grouped_folds
from headstart.heads.registry import make_head
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import RowSpace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.cache import Store
    from headstart.cache.store import Pool
    from headstart.heads.base import ClassWeight
    from headstart.heads.folds import Folds
    from headstart.heads.gram import Progress

    Int = NDArray[np.int64]

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class HeadResult:
    """How one head did on rows it was not trained on.

    Attributes
    ----------
    head : str
    accuracy : float
    ci95 : tuple of float
        Wilson interval of the accuracy, on the pooled predictions.
    balanced_accuracy : float
    log_loss, calibration_error, temperature : float or None
        None for a head without probabilities. The temperature is the one that would minimise
        the log loss on these rows: above 1, the head is too confident.
    fit_seconds : float
        One fit, the choice of hyperparameters included (the mean over folds).
    predict_ms_per_image : float
        The head alone, on all evaluation rows at once.
    params : dict
        Hyperparameters it chose; of several folds, the most frequent choice.
    params_by_fold : list of dict
    accuracy_by_fold : list of float
    p_value : float or None
        Of the paired test against the best head, corrected for the number of heads; None for
        the best head itself.
    """

    head: str
    accuracy: float
    ci95: tuple[float, float]
    balanced_accuracy: float
    log_loss: float | None
    calibration_error: float | None
    temperature: float | None
    fit_seconds: float
    predict_ms_per_image: float
    params: dict[str, Any]
    params_by_fold: list[dict[str, Any]]
    accuracy_by_fold: list[float]
    right: NDArray[np.bool_] = field(repr=False)
    p_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        result = {name: value for name, value in vars(self).items() if name != "right"}
        return result | {"ci95": list(self.ci95)}


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
        return "\n".join(_table(self))


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
    entries = _named(heads, seed, class_weight, plain)
    rows = _rows(store, group_by)
    splits, protocol = _splits(store, rows, cv, seed)
    X, features = _features(
        FeatureRows(store, layer, rows.numbers, pool),
        plain=plain,
        max_memory=max_memory,
        progress=progress,
    )
    results = []
    for number, (name, head) in enumerate(entries):
        if progress:
            progress(name, number, len(entries))
        results.append(_evaluate(name, head, X, rows, splits))
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
        heads=tuple(_with_p_values(results, splits)),
        protocol=protocol,
        features=features,
        majority=store.classes[majority],
        majority_accuracy=float((rows.codes[tested] == majority).mean()),
        extract_seconds=store.extract_seconds,
        evaluated=len(tested),
        test=_test_name(splits),
    )


def _named(
    heads: Sequence[str | Any], seed: int, class_weight: ClassWeight, plain: bool
) -> list[tuple[str, Any]]:
    """Return a new classifier for each entry, under a name of its own."""
    taken: Counter[str] = Counter()
    result = []
    for entry in heads:
        head = make_head(entry) if isinstance(entry, str) else clone(entry)
        name = entry if isinstance(entry, str) else type(entry).__name__
        taken[name] += 1
        known = head.get_params(deep=False)
        wanted = {"random_state": seed, "class_weight": class_weight, "plain": plain or None}
        for parameter, value in wanted.items():
            ours = isinstance(entry, str) or known.get(parameter) is None
            if parameter in known and value is not None and ours:
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


def _evaluate(name: str, head: Any, X: NDArray[Any], rows: _Rows, splits: Folds) -> HeadResult:
    """Fit a head on the training part of every split, and measure it on the other part."""
    codes, guesses, probabilities = [], [], []
    fit_seconds, predict_seconds, chosen = [], 0.0, []
    for train, test in splits:
        fitted = clone(head)
        groups = {"groups": rows.groups[train]} if has_fit_parameter(head, "groups") else {}
        started = time.perf_counter()
        fitted.fit(X[train], rows.codes[train], **groups)
        trained = time.perf_counter()
        guesses.append(fitted.predict(X[test]))
        predict_seconds += time.perf_counter() - trained
        fit_seconds.append(trained - started)
        codes.append(rows.codes[test])
        chosen.append(_chosen(fitted))
        if hasattr(fitted, "predict_proba"):
            probability = fitted.predict_proba(X[test])
            probabilities.append(
                metrics.aligned(probability, fitted.classes_, int(rows.codes.max()) + 1)
            )
    true, guess = np.concatenate(codes), np.concatenate(guesses)
    right = true == guess
    return HeadResult(
        head=name,
        accuracy=float(right.mean()),
        ci95=metrics.wilson(int(right.sum()), len(right)),
        balanced_accuracy=metrics.balanced_accuracy(true, guess),
        **_probabilistic(true, probabilities),
        fit_seconds=float(np.mean(fit_seconds)),
        predict_ms_per_image=1e3 * predict_seconds / len(right),
        params=max(chosen, key=chosen.count),
        params_by_fold=chosen,
        accuracy_by_fold=[float((c == g).mean()) for c, g in zip(codes, guesses, strict=True)],
        right=right,
    )


def _chosen(fitted: Any) -> dict[str, Any]:
    """Return the hyperparameters that a fitted classifier chose."""
    chosen = getattr(fitted, "chosen_", None) or getattr(fitted, "best_params_", {})
    return {key: v.item() if isinstance(v, np.generic) else v for key, v in chosen.items()}


def _probabilistic(true: Int, probabilities: list[NDArray[np.float64]]) -> dict[str, float | None]:
    """Return the measures that need probabilities."""
    if not probabilities:
        return dict.fromkeys(("log_loss", "calibration_error", "temperature"))
    p = np.concatenate(probabilities)
    return {
        "log_loss": metrics.log_loss(true, p),
        "calibration_error": metrics.calibration_error(p.argmax(1) == true, p.max(1)),
        "temperature": metrics.temperature(true, metrics.logs(p)),
    }


def _test_name(splits: Folds) -> str:
    return "McNemar's exact test" if len(splits) == 1 else "corrected resampled t-test"


def _with_p_values(results: list[HeadResult], splits: Folds) -> Iterator[HeadResult]:
    """Yield the results, each with the p-value of its difference from the first."""
    leader = results[0]
    raw = [_p_value(leader, other, splits) for other in results[1:]]
    yield leader
    for result, p_value in zip(results[1:], metrics.holm(raw), strict=True):
        yield HeadResult(**(vars(result) | {"p_value": p_value}))


def _p_value(leader: HeadResult, other: HeadResult, splits: Folds) -> float:
    if len(splits) == 1:
        return metrics.mcnemar(leader.right, other.right)
    differences = np.subtract(leader.accuracy_by_fold, other.accuracy_by_fold)
    return metrics.corrected_t(differences, 1 / (len(splits) - 1))


def _majority(rows: _Rows, splits: Folds) -> int:
    """Return the most frequent class of the training rows."""
    trained = np.unique(np.concatenate([train for train, _ in splits]))
    return int(np.bincount(rows.codes[trained]).argmax())


_HEADER = ("head", "accuracy", "95%", "balanced", "log loss", "ECE", "fit s", "ms/image", "chosen")


def _table(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the table."""
    cells = [[*_HEADER, "against the best"]]
    cells += [_cells(result) for result in comparison.heads]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pool = "" if comparison.pool == "none" else f", {comparison.pool}-pooled"
    yield (
        f"{comparison.store}: {comparison.layer}{pool}, {comparison.rows:,} rows, "
        f"{len(comparison.classes)} classes"
    )
    yield ""
    for line in cells:
        yield "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    yield ""
    yield (
        f"Always answering {comparison.majority!r}, the largest class, would reach "
        f"{comparison.majority_accuracy:.3f}."
    )
    yield f"Extraction cost {comparison.extract_seconds:.1f} s, once."
    yield (
        f"Protocol: {comparison.protocol}; hyperparameters chosen inside the training part; "
        f"Wilson intervals on the pooled predictions of {comparison.evaluated:,} rows; "
        f"{comparison.test}, Holm's correction."
    )
    yield f"Heads were given: {comparison.features}."


def _cells(result: HeadResult) -> list[str]:
    """Return the cells of one line of the table."""
    low, high = result.ci95
    return [
        result.head,
        f"{result.accuracy:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{result.balanced_accuracy:.3f}",
        _number(result.log_loss),
        _number(result.calibration_error),
        f"{result.fit_seconds:.2f}",
        f"{result.predict_ms_per_image:.3f}",
        ", ".join(f"{name}={_short(value)}" for name, value in result.params.items()) or "-",
        _verdict(result.p_value),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _verdict(p_value: float | None) -> str:
    if p_value is None:
        return "best"
    sign = "worse" if p_value < _SIGNIFICANT else "not distinguishable"
    return f"{sign} (p={p_value:.2g})"
