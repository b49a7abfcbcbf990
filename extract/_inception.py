"""InceptionV3 as a graph, layer by layer as Keras builds it.

Written down here so that listing its layers, checking weights and running it on an engine other
than Keras need no TensorFlow; the tests hold it equal to ``keras.applications.InceptionV3``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from headstart.extract._graph import (
    INPUT,
    Concat,
    Conv,
    Graph,
    Norm,
    Operation,
    Padding,
    Pool,
    Relu,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Shape4 = tuple[int, int, int, int]
    Layer = tuple[NDArray[np.float32], NDArray[np.float32]]

ARCHITECTURE = "InceptionV3"
EPSILON = 1e-3  # of the batch normalisations

# A branch is a row of layers. "48@5x5": a convolution to 48 channels with a window of 5 x 5; "v":
# without padding; "/2": every second place. "max" and "avg" are poolings over 3 x 3, the first
# every second place and without padding. "fork": 1 x 3 and 3 x 1 side by side.
_STEM = "32@3x3v/2 32@3x3v 64@3x3 max 80@1x1v 192@3x3v max"
_BLOCKS = {
    "mixed0": ("64@1x1", "48@1x1 64@5x5", "64@1x1 96@3x3 96@3x3", "avg 32@1x1"),
    "mixed1": ("64@1x1", "48@1x1 64@5x5", "64@1x1 96@3x3 96@3x3", "avg 64@1x1"),
    "mixed2": ("64@1x1", "48@1x1 64@5x5", "64@1x1 96@3x3 96@3x3", "avg 64@1x1"),
    "mixed3": ("384@3x3v/2", "64@1x1 96@3x3 96@3x3v/2", "max"),
    "mixed4": (
        "192@1x1",
        "128@1x1 128@1x7 192@7x1",
        "128@1x1 128@7x1 128@1x7 128@7x1 192@1x7",
        "avg 192@1x1",
    ),
    "mixed5": (
        "192@1x1",
        "160@1x1 160@1x7 192@7x1",
        "160@1x1 160@7x1 160@1x7 160@7x1 192@1x7",
        "avg 192@1x1",
    ),
    "mixed6": (
        "192@1x1",
        "160@1x1 160@1x7 192@7x1",
        "160@1x1 160@7x1 160@1x7 160@7x1 192@1x7",
        "avg 192@1x1",
    ),
    "mixed7": (
        "192@1x1",
        "192@1x1 192@1x7 192@7x1",
        "192@1x1 192@7x1 192@1x7 192@7x1 192@1x7",
        "avg 192@1x1",
    ),
    "mixed8": ("192@1x1 320@3x3v/2", "192@1x1 192@1x7 192@7x1 192@3x3v/2", "max"),
    "mixed9": ("320@1x1", "384@1x1 fork:mixed9_0", "448@1x1 384@3x3 fork", "avg 192@1x1"),
    "mixed10": ("320@1x1", "384@1x1 fork:mixed9_1", "448@1x1 384@3x3 fork", "avg 192@1x1"),
}
_FORK = 384


def inception_v3(layer: Callable[[Shape4], Layer]) -> Graph:
    """Build the whole network without its classification top.

    Layers have the names Keras gives them in a process that builds nothing else: ``conv2d``,
    ``conv2d_1``, ... ``conv2d_93``, likewise ``batch_normalization`` and ``activation``, and
    ``mixed0`` to ``mixed10``.

    Parameters
    ----------
    layer
        Called once for each convolution, in the order in which Keras creates them, with the shape
        of its kernel (height, width, channels in, channels out); gives the kernel and, as (3,
        channels out), the batch normalisation's beta, moving mean and moving variance.
    """
    builder = _Builder(layer)
    tip = builder.row(INPUT, _STEM)
    for name, branches in _BLOCKS.items():
        ends = [builder.row(tip, branch) for branch in branches]
        tip = builder.join(ends, name)
    return Graph(builder.steps, (tip,))


def blank(shape: Shape4) -> Layer:
    """Stand in for a layer's weights where only shapes matter; takes no memory."""
    return np.broadcast_to(np.float32(0), shape), np.ones((3, shape[3]), np.float32)


