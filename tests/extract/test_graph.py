"""The graph: shapes, arithmetic, and rewritings that change no result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.extract._graph import (
    INPUT,
    Channels,
    Concat,
    Conv,
    Graph,
    Norm,
    Operation,
    Pool,
    Relu,
    Step,
    flop,
    fold_norms,
    fold_relus,
    merge_siblings,
    pool_late,
    scale_input,
    shapes,
    simplify,
)
from headstart.extract.engines import CENTRE, Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAW = np.random.default_rng(2)


def _conv(window: tuple[int, int], inward: int, outward: int, **options: Any) -> Conv:
    kernel = DRAW.standard_normal((*window, inward, outward), np.float32)
    return Conv(kernel, DRAW.standard_normal(outward, np.float32), **options)


def _norm(channels: int) -> Norm:
    return Norm(DRAW.uniform(0.5, 2, channels), DRAW.standard_normal(channels))


def _graph_of(outputs: str, **steps: tuple[str, Operation]) -> Graph:
    """Write a graph down: name=(inputs, operation)."""
    return Graph(
        {name: Step(name, tuple(inputs.split()), op) for name, (inputs, op) in steps.items()},
        tuple(outputs.split()),
    )


def _run(graph: Graph, pixels: NDArray[np.uint8], engine: Any = None) -> dict[str, Any]:
    from headstart.extract._keras_engine import KerasEngine

    program = Program(graph, pixels.shape[1], len(pixels), "none", "float32")
    return (engine or KerasEngine)(program)(pixels)


def _assert_same(before: Graph, after: Graph) -> None:
    pixels = DRAW.integers(0, 256, (2, 11, 11, 3), dtype=np.uint8)
    expected, found = _run(before, pixels), _run(after, pixels)
    assert list(expected) == list(found)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * abs(array).max())


def _kinds(graph: Graph) -> list[str]:
    return [type(step.operation).__name__ for step in graph.steps.values()]


# --- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (_conv((3, 3), 3, 8), (11, 11, 8)),
        (_conv((3, 3), 3, 8, padding="valid"), (9, 9, 8)),
        (_conv((3, 3), 3, 8, strides=(2, 2)), (6, 6, 8)),
        (_conv((3, 1), 3, 8, strides=(2, 1), padding="valid"), (5, 11, 8)),
        (Pool("max", (3, 3), (2, 2), "valid"), (5, 5, 3)),
        (Pool("avg", (2, 2), (2, 2), "same"), (6, 6, 3)),
        (Relu(), (11, 11, 3)),
        (Channels(1, 3), (11, 11, 2)),
    ],
)
def test_shapes(operation: Operation, expected: tuple[int, int, int]) -> None:
    assert shapes(_graph_of("a", a=(INPUT, operation)), 11)["a"] == expected


def test_channels_add_up_in_a_join() -> None:
    graph = _graph_of("b", a=(INPUT, _conv((1, 1), 3, 4)), b=(f"a {INPUT} a", Concat()))
    assert shapes(graph, 11)["b"] == (11, 11, 11)


def test_a_multiply_add_is_two_operations() -> None:
    step = Step("a", (INPUT,), _conv((3, 5), 7, 2))
    assert flop(step, (4, 6, 2)) == 2 * (3 * 5 * 7) * (4 * 6 * 2)
    assert flop(Step("a", (INPUT,), Relu()), (4, 6, 2)) == 0


def test_a_cut_keeps_what_its_outputs_need() -> None:
    graph = _graph_of(
        "c",
        a=(INPUT, Relu()),
        b=("a", Relu()),
        c=("a", Relu()),
        d=("c", Relu()),
        e=("b c", Concat()),
    )
    assert list(graph.cut(["c"]).steps) == ["a", "c"]
    assert list(graph.cut(["e", "a"]).steps) == ["a", "b", "c", "e"]


# --- rewritings --------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_norm_and_a_relu_are_folded(depthwise: bool) -> None:
    """Convolution, normalisation and relu become one step that computes the same."""
    conv = _conv((3, 3), 3, 1 if depthwise else 5)
    if depthwise:
        conv = Conv(conv.kernel, np.ones(3, np.float32), depthwise=True)
    graph = _graph_of("c", a=(INPUT, conv), b=("a", _norm(conv.channels)), c=("b", Relu()))
    folded = fold_relus(fold_norms(graph))
    assert _kinds(folded) == ["Conv"]
    _assert_same(graph, folded)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "graph",
    [
        _graph_of("a b", a=(INPUT, _conv((3, 3), 3, 5)), b=("a", _norm(5))),
        _graph_of(
            "d",
            a=(INPUT, _conv((3, 3), 3, 5)),
            b=("a", _norm(5)),
            c=("a", Relu()),
            d=("b c", Concat()),
        ),
        _graph_of("b", a=(INPUT, _conv((3, 3), 3, 5, relu=True)), b=("a", _norm(5))),
        _graph_of("b", a=(INPUT, Pool("max", (2, 2), (1, 1), "same")), b=("a", _norm(3))),
    ],
    ids=["asked for", "used twice", "after relu", "no convolution"],
)
def test_a_norm_that_cannot_be_folded_stays(graph: Graph) -> None:
    folded = fold_norms(graph)
    assert _kinds(folded) == _kinds(graph)
    _assert_same(graph, folded)


@pytest.mark.tensorflow
@pytest.mark.parametrize("relu", [False, True])
def test_an_average_moves_behind_a_narrowing_convolution(relu: bool) -> None:
    """Also at the border, where fewer places are averaged."""
    conv = _conv((1, 1), 8, 4, relu=relu)
    graph = _graph_of(
        "c",
        a=(INPUT, _conv((3, 3), 3, 8)),
        b=("a", Pool("avg", (3, 3), (1, 1), "same")),
        c=("b", conv),
    )
    late = pool_late(graph)
    assert _kinds(late) == ["Conv", "Conv", "Pool"] + ["Relu"] * relu
    _assert_same(graph, late)


@pytest.mark.parametrize(
    ("outputs", "pool", "conv"),
    [
        ("c", Pool("max", (3, 3), (1, 1), "same"), _conv((1, 1), 8, 4)),
        ("c", Pool("avg", (3, 3), (1, 1), "same"), _conv((3, 3), 8, 4)),
        ("c", Pool("avg", (3, 3), (1, 1), "same"), _conv((1, 1), 8, 9)),
        ("c b", Pool("avg", (3, 3), (1, 1), "same"), _conv((1, 1), 8, 4)),
    ],
    ids=["maximum", "wide window", "widening", "asked for"],
)
def test_other_poolings_stay_where_they_are(outputs: str, pool: Pool, conv: Conv) -> None:
    graph = _graph_of(outputs, a=(INPUT, _conv((3, 3), 3, 8)), b=("a", pool), c=("b", conv))
    assert list(pool_late(graph).steps) == ["a", "b", "c"]


@pytest.mark.tensorflow
def test_pointwise_convolutions_of_one_input_become_one() -> None:
    """Those that differ in more than their kernels, or in their input, stay apart."""
    graph = _graph_of(
        "a b c d e f",
        a=(INPUT, _conv((1, 1), 3, 4, relu=True)),
        b=(INPUT, _conv((1, 1), 3, 5, relu=True)),
        c=(INPUT, _conv((1, 1), 3, 4)),
        d=(INPUT, _conv((1, 1), 3, 4, strides=(2, 2), relu=True)),
        e=(INPUT, _conv((3, 3), 3, 4, relu=True)),
        f=("a", _conv((1, 1), 4, 4, relu=True)),
    )
    merged = merge_siblings(graph)
    assert list(merged.steps) == ["a+b", "a", "b", "c", "d", "e", "f"]
    _assert_same(graph, merged)


@pytest.mark.tensorflow
def test_the_input_s_scale_moves_into_its_convolutions() -> None:
    conv = _conv((3, 3), 3, 4)
    scaled = scale_input(_graph_of("a", a=(INPUT, conv)), 1 / CENTRE)
    pixels = DRAW.integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    keras = pytest.importorskip("keras")
    expected = keras.ops.conv(pixels.astype(np.float32) / 127.5 - 1, conv.kernel, padding="same")
    found = _run(scaled, pixels)["a"]
    np.testing.assert_allclose(found, expected + conv.bias, atol=1e-4)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize(
    ("name", "folded"),
    [("MobileNetV2", 1.0), ("ResNet50V2", 0.6), ("DenseNet121", 0.48)],
)
def test_other_networks_of_keras_are_simplified_likewise(name: str, folded: float) -> None:
    """Nothing knows InceptionV3: depthwise convolutions fold, a norm before its convolution not."""
    from keras_trace import TracedEngine, trace

    from headstart._keras import import_keras

    keras = import_keras()
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            width = layer.gamma.shape[0]
            layer.set_weights([DRAW.uniform(0.5, 1.5, width) for _ in range(4)])
    graph = trace(model)
    simple = simplify(graph)
    norms = _kinds(graph).count("Norm")
    assert _kinds(simple).count("Norm") <= norms * (1 - folded)
    pixels = DRAW.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = model.predict(pixels.astype(np.float32) - CENTRE, verbose=0)
    (found,) = _run(simple, pixels, TracedEngine).values()
    assert abs(found - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.tensorflow
def test_what_else_is_asked_for_does_not_change_the_rest() -> None:
    """A step that a rewriting removes is computed beside it, from what is left."""
    graph = _graph_of(
        "s",
        a=(INPUT, _conv((3, 3), 3, 8)),
        n=("a", _norm(8)),
        r=("n", Relu()),
        p=("r", Pool("avg", (3, 3), (1, 1), "same")),
        c=("p", _conv((1, 1), 8, 4)),
        s=("c", Relu()),
    )
    alone = simplify(graph)
    asked = simplify(graph.cut(["s", "p", "n"]))
    assert list(alone.steps) == ["r", "s/conv", "s/pool", "s"]
    assert list(asked.steps) == [*alone.steps, "a", "n", "p"]
    for name, step in alone.steps.items():
        assert asked.steps[name].inputs == step.inputs
        assert type(asked.steps[name].operation) is type(step.operation)
    _assert_same(graph.cut(["s", "p", "n"]), asked)


def test_every_rewriting_is_applied() -> None:
    """An average behind its convolution joins that convolution's siblings."""
    graph = _graph_of(
        "j",
        a=(INPUT, _conv((3, 3), 3, 8)),
        n=("a", _norm(8)),
        r=("n", Relu()),
        p=("r", Pool("avg", (3, 3), (1, 1), "same")),
        c=("p", _conv((1, 1), 8, 4)),
        d=("r", _conv((1, 1), 8, 4)),
        e=("r", _conv((1, 1), 8, 4)),
        j=("c d e", Concat()),
    )
    simple = simplify(graph)
    assert sorted(_kinds(simple)) == sorted(
        ["Conv", "Conv", "Channels", "Channels", "Channels", "Pool", "Concat"]
    )
    assert shapes(simple, 11)["j"] == shapes(graph, 11)["j"]
