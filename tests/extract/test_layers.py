"""The list of layers, and InceptionV3's graph against Keras' own network."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headstart.errors import LayerError
from headstart.extract._graph import Conv, Norm, shapes
from headstart.extract._inception import blank, convolutions, inception_v3, keras_order
from headstart.extract.layers import check_cuts, check_layers, layer_table


def test_the_table_gives_the_known_costs() -> None:
    """1.84 GFLOP to mixed7 at 150 pixels and 9.42 at 299; 7 x 7 x 768 at two bytes."""
    table = {info.name: info for info in layer_table(150)}
    assert {f"mixed{i}" for i in range(11)} <= set(table)
    assert table["mixed7"].shape == (7, 7, 768)
    assert table["mixed7"].bytes_per_image == 75_264
    assert table["mixed7"].gflop == pytest.approx(1.84, abs=0.005)
    gflop = [table[f"mixed{i}"].gflop for i in range(11)]
    assert gflop == sorted(gflop)
    large = {info.name: info for info in layer_table(299)}
    assert large["mixed7"].gflop == pytest.approx(9.42, abs=0.005)
    assert large["mixed7"].shape == (17, 17, 768)


def test_only_what_a_layer_needs_is_counted() -> None:
    """The first convolution costs itself; a branch of mixed0 costs no other branch."""
    table = {info.name: info for info in layer_table(150)}
    assert table["conv2d"].gflop == pytest.approx(2 * 27 * 32 * 74 * 74 / 1e9)
    assert table["conv2d_5"].gflop < table["mixed0"].gflop


def test_the_smallest_size() -> None:
    assert layer_table(75)[-1].shape == (1, 1, 2048)
    with pytest.raises(LayerError, match=r"--size 74: .* 75x75 pixels or more"):
        layer_table(74)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["mixed0", "mixd7"], r"no layer 'mixd7' to cut at\. Near it: mixed7"),
        (["nothing like it"], r"Near it: mixed0 \.\.\. mixed10; headstart inspect"),
        ([], "No layer is given"),
        (["input"], "no layer 'input'"),
    ],
)
def test_an_unknown_layer_is_answered_with_near_ones(layers: list[str], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        check_layers(layers)


def test_the_table_needs_no_keras() -> None:
    code = (
        "import sys; from headstart.extract.base import layer_table; layer_table(150); "
        "print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.tensorflow
def test_the_graph_is_the_network_keras_builds() -> None:
    """Same names as in a fresh process, same wiring, kernels, strides, shapes and order."""
    from keras_trace import trace

    from headstart._keras import import_keras

    keras = import_keras()
    keras.utils.clear_session()  # starts Keras' counters for names anew
    model = keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(150, 150, 3)
    )
    theirs, ours = trace(model), inception_v3(blank)
    assert set(ours.steps) == set(theirs.steps)
    for name, step in theirs.steps.items():
        assert ours.steps[name].inputs == step.inputs
        mine, operation = ours.steps[name].operation, step.operation
        assert type(mine) is type(operation)
        if isinstance(operation, Conv):
            assert isinstance(mine, Conv)
            assert mine.kernel.shape == operation.kernel.shape
            assert (mine.strides, mine.padding) == (operation.strides, operation.padding)
        elif not isinstance(operation, Norm):
            assert mine == operation
    extent = shapes(ours, 150)
    assert {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers[1:]} == {
        name: extent[name] for name in ours.steps
    }
    for prefix, kind in (("conv2d", Conv), ("batch_normalization", Norm)):
        names = [layer.name for layer in model.layers if layer.name.startswith(prefix)]
        created = sorted(names, key=lambda name: int(name.removeprefix(prefix)[1:] or 0))
        assert keras_order(ours, kind) == [names.index(name) for name in created]


def test_there_are_94_convolutions() -> None:
    assert len(convolutions(inception_v3(blank))) == 94


def test_what_can_be_trained_above() -> None:
    """All paths go through a block's end and through the stem, none other through a branch."""
    check_cuts([f"mixed{number}" for number in range(11)])
    check_cuts(["activation_3", "max_pooling2d_1"])
    for name in ("conv2d_70", "mixed9_0"):
        with pytest.raises(LayerError, match=f"above {name} cannot .* mixed9, mixed10"):
            check_cuts(["mixed9", name])
    with pytest.raises(LayerError, match="no layer 'mixed99'"):
        check_cuts(["mixed99"])
