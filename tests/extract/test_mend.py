"""Mending: what was lost is computed again, and nothing else of a store changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import fakes
from headstart.cache import Store, verify
from headstart.errors import CorruptStoreError, StoreError
from headstart.extract import Settings, fill_store, mend_store, pipeline
from headstart.repair import verify_and_repair

pytestmark = pytest.mark.usefixtures("fake_base")


@pytest.fixture
def store(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a store of 20 rows in five shards."""
    monkeypatch.setattr(pipeline, "_SHARD_ROWS", (4, 4))
    fill_store(pets, tmp_path / "store", Settings(size=75, validation=0.4))
    return tmp_path / "store"


def said(store: Path) -> list[object]:
    """What a store says of its rows, in order, and their features."""
    opened = Store.open(store)
    rows = zip(opened.paths(), opened.labels().tolist(), opened.splits().tolist(), strict=True)
    return [*rows, opened.classes, opened.features().tobytes(), opened.catalog.settings]


def lose(store: Path, number: int) -> list[str]:
    """Remove one shard; return the paths of the rows it held."""
    index = Store.open(store).catalog.layers["mixed7"]
    paths = np.array(Store.open(store).paths())
    held = index.starts.searchsorted(index.position, "right") - 1 == number
    (store / "shards" / index.shards[number].file).unlink()
    return list(paths[held])


def test_rows_stay_as_they_were_published(pets: Path, store: Path) -> None:
    """Whatever has become of the dataset: only what was lost is looked for, by its bytes."""
    before = said(store)
    kept = Store.open(store).paths()[-1]
    lost = lose(store, 1)
    assert len(lost) == 4
    assert kept not in lost
    (pets / lost[0]).rename(pets / "dog" / "renamed.png")
    (pets / kept).unlink()
    fakes.draw(pets / "dog" / "new.png", seed=1)
    found = verify_and_repair(store, repair=True)
    assert found.sound
    assert list(found.repaired) == lost
    assert found.to_dict()["repaired"] == tuple(lost)
    assert said(store) == before


def test_views_are_mended_too(pets: Path, store: Path) -> None:
    """Those that were lost, and no others, come back as they were."""
    fill_store(pets, store, Settings(views=2))
    before, views = said(store), Store.open(store).views()
    index = Store.open(store).catalog.layers["mixed7"]
    number = next(n for n, start in enumerate(index.starts[:-1]) if index.view[start])
    lost = lose(store, number)
    assert len(lost) == 4
    assert list(verify_and_repair(store, repair=True).repaired) == lost
    assert said(store) == before
    assert np.array_equal(Store.open(store).views(), views)
    (store / "features.h5").unlink()
    assert mend_store(store, pets) == ()
    assert said(store)[:-2] == before[:-2]


def test_pictures_elsewhere_will_do(pets: Path, store: Path, tmp_path: Path) -> None:
    """Given the place of a copy of what was lost, that is enough."""
    before = said(store)
    lost = lose(store, 2)
    shutil.rmtree(pets)
    other = fakes.draw_classes(tmp_path / "other", ("owl", "yak"), per_class=1)
    source = fakes.draw_classes(tmp_path / "again")
    for path in lost:
        shutil.copy(source / path, other / "owl" / path.replace("/", "-"))
    assert mend_store(store, other) == tuple(lost)
    assert said(store) == before


def test_pictures_that_are_gone_are_named_and_nothing_is_given_up(pets: Path, store: Path) -> None:
    """The error names them; what is left of the store stays for a second try."""
    lost = lose(store, 0)
    files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    content = (pets / lost[1]).read_bytes()
    (pets / lost[1]).unlink()
    with pytest.raises(
        StoreError, match=rf"1 pictures .* not there, the first '{lost[1]}'; .*--data"
    ):
        mend_store(store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == files
    with pytest.raises(CorruptStoreError):
        Store.open(store)
    (pets / lost[1]).write_bytes(content)
    assert mend_store(store) == tuple(lost)


def test_no_picture_is_needed_where_no_feature_was_lost(pets: Path, store: Path) -> None:
    """A ledger is written again without the dataset."""
    before = said(store)
    shutil.rmtree(pets)
    (store / "ledger.jsonl").write_text("nonsense")
    assert not verify(store).sound
    assert mend_store(store) == ()
    assert verify(store).sound
    assert said(store) == before


def test_rows_of_a_lost_catalog_are_those_of_the_data(pets: Path, store: Path) -> None:
    """Sound shards are used again; the answer tells what was not in them."""
    before = said(store)
    lost = lose(store, 3)
    (store / "features.h5").write_bytes(b"")
    assert list(mend_store(store, pets)) == lost
    assert said(store) == before
