"""Adam in one pass over memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart._keras import import_keras

pytestmark = pytest.mark.tensorflow


def trained(optimizer: Any) -> list[Any]:
    """Return the weights of a small network after some steps."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer, "mse")
    draw = np.random.default_rng(0)
    X = draw.normal(size=(16, 3)).astype(np.float32)
    y = draw.normal(size=(16, 2)).astype(np.float32)
    for _ in range(10):
        model.train_on_batch(X, y)
    return [*model.get_weights(), *map(np.asarray, model.optimizer.variables)]


def test_steps_are_those_of_adam() -> None:
    """Weights and moments after ten steps are Keras' own, to float32's accuracy."""
    keras = import_keras()
    from headstart.heads.adam import FusedAdam

    expected = trained(keras.optimizers.Adam(0.01, epsilon=1e-5))
    for ours, theirs in zip(trained(FusedAdam(0.01, epsilon=1e-5)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
