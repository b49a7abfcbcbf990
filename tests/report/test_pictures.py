"""Pictures on a page: found, checked, bounded."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fakes
from headstart.cache import Store
from headstart.errors import DataError
from headstart.extract import Settings, dataset, fill_store
from headstart.report import pictures as pictures_module
from headstart.report.pictures import LARGE, gather


def edge(address: str) -> tuple[int, int]:
    """Return the size of a picture in an address."""
    data = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    return Image.open(io.BytesIO(data)).size


def test_pictures_are_small_and_checked(pictures: tuple[Path, Store], tmp_path: Path) -> None:
    """A file that is gone or has changed is not shown, and the page says how many are."""
    data = shutil.copytree(pictures[0], tmp_path / "pets")
    store = pictures[1]
    paths = store.paths()
    (data / paths[0]).unlink()
    fakes.draw(data / paths[1], seed=1)
    found = gather(store, [2], range(len(store)), data=data)
    assert set(found.small) == set(range(2, len(store)))
    assert edge(found.large[2]) == (LARGE, LARGE)
    assert edge(found.small[2]) == (96, 96)
    assert found.of(2) == found.large[2]
    assert found.of(3) == found.small[3]
    assert found.of(0) == ""
    assert f"a sample of {len(store) - 2} of {len(store)}" in found.words
    assert "gone" in found.words


def test_views_are_no_pictures_of_their_own(tmp_path: Path, fake_base: None) -> None:
    """Where every picture is shown, the page says so, whatever copies of it were made."""
    data = fakes.draw_classes(tmp_path / "pets", per_class=3)
    settings = Settings(size=16, weights="random", views=2)
    store, _ = fill_store(data, tmp_path / "store", settings)
    assert len(store) == 18
    found = gather(store, [], np.flatnonzero(store.views() == 0).tolist())
    assert found.words.startswith("Pictures: all, ")


def test_a_page_without_pictures_says_so(
    pictures: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the data is gone there are none; where it was named, that is an error."""
    store = pictures[1]
    with pytest.raises(DataError, match="no dataset at"):
        gather(store, [0], [0], data=tmp_path / "nothing")
    gone = {**store.catalog.settings, "data": str(tmp_path / "nothing")}
    monkeypatch.setitem(store.catalog.settings, "data", gone["data"])
    found = gather(store, [0], [0])
    assert (found.large, found.small) == ({}, {})
    assert "not where they were" in found.words
    monkeypatch.setitem(store.catalog.settings, "data", None)
    assert "does not know" in gather(store, [0], [0]).words


def test_only_what_is_given_is_fetched(
    pictures: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that could be fetched is taken as one from the user, as a path from the store."""
    asked: list[object] = []

    def listed(data: object) -> None:
        asked.append(data)
        raise DataError("no dataset at all")

    monkeypatch.setattr(dataset, "list_dataset", listed)
    store = pictures[1]
    with pytest.raises(DataError, match="at all"):
        gather(store, [0], [0], data="tfds:tiny")
    monkeypatch.setitem(store.catalog.settings, "data", "tfds:tiny")
    assert "not where they were" in gather(store, [0], [0]).words
    assert asked == ["tfds:tiny", Path("tfds:tiny")]


def test_bytes_are_bounded(pictures: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take no more than their share, those that matter most first."""
    store = pictures[1]
    monkeypatch.setattr(pictures_module, "_BYTES", 20_000)
    found: Any = gather(store, [5], [7, 5, *range(len(store))])
    total = sum(map(len, [*found.large.values(), *found.small.values()]))
    assert 10_000 < total <= 20_000
    assert 5 in found.large
    assert next(iter(found.small)) == 7
    assert "a sample" in found.words
