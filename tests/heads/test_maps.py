"""Rows as points on a plane."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.heads.maps import neighbourhoods, principal
from headstart.heads.rowspace import RowSpace


def test_components_of_coordinates_are_those_of_the_features() -> None:
    """The map from the Gram matrix is the one of the features, up to the sign of an axis."""
    X = np.random.default_rng(0).normal(size=(30, 400)) * np.r_[5, 3, np.ones(398)]
    points, shares = principal(RowSpace(normalize=False).fit(X).coordinates_)
    U, extent, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(U[:, :2] * extent[:2]), atol=1e-8)
    np.testing.assert_allclose(shares, extent[:2] ** 2 / (extent**2).sum())


@pytest.mark.parametrize("Z", [np.ones((5, 3)), np.zeros((1, 1)), np.arange(4.0)[:, None]])
def test_few_directions_are_no_error(Z: np.ndarray) -> None:
    """Rows without extent, or with one direction, still have two coordinates."""
    points, shares = principal(Z)
    assert points.shape == (len(Z), 2)
    assert np.isfinite(points).all()
    assert shares.sum() <= 1 + 1e-9
    assert neighbourhoods(Z) is None


def test_neighbourhoods_keep_clusters_together() -> None:
    """Two heaps far apart are two heaps on the map, and the same map each time."""
    rng = np.random.default_rng(0)
    Z = np.concatenate([rng.normal(size=(20, 5)), rng.normal(size=(20, 5)) + 50])
    points = neighbourhoods(Z)
    assert points is not None
    heaps = points[:20], points[20:]
    apart = np.linalg.norm(heaps[0].mean(0) - heaps[1].mean(0))
    assert apart > 2 * max(np.linalg.norm(heap - heap.mean(0), axis=1).mean() for heap in heaps)
    np.testing.assert_array_equal(points, neighbourhoods(Z))
