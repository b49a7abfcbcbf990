"""Measures of a classifier on rows it was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import binomtest, t

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

_TINY = 1e-15


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Return the 95% Wilson interval of a share.

    Examples
    --------
    >>> low, high = wilson(70, 100)
    >>> round(low, 3), round(high, 3)
    (0.604, 0.781)
    """
    low, high = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def log_loss(codes: Int, probability: Float) -> float:
    """Return the mean negative logarithm of the probability given to the true class."""
    return max(0.0, float(-logs(probability[np.arange(len(codes)), codes]).mean()))  # not -0.0


def logs(probability: Float) -> Float:
    """Return logarithms of probabilities; a zero counts as the smallest one that is told apart."""
    return np.log(np.clip(probability, _TINY, None))


def calibration_error(right: NDArray[np.bool_], confidence: Float, bins: int = 15) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy in bins."""
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(number, confidence - right, bins)
    return float(np.abs(gap).sum() / len(right))


def temperature(codes: Int, scores: Float) -> float:
    """Return the number to divide scores ``(m, classes)`` by, to make them the best logits.

    Of log-probabilities it says how far they can be trusted: above 1, they are too confident.

    Examples
    --------
    >>> log_probability = np.log([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.99, 0.01]])
    >>> temperature(np.array([0, 0, 0, 1]), log_probability) > 1  # right three times out of four
    True
    """
    unit = float(scores.std()) or 1.0
    mine = scores[np.arange(len(codes)), codes]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature) / unit
        return float((logsumexp(scale * scores, axis=1) - scale * mine).mean())

    return unit * float(np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded").x))


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the exact p-value that two classifiers, right on `a` and on `b`, are equally good.

    Examples
    --------
    >>> right = np.array([True] * 8 + [False] * 2)
    >>> mcnemar(right, right), round(mcnemar(right, ~right), 3)
    (1.0, 0.109)
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def corrected_t(differences: Float, test_share: float, *, resolution: float) -> float:
    """Return the p-value that folds differ by chance only (Nadeau & Bengio's corrected t).

    Parameters
    ----------
    differences : ndarray of shape (folds,)
        Of the accuracies in each fold.
    test_share : float
        Rows held out, over rows trained on.
    resolution : float
        What one row of a fold is worth. Differences are not taken to vary by less, since a few
        folds that happen to agree do not show that there is no chance in them.
    """
    folds = len(differences)
    variance = max(float(differences.var(ddof=1)), resolution**2)
    spread = variance * (1 / folds + test_share)
    if spread == 0:
        return 1.0 if differences.mean() == 0 else 0.0
    return float(2 * t.sf(abs(differences.mean()) / np.sqrt(spread), folds - 1))


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for how many tests were made (Holm).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    order = np.argsort(p_values)
    scaled = [min(1.0, p_values[i] * (len(order) - rank)) for rank, i in enumerate(order)]
    result = np.empty(len(order))
    result[order] = np.maximum.accumulate(scaled) if scaled else scaled
    return [float(p) for p in result]


def aligned(probability: NDArray[Any], seen: NDArray[Any], n_classes: int) -> Float:
    """Return ``(m, n_classes)`` probabilities where the classifier has seen only some classes."""
    result = np.zeros((len(probability), n_classes))
    result[:, seen] = probability
    return result
