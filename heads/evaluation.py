"""One head, measured on rows it was not trained on."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from headstart.cache import widened
from headstart.heads import metrics
from headstart.heads.base import Head
from headstart.heads.parallel import parallel
from headstart.heads.rows import FeatureRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.heads.folds import Folds
    from headstart.heads.forms import Form
    from headstart.heads.gram import Progress
    from headstart.heads.splits import Labelled

    Int = NDArray[np.int64]

#: Steps of a progress bar for one fit.
_TICKS = 100


@dataclass(frozen=True)
class Predictions:
    """What a head answered on the rows it was measured on, split after split.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
        Row numbers of the store.
    true, guess : ndarray of shape (m,), int64
        Classes; those of the store's labels.
    fold : ndarray of shape (m,), int64
        The split that the row was measured in.
    probability : ndarray of shape (m, classes), float32, or None
        None for a head without probabilities.
    """

    rows: Int
    true: Int
    guess: Int
    fold: Int
    probability: NDArray[np.float32] | None


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
        One fit, the choice of hyperparameters included (the mean over folds); the row space, which
        heads share, is not. Fits of several heads share the cores, also on one split, so that the
        figure depends on which were asked for beside this one.
    predict_ms_per_image : float
        From features in memory to classes, all evaluation rows at once; where the head works in
        the row space, finding their coordinates is included.
    form : {"row space", "plain", "streamed"}
        In which form it was given the features.
    params : dict
        Hyperparameters it chose; of several folds, the most frequent choice.
    params_by_fold : list of dict
    accuracy_by_fold : list of float
    p_value : float or None
        Of the paired test against the best head, corrected for the number of heads; None for
        the best head itself.
    predictions : Predictions
        Row by row; not in `to_dict`.
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
    form: str
    params: dict[str, Any]
    params_by_fold: list[dict[str, Any]]
    accuracy_by_fold: list[float]
    predictions: Predictions = field(repr=False, compare=False)
    p_value: float | None = None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each measured row was recognised, ``(m,)``."""
        right: NDArray[np.bool_] = self.predictions.true == self.predictions.guess
        return right

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        result = {name: value for name, value in vars(self).items() if name != "predictions"}
        return result | {"ci95": list(self.ci95)}


def evaluate(
    name: str,
    head: Any,
    form: Form,
    *,
    rows: Labelled,
    splits: Folds,
    average_views: bool = False,
) -> HeadResult:
    """Measure one head, as `evaluate_all` does."""
    entries = [(name, head, form)]
    return evaluate_all(entries, rows=rows, splits=splits, average_views=average_views)[0]


def evaluate_all(
    entries: Sequence[tuple[str, Any, Form]],
    *,
    rows: Labelled,
    splits: Folds,
    average_views: bool = False,
    progress: Progress | None = None,
) -> list[HeadResult]:
    """Fit heads on the training part of every split, and measure them on the other part.

    Rows are in memory, or in the store: then a head has to be one that reads them there. With
    `average_views`, a measured picture's probabilities are the mean over its views; a head without
    probabilities is measured on the picture itself. All fits that may run beside each other do,
    also those of different heads: five folds of one head would leave two cores half idle at the
    end of each.

    Raises
    ------
    HeadError
        Before anything is fitted, if a head needs more memory than it may use.
    """
    _require_memory(entries, rows, splits)
    steps = [_Steps(name, len(splits), progress) for name, _, _ in entries]

    def one(task: tuple[int, tuple[Int, Int]]) -> _Fold:
        number, split = task
        _, head, form = entries[number]
        if isinstance(head, Head):
            head.prepare()
        steps[number].begin()
        return _fold(head, form.X, rows, split, steps[number], average_views=average_views)

    tasks = [(number, split) for number in range(len(entries)) for split in splits]
    beside = [task for task in tasks if getattr(entries[task[0]][1], "beside", False)]
    alone = [task for task in tasks if not getattr(entries[task[0]][1], "beside", False)]
    found: list[list[_Fold]] = [[] for _ in entries]
    for (number, _), fold in zip(
        [*beside, *alone], [*parallel(one, beside), *map(one, alone)], strict=True
    ):
        found[number].append(fold)
    return [
        _result(name, form, folds, rows, splits)
        for (name, _, form), folds in zip(entries, found, strict=True)
    ]


def _require_memory(
    entries: Sequence[tuple[str, Any, Form]], rows: Labelled, splits: Folds
) -> None:
    for _, head, form in entries:
        if isinstance(form.X, FeatureRows):
            for train, _ in splits:
                classes = len(np.unique(rows.codes[train]))
                head.require_memory((len(train), form.X.shape[1]), classes)


def _result(name: str, form: Form, folds: list[_Fold], rows: Labelled, splits: Folds) -> HeadResult:
    """Return what a head did on all splits."""
    answers = _answers(rows, splits, folds)
    true, right = answers.true, answers.true == answers.guess
    chosen = [fold.chosen for fold in folds]
    return HeadResult(
        head=name,
        accuracy=float(right.mean()),
        ci95=metrics.wilson(int(right.sum()), len(right)),
        balanced_accuracy=float(
            np.mean([right[true == label].mean() for label in np.unique(true)])
        ),
        **_probabilistic(true, [f.probability for f in folds if f.probability is not None]),
        fit_seconds=float(np.mean([fold.fit_seconds for fold in folds])),
        predict_ms_per_image=1e3
        * (form.seconds_per_row + sum(fold.predict_seconds for fold in folds) / len(right)),
        form=form.name,
        params=max(chosen, key=chosen.count),
        params_by_fold=chosen,
        accuracy_by_fold=[
            float((rows.codes[test] == fold.guess).mean())
            for (_, test), fold in zip(splits, folds, strict=True)
        ],
        predictions=answers,
    )


