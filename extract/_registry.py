"""The weights inside the npm package nsfwjs: fetched, checked, converted, kept.

For networks that reach package registries and nothing else. The package carries a whole
InceptionV3, 8-bit quantised, as base64 text inside small JavaScript files. They are parsed here as
text; nothing of the package is ever run or unpacked to disk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import platformdirs

from headstart.cache import publishing, sha256_of
from headstart.errors import WeightsError
from headstart.extract._files import digest_of, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = "headstart-inception-v3"
_FOLDER = "package/dist/models/inception_v3/"
_SHARDS = 6
_PATIENCE = 600.0  # seconds for npm to fetch 25 MB
_ELSEWHERE = "Use --weights imagenet, --weights FILE, or --weights random (for tests)."

_ENTRY = re.compile(
    r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",'
    r'quantization:\{min:([-.\de]+),scale:([-.\de]+),dtype:"uint8"\}\}'
)
_BASE64 = re.compile(r'"([A-Za-z0-9+/=]{1000,})"')


@dataclass(frozen=True)
class Package:
    """An npm package and the SHA-256 of what must come out of it."""

    name: str
    tarball_sha256: str
    data_sha256: str


PACKAGE = Package(
    name="nsfwjs@4.3.0",
    tarball_sha256="4496790efc9bdc6f3e85a826a8e482c1fa1e9db4b3d18c095e98cc0c73cfb12f",
    data_sha256="8a457f3fdec7db18b16e44323454db0eaeb8f314eda0046b2e293e58a5bfabf4",
)


def cache_folder() -> Path:
    """Headstart's cache directory: ``HEADSTART_CACHE``, or the platform's own place for caches."""
    chosen = os.environ.get("HEADSTART_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("headstart")


def fetch() -> Path:
    """Path of the converted weights, fetched with npm unless the cache holds them whole.

    The file's name carries the SHA-256 of its bytes, so that a damaged one is noticed and made
    again, and publishing it is a single rename.

    Raises
    ------
    WeightsError
        When npm is missing or fails, a checksum is wrong, or the cache cannot be written.
    """
    folder = cache_folder()
    stem = PACKAGE.name.replace("@", "-")
    for path in sorted(folder.glob(f"{stem}-{'[0-9a-f]' * 64}.h5")):
        if path.is_file() and digest(path) == digest_of(path, "sha256"):
            return path
    weights = parse(_pack())
    try:
        return _keep(folder, stem, weights)
    except OSError as error:
        raise WeightsError(
            f"The weights cannot be kept in {folder} ({one_line(error)}). Set HEADSTART_CACHE to a "
            "folder that can be written to."
        ) from error


def digest(path: Path) -> str:
    """Return the SHA-256 in hex that a file of `fetch` has in its name, and was seen to have."""
    return path.stem.rpartition("-")[2]


def _keep(folder: Path, stem: str, weights: dict[str, NDArray[np.float32]]) -> Path:
    """Write the weights to a file named by its content, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Path] = []

    def name_by_content(temporary: Path, _: Path) -> None:
        kept.append(temporary.replace(folder / f"{stem}-{sha256_of(temporary)}.h5"))

    with publishing(folder / f"{stem}.h5", name_by_content) as temporary:
        write(temporary, weights)
    return kept[0]


def _pack() -> bytes:
    """Fetch the package's tarball with ``npm pack``."""
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError(
            "--weights registry fetches an npm package, and npm is not installed. "
            f"Install Node.js, which brings npm. Or: {_ELSEWHERE}"
        )
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        command = [npm, "pack", PACKAGE.name, "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
                command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise _npm_failed(f"no answer within {_PATIENCE:.0f} s") from None
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(tarballs) != 1:
            raise _npm_failed(_reason(done.stderr) or f"exit status {done.returncode}")
        return tarballs[0].read_bytes()


def _npm_failed(reason: str) -> WeightsError:
    return WeightsError(
        f"npm pack {PACKAGE.name} failed ({reason}). Check that the npm registry can be reached, "
        f"and try again. Or: {_ELSEWHERE}"
    )


def _reason(stderr: str) -> str:
    """Pick the line of npm's complaint that says most: the first that is not a bare code."""
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line) for line in stderr.splitlines()]
    telling = [line for line in lines if " " in line and not line.startswith(("code ", "errno "))]
    return one_line((telling or lines or [""])[0])


def parse(tarball: bytes) -> dict[str, NDArray[np.float32]]:
    """Read the weights out of the package's tarball, as text, running nothing.

    Returns
    -------
    dict
        Name, such as ``conv2d_1/kernel``, to dequantised float32 array.

    Raises
    ------
    WeightsError
        When the tarball, or the weights decoded from it, do not have the expected SHA-256.
    """
    _check("tarball", hashlib.sha256(tarball).hexdigest(), PACKAGE.tarball_sha256)
    try:
        with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
            manifest = _text(archive, "model.min.js")
            shards = [
                _text(archive, f"group1-shard{i}of{_SHARDS}.min.js") for i in range(1, _SHARDS + 1)
            ]
        data = b"".join(_decode(shard) for shard in shards)
    except (tarfile.TarError, KeyError, UnicodeDecodeError, binascii.Error) as error:
        raise WeightsError(
            f"{PACKAGE.name} is not laid out as expected ({one_line(error)}). {_ELSEWHERE}"
        ) from error
    _check("weights", hashlib.sha256(data).hexdigest(), PACKAGE.data_sha256)
    return _dequantise(manifest, data)


def _check(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise WeightsError(
            f"The {what} of {PACKAGE.name} are not the ones published: expected SHA-256 "
            f"{expected}, found {found}. {_ELSEWHERE}"
        )


def _text(archive: tarfile.TarFile, name: str) -> str:
    member = archive.extractfile(_FOLDER + name)
    if member is None:
        raise KeyError(name)
    return member.read().decode()


def _decode(script: str) -> bytes:
    match = _BASE64.search(script)
    return base64.b64decode(match.group(1)) if match else b""


def _dequantise(manifest: str, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Turn 8-bit codes into float32: ``code * scale + min``, each array with its own two."""
    weights = {}
    offset = 0
    for name, dimensions, low, scale in _ENTRY.findall(manifest):
        shape = tuple(int(n) for n in dimensions.split(",") if n)
        codes = np.frombuffer(data, np.uint8, math.prod(shape), offset).reshape(shape)
        weights[name] = codes.astype(np.float32) * np.float32(scale) + np.float32(low)
        offset += codes.size
    return weights


def write(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    """Write the base's arrays in Headstart's own layout: ``conv_01/kernel``, ``bn_01/beta``, ...

    Layers are numbered from 1 in the order in which Keras' code creates them; the package's own
    classification top is left out.
    """
    rooms = {"conv2d": "conv", "batch_normalization": "bn"}
    with h5py.File(path, "w") as file:
        file.attrs["layout"] = LAYOUT
        file.attrs["source"] = f"npm package {PACKAGE.name}"
        for name, array in weights.items():
            layer, _, variable = name.partition("/")
            kind, _, number = layer.rpartition("_")
            if kind in rooms:
                file[f"{rooms[kind]}_{int(number):02d}/{variable}"] = array
