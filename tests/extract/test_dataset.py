"""What may be given as a dataset, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from listings import fill

from headstart.errors import DataError, DataNotFoundError
from headstart.extract.dataset import list_dataset


def test_a_missing_folder(tmp_path: Path) -> None:
    """The error is a FileNotFoundError too, and says what was expected."""
    with pytest.raises(DataNotFoundError, match="expected a folder or a manifest") as caught:
        list_dataset(tmp_path / "nowhere")
    assert isinstance(caught.value, FileNotFoundError)
    for odd in ("a\0b", "x" * 5000):
        with pytest.raises(DataNotFoundError):
            list_dataset(odd)


def test_an_unsupported_manifest(tmp_path: Path) -> None:
    """Other files are no manifests."""
    fill(tmp_path, "list.xlsx")
    with pytest.raises(DataError, match=r"expected a folder, a \.csv or a \.parquet file"):
        list_dataset(tmp_path / "list.xlsx")
