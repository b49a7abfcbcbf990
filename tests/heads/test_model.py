"""Models: what is kept, what is refused, and that predictions are those of the head."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import RidgeClassifier

import fakes
from headstart import cli
from headstart.cache import pack
from headstart.errors import HeadError, MissingExtraError, ModelError
from headstart.extract import Settings, engines, fill_store
from headstart.extract import decode as decode_module
from headstart.extract.base import load_arrays
from headstart.extract.weights import WeightsFile, find_weights
from headstart.heads import compare, training
from headstart.heads import model as model_module
from headstart.heads.card import Card
from headstart.heads.model import Model
from headstart.heads.portable import Linear
from headstart.heads.training import train

Make = Callable[..., Any]


@pytest.fixture
def model(make_store: Make, draw: Make) -> Model:
    """Return a small model of a drawn store."""
    return train(make_store(*draw(60, signal=0.3)), "logreg", cv=2)


_DENSE = pytest.param("dense", marks=pytest.mark.tensorflow)


@pytest.mark.parametrize("head", ["logreg", "svm", "svm-rbf", "ridge", "ncm", "knn", _DENSE])
def test_saved_and_loaded_predicts_the_same_bit_for_bit(
    make_store: Make, draw: Make, tmp_path: Path, head: str
) -> None:
    """Every head's model comes back from its file as it was."""
    store = make_store(*draw(60, signal=0.3))
    made = train(store, head, cv=2)
    again = Model.load(made.save(tmp_path / "a.model"))
    features = store.features(dtype="float16")
    assert np.array_equal(again.probabilities(features), made.probabilities(features))
    assert again.card == made.card
    assert [path.name for path in tmp_path.glob("*.model*")] == ["a.model"]


def test_card_says_what_the_model_is(make_store: Make, draw: Make) -> None:
    """Base, classes, rows, accuracy as compared, and what it was made with."""
    store = make_store(*draw(60, signal=0.3), classes=["ant", "bee", "cow"])
    card = train(store, "logreg", cv=3).card
    assert card.spec == store.spec
    assert (card.classes, card.rows) == (("ant", "bee", "cow"), (20, 20, 20))
    assert card.ci95[0] < card.accuracy < card.ci95[1]
    assert card.measured.startswith("3 stratified folds")
    assert card.majority_accuracy == pytest.approx(1 / 3, abs=0.01)
    assert {"headstart", "numpy"} <= {name.removesuffix("_version") for name in card.versions}
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_the_card_measures_the_label_that_a_model_gives(make_store: Make, draw: Make) -> None:
    """The most probable class; an SVM's own decision, which `compare` measures, may be another."""
    store = make_store(*draw(60, signal=0.1), classes=["ant", "bee", "cow"])
    found = compare(store, ["svm"], cv=3).heads[0]
    probability = found.predictions.probability
    assert probability is not None
    named = (probability.argmax(1) == found.predictions.true).mean()
    card = train(store, "svm", cv=3).card
    assert card.accuracy == named != found.accuracy
    assert card.ci95[0] < named < card.ci95[1]


def test_a_class_weighs_what_its_name_was_given(make_store: Make, draw: Make) -> None:
    """A model leans to the class that weighs more."""
    store = make_store(*draw(60, signal=0.05), classes=["ant", "bee", "cow"])
    features = store.features()
    plain, leaning = (
        train(store, "logreg", cv=3, class_weight=weights).probabilities(features)[:, 1].mean()
        for weights in (None, {"bee": 50})
    )
    assert leaning > plain + 0.01


def test_validation_rows_are_measured_and_never_trained_on(make_store: Make, draw: Make) -> None:
    """With a split, the model is as good there as was measured (its scale is another's)."""
    split = (["train"] * 6 + ["validation"] * 3) * 7
    features, label = draw(63, signal=0.3)
    store = make_store(features, label, split=split)
    made = train(store, "logreg")
    assert sum(made.card.rows) == 42
    held = store.rows("validation")
    guess = made.probabilities(store.features(rows=held, dtype="float16")).argmax(1)
    assert (guess == label[held]).mean() == pytest.approx(made.card.accuracy, abs=0.11)


