"""A store on object storage: sent whole or not at all, read by the shard, checked as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
import s3
from headstart.cache import Mirror, Store, verify
from headstart.cache.fill import Filling
from headstart.errors import CorruptStoreError, StoreError, StoreNotFoundError
from headstart.extract import Settings, fill_store
from headstart.status import status

URL = "s3://pets/some/pets.features"
SETTINGS = Settings(weights="random")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_base: None) -> Iterator[Any]:
    """Give a local S3 server, and a cache of stores that is this test's own."""
    monkeypatch.setenv("HEADSTART_STORES", str(tmp_path / "mirrors"))
    monkeypatch.setattr("headstart.extract.pipeline._SHARD_ROWS", (4, 4))
    with s3.server(monkeypatch) as client:
        yield client


def keys(client: Any) -> set[str]:
    found = client.list_objects_v2(Bucket="pets").get("Contents", [])
    return {item["Key"].removeprefix("some/pets.features/") for item in found}


def elsewhere(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Be another machine, where nothing has been fetched."""
    monkeypatch.setenv("HEADSTART_STORES", str(place))


def count_uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list that grows by each shard that is sent from now on."""
    put = _fs().put_file
    sent: list[str] = []

    def counted(*args: Any, **kw: Any) -> None:
        sent.append(args[1])
        put(*args)

    monkeypatch.setattr(_fs(), "put_file", counted)
    return sent


def test_written_and_read_from_another_machine(
    bucket: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are those of a local store; a shard is fetched when a row of it is asked for."""
    local = hs.extract(pets, tmp_path / "local", weights="random")
    store, summary = fill_store(pets, URL, SETTINGS)
    assert summary.computed == len(local)
    assert {"features.h5", "ledger.jsonl"} <= keys(bucket)

    elsewhere(monkeypatch, tmp_path / "other")
    store = Store.open(URL)
    shards = store.path / "shards"
    assert list(shards.iterdir()) == []
    found = status(URL)
    assert (found.store, found.unused_bytes) == (URL, 0)
    assert found.bytes > sum(info.bytes for info in store.catalog.layers["mixed7"].shards)
    np.testing.assert_array_equal(store.features(rows=np.array([0])), local.features()[:1])
    assert len(list(shards.iterdir())) == 1
    np.testing.assert_array_equal(store.features(), local.features())
    assert verify(URL).sound


def test_going_on_from_another_machine(
    bucket: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published is reused, and what is already there is not sent again."""
    fill_store(pets, URL, SETTINGS)
    before = keys(bucket)
    elsewhere(monkeypatch, tmp_path / "other")
    some = next(pets.rglob("*.png"))
    some.with_name("new.png").write_bytes(some.read_bytes() + b"\0")
    sent = count_uploads(monkeypatch)
    _, summary = fill_store(pets, URL, SETTINGS)
    assert (summary.computed, summary.reused, len(sent)) == (
        1,
        len(list(pets.rglob("*.png"))) - 1,
        1,
    )
    assert len(keys(bucket) - before) == 1


def test_an_upload_that_fails_half_way(
    bucket: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published; the same command computes nothing and sends only the rest."""
    put = _fs().put_file
    sent: list[str] = []

    def failing(*args: Any, **kw: Any) -> None:
        if len(sent) == 2:
            raise ConnectionResetError("the line is gone")
        sent.append(args[1])
        put(*args)

    with monkeypatch.context() as broken:
        broken.setattr(_fs(), "put_file", failing)
        with pytest.raises(StoreError, match=r"cannot be reached: the line is gone; run the same"):
            fill_store(pets, URL, SETTINGS)
    assert len(keys(bucket)) == 2
    with pytest.raises(StoreNotFoundError, match="there is no store at s3://"):
        Store.open(URL)

    with monkeypatch.context() as counted:
        later = count_uploads(counted)
        store, summary = fill_store(pets, URL, SETTINGS)
    assert summary.computed == 0
    assert len(later) == len(list((store.path / "shards").iterdir())) - len(sent)
    elsewhere(monkeypatch, tmp_path / "other")
    assert len(Store.open(URL).features()) == summary.rows


def test_the_last_step_fails(bucket: Any, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers keep the version before, until ``features.h5`` has arrived."""
    store, _ = fill_store(pets, URL, SETTINGS)
    rows, some = len(store), next(pets.rglob("*.png"))
    some.with_name("new.png").write_bytes(some.read_bytes() + b"\0")
    with monkeypatch.context() as broken:
        broken.setattr(_fs(), "pipe_file", _refuse)
        with pytest.raises(StoreError, match="run the same command again"):
            fill_store(pets, URL, SETTINGS)
    assert len(Store.open(URL)) == rows
    store, summary = fill_store(pets, URL, SETTINGS)
    assert (summary.computed, len(store)) == (0, rows + 1)


def test_a_listing_that_lags(
    bucket: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step relies on a listing: one that shows nothing changes nothing."""
    for name in ("find", "ls", "glob", "walk"):
        monkeypatch.setattr(_fs(), name, lambda *_, **__: [])
    fill_store(pets, URL, SETTINGS)
    elsewhere(monkeypatch, tmp_path / "other")
    assert len(Store.open(URL).features()) == len(list(pets.rglob("*.png")))


@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_shard_is_named_and_never_served(
    bucket: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    fill_store(pets, URL, SETTINGS)
    key = min(key for key in keys(bucket) if key.startswith("shards/"))
    place = {"Bucket": "pets", "Key": f"some/pets.features/{key}"}
    body = bucket.get_object(**place)["Body"].read()
    if damage == "lose":
        bucket.delete_object(**place)
    else:
        bad = body[:-1] if damage == "cut" else bytes([body[0] ^ 1]) + body[1:]
        bucket.put_object(**place, Body=bad)
    elsewhere(monkeypatch, tmp_path / "other")
    store = Store.open(URL)
    with pytest.raises(CorruptStoreError, match=Path(key).name):
        store.features()
    assert not any(path.name == Path(key).name for path in (store.path / "shards").iterdir())
    assert not verify(URL).sound

    _, summary = fill_store(pets, URL, SETTINGS)  # computes the lost rows, and sends them
    assert 0 < summary.computed < len(store)
    assert verify(URL).sound


def test_verify_reads_what_is_at_the_url(bucket: Any, pets: Path) -> None:
    """Not what this machine has fetched or made."""
    fill_store(pets, URL, SETTINGS)
    assert verify(URL).sound
    key = min(key for key in keys(bucket) if key.startswith("shards/"))
    bucket.put_object(Bucket="pets", Key=f"some/pets.features/{key}", Body=b"other")
    assert not verify(URL).sound


def test_another_run_published_meanwhile(bucket: Any, pets: Path, tmp_path: Path) -> None:
    """It is not overwritten."""
    fill_store(pets, URL, SETTINGS)
    mine = Mirror(URL)
    mine.pull()
    some = next(pets.rglob("*.png"))
    some.with_name("new.png").write_bytes(some.read_bytes() + b"\0")
    fill_store(pets, URL, SETTINGS)
    with pytest.raises(StoreError, match="another run has published"):
        mine.push()


def test_a_folder_elsewhere_is_no_mirror(bucket: Any, pets: Path, tmp_path: Path) -> None:
    """A stranger's store cannot make this machine fetch anything."""
    store = hs.extract(pets, tmp_path / "store", weights="random")
    (store.path / "origin").write_text("s3://pets/else")
    assert Mirror.of(store.path) is None
    next((store.path / "shards").iterdir()).unlink()
    with pytest.raises(CorruptStoreError, match="is missing"):
        Store.open(store.path)


def test_a_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs a folder says so, and makes none called ``s3:``."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="expected a folder on this machine"):
        Filling(Path(URL))
    assert list(tmp_path.iterdir()) == []


def _refuse(*_: Any, **__: Any) -> None:
    raise PermissionError("no")


def _fs() -> Any:
    import fsspec

    return fsspec.filesystem("s3")
