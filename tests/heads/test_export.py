"""Exported networks: as the model answers, checked before they are published, or not there."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import _words, cli
from headstart._pictures import draw_dataset
from headstart.cache import Store
from headstart.errors import DataError, MissingExtraError, ModelError, ParityError
from headstart.extract import Settings, dataset, fill_store
from headstart.extract.base import import_keras, keras_base, load_base
from headstart.extract.decode import decode
from headstart.extract.weights import WeightsFile, find_weights
from headstart.heads import export as export_module
from headstart.heads import formats, parity
from headstart.heads.export import Exported, export
from headstart.heads.model import Model
from headstart.heads.portable import Linear
from headstart.heads.training import train

pytestmark = pytest.mark.tensorflow

SIZE = 75
SETTINGS = Settings(
    size=SIZE, weights="random:1", layers=("mixed0",), engine="keras", precision="float32"
)
ENDINGS = ("keras", "savedmodel", "onnx", "tflite")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with drawn pictures, their store (float32), and a model of it."""
    folder = tmp_path_factory.mktemp("export")
    draw_dataset(folder / "pictures", per_class=8)
    store, _ = fill_store(folder / "pictures", folder / "pictures.features", SETTINGS)
    train(store, "logreg", cv=2).save(folder / "pictures.model")
    return folder


def pixels_of(place: Path) -> Any:
    store = Store.open(place / "pictures.features")
    files = [place / "pictures" / path for path in store.paths()]
    return np.stack([decode(file.read_bytes(), SIZE) for file in files])


