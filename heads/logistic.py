"""Many logistic regressions on the same rows, solved at once as one batch of matrix products.

Each problem has its own penalty and its own row weights (a fold is a set of rows of weight
zero), and minimises, as scikit-learn does,

    sum_i weight_i loss_i / sum_i weight_i  +  |w|² / (2 C sum_i weight_i)

with an intercept that is not penalised. All problems take their L-BFGS steps together: one
product for the gradients, one for the change of the logits along the steps, and the line search
needs no product at all. Rows should be given on principal axes: there the Hessian is nearly
diagonal, and that diagonal makes a preconditioner which costs nothing. Converged problems leave
the batch.
"""

# Rejected after measuring: float64 alone (twice the time; float32 first and float64 to confirm or
# to finish ends at the same gradient), one curvature per class or the exact diagonal of the Hessian
# (no fewer iterations), one batch on all cores (waits for its slowest thread at every product).

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from headstart.heads.parallel import free_cores, parallel, single_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Double = NDArray[np.float64]
    Float = NDArray[np.floating[Any]]  # float32 first, float64 to confirm or to finish
    Int = NDArray[np.int64]

#: Pairs of steps that L-BFGS remembers; with this preconditioner more did not pay.
_MEMORY = 6
_HALVINGS = 30
#: Steps back to look for what they gained, and how many times that may still be to be gained.
_LOOK_BACK, _CAUTION = 10, 20
_ROUNDING = 100
#: Curvature along a step below which it is not told from rounding.
_SMALLEST = 1e-30
#: Share of open problems below which the solved ones are taken out of the batch.
_FULL = 0.8
#: Problems that are worth a thread of their own.
_CHUNK = 8
#: Numbers in the rows below which one thread is as fast as two that share a product (on two cores),
#: and on a busy machine, where they wait for each other, up to forty times as fast.
_SERIAL = 5_000_000
#: Below this, relatively, gradients and gains in float32 are rounding.
_TRUSTED = 1e-6
_SINGLE_ITERATIONS = 200
#: Bytes that the solver takes, about, for each row and column of a float32 batch: twice six pairs
#: of steps, logits, residuals and what is made of them on the way.
SOLVER_BYTES = 96
#: Rows that are squared at a time.
_BLOCK = 512


@dataclass(frozen=True)
class Solution:
    """Coefficients of all problems.

    Attributes
    ----------
    coef : ndarray of shape (P, k, r)
    intercept : ndarray of shape (P, k)
    iterations : ndarray of shape (P,)
    converged : ndarray of shape (P,), bool
    """

    coef: Double
    intercept: Double
    iterations: Int
    converged: NDArray[np.bool_]


