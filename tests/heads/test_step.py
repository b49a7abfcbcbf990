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
    states = tuple(map(step.start, inner, outer, ["float32"] * 2))
    places = step.Places.of([keep] * 2, _RATES)
    drawn = batches(step, classes)
    for batch in drawn:
        states = step.step(states, rows, batch, places)
    for h, (state, rate) in enumerate(zip(states, _RATES, strict=True)):
        expected = by_keras(X, inner[h].T, outer[h], drawn, keep, rate)
        moved = np.asarray(state.inner.value)
        last = np.asarray(state.outer.value), np.asarray(state.last.value)
        for ours, theirs in zip((moved[:, :-1].T, moved[:, -1], *last), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
        scores = np.maximum(rows @ moved.T, 0) @ expected[2] + expected[3]
        np.testing.assert_allclose(step.logits(state, rows), scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("keep", [(0.7, 0.7, 0.7), (1.0, 0.7, 0.4)])
def test_a_network_moves_as_it_does_alone(step: ModuleType, keep: tuple[float, ...]) -> None:
    """Whatever stands beside it, also when the others change on the way."""
    inner, outer, X = drawn_weights(3)
    rates = (0.01, 0.003, 0.02)
    together = [step.start(*each, "float32") for each in zip(inner, outer, strict=True)]
    alone = [step.start(*each, "float32") for each in zip(inner, outer, strict=True)]
    for number, batch in enumerate(batches(step, 3)):
        some = (0, 1, 2) if number < 3 else (2, 0)
        places = step.Places.of([keep[h] for h in some], [rates[h] for h in some])
        moved = step.step(tuple(together[h] for h in some), X, batch, places)
        for h, state in zip(some, moved, strict=True):
            together[h] = state
            place = step.Places.of([keep[h]], [rates[h]])
            (alone[h],) = step.step((alone[h],), X, batch, place)
    for beside, by_itself in zip(together, alone, strict=True):
        found, expected = (np.asarray(state.inner.value) for state in (beside, by_itself))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert float(beside.steps) == float(by_itself.steps)


def test_products_in_bfloat16_go_the_same_way(step: ModuleType) -> None:
    """Rounded products move the weights as exact ones do, to a tenth of the way."""
    from keras import ops

    inner, outer, X = drawn_weights(1)
    ways = []
    for dtype in ("float32", "bfloat16"):
        (state,) = trained(step, [step.start(inner[0], outer[0], dtype)], ops.cast(X, dtype))
        ways.append(np.asarray(state.inner.value) - inner[0])
    exact, rounded = ways
    assert 0 < np.linalg.norm(rounded - exact) < 0.1 * np.linalg.norm(exact)


def test_a_network_that_overflows_leaves_those_beside_it_alone(step: ModuleType) -> None:
    """Where one has become infinite, the other ends as it does in other company."""
    inner, outer, X = drawn_weights(2)
    ends = []
    for first in (1, np.inf):
        starts = zip(inner, (first * outer[0], outer[1]), strict=True)
        ends.append(trained(step, [step.start(*each, "float32") for each in starts], X))
    (_, expected), (overflown, found) = ends
    assert np.isnan(step.logits(overflown, X)).any()
    assert (step.logits(found, X) == step.logits(expected, X)).all()


def test_a_unit_is_kept_by_its_share_of_the_draws(step: ModuleType) -> None:
    """Of all draws that there are, the share is exact, all of them or nearly none included."""
    draws = np.arange(1 << 16, dtype=np.uint16)
    keep = [1, 0.75, 2**-16]
    places = step.Places.of(keep, [1, 1, 1])
    shares = (draws <= places.limit).mean(axis=2)[:, 0]
    assert (shares == keep).all()
    np.testing.assert_allclose(places.scale[:, 0, 0] * keep, 1)


def drawn_weights(count: int) -> tuple[Any, Any, Any]:
    """Return first and second layers of networks, and 12 rows."""
    rng = np.random.default_rng(0)
    shapes = (count, _U, _D), (count, _U, 3), (12, _D)
    inner, outer, X = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return inner, outer, X


def trained(step: ModuleType, states: list[Any], X: Any) -> tuple[Any, ...]:
    """Return networks without dropout after some steps."""
    places = step.Places.of([1.0] * len(states), [0.01] * len(states))
    moved = tuple(states)
    for batch in batches(step, 3):
        moved = step.step(moved, X, batch, places)
    return moved
