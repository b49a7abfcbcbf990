"""Rows are reused if and only if nothing that decides their values has changed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import fakes
from headstart.cache import Filling, Spec, Store
from headstart.errors import SpecMismatchError
from headstart.extract import Settings, Speed, fill_store
from reliability import lab

#: Field of the spec to what asks for another value of it.
FACTORS: dict[str, dict[str, Any]] = {
    "weights": {"weights": "random:7"},
    "size": {"size": 28},
    "engine": {"engine": "openvino"},
    "precision": {"precision": "bfloat16"},
    "dtype": {"dtype": "float32"},
    "decoding": {},
    "resampling": {},
}
CHANGES = [
    *((name,) for name in FACTORS),
    *itertools.combinations(FACTORS, 2),
    tuple(FACTORS),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a dataset and its store."""
    folder = tmp_path_factory.mktemp("made")
    data, store = fakes.draw_classes(folder / "data", per_class=4), folder / "store"
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        fill_store(data, store, Settings(size=lab.SIZE, engine="keras", precision="float32"))
    return data, store


@pytest.mark.parametrize("changed", CHANGES, ids="+".join)
def test_another_spec_is_refused_by_name(
    changed: tuple[str, ...],
    made: tuple[Path, Path],
    fake_base: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each field that differs is named, with both values and the remedy; nothing changes."""
    data, store = made
    before = lab.snapshot(store)
    for rule in {"decoding", "resampling"} & set(changed):
        for module in ("run", "plan"):
            monkeypatch.setattr(f"headstart.extract.{module}.{rule.upper()}", "newer-2")
            if rule == "decoding":
                newer = {"full": "newer-2", "scaled": "newer-2-scaled"}
                monkeypatch.setattr(f"headstart.extract.{module}.RULES", newer)
    asked: dict[str, Any] = {}
    for name in changed:
        asked |= FACTORS[name]
    with pytest.raises(SpecMismatchError) as caught:
        fill_store(data, store, Settings(**asked))
    text = str(caught.value)
    named = {name for name in FACTORS if f"{name}: the store has" in text}
    assert named == set(changed), text
    assert "-o" in text
    assert lab.snapshot(store) == before


#: Fields that have one value as yet.
LATER: dict[str, Any] = {"architecture": "Xception", "augmentation": "flip-1"}


@pytest.mark.parametrize("changed", [("architecture",), ("augmentation",), tuple(LATER)])
def test_fields_of_later_versions_are_compared(
    changed: tuple[str, ...], made: tuple[Path, Path], fake_base: None, tmp_path: Path
) -> None:
    """A store with views that has another value there is refused by name, too."""
    data, _ = made
    fill_store(data, tmp_path / "views", Settings(size=lab.SIZE, views=1))
    filling = Filling(tmp_path / "views")
    assert filling.spec is not None
    filling.require(filling.spec)
    other = dataclasses.replace(filling.spec, **{name: LATER[name] for name in changed})
    with pytest.raises(SpecMismatchError) as caught:
        filling.require(other)
    named = {name for name in vars(other) if f"{name}: the store has" in str(caught.value)}
    assert named == set(changed)


def test_every_field_of_the_spec_is_tried() -> None:
    """A field added to the spec must be added here; layer and pool may differ in one store."""
    fields = set(vars(Spec(weights="")))
    assert fields - set(FACTORS) - set(LATER) == {"layer", "pool"}


@pytest.mark.parametrize(
    "more", [{"layers": ("mixed5",)}, {"pool": "avg"}, {"layers": ("mixed5",), "pool": "max"}]
)
def test_another_layer_is_gained(
    more: dict[str, Any], made: tuple[Path, Path], fake_base: None, tmp_path: Path
) -> None:
    """Layer and pooling are no refusal: the store gains them, and keeps what it has."""
    data, store = made
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    had = lab.snapshot(copy / "shards")
    opened, summary = fill_store(data, copy, Settings(**more))
    assert summary.computed == 8
    assert len(opened.layers) == 2
    assert had.items() <= lab.snapshot(copy / "shards").items()
    lab.check(copy, data)


@pytest.mark.parametrize("speed", [Speed(1, 1), Speed(3, 2), Speed(64, 8)], ids=str)
def test_speed_is_no_part_of_the_spec(
    speed: Speed, made: tuple[Path, Path], fake_base: None, tmp_path: Path
) -> None:
    """Other batches and threads reuse every row, and would have given the same."""
    data, store = made
    before = lab.snapshot(store)
    _, summary = fill_store(data, store, Settings(), speed=speed)
    assert (summary.computed, summary.reused, summary.changed) == (0, 8, False)
    assert lab.snapshot(store) == before
    fill_store(data, tmp_path / "store", Settings(size=lab.SIZE), speed=speed)
    lab.check(tmp_path / "store", data)


class Kind:
    """A dataset that can be changed, whatever its form."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.rows: dict[str, list[Any]] = {
            f"{split}{label}{index}.png": [split, label, fakes.draw(self._file(index), index)]
            for index, (split, label) in enumerate(itertools.product(("train", "test"), "ab" * 2))
        }
        self.first = next(iter(self.rows))
        self.write()

    def _file(self, index: int) -> Path:
        return self.root / "pool" / f"{index}.png"

    def write(self) -> None:
        """Put the dataset on the disk, as the rows say."""
        raise NotImplementedError

    def change(self, what: str) -> tuple[int, int]:
        """Change one picture; return how many must be computed, and how many rows there are."""
        row = self.rows[self.first]
        if what == "edited":
            fakes.draw(row[2], 1000)
        elif what == "renamed":
            self.rows["zebra.png"] = self.rows.pop(self.first)
        elif what == "moved":
            self.rows["moved/deeper.png"] = self.rows.pop(self.first)
        elif what == "touched":
            self.touch()
            return 0, 8
        elif what == "relabelled":
            row[1] = "b"
        elif what == "re-split":
            row[0] = "test"
        elif what == "removed":
            del self.rows[self.first]
        else:
            self.rows["twin.png"] = list(row)
        self.write()
        return what == "edited", 8 + (what == "duplicated") - (what == "removed")

    def touch(self) -> None:
        """Change the times of all files, not their bytes."""
        for path in self.root.rglob("*.png"):
            os.utime(path, (1, 1))


