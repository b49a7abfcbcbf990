"""Names of TensorFlow Datasets: what that package says of an example is what we list."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

import headstart as hs
from headstart.errors import DataError, DataNotFoundError, MissingExtraError
from headstart.extract import mend
from headstart.extract.dataset import list_dataset
from headstart.extract.hashing import read_file

pytestmark = pytest.mark.tensorflow
Store = Callable[..., str]
PICTURE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
LABEL = tfds.features.ClassLabel(names=["dog", "cat"])


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Store datasets as that package does, where it will look for them; nothing is fetched."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    def store(features: dict[str, Any], name: str = "tiny", **splits: list[dict[str, Any]]) -> str:
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(enumerate(rows)) for split, rows in splits.items()},
            data_dir=tmp_path / "tfds",
            disable_shuffling=True,
        )
        return f"tfds:{name}"

    return store


def encoded(file: Path) -> io.BytesIO:
    return io.BytesIO(file.read_bytes())


def examples(pets: Path, count: int = 20) -> list[dict[str, Any]]:
    files = sorted(pets.rglob("*.png"))[:: 20 // count]
    return [{"image": encoded(file), "label": file.parent.name} for file in files]


def records(folder: Path) -> Path:
    (file,) = folder.rglob("*tfrecord*")
    return file


@pytest.mark.usefixtures("fake_base")
def test_it_is_the_dataset_that_the_package_reads(keep: Store, pets: Path, tmp_path: Path) -> None:
    """Ids, bytes, labels and splits; and the features of the folder that was packed."""
    rows = examples(pets)
    name = keep({"image": PICTURE, "label": LABEL}, train=rows[::2], test=rows[1::2])
    found = list_dataset(name)
    theirs: dict[str, tuple[bytes, str, str]] = {}
    for split in ("train", "test"):
        data = tfds.load(
            "tiny",
            split=split,
            data_dir=tmp_path / "tfds",
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=True),
        )
        for row in data.as_numpy_iterator():
            label = LABEL.int2str(row["label"])
            theirs[row["tfds_id"].decode()] = (row["image"], label, split)
    ours = {p.path: (read_file(p.file), found.classes[p.label], p.split) for p in found.pictures}
    assert ours == theirs
    assert len(ours) == 20
    folder = hs.extract(pets, tmp_path / "folder", weights="random")
    store = hs.extract(name, tmp_path / "store", weights="random")
    by_bytes = dict(zip(folder.image_sha256(), folder.features("mixed7"), strict=True))
    for digest, features in zip(store.image_sha256(), store.features("mixed7"), strict=True):
        np.testing.assert_array_equal(features, by_bytes[digest])
    assert store.catalog.settings["data"] == name
    (tmp_path / "store" / "features.h5").unlink()
    with pytest.raises(hs.errors.StoreError, match="fetched only where you give it"):
        mend.mend_store(tmp_path / "store")


def test_splits_are_taken_by_name(keep: Store, pets: Path) -> None:
    """Parts too; one of another kind is left out, and said so, unless it is named."""
    rows = examples(pets)
    name = keep({"image": PICTURE, "label": LABEL}, train=rows, unlabeled=rows[:4])
    found = list_dataset(name)
    assert [item.path for item in found.left_out] == ["unlabeled"]
    assert {picture.split for picture in found.pictures} == {"train"}
    part = list_dataset(f"{name}@train[40%:60%],unlabeled")
    assert sorted(picture.path.rpartition("__")[2] for picture in part.pictures) == sorted(
        map(str, [*range(8, 12), *range(4)])
    )
    assert {picture.split for picture in part.pictures} == {"train", ""}
    for wrong in ("nowhere", "train[", "train+unlabeled"):
        with pytest.raises(DataError, match="split"):
            list_dataset(f"{name}@{wrong}")


def test_damage_leaves_out_what_is_behind_it(keep: Store, pets: Path, tmp_path: Path) -> None:
    """The pictures before it are used, and the ledger names the file."""
    name = keep({"image": PICTURE}, train=[{"image": row["image"]} for row in examples(pets)])
    file = records(tmp_path / "tfds")
    whole = file.read_bytes()
    cut = struct.unpack("<Q", whole[:8])[0] + 16  # where the second record begins
    for damaged, pictures, reason in (
        (whole + b"\xff" * 12, 20, ""),  # behind the last that is told of: never looked at
        (whole[:-3], 19, "damaged records: truncated record at"),
        (whole[:cut] + b"\xff" * 12 + whole[cut:], 1, f"damaged records: no record at byte {cut}"),
        (whole[:cut], 1, "1 records; expected 20"),
    ):
        file.write_bytes(damaged)
        found = list_dataset(name)
        assert len(found.pictures) == pictures
        reasons = "; ".join(item.reason for item in found.left_out)
        assert reasons.startswith(reason)
        assert bool(reasons) == bool(reason)


def test_a_flipped_bit_is_damage(keep: Store, pets: Path, tmp_path: Path) -> None:
    """In a label or in a length: it would else be another label, or another record."""
    rows = examples(pets, 4)
    name = keep({"image": PICTURE, "label": LABEL}, train=rows[::2] + rows[1::2])
    file = records(tmp_path / "tfds")
    whole = file.read_bytes()
    third = 0
    for _ in range(2):
        third += struct.unpack_from("<Q", whole, third)[0] + 16
    before_label = b"label\x12\x05\x1a\x03\n\x01"
    label = whole.index(before_label, third) + len(before_label)
    for place, told in ((label, third + 12), (third, third)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        found = list_dataset(name)
        assert len(found.pictures) == 2
        (item,) = found.left_out
        assert item.reason.startswith(f"damaged records: corrupted record at {told}")


def test_the_reader_is_started_quietly(keep: Store, pets: Path) -> None:
    """Nothing of what TensorFlow says of itself is on the terminal."""
    name = keep({"image": PICTURE, "label": LABEL}, train=examples(pets, 4))
    words = [sys.executable, "-m", "headstart", "inspect", name]
    found = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    assert "4 pictures" in found.stdout
    assert found.stderr == ""


def test_several_jobs_may_fetch_at_once(
    keep: Store, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes too late to put it there takes what is there; without a terminal, no bar."""
    build, quiet = tfds.builder, list[bool]()
    monkeypatch.setattr(tfds, "disable_progress_bar", lambda: quiet.append(True))

    class Late:
        def __init__(self, others: bool) -> None:
            self.others = others

        def is_prepared(self) -> bool:
            return False

        def download_and_prepare(self) -> None:
            monkeypatch.setattr(tfds, "builder", build)
            if self.others:
                keep({"image": PICTURE}, train=[{"image": examples(pets)[0]["image"]}])
            raise OSError("Directory not empty")

    monkeypatch.setattr(tfds, "builder", lambda *_, **__: Late(others=False))
    with pytest.raises(DataNotFoundError, match="tiny"):
        list_dataset("tfds:tiny")
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: Late(others=True))
    assert len(list_dataset("tfds:tiny").pictures) == 1
    assert quiet == [True, True]


