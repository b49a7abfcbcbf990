"""Read a Keras functional model as a graph, to hold our graphs and rewritings against Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.extract._graph import (
    INPUT,
    Concat,
    Conv,
    Graph,
    Norm,
    Operation,
    Pool,
    Relu,
    Step,
)
from headstart.extract._keras_engine import KerasEngine

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class Call(Operation):
    """An operation our graphs do not have: Keras' own layer is called."""

    layer: Any


class TracedEngine(KerasEngine):
    """Runs such operations too."""

    def _apply(self, operation: Operation, inputs: Sequence[Any]) -> Any:
        if isinstance(operation, Call):
            return operation.layer(list(inputs) if len(inputs) > 1 else inputs[0])
        return super()._apply(operation, inputs)


def trace(model: Any) -> Graph:
    """Turn a functional model of unshared layers with one input and one output into a graph."""
    steps: dict[str, Step] = {}
    for layer in model.layers[1:]:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        names = [tensor._keras_history.operation.name for tensor in inputs]
        names = [INPUT if name == model.layers[0].name else name for name in names]
        steps[layer.name] = Step(layer.name, tuple(names), _operation(layer))
    return Graph(steps, (model.layers[-1].name,))


def _operation(layer: Any) -> Operation:
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    match type(layer).__name__:
        case "Conv2D" | "DepthwiseConv2D" as kind:
            assert layer.activation.__name__ == "linear"
            bias = weights[1] if layer.use_bias else np.zeros(layer.output.shape[-1], np.float32)
            depthwise = kind != "Conv2D"
            return Conv(weights[0], bias, tuple(layer.strides), layer.padding, depthwise)
        case "BatchNormalization":
            gamma = weights.pop(0) if layer.scale else 1.0
            beta, mean, variance = weights
            scale = gamma / np.sqrt(variance.astype(np.float64) + layer.epsilon)
            return Norm(scale, beta - mean * scale)
        case "MaxPooling2D" | "AveragePooling2D" as kind:
            size, strides = tuple(layer.pool_size), tuple(layer.strides)
            return Pool("max" if kind.startswith("Max") else "avg", size, strides, layer.padding)
        case "Activation" if layer.activation.__name__ == "relu":
            return Relu()
        case "Concatenate":
            return Concat()
    return Call(layer)
