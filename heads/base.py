"""What all heads share: one protocol, which is scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import HeadError
from headstart.heads.folds import inner_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.folds import Folds

    ClassWeight = Mapping[Any, float] | str | None


def class_weights(given: ClassWeight, classes: Sequence[str]) -> ClassWeight:
    """Return weights of classes under their numbers, which heads are trained with.

    Parameters
    ----------
    given : dict or "balanced" or None
        Keys are names of classes or their numbers; a class that is not named weighs 1.
    classes : sequence of str
        Names, by number.

    Raises
    ------
    HeadError
        If there is no such class, a weight is not a number above 0, or it is another word.

    Examples
    --------
    >>> class_weights({"dog": 3}, ["cat", "dog"])
    {0: 1.0, 1: 3.0}
    """
    if given is None or (isinstance(given, str) and given == "balanced"):
        return given
    if not isinstance(given, Mapping):
        raise HeadError(f"class_weight must be a dict of weights or 'balanced'; found {given!r}")
    numbers = {name: number for number, name in enumerate(classes)}
    weights = dict.fromkeys(range(len(classes)), 1.0)
    for key, weight in given.items():
        number = numbers.get(key, key)
        if number not in weights:
            raise HeadError(
                f"class_weight names {key!r}, which is not a class; "
                f"classes are {', '.join(classes)}"
            )
        _check_weight(key, weight)
        weights[number] = float(weight)
    return weights


def _check_weight(key: Any, weight: Any) -> None:
    """Raise HeadError unless it is a number above 0."""
    if not (isinstance(weight, int | float | np.number) and 0 < weight < np.inf):
        raise HeadError(f"class_weight of {key!r} must be above 0; found {weight!r}")


def weighted(weights: ClassWeight, classes: Sequence[str]) -> str:
    """Say how classes are weighted in training; nothing if all weigh 1.

    Examples
    --------
    >>> weighted({0: 1.0, 1: 3.0}, ["cat", "dog"])
    '; in training, where a head takes weights, dog weighs 3 (others 1)'
    """
    if isinstance(weights, str):
        return "; in training, where a head takes weights, classes weigh their inverse frequency"
    unlike = [f"{classes[n]} weighs {w:g}" for n, w in (weights or {}).items() if w != 1]
    if not unlike:
        return ""
    return f"; in training, where a head takes weights, {', '.join(unlike)} (others 1)"


@dataclass(frozen=True)
class Training:
    """Checked training rows.

    Attributes
    ----------
    X : ndarray of shape (n, d)
    codes : ndarray of shape (n,)
        Class numbers, from 0.
    sample_weight : ndarray of shape (n,)
    class_weight : ndarray of shape (k,)
    groups : ndarray of shape (n,) or None
        Rows of equal value must stay together.
    used : ndarray of bool
        Which of the rows that were given these are.
    """

    X: NDArray[Any]
    codes: NDArray[np.int64]
    sample_weight: NDArray[np.float64]
    class_weight: NDArray[np.float64]
    groups: NDArray[Any] | None
    used: NDArray[np.bool_]

    @property
    def weight(self) -> NDArray[np.float64]:
        """Sample weight times class weight, ``(n,)``."""
        return self.sample_weight * self.class_weight[self.codes]


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier on features.

    A head is a scikit-learn classifier: ``fit(X, y)`` and ``predict``, and ``predict_proba``
    where it has probabilities. Two things are optional, and used where they are there:
    ``fit(..., groups=...)`` for rows that must stay together when the head splits its training
    rows to choose hyperparameters, and ``chosen_``, the hyperparameters it chose.
    """

    #: Whether fits of this head may run beside each other in threads.
    beside: ClassVar[bool] = True

    classes_: NDArray[Any]
    chosen_: dict[str, Any]

    @property
    def rotation_invariant(self) -> bool:
        """Whether rotating all rows changes no prediction, so that the row space tells nothing."""
        return True

    def prepare(self) -> None:
        """Do what has to be done once in a process, so that no measured fit pays for it."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each row ``(m,)``."""
        probability: NDArray[np.float64] = self.predict_proba(X)
        guess: NDArray[Any] = self.classes_[probability.argmax(1)]
        return guess

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``(m, classes)``."""
        raise NotImplementedError

    def _training(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        dtype: Any = np.float64,
    ) -> Training:
        """Check training rows; rows of weight 0 are left out, as if they were not there."""
        rows, labels = validate_data(self, X, y, dtype=dtype)
        check_classification_targets(labels)
        weight = _check_sample_weight(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
        used = weight > 0
        if not used.all():
            rows, labels, weight = rows[used], labels[used], weight[used]
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadError(
                f"a classifier needs rows of two classes or more; found {len(self.classes_)} class"
            )
        given = getattr(self, "class_weight", None)
        for key, each in given.items() if isinstance(given, Mapping) else ():
            _check_weight(key, each)
        class_weight = compute_class_weight(
            given,
            classes=self.classes_,
            y=labels,
            sample_weight=weight,
        )
        kept = None if groups is None else np.asarray(groups)[used]
        return Training(rows, codes, weight, class_weight, kept, used)

    def _folds(self, rows: Training) -> Folds:
        """Return folds to choose hyperparameters in; none if a class has only one row."""
        return inner_folds(rows.codes, rows.groups, self.cv, self.random_state, rows.used)

    def _rows(self, X: ArrayLike, dtype: Any = np.float64) -> NDArray[Any]:
        """Check rows to predict."""
        check_is_fitted(self)
        rows: NDArray[Any] = validate_data(self, X, reset=False, dtype=dtype)
        return rows


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities of scores ``(m, classes)``."""
    e = np.exp(scores - scores.max(1, keepdims=True))
    result: NDArray[np.float64] = e / e.sum(1, keepdims=True)
    return result
