"""The frozen base: pixels in, activations at the cut out."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._hardware import gpu_capability
from headstart._keras import import_keras
from headstart.errors import HeadstartError
from headstart.extract._arrays import Arrays, read_arrays
from headstart.extract._graph import Conv, Norm, scale_input, shapes, simplify
from headstart.extract._inception import blank, convolutions, inception_v3, keras_order
from headstart.extract._turns import Turns
from headstart.extract.engines import (
    CENTRE,
    Program,
    is_out_of_memory,
    resolve_engine,
    resolve_precision,
    start_engine,
)
from headstart.extract.layers import LayerInfo, check_layers, check_size, layer_table
from headstart.extract.weights import random_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headstart.extract._graph import Graph
    from headstart.extract.engines import Engine
    from headstart.extract.weights import WeightsFile

__all__ = [
    "BATCH_SIZE",
    "Base",
    "LayerInfo",
    "batch_seconds",
    "import_keras",
    "keras_base",
    "kernel_shapes",
    "layer_table",
    "load_arrays",
    "load_base",
    "plain_settings",
    "resolve_engine",
    "resolve_precision",
    "spread",
]

BATCH_SIZE = 32  # pictures in one pass


class Base:
    """The pretrained network, frozen and cut.

    Every batch that reaches the device holds `batch_size` pictures, the last ones padded, so that
    one program is compiled and a picture's features do not depend on its company. When the device
    runs out of memory, `batch_size` is halved and the batch tried again, with no other beside it,
    until one picture alone does not fit. As many threads may call it as `at_once` says.

    Attributes
    ----------
    layers
        The layers it is cut at.
    digest
        SHA-256 in hex of the weights as loaded; the same whatever file they came in.
    engine
        What runs it: ``keras`` or ``openvino``; it is started by the first batch.
    shapes
        Layer to the shape of one picture's features.
    """

    def __init__(
        self, program: Program, *, engine: str, digest: str, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self.layers = program.graph.outputs
        self.engine = engine
        self.digest = digest
        self.shapes = shapes
        self._program = program
        self._engine: Engine | None = None
        self._lock, self._turns = threading.Lock(), Turns()

    @property
    def at_once(self) -> int:
        """The number of batches it is best given side by side, each by a thread."""
        return int(self._module.at_once())

    @property
    def per_core(self) -> bool:
        """Whether each of `at_once` batches keeps to one core, and they to all.

        Threads that decode may then compute as well, so that no more of them work than there are
        cores. Otherwise whoever computes waits, for a GPU or for other threads.
        """
        return bool(self._module.per_core())

    @property
    def _module(self) -> Any:
        """What knows how the engine is best used; only now is its framework loaded."""
        if self.engine == "openvino":
            from headstart.extract import _openvino_engine

            return _openvino_engine
        from headstart.extract import _keras_engine

        return _keras_engine

    @property
    def precision(self) -> str:
        """What it computes in: ``float32`` or ``bfloat16``."""
        return self._program.precision

    @property
    def batch_size(self) -> int:
        """The number of pictures the device takes at once."""
        return self._program.batch_size

    def on(self, device: str) -> Base:
        """Make a copy of it that runs on a device, by Keras' name for that, such as ``gpu:1``."""
        program = replace(self._program, device=device)
        return Base(program, engine=self.engine, digest=self.digest, shapes=self.shapes)

    def __repr__(self) -> str:
        """Show what matters of it."""
        return (
            f"Base({', '.join(self.layers)}; {self.engine}, {self.precision}, "
            f"batch_size={self.batch_size})"
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        r"""Compute the features of some pictures.

        Parameters
        ----------
        pixels
            (b, size, size, 3) uint8, b at least 1; best `batch_size`.

        Returns
        -------
        dict
            Layer to (b, \*shape) float32.

        Raises
        ------
        HeadstartError
            When not even one picture fits into memory.
        """
        parts: list[dict[str, NDArray[np.float32]]] = []
        done = 0
        while done < len(pixels):
            parts.append(self._part(pixels[done:]))
            done += len(parts[-1][self.layers[0]])
        if len(parts) == 1:
            return parts[0]
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in self.layers}

    def _part(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the first of these pictures, as many as fit into memory."""
        program = self._program
        with self._turns.beside():
            found = self._tried(pixels)
        if found is None:
            with self._turns.alone():  # no other thread holds what it lacks
                if program is self._program:  # nor has halved it meanwhile
                    self._halve()
                while found is None:
                    gc.collect()  # engines whose programs hold them, such as Keras'
                    found = self._tried(pixels, alone=True)
        return found

    def _tried(
        self, pixels: NDArray[np.uint8], *, alone: bool = False
    ) -> dict[str, NDArray[np.float32]] | None:
        """Run a batch; None for lack of memory: where it was `alone`, the next one is smaller."""
        try:
            return self._batch(pixels)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if alone and self.batch_size == 1:
                size = self._program.size
                raise HeadstartError(
                    f"Not even one picture of {size}x{size} pixels fits into memory. Free some, or "
                    "take a smaller --size or an earlier --layer."
                ) from error
            if alone:
                self._halve()
        return None

    def _batch(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the first of these pictures, up to `batch_size`, padded to as many."""
        program, engine = self._started()
        count = min(len(pixels), program.batch_size)
        batch = pixels[:count]
        if count < program.batch_size:
            padding = np.zeros((program.batch_size - count, *pixels.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        return {layer: array[:count] for layer, array in engine(batch).items()}

    def _started(self) -> tuple[Program, Engine]:
        """Return the program and its engine, started by whoever needs it first."""
        with self._lock:
            if self._engine is None:
                self._engine = start_engine(self.engine, self._program)
            return self._program, self._engine

    def _halve(self) -> None:
        """Let go of the engine, and make batches half as large; no other thread may be in it."""
        if self.batch_size > 1:
            self._engine = None
            self._program = replace(self._program, batch_size=self.batch_size // 2)


def batch_seconds(base: Base, batches: Sequence[NDArray[np.uint8]]) -> float:
    """Measure what a batch takes as in a run, with as many side by side as the base is best given.

    Parameters
    ----------
    batches
        Each (b, size, size, 3) uint8. Before them the first one is computed, untimed: it starts the
        engine.

    Returns
    -------
    float
        Seconds, the median over batches.
    """
    taken = []
    with concurrent.futures.ThreadPoolExecutor(base.at_once) as threads:
        for batch in [batches[0], *batches]:
            started = time.perf_counter()
            list(threads.map(base, [batch] * base.at_once))
            taken.append((time.perf_counter() - started) / base.at_once)
    return float(np.median(taken[1:]))


def load_base(
    weights: WeightsFile,
    *,
    size: int,
    layers: Sequence[str],
    pool: str = "none",
    precision: str = "float32",
    batch_size: int = BATCH_SIZE,
    engine: str = "keras",
) -> Base:
    """Load the base's weights, cut it and make it ready to run.

    Parameters
    ----------
    weights
        What `find_weights` found.
    size
        Input height and width, in pixels.
    layers
        Layers to cut at, all computed in one pass.
    pool
        ``none`` keeps the map; ``avg`` and ``max`` reduce it to one number a channel, on the
        device.
    precision
        ``float32``, ``bfloat16``, or ``auto`` for what `resolve_precision` makes of it.
    batch_size
        Pictures in one batch.
    engine
        ``keras``, ``openvino``, or ``auto`` for what `resolve_engine` makes of it.

    Raises
    ------
    LayerError
        When a layer is unknown or `size` is below 75.
    WeightsError
        When the file holds other weights than this network's.
    MissingExtraError
        When the engine is not installed.
    """
    check_size(size)
    check_layers(layers)
    if pool not in ("none", "avg", "max"):
        raise HeadstartError(f"--pool {pool}: expected none, avg or max.")
    engine, precision = resolve_engine(engine), resolve_precision(precision)
    arrays = load_arrays(weights)
    graph = _with_weights(arrays).cut(dict.fromkeys(layers))
    extent = shapes(graph, size)
    first = 0 if pool == "none" else 2  # pooling leaves the channels alone
    program = Program(scale_input(simplify(graph), 1 / CENTRE), size, batch_size, pool, precision)
    found = {name: tuple(extent[name][first:]) for name in graph.outputs}
    return Base(program, engine=engine, digest=arrays.digest(), shapes=found)


def spread(base: Base) -> list[Base]:
    """Make a copy of the base for every GPU; itself is enough where there is one, or none."""
    if base.engine != "keras" or gpu_capability() is None:
        return [base]
    from headstart.extract._keras_engine import gpus

    devices = gpus()
    return [base.on(device) for device in devices] if len(devices) > 1 else [base]


def load_arrays(weights: WeightsFile) -> Arrays:
    """Read, or draw, the base's arrays and see that they fit the network.

    Raises
    ------
    WeightsError
        When the file holds other weights than this network's.
    """
    if weights.arrays is not None:
        return weights.arrays
    network, expected = inception_v3(blank), kernel_shapes()
    if weights.path is None:
        return random_arrays(expected, random_seed(weights.name))
    order = keras_order(network, Conv), keras_order(network, Norm)
    arrays = read_arrays(weights.path, order)
    arrays.check_shapes(weights.path, expected)
    return arrays


def kernel_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of the base's kernels, in the order of creation."""
    return [conv.kernel.shape for conv in convolutions(inception_v3(blank))]


def _with_weights(arrays: Arrays) -> Graph:
    layers = zip(arrays.kernels, arrays.norms, strict=True)
    return inception_v3(lambda _: next(layers))


def random_arrays(shapes: Sequence[tuple[int, ...]], seed: int) -> Arrays:
    """Draw weights under which activations keep their scale from the input to the last layer.

    Kernels are normal with variance 2 / fan-in (He), which keeps a rectified signal's power;
    batch normalisation is near the identity, each of its numbers a little off so that mixing
    them up shows.
    """
    draw = np.random.default_rng(seed)
    kernels, norms = [], []
    for shape in shapes:
        scale = math.sqrt(2 / math.prod(shape[:3]))
        kernels.append(draw.standard_normal(shape, np.float32) * np.float32(scale))
        norm = draw.standard_normal((3, shape[3]), np.float32) * np.float32(0.1)
        norm[2] = 1 + np.abs(norm[2])
        norms.append(norm)
    return Arrays(tuple(kernels), tuple(norms))


def keras_base(weights: WeightsFile, *, size: int) -> Any:
    """Build the base as the ``keras.Model`` Keras itself makes of it, to train above a cut or join.

    Parameters
    ----------
    weights
        What `find_weights` found.
    size
        Input height and width, in pixels.

    Returns
    -------
    keras.Model
        ``keras.applications.InceptionV3`` without its top, with these weights, float32 and
        channels-last; from pixels scaled to [-1, 1].

    Raises
    ------
    LayerError
        When `size` is below 75.
    WeightsError
        When the file holds other weights than this network's.
    """
    check_size(size)
    arrays, network = load_arrays(weights), inception_v3(blank)
    keras = import_keras()
    with plain_settings(keras.config):
        model = keras.applications.InceptionV3(
            weights=None, include_top=False, input_shape=(size, size, 3)
        )
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for position, kernel in zip(keras_order(network, Conv), arrays.kernels, strict=True):
        convs[position].set_weights([kernel])
    for position, values in zip(keras_order(network, Norm), arrays.norms, strict=True):
        norms[position].set_weights(list(values))
    return model


@contextlib.contextmanager
def plain_settings(config: Any) -> Iterator[None]:
    """Build float32, channels-last layers, whatever the user's Keras settings are."""
    policy, layout = config.dtype_policy(), config.image_data_format()
    config.set_dtype_policy("float32")
    config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        config.set_dtype_policy(policy)
        config.set_image_data_format(layout)
