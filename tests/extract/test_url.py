"""Datasets by URL: the same pictures, labels and features as from a folder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import headstart as hs
import s3
from headstart.errors import DataError, DataNotFoundError, StoreError
from headstart.extract.dataset import list_dataset
from headstart.extract.hashing import hash_files, read_file
from headstart.extract.mend import mend_store
from headstart.extract.url import Kept, Tree, UrlFile


@pytest.fixture
def memory() -> Iterator[Any]:
    """Give fsspec's file system in memory, empty, and empty it again."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def upload(files: Any, folder: Path, place: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            files.pipe(f"{place}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def same(url: str, folder: Path) -> None:
    there, here = list_dataset(url), list_dataset(folder)
    assert there.classes == here.classes
    assert [(p.path, p.label, p.split) for p in there.pictures] == [
        (p.path, p.label, p.split) for p in here.pictures
    ]
    files = [[p.file for p in found.pictures] for found in (there, here)]
    assert hash_files(files[0], workers=2) == hash_files(files[1], workers=2)


def test_a_folder_in_memory_and_in_a_zip(memory: Any, pets: Path, tmp_path: Path) -> None:
    """A class folder is the same dataset wherever it lies."""
    upload(memory, pets, "/some/pets")
    same("memory://some/pets", pets)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as packed:
        for file in pets.rglob("*.*"):
            packed.write(file, file.relative_to(pets))
    same(f"zip://::{tmp_path}/pets.zip", pets)
    same(f"file://{pets}", pets)


