"""Views: Keras' own layers' meaning, and the same picture always the same views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from headstart._keras import import_keras
from headstart.errors import DataError
from headstart.extract.augment import Augmentation

SIZE = 64
STILL: dict[str, Any] = {
    "flip": 0.0,
    "crop": 0.0,
    "rotation": 0.0,
    "zoom": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}
DIGEST = b"a" * 64


def painted(seed: int = 0) -> Any:
    """Return a smooth picture without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4)), np.float64)
    return np.clip((soft - 128) * 4 + 128, 0, 255).astype(np.uint8)


def drawn(**values: float) -> Any:
    """Return what is drawn: nothing but these."""
    names = ["flip", "rotation", "zoom", "crop", "down", "right", "brightness", "contrast"]
    still = {"flip": 1.0, "down": -1.0, "right": -1.0}
    return np.array([(still | values).get(name, 0.0) for name in names])


def keras_says(layer: str, *arguments: Any, **options: Any) -> Any:
    """Return what a layer of Keras makes of the picture."""
    keras = import_keras()
    made = getattr(keras.layers, layer)(*arguments, **options)
    result = made(painted()[None].astype(np.float32), training=True)
    return np.clip(np.asarray(keras.ops.convert_to_numpy(result))[0], 0, 255)


def distance(a: Any, b: Any) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_a_mirror_image_is_exact() -> None:
    """Flipped left to right, pixel for pixel."""
    some = Augmentation(**STILL | {"flip": 1.0})
    assert np.array_equal(some.changed(painted(), drawn(flip=-1.0)), painted()[:, ::-1])
    assert np.array_equal(some.changed(painted(), drawn(flip=0.9)), painted()[:, ::-1])
    never = Augmentation(**STILL)
    assert np.array_equal(never.changed(painted(), drawn(flip=-1.0)), painted())


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "factor", "layer", "given"),
    [
        ("rotation", 0.08, "RandomRotation", (0.08, 0.08)),
        ("zoom", 0.3, "RandomZoom", (0.3, 0.3)),
        ("brightness", 0.2, "RandomBrightness", (0.2, 0.2)),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_it_is_what_keras_layers_do(
    name: str, factor: float, layer: str, given: Any, sign: int
) -> None:
    """The same rotation, zoom and brightness as the layer of Keras at that very factor."""
    ours = Augmentation(**STILL | {name: factor}).changed(painted(), drawn(**{name: sign}))
    theirs = keras_says(layer, tuple(sign * one for one in given))
    assert distance(painted(), theirs) > 8
    assert distance(ours, theirs) < 1.5


def test_contrast_stretches_distances_from_the_mean() -> None:
    """By the formula of Keras' RandomContrast, which has no fixed factor to be held to."""
    ours = Augmentation(**STILL | {"contrast": 0.5}).changed(painted(), drawn(contrast=1.0))
    mean = painted().mean((0, 1))
    assert distance(ours, np.clip((painted() - mean) * 1.5 + mean, 0, 255)) < 0.6


def test_a_crop_is_a_part_stretched() -> None:
    """A corner of the picture, brought to its size, as Pillow resizes a box."""
    ours = Augmentation(**STILL | {"crop": 0.5}).changed(painted(), drawn(crop=1.0))
    box = (0, 0, SIZE / 2, SIZE / 2)
    theirs = Image.fromarray(painted()).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
    assert distance(ours, np.asarray(theirs)) < 1


@settings(deadline=None, max_examples=30)
@given(number=st.integers(1, 255), seed=st.integers(0, 5), picture=st.integers(0, 5))
def test_a_view_is_always_the_same(number: int, seed: int, picture: int) -> None:
    """It depends on the picture's bytes, its number and the augmentation; and each is another."""
    some, pixels = Augmentation(seed=seed), painted(picture)
    view = some.view(pixels, DIGEST, number)
    assert view.shape == pixels.shape
    assert view.dtype == np.uint8
    assert np.array_equal(view, Augmentation(seed=seed).view(pixels, DIGEST, number))
    assert np.array_equal(some.view(pixels, DIGEST, 0), pixels)
    others = [
        some.view(pixels, DIGEST, number - 1),
        some.view(pixels, b"b" * 64, number),
        Augmentation(seed=seed + 1).view(pixels, DIGEST, number),
    ]
    assert not any(np.array_equal(view, other) for other in others)


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_no_hole_at_the_edges(values: list[float]) -> None:
    """What comes from outside the picture is its mirror image, however far it is moved."""
    most = Augmentation(flip=1, crop=0.5, rotation=0.5, zoom=0.9, brightness=0, contrast=0)
    bright = np.full((SIZE, SIZE, 3), 200, np.uint8)
    assert most.changed(bright, np.array(values)).min() == 200


def test_it_goes_through_json_and_text() -> None:
    """Both ways; what is not named is as by default."""
    some = Augmentation.parse("rotation=0.2, flip=0,seed=7")
    assert some == Augmentation(rotation=0.2, flip=0.0, seed=7)
    assert Augmentation.from_json(some.to_json()) == some


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rotation=2", "rotation is from 0 to 0.5; found 2.0"),
        ("zoom=nan", "zoom is from 0"),
        ("seed=-1", "seed is a whole number"),
        ("shear=1", "nothing is called 'shear'; there are flip, crop"),
        ("flip", "expected NAME=NUMBER; found 'flip'"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Augmentation.parse(text)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"rule":"affine-9","flip":1}'])
def test_another_rule_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"augmentation is not JSON|another rule"):
        Augmentation.from_json(text)
