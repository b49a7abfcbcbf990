"""A shard: one immutable HDF5 file with the features of some pictures at one layer."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import _files, _hdf5
from headstart.cache.spec import Spec
from headstart.cache.widening import is_finite
from headstart.errors import CorruptStoreError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

FORMAT = "headstart-shard"
DATASET = "features"
#: Layer, pooling and content; nothing else in the folder is ours to read or to remove.
NAME = re.compile(r"[\w.]+-[0-9a-f]{24}\.h5", re.ASCII)


@dataclass(frozen=True)
class ShardInfo:
    """How a store remembers a shard: file name, SHA-256 of its body, bytes, rows."""

    file: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class ShardHead:
    """What a shard says of itself: its spec, the rows it holds, and how it was made."""

    info: ShardInfo
    spec: Spec
    image_sha256: NDArray[np.bytes_]
    view: NDArray[np.uint8]
    shape: tuple[int, ...]
    run: dict[str, Any]
    rows_sha256: str = ""


def write_shard(
    folder: Path,
    spec: Spec,
    image_sha256: NDArray[np.bytes_],
    view: NDArray[np.uint8],
    features: NDArray[Any],
    *,
    run: Mapping[str, Any],
    packed: Sequence[bytes] = (),
) -> ShardInfo:
    """Publish one shard and return how to find it.

    Parameters
    ----------
    folder
        The store's ``shards`` folder.
    spec
        What the rows are.
    image_sha256, view
        Row identities, ``(n,)`` of ``S64`` and of uint8.
    features
        ``(n, ...)`` in the spec's storage dtype.
    run
        Settings to find again should the run die before it publishes (JSON).
    packed
        The first chunks of the features, if they are packed already; see `Draft`.

    Raises
    ------
    StoreError
        If a value is not finite, or does not fit the storage dtype.
    OSError
        If the file system refuses; nothing is left behind.
    """
    if features.dtype != np.dtype(spec.dtype) or len(features) != len(image_sha256):
        raise ValueError(f"{features.dtype} {features.shape}: expected {spec.dtype}, one row an id")
    if not is_finite(features):
        raise StoreError(
            f"layer {spec.layer} gave values that {spec.dtype} cannot hold; nothing was written "
            "for these pictures: use --dtype float32, or a layer behind an activation"
        )
    checksum = _checksum(spec, image_sha256, view, features)

    def fill(file: h5py.File) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = _files.FORMAT_VERSION
        file.attrs["spec"] = spec.to_json()
        file.attrs["rows_sha256"] = checksum
        file.attrs["run"] = json.dumps(dict(run), sort_keys=True)
        file.create_dataset("image_sha256", data=image_sha256)
        file.create_dataset("view", data=view)
        _hdf5.write_features(file, DATASET, features, packed)

    data = _files.sealed(_hdf5.build(fill))
    digest = _files.parse_seal(data[-_files.SEAL_BYTES :], spec.name)
    # Named by its content: two processes can never publish different bytes under one name.
    name = f"{spec.name}-{digest[:24]}.h5"
    _files.publish_bytes(folder / name, data)
    return ShardInfo(name, digest, len(data), len(features))


def _checksum(spec: Spec, *parts: NDArray[Any]) -> str:
    """Return the SHA-256 of a shard's rows: what they are, and their values."""
    digest = hashlib.sha256(spec.to_json().encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()


def rows_sha256(path: Path, head: ShardHead) -> str:
    """Read every row of a shard and return the checksum they have now."""
    with _hdf5.reading(path, head.info.sha256) as file:
        features = _hdf5.features(file, DATASET, head.spec.dtype, head.info.rows)[:]
    return _checksum(head.spec, head.image_sha256, head.view, features)


def read_head(path: Path) -> ShardHead:
    """Check a whole shard against its seal and return what it says of itself.

    Raises
    ------
    CorruptStoreError
        If the file is damaged, or not a shard.
    """
    digest = _files.check_seal(path)
    with _hdf5.reading(path, digest) as file:
        if file.attrs.get("format") != FORMAT:
            raise CorruptStoreError(f"{path} is not a shard")
        spec = Spec.from_json(str(file.attrs["spec"]))
        ids = _hdf5.plain(file, "image_sha256", "S")[:]
        view = _hdf5.plain(file, "view", "u", len(ids))[:]
        features = _hdf5.features(file, DATASET, spec.dtype, len(ids))
        info = ShardInfo(path.name, digest, path.stat().st_size, len(ids))
        run = dict(json.loads(str(file.attrs["run"])))
        checksum = str(file.attrs["rows_sha256"])
        return ShardHead(info, spec, ids.astype("S64"), view, features.shape[1:], run, checksum)
