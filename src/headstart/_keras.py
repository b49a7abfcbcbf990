"""Import Keras without its start-up noise."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


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
    ImportError
        When Keras or its backend is not installed.
    """
    if "keras" in sys.modules or os.environ.get(_LOG_LEVEL) == "0":
        import keras

        return keras
    os.environ.setdefault(_LOG_LEVEL, "3")
    for name in ("absl", "tensorflow", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        keras.ops.zeros(())  # the device speaks up at the first operation
    return keras


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
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
