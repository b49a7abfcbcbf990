"""Rows of many features as points on a plane, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headstart.heads.parallel import single_threaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]

_COMPONENTS = 50  # that neighbours are sought in: more of them add noise and time
_FEWEST = 20  # rows that neighbours can be kept of


def principal(Z: Float, components: int = 2) -> tuple[Float, Float]:
    """Return the first principal components of rows, and the share of the variance in each.

    Coordinates in the row space come from the Gram matrix of the rows, so these are the principal
    components of the features, at the cost of as many numbers as there are rows.

    Parameters
    ----------
    Z : ndarray of shape (n, r)
    components : int

    Returns
    -------
    points : ndarray of shape (n, components)
        Zeros where there are fewer directions than that.
    shares : ndarray of shape (components,)

    Examples
    --------
    >>> points, shares = principal(np.array([[0.0, 0, 1], [2, 0, 1], [4, 0, 1]]))
    >>> points[:, 1].tolist(), shares.tolist()
    ([0.0, 0.0, 0.0], [1.0, 0.0])
    """
    from sklearn.decomposition import PCA

    found = min(components, len(Z) - 1, Z.shape[1])
    points, shares = np.zeros((len(Z), components)), np.zeros(components)
    if found > 0 and float(np.ptp(Z, axis=0).max()) > 0:
        exact = min(Z.shape) <= 500
        model = PCA(found, svd_solver="full" if exact else "randomized", random_state=0)
        points[:, :found] = model.fit_transform(Z)
        shares[:found] = model.explained_variance_ratio_
    points[np.abs(points) < 1e-12 * np.abs(points).max(initial=0)] = 0
    return points, shares


def neighbourhoods(Z: Float, *, seed: int = 0) -> Float | None:
    """Return points ``(n, 2)`` that keep neighbours together (t-SNE), or None of too few rows.

    t-SNE (van der Maaten & Hinton, 2008) of the first 50 principal components: who lies beside
    whom has a meaning, distances between groups have none.
    """
    if len(Z) < _FEWEST:
        return None
    from sklearn.manifold import TSNE

    components = min(_COMPONENTS, len(Z) - 1, Z.shape[1])
    points, _ = principal(Z, components)
    extent = float(points[:, 0].std())
    if extent == 0:
        return None
    start = points[:, :2] if components > 1 else np.column_stack([points[:, 0], points[:, 0] * 0])
    model = TSNE(
        perplexity=min(30.0, (len(Z) - 1) / 3),
        init=(start / extent * 1e-4).astype(np.float32),
        random_state=seed,
        n_jobs=1,
    )
    with single_threaded():  # its threads wait for each other longer than they work
        result: Float = model.fit_transform(points.astype(np.float32)).astype(np.float64)
    return result
