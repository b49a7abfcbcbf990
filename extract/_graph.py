"""The base as a graph of plain operations, and the rewritings that make it cheaper.

Batch normalisation is folded into the convolution before it, and so is relu; an average pooling
moves behind the 1x1 convolution that follows it, where it works on fewer channels; 1x1 convolutions
of one input become one. Each rewriting keeps what the graph computes, up to rounding, and none
removes a step whose output is asked for. Nothing here knows which network it is, or what runs it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

INPUT = "input"  # the name under which steps refer to the pixels

Pair = tuple[int, int]
Shape = tuple[int, int, int]
Padding = Literal["same", "valid"]


class Operation:
    """What a step does to its inputs: maps of (batch, height, width, channels)."""


@dataclass(frozen=True, eq=False)
class Conv(Operation):
    """A convolution with bias, and relu after it if `relu`.

    Attributes
    ----------
    kernel
        (height, width, channels in, channels out) float32; if `depthwise`, (height, width,
        channels, 1).
    bias
        (channels out,) float32.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    strides: Pair = (1, 1)
    padding: Padding = "same"
    depthwise: bool = False
    relu: bool = False

    @property
    def channels(self) -> int:
        """The number of channels that come out."""
        return len(self.bias)

    def scaled(self, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Conv:
        """Follow the convolution by ``y * scale + offset``, per channel; rounded once."""
        factor = scale[:, None] if self.depthwise else scale
        return replace(
            self,
            kernel=(self.kernel * factor).astype(np.float32),
            bias=(self.bias * scale + offset).astype(np.float32),
        )


@dataclass(frozen=True)
class Pool(Operation):
    """Maximum or average over a window; padding never counts."""

    kind: Literal["max", "avg"]
    size: Pair
    strides: Pair
    padding: Padding


@dataclass(frozen=True, eq=False)
class Norm(Operation):
    """``x * scale + offset`` per channel: batch normalisation in inference."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]


@dataclass(frozen=True)
class Relu(Operation):
    """``max(x, 0)``."""


@dataclass(frozen=True)
class Concat(Operation):
    """Join the inputs along the channels."""


@dataclass(frozen=True)
class Channels(Operation):
    """Keep channels `start` to `stop`."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on the outputs of earlier steps."""

    name: str
    inputs: tuple[str, ...]
    operation: Operation


@dataclass(frozen=True, eq=False)
class Graph:
    """Steps in an order in which they can run.

    Attributes
    ----------
    steps
        Name to step.
    outputs
        Names of the steps whose outputs are asked for.
    """

    steps: Mapping[str, Step]
    outputs: tuple[str, ...]

    def cut(self, outputs: Iterable[str]) -> Graph:
        """Ask for other outputs, and keep only what they need."""
        outputs = tuple(outputs)
        needed = set(outputs).union(*(self.ancestors(name) for name in outputs))
        return Graph({name: step for name, step in self.steps.items() if name in needed}, outputs)

    def ancestors(self, name: str) -> set[str]:
        """Names of the step and of all it is computed from."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            if (each := waiting.pop()) not in found and each != INPUT:
                found.add(each)
                waiting += self.steps[each].inputs
        return found

    def uses(self) -> Counter[str]:
        """How many times each step's output is used; being asked for counts as a use."""
        inputs = [name for step in self.steps.values() for name in step.inputs]
        return Counter([*inputs, *self.outputs])


# --- shapes and arithmetic ---------------------------------------------------------------------


def shapes(graph: Graph, size: int) -> dict[str, Shape]:
    """Work out (height, width, channels) of every step for pictures of `size` by `size`."""
    found: dict[str, Shape] = {INPUT: (size, size, 3)}
    for step in graph.steps.values():
        found[step.name] = _shape(step.operation, [found[name] for name in step.inputs])
    return found


def _shape(operation: Operation, inputs: Sequence[Shape]) -> Shape:
    height, width, channels = inputs[0]
    match operation:
        case Conv(kernel=kernel, strides=strides, padding=padding):
            rows, columns = (
                _extent(n, k, s, padding)
                for n, k, s in zip((height, width), kernel.shape[:2], strides, strict=True)
            )
            return rows, columns, operation.channels
        case Pool(size=window, strides=strides, padding=padding):
            rows, columns = (
                _extent(n, k, s, padding)
                for n, k, s in zip((height, width), window, strides, strict=True)
            )
            return rows, columns, channels
        case Concat():
            return height, width, sum(shape[2] for shape in inputs)
        case Channels(start=start, stop=stop):
            return height, width, stop - start
    return inputs[0]


def _extent(length: int, window: int, stride: int, padding: Padding) -> int:
    return -(-(length if padding == "same" else length - window + 1) // stride)


def flop(step: Step, shape: Shape) -> int:
    """Floating-point operations of a convolution with output `shape`; multiply-add is two."""
    if not isinstance(step.operation, Conv):
        return 0
    return 2 * math.prod(step.operation.kernel.shape) * shape[0] * shape[1]


# --- rewritings --------------------------------------------------------------------------------


def simplify(graph: Graph) -> Graph:
    """Rewrite the graph to one that computes the same with less work.

    What is asked for does not decide how the rest is computed, so that a layer has the same values
    whatever else is asked for: a step that a rewriting removes is computed beside it, if need be.
    """
    simple = Graph(graph.steps, ())
    for rewrite in (fold_norms, fold_relus, pool_late, merge_siblings):
        simple = rewrite(simple)
    beside = {name: step for name, step in graph.steps.items() if name not in simple.steps}
    return Graph({**simple.steps, **beside}, graph.outputs).cut(graph.outputs)


def fold_norms(graph: Graph) -> Graph:
    """Let each convolution take in the normalisation that alone follows it."""

    def absorb(conv: Conv, norm: Operation) -> Conv | None:
        if isinstance(norm, Norm) and not conv.relu:
            return conv.scaled(norm.scale, norm.offset)
        return None

    return _fold(graph, absorb)


def fold_relus(graph: Graph) -> Graph:
    """Let each convolution take in the relu that alone follows it."""

    def absorb(conv: Conv, relu: Operation) -> Conv | None:
        return replace(conv, relu=True) if isinstance(relu, Relu) else None

    return _fold(graph, absorb)


def _fold(graph: Graph, absorb: Callable[[Conv, Operation], Conv | None]) -> Graph:
    uses = graph.uses()
    steps: dict[str, Step] = {}
    for step in graph.steps.values():
        before = steps.get(step.inputs[0])
        joined = None
        if before and uses[before.name] == 1 and isinstance(before.operation, Conv):
            joined = absorb(before.operation, step.operation)
        if before and joined:
            del steps[before.name]
            steps[step.name] = Step(step.name, before.inputs, joined)
        else:
            steps[step.name] = step
    return Graph(steps, graph.outputs)


def pool_late(graph: Graph) -> Graph:
    """Put each average pooling behind the 1x1 convolution that alone follows it.

    Both are linear, the weights of an average sum to one and a 1x1 convolution never looks at
    padding, so they commute, bias included; behind, the pooling has fewer channels to work on.
    """
    uses = graph.uses()
    steps: dict[str, Step] = {}
    for step in graph.steps.values():
        pool = steps.get(step.inputs[0])
        if pool and uses[pool.name] == 1 and _is_average(pool) and _narrows(step):
            del steps[pool.name]
            steps |= {each.name: each for each in _swapped(pool, step)}
        else:
            steps[step.name] = step
    return Graph(steps, graph.outputs)


def _is_average(step: Step) -> bool:
    return isinstance(step.operation, Pool) and step.operation.kind == "avg"


def _narrows(step: Step) -> bool:
    conv = step.operation
    return _is_pointwise(conv) and conv.kernel.shape[3] < conv.kernel.shape[2]


def _is_pointwise(operation: Operation) -> TypeGuard[Conv]:
    return (
        isinstance(operation, Conv)
        and operation.kernel.shape[:2] == operation.strides == (1, 1)
        and not operation.depthwise
    )


def _swapped(pool: Step, step: Step) -> Iterator[Step]:
    """Yield convolution, pooling and relu; the last of them bears the convolution's name."""
    assert isinstance(step.operation, Conv)
    names = [f"{step.name}/conv", f"{step.name}/pool", step.name]
    if not step.operation.relu:
        names = [names[0], step.name]
    yield Step(names[0], pool.inputs, replace(step.operation, relu=False))
    yield Step(names[1], (names[0],), pool.operation)
    if step.operation.relu:
        yield Step(names[2], (names[1],), Relu())


def merge_siblings(graph: Graph) -> Graph:
    """Compute the 1x1 convolutions of one input, all with relu or all without, as one."""
    groups: dict[tuple[str, bool], list[Step]] = {}
    for step in graph.steps.values():
        if _is_pointwise(step.operation):
            groups.setdefault((step.inputs[0], step.operation.relu), []).append(step)
    group_of = {step.name: group for group in groups.values() if len(group) > 1 for step in group}
    steps: dict[str, Step] = {}
    for step in graph.steps.values():
        if step.name not in group_of:
            steps[step.name] = step
        elif step.name not in steps:
            steps |= {each.name: each for each in _joint(group_of[step.name])}
    return Graph(steps, graph.outputs)


def _joint(group: Sequence[Step]) -> Iterator[Step]:
    """Yield one convolution with all the group's channels, then each step's share of them."""
    convs = [step.operation for step in group if isinstance(step.operation, Conv)]
    kernel = np.concatenate([conv.kernel for conv in convs], axis=3)
    bias = np.concatenate([conv.bias for conv in convs])
    joint = "+".join(step.name for step in group)
    yield Step(joint, group[0].inputs, replace(convs[0], kernel=kernel, bias=bias))
    start = 0
    for step, conv in zip(group, convs, strict=True):
        yield Step(step.name, (joint,), Channels(start, start + conv.channels))
        start += conv.channels


def scale_input(graph: Graph, scale: float) -> Graph:
    """Let the convolutions that read the input multiply it by `scale`."""
    steps = dict(graph.steps)
    for step in graph.steps.values():
        if INPUT in step.inputs:
            assert isinstance(step.operation, Conv), "the input goes into convolutions alone"
            kernel = (step.operation.kernel * np.float64(scale)).astype(np.float32)
            conv = replace(step.operation, kernel=kernel)
            steps[step.name] = Step(step.name, step.inputs, conv)
    return Graph(steps, graph.outputs)
