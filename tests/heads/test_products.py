"""Convolutions over small maps as products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart._keras import import_keras

pytestmark = pytest.mark.tensorflow


def small_network(keras: Any) -> Any:
    """Return a network of convolutions over 3x3 maps, one of them frozen."""
    maps = keras.Input((3, 3, 4))
    found = keras.layers.Conv2D(5, (3, 3), padding="same", use_bias=False, name="large")(maps)
    found = keras.layers.BatchNormalization(name="norm")(found)
    frozen = keras.layers.Conv2D(6, (1, 1), use_bias=False, name="frozen")(found)
    branch = keras.layers.Conv2D(6, (1, 3), padding="same", use_bias=False, name="row")(found)
    model = keras.Model(maps, keras.layers.Concatenate(name="both")([frozen, branch]))
    model.get_layer("frozen").trainable = False
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 1), (3, 3), (1, 7), (5, 3)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (5, 4)])
def test_products_are_the_convolution(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    """Whatever part of the kernel lies outside of the map."""
    keras = import_keras()
    from headstart.heads.products import convolved

    draw = np.random.default_rng(0)
    maps = draw.normal(size=(2, *size, 6)).astype(np.float32)
    weights = draw.normal(size=(*kernel, 6, 4)).astype(np.float32)
    found = convolved(keras.ops.convert_to_tensor(maps), keras.ops.convert_to_tensor(weights))
    expected = keras.ops.conv(maps, weights, padding="same", data_format="channels_last")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_keeps_its_layers_and_weights() -> None:
    """The same answers; weights are shared, in their order, and what was frozen stays so."""
    keras = import_keras()
    from headstart.heads.products import Products, with_products

    plain = small_network(keras)
    ours = with_products(plain)
    products = [layer.name for layer in ours.layers if isinstance(layer, Products)]
    assert products == ["large", "frozen", "row"]
    maps = np.random.default_rng(1).normal(size=(7, 3, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(ours(maps), plain(maps), atol=1e-4)
    assert [id(weight) for weight in ours.weights] == [id(weight) for weight in plain.weights]
    assert [id(weight) for weight in ours.trainable_weights] == [
        id(weight) for weight in plain.trainable_weights
    ]


def test_training_is_the_same() -> None:
    """Losses and weights after some steps are those of the convolutions, to float32's accuracy."""
    keras = import_keras()
    from headstart.heads.products import with_products

    draw = np.random.default_rng(1)
    maps = draw.normal(size=(8, 3, 3, 4)).astype(np.float32)
    wanted = draw.normal(size=(8, 3, 3, 12)).astype(np.float32)
    losses, weights = [], []
    for products in (False, True):
        model = with_products(small_network(keras)) if products else small_network(keras)
        model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
        losses.append([float(model.train_on_batch(maps, wanted)) for _ in range(5)])
        weights.append(model.get_weights())
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    for ours, plain in zip(weights[1], weights[0], strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        (6, (3, 3), {}),
        (3, (3, 3), {"padding": "valid"}),
        (3, (2, 2), {}),
        (3, (3, 3), {"strides": 2}),
        (3, (3, 3), {"dilation_rate": 2}),
        (3, (1, 1), {"groups": 2}),
        (3, (1, 1), {"use_bias": True}),
        (3, (1, 1), {"activation": "relu"}),
    ],
)
def test_other_convolutions_stay(size: int, kernel: tuple[int, int], options: Any) -> None:
    """Those over large maps, and those that do more than multiply and add at each place."""
    keras = import_keras()
    from headstart.heads.products import with_products

    maps = keras.Input((size, size, 4))
    layer = keras.layers.Conv2D(4, kernel, **{"padding": "same", "use_bias": False, **options})
    model = with_products(keras.Model(maps, layer(maps)))
    assert model.layers[-1] is layer


def test_one_pixel_is_a_product_on_maps_of_any_size() -> None:
    """A kernel of one pixel meets no padding."""
    keras = import_keras()
    from headstart.heads.products import Products, with_products

    maps = keras.Input((17, 17, 4))
    layer = keras.layers.Conv2D(4, 1, use_bias=False)
    model = with_products(keras.Model(maps, layer(maps)))
    assert isinstance(model.layers[-1], Products)
