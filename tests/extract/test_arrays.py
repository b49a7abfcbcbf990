"""Reading the base's arrays from files of every container, and refusing others."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.extract._arrays import CONVOLUTIONS, Arrays, read_arrays
from headstart.extract._registry import LAYOUT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ORDER = (range(CONVOLUTIONS), range(CONVOLUTIONS))


def _kernel(i: int) -> NDArray[np.float32]:
    return np.full((1, 1, 1, 2), i, np.float32)


def _norm(i: int) -> NDArray[np.float32]:
    return np.array([[i, i], [i + 0.25, i], [i + 0.5, i]], np.float32)


def _write_own(path: Path, count: int = CONVOLUTIONS) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layout"] = LAYOUT
        for i in range(count):
            file[f"conv_{i + 1:02d}/kernel"] = _kernel(i)
            for name, values in zip(
                ("beta", "moving_mean", "moving_variance"), _norm(i), strict=True
            ):
                file[f"bn_{i + 1:02d}/{name}"] = values


def _write_keras_3(file: h5py.File, count: int = CONVOLUTIONS) -> None:
    for i in range(count):
        suffix = f"_{i}" if i else ""
        file[f"layers/conv2d{suffix}/vars/0"] = _kernel(i)
        for k, values in enumerate(_norm(i)):
            file[f"layers/batch_normalization{suffix}/vars/{k}"] = values


def _assert_counted(arrays: Arrays) -> None:
    assert [kernel.flat[0] for kernel in arrays.kernels] == list(range(CONVOLUTIONS))
    np.testing.assert_array_equal(arrays.norms[40], _norm(40))


def test_own_layout_is_in_creation_order(tmp_path: Path) -> None:
    _write_own(tmp_path / "a.h5")
    _assert_counted(read_arrays(tmp_path / "a.h5", ORDER))


def test_keras_numbers_are_read_as_numbers(tmp_path: Path) -> None:
    """conv2d_10 comes after conv2d_9, not after conv2d_1."""
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        _write_keras_3(file)
        file["optimizer/vars/0"] = 1.0
    _assert_counted(read_arrays(tmp_path / "a.weights.h5", ORDER))


def test_model_order_becomes_creation_order(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        _write_keras_3(file)
    backwards = range(CONVOLUTIONS)[::-1]
    arrays = read_arrays(tmp_path / "a.weights.h5", (backwards, range(CONVOLUTIONS)))
    assert arrays.kernels[0].flat[0] == CONVOLUTIONS - 1
    assert arrays.norms[0].flat[0] == 0


@pytest.mark.parametrize("count", [0, 13, 95])
def test_another_architecture_is_told_by_counting(tmp_path: Path, count: int) -> None:
    """The message gives both numbers."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        _write_keras_3(file, count)
    with pytest.raises(WeightsError, match=f"expected 94 convolutions.*found {count} conv"):
        read_arrays(tmp_path / "a.h5", ORDER)


def test_a_classification_top_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        _write_keras_3(file)
        file["layers/dense/vars/0"] = np.zeros((2, 2), np.float32)
        file["layers/dense/vars/1"] = np.zeros(2, np.float32)
    with pytest.raises(WeightsError, match=r"without its classification top.*1 other .*dense"):
        read_arrays(tmp_path / "a.h5", ORDER)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    _write_own(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsError, match=r"expected an HDF5 or \.keras file, whole"):
        read_arrays(path, ORDER)


@pytest.mark.parametrize("content", [b"", b"not a weights file", b"PK\x03\x04 torn"])
def test_what_is_neither_hdf5_nor_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_arrays(path, ORDER)


def test_a_zip_without_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsError, match=r"model\.weights\.h5"):
        read_arrays(path, ORDER)


def test_a_keras_archive_is_read_without_its_code(tmp_path: Path) -> None:
    """Only the arrays of a .keras file are looked at; its configuration may be anything."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        _write_keras_3(file)
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "this is no JSON and is never parsed")
        archive.writestr("model.weights.h5", buffer.getvalue())
    _assert_counted(read_arrays(path, ORDER))


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """A small file that declares terabytes is refused before anything is read."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 10))
    with pytest.raises(WeightsError, match="bytes of arrays"):
        read_arrays(path, ORDER)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A weights file cannot draw in other files."""
    _write_own(tmp_path / "other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layers"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(WeightsError, match="found 0 convolutions"):
        read_arrays(tmp_path / "a.h5", ORDER)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    _write_own(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["bn_07/beta"][1] = np.nan
    with pytest.raises(WeightsError, match="not finite, in /bn_07"):
        read_arrays(tmp_path / "a.h5", ORDER)


def test_arrays_that_are_not_floats_are_refused(tmp_path: Path) -> None:
    _write_own(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["conv_03/kernel"]
        file["conv_03/kernel"] = np.zeros((1, 1, 1, 2), "S4")
    with pytest.raises(WeightsError, match="conv_03/kernel"):
        read_arrays(tmp_path / "a.h5", ORDER)


def test_the_digest_depends_on_every_array_and_shape(tmp_path: Path) -> None:
    _write_own(tmp_path / "a.h5")
    arrays = read_arrays(tmp_path / "a.h5", ORDER)
    changed = Arrays(arrays.kernels, (*arrays.norms[:-1], arrays.norms[-1] + 1))
    reshaped = Arrays((arrays.kernels[0].reshape(1, 2, 1, 1), *arrays.kernels[1:]), arrays.norms)
    digests = {arrays.digest(), changed.digest(), reshaped.digest()}
    assert len(digests) == 3
    assert arrays.digest() == read_arrays(tmp_path / "a.h5", ORDER).digest()
