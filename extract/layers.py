"""The base's layers: where it can be cut, and what each cut costs."""

from __future__ import annotations

import difflib
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.errors import LayerError
from headstart.extract._graph import INPUT, flop, shapes
from headstart.extract._inception import ARCHITECTURE, blank, inception_v3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.extract._graph import Graph

__all__ = ["MIN_SIZE", "LayerInfo", "check_cuts", "check_layers", "check_size", "layer_table"]

MIN_SIZE = 75  # below this InceptionV3 runs out of pixels


@dataclass(frozen=True)
class LayerInfo:
    """What cutting the base at one layer costs.

    Attributes
    ----------
    name
        The layer's name, ``mixed7``.
    shape
        Of one picture's activations, (height, width, channels).
    bytes_per_image
        Of one picture's activations at float16, uncompressed.
    gflop
        Arithmetic for one picture from the input to this layer, in 10^9 floating-point operations
        of the convolutions; a multiply-add counts as two.
    """

    name: str
    shape: tuple[int, ...]
    bytes_per_image: int
    gflop: float


def layer_table(size: int) -> list[LayerInfo]:
    """List the layers the base can be cut at, in the order of their arithmetic.

    Parameters
    ----------
    size
        Input height and width, in pixels.

    Raises
    ------
    LayerError
        When `size` is below 75.
    """
    check_size(size)
    graph = inception_v3(blank)
    extent = shapes(graph, size)
    cost = {name: flop(step, extent[name]) for name, step in graph.steps.items()}
    table = []
    for name in graph.steps:
        total = sum(cost[each] for each in graph.ancestors(name))
        table.append(LayerInfo(name, extent[name], 2 * math.prod(extent[name]), total / 1e9))
    return sorted(table, key=lambda info: info.gflop)


def check_size(size: int) -> None:
    """Raise LayerError unless the base can take pictures of `size` by `size` pixels."""
    if size < MIN_SIZE:
        raise LayerError(
            f"--size {size}: {ARCHITECTURE} takes pictures of {MIN_SIZE}x{MIN_SIZE} pixels or more."
        )


def check_layers(layers: Sequence[str]) -> None:
    """Raise LayerError, naming what is near, unless the base can be cut at every layer."""
    known = _names()
    if not layers:
        raise LayerError("No layer is given to cut at; the usual one is mixed7.")
    for name in layers:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or ["mixed0 ... mixed10"]
            raise LayerError(
                f"{ARCHITECTURE} has no layer {name!r} to cut at. Near it: {', '.join(near)}; "
                "headstart inspect lists them."
            )


@functools.cache
def _names() -> tuple[str, ...]:
    """Return the names of the layers; building the network for them takes 4 ms."""
    return tuple(inception_v3(blank).steps)


def check_cuts(layers: Sequence[str]) -> None:
    """Raise LayerError unless all that is above each layer is computed from that layer alone."""
    check_layers(layers)
    graph = inception_v3(blank)
    for name in layers:
        if not _on_every_path(graph, name):
            whole = [each for each in graph.steps if _on_every_path(graph, each)]
            raise LayerError(
                f"The layers above {name} cannot be trained on its output alone: other paths go "
                f"past it. Those that all paths go through: {', '.join(whole)}."
            )


def _on_every_path(graph: Graph, name: str) -> bool:
    """Return whether there is no way from the outputs back to the input but through a step."""
    seen, waiting = {name}, list(graph.outputs)
    while waiting:
        if (each := waiting.pop()) == INPUT:
            return False
        if each not in seen:
            seen.add(each)
            waiting += graph.steps[each].inputs
    return True
