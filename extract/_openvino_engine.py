"""Run the base with OpenVINO, on CPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from openvino import opset13 as ops

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
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from headstart.extract.engines import Program

_HINT = {"float32": "f32", "bfloat16": "bf16"}
_PADDING = {"same": "same_upper", "valid": "valid"}


class OpenVINOEngine:
    """A program compiled by OpenVINO, which keeps channels first inside."""

    def __init__(self, program: Program) -> None:
        self._outputs = program.graph.outputs
        settings = {
            "INFERENCE_PRECISION_HINT": _HINT[program.precision],
            "INFERENCE_NUM_THREADS": _cores(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = openvino.Core().compile_model(_model(program), "CPU", settings)

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run one full batch; see `Engine`."""
        outputs = self._compiled(pixels)
        return {name: outputs[i] for i, name in enumerate(self._outputs)}


def _cores() -> int:
    """Count the cores this process may use; by itself OpenVINO leaves some idle."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _model(program: Program) -> Any:
    graph, size = program.graph, program.size
    pixels = ops.parameter([program.batch_size, size, size, 3], np.uint8)
    first = ops.transpose(pixels, _constant([0, 3, 1, 2], np.int64))
    nodes = {INPUT: ops.subtract(ops.convert(first, np.float32), _constant(CENTRE))}
    for step in graph.steps.values():
        nodes[step.name] = _apply(step.operation, [nodes[name] for name in step.inputs])
    outputs = [_pooled(nodes[name], program.pool) for name in graph.outputs]
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


def _pooled(x: Any, pool: str) -> Any:
    if pool == "none":
        return ops.transpose(x, _constant([0, 2, 3, 1], np.int64))
    reduce = ops.reduce_mean if pool == "avg" else ops.reduce_max
    return reduce(x, _constant([2, 3], np.int64), keep_dims=False)


def _channels(array: NDArray[np.floating]) -> Any:
    return _constant(array.reshape(1, -1, 1, 1))


def _constant(array: Any, dtype: DTypeLike = np.float32) -> Any:
    return ops.constant(np.ascontiguousarray(array, dtype))
