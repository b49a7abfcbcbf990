"""Networks that are trained by gradient descent above a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart._keras import import_keras

pytestmark = pytest.mark.tensorflow
SIZE, CLASSES = 3, 3


@pytest.fixture
def base() -> Any:
    """Return a small base: a block of one pixel's convolutions below the cut, another above it."""
    keras = import_keras()
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3))
    found = keras.layers.Conv2D(4, 1, use_bias=False, name="below")(pixels)
    found = keras.layers.Activation("relu", name="cut")(found)
    found = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name="above")(found)
    found = keras.layers.BatchNormalization(scale=False, name="norm")(found)
    return keras.Model(pixels, keras.layers.Activation("relu", name="top")(found))


@pytest.fixture
def pictures() -> tuple[Any, Any]:
    """Return pixels and class numbers, of which the colour tells most."""
    draw = np.random.default_rng(0)
    codes = np.arange(48) % CLASSES
    pixels = draw.integers(0, 120, (48, SIZE, SIZE, 3))
    pixels[np.arange(48), ..., codes] += 90
    return pixels.astype(np.uint8), codes


def features(base: Any, pixels: Any) -> Any:
    """Return what the base gives at the cut, as a store has it."""
    keras = import_keras()
    below = keras.Model(base.input, base.get_layer("cut").output)
    return np.asarray(below(pixels / np.float32(127.5) - 1)).astype(np.float16)


def body(model: Any) -> list[Any]:
    """Return the layers of the base that a network above a cut is made of."""
    return list(model.layers[1].layers)


@pytest.mark.parametrize("gpus", [[], ["gpu:0"]])
def test_small_convolutions_are_products_without_a_gpu(
    base: Any, monkeypatch: pytest.MonkeyPatch, gpus: list[str]
) -> None:
    """A GPU has convolutions of its own; the answers are the same."""
    from headstart.heads import networks
    from headstart.heads.products import Products

    monkeypatch.setattr(networks, "gpus", lambda: gpus)
    model = networks.tail(base, "cut", CLASSES)
    assert [type(layer) is Products for layer in body(model)] == [False, not gpus, False, False]
    maps = np.random.default_rng(0).normal(size=(5, SIZE, SIZE, 4)).astype(np.float32)
    expected = maps
    for name in ("above", "norm", "top"):
        expected = base.get_layer(name)(expected)
    given = np.asarray(expected).mean((1, 2))
    coef = np.random.default_rng(1).normal(size=(CLASSES, 6))
    networks.start_classifier(model, coef, np.zeros(CLASSES))
    found = networks.before_classifier(model, maps, np.arange(5))
    np.testing.assert_allclose(found, given, atol=1e-5)


@pytest.mark.parametrize("train_bn", [False, True])
def test_only_what_is_asked_for_is_trained(
    base: Any, pictures: tuple[Any, Any], train_bn: bool
) -> None:
    """Weights above the cut move, those below stay; batch normalisation moves if it is asked to."""
    from headstart.heads import networks

    pixels, codes = pictures
    X = features(base, pixels)
    model = networks.tail(base, "cut", CLASSES, train_bn=train_bn)
    before = {layer.name: layer.get_weights() for layer in base.layers}
    recipe = networks.Recipe(epochs=2, learning_rate=1e-2, batch_size=16)
    cost = networks.train(
        model, X, codes, rows=np.arange(36), held=np.arange(36, 48), recipe=recipe
    )
    moved = {
        layer.name
        for layer in base.layers
        for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == ({"above", "norm"} if train_bn else {"above"})
    kernel, beta, classifier = 3 * 3 * 4 * 6, 6, (6 + 1) * CLASSES
    assert cost.parameters == kernel + classifier + beta * train_bn


def test_the_best_weights_are_kept(base: Any, pictures: tuple[Any, Any]) -> None:
    """Training that only becomes worse ends after its patience, with the weights of its best."""
    from headstart.heads import networks

    pixels, codes = pictures
    X, rows, held = features(base, pixels), np.arange(36), np.arange(36, 48)
    wrong = np.where(np.arange(48) < 36, codes, (codes + 1) % CLASSES)
    start, weights = np.random.default_rng(0).normal(size=(CLASSES, 6)), base.get_weights()
    costs, found = [], []
    for epochs in (9, 1):
        base.set_weights(weights)
        model = networks.tail(base, "cut", CLASSES)
        networks.start_classifier(model, start, np.zeros(CLASSES))
        recipe = networks.Recipe(epochs=epochs, patience=2, learning_rate=1e-2, batch_size=12)
        costs.append(networks.train(model, X, wrong, rows=rows, held=held, recipe=recipe).epochs)
        found.append(networks.probabilities(model, X, held))
    assert costs == [3, 1]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_losses_are_those_of_keras_end_to_end(base: Any, pictures: tuple[Any, Any]) -> None:
    """From the cache, with products and Adam in one pass, as from pixels with neither."""
    keras = import_keras()
    from headstart.heads import networks

    pixels, codes = pictures
    start = np.random.default_rng(0).normal(size=(CLASSES, 6))
    weights = base.get_weights()
    losses = []
    for make, X in ((networks.tail, features(base, pixels)), (networks.above, pixels)):
        base.set_weights(weights)
        model: Any = make(base, "cut", CLASSES)
        networks.start_classifier(model, start, np.zeros(CLASSES))
        networks.compile_for_training(model, 1e-2)
        if make is networks.above:
            model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
        batches = networks.Batches(X, codes, np.arange(48), 16, seed=0)
        found = []
        for step in range(20):
            found.append(float(model.train_on_batch(*batches[step % 3])))
            model.reset_metrics()
        losses.append(found)
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)
