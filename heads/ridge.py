"""Ridge regression on class indicators, every penalty judged on rows left out, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headstart.heads.base import Head, softmax
from headstart.heads.metrics import temperature
from headstart.heads.rowspace import RowSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headstart.heads.base import ClassWeight

    Float = NDArray[np.float64]

#: Penalties for features of mean squared norm 1.
PENALTIES = tuple(float(alpha) for alpha in np.logspace(-3, 3, 13))


_TINY = 1e-9


class RidgeHead(Head):
    """Least squares on class indicators with an L2 penalty, as ``RidgeClassifier``.

    The penalty is chosen by the accuracy on rows that are left out, one group at a time, which
    needs no second fit: with the hat matrix H, the residuals of the rows g that are left out are
    ``(I - H_gg)⁻¹ r_g``. Probabilities are a softmax of the scores, at the temperature that suits
    those left-out rows best.

    Parameters
    ----------
    alpha : float or sequence of float
        Penalty; of several the best is chosen (first on ties, from the largest).
    class_weight : dict or "balanced", optional

    Attributes
    ----------
    coef_ : ndarray of shape (k, d)
    intercept_ : ndarray of shape (k,)
    alpha_ : float
    accuracy_ : float
        Share of left-out rows that were recognised at this penalty.
    temperature_ : float

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 500))
    >>> RidgeHead(alpha=1.0).fit(X, X[:, 0] > 0).coef_.shape
    (2, 500)
    """

    def __init__(
        self, alpha: float | Sequence[float] = PENALTIES, *, class_weight: ClassWeight = None
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the penalty and fit on all rows ``(n, d)``."""
        rows = self._training(X, y, sample_weight, groups)
        share = rows.weight / rows.weight.sum()
        root = np.sqrt(rows.weight)[:, None]
        target = np.where(rows.codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        mean, base = share @ rows.X, share @ target
        space = RowSpace(normalize=False).fit((rows.X - mean) * root)
        system = _System(space.coordinates_, space.eigenvalues_, root * (target - base), share)
        penalties = sorted((float(a) for a in np.atleast_1d(self.alpha)), reverse=True)
        residuals = system.left_out(np.array(penalties), _shared(rows.groups))
        left_out = target - np.moveaxis(residuals, 1, 0) / root
        accuracy = [float((scores.argmax(1) == rows.codes).mean()) for scores in left_out]
        chosen = int(np.argmax(accuracy))
        self.alpha_, self.accuracy_ = penalties[chosen], accuracy[chosen]
        self.temperature_ = temperature(rows.codes, left_out[chosen])
        self.coef_ = space.back(system.solution(np.array([self.alpha_]))[:, 0].T)
        self.intercept_ = base - self.coef_ @ mean
        self.chosen_ = {"alpha": self.alpha_}
        return self

    def decision_function(self, X: ArrayLike) -> Float:
        """Return scores ``(m, k)``, near 1 for the class and -1 for others; ``(m,)`` for two."""
        scores = self._scores(X)
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> Float:
        """Return class probabilities ``(m, k)``."""
        return softmax(self._scores(X) / self.temperature_)

    def _scores(self, X: ArrayLike) -> Float:
        scores: Float = self._rows(X) @ self.coef_.T + self.intercept_
        return scores


@dataclass(frozen=True)
class _System:
    """Centred rows Q ``(n, r)`` on principal axes and targets t ``(n, k)``, times root weights."""

    Q: Float
    extent: Float
    t: Float
    share: Float

    def solution(self, alphas: Float) -> Float:
        """Return the weights ``(r, A, k)`` for each penalty."""
        weights: Float = (self.Q.T @ self.t)[:, None] / (self.extent[:, None] + alphas)[..., None]
        return weights

    def left_out(self, alphas: Float, groups: list[NDArray[np.int64]]) -> Float:
        """Return the residuals ``(n, A, k)`` of rows that were left out of the fit, by group."""
        weights = self.solution(alphas)
        fitted = (self.Q @ weights.reshape(len(weights), -1)).reshape(len(self.Q), len(alphas), -1)
        residual: Float = self.t[:, None] - fitted
        shrink = 1 / (self.extent[:, None] + alphas)
        own = 1 - (self.Q * self.Q) @ shrink - self.share[:, None]
        result = residual / np.maximum(own, _TINY)[..., None]
        for same in groups:
            Q, root = self.Q[same], np.sqrt(self.share[same])[..., None]
            rest = np.eye(same.shape[1]) - root * root.swapaxes(1, 2)
            for a in range(len(alphas)):
                hat = (Q * shrink[:, a]) @ Q.swapaxes(1, 2)
                result[same, a] = np.linalg.pinv(rest - hat, hermitian=True) @ residual[same, a]
        return result


def _shared(groups: NDArray[Any] | None) -> list[NDArray[np.int64]]:
    """Return the rows of groups that have more than one, ``(groups, size)`` for each size."""
    if groups is None:
        return []
    _, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    first = np.cumsum(size) - size
    return [
        order[first[size == each][:, None] + np.arange(each)] for each in np.unique(size[size > 1])
    ]