@pytest.mark.usefixtures("fake_base")
def test_features_of_pictures_on_object_storage(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows equal the local ones; a second run computes nothing, one more picture one."""
    with s3.server(monkeypatch) as client:
        s3.put(client, pets, "all/pets")
        store = hs.extract("s3://pets/all/pets", tmp_path / "there", weights="random")
        local = hs.extract(pets, tmp_path / "here", weights="random")
        np.testing.assert_array_equal(store.features("mixed7"), local.features("mixed7"))
        assert list(store.paths()) == list(local.paths())
        assert store.catalog.settings["data"] == "s3://pets/all/pets"

        before = (tmp_path / "there/features.h5").read_bytes()
        hs.extract("s3://pets/all/pets", tmp_path / "there")
        assert (tmp_path / "there/features.h5").read_bytes() == before

        some = next(pets.rglob("*.*"))
        new = some.read_bytes() + b"\0"  # another file, the same pixels
        client.put_object(Bucket="pets", Key=f"all/pets/{some.parent.name}/new.png", Body=new)
        assert len(hs.extract("s3://pets/all/pets", tmp_path / "there")) == len(local) + 1


@pytest.mark.usefixtures("fake_base")
def test_a_listing_that_lags(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listed and gone is in the ledger; what came back is used by the next run."""
    with s3.server(monkeypatch) as client:
        s3.put(client, pets, "pets")
        listed = fsspec.filesystem("s3").find("pets/pets", detail=True)
        gone = min(key for key in listed if key.endswith(".png"))
        body = client.get_object(Bucket="pets", Key=gone.removeprefix("pets/"))["Body"].read()
        client.delete_object(Bucket="pets", Key=gone.removeprefix("pets/"))
        with monkeypatch.context() as stale:
            stale.setattr("s3fs.S3FileSystem.find", lambda *_, **__: listed)
            store = hs.extract("s3://pets/pets", tmp_path / "store", weights="random")
        assert len(store) == len(listed) - 1
        ledger = (tmp_path / "store/ledger.jsonl").read_text("utf-8")
        assert gone.removeprefix("pets/pets/") in ledger
        assert "cannot be read" in ledger
        client.put_object(Bucket="pets", Key=gone.removeprefix("pets/"), Body=body)
        assert len(hs.extract("s3://pets/pets", tmp_path / "store")) == len(listed)


def test_a_manifest(memory: Any, pets: Path) -> None:
    """Its paths are relative to it; what leads elsewhere is left out, local files above all."""
    upload(memory, pets, "/pets")
    names = [file.relative_to(pets).as_posix() for file in sorted(pets.rglob("*.*"))]
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    memory.pipe(
        "/pets/list.csv",
        "\n".join(
            ["path,label", *rows, "../x.png,cat", "/etc/passwd,dog", "s3://b/x.png,dog"]
        ).encode(),
    )
    found = list_dataset("memory://pets/list.csv")
    assert [picture.path for picture in found.pictures] == names
    assert read_file(found.pictures[0].file) == (pets / names[0]).read_bytes()
    assert {item.path: item.reason for item in found.left_out} == dict.fromkeys(
        ("../x.png", "/etc/passwd", "s3://b/x.png"), "name leads outside the manifest's folder"
    )
    with pytest.raises(DataNotFoundError, match="cannot read memory://pets/none"):
        list_dataset("memory://pets/none.parquet")


def test_pictures_by_their_urls(memory: Any, pets: Path) -> None:
    """A list of paths may hold URLs."""
    upload(memory, pets, "/pets")
    file = next(pets.rglob("*.*"))
    url = f"memory://pets/{file.relative_to(pets).as_posix()}"
    (first, second) = list_dataset([url, file], labels=["a", "b"]).pictures
    contents = {read_file(first.file), read_file(second.file)}
    assert contents == {file.read_bytes()}


def test_odd_names_are_left_out(memory: Any) -> None:
    """Keys that would be other places as paths are never listed as pictures."""
    for name in ("cat/a.png", "dog/b.png", "dog/.hidden.png", "owl/readme.txt", "x.txt"):
        memory.pipe(f"/odd/{name}", b"x")
    memory.store["/odd/dog/../c.png"] = memory.store["/odd/cat/a.png"]
    found = list_dataset("memory://odd")
    assert [picture.path for picture in found.pictures] == ["cat/a.png", "dog/b.png"]
    assert [item.path for item in found.left_out] == ["dog/../c.png"]
    assert found.other_kinds == ((".txt", 2),)
    assert found.empty_classes == ("owl",)


def test_nothing_there(memory: Any) -> None:
    with pytest.raises(DataError, match="memory://nowhere"):
        list_dataset("memory://nowhere")


def test_a_file_comes_once(memory: Any) -> None:
    """Bytes that were hashed are decoded without a second transfer; hashing asks always anew."""
    memory.pipe("/one/a.png", b"first")
    file = Tree("memory://one").file("/one/a.png")
    hash_files([file], workers=1)
    memory.pipe("/one/a.png", b"second")
    assert read_file(file) == b"first"
    assert read_file(file) == b"second"
    (old,) = hash_files([file], workers=1)
    memory.pipe("/one/a.png", b"third")
    assert hash_files([file], workers=1) != [old]


def test_what_is_kept_is_bounded() -> None:
    kept = Kept(10)
    kept.put((0, "a", None), b"12345678")
    kept.put((0, "b", None), b"123")
    assert kept.take((0, "b", None)) is None
    assert kept.take((0, "a", None)) == b"12345678"
    kept.put((0, "b", None), b"1234567890")
    assert kept.take((0, "b", None)) == b"1234567890"


def test_a_file_over_the_limit(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by its listed size unread, and by its bytes where the listing was wrong."""
    monkeypatch.setattr("headstart.extract.url.MAX_AWAY_BYTES", 4)
    memory.pipe("/one/a.png", b"12345")
    tree = Tree("memory://one")
    for file in (UrlFile(tree, "/one/a.png", 5), UrlFile(tree, "/one/a.png", 3)):
        (found,) = hash_files([file], workers=1)
        assert not isinstance(found, str)
        assert "over the limit" in found.reason


@pytest.mark.usefixtures("fake_base")
def test_a_url_in_a_store_is_not_followed(memory: Any, pets: Path, tmp_path: Path) -> None:
    """Repairing a store asks for --data, as the store may be a stranger's."""
    upload(memory, pets, "/pets")
    store = tmp_path / "store"
    rows = hs.extract("memory://pets", store, weights="random").features("mixed7")
    next((store / "shards").iterdir()).unlink()
    with pytest.raises(StoreError, match="--data"):
        mend_store(store)
    mend_store(store, data="memory://pets")
    np.testing.assert_array_equal(hs.Store.open(store).features("mixed7"), rows)
