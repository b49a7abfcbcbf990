"""Run the base with Keras, on whichever backend it has."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._hardware import cores
from headstart._keras import import_keras
from headstart.extract._graph import (
    INPUT,
    Channels,
    Concat,
    Conv,
    Norm,
    Operation,
    Pool,
    Relu,
)
from headstart.extract.engines import CENTRE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headstart.extract.engines import Program

_FEW = 4  # cores, each of which has a batch


class KerasEngine:
    """A program compiled by Keras' backend, its weights constants of it.

    Constants let TensorFlow lay the weights out once for its kernels, where variables would be
    laid out anew at every batch. On few processor cores TensorFlow runs a batch in the thread that
    brings it: its own threads wait for each other once a layer, and get into the way of those that
    decode.
    """

    def __init__(self, program: Program) -> None:
        self._keras = import_keras()
        self._program = program
        if program.precision == "float32":
            _forbid_tf32(self._keras.backend.backend())
        self._run = self._compile()

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run one full batch; see `Engine`."""
        return self._run(pixels)

    def _compile(self) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
        """Compile for TensorFlow (by XLA on a GPU alone: it loses on a CPU) and JAX."""
        backend, device, ops = self._keras.backend.backend(), self._program.device, self._keras.ops
        if per_core() and not device:
            return self._in_callers()
        if backend == "tensorflow":
            tensorflow = importlib.import_module("tensorflow")
            compiled = tensorflow.function(self._forward, autograph=False, jit_compile=bool(gpus()))
        elif backend == "jax":
            compiled = importlib.import_module("jax").jit(self._forward)
        else:
            compiled = self._forward

        def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            with self._keras.device(device) if device else contextlib.nullcontext():
                outputs = compiled(ops.convert_to_tensor(pixels))
            return {name: ops.convert_to_numpy(output) for name, output in outputs.items()}

        return run

    def _in_callers(self) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
        """Make a session whose every run stays in the thread that calls it.

        Its pool of threads is its own if `import_keras` came before TensorFlow's first operation;
        else it is that of the process, and a run takes a few percent longer.
        """
        tensorflow = importlib.import_module("tensorflow")
        v1, program, graph = tensorflow.compat.v1, self._program, tensorflow.Graph()
        with graph.as_default():
            shape = (program.batch_size, program.size, program.size, 3)
            pixels = v1.placeholder(tensorflow.uint8, shape)
            outputs = self._forward(pixels)
        config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=-1)
        session = v1.Session(graph=graph, config=config)
        return lambda batch: session.run(outputs, {pixels: batch})

    def _forward(self, pixels: Any) -> dict[str, Any]:
        """Trace the program from uint8 pixels to float32 outputs."""
        ops, graph = self._keras.ops, self._program.graph
        tensors = {INPUT: self._cast(ops.cast(pixels, "float32") - CENTRE)}
        for step in graph.steps.values():
            tensors[step.name] = self._apply(step.operation, [tensors[n] for n in step.inputs])
        return {name: self._pooled(ops.cast(tensors[name], "float32")) for name in graph.outputs}

    def _cast(self, array: Any) -> Any:
        return self._keras.ops.cast(array, self._program.precision)

    def _apply(self, operation: Operation, inputs: Sequence[Any]) -> Any:
        ops, x = self._keras.ops, inputs[0]
        match operation:
            case Conv():
                return self._conv(operation, x)
            case Pool(kind=kind, size=size, strides=strides, padding=padding):
                pool = ops.max_pool if kind == "max" else ops.average_pool
                return pool(x, size, strides, padding, data_format="channels_last")
            case Norm(scale=scale, offset=offset):
                return x * self._constant(scale) + self._constant(offset)
            case Relu():
                return ops.relu(x)
            case Concat():
                return ops.concatenate(inputs, axis=-1)
            case Channels(start=start, stop=stop):
                return x[..., start:stop]
        raise TypeError(operation)

    def _conv(self, conv: Conv, x: Any) -> Any:
        ops = self._keras.ops
        convolve = ops.depthwise_conv if conv.depthwise else ops.conv
        kernel = self._constant(conv.kernel)
        x = convolve(x, kernel, conv.strides, conv.padding, data_format="channels_last")
        x = ops.add(x, self._constant(conv.bias))
        return ops.relu(x) if conv.relu else x

    def _constant(self, array: NDArray[np.floating]) -> Any:
        return self._cast(self._keras.ops.convert_to_tensor(array.astype(np.float32)))

    def _pooled(self, activations: Any) -> Any:
        """Reduce maps to what the program asks for.

        An average is a sum over one axis: TensorFlow takes longer for its own mean, which divides
        each number.
        """
        ops, pool = self._keras.ops, self._program.pool
        if pool == "none":
            return activations
        if pool == "max":
            return ops.max(activations, axis=(1, 2))
        batch, height, width, channels = activations.shape
        rows = ops.reshape(activations, (batch, height * width, channels))
        return ops.sum(rows, axis=1) / (height * width)


def at_once() -> int:
    """Return the number of batches that are best run side by side, each by a thread.

    One for each of a few processor cores. On more TensorFlow's threads wait for each other once a
    layer, and a second batch has work for those that wait; it is not measured for other backends.
    Each takes memory of its own, about 210 MB for 32 pictures of 150x150.
    """
    if per_core():
        return cores()
    return 2 if _on_processors() else 1


def per_core() -> bool:
    """Tell whether each batch keeps to one core."""
    return cores() <= _FEW and _on_processors()


def _on_processors() -> bool:
    """Tell whether TensorFlow runs the base, on processors."""
    return import_keras().backend.backend() == "tensorflow" and not gpus()


def gpus() -> list[str]:
    """List the GPUs that Keras' backend sees, by the names that Keras gives them."""
    keras = import_keras()
    backend = keras.backend.backend()
    library = importlib.import_module(backend)
    if backend == "jax":
        return [
            f"gpu:{device.id}" for device in library.local_devices() if device.platform == "gpu"
        ]
    if backend == "torch":
        return [f"cuda:{i}" for i in range(library.cuda.device_count())]
    return list(keras.distribution.list_devices("gpu"))


def _forbid_tf32(backend: str) -> None:
    """Let float32 be float32 in this process: GPUs round its factors to 10 bits by default."""
    library = importlib.import_module(backend)
    if backend == "tensorflow":
        library.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        library.config.update("jax_default_matmul_precision", "highest")
    else:
        library.backends.cudnn.allow_tf32 = False
        library.backends.cuda.matmul.allow_tf32 = False
