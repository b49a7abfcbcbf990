"""How a network is written to a file, and run from it by the runtime the file is for."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import tempfile
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart._keras import held_stderr, import_keras
from headstart.errors import MissingExtraError, ModelError, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Run = Callable[[Pixels], NDArray[np.float32]]
    Write = Callable[[Any, Path, Pixels | None], None]

_BATCH = 32  # pictures run at once
_MOST_BYTES = (1 << 31) - (1 << 24)  # of ONNX and TFLite files, which count in 32 bits
_ONNX = ("onnx", "onnxruntime", "tf2onnx")
SIDECAR = "headstart.json"  # in a SavedModel's folder of further files


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
    write : callable
        (network, path, pictures to calibrate 8-bit numbers on or None): writes a file or folder.
    run : callable
        (path): opens it with its own runtime; gives a function from pictures (b, size, size, 3)
        uint8 to probabilities (b, k).
    tensorflow : bool
        It is made by TensorFlow, whatever trained the model.
    most_bytes : int
        It can hold of numbers; 0 for no limit.
    """

    name: str
    write: Write
    run: Callable[[Path], Run]
    tensorflow: bool = True
    most_bytes: int = 0

    def check_can_write(self) -> None:
        """Refuse what this installation cannot write, before anything is computed.

        Raises
        ------
        MissingExtraError
            If a package is missing.
        ModelError
            If Keras runs on another backend than the file needs.
        """
        if self.name == "ONNX" and not all(map(importlib.util.find_spec, _ONNX)):
            raise MissingExtraError(
                f"ONNX files need a converter and ONNX Runtime; {install('onnx')}"
            )
        backend = import_keras().backend.backend()
        if self.tensorflow and backend != "tensorflow":
            raise ModelError(
                f"{self.name} files are made by TensorFlow, and Keras runs on {backend}: unset "
                "KERAS_BACKEND, or export to .keras"
            )

    def check_fits(self, held: int) -> None:
        """Refuse a network whose numbers, so many bytes, the file cannot hold.

        Raises
        ------
        ModelError
            If there are too many.
        """
        if self.most_bytes and held > self.most_bytes:
            raise ModelError(
                f"the network holds {held / 1e9:.1f} GB of numbers, and {self.name} files up to "
                f"{self.most_bytes / 1e9:.1f}: export to .keras, or train with --pool avg"
            )