@pytest.mark.parametrize("pool", ["none", "avg", "max"])
@pytest.mark.usefixtures("fake_base")
def test_pictures_are_predicted_as_their_rows(pets: Path, tmp_path: Path, pool: Any) -> None:
    """Files, arrays and cached features give the same answer; what cannot be read is told."""
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=16, weights="random"))
    made = train(store, "ridge", pool=pool, cv=2)
    expected = made.probabilities(store.features(dtype="float16"))
    files: list[Any] = [pets / path for path in store.paths()]
    arrays = [np.array(Image.open(file)) for file in files]
    (pets / "bad.png").write_bytes(b"")
    told: list[tuple[str, int, int]] = []
    mixed = [files[0], pets / "bad.png", tmp_path / "nothing.png", *files[1:]]
    found = made.predict(mixed, workers=2, progress=lambda *step: told.append(step))
    assert [p.picture for p in found] == list(map(str, mixed))
    assert [bool(p.reason) for p in found[:4]] == [False, True, True, False]
    assert found[1].reason == "empty file"
    assert math.isnan(found[1].probability)
    good = [p for p in found if p.label]
    np.testing.assert_allclose([p.probabilities for p in good], expected, atol=1e-6)
    assert [p.label for p in good] == [made.card.classes[i] for i in expected.argmax(1)]
    assert told[-1] == ("predicting", len(mixed), len(mixed))
    assert made.predict(str(files[0]))[0].label == made.predict(arrays[0])[0].label == good[0].label
    again = made.predict(arrays)
    np.testing.assert_allclose([p.probabilities for p in again], expected, atol=1e-6)
    assert good[0].top(made.card.classes, 5)[0] == (good[0].label, good[0].probability)