def convolutions(graph: Graph) -> list[Conv]:
    """List the graph's convolutions, in the order of creation."""
    return [step.operation for step in graph.steps.values() if isinstance(step.operation, Conv)]


class _Builder:
    """Adds steps and numbers them as Keras does."""

    def __init__(self, layer: Callable[[Shape4], Layer]) -> None:
        self.steps: dict[str, Step] = {}
        self._layer = layer
        self._channels = {INPUT: 3}
        self._count: Counter[str] = Counter()

    def row(self, tip: str, branch: str) -> str:
        for word in branch.split():
            tip = self._word(tip, word)
        return tip

    def _word(self, tip: str, word: str) -> str:
        if word == "max":
            return self._add("max_pooling2d", [tip], Pool("max", (3, 3), (2, 2), "valid"))
        if word == "avg":
            return self._add("average_pooling2d", [tip], Pool("avg", (3, 3), (1, 1), "same"))
        if word.startswith("fork"):
            ends = [self._conv(tip, _FORK, window) for window in ((1, 3), (3, 1))]
            return self.join(ends, word.partition(":")[2])
        channels, _, rest = word.partition("@")
        window, _, stride = rest.partition("/")
        height, width = map(int, window.rstrip("v").split("x"))
        padding: Padding = "valid" if window.endswith("v") else "same"
        return self._conv(tip, int(channels), (height, width), padding, int(stride or 1))

    def _conv(
        self,
        tip: str,
        channels: int,
        window: tuple[int, int],
        padding: Padding = "same",
        stride: int = 1,
    ) -> str:
        kernel, (beta, mean, variance) = self._layer((*window, self._channels[tip], channels))
        bias = np.zeros(channels, np.float32)
        tip = self._add("conv2d", [tip], Conv(kernel, bias, (stride, stride), padding))
        scale = 1 / np.sqrt(variance.astype(np.float64) + EPSILON)
        tip = self._add("batch_normalization", [tip], Norm(scale, beta - mean * scale))
        return self._add("activation", [tip], Relu())

    def join(self, ends: Sequence[str], name: str) -> str:
        return self._add("concatenate", ends, Concat(), name)

    def _add(self, kind: str, inputs: Sequence[str], operation: Operation, name: str = "") -> str:
        if not name:
            number = self._count[kind]
            self._count[kind] += 1
            name = f"{kind}_{number}" if number else kind
        self.steps[name] = Step(name, tuple(inputs), operation)
        widths = [self._channels[each] for each in inputs]
        self._channels[name] = operation.channels if isinstance(operation, Conv) else sum(widths)
        return name


def keras_order(graph: Graph, kind: type[Operation]) -> list[int]:
    """Where each layer of a kind, in the order of creation, stands in Keras' ``model.layers``.

    Keras sorts a model's layers, and with them its weights files, by their distance from the
    output, the farthest first, and at equal distance by the order in which it meets them walking
    back from the output.
    """
    distance: dict[str, int] = {}
    for name in reversed(list(graph.steps)):
        distance.setdefault(name, 0)
        for each in graph.steps[name].inputs:
            distance[each] = max(distance.get(each, 0), distance[name] + 1)
    met = {name: i for i, name in enumerate(_walk_back(graph))}
    created = [name for name, step in graph.steps.items() if isinstance(step.operation, kind)]
    kept = sorted(created, key=lambda name: (-distance[name], met[name]))
    return [kept.index(name) for name in created]


def _walk_back(graph: Graph) -> list[str]:
    """Names in the order in which a depth-first walk from the output meets them."""
    met: dict[str, None] = {}
    waiting = list(graph.outputs)
    while waiting:
        if (name := waiting.pop()) != INPUT and name not in met:
            met[name] = None
            waiting += reversed(graph.steps[name].inputs)
    return list(met)
