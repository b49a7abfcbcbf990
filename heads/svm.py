"""Support vector machines from inner products that are computed once."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from headstart.errors import HeadError
from headstart.heads.base import Head, softmax
from headstart.heads.folds import best, inner_folds
from headstart.heads.parallel import parallel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight, Training
    from headstart.heads.folds import Folds, Int

    Float = NDArray[np.float64]
    Fold = tuple[Int, Int]

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
WIDTHS = (0.1, 0.5, 2.0)
KERNELS = ("linear", "rbf")


class SVMHead(Head):
    """A support vector machine, linear or RBF, with calibrated probabilities.

    ``predict`` gives what scikit-learn's ``SVC`` gives (one against one); it is trained on the
    precomputed kernel, which all penalties and folds share. ``predict_proba`` is calibrated as
    ``CalibratedClassifierCV(SVC(...), ensemble=False)`` does, which scikit-learn recommends in
    place of ``SVC(probability=True)``: a sigmoid on out-of-fold decision values, with folds that
    keep groups whole. As there, the most probable class is not always the predicted one.

    Parameters
    ----------
    C : float or sequence of float
        Penalty of errors; of several the best is chosen (mean accuracy, first on ties).
    kernel : {"linear", "rbf"}
    gamma : float or sequence of float
        Width of the RBF kernel, ``exp(-gamma |x - x'|² / s)`` where s is the mean squared
        distance of the training rows from their mean; this is the same on features and on
        coordinates. Not used by the linear kernel.
    cv : int or iterable of (train, test)
        Folds in which they are chosen and calibrated.
    class_weight : dict or "balanced", optional
    tol : float
        As in ``SVC``.
    random_state : int
        Decides the folds.
    """

    def __init__(
        self,
        C: float | Sequence[float] = PENALTIES,
        *,
        kernel: str = "linear",
        gamma: float | Sequence[float] = WIDTHS,
        cv: int | Iterable[tuple[Int, Int]] = 5,
        class_weight: ClassWeight = None,
        tol: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.cv = cv
        self.class_weight = class_weight
        self.tol = tol
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose, fit and calibrate on all rows ``(n, d)``.

        Raises
        ------
        HeadError
            If there is only one class, or no such kernel.
        """
        if self.kernel not in KERNELS:
            raise HeadError(f"kernel must be one of {', '.join(KERNELS)}; found {self.kernel!r}")
        rows = self._training(X, y, sample_weight, groups)
        self.X_fit_ = rows.X
        self.unit_ = _spread(rows.X, rows.sample_weight) or 1.0
        inner = rows.X @ rows.X.T
        kernels = {width: self._kernel(inner, np.diag(inner), width) for width in self._widths()}
        folds = self._folds(rows)
        C, self.gamma_, held = self._choose(kernels, rows, folds)
        self.chosen_ = {"C": C} if self.gamma_ is None else {"C": C, "gamma": self.gamma_}
        K = kernels[self.gamma_]
        self.svc_ = self._svc(C, rows).fit(K, rows.codes, rows.sample_weight)
        self.calibrated_ = self._calibration(K, rows, C, folds, held)
        return self

    def decision_function(self, X: ArrayLike) -> Float:
        """Return ``SVC``'s decision values ``(m, classes)``, or ``(m,)`` for two classes."""
        K = self._against(X)
        values: Float = self.svc_.decision_function(K)
        return values

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class that most pairwise machines vote for, ``(m,)``."""
        K = self._against(X)
        guess: NDArray[Any] = self.classes_[self.svc_.predict(K)]
        return guess

    def predict_proba(self, X: ArrayLike) -> Float:
        """Return calibrated probabilities ``(m, classes)``.

        Where a class has too few different rows to calibrate, decision values are taken as
        logits.
        """
        K = self._against(X)
        values = self.svc_.decision_function(K)
        if self.calibrated_ is not None:
            held = values.reshape(len(K), -1)
            probability: Float = self.calibrated_.predict_proba(held)
            return probability
        return softmax(np.column_stack([0 * values, values]) if values.ndim == 1 else values)

    def _widths(self) -> list[float | None]:
        linear = self.kernel == "linear"
        return [None] if linear else [float(width) for width in np.atleast_1d(self.gamma)]

    def _against(self, X: ArrayLike) -> Float:
        """Return the kernel of new rows against the training rows, ``(m, n)``."""
        new = self._rows(X)
        inner = new @ self.X_fit_.T
        return self._kernel(inner, np.einsum("ij,ij->i", new, new), self.gamma_)

    def _kernel(self, inner: Float, norms: Float, width: float | None) -> Float:
        """Return the kernel of inner products ``(m, n)`` of rows with these squared norms."""
        if width is None:
            return inner
        own = np.einsum("ij,ij->i", self.X_fit_, self.X_fit_)
        distance = np.maximum(norms[:, None] - 2 * inner + own, 0)
        kernel: Float = np.exp(distance * (-width / self.unit_))
        return kernel

    def _choose(
        self, kernels: dict[float | None, Float], rows: Training, folds: Folds
    ) -> tuple[float, float | None, list[Float]]:
        """Return the penalty and the width with the highest mean accuracy.

        And the decision values of each held-out fold there; none if nothing had to be chosen.
        """
        penalties = sorted({float(C) for C in np.atleast_1d(self.C)})
        grid = list(product(penalties, kernels))
        if len(grid) == 1 or not folds:
            return *min(grid, key=lambda pair: abs(np.log(pair[0]))), []
        tasks = [(kernels[width], rows, penalties, fold) for fold in folds for width in kernels]
        judged = parallel(self._judge, tasks)
        scores = np.reshape(
            [accuracies for accuracies, _ in judged], (len(folds), len(kernels), -1)
        )
        chosen = best(scores.transpose(0, 2, 1).reshape(len(folds), -1))
        penalty, width = divmod(chosen, len(kernels))
        return *grid[chosen], [values[penalty] for _, values in judged[width :: len(kernels)]]

    def _judge(
        self, task: tuple[Float, Training, list[float], Fold]
    ) -> tuple[list[float], list[Float]]:
        """Return the accuracy and decision values of each penalty, ascending, on one fold."""
        K, rows, penalties, (train, test) = task
        inside, against = K[np.ix_(train, train)], K[np.ix_(test, train)]
        accuracies: list[float] = []
        values: list[Float] = []
        bounded = True
        for C in penalties:
            if bounded:  # else no row was at its bound: a larger one changes nothing
                machine = self._svc(C, rows)
                machine.fit(inside, rows.codes[train], rows.sample_weight[train])
                bounded = np.abs(machine.dual_coef_).max() >= 0.999 * C * rows.weight[train].min()
                accuracy = float((machine.predict(against) == rows.codes[test]).mean())
                decided = machine.decision_function(against).reshape(len(test), -1)
            accuracies.append(accuracy)
            values.append(decided)
        return accuracies, values

    def _calibration(
        self, K: Float, rows: Training, C: float, folds: Folds, held: list[Float]
    ) -> CalibratedClassifierCV | None:
        """Return sigmoids fitted to decision values of rows that were held out."""
        if folds and len(np.unique(np.concatenate([test for _, test in folds]))) < len(K):
            # Folds that were given need not cover every row.
            folds = inner_folds(rows.codes, rows.groups, 5, self.random_state, rows.used)
            held = []
        if not folds:
            return None

        def values(fold: Fold) -> Float:
            train, test = fold
            machine = self._svc(C, rows)
            machine.fit(K[np.ix_(train, train)], rows.codes[train], rows.sample_weight[train])
            decided: Float = machine.decision_function(K[np.ix_(test, train)])
            return decided.reshape(len(test), -1)

        parts = held or parallel(values, folds)
        every = np.empty((len(K), parts[0].shape[1]))
        for (_, test), part in zip(folds, parts, strict=True):
            every[test] = part
        calibrated = CalibratedClassifierCV(_Decided(), cv=folds, ensemble=False)
        return calibrated.fit(every, rows.codes, sample_weight=rows.sample_weight)

    def _svc(self, C: float, rows: Training) -> SVC:
        weight = dict(enumerate(rows.class_weight))
        return SVC(C=C, kernel="precomputed", class_weight=weight, tol=self.tol, cache_size=500)


def _spread(X: Float, weight: Float) -> float:
    """Return the mean squared distance of rows from their mean, by their weights."""
    share = weight / weight.sum()
    centred = X - share @ X
    return float(share @ np.einsum("ij,ij->i", centred, centred))


class _Decided(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Takes decision values for rows, so that scikit-learn calibrates what is there already."""

    def fit(self, X: Float, y: Int, sample_weight: Float | None = None) -> Self:
        """Learn which classes there are."""
        del sample_weight
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Float) -> NDArray[Any]:
        """Return the classes with the highest values."""
        values = self.decision_function(X)
        guess: NDArray[Any] = self.classes_[
            (values > 0).astype(int) if values.ndim == 1 else values.argmax(1)
        ]
        return guess

    def decision_function(self, X: Float) -> Float:
        """Return the rows."""
        return X[:, 0] if X.shape[1] == 1 else X
