"""Find the file that holds the base's weights, fetching it where need be."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from headstart._keras import import_keras
from headstart.errors import WeightsError
from headstart.extract import _registry
from headstart.extract._files import digest_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headstart.extract._arrays import Arrays

__all__ = ["WeightsFile", "find_weights", "is_name", "random_seed"]

IMAGENET_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/" + IMAGENET_FILE
)
IMAGENET_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"
_STALLED = 30.0  # seconds without an answer after which a download is given up


@dataclass(frozen=True)
class WeightsFile:
    """Where the base's weights come from.

    Attributes
    ----------
    name
        As the user gave it: ``imagenet``, ``registry``, ``random``, ``random:7`` or a path.
    path
        The file that holds the weights; None for random ones.
    sha256
        Of the file's bytes, in hex, so that a later run can tell without Keras that it is the
        same file; empty for random weights.
    arrays
        The weights themselves, where they are at hand and need not be read.
    """

    name: str
    path: Path | None
    sha256: str
    arrays: Arrays | None = None


def find_weights(name: str) -> WeightsFile:
    """Find the weights the user asked for, fetching them if they are not at hand.

    Parameters
    ----------
    name
        ``imagenet``: Keras' published ImageNet weights without the classification top, taken
        from Keras' own cache or downloaded by Keras. ``registry``: ImageNet weights fine-tuned
        on photographs and drawings, from the npm package nsfwjs 4.3.0, for networks that reach
        only package registries. ``random`` or ``random:SEED``: no file. Anything else is the
        path of a Keras ``.h5``, ``.weights.h5`` or ``.keras`` file of the same network.

    Returns
    -------
    WeightsFile
        The file and the SHA-256 of its bytes. What is inside is checked when it is loaded.

    Raises
    ------
    WeightsError
        When the weights cannot be had: what was tried, why it failed, what to do instead.

    Examples
    --------
    >>> find_weights("random:7")
    WeightsFile(name='random:7', path=None, sha256='')
    """
    if name.partition(":")[0] == "random":
        random_seed(name)
        return WeightsFile(name, None, "")
    if name == "registry":
        path = _registry.fetch()
        return WeightsFile(name, path, _registry.digest(path))
    path = _imagenet() if name == "imagenet" else _existing_file(name)
    return WeightsFile(name, path, digest_of(path, "sha256"))


def is_name(weights: str) -> bool:
    """Tell a name (``imagenet``, ``registry``, ``random[:SEED]``) from the path of a file.

    A name is never taken for a path, whatever lies in the current folder.
    """
    return weights in ("imagenet", "registry") or weights.partition(":")[0] == "random"


def random_seed(name: str) -> int:
    """Read the seed in ``random`` (0) or ``random:SEED``.

    Raises
    ------
    WeightsError
        When SEED is not a whole number of 0 or more.
    """
    _, colon, seed = name.partition(":")
    if not colon:
        return 0
    if not (seed.isascii() and seed.isdigit()):
        raise WeightsError(
            f"--weights {name}: expected random:SEED with a whole number of 0 or more as the seed."
        )
    return int(seed)


def _existing_file(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    found = "that is a folder" if path.is_dir() else "there is no such file"
    raise WeightsError(
        f"--weights {name}: {found}. Give imagenet, registry, random, or the path of a Keras "
        "weights file (.h5, .weights.h5 or .keras)."
    )


def _imagenet() -> Path:
    """Path of Keras' published weights, downloaded by Keras unless its cache holds them whole."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    cached = Path(home) / "models" / IMAGENET_FILE
    if cached.is_file() and digest_of(cached, "md5") == IMAGENET_MD5:
        return cached
    return _download_imagenet()


def _download_imagenet() -> Path:
    keras = import_keras()
    try:
        with _impatient(), contextlib.redirect_stdout(_progress_stream()):
            path = keras.utils.get_file(
                IMAGENET_FILE, IMAGENET_URL, cache_subdir="models", file_hash=IMAGENET_MD5
            )
    except Exception as error:  # get_file raises a bare Exception when the server refuses
        if isinstance(error.__context__, urllib.error.HTTPError):
            error.__context__.close()  # the answer is still open inside
        raise WeightsError(
            f"Keras' ImageNet weights could not be downloaded ({one_line(error)}). "
            "Use --weights registry (from the npm registry), --weights FILE (a copy of "
            f"{IMAGENET_FILE}), or --weights random (for tests)."
        ) from error
    return Path(path)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let no download wait for an answer for ever."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED)
    try:
        yield
    finally:
        socket.setdefaulttimeout(patience)


def _progress_stream() -> TextIO:
    """Where Keras may print its download bar: a terminal's stderr, else nowhere."""
    return sys.stderr if sys.stderr.isatty() else io.StringIO()
