"""What runs the base: a batch of pixels in, named activations out."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headstart._hardware import gpu_capability, native_bfloat16
from headstart._keras import require_backend
from headstart.errors import HeadstartError, MissingExtraError, install

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.extract._graph import Graph

__all__ = [
    "Engine",
    "Program",
    "is_out_of_memory",
    "require_same_engine",
    "resolve_engine",
    "resolve_precision",
    "start_engine",
]

CENTRE = 127.5  # what the program takes from each pixel; the first convolution does the scaling

# How frameworks say that memory ran out: TensorFlow, JAX, PyTorch on a GPU and on a CPU, C++.
_OUT_OF_MEMORY = (
    "ResourceExhaustedError",
    "RESOURCE_EXHAUSTED",
    "OutOfMemoryError",
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
)


@dataclass(frozen=True)
class Program:
    """What an engine is to run.

    Attributes
    ----------
    graph
        From pixels less `CENTRE` (such numbers are exact in bfloat16 too) to activations.
    size
        Height and width of the pictures, in pixels.
    batch_size
        Number of pictures in each batch, no more and no fewer.
    pool
        ``none``, or ``avg`` or ``max`` over height and width at each output.
    precision
        ``float32`` or ``bfloat16``: of weights and activations; sums are in float32.
    device
        Where Keras runs it, by Keras' name such as ``gpu:1``; where it likes if empty.
    """

    graph: Graph
    size: int
    batch_size: int
    pool: str
    precision: str
    device: str = ""


class Engine(Protocol):
    """A program made ready on a device."""

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Turn (batch_size, size, size, 3) pixels into one array (batch_size, ...) an output."""
        ...


def start_engine(name: str, program: Program) -> Engine:
    """Make a program ready on an engine, ``keras`` or ``openvino``.

    Raises
    ------
    MissingExtraError
        When the engine is not installed.
    """
    if name == "openvino":
        _require_openvino()
        from headstart.extract._openvino_engine import OpenVINOEngine

        return OpenVINOEngine(program)
    from headstart.extract._keras_engine import KerasEngine

    return KerasEngine(program)


def resolve_engine(name: str) -> str:
    """Turn ``auto`` into the engine for this machine; loads neither.

    OpenVINO is taken where it is installed and neither a GPU nor a ``KERAS_BACKEND`` asks for
    Keras.

    Raises
    ------
    HeadstartError
        When there is no such engine, or no such backend of Keras.
    MissingExtraError
        When OpenVINO, or the backend that ``KERAS_BACKEND`` names, is asked for and not installed.
    """
    if name == "auto":
        keras = not _has_openvino() or "KERAS_BACKEND" in os.environ or gpu_capability() is not None
        name = "keras" if keras else "openvino"
    if name not in ("keras", "openvino"):
        raise HeadstartError(f"--engine {name}: expected auto, keras or openvino.")
    if name == "openvino":
        _require_openvino()
    else:
        require_backend()
    return name


def require_same_engine(name: str, holder: str, anew: str) -> None:
    """Refuse to go on with features of an engine that is not here; another is never put for it.

    Parameters
    ----------
    name
        The engine they were made with.
    holder
        What holds them, for the message: ``the store pets.features``.
    anew
        How to do without that engine.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if name == "openvino" and not _has_openvino():
        raise MissingExtraError(
            f"{holder} was made with the engine openvino, which is not installed here, and "
            f"features of two engines are never mixed; {install('cpu')}; or {anew}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on the host or on a device, whichever framework says so."""
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _require_openvino() -> None:
    if not _has_openvino():
        raise MissingExtraError(f"OpenVINO is not installed; {install('cpu')}")


def resolve_precision(name: str) -> str:
    """Turn ``auto`` into ``bfloat16`` where the hardware computes in it, else ``float32``.

    Loads no framework: asks the processor's flags, and the driver for an NVIDIA GPU.

    Raises
    ------
    HeadstartError
        When there is no such precision.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise HeadstartError(f"--precision {name}: expected auto, float32 or bfloat16.")
    if name != "auto":
        return name
    return "bfloat16" if native_bfloat16() else "float32"
