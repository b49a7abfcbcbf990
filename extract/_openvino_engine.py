"""Run the base with OpenVINO, on CPUs."""

from __future__ import annotations

import math
import queue
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import openvino
from openvino import opset13 as ops

from headstart._hardware import cores
from headstart.extract._graph import (
    INPUT,
    Channels,
    Concat,
    Conv,
    Norm,
    Operation,
    Pair,
    Pool,
    Relu,
)
from headstart.extract.engines import CENTRE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from headstart.extract.engines import Program

_HINT = {"float32": "f32", "bfloat16": "bf16"}
_MOST = 8  # batches at once
_PADDING = {"same": "same_upper", "valid": "valid"}


class OpenVINOEngine:
    """A program compiled by OpenVINO, which keeps channels first inside.

    As many threads as `at_once` says may run a batch each, beside each other, each on its own share
    of the cores: of up to eight, on one. Threads that have a core each never wait for each other.
    """

    def __init__(self, program: Program) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINT[program.precision],
            "INFERENCE_NUM_THREADS": cores(),  # by itself OpenVINO leaves some idle
            "NUM_STREAMS": at_once(),
            "ENABLE_CPU_PINNING": False,  # other processes would choose the same cores
        }
        compiled = openvino.Core().compile_model(_model(program), "CPU", settings)
        self._program = program
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(at_once()):
            self._free.put(compiled.create_infer_request())

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run one full batch; see `Engine`."""
        request = self._free.get()
        try:
            outputs = request.infer([np.ascontiguousarray(pixels)], share_inputs=True)  # copied
            return {name: outputs[i] for i, name in enumerate(self._program.graph.outputs)}
        finally:
            self._free.put(request)


def at_once() -> int:
    """Return the number of batches to run side by side: one a core, where there are few.

    Each takes memory of its own, about 25 MB for 32 pictures of 150x150.
    """
    threads = cores()
    return max(n for n in range(1, _MOST + 1) if threads % n == 0)


def per_core() -> bool:
    """Tell whether each batch keeps to one core."""
    return at_once() == cores()


def _model(program: Program) -> Any:
    graph, size = program.graph, program.size
    pixels = ops.parameter([program.batch_size, size, size, 3], np.uint8)
    first = ops.transpose(pixels, _constant([0, 3, 1, 2], np.int64))
    nodes = {INPUT: ops.subtract(ops.convert(first, np.float32), _constant(CENTRE))}
    for step in graph.steps.values():
        nodes[step.name] = _apply(step.operation, [nodes[name] for name in step.inputs])
    outputs = [_output(nodes[name], program) for name in graph.outputs]
    return openvino.Model(outputs, [pixels], "base")


def _apply(operation: Operation, inputs: Sequence[Any]) -> Any:
    x = inputs[0]
    match operation:
        case Conv():
            return _conv(operation, x)
        case Pool():
            return _pool(operation, x)
        case Norm(scale=scale, offset=offset):
            return ops.add(ops.multiply(x, _channels(scale)), _channels(offset))
        case Relu():
            return ops.relu(x)
        case Concat():
            return ops.concat(list(inputs), 1)
        case Channels(start=start, stop=stop):
            bounds = [_constant([n], np.int64) for n in (start, stop, 1, 1)]
            return ops.slice(x, *bounds)
    raise TypeError(operation)


def _conv(conv: Conv, x: Any) -> Any:
    options = [list(conv.strides), [0, 0], [0, 0], [1, 1], _PADDING[conv.padding]]
    if conv.depthwise:  # groups, channels out and in a group, height, width
        kernel = conv.kernel.transpose(2, 3, 0, 1)[:, :, None]
        x = ops.group_convolution(x, _constant(kernel), *options)
    else:
        x = ops.convolution(x, _constant(conv.kernel.transpose(3, 2, 0, 1)), *options)
    x = ops.add(x, _channels(conv.bias))
    return ops.relu(x) if conv.relu else x


def _pool(pool: Pool, x: Any) -> Any:
    strides, size, padding = list(pool.strides), list(pool.size), _PADDING[pool.padding]
    nothing = [0, 0]
    if pool.kind == "max":
        return ops.max_pool(x, strides, [1, 1], nothing, nothing, size, auto_pad=padding).output(0)
    return ops.avg_pool(x, strides, nothing, nothing, size, exclude_pad=True, auto_pad=padding)


def _output(x: Any, program: Program) -> Any:
    """End the program at `x`.

    OpenVINO computes what lies between an output and the convolutions before it in float32,
    whatever is asked for. A layer would then have other values as an output than on the way to a
    later one, and so would the later one. A depthwise convolution by one ends that zone; it takes
    no time that can be measured. By ones over the whole map it is also the sum of an average, and
    takes no longer. The count is divided by behind the squeeze: before it, it would be multiplied
    into the ones, and rounded.
    """
    if program.precision == "float32":
        return _pooled(x, program.pool)
    if program.pool != "avg":
        return _pooled(_summed(x, (1, 1)), program.pool)
    window = _extent(x)
    return ops.multiply(_vectors(_summed(x, window)), _constant(1 / math.prod(window)))


def _summed(x: Any, window: Pair) -> Any:
    """Sum each channel over a window; numbers of bfloat16, sums of float32."""
    ones = np.ones((x.get_output_partial_shape(0)[1].get_length(), 1, 1, *window))
    return ops.group_convolution(x, _constant(ones), [1, 1], [0, 0], [0, 0], [1, 1], "valid")


def _pooled(x: Any, pool: str) -> Any:
    """Put channels last or, by a window over the whole map, reduce to them.

    A window, since OpenVINO's own reductions take twice as long.
    """
    if pool == "none":
        return ops.transpose(x, _constant([0, 2, 3, 1], np.int64))
    kind: Literal["max", "avg"] = "max" if pool == "max" else "avg"
    return _vectors(_pool(Pool(kind, _extent(x), (1, 1), "valid"), x))


def _extent(x: Any) -> Pair:
    _, _, height, width = x.get_output_partial_shape(0)
    return height.get_length(), width.get_length()


def _vectors(x: Any) -> Any:
    return ops.squeeze(x, _constant([2, 3], np.int64))


def _channels(array: NDArray[np.floating]) -> Any:
    return _constant(array.reshape(1, -1, 1, 1))


def _constant(array: Any, dtype: DTypeLike = np.float32) -> Any:
    return ops.constant(np.ascontiguousarray(array, dtype))