def test_one_picture_an_example(keep: Store, pets: Path) -> None:
    """Several, none, or one that is no file's bytes: refused with what was found."""
    file = next(pets.rglob("*.png"))
    pair = {"left": encoded(file), "right": encoded(file)}
    name = keep({"left": PICTURE, "right": PICTURE}, "two", train=[pair])
    with pytest.raises(DataError, match=r"expected one encoded picture .*; found left, right"):
        list_dataset(name)
    raw = tfds.features.Tensor(shape=(2, 2, 3), dtype=np.uint8)
    none = {"image": np.zeros((2, 2, 3), np.uint8), "label": 0}
    name = keep({"image": raw, "label": LABEL}, "none", train=[none])
    with pytest.raises(DataError, match="found none among image, label"):
        list_dataset(name)
    floats = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    name = keep({"image": floats}, "floats", train=[{"image": np.zeros((2, 2, 1), np.float32)}])
    with pytest.raises(DataError, match="is of float32; expected uint8"):
        list_dataset(name)


def test_refusals(keep: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no name, no dataset, or not installed."""
    for wrong in ("tfds:", "tfds:../x", "tfds:kaggle:x", "tfds:a/b/c"):
        with pytest.raises(DataError, match="expected tfds:NAME"):
            list_dataset(wrong)
    with pytest.raises(DataNotFoundError, match="nonesuch"):
        list_dataset("tfds:nonesuch")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[tfds\]"):
        list_dataset("tfds:tiny")


def test_the_picture_is_as_it_was(keep: Store, pets: Path) -> None:
    """Encoded once more, it would be another row; without a label it has none."""
    file = next(pets.rglob("*.png"))
    name = keep({"image": PICTURE}, train=[{"image": encoded(file)}])
    (picture,) = list_dataset(name).pictures
    assert read_file(picture.file) == file.read_bytes()
    assert picture.label == -1
