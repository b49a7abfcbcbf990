"""Networks that are trained by gradient descent above a cut, whole, or from scratch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
from keras import layers

from headstart.extract._keras_engine import gpus
from headstart.heads.adam import FusedAdam
from headstart.heads.products import with_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    Single = NDArray[np.float32]

_PREDICTED = 64  # rows at a time


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    epochs
        At most: training ends when the loss on held-out training rows has not fallen for
        `patience` epochs, and the best weights are kept.
    patience
    learning_rate
        Of Adam.
    batch_size
    seed
        Of the order of the rows, and of whatever the network draws.
    """

    epochs: int = 5
    patience: int = 2
    learning_rate: float = 1e-4
    batch_size: int = 32
    seed: int = 0

    def for_share(self, share: float) -> Recipe:
        """Return the recipe for a share of the rows: as many steps, so more epochs.

        Examples
        --------
        >>> Recipe(epochs=20, patience=4).for_share(0.25).epochs
        80
        """
        longer = {name: round(getattr(self, name) / share) for name in ("epochs", "patience")}
        return replace(self, **longer)


@dataclass(frozen=True)
class Trained:
    """What a training cost: epochs that were run, parameters that were trained."""

    epochs: int
    parameters: int


class Examples(Protocol):
    """What a network is trained on, a row each: an array, or what reads one batch at a time."""

    def __getitem__(self, rows: Int, /) -> NDArray[Any]:
        """Return some rows."""


@dataclass(frozen=True)
class Picked:
    """Some rows of an array, perhaps of a memory map: they are read when they are asked for.

    Attributes
    ----------
    array : ndarray of shape (n, ...)
    numbers : ndarray of shape (m,)
        Which rows of it these are.
    """

    array: NDArray[Any]
    numbers: Int

    def __getitem__(self, rows: Int, /) -> NDArray[Any]:
        """Return some of the rows."""
        found: NDArray[Any] = self.array[self.numbers[rows]]
        return found


def tail(base: Any, cut: str, classes: int, *, train_bn: bool = False) -> Any:
    """Return the network above a cut: activations there to class probabilities.

    The layers above the cut keep their pretrained weights and are trained; those below are no
    part of it. Above the last layer there is the classifier only. On TensorFlow without a GPU,
    convolutions of small maps are run as products of matrices.

    Parameters
    ----------
    base : keras.Model
        What `headstart.extract.base.keras_base` returns. Its layers are shared.
    cut : str
        Name of a layer that all paths go through, as ``mixed8``.
    classes : int
    train_bn : bool
        Train batch normalisation too; else it stays in inference mode, as it is.
    """
    start = base.get_layer(cut).output
    maps = keras.Input(start.shape[1:])
    if start is base.output:
        return keras.Model(maps, _classifier(maps, classes))
    body = keras.Model(start, base.output)
    _release(body, train_bn=train_bn)
    if _products_are_faster():
        body = with_products(body)
    return keras.Model(maps, _classifier(body(maps), classes))


def whole(base: Any, classes: int, *, train_bn: bool = False) -> Any:
    """Return the whole base with a classifier, from uint8 pixels; all of it is trained."""
    pixels = keras.Input(base.input_shape[1:], dtype="uint8")
    model = keras.Model(pixels, _classifier(base(_scaled(pixels)), classes))
    _release(base, train_bn=train_bn)
    return model


def above(base: Any, cut: str, classes: int) -> Any:
    """Return the same network as `tail`, from uint8 pixels, frozen up to the cut.

    This is how fine-tuning is usually run: every step runs the frozen part again.
    """
    model = whole(base, classes)
    found = False
    for layer in base.layers:
        layer.trainable = layer.trainable and found
        found = found or layer.name == cut
    return model


