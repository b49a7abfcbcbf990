"""The whole way on real pictures and real weights: a store, a model, and files for others."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openclipart
from headstart import cli
from headstart.errors import WeightsError
from headstart.extract.base import import_keras
from headstart.extract.decode import decode
from headstart.extract.weights import find_weights
from headstart.heads.formats import sidecar

pytestmark = pytest.mark.tensorflow

HELD = 100
#: Float32 throughout: then a label is the same wherever it is computed. Small: soon computed.
_EXTRACT = ["--weights", "registry", "--engine", "keras", "--precision", "float32", "--size", "75"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Give a folder with 200 pictures to train on, 100 held out, and a model."""
    pictures = openclipart.fetch(request.config.cache.mkdir("pictures"))
    if pictures is None:
        pytest.skip(openclipart.HOW)
    try:
        find_weights("registry")
    except WeightsError as error:
        pytest.skip(f"needs the registry's weights: {error}")
    folder = tmp_path_factory.mktemp("clip")
    train, held = openclipart.split(pictures, folder, per_class=75)
    assert len(list(held.rglob("*.png"))) == HELD
    store, model = folder / "clip.features", folder / "clip.model"
    assert cli.main(["extract", str(train), "-o", str(store), *_EXTRACT, "--quiet"]) == 0
    command = ["train", str(store), "--head", "logreg", "--cv", "2", "--bundle", "-o", str(model)]
    assert cli.main([*command, "--quiet"]) == 0
    return folder


def test_a_slow_mirror_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what needs it is skipped; nothing half fetched is kept."""

    def slow(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(shutil, "which", lambda _: "apt-get")
    monkeypatch.setattr(subprocess, "run", slow)
    assert openclipart.fetch(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def predicted(place: Path) -> dict[str, str]:
    """Give the label of each held-out picture, as ``headstart predict`` prints it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", said := io.StringIO())
        command = ["predict", str(place / "clip.model"), str(place / "held"), "--format", "csv"]
        assert cli.main(command) == 0
    return {row["picture"]: row["label"] for row in csv.DictReader(io.StringIO(said.getvalue()))}


def _keras(file: Path, pixels: Any) -> Any:
    return import_keras().saving.load_model(file).predict(pixels, 50, verbose=0)


def _savedmodel(file: Path, pixels: Any) -> Any:
    tensorflow = pytest.importorskip("tensorflow")
    loaded = tensorflow.saved_model.load(str(file))
    (answer,) = loaded.signatures["serving_default"](tensorflow.constant(pixels)).values()
    return answer.numpy()


def _onnx(file: Path, pixels: Any) -> Any:
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def _tflite(file: Path, pixels: Any) -> Any:
    network = pytest.importorskip("tensorflow").lite.Interpreter(str(file))
    network.resize_tensor_input(network.get_input_details()[0]["index"], pixels.shape)
    network.allocate_tensors()
    network.set_tensor(network.get_input_details()[0]["index"], pixels)
    network.invoke()
    return network.get_tensor(network.get_output_details()[0]["index"])


_RUN = {"keras": _keras, "savedmodel": _savedmodel, "onnx": _onnx, "tflite": _tflite}


def test_a_model_of_real_pictures_is_of_use(place: Path, predicted: dict[str, str]) -> None:
    """It answers of pictures it has not seen, and more often right than the largest class is."""
    right = [Path(path).parent.name == label for path, label in predicted.items()]
    assert len(right) == HELD
    assert np.mean(right) > 0.5  # a quarter by chance


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("ending", _RUN)
def test_every_file_names_held_out_pictures_as_the_model_does(
    place: Path, predicted: dict[str, str], ending: str
) -> None:
    """100 pictures, decoded by the published rule and given to each file's own runtime."""
    file = place / f"clip.{ending}"
    assert cli.main(["export", str(place / "clip.model"), "-o", str(file), "--quiet"]) == 0
    said = json.loads(sidecar(file).read_text("utf-8"))
    size = said["input"]["shape"][1]
    pixels = np.stack([decode(Path(path).read_bytes(), size) for path in predicted])
    answers = _RUN[ending](file, pixels)
    assert [said["classes"][i] for i in answers.argmax(1)] == list(predicted.values())