@pytest.mark.usefixtures("fake_base")
def test_a_model_needs_the_engine_of_its_features(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training needs no engine and says which one predicting will; without it, what to do."""
    monkeypatch.setattr(engines, "_has_openvino", lambda: False)
    for engine, needed in (("openvino", 1), ("keras", 0)):
        settings = Settings(size=16, weights="random", engine=engine)
        with monkeypatch.context() as there:
            there.setattr(engines, "_has_openvino", lambda: True)
            fill_store(pets, tmp_path / engine, settings)
        options = ["--head", "ridge", "--cv", "2", "-o", str(tmp_path / f"{engine}.model")]
        assert cli.main(["train", str(tmp_path / engine), *options]) == 0
        assert capsys.readouterr().out.count("needs     OpenVINO to predict") == needed
    picture = [pets / "cat" / "0000.png"]
    assert Model.load(tmp_path / "keras.model").predict(picture)[0].label
    with pytest.raises(MissingExtraError, match=r"engine openvino.*cpu.*--engine keras, and train"):
        Model.load(tmp_path / "openvino.model").predict(picture)


@pytest.mark.usefixtures("fake_base")
def test_another_base_is_refused(pets: Path, tmp_path: Path) -> None:
    """The weights are known by their digest, not by what they are called."""
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=16, weights="random"))
    made = train(store, "ridge", cv=2).with_weights("random:7")
    with pytest.raises(ModelError, match="'random:7' gives"):
        made.predict([fakes.draw(tmp_path / "one.png", seed=1)])


def test_heads_and_classes_that_cannot_be_kept(make_store: Make, draw: Make) -> None:
    """An unknown head, or a class without a training row, is refused."""
    features, label = draw(30)
    with pytest.raises(HeadError, match="found a RidgeClassifier"):
        train(make_store(features, label, name="one.features"), RidgeClassifier())
    with pytest.raises(HeadError, match="no head is called"):
        train(make_store(features, label), "forest")
    store = make_store(features, label % 2, classes=["a", "b", "c"], name="two.features")
    with pytest.raises(HeadError, match="every class of the store needs a training row"):
        train(store, "ridge", cv=2)


def rewritten(
    path: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]
) -> Path:
    """Write a model again with another card or other arrays, its checksum made to fit."""
    from headstart.heads.model import _digest

    with safe_open(path, "numpy") as file:
        metadata = dict(file.metadata())
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    card = json.loads(metadata["headstart"])
    card = change(card, arrays) or card
    text = json.dumps(card)
    save_file(arrays, target, {"headstart": text, "sha256": _digest(text, arrays)})
    return target


def _set(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    return lambda card, _: card.__setitem__(name, value)


def _classes(names: str) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    return lambda card, _: {**card, "classes": list(names), "rows": [20] * len(names)}


def _array(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    return lambda _, arrays: arrays.__setitem__(name, np.ascontiguousarray(value))


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "another format": _set("format", "pickle"),
    "a newer format": _set("format_version", 2),
    "an unknown key": _set("module", "os"),
    "a missing key": lambda card, _: card.pop("classes"),
    "an unknown kind": _set("kind", "Lambda"),
    "a kind of another head": _set("kind", "neighbours"),
    "a class too many": _classes("abcd"),
    "a class too few": _classes("ab"),
    "one class twice": lambda card, _: card.__setitem__("classes", ["a", "a", "b"]),
    "classes that are numbers": _set("classes", [1, 2, 3]),
    "classes as text": _set("classes", "abc"),
    "rows that do not fit": _set("rows", [1]),
    "a spec of nothing": _set("spec", {}),
    "a spec that is text": _set("spec", "InceptionV3"),
    "a spec with code": lambda card, _: card["spec"].__setitem__("function", "os.system"),
    "a spec of numbers": lambda card, _: card["spec"].__setitem__("layer", 7),
    "an unknown pool": _set("pool", "sum"),
    "another shape": _set("shape", [3, 3, 41]),
    "a giant shape": _set("shape", [1 << 20, 1 << 20, 1 << 20]),
    "a negative shape": _set("shape", [-3, -3, 40]),
    "a shape of text": _set("shape", ["3", "3", "40"]),
    "too many dimensions": _set("shape", [1] * 9),
    "an accuracy above 1": _set("accuracy", 1.5),
    "an accuracy that is text": _set("accuracy", "high"),
    "three limits": _set("ci95", [0.1, 0.2, 0.3]),
    "params with objects": _set("params", {"C": {"__reduce__": "os.system"}}),
    "params that are a list": _set("params", [1]),
    "a negative limit of pixels": _set("max_pixels", -1),
    "no limit of pixels": _set("max_pixels", 1 << 60),
    "a card that is a list": lambda card, _: [card],
    "arrays of another shape": _array("weights", np.zeros((3, 7), np.float32)),
    "an array too many": _array("extra", np.zeros(3, np.float32)),
    "an array too few": lambda _, arrays: arrays.pop("bias") is None,
    "a title that clears the screen": _set("head", "\x1b[2Jlogreg"),
    "a measure that clears the screen": _set("measured", "\x1b[2J"),
    "a version that clears the screen": _set("versions", {"\x1b[2J": "1"}),
    "params that are no numbers": _set("params", {"C": math.nan}),
    "a spec that clears the screen": lambda card, _: card["spec"].__setitem__("\x1b[2J", 1),
    "weights that are no digest": lambda card, _: card["spec"].__setitem__("weights", "\x1b[2J"),
    "a giant picture": lambda card, _: card["spec"].__setitem__("size", 1 << 20),
    "a dtype of bytes": lambda card, _: card["spec"].__setitem__("dtype", "S9999"),
    "an unknown engine": lambda card, _: card["spec"].__setitem__("engine", "auto"),
    "an unknown precision": lambda card, _: card["spec"].__setitem__("precision", "float8"),
    "an unknown stored pool": lambda card, _: card["spec"].__setitem__("pool", "sum"),
    "whole numbers for weights": lambda _, arrays: arrays.update(
        weights=arrays["weights"].astype(np.int64)
    ),
    "no dimensions": lambda _, arrays: arrays.update(bias=np.array(0, np.float32)),
    "not a number": _array("bias", np.full(3, np.nan, np.float32)),
    "infinite": _array("bias", np.full(3, np.inf, np.float32)),
    "bytes for numbers": _array("bias", np.zeros(3, np.uint8)),
    "a name that clears the screen": _array("\x1b[2J\x1b]0;hi\x07", np.zeros(3, np.float32)),
    "bytes under a name that clears the screen": _array("\x1b[2J\x07", np.zeros(3, np.uint8)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_models_are_refused(model: Model, tmp_path: Path, name: str) -> None:
    """Whatever is changed, also with a checksum that fits, nothing of it is used."""
    path = rewritten(model.save(tmp_path / "good.model"), tmp_path / "bad.model", CHANGES[name])
    with pytest.raises(ModelError, match=r"bad\.model is not a model that can be used") as error:
        Model.load(path)
    assert str(error.value).isprintable()


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def _zip_slip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../escaped", "x")


def _npz_of_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.array([_Bomb()]))


def _header(header: bytes, length: int | None = None) -> Callable[[Path], Any]:
    size = len(header) if length is None else length
    return lambda path: path.write_bytes(size.to_bytes(8, "little") + header)


GIANT = json.dumps({"weights": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
ODD_DTYPE = json.dumps({"x": {"dtype": "\x1b[2J", "shape": [], "data_offsets": [0, 0]}})
FILES: dict[str, Callable[[Path], Any]] = {
    "an empty file": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(_Bomb())),
    "an npz of objects": _npz_of_objects,
    "a zip slip": _zip_slip,
    "a giant header": _header(b"{}", 1 << 60),
    "a giant array": _header(GIANT.encode()),
    "deep nesting": _header(b"[" * 100_000),
    "an unknown dtype": _header(ODD_DTYPE.encode()),
    "no JSON": _header(b"{not json}"),
    "another program's tensors": lambda path: save_file({"x": np.zeros(3)}, path),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("packed", [False, True])
def test_a_store_is_no_model_yet(
    make_store: Make, draw: Make, tmp_path: Path, packed: bool
) -> None:
    """What makes one of it is named."""
    store = make_store(*draw(20))
    path = pack(store, tmp_path / "one.h5") if packed else store.path
    with pytest.raises(ModelError, match="headstart train STORE"):
        Model.load(path)


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing is unpickled, unpacked, executed, or allocated for what a header promises."""
    monkeypatch.chdir(tmp_path)
    FILES[name](tmp_path / "bad.model")
    with pytest.raises(ModelError, match=r"bad\.model is not a model that can be used") as error:
        Model.load(tmp_path / "bad.model")
    assert str(error.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"bad.model"}


def test_every_flipped_byte_is_noticed(model: Model, tmp_path: Path) -> None:
    """A model that was damaged anywhere is not used."""
    whole = model.save(tmp_path / "good.model").read_bytes()
    draw = np.random.default_rng(0)
    for position in draw.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(draw.integers(8))
        (tmp_path / "bad.model").write_bytes(damaged)
        with pytest.raises(ModelError):
            Model.load(tmp_path / "bad.model")
    for length in range(0, len(whole), 1009):
        (tmp_path / "bad.model").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            Model.load(tmp_path / "bad.model")


def test_no_model_is_left_half_written(model: Model, tmp_path: Path) -> None:
    """A folder that is not there is refused; a classifier that does not fit is, too."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelError, match="in a folder that exists"):
        model.save(tmp_path / "no" / "where.model")
    with pytest.raises(ModelError, match="in a folder that exists"):
        model.save(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(ModelError, match="its folder cannot be written to"):
            model.save(tmp_path / "one.model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ModelError, match="cannot be written: No space left on device"):
            model.save(tmp_path / "one.model")
    assert list(tmp_path.glob("*one.model*")) == []
    with pytest.raises(ModelError, match="weights has shape"):
        Model(model.card, Linear(np.zeros((3, 2), np.float32), np.zeros(3, np.float32)))
    wrong = dataclasses.replace(model.card, shape=(2, 2, 2))
    with pytest.raises(ModelError, match="weights has shape"):
        Model(wrong, model.classifier)


def test_packed_stores_can_be_trained_on(make_store: Make, draw: Make, tmp_path: Path) -> None:
    """A model does not care whether its features were packed; a path is enough to find them."""
    from headstart.cache import pack

    store = make_store(*draw(60, signal=0.3))
    packed = pack(store, tmp_path / "one.h5")
    features = store.features(dtype="float16")
    expected = train(store, "logreg", cv=2).probabilities(features)
    found = train(packed, "logreg", cv=2).probabilities(features)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


OTHERS: dict[str, Callable[[Path], Any]] = {
    "a table": lambda path: path.write_text("path,label\n1.png,cat\n"),
    "an empty file": lambda path: path.write_bytes(b""),
    "another program's tensors": FILES["another program's tensors"],
    "a pipe": _pipe,
    "a broken link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_file_is_replaced(model: Model, tmp_path: Path, name: str) -> None:
    """Only a model gives way to a model; the message says what to do."""
    target = tmp_path / "pets.csv"
    OTHERS[name](target)
    before = target.lstat()
    with pytest.raises(ModelError, match="is no model: name another one with -o"):
        model.save(target)
    after = target.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.glob(".pets*")) == []


def test_older_models_are_replaced(model: Model, tmp_path: Path) -> None:
    """Also one that is damaged, or was made by a newer Headstart."""
    target = model.save(tmp_path / "one.model")
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    assert Model.load(model.save(target)).card == model.card
    rewritten(target, target, CHANGES["a newer format"])
    assert Model.load(model.save(target)).card == model.card


def test_what_could_not_be_loaded_is_not_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading has limits, so saving has them, and says so before a byte is written."""
    size = model.save(tmp_path / "one.model").stat().st_size
    monkeypatch.setattr(model_module, "_MOST_BYTES", size - 1)
    with pytest.raises(ModelError, match="use --pool avg"):
        model.save(tmp_path / "two.model")
    monkeypatch.setattr(model_module, "_MOST_BYTES", 1 << 30)
    monkeypatch.setattr(model_module, "_MOST_CARD", 100)
    with pytest.raises(ModelError, match="fewer rows or classes"):
        model.save(tmp_path / "two.model")
    odd = Model(dataclasses.replace(model.card, log_loss=math.inf), model.classifier)
    with pytest.raises(ModelError, match="its card says log_loss: 'inf'"):
        odd.save(tmp_path / "two.model")
    assert [path.name for path in tmp_path.glob("*.model")] == ["one.model"]


def test_weights_that_overflow_give_no_prediction(model: Model) -> None:
    """Finite numbers may still make none: that is an error, never a label."""
    weights = np.array([[3e38, 3e38, -3e38, -3e38] * 90] * 3, np.float32)
    made = Model(model.card, Linear(weights, np.zeros(3, np.float32)))
    with pytest.raises(ModelError, match="probabilities that are no numbers"):
        made.probabilities(np.full((2, 3, 3, 40), 9, np.float16))
    with pytest.raises(ModelError, match=r"have shape \(3, 3, 40\); found \(2, 360\)"):
        model.probabilities(np.zeros((2, 360), np.float16))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("decoding", "pillow-0", "decoding 'pillow-0', and this Headstart makes those of 'pillow"),
        ("resampling", "nearest", "resampling 'nearest'.*: extract and train again"),
        ("architecture", "VGG16", "architecture 'VGG16'"),
        ("layer", "mixed99", "no layer 'mixed99'"),
        ("size", 74, "75x75 pixels or more"),
    ],
)
def test_features_of_another_rule_are_not_made(
    model: Model, tmp_path: Path, name: str, value: Any, words: str
) -> None:
    """A model of an older rule can be looked at, but it labels no picture by today's."""
    spec = dataclasses.replace(model.card.spec, **{name: value})
    old = Model(dataclasses.replace(model.card, spec=spec, weights="random"), model.classifier)
    loaded = Model.load(old.save(tmp_path / "old.model"))
    with pytest.raises(ModelError, match=words):
        loaded.predict([fakes.draw(tmp_path / "one.png", seed=1)])