def convnet(size: int, classes: int, *, augment: bool = False) -> Any:
    """Return the usual small network for training from scratch, from uint8 pixels.

    Three convolutions (16, 32, 64 channels), each with max pooling, a dense layer of 512.

    Parameters
    ----------
    augment : bool
        Flip, turn, shift and zoom the training pictures at random.
    """
    steps = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)]
    steps += [layers.RandomTranslation(0.1, 0.1), layers.RandomZoom(0.2)]
    model = keras.Sequential([keras.Input((size, size, 3), dtype="uint8")])
    model.add(layers.Rescaling(1 / 255))
    for step in steps if augment else []:
        model.add(step)
    for channels in (16, 32, 64):
        model.add(layers.Conv2D(channels, 3, activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.Dense(classes, activation="softmax"))
    return model


def before_classifier(model: Any, X: Examples, rows: Int) -> Single:
    """Return what the last layer of a network is given for some rows, ``(m, channels)``."""
    return probabilities(keras.Model(model.input, model.layers[-2].output), X, rows)


def start_classifier(model: Any, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
    """Give the last layer the weights of a logistic regression, ``(k, channels)`` and ``(k,)``."""
    if len(coef) == 1:  # of two classes, the first has score 0
        coef = np.concatenate([np.zeros_like(coef), coef])
        intercept = np.concatenate([np.zeros_like(intercept), intercept])
    model.layers[-1].set_weights([coef.T, intercept])


def train(model: Any, X: Examples, codes: Int, *, rows: Int, held: Int, recipe: Recipe) -> Trained:
    """Train a network on some rows of X, until the loss on others stops falling.

    Parameters
    ----------
    model : keras.Model
        With class probabilities as output.
    X : ndarray of shape (n, ...), or Picked
        Only a batch is asked for at a time.
    codes : ndarray of shape (n,)
        Class numbers.
    rows, held : ndarray of int
        Rows to train on, and rows that decide when to stop.
    """
    compile_for_training(model, recipe.learning_rate)
    stop = keras.callbacks.EarlyStopping(patience=recipe.patience, restore_best_weights=True)
    history = model.fit(
        Batches(X, codes, rows, recipe.batch_size, seed=recipe.seed),
        validation_data=Batches(X, codes, held, recipe.batch_size),
        epochs=recipe.epochs,
        callbacks=[stop],
        verbose=0,
    )
    parameters = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return Trained(len(history.epoch), parameters)


def compile_for_training(model: Any, learning_rate: float) -> None:
    """Compile with Adam, in one pass, and the cross-entropy; on CPUs XLA is slower."""
    model.compile(
        optimizer=FusedAdam(learning_rate),
        loss="sparse_categorical_crossentropy",
        jit_compile=bool(gpus()),
    )


def probabilities(model: Any, X: Examples, rows: Int) -> Single:
    """Return class probabilities of some rows ``(m, k)``."""
    parts = [rows[first : first + _PREDICTED] for first in range(0, len(rows), _PREDICTED)]
    return np.concatenate([np.asarray(model.predict_on_batch(ready(X[part]))) for part in parts])


def timed_probabilities(model: Any, X: Examples, rows: Int) -> tuple[Single, float]:
    """Return class probabilities of some rows, and their seconds once programs are compiled.

    A batch of each size is predicted before the clock starts.
    """
    probabilities(model, X, rows[:_PREDICTED])
    probabilities(model, X, rows[(len(rows) - 1) // _PREDICTED * _PREDICTED :])
    started = time.perf_counter()
    return probabilities(model, X, rows), time.perf_counter() - started


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Rows of an array, batch by batch, in an order of each epoch's own where there is a seed."""

    def __init__(
        self, X: Examples, codes: Int, rows: Int, batch_size: int, *, seed: int | None = None
    ) -> None:
        super().__init__()
        self._X, self._codes, self._rows, self._size = X, codes, np.array(rows), batch_size
        self._shuffle = None if seed is None else np.random.default_rng(seed).shuffle
        self.on_epoch_end()

    def __len__(self) -> int:
        """Return the number of batches."""
        return int(np.ceil(len(self._rows) / self._size))

    def __getitem__(self, number: int) -> tuple[NDArray[Any], Int]:
        """Return one batch: pixels as they are, features in float32."""
        rows = self._rows[number * self._size : (number + 1) * self._size]
        return ready(self._X[rows]), self._codes[rows]

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        if self._shuffle is not None:
            self._shuffle(self._rows)


def ready(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows in the dtype a network takes: uint8 pixels stay, float16 becomes float32."""
    return rows if rows.dtype == np.uint8 else rows.astype(np.float32)


def _products_are_faster() -> bool:
    """Return whether convolutions are TensorFlow's on CPU cores; JAX's are faster than products."""
    return keras.backend.backend() == "tensorflow" and not gpus()


def _classifier(maps: Any, classes: int) -> Any:
    flat = layers.GlobalAveragePooling2D()(maps)
    return layers.Dense(classes, activation="softmax", name="classifier")(flat)


def _scaled(pixels: Any) -> Any:
    return layers.Rescaling(1 / 127.5, offset=-1)(pixels)


def _release(model: Any, *, train_bn: bool) -> None:
    """Let every layer be trained, batch normalisation only if asked for."""
    for layer in model.layers:
        layer.trainable = train_bn or not isinstance(layer, layers.BatchNormalization)