def exported(place: Path, ending: str) -> Path:
    """Return the model as a file that other tests may have written."""
    target = place / f"one.{ending}"
    if not target.exists():
        export(place / "pictures.model", target)
    return target


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_file_says_what_the_model_says(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    """From the command line; the answer and the file beside say what is in it, and how near."""
    target, answer = place / f"one.{ending}", tmp_path / "answer.json"
    command = ["export", str(place / "pictures.model"), "-o", str(target), "--json", str(answer)]
    assert cli.main(command) == 0
    assert "32 of 32 labels as the model's" in capsys.readouterr().out
    model = Model.load(place / "pictures.model")
    expected = model.predict(sorted((place / "pictures").rglob("*.jpg")))
    found = formats.format_of(target).run(target)(pixels_of(place))
    assert found.shape == (32, 4)
    assert found.dtype == np.float32
    labels = [model.card.classes[i] for i in found.argmax(1)]
    assert labels == [prediction.label for prediction in expected]
    assert len(set(labels)) == 4
    np.testing.assert_allclose(found, [p.probabilities for p in expected], atol=1e-3)
    said = json.loads(formats.sidecar(target).read_text())
    assert said["classes"] == list(model.card.classes)
    assert said["input"]["shape"] == [None, SIZE, SIZE, 3]
    assert said["parity"] == json.loads(answer.read_text())["parity"]
    assert said["parity"]["largest_difference"] < 1e-3
    if ending == "onnx":
        onnx = importlib.import_module("onnx")
        inside = {each.key: each.value for each in onnx.load(target).metadata_props}
        assert json.loads(inside["headstart"])["classes"] == list(model.card.classes)


def test_8_bits_are_measured_by_their_labels(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An 8-bit file is a quarter as large; how many labels are the same is said."""
    model = str(place / "pictures.model")
    target = tmp_path / "small.tflite"
    assert cli.main(["export", model, "-o", str(target), "--quantize", "int8"]) == 0
    assert "TFLite, int8" in capsys.readouterr().out
    said = json.loads(formats.sidecar(target).read_text())
    assert said["parity"]["same_labels"] >= parity.AGREEMENT * 32
    assert target.stat().st_size < 0.4 * exported(place, "tflite").stat().st_size


# --- the gate ------------------------------------------------------------------------------------


def _swapped(model: Model, weights: WeightsFile) -> Any:
    right = model.classifier
    assert isinstance(right, Linear)
    order = [1, 0, 2, 3]
    return _right(Model(model.card, Linear(right.weights[order], right.bias[order])), weights)


def _unscaled(model: Model, weights: WeightsFile) -> Any:
    network = _right(model, weights)
    network.get_layer("scaled").scale, network.get_layer("scaled").offset = 1.0, 0.0
    return network


def _in_training(model: Model, weights: WeightsFile) -> Any:
    """Return a network whose base is always run as in training."""
    keras = import_keras()
    network = _right(model, weights)
    network.get_layer("base").trainable = True
    pictures = keras.Input(network.input_shape[1:], dtype="uint8", name="pictures")
    return keras.Model(pictures, network(pictures, training=True))


def _another(model: Model, weights: WeightsFile) -> Any:
    return _right(model, find_weights("random:2"))


_right = export_module._network
FAULTS: dict[str, tuple[str, Callable[[Model, WeightsFile], Any]]] = {
    "swapped classes": ("keras", _swapped),
    "forgotten rescaling": ("keras", _unscaled),
    "batch normalisation in training mode": ("savedmodel", _in_training),
    "another base's weights": ("keras", _another),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_catches(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    """A network that answers otherwise is not published; the error names a row and both answers."""
    ending, faulty = FAULTS[fault]
    monkeypatch.setattr(export_module, "_network", faulty)
    model, target = str(place / "pictures.model"), tmp_path / f"one.{ending}"
    assert cli.main(["export", model, "-o", str(target)]) == 1
    said = capsys.readouterr().err
    assert "the file does not answer as the model does: of 32 rows" in said
    assert ".jpg: expected '" in said
    assert ", found '" in said
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_run_are_not_published(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a runtime says of a file is told, whatever kind of error it is."""

    def broken(path: Path) -> Any:
        raise RuntimeError(f"div.cc: data is 0 in\n{path.suffix}")

    kind = dataclasses.replace(formats.FORMATS[".keras"], run=broken)
    monkeypatch.setitem(formats.FORMATS, ".keras", kind)
    with pytest.raises(ParityError, match=r"does not run \(RuntimeError: div.cc: data is 0 in .k"):
        export(place / "pictures.model", tmp_path / "one.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_bfloat16_is_held_against_float32(place: Path, tmp_path: Path) -> None:
    """The file computes in float32: it is as exact, and what bfloat16 did is told apart."""
    settings = dataclasses.replace(SETTINGS, precision="bfloat16")
    store, _ = fill_store(place / "pictures", tmp_path / "store", settings)
    model = train(store, "logreg", cv=2)
    found = export(model, tmp_path / "one.keras", store=store).parity
    assert found.cached_precision == "bfloat16"
    assert found.largest_difference < 1e-3
    assert 1e-6 < found.largest_cached_difference < 0.1
    weights = model.base_weights()
    sample = parity.draw_sample(model, store, None, further=False)
    turned = dataclasses.replace(sample, cached=sample.cached[::-1])
    with pytest.raises(ParityError, match="are not those that the base computes of it"):
        parity.expected(model, turned, weights)


@pytest.mark.parametrize(
    ("found", "quantized", "passes"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], False, True),
        ([[0.9009, 0.0991], [0.2, 0.8]], False, True),
        ([[0.902, 0.098], [0.2, 0.8]], False, False),
        ([[np.nan, np.nan], [0.2, 0.8]], False, False),
        ([[0.6, 0.4], [0.4, 0.6]], True, True),
        ([[0.4, 0.6], [0.2, 0.8]], True, False),
        ([[np.nan, np.nan], [0.2, 0.8]], True, False),
        ([[0.9, 0.1]], False, False),
    ],
)
def test_what_is_near_enough(
    place: Path, found: list[list[float]], quantized: bool, passes: bool
) -> None:
    """Probabilities and labels; in 8 bits the labels; never what is no number."""
    model = Model.load(place / "pictures.model")
    sample = parity.Sample(("a.png", "b.png"), *[np.zeros((2, 1, 1, 3), np.uint8)] * 3)
    right = np.array([[0.9, 0.1], [0.2, 0.8]])
    wanted = parity.Expected(right, right)
    if passes:
        parity.compare(model, sample, wanted, np.array(found), quantized=quantized)
    else:
        with pytest.raises(ParityError, match="nothing was written"):
            parity.compare(model, sample, wanted, np.array(found), quantized=quantized)


# --- what can be cut and joined -------------------------------------------------------------------


def test_layers_are_found_by_name_in_any_process() -> None:
    """Also where Keras has numbered its layers on: each is the one extraction cuts at."""
    from headstart.heads.joined import _output

    keras = import_keras()
    keras_base(find_weights("random:1"), size=SIZE)
    base = keras_base(find_weights("random:1"), size=SIZE)
    names = ["conv2d", "conv2d_5", "batch_normalization_7", "activation_11", "max_pooling2d_1"]
    names += ["average_pooling2d", "mixed1"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    expected = load_base(find_weights("random:1"), size=SIZE, layers=names)(pixels)
    cut = keras.Model(base.input, [_output(base, name) for name in names])
    for name, found in zip(names, cut.predict(pixels / 127.5 - 1, verbose=0), strict=True):
        np.testing.assert_allclose(found, expected[name], atol=1e-3, err_msg=name)


def test_pooled_features_are_joined(place: Path, tmp_path: Path) -> None:
    """Pooling is part of the network, before the head."""
    store = Store.open(place / "pictures.features")
    model = train(store, "ridge", pool="avg", cv=2)
    assert export(model, tmp_path / "one.keras", store=store).parity.same_labels == 32


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("one.h5", {}, r"ends in \.keras, \.onnx, \.tflite, or \.savedmodel .*; found \.h5"),
        ("one", {}, "found no ending"),
        ("no/where.keras", {}, "in a folder that exists"),
        ("one.keras", {"quantize": "int8"}, r"int8 for \.tflite alone"),
        ("one.tflite", {"quantize": "int4"}, "expected one of none, int8"),
        ("one.keras", {"weights": "random:2"}, "'random:2' gives"),
    ],
)
def test_what_cannot_be_written_is_refused(
    place: Path, tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    """Nothing is written, and the error says what was expected."""
    with pytest.raises(ModelError, match=words):
        export(place / "pictures.model", tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_only_an_export_is_replaced(place: Path, tmp_path: Path) -> None:
    """A file or folder of one's own is left alone, and so is what an export's description is."""
    for name in ("one.keras", "one.keras.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ModelError, match="is there already and is no export"):
            export(place / "pictures.model", tmp_path / "one.keras")
        (tmp_path / name).unlink()
    (tmp_path / "two.savedmodel").mkdir()
    with pytest.raises(ModelError, match="is there already and is no export"):
        export(place / "pictures.model", tmp_path / "two.savedmodel")
    (tmp_path / "two.savedmodel").rmdir()
    shutil.copytree(exported(place, "savedmodel"), tmp_path / "two.savedmodel")
    export(place / "pictures.model", tmp_path / "two.savedmodel")
    assert [path.name for path in tmp_path.iterdir()] == ["two.savedmodel"]


def test_what_is_not_installed_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is computed: the extra to install, or the backend to take."""
    monkeypatch.setattr(parity, "store_for", lambda *_: pytest.fail("went on"))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"headstart\[onnx\]"):
            export(place / "pictures.model", tmp_path / "one.onnx")
    monkeypatch.setattr(import_keras().backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="TFLite files are made by TensorFlow, and Keras runs on"):
        export(place / "pictures.model", tmp_path / "one.tflite")


def test_networks_too_large_for_a_format_are_refused() -> None:
    """Their files count in 32 bits; Keras' own has no such limit."""
    with pytest.raises(ModelError, match=r"holds 3.0 GB of numbers, and ONNX files up to 2.1"):
        formats.FORMATS[".onnx"].check_fits(3_000_000_000)
    formats.FORMATS[".keras"].check_fits(3_000_000_000)


def test_rows_are_needed_that_have_their_pictures(place: Path, tmp_path: Path) -> None:
    """Pictures that changed are passed over; without any, or a store, nothing is written."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(place / "pictures.model", alone)
    with pytest.raises(ModelError, match="name the one it was trained on with --store"):
        export(alone / "pictures.model", alone / "one.keras")
    other, _ = fill_store(
        place / "pictures", tmp_path / "other", dataclasses.replace(SETTINGS, weights="random:2")
    )
    with pytest.raises(ModelError, match="has no features of the model's kind: weights '"):
        export(alone / "pictures.model", alone / "one.keras", store=other)
    others = draw_dataset(tmp_path / "drawn", per_class=2, seed=5)
    store = place / "pictures.features"
    with pytest.raises(DataError, match="not one picture of"):
        export(alone / "pictures.model", alone / "one.keras", store=store, data=others)
    model = Model.load(place / "pictures.model")
    moved = Path(shutil.copytree(place / "pictures", tmp_path / "moved"))
    changed = min(moved.rglob("*.jpg"))
    changed.write_bytes(changed.read_bytes() + b"more")
    sample = parity.draw_sample(model, Store.open(store), moved, further=False)
    assert len(sample.paths) == 31
    assert changed.relative_to(moved).as_posix() not in sample.paths


def test_only_what_is_given_is_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that could be fetched is taken as one from the user, as a path from the store."""
    asked: list[object] = []

    def listed(data: object) -> None:
        asked.append(data)
        raise DataError("no dataset at all")

    monkeypatch.setattr(dataset, "list_dataset", listed)
    model, store = Model.load(place / "pictures.model"), Store.open(place / "pictures.features")
    monkeypatch.setitem(store.catalog.settings, "data", "tfds:tiny")
    for given in ("tfds:tiny", None):
        with pytest.raises(DataError, match="at all"):
            parity.draw_sample(model, store, given, further=False)
    assert asked == ["tfds:tiny", Path("tfds:tiny")]


def test_the_store_it_was_trained_on_is_found_beside_others(
    make_store: Any, draw: Any, tmp_path: Path
) -> None:
    """Not the first by name: classes decide, then their rows; another one is said to be that."""
    features, label = draw(60)
    names = ["ant", "bee", "cow"]
    model = train(make_store(features, label, classes=names, name="own"), "ridge", cv=2)
    make_store(*draw(30, seed=1), classes=["x", "y", "z"], name="a")
    make_store(*draw(30, seed=2), classes=names, name="b")
    assert parity.store_for(model, None, tmp_path).path.name == "own"
    shutil.rmtree(tmp_path / "own")
    second = parity.store_for(model, None, tmp_path)
    assert (second.path.name, parity.has_classes(model, second)) == ("b", True)
    shutil.rmtree(tmp_path / "b")
    other = parity.store_for(model, None, tmp_path)
    assert not parity.has_classes(model, other)
    same = parity.Parity(1, 1, 0.0, "float32", 1, 0.0)
    for known in (True, False):
        found = Exported(Path("m"), Path("m.json"), "ONNX", "none", 1, "a", same, known)
        assert ("that store has other classes" in "\n".join(_words.exported(found))) != known


def test_held_out_rows_come_first(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """What the head was not trained on tells more; no row is a calibration's too."""
    settings = dataclasses.replace(SETTINGS, validation=0.3)
    store, _ = fill_store(place / "pictures", tmp_path / "store", settings)
    model = train(store, "ridge")
    held = set(store.paths("validation"))
    monkeypatch.setattr(parity, "ROWS", len(held))
    sample = parity.draw_sample(model, store, None, further=True)
    assert set(sample.paths) == held
    assert len(sample.further) == len(held)
    assert not (sample.further[:, None] == sample.pixels[None]).all((2, 3, 4)).any()
