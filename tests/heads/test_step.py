"""A step that is written out, against Keras' own gradient and optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart._keras import import_keras

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
]

_D, _U, _B = 6, 5, 8
_RATES = (0.01, 0.003)


@pytest.fixture(scope="module")
def step() -> ModuleType:
    """Return the module, which imports Keras."""
    import_keras()
    from headstart.heads import step

    return step


def batches(step: ModuleType, classes: int) -> list[Any]:
    """Return batches of 12 rows, drawn with weights."""
    rng = np.random.default_rng(1)
    return [
        step.Batch(
            rng.integers(0, 12, _B),
            rng.integers(0, classes, _B).astype(np.int32),
            rng.uniform(0.5, 2, _B).astype(np.float32) / _B,
            rng.integers(0, 1 << 16, (_U, _B), np.uint16),
        )
        for _ in range(6)
    ]


def by_keras(X: Any, inner: Any, outer: Any, drawn: list[Any], keep: float, rate: float) -> Any:
    """Return the weights of one network that Keras trained on the same batches and draws."""
    import keras

    rows, mask = keras.Input((_D,)), keras.Input((_U,))
    hidden = keras.layers.Dense(_U, activation="relu")(rows)
    scores = keras.layers.Dense(outer.shape[1])(keras.layers.Multiply()([hidden, mask]))
    model = keras.Model([rows, mask], scores)
    model.set_weights([inner[:-1], inner[-1], outer, np.zeros(outer.shape[1], np.float32)])
    losses = keras.losses
    loss = (
        losses.BinaryCrossentropy if outer.shape[1] == 1 else losses.SparseCategoricalCrossentropy
    )
    model.compile(keras.optimizers.Adam(rate), loss(from_logits=True))
    for batch in drawn:
        kept = np.where(keep > batch.drawn.T / 2**16, 1 / keep, 0).astype(np.float32)
        model.train_on_batch([X[batch.numbers], kept], batch.codes[:, None], _B * batch.weight)
    return model.get_weights()


@pytest.mark.parametrize("keep", [1.0, 0.7])
@pytest.mark.parametrize("classes", [2, 3])
def test_steps_are_those_of_keras(step: ModuleType, classes: int, keep: float) -> None:
    """Two networks side by side, of rates of their own, end where Keras ends with each alone."""
    rng = np.random.default_rng(0)
    k = 1 if classes == 2 else classes
    X = rng.normal(size=(12, _D)).astype(np.float32)
    inner = rng.normal(size=(2, _U, _D + 1)).astype(np.float32)
    outer = rng.normal(size=(2, _U, k)).astype(np.float32)
    rows = np.hstack([X, np.ones((12, 1), np.float32)])
    state = step.start(inner.reshape(-1, _D + 1), outer, "float32")
    places = step.Places.of(np.full((1, _U), keep, np.float32), np.array(_RATES, np.float32))
    drawn = batches(step, classes)
    for batch in drawn:
        state = step.step(state, rows, batch, places)
    moved = np.asarray(state.inner.value).reshape(2, _U, _D + 1)
    for h, rate in enumerate(_RATES):
        expected = by_keras(X, inner[h].T, outer[h], drawn, keep, rate)
        parts = (
            moved[h, :, :-1].T,
            moved[h, :, -1],
            np.asarray(state.outer.value)[h],
            np.asarray(state.last.value)[h],
        )
        for ours, theirs in zip(parts, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
        hidden = np.maximum(rows @ moved[h].T, 0)
        scores = hidden @ expected[2] + expected[3]
        np.testing.assert_allclose(step.logits(state, rows)[:, h], scores, rtol=1e-3, atol=1e-4)


def test_a_place_without_a_network_stays_as_it_is(step: ModuleType) -> None:
    """A rate of 0 moves nothing, neither layer."""
    inner, outer, X = drawn_weights(2)
    places = step.Places.of(np.ones((1, _U), np.float32), np.array([0, 0.01], np.float32))
    state = trained(step, step.start(inner, outer, "float32"), X, places)
    moved, moved_outer = np.asarray(state.inner.value), np.asarray(state.outer.value)
    assert (moved[:_U] == inner[:_U]).all()
    assert (moved_outer[0] == outer[0]).all()
    assert not np.asarray(state.last.value)[0].any()
    assert (moved[_U:] != inner[_U:]).all()
    assert (moved_outer[1] != outer[1]).all()


def test_a_network_of_fewer_units_is_what_it_is_in_a_place_of_its_own_size(
    step: ModuleType,
) -> None:
    """Units that are never kept, and have no weights behind them, change nothing for the rest."""
    inner, outer, X = drawn_weights(2)
    outer[1, 3:] = 0
    keep = np.ones((2, _U), np.float32)
    keep[1, 3:] = 0
    rate = np.array([0.01, 0.01], np.float32)
    state = trained(step, step.start(inner, outer, "float32"), X, step.Places.of(keep, rate))
    small = step.start(inner[_U : _U + 3], outer[1:, :3], "float32")
    places = step.Places.of(np.ones((1, 3), np.float32), rate[1:])
    alone = trained(step, small, X, places, units=3)
    found = np.asarray(state.inner.value)[_U:]
    np.testing.assert_allclose(found[:3], np.asarray(alone.inner.value), rtol=1e-5)
    assert (found[3:] == inner[_U + 3 :]).all()
    beside, by_itself = step.logits(state, X)[:, 1], step.logits(alone, X)[:, 0]
    np.testing.assert_allclose(beside, by_itself, rtol=1e-4, atol=1e-5)


def test_products_in_bfloat16_go_the_same_way(step: ModuleType) -> None:
    """Rounded products move the weights as exact ones do, to a tenth of the way."""
    from keras import ops

    inner, outer, X = drawn_weights(1)
    places = step.Places.of(np.ones((1, _U), np.float32), np.array([0.01], np.float32))
    ways = []
    for dtype in ("float32", "bfloat16"):
        state = trained(step, step.start(inner, outer, dtype), ops.cast(X, dtype), places)
        ways.append(np.asarray(state.inner.value) - inner)
    exact, rounded = ways
    assert 0 < np.linalg.norm(rounded - exact) < 0.1 * np.linalg.norm(exact)


def test_a_network_that_overflows_leaves_those_beside_it_alone(step: ModuleType) -> None:
    """Where one has become infinite, the other ends as it does in other company."""
    inner, outer, X = drawn_weights(2)
    places = step.Places.of(np.ones((1, _U), np.float32), np.array([0.01, 0.01], np.float32))
    expected = trained(step, step.start(inner, outer, "float32"), X, places)
    outer[0] = np.inf
    state = trained(step, step.start(inner, outer, "float32"), X, places)
    assert np.isnan(step.logits(state, X)[:, 0]).any()
    assert (step.logits(state, X)[:, 1] == step.logits(expected, X)[:, 1]).all()


def test_a_unit_is_kept_by_its_share_of_the_draws(step: ModuleType) -> None:
    """Of all draws that there are, the share is exact, all of them or nearly none included."""
    draws = np.arange(1 << 16, dtype=np.uint16)
    keep = np.array([[1, 0.75, 2**-16, 0]], np.float32)
    places = step.Places.of(keep, np.ones(1, np.float32))
    shares = (draws <= places.limit).mean(axis=2)[0]
    assert (shares[:3] == keep[0, :3]).all()
    np.testing.assert_allclose(places.scale[0, :, 0] * keep[0], [1, 1, 1, 0])


def drawn_weights(count: int) -> tuple[Any, Any, Any]:
    """Return first and second layers of networks, and 12 rows."""
    rng = np.random.default_rng(0)
    shapes = (count * _U, _D), (count, _U, 3), (12, _D)
    inner, outer, X = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return inner, outer, X


def trained(step: ModuleType, state: Any, X: Any, places: Any, units: int = _U) -> Any:
    """Return the networks after some steps."""
    for batch in batches(step, 3):
        state = step.step(state, X, batch._replace(drawn=batch.drawn[:units]), places)
    return state