@dataclass(frozen=True)
class _Fold:
    """What one fit gave on the rows it has not seen."""

    guess: Int
    probability: NDArray[np.float64] | None
    chosen: dict[str, Any]
    fit_seconds: float
    predict_seconds: float


class _Steps:
    """Tells how far a head is: fits that are done, or epochs where a head counts them."""

    def __init__(self, name: str, fits: int, progress: Progress | None) -> None:
        self._name, self._fits, self._progress = name, fits, progress
        self._begun, self._done, self._lock = False, 0, threading.Lock()

    def begin(self) -> None:
        """Tell that the first fit begins."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self.tell(0.0)

    def fitted(self) -> None:
        """Count one fit."""
        with self._lock:
            self._done += 1
            self.tell(0.0)

    def tell(self, share: float) -> None:
        """Tell which share of the next fit is done."""
        if self._progress:
            self._progress(self._name, round(_TICKS * (self._done + share)), _TICKS * self._fits)


def _fold(
    head: Any,
    X: NDArray[Any] | FeatureRows,
    rows: Labelled,
    split: tuple[Int, Int],
    steps: _Steps,
    *,
    average_views: bool,
) -> _Fold:
    """Fit on the training part of a split, and predict the other part."""
    train, test = split
    fitted = clone(head)
    codes = rows.codes
    known: dict[str, Any] = (
        {"groups": rows.groups[train]} if has_fit_parameter(head, "groups") else {}
    )
    if has_fit_parameter(head, "progress"):
        known["progress"] = steps.tell
    started = time.perf_counter()
    if isinstance(X, FeatureRows):
        fitted.fit_rows(X.take(train), codes[train], rows.groups[train], progress=steps.tell)
    else:
        fitted.fit(X[train], codes[train], **known)
    fit_seconds = time.perf_counter() - started
    steps.fitted()
    guess, predict_seconds = _predicted(fitted.predict, X, test)
    probability = None
    if hasattr(fitted, "predict_proba"):
        views = _Views(rows, test) if average_views else None
        wanted = test if views is None else views.rows
        seen, seconds = _predicted(fitted.predict_proba, X, wanted)
        probability = metrics.aligned(seen, fitted.classes_, int(codes.max()) + 1)
        if views is not None:
            probability, predict_seconds = views.mean(probability), seconds
            guess = probability.argmax(1)
    return _Fold(guess, probability, _chosen(fitted), fit_seconds, predict_seconds)


class _Views:
    """The rows of every view of some pictures, and what they say together."""

    def __init__(self, rows: Labelled, test: Int) -> None:
        pictures, self._of_test = np.unique(rows.pictures[test], return_inverse=True)
        self.rows = np.flatnonzero(np.isin(rows.pictures, pictures))
        self._of_rows = np.searchsorted(pictures, rows.pictures[self.rows])

    def mean(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over the views of each test row ``(m, k)``."""
        count = np.bincount(self._of_rows)
        total = np.zeros((len(count), probability.shape[1]))
        np.add.at(total, self._of_rows, probability)
        found: NDArray[np.float64] = (total / count[:, None])[self._of_test]
        return found


def _answers(rows: Labelled, splits: Folds, folds: list[_Fold]) -> Predictions:
    """Return what all folds answered, one behind the other."""
    tested = np.concatenate([test for _, test in splits])
    known = [fold.probability for fold in folds if fold.probability is not None]
    return Predictions(
        rows=rows.numbers[tested],
        true=rows.codes[tested],
        guess=np.concatenate([fold.guess for fold in folds]).astype(np.int64),
        fold=np.repeat(np.arange(len(splits)), [len(test) for _, test in splits]),
        probability=np.concatenate(known).astype(np.float32) if known else None,
    )


def _predicted(
    predict: Any, X: NDArray[Any] | FeatureRows, test: Int
) -> tuple[NDArray[Any], float]:
    """Return the predictions of some rows, and the seconds they took without reading."""
    if not isinstance(X, FeatureRows):
        started = time.perf_counter()
        result: NDArray[Any] = predict(X[test])
        return result, time.perf_counter() - started
    order, parts, seconds = [], [], 0.0
    for positions, block in X.take(test).blocks(16):
        started = time.perf_counter()
        parts.append(predict(widened(block)))
        seconds += time.perf_counter() - started
        order.append(positions)
    result = np.concatenate(parts)
    return result[np.argsort(np.concatenate(order))], seconds


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


def test_name(splits: Folds) -> str:
    """Return what the paired test is called."""
    return "McNemar's exact test" if len(splits) == 1 else "corrected resampled t-test"


def with_p_values(results: list[HeadResult], splits: Folds) -> Iterator[HeadResult]:
    """Yield the results, each with the p-value of its difference from the first."""
    leader = results[0]
    raw = [_p_value(leader, other, splits) for other in results[1:]]
    yield leader
    for result, p_value in zip(results[1:], metrics.holm(raw), strict=True):
        yield replace(result, p_value=p_value)


def _p_value(leader: HeadResult, other: HeadResult, splits: Folds) -> float:
    if len(splits) == 1:
        return metrics.mcnemar(leader.right, other.right)
    differences = np.subtract(leader.accuracy_by_fold, other.accuracy_by_fold)
    row = len(splits) / len(leader.right)
    return metrics.corrected_t(differences, 1 / (len(splits) - 1), resolution=row)
