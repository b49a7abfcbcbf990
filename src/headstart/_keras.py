"""Import Keras without its start-up noise."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

from headstart._imports import uncollected
from headstart.errors import HeadstartError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_OWN_POOLS = "TF_OVERRIDE_GLOBAL_THREADPOOL"  # else what wakes TensorFlow sets every pool's size
_BACKENDS = ("tensorflow", "jax", "torch")


def require_backend() -> None:
    """See, without loading it, that the backend ``KERAS_BACKEND`` asks for can be had.

    Raises
    ------
    HeadstartError
        When there is no such backend.
    MissingExtraError
        When it is not installed.
    """
    name = os.environ.get("KERAS_BACKEND")
    if not name:
        return
    if name not in _BACKENDS:
        raise HeadstartError(f"KERAS_BACKEND={name}: expected {', '.join(_BACKENDS)}.")
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(
            f"KERAS_BACKEND={name} asks for a library that is not installed. Install it with: "
            f"pip install {name}, or unset KERAS_BACKEND to run Keras on TensorFlow."
        )


def import_keras() -> Any:
    """Import ``keras`` and wake its backend, quietly.

    TensorFlow greets its user with notices about oneDNN, CUDA and absl, written by C++ to file
    descriptor 2. They are held back while the backend starts, and shown after all if the start
    fails. ``TF_CPP_MIN_LOG_LEVEL=0`` in the environment shows everything, as ever.

    Returns
    -------
    module
        ``keras``, on whichever backend ``KERAS_BACKEND`` or Keras' own configuration names.

    Raises
    ------
    HeadstartError
        When there is no such backend.
    MissingExtraError
        When the backend is not installed.
    """
    require_backend()
    os.environ.setdefault(_OWN_POOLS, "1")
    with _quietly("keras") as first, _uncollected_once("keras"):
        import keras

        if first:
            keras.ops.zeros(())  # the device speaks up at the first operation
    return keras


def import_tensorflow() -> Any:
    """Import ``tensorflow``, as quietly, and wake no device."""
    os.environ.setdefault(_OWN_POOLS, "1")
    with _quietly("tensorflow"), _uncollected_once("tensorflow"):
        import tensorflow as tf
    return tf


@contextlib.contextmanager
def _quietly(module: str) -> Iterator[bool]:
    """Hold back what a module says when it is imported; tell whether it is to be so."""
    if module in sys.modules or os.environ.get(_LOG_LEVEL) == "0":
        yield False
        return
    os.environ.setdefault(_LOG_LEVEL, "3")
    for name in ("absl", "tensorflow", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield True


def _uncollected_once(module: str) -> AbstractContextManager[None]:
    """Let garbage be, but only while a module is really imported: a user's own is not ours."""
    return contextlib.nullcontext() if module in sys.modules else uncollected()


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Collect what is written to file descriptor 2; show it only if the block raises."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        shown = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # an interrupt explains itself
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
