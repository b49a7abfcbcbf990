"""Status: what is there, counted right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fakes
from headstart._words import held
from headstart.cache import LeftOut, Store, pack
from headstart.errors import StoreError
from headstart.extract import Settings, fill_store
from headstart.status import staleness, status
from stores import fill, make_store, rows_of


def test_counts(tmp_path: Path) -> None:
    """Rows, classes, splits, duplicates and bytes are those of the store."""
    rows = rows_of(["a", "b", "c", "a"])
    rows.path[:] = ["1", "2", "3", "4"]
    rows.label[:] = [0, 1, 1, -1]
    rows.split[:] = ["train", "train", "validation", ""]
    fill(tmp_path / "store", rows, left_out=[LeftOut("x", "why")], seconds=2.5)
    found = status(tmp_path / "store")
    assert (found.rows, found.duplicates, found.extract_seconds) == (4, 1, 2.5)
    assert found.classes == {"a": 1, "b": 2, "(unknown)": 1}
    assert found.splits == {"train": 2, "validation": 1, "": 1}
    assert found.left_out == (LeftOut("x", "why"),)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert found.unused_bytes == 0
    assert json.loads(json.dumps(found.to_dict()))["layers"]["mixed7"]["shape"] == [3, 3, 4]


@pytest.mark.usefixtures("fake_base")
def test_views_are_no_pictures(tmp_path: Path) -> None:
    """Classes and splits count pictures; how many views there are is said beside."""
    data = fakes.draw_classes(tmp_path / "pets", per_class=3)
    for name, validation, rows, text in (
        ("all", 0.0, 18, " 18 rows (6 pictures and 2 views of each), 2 classes"),
        ("some", 0.5, 0, " of them), 2 classes"),
    ):
        settings = Settings(size=16, weights="random", views=2, validation=validation)
        fill_store(data, tmp_path / name, settings)
        found = status(tmp_path / name)
        assert found.classes == {"cat": 3, "dog": 3}
        assert sum(found.splits.values()) == found.pictures == 6
        assert found.rows == 6 + 2 * found.viewed
        assert rows in (0, found.rows)
        assert text in next(iter(held(found)))


def test_shards_no_row_needs_are_told(tmp_path: Path) -> None:
    """The space of removed pictures is seen."""
    fill(tmp_path / "store", rows_of(list("abcdefgh")), shard=4)
    fill(tmp_path / "store", rows_of(list("abcd")), shard=4)
    found = status(tmp_path / "store")
    last = Store.open(tmp_path / "store").catalog.layers["mixed7"].shards[-1]
    assert found.unused_bytes == last.bytes


def test_packed_file(tmp_path: Path) -> None:
    """A packed store answers like the folder."""
    path = pack(make_store(tmp_path / "store", ["a", "b"]), tmp_path / "one.h5")
    found = status(path)
    assert (found.rows, found.bytes) == (2, path.stat().st_size)


@pytest.mark.usefixtures("fake_base")
def test_what_an_extraction_would_do(tmp_path: Path) -> None:
    """Re-splits are told, and nothing of what is told takes computing."""
    pictures = sorted(fakes.draw_classes(tmp_path / "data", per_class=2).rglob("*.png"))
    manifest = tmp_path / "list.csv"

    def write(split: str) -> None:
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name},{split}" for path in pictures]
        manifest.write_text("\n".join(["path,label,split", *rows, ""]))

    write("train")
    fill_store(manifest, tmp_path / "store", Settings(size=75))
    assert staleness(tmp_path / "store", manifest).resplit == ()
    write("test")
    found = staleness(tmp_path / "store", manifest)
    assert list(found.resplit) == [str(path.relative_to(tmp_path)) for path in pictures]
    assert (found.to_compute, found.relabelled) == (0, ())
    assert found.to_dict()["resplit"] == found.resplit


@pytest.mark.usefixtures("fake_base")
def test_packed_file_and_data(pets: Path, tmp_path: Path) -> None:
    """A packed file cannot be added to; the error says what to compare with instead."""
    fill_store(pets, tmp_path / "store", Settings(size=75))
    path = pack(Store.open(tmp_path / "store"), tmp_path / "one.h5")
    with pytest.raises(StoreError, match=r"is a packed file.*the store's folder"):
        staleness(path, pets)