def solve(
    Z: Float,
    codes: Int,
    n_classes: int,
    weight: Double,
    C: Double,
    *,
    tol: float = 1e-4,
    max_iter: int = 1000,
    gap: float | None = None,
) -> Solution:
    """Solve P logistic regressions on the same rows.

    Parameters
    ----------
    Z : ndarray of shape (n, r), float64 or float32
        Rows, best on principal axes. Of float32 rows there is no copy in float64, and no gradient
        is brought below what float32 can tell.
    codes : ndarray of shape (n,)
        Class of each row, from 0.
    n_classes : int
        Two classes share one column of coefficients (k = 1); more have one each.
    weight : ndarray of shape (n, P)
        Weight of each row in each problem; zero leaves it out.
    C : ndarray of shape (P,)
        Inverse penalties.
    tol : float
        A problem is solved when no entry of its gradient exceeds this.
    max_iter : int
        Iterations after which a problem is given up; in float32 after 200, if that is fewer.
    gap : float, optional
        And, if given, when its objective is within this share of the smallest one, by estimate:
        with a large C the gradient of a mean loss is small long before.
    """
    k = 1 if n_classes == 2 else n_classes
    mean = Z.mean(0, dtype=np.float64)
    rows = np.ones((len(Z), Z.shape[1] + 1), Z.dtype)
    np.subtract(Z, mean, out=rows[:, :-1], casting="same_kind")
    W = np.zeros((rows.shape[1], k, len(C)))
    total = weight.sum(0)
    penalty = np.zeros((len(W), len(C)))
    penalty[:-1] = 1 / (C * total)
    exact = _Problems(rows, codes, weight / total, penalty)
    iterations, converged = np.zeros(len(C), dtype=np.int64), np.zeros(len(C), dtype=bool)
    chunks = max(1, min(free_cores(), len(C) // _CHUNK))
    parts = [slice(first, None, chunks) for first in range(chunks)]
    for problems in (exact.single(), exact) if Z.dtype == np.float64 else (exact.single(),):
        limits = _limits(problems, tol, max_iter, gap)
        with single_threaded() if rows.size < _SERIAL else nullcontext():
            done = parallel(partial(_descend, problems, W, limits), parts)
        for part, (solved, taken) in zip(parts, done, strict=True):
            W[..., part] = solved
            iterations[part] += taken
            converged[part] = taken < limits.max_iter
    if k > 1:  # a constant added to all classes changes no probability, only the penalty
        W -= W.mean(1, keepdims=True)
    intercept = W[-1] - np.tensordot(mean, W[:-1], 1)
    coef = np.ascontiguousarray(np.moveaxis(W[:-1], (0, 1, 2), (2, 1, 0)))
    return Solution(coef, intercept.T.copy(), iterations, converged)


@dataclass(frozen=True)
class _Problems:
    """Rows ``(n, r + 1)`` with a column of ones; weight ``(n, P)``; penalty ``(r + 1, P)``."""

    rows: Float
    codes: Int
    weight: Float
    penalty: Float

    def single(self) -> _Problems:
        """Return the same problems in float32."""
        return _Problems(
            self.rows.astype(np.float32, copy=False),
            self.codes,
            self.weight.astype(np.float32),
            self.penalty.astype(np.float32),
        )


@dataclass(frozen=True)
class _Limits:
    """When to stop."""

    tol: float
    max_iter: int
    gap: float


def _limits(problems: _Problems, tol: float, max_iter: int, gap: float | None) -> _Limits:
    """Return when to stop: float32 goes as far as its products can be trusted."""
    wanted = np.inf if gap is None else gap
    if problems.rows.dtype == np.float64:
        return _Limits(tol, max_iter, wanted)
    floor = _TRUSTED * float(np.abs(problems.rows).mean(0).max())
    return _Limits(max(tol, floor), min(max_iter, _SINGLE_ITERATIONS), max(wanted, _TRUSTED))


class _Batch:
    """The problems that are still open; the last axis of every array counts them.

    W, gradient ``(r + 1, k, P)`` with the intercepts in the last row; logits, residual
    ``(n, k, P)``; weight ``(n, P)``, summing to 1; penalty, diagonal ``(r + 1, P)``; loss,
    curvature ``(P,)``; pairs: the last steps, the changes of the gradient, 1 / their product;
    losses: those before the last steps.
    """

    def __init__(self, problems: _Problems, W: Float, part: slice) -> None:
        rows = problems.rows
        self.W = W[..., part].astype(rows.dtype)
        self.number = np.arange(self.W.shape[-1])
        self.open = np.ones(self.W.shape[-1], dtype=bool)
        self.logits, self.weight = _product(rows, self.W), problems.weight[:, part]
        self.penalty, self.diagonal = problems.penalty[:, part], _squares(rows, self.weight)
        self.gradient, self.step = np.zeros_like(self.W), np.zeros_like(self.W)
        self.loss = self.curvature = np.zeros(len(self.number), rows.dtype)
        self.residual = self.logits
        self.pairs: list[tuple[Float, Float, Float]] = []
        self.losses: list[Float] = []

    def keep(self, still: NDArray[np.bool_]) -> None:
        """Drop the problems that are not `still` open."""
        self.pairs = [(s[..., still], y[..., still], c[still]) for s, y, c in self.pairs]
        self.losses = [loss[still] for loss in self.losses]
        for name, value in vars(self).items():
            if name not in {"pairs", "losses"}:
                setattr(self, name, value[..., still])

    def remember(self, step: Float, change: Float) -> None:
        """Keep a step and the change of the gradient along it; one without curvature counts 0."""
        product = _dot(step, change)
        least = np.finfo(step.dtype).eps * np.sqrt(_dot(step, step) * _dot(change, change))
        inverse = np.zeros_like(product)
        np.divide(1, product, out=inverse, where=product > np.maximum(least, _SMALLEST))
        self.pairs = [*self.pairs[1 - _MEMORY :], (step, change, inverse)]

    def above(self) -> Float:
        """Return how far each objective is above its minimum.

        The penalty's curvature alone bounds it by ``|g|² / (2 penalty)``, which is far too much
        where the penalty is small; what the last steps have gained is an estimate.
        """
        certain: Float = 0.5 * _dot(self.gradient, self.gradient) / self.penalty[0]
        self.losses = [*self.losses[-_LOOK_BACK:], self.loss]
        if len(self.losses) <= _LOOK_BACK:
            return certain
        return np.minimum(certain, _CAUTION * (self.losses[0] - self.loss))

    def direction(self) -> Float:
        """Return the L-BFGS direction: two loops around the diagonal preconditioner.

        Which is scaled by the curvature along the last step: without this a step was up to 32
        times too long, and each line search took five evaluations.
        """
        q, factors = -self.gradient, []
        for s, y, c in reversed(self.pairs):
            factors.append(c * _dot(s, q))
            q -= factors[-1] * y
        diagonal = (np.maximum(self.curvature, 1e-9) * self.diagonal + self.penalty)[:, None]
        q /= diagonal
        if self.pairs:
            _, y, c = self.pairs[-1]
            curved = c * _dot(y, y / diagonal)
            q /= np.where(curved > 0, curved, 1)
        for s, y, c in self.pairs:
            q += (factors.pop() - c * _dot(y, q)) * s
        return q


def _descend(problems: _Problems, W: Float, limits: _Limits, part: slice) -> tuple[Float, Int]:
    """Step until every problem of a part is solved; return coefficients and iterations."""
    rows, codes, batch = problems.rows, problems.codes, _Batch(problems, W, part)
    result, iterations = batch.W.copy(), np.full(len(batch.number), limits.max_iter)
    batch.loss, batch.residual, batch.curvature = _loss(batch.logits, codes, batch.weight)
    batch.loss += 0.5 * _dot(batch.penalty[:, None] * batch.W, batch.W)
    for iteration in range(limits.max_iter):
        before = batch.gradient
        batch.gradient = _product(rows.T, batch.residual) + batch.penalty[:, None] * batch.W
        if iteration:
            batch.remember(batch.step, batch.gradient - before)
        step = batch.direction()
        steep = np.abs(batch.gradient).max((0, 1)) > limits.tol
        steep |= batch.above() > limits.gap * batch.loss
        solved = batch.open & ~steep
        number = batch.number[solved]
        result[..., number], iterations[number] = batch.W[..., solved], iteration
        batch.open &= steep
        if not batch.open.any():
            break
        if batch.open.mean() < _FULL:
            step = step[..., batch.open]
            batch.keep(batch.open)
        _line_search(rows, codes, batch, step)
    result[..., batch.number[batch.open]] = batch.W[..., batch.open]
    return result, iterations


def _line_search(rows: Float, codes: Int, batch: _Batch, step: Float) -> None:
    """Step along the L-BFGS direction, halving the step of a problem until it gains enough."""
    along = _product(rows, step)
    bent = batch.penalty[:, None] * step
    first, second = _dot(bent, batch.W), 0.5 * _dot(bent, step)
    slope = _dot(batch.gradient, step)
    ridge = 0.5 * _dot(batch.penalty[:, None] * batch.W, batch.W)
    slack = _ROUNDING * np.finfo(batch.loss.dtype).eps * np.abs(batch.loss)
    t = np.ones_like(slope)
    for _ in range(_HALVINGS):
        logits = batch.logits + t * along
        loss, residual, curvature = _loss(logits, codes, batch.weight)
        loss += ridge + t * first + t * t * second
        bad = ~(loss <= batch.loss + 1e-4 * t * slope + slack)
        if not bad.any():
            break
        t[bad] /= 2
    batch.step = t * step
    batch.W = batch.W + batch.step
    batch.logits, batch.residual = logits, residual
    batch.loss, batch.curvature = loss, curvature


def _loss(logits: Float, codes: Int, weight: Float) -> tuple[Float, Float, Float]:
    """Return the weighted loss, its gradient in the logits, and the mean curvature."""
    if logits.shape[1] == 1:
        margin, y = logits[:, 0], codes[:, None]
        p = expit(margin)
        loss = np.maximum(margin, 0) - margin * y + np.log1p(np.exp(-np.abs(margin)))
        curvature = _mean(weight, p * (1 - p))
        return _mean(weight, loss), ((p - y) * weight)[:, None], curvature
    top = logits.max(1)
    p = np.exp(logits - top[:, None])
    total = p.sum(1)
    p /= total[:, None]
    each = np.arange(len(codes))
    loss = np.log(total) + top - logits[each, codes]
    curvature = (1 - _mean(weight, np.einsum("nkp,nkp->np", p, p))) / (logits.shape[1] - 1)
    p[each, codes] -= 1
    p *= weight[:, None]
    return _mean(weight, loss), p, curvature


def _product(A: Float, B: Float) -> Float:
    """Return ``A B`` over the first axis of ``B`` ``(m, k, P)``, as one matrix product."""
    return (A @ B.reshape(len(B), -1)).reshape(len(A), *B.shape[1:])


def _squares(rows: Float, weight: Float) -> Float:
    """Return the weighted sums of squares of the columns ``(r, P)``, block by block."""
    total = np.zeros((rows.shape[1], weight.shape[1]), rows.dtype)
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        total += np.square(rows[part]).T @ weight[part]
    return total


def _dot(a: Float, b: Float) -> Float:
    """Return one inner product per problem."""
    product: Float = np.einsum("rkp,rkp->p", a, b)
    return product


def _mean(weight: Float, value: Float) -> Float:
    mean: Float = np.einsum("np,np->p", weight, value)
    return mean
