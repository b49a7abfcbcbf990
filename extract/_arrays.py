"""Read the base's arrays out of a weights file, whatever its container."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from headstart.errors import WeightsError
from headstart.extract._files import one_line
from headstart.extract._registry import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CONVOLUTIONS = 94  # in InceptionV3, each with its batch normalisation
_MAX_BYTES = 1 << 30  # InceptionV3 holds 87 MB: a file that unpacks to more is not one
_KERAS_3 = re.compile(r"^(.*?)([^/]+)/vars/(\d+)$")


@dataclass(frozen=True)
class Arrays:
    """The base's arrays, as float32, in one of two orders.

    Attributes
    ----------
    kernels
        One per convolution, (height, width, channels in, channels out).
    norms
        One per batch normalisation, (3, channels): beta, moving mean, moving variance.
    """

    kernels: tuple[NDArray[np.float32], ...]
    norms: tuple[NDArray[np.float32], ...]

    def digest(self) -> str:
        """SHA-256 in hex over shapes and little-endian float32 bytes, layer by layer."""
        sha = hashlib.sha256()
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            for array in (kernel, norm):
                sha.update(repr(array.shape).encode())
                sha.update(np.ascontiguousarray(array, "<f4").data)
        return sha.hexdigest()

    def reorder(self, kernels: Sequence[int], norms: Sequence[int]) -> Arrays:
        """Pick kernels and norms by position, each in its own order."""
        return Arrays(tuple(self.kernels[i] for i in kernels), tuple(self.norms[i] for i in norms))

    def check_shapes(self, path: Path, expected: Sequence[tuple[int, ...]]) -> None:
        """Raise WeightsError unless the kernels, and the norms after them, have these shapes."""
        for i, (kernel, norm, shape) in enumerate(
            zip(self.kernels, self.norms, expected, strict=True)
        ):
            if (kernel.shape, norm.shape) != (shape, (3, shape[3])):
                raise _other(
                    path,
                    f"a kernel of {kernel.shape} with {norm.shape[1]} channels normalised where "
                    f"convolution {i + 1} has one of {shape}",
                )


def read_arrays(path: Path, model_order: tuple[Sequence[int], Sequence[int]]) -> Arrays:
    """Read a weights file of InceptionV3 without its classification top.

    Nothing in the file is executed or unpickled, and no link in it is followed: only plain arrays
    are read, from HDF5 alone or from the HDF5 part of a ``.keras`` archive.

    Parameters
    ----------
    path
        Keras' legacy ``.h5``, a ``.weights.h5``, a ``.keras``, or Headstart's own layout.
    model_order
        For kernels and for norms: where in Keras' ``model.layers`` (the order of its files) the
        layer created first stands, then the second, and so on.

    Returns
    -------
    Arrays
        In creation order.

    Raises
    ------
    WeightsError
        When it is not such a file: what was expected and what was found.
    """
    try:
        with h5py.File(_hdf5(path), "r") as file:
            return _read(path, file, model_order)
    except (OSError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} cannot be read as weights: expected an HDF5 or .keras file, whole "
            f"({one_line(error)})."
        ) from error


def _hdf5(path: Path) -> Path | io.BytesIO:
    """Give the HDF5 file itself, or the one inside a ``.keras`` archive."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        if member.file_size > _MAX_BYTES:
            raise _other(path, f"{member.file_size:,} bytes of weights")
        return io.BytesIO(archive.read(member))


def _read(path: Path, file: h5py.File, model_order: tuple[Sequence[int], Sequence[int]]) -> Arrays:
    datasets = _datasets(path, file)
    if file.attrs.get("layout") == LAYOUT:
        return _classify(path, _by_group(datasets, sorted({_parent(name) for name in datasets})))
    legacy = file.get("model_weights", file)
    named = "layer_names" in legacy.attrs
    layers = _legacy(legacy, datasets) if named else _keras_3(datasets)
    return _classify(path, layers).reorder(*model_order)


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """All plain datasets by path; links are not followed, outside storage is not read."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
            found[name] = item

    file.visititems(visit)
    size = sum(item.size * item.dtype.itemsize for item in found.values() if item.size)
    if size > _MAX_BYTES:
        raise _other(path, f"{size:,} bytes of arrays")
    return found


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


Layer = tuple[str, list[h5py.Dataset]]


def _by_group(datasets: dict[str, h5py.Dataset], groups: Sequence[str]) -> list[Layer]:
    return [
        (group, [item for name, item in datasets.items() if _parent(name) == group])
        for group in groups
    ]


def _legacy(group: h5py.Group, datasets: dict[str, h5py.Dataset]) -> list[Layer]:
    """Layers in the order of Keras' legacy HDF5, which lists their names."""
    layers = []
    for name in (_str(n) for n in group.attrs["layer_names"]):
        weights = [_str(w) for w in group[name].attrs["weight_names"]]
        prefix = f"{group.name}/{name}/".lstrip("/")
        if weights:
            layers.append((name, [datasets[prefix + weight] for weight in weights]))
    return layers


def _str(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _keras_3(datasets: dict[str, h5py.Dataset]) -> list[Layer]:
    """Layers of a Keras 3 file, which numbers those of one class: conv2d, conv2d_1, ..."""
    layers: dict[tuple[str, str, int], dict[int, h5py.Dataset]] = {}
    for name, item in datasets.items():
        match = _KERAS_3.match(name)
        if match and not name.startswith("optimizer/"):
            kind, _, number = match[2].rpartition("_")
            key = (match[1], kind, int(number)) if number.isdigit() else (match[1], match[2], 0)
            layers.setdefault(key, {})[int(match[3])] = item
    return [
        (f"{kind}_{number}", [items[i] for i in sorted(items)])
        for (_, kind, number), items in sorted(layers.items())
    ]


def _classify(path: Path, layers: Sequence[Layer]) -> Arrays:
    """Tell convolutions from batch normalisations by their shapes, and count them."""
    kernels, norms, others = [], [], []
    for name, items in layers:
        shapes = [item.ndim for item in items]
        if shapes == [4]:
            kernels.append(_float32(path, items))
        elif shapes == [1, 1, 1]:
            norms.append(_float32(path, items))
        else:
            others.append(name)
    if others or (len(kernels), len(norms)) != (CONVOLUTIONS, CONVOLUTIONS):
        raise _other(path, _count(kernels, norms, others))
    return Arrays(tuple(kernel[0] for kernel in kernels), tuple(norms))


def _float32(path: Path, items: Sequence[h5py.Dataset]) -> NDArray[np.float32]:
    """Stack a layer's arrays, (arrays, ...), and see that they are finite numbers."""
    if len({item.shape for item in items}) > 1 or any(item.dtype.kind != "f" for item in items):
        raise _other(path, f"{items[0].name} of {[(i.shape, str(i.dtype)) for i in items]}")
    array = np.stack([item[()] for item in items]).astype(np.float32)
    if not np.isfinite(array).all():
        raise WeightsError(f"{path} holds numbers that are not finite, in {items[0].name}.")
    return array


def _count(kernels: Sequence[object], norms: Sequence[object], others: Sequence[str]) -> str:
    found = f"{len(kernels)} convolutions and {len(norms)} batch normalisations"
    if not others:
        return found
    more = ", ..." if len(others) > 3 else ""
    return f"{found}, and {len(others)} other layers ({', '.join(others[:3])}{more})"


def _other(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{path} is not InceptionV3 without its classification top: expected {CONVOLUTIONS} "
        f"convolutions, each with a batch normalisation without gamma, and nothing else; found "
        f"{found}."
    )