@pytest.mark.usefixtures("fake_base")
def test_base_of_another_shape_is_refused(pets: Path, tmp_path: Path) -> None:
    """What the card says of the features is held against the base before a picture is read."""
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=16, weights="random"))
    made = train(store, "ridge", cv=2)
    assert made.card.shape == (3, 3, 4)
    turned = Model(dataclasses.replace(made.card, shape=(4, 3, 3)), made.classifier)
    with pytest.raises(ModelError, match=r"shape \(4, 3, 3\); its base gives \(3, 3, 4\)"):
        turned.predict([tmp_path / "nothing.png"])


@pytest.mark.usefixtures("fake_base")
def test_pooled_stores_make_models(pets: Path, tmp_path: Path) -> None:
    """Features that were pooled before they were stored are made so for a prediction, too."""
    settings = Settings(size=16, weights="random", pool="avg")
    store, _ = fill_store(pets, tmp_path / "store", settings)
    made = train(store, "ridge", pool="avg", cv=2)
    found = made.predict([pets / path for path in store.paths()])
    expected = made.probabilities(store.features(dtype="float16"))
    np.testing.assert_allclose([p.probabilities for p in found], expected, atol=1e-6)


@pytest.mark.usefixtures("fake_base")
def test_a_path_in_a_card_is_never_opened(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card names no path of its trainer's, and of a stranger's card only names are followed."""
    file = tmp_path / "base.h5"
    file.write_bytes(b"weights")
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=16, weights=str(file)))
    made = train(store, "ridge", cv=2)
    assert made.card.weights == "file"
    assert str(tmp_path) not in json.dumps(made.card.to_dict())
    picture = pets / store.paths()[0]
    assert made.with_weights(str(file)).predict([picture])[0].label
    (tmp_path / "file").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    for name in ("file", str(file)):
        forged = Model(dataclasses.replace(made.card, weights=name), made.classifier)
        with pytest.raises(ModelError, match="name it with --weights FILE"):
            forged.predict([picture])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_memory": 1}, "a model is trained in memory, but a row space of 60 rows would take"),
        ({"head": "forest"}, "no head is called"),
        ({"store": "empty class"}, "needs a training row; there is none of 'c'"),
        ({"store": "old rule"}, "extract and train again"),
    ],
)
def test_what_cannot_become_a_model_is_not_measured(
    make_store: Make,
    draw: Make,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    words: str,
) -> None:
    """The answer comes before the work, not after it."""
    features, label = draw(60)
    kind = options.pop("store", "")
    store = make_store(features, label % 2 if kind else label, classes=["a", "b", "c"])
    if kind == "old rule":
        monkeypatch.setattr(decode_module, "RULES", {"full": "pillow-2"})
    monkeypatch.setattr(training, "compare", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises((HeadError, ModelError), match=words):
        train(store, **{"head": "ridge", "cv": 2, **options})


def test_memory_is_passed_on(make_store: Make, draw: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be used holds for the measuring and for the fit."""
    seen: list[int | None] = []

    def compared(*arguments: Any, **options: Any) -> Any:
        seen.append(options["max_memory"])
        return compare(*arguments, **options)

    monkeypatch.setattr(training, "compare", compared)
    made = train(make_store(*draw(60, signal=0.3)), "ridge", cv=2, max_memory=1 << 30)
    assert (seen, made.card.head) == ([1 << 30], "ridge")


def test_a_file_is_not_read_before_it_fits(model: Model, tmp_path: Path) -> None:
    """Three gigabytes of zeros under the name of weights are refused by their shape, unread."""
    card = json.dumps(model.card.to_dict())
    n = 250_000_000
    shapes = {"bias": [3], "weights": [3, n]}
    ends = {"bias": [0, 12], "weights": [12, 12 + 12 * n]}
    header = {
        "__metadata__": {"headstart": card, "sha256": "0" * 64},
        **{k: {"dtype": "F32", "shape": shapes[k], "data_offsets": ends[k]} for k in shapes},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "large.model"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + ends["weights"][1])  # a hole: it takes no place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=rf"weights has shape \(3, {n}\); expected \(3, 360\)"):
        Model.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


# --- the base in the file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> WeightsFile:
    """Give weights of a base, as they are read."""
    file = find_weights("random:1")
    return dataclasses.replace(file, arrays=load_arrays(file))


def _carrying(model: Model, base: WeightsFile) -> Model:
    assert base.arrays is not None
    spec = dataclasses.replace(model.card.spec, weights=base.arrays.digest())
    return Model(dataclasses.replace(model.card, spec=spec), model.classifier, bundled=base)


def test_a_model_can_carry_its_base(
    model: Model, base: WeightsFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it loads is what was saved, no name in its card is followed, and `status` says so."""
    made = _carrying(model, base)
    path = made.save(tmp_path / "one.model")
    assert path.stat().st_size > 80_000_000
    assert cli.main(["status", str(path)]) == 0
    assert "...), in the model\n" in capsys.readouterr().out
    assert cli.main(["status", str(model.save(tmp_path / "named.model"))]) == 0
    assert "in the model" not in capsys.readouterr().out
    again = Model.load(path)
    found = again.base_weights()
    assert found.arrays is not None
    assert found.arrays.digest() == made.card.spec.weights
    assert again.card == made.card
    with pytest.raises(ModelError, match="'random:2' gives"):
        again.with_weights("random:2").base_weights()
    other = Model(model.card, model.classifier, bundled=base)
    with pytest.raises(ModelError, match="'random:1' gives"):
        other.base_weights()


BASES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "a kernel too few": lambda _, arrays: arrays.pop("base.kernel.93") is None,
    "a kernel too many": _array("base.kernel.94", np.zeros((1, 1, 3, 3), np.float32)),
    "a kernel of another shape": _array("base.kernel.00", np.zeros((3, 3, 3, 33), np.float32)),
    "a norm in half precision": _array("base.norm.00", np.zeros((3, 32), np.float16)),
    "a norm that is no number": _array("base.norm.00", np.full((3, 32), np.nan, np.float32)),
    "a layer that runs code": _array("base.lambda.00", np.zeros(3, np.float32)),
    "a name that clears the screen": _array("base.\x1b[2J", np.zeros(3, np.float32)),
    "bytes under a name that clears the screen": _array("base.\x1b[2J", np.zeros(3, np.uint8)),
}


@pytest.mark.parametrize("name", BASES)
def test_hostile_bases_are_refused(
    model: Model, base: WeightsFile, tmp_path: Path, name: str
) -> None:
    """What is no base is not taken for one, also with a checksum that fits."""
    good = _carrying(model, base).save(tmp_path / "good.model")
    path = rewritten(good, tmp_path / "bad.model", BASES[name])
    with pytest.raises(ModelError, match=r"bad\.model is not a model that can be used") as error:
        Model.load(path)
    assert str(error.value).isprintable()


@pytest.mark.usefixtures("fake_base")
def test_the_base_to_bundle_is_that_of_the_store(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights than those of the features are refused before anything is measured."""
    store, _ = fill_store(pets, tmp_path / "store", Settings(size=16, weights="random:1"))
    monkeypatch.setattr(training, "compare", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(ModelError, match="leave --bundle away"):
        train(store, "ridge", cv=2, bundle=True)
