"""The row space is an exact rotation, is kept, and proves itself when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads import RowSpace, rowspace
from headstart.heads.gram import ArrayRows, gram, products
from headstart.heads.rows import FeatureRows
from headstart.heads.rowspace import on_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headstart.cache import Store

    MakeStore = Callable[..., Store]
    Draw = Callable[..., Any]


def matrix(n: int, d: int, seed: int, *, duplicates: int = 0) -> NDArray[np.float64]:
    """Return a random matrix whose last rows repeat its first."""
    X = np.random.default_rng(seed).normal(size=(n, d))
    X[n - duplicates :] = X[:duplicates]
    return X


shapes = st.tuples(st.integers(2, 20), st.integers(1, 20), st.integers(0, 2**31))


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(0, 1))
def test_inner_products_are_kept(shape: tuple[int, int, int], duplicates: int) -> None:
    """`Z Zᵀ = X Xᵀ`, for more rows than features and for fewer, with repeated rows too."""
    n, d, seed = shape
    X = matrix(n, d, seed, duplicates=duplicates)
    space = RowSpace(normalize=False).fit(X)
    Z = space.coordinates_
    assert np.allclose(Z @ Z.T, X @ X.T, atol=1e-8 * np.abs(X @ X.T).max())
    assert space.rank_ <= min(n - duplicates, d)
    assert (np.diff(space.eigenvalues_) <= 1e-9).all()
    assert np.allclose(space.transform(X), Z, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_weights_map_back(shape: tuple[int, int, int]) -> None:
    """A linear function of the coordinates is the same function of the features."""
    n, d, seed = shape
    X = matrix(n, d, seed)
    space = RowSpace().fit(X)
    coef = np.random.default_rng(seed + 1).normal(size=(2, space.rank_))
    new = matrix(5, d, seed + 2)
    assert np.allclose(new @ space.back(coef).T, space.transform(new) @ coef.T, atol=1e-5)


def test_a_constant_feature_and_a_zero_matrix() -> None:
    """What has no extent takes no coordinate; nothing at all leaves one that is zero."""
    assert RowSpace().fit(np.ones((6, 9))).rank_ == 1
    space = RowSpace().fit(np.zeros((4, 3)))
    assert not space.transform(np.ones((2, 3))).any()


def test_mean_squared_norm_is_one() -> None:
    X = matrix(20, 300, 0) * 50
    space = RowSpace().fit(X)
    assert np.mean(np.sum(space.coordinates_**2, 1)) == pytest.approx(1)
    assert space.scale_ == pytest.approx(np.sqrt(np.mean(np.sum(X**2, 1))))


@pytest.mark.parametrize("budget", [10**9, 4000, 1])
def test_tiles_give_the_same_inner_products(budget: int) -> None:
    """However few rows may be held, the inner products are the same."""
    X = matrix(37, 50, 0).astype(np.float16)
    exact = X.astype(np.float64) @ X.astype(np.float64).T
    assert np.allclose(gram(ArrayRows(X), budget=budget), exact, atol=1e-4)
    assert np.allclose(products(X[:5], X), exact[:5], atol=1e-4)


def test_some_coordinates_are_on_axes_and_raw_features_are_not() -> None:
    """A part of the rows of a row space needs no rotation of its own."""
    rng = np.random.default_rng(0)
    X = np.maximum(rng.normal(size=(200, 30)) @ rng.normal(size=(30, 150)) + 0.5, 0)
    Z = RowSpace().fit(X).coordinates_
    assert on_axes(Z[rng.permutation(200)[:160]])
    assert not on_axes(X)


@pytest.mark.parametrize("pool", ["none", "avg", "max"])
def test_a_store_is_streamed(make_store: MakeStore, draw: Draw, pool: Any) -> None:
    """Rows of a store have the coordinates that the same rows in memory have."""
    features, label = draw(60)
    store = make_store(features, label)
    chosen = np.arange(0, 60, 2)
    rows = FeatureRows(store, None, chosen, pool)
    space = RowSpace(max_memory=20_000).fit_rows(rows)
    X = store.features(rows=chosen, pool=pool).reshape(30, -1).astype(np.float64)
    K = X @ X.T / space.scale_**2
    assert np.allclose(space.coordinates_ @ space.coordinates_.T, K, atol=1e-5)
    new = FeatureRows(store, None, np.arange(1, 60, 2), pool)
    expected = space.transform(new.load().astype(np.float32))
    assert np.allclose(space.transform_rows(new), expected, atol=1e-4)


def test_it_is_kept_and_read_back(make_store: MakeStore, draw: Draw) -> None:
    """The second fit reads what the first one kept; other rows have a file of their own."""
    store = make_store(*draw(60))
    assert store.derived is not None
    rows = FeatureRows(store, None, np.arange(60))
    first, second = RowSpace().fit_rows(rows), RowSpace().fit_rows(rows)
    assert first.seconds_ > 0
    assert second.seconds_ == 0
    assert np.array_equal(first.coordinates_, second.coordinates_)
    assert RowSpace().fit_rows(rows.take(slice(0, 50))).seconds_ > 0
    assert RowSpace(normalize=False).fit_rows(rows).seconds_ > 0
    assert len(list(store.derived.glob("*.npz"))) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "words"])
def test_damaged_or_foreign_files_are_computed_again(
    make_store: MakeStore, draw: Draw, damage: str
) -> None:
    """Whatever lies under the name, the coordinates are right, and the file is mended."""
    store = make_store(*draw(60))
    assert store.derived is not None
    rows = FeatureRows(store, None, np.arange(60))
    expected = RowSpace().fit_rows(rows).coordinates_
    (file,) = store.derived.glob("*.npz")
    content = bytearray(file.read_bytes())
    if damage == "foreign":
        RowSpace().fit_rows(rows.take(slice(0, 50)))
        content = bytearray(next(f for f in store.derived.glob("*.npz") if f != file).read_bytes())
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = {"cut": content[:-1], "empty": bytearray(), "words": bytearray(b"x" * 500)}[
            damage
        ]
    file.write_bytes(content)
    again = RowSpace().fit_rows(rows)
    assert again.seconds_ > 0
    assert np.array_equal(again.coordinates_, expected)
    assert RowSpace().fit_rows(rows).seconds_ == 0


def test_no_temporary_file_remains(make_store: MakeStore, draw: Draw) -> None:
    store = make_store(*draw(30))
    assert store.derived is not None
    RowSpace().fit_rows(FeatureRows(store, None, np.arange(30)))
    assert [file.suffix for file in store.derived.iterdir()] == [".npz"]


def test_a_matrix_too_large_for_numpys_work_space_is_factorised_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By scipy: the same eigenvalues, and the same inner products."""
    X = np.random.default_rng(0).normal(size=(30, 80))
    ours = RowSpace().fit(X)
    monkeypatch.setattr(rowspace, "_COUNTED", 10)
    theirs = RowSpace().fit(X)
    assert np.allclose(ours.eigenvalues_, theirs.eigenvalues_)
    for space in (ours, theirs):
        Z = space.coordinates_ * space.scale_
        assert np.allclose(Z @ Z.T, X @ X.T)
