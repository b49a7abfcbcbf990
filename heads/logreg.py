"""Logistic regression, its penalty chosen among many at the price of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.special import logsumexp

from headstart.errors import HeadError
from headstart.heads.base import Head, softmax
from headstart.heads.folds import best
from headstart.heads.logistic import Solution, solve
from headstart.heads.rowspace import RowSpace, on_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight, Training
    from headstart.heads.folds import Folds, Int

#: Inverse penalties for features of mean squared norm 1.
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)

#: How far, as a share, objectives may be above their smallest one where penalties are chosen. With
#: the gradient's tolerance alone accuracies at C = 1000 were five rows in a thousand off.
_GRID_GAP = 0.02


class LogisticHead(Head):
    """Multinomial logistic regression with an L2 penalty, chosen by cross-validation.

    The same classifier as scikit-learn's ``LogisticRegression(C)``, chosen as ``GridSearchCV``
    would (highest mean score, first on ties), but found in the row space, the whole grid
    times all folds as one batched problem.

    Parameters
    ----------
    C : float or sequence of float
        Inverse penalty; of several the best is chosen. A single one is taken as it is.
    cv : int or iterable of (train, test)
        Folds in which it is chosen, grouped if ``fit`` is given groups.
    class_weight : dict or "balanced", optional
    scoring : "accuracy" or "neg_log_loss"
        By which it is chosen. By accuracy it may be far too sure of itself, as rows that are wrong
        cost the same however wrong they are.
    tol : float
        Largest entry of the gradient of the mean loss at which a fit stops, as in scikit-learn;
        the last fit goes on until its objective is within this share of the smallest one too.
    max_iter : int
    random_state : int
        Decides the folds.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,), or (1,) for two classes
    C_ : float
        The penalty chosen.
    scores_ : ndarray of shape (folds, len(C))
        Score of each; empty if nothing was to be chosen.
    n_iter_ : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 500))
    >>> head = LogisticHead(C=[0.01, 1.0]).fit(X, X[:, 0] > 0)
    >>> head.predict_proba(X).shape
    (60, 2)
    """

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]

    def __init__(
        self,
        C: float | Sequence[float] = PENALTIES,
        *,
        cv: int | Iterable[tuple[Int, Int]] = 5,
        class_weight: ClassWeight = None,
        scoring: Literal["accuracy", "neg_log_loss"] = "accuracy",
        tol: float = 1e-4,
        max_iter: int = 1000,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.cv = cv
        self.class_weight = class_weight
        self.scoring = scoring
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the penalty and fit on all rows ``(n, d)``.

        Raises
        ------
        HeadError
            If there is only one class, or no such scoring.
        """
        rows = self._training(X, y, sample_weight, groups)
        space = None if on_axes(rows.X) else RowSpace(normalize=False).fit(rows.X)
        self.fit_coordinates(rows.X if space is None else space.coordinates_, rows)
        if space is not None:
            self.coef_ = space.back(self.coef_)
        return self

    def fit_coordinates(self, Z: NDArray[np.floating[Any]], rows: Training) -> None:
        """Choose and fit on checked rows from their coordinates ``(n, r)``, float64 or float32."""
        grid = np.atleast_1d(np.asarray(self.C, dtype=np.float64))
        self.C_ = float(grid[self._choose(Z, rows, grid)])
        last = self._solve(Z, rows, rows.weight[:, None], np.array([self.C_]), gap=self.tol)
        self.coef_, self.intercept_ = last.coef[0], last.intercept[0]
        self.n_iter_ = int(last.iterations[0])
        self.chosen_ = {"C": self.C_}

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return scores ``(m, classes)``, or ``(m,)`` for two classes."""
        scores: NDArray[np.float64] = self._rows(X) @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``(m, classes)``."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros_like(scores), scores])
        return softmax(scores)

    def _choose(
        self, Z: NDArray[np.floating[Any]], rows: Training, grid: NDArray[np.float64]
    ) -> int:
        """Return the number of the best penalty."""
        if (measure := _MEASURES.get(self.scoring)) is None:
            raise HeadError(f"scoring={self.scoring!r}: expected one of {', '.join(_MEASURES)}")
        folds, self.scores_ = self._folds(rows), np.empty((0, len(grid)))
        if len(grid) == 1 or not folds:
            return int(np.abs(np.log(grid)).argmin())
        weight = np.zeros((len(Z), len(folds), len(grid)))
        for number, (train, _) in enumerate(folds):
            weight[train, number] = rows.weight[train, None]
        penalties = np.tile(grid, len(folds))
        fits = self._solve(Z, rows, weight.reshape(len(Z), -1), penalties, gap=_GRID_GAP)
        self.scores_ = _scores(fits, Z, rows.codes, folds, measure)
        return best(self.scores_)

    def _solve(
        self,
        Z: NDArray[np.floating[Any]],
        rows: Training,
        weight: NDArray[np.float64],
        C: NDArray[np.float64],
        gap: float,
    ) -> Solution:
        return solve(
            Z,
            rows.codes,
            len(rows.class_weight),
            weight,
            C,
            tol=self.tol,
            max_iter=self.max_iter,
            gap=gap,
        )


def _scores(
    fits: Solution,
    Z: NDArray[np.floating[Any]],
    codes: Int,
    folds: Folds,
    measure: Callable[[NDArray[Any], Int], NDArray[Any]],
) -> NDArray[np.float64]:
    """Return the mean measure of every fit on its held-out rows, ``(folds, grid)``."""
    P, k, r = fits.coef.shape
    result = np.empty((len(folds), P // len(folds)))
    for number, (_, test) in enumerate(folds):
        mine = slice(number * result.shape[1], (number + 1) * result.shape[1])
        scores = Z[test] @ fits.coef[mine].reshape(-1, r).T
        scores = scores.reshape(len(test), -1, k) + fits.intercept[mine]
        result[number] = measure(scores, codes[test, None]).mean(0)
    return result


def _right(scores: NDArray[Any], codes: Int) -> NDArray[np.bool_]:
    """Return whether scores ``(m, grid, k)`` are highest at the codes ``(m, 1)``."""
    guess = scores[..., 0] > 0 if scores.shape[2] == 1 else scores.argmax(2)
    return np.asarray(guess == codes)


def _log_likelihood(scores: NDArray[Any], codes: Int) -> NDArray[Any]:
    """Return the logarithm of the probability that scores ``(m, grid, k)`` give to codes."""
    if scores.shape[2] == 1:  # of two classes, the first has score 0
        scores = np.concatenate([np.zeros_like(scores), scores], axis=2)
    theirs = np.take_along_axis(scores, codes[..., None], axis=2)[..., 0]
    return np.asarray(theirs - logsumexp(scores, axis=2))


_MEASURES = {"accuracy": _right, "neg_log_loss": _log_likelihood}