def format_of(path: Path) -> Format:
    """Return the format that a name asks for.

    Raises
    ------
    ModelError
        If it is none.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ModelError(
            f"{path}: expected a name that ends in .keras, .onnx, .tflite, or .savedmodel (a "
            f"folder); found {suffix or 'no ending'}"
        )
    return FORMATS[suffix]


def describe(path: Path, content: dict[str, Any]) -> None:
    """Write what a file is beside it, or into its folder."""
    place = sidecar(path)
    place.parent.mkdir(exist_ok=True)
    place.write_text(_json(content), encoding="utf-8")


def embed(path: Path, content: dict[str, Any]) -> None:
    """Write what a network is into its file, where the format has a place for it: ONNX."""
    if format_of(path).name == "ONNX":
        onnx = importlib.import_module("onnx")
        network = onnx.load(path)
        onnx.helper.set_model_props(network, {"headstart": _json(content)})
        onnx.save(network, path)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sidecar(path: Path) -> Path:
    """Return where the description of an exported file is."""
    if path.suffix.lower() == ".savedmodel":
        return path / "assets.extra" / SIDECAR
    return path.with_name(f"{path.name}.json")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what converters say of themselves, unless they fail."""
    with held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _in_batches(run: Callable[[Pixels], Any], pixels: Pixels) -> NDArray[np.float32]:
    """Run pictures in batches as nearly of one size as can be: programs are made for each size."""
    batches = np.array_split(pixels, -(-len(pixels) // _BATCH))
    return np.concatenate([np.asarray(run(batch)) for batch in batches])


def _pictures(network: Any) -> list[Any]:
    """Return what a program of a network is given, as TensorFlow is told of it."""
    tensorflow = importlib.import_module("tensorflow")
    return [tensorflow.TensorSpec(network.input_shape, "uint8", name="pictures")]


def _write_keras(network: Any, path: Path, calibration: Pixels | None) -> None:
    del calibration
    with _quietly():
        network.save(path)


def _run_keras(path: Path) -> Run:
    keras = import_keras()
    with _quietly():
        network = keras.saving.load_model(path, compile=False)
    return lambda pixels: _in_batches(network.predict_on_batch, pixels)


def _write_savedmodel(network: Any, path: Path, calibration: Pixels | None) -> None:
    """Write what Keras' own export does, in half the time: it looks for tables in every layer."""
    del calibration
    with _quietly():
        archive = import_keras().export.ExportArchive()
        for name in ("variables", "trainable_variables", "non_trainable_variables"):
            getattr(archive, name).extend(held.value for held in getattr(network, name))
        archive.add_endpoint("serve", network.__call__, _pictures(network))
        archive.write_out(path, verbose=False)


def _run_savedmodel(path: Path) -> Run:
    tensorflow = importlib.import_module("tensorflow")
    with _quietly():
        loaded = tensorflow.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def run(pixels: Pixels) -> Any:
        (found,) = serve(tensorflow.constant(pixels)).values()
        return found

    return lambda pixels, _loaded=loaded: _in_batches(run, pixels)  # type: ignore[misc]


def _write_onnx(network: Any, path: Path, calibration: Pixels | None) -> None:
    """Write it as one layer: Keras looks for tables in every one there is."""
    del calibration
    layers, shape = import_keras().layers, network.output_shape[1:]
    with _quietly():
        one = layers.Lambda(lambda x: network(x, training=False), output_shape=shape)
        whole = import_keras().Model(network.inputs, one(network.inputs[0]))
        whole.export(path, format="onnx", verbose=False, input_signature=_pictures(network))


def _run_onnx(path: Path) -> Run:
    session = importlib.import_module("onnxruntime").InferenceSession(path)
    (pictures,) = session.get_inputs()
    return lambda pixels: _in_batches(lambda b: session.run(None, {pictures.name: b})[0], pixels)


def _write_tflite(network: Any, path: Path, calibration: Pixels | None) -> None:
    """Write it with its numbers as constants: a converter takes long to make variables such."""
    tensorflow = importlib.import_module("tensorflow")
    variables = (network.trainable_variables, network.non_trainable_variables)
    numbers = [[np.asarray(held) for held in several] for several in variables]

    def answer(pictures: Any) -> Any:
        return network.stateless_call(*numbers, pictures, training=False)[0]

    with tempfile.TemporaryDirectory() as folder, _quietly():
        program = tensorflow.function(answer, input_signature=_pictures(network), autograph=False)
        signature = program.get_concrete_function()
        tensorflow.saved_model.save(tensorflow.Module(), folder, signatures=signature)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        if calibration is not None:
            converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([each[None]] for each in calibration)
        path.write_bytes(converter.convert())


def _run_tflite(path: Path) -> Run:
    tensorflow = importlib.import_module("tensorflow")
    with _quietly():
        interpreter = tensorflow.lite.Interpreter(str(path))
    (pictures,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Pixels) -> Any:
        with _quietly():
            interpreter.resize_tensor_input(pictures["index"], pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(pictures["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return lambda pixels: _in_batches(run, pixels)


FORMATS = {
    ".keras": Format("Keras", _write_keras, _run_keras, tensorflow=False),
    ".savedmodel": Format("SavedModel", _write_savedmodel, _run_savedmodel),
    ".onnx": Format("ONNX", _write_onnx, _run_onnx, most_bytes=_MOST_BYTES),
    ".tflite": Format("TFLite", _write_tflite, _run_tflite, most_bytes=_MOST_BYTES),
}
