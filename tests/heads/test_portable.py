"""Heads as plain arrays on features give what the heads give in the row space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier

from headstart.errors import HeadError
from headstart.heads import RowSpace
from headstart.heads.portable import (
    KINDS,
    Kernels,
    Layers,
    Linear,
    Neighbours,
    Trained,
    against_rest,
    arrays_of,
    portable,
    probabilities,
)
from headstart.heads.registry import HEAD_NAMES, make_head
from headstart.heads.rows import FeatureRows

Make = Callable[..., Any]
LIGHT = [name for name in HEAD_NAMES if name != "dense"]


def made(store: Any, head: Any) -> tuple[Any, Any, Any]:
    """Train on the first two thirds of a store, in a space that was found on all of it.

    Returns the portable form, the features, and the probabilities of all rows.
    """
    n, y = len(store), store.labels()
    train = np.arange(2 * n // 3)
    every = FeatureRows(store, None, np.arange(n))
    whole = RowSpace().fit_rows(every)
    rows = every.take(train)
    space = RowSpace().fit_rows(rows)
    coordinates = whole.coordinates_ * (whole.scale_ / space.scale_)
    expected = clone(head).fit(coordinates[train], y[train]).predict_proba(coordinates)
    fitted = clone(head).fit(space.coordinates_, y[train])
    return portable(fitted, Trained(space, rows)), every.load().astype(np.float32), expected


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", LIGHT)
def test_same_probabilities_on_features(
    make_store: Make, draw: Make, name: str, classes: int
) -> None:
    """Also on rows outside the span of the training rows, also for two classes."""
    store = make_store(*draw(90, classes=classes, signal=0.2))
    form, X, expected = made(store, make_head(name))
    form.check(X.shape[1], classes)
    np.testing.assert_allclose(probabilities(form, X), expected, atol=2e-3)
    assert (probabilities(form, X).argmax(1) == expected.argmax(1)).mean() >= 0.98


@pytest.mark.parametrize("name", ["svm", "svm-rbf"])
def test_machines_without_calibration(make_store: Make, draw: Make, name: str) -> None:
    """With one row of a class nothing can be calibrated; decision values are the logits."""
    features, label = draw(60, classes=3, signal=0.2)
    label = np.where(label == 2, 0, label)
    label[5] = 2
    store = make_store(features, label)
    form, X, expected = made(store, make_head(name))
    np.testing.assert_allclose(probabilities(form, X), expected, atol=2e-3)


@pytest.mark.tensorflow
@pytest.mark.parametrize("classes", [2, 3])
def test_dense_on_features(make_store: Make, draw: Make, classes: int) -> None:
    """The first layer's weights map back to features through both rotations."""
    store = make_store(*draw(60, classes=classes, signal=0.2))
    rows = FeatureRows(store, None, np.arange(60))
    space = RowSpace().fit_rows(rows)
    head = make_head("dense").set_params(units=16, epochs=3)
    head.fit(space.coordinates_, store.labels())
    form = portable(head, Trained(space, rows))
    X = rows.load().astype(np.float32)
    form.check(X.shape[1], classes)
    expected = head.predict_proba(space.coordinates_)
    np.testing.assert_allclose(probabilities(form, X), expected, atol=1e-3)


def test_values_against_the_rest_are_those_of_scikit_learn() -> None:
    """Votes and confidence are put together as ``SVC.decision_function`` does."""
    from sklearn.svm import SVC

    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(80, 5)), np.arange(80) % 4
    one = SVC(kernel="linear", decision_function_shape="ovo").fit(X, y)
    rest = SVC(kernel="linear", decision_function_shape="ovr").fit(X, y)
    found = against_rest(one.decision_function(X), 4)
    np.testing.assert_allclose(found, rest.decision_function(X), rtol=1e-6)


def test_a_stranger_cannot_be_kept(make_store: Make, draw: Make) -> None:
    """A classifier without a portable form is refused by name."""
    store = make_store(*draw(30))
    with pytest.raises(HeadError, match="a RandomForestClassifier cannot be kept"):
        made(store, RandomForestClassifier(5))


def test_arrays_come_back_by_name() -> None:
    """A form is its arrays and its kind, nothing else; other shapes are refused."""
    form = Linear(np.ones((2, 3), np.float32), np.zeros(2, np.float32))
    assert arrays_of(KINDS[form.kind](**arrays_of(form))).keys() == {"weights", "bias"}
    with pytest.raises(HeadError, match=r"weights has shape \(2, 3\); expected \(2, 4\)"):
        form.check(4, 2)


def _ones(*shape: int, dtype: str = "float32") -> Any:
    return np.ones(shape, dtype)


#: Forms of 2 classes and 4 features that fit; what is wrong with a forged array, and the answer.
LINEAR = Linear(_ones(2, 4), _ones(2))
LAYERS = Layers(_ones(3, 4), _ones(3), _ones(2, 3), _ones(2))
KERNELS = Kernels(_ones(5, 4), _ones(1, 5), _ones(1), _ones(1), _ones(2), _ones(2))
NEIGHBOURS = Neighbours(_ones(5, 4), _ones(5, 2), _ones(1, dtype="int64"))
FORGED: list[tuple[Any, str, Any, str]] = [
    (LINEAR, "weights", _ones(2, 4, dtype="int64"), "int64 with 2 dimensions; expected float32"),
    (LINEAR, "weights", _ones(2, 4, dtype="float16"), "weights is of float16"),
    (LINEAR, "bias", _ones(), "bias is of float32 with 0 dimensions; expected float32 with 1"),
    (LINEAR, "bias", _ones(2) * np.nan, "bias has numbers that are not finite"),
    (LAYERS, "inner_bias", _ones(), "inner_bias is of float32 with 0 dimensions"),
    (LAYERS, "inner_bias", _ones(2), r"inner_bias has shape \(2,\); expected \(3,\)"),
    (LAYERS, "inner", _ones(0, 4), r"inner has shape \(0, 4\); expected \(1, 4\)"),
    (KERNELS, "vectors", _ones(), "vectors is of float32 with 0 dimensions"),
    (KERNELS, "vectors", _ones(5, 4, dtype="int64"), "expected float16 or float32"),
    (KERNELS, "dual", _ones(1, 6), r"dual has shape \(1, 6\); expected \(1, 5\)"),
    (KERNELS, "width", -_ones(1), "width must be above 0; found -1.0"),
    (NEIGHBOURS, "rows", _ones(0, 4), r"rows has shape \(0, 4\); expected \(1, 4\)"),
    (NEIGHBOURS, "votes", -_ones(5, 2), "votes must be 0 or more"),
    (NEIGHBOURS, "votes", 0 * _ones(5, 2), "one of them above 0"),
    (NEIGHBOURS, "count", _ones(1), "count is of float32 with 1 dimensions; expected int64"),
    (NEIGHBOURS, "count", 0 * _ones(1, dtype="int64"), "count must be 1 or more"),
]


@pytest.mark.parametrize(("form", "name", "array", "words"), FORGED)
def test_forged_arrays_are_refused_by_name(form: Any, name: str, array: Any, words: str) -> None:
    """Each array has its dtypes, its dimensions, at least one row, and numbers that can be."""
    form.check(4, 2)
    with pytest.raises(HeadError, match=words):
        replace(form, **{name: array}).check(4, 2)


def test_every_array_of_every_form_is_checked() -> None:
    """A new array cannot be forgotten: the layout names what the form holds, in its order."""
    for kind in KINDS.values():
        assert tuple(kind.layout) == tuple(field.name for field in fields(kind))