class Manifest(Kind):
    """A CSV file."""

    def write(self) -> None:
        """Write files where the manifest says they are."""
        shutil.rmtree(self.data, ignore_errors=True)
        lines = ["path,label,split"]
        for name, (split, label, file) in self.rows.items():
            target = self.data / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            lines.append(f"{name},{label},{split}")
        (self.data / "list.csv").write_text("\n".join(lines))

    @property
    def source(self) -> Path:
        """What is given to `extract`."""
        return self.data / "list.csv"


class Folders(Kind):
    """A folder for each split, with one for each class."""

    def place(self, split: str, label: str, name: str) -> Path:
        """Return where a picture lies."""
        return self.data / split / label / name

    def write(self) -> None:
        """Write the folders."""
        shutil.rmtree(self.data, ignore_errors=True)
        for name, (split, label, file) in self.rows.items():
            target = self.place(split, label, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)

    @property
    def source(self) -> Path:
        """What is given to `extract`."""
        return self.data


class Links(Folders):
    """The same, of symbolic links: the bytes count, not where they lie."""

    def write(self) -> None:
        """Write the links."""
        shutil.rmtree(self.data, ignore_errors=True)
        for name, (split, label, file) in self.rows.items():
            target = self.place(split, label, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            hidden = self.data / ".pool" / file.name
            hidden.parent.mkdir(exist_ok=True)
            shutil.copy(file, hidden)
            target.symlink_to(hidden)


CASES = ["edited", "renamed", "moved", "touched", "relabelled", "re-split", "removed", "duplicated"]


@pytest.mark.parametrize("kind", [Folders, Manifest, Links], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("what", CASES)
def test_computed_again_if_and_only_if_its_bytes_are_new(
    what: str, kind: type[Any], fake_base: None, tmp_path: Path
) -> None:
    """And the store says afterwards what the dataset says, row for row."""
    dataset, store = kind(tmp_path / "dataset"), tmp_path / "store"
    _, summary = fill_store(dataset.source, store, Settings(size=lab.SIZE))
    assert summary.computed == summary.rows == 8
    before = Store.open(store)
    was = list(zip(before.paths(), before.labels(), before.splits(), strict=True))
    computed, rows = dataset.change(what)
    opened, summary = fill_store(dataset.source, store, Settings())
    assert (summary.computed, summary.rows) == (computed, rows)
    lab.check(store, dataset.source)
    now = list(zip(opened.paths(), opened.labels(), opened.splits(), strict=True))
    assert (now == was) == (what in {"edited", "touched"})
    assert summary.changed == (what != "touched")
