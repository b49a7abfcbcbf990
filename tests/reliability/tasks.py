"""What a process of `child` can do besides running a command."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.cache import Store, pack, verify
from headstart.errors import CorruptStoreError
from headstart.extract import Settings, Speed, fill_store

if TYPE_CHECKING:
    from reliability.child import Teller


def derived(teller: Teller, store: str) -> int:
    """Compute the row space of a store, or read it from ``derived/``; tell its checksum."""
    from headstart.heads.rows import FeatureRows
    from headstart.heads.rowspace import RowSpace

    opened = Store.open(store)
    space = RowSpace().fit_rows(FeatureRows(opened, "mixed7", opened.rows()))
    teller("derived", float(np.abs(space.coordinates_).sum()))
    teller("cached", space.seconds_ == 0)
    return 0


def publish(
    teller: Teller,
    store: str,
    versions: list[str],
    stop: str,
    size: int,
    packed: str | None,
    enough: str,
) -> int:
    """Bring a store in line with one dataset after the other, until a file says stop.

    With `packed`, that file is packed anew each time. A file `enough` appears when each dataset
    has been published twice.
    """
    count = 0
    while not Path(stop).exists():
        fill_store(versions[count % len(versions)], store, Settings(size=size), speed=Speed(4, 1))
        if packed:
            pack(Store.open(store), packed)
        count += 1
        if count == 2 * len(versions):
            Path(enough).touch()
    teller("published", count)
    return 0


def read(
    teller: Teller, store: str, versions: str, opens: int, enough: str, *, packed: bool = False
) -> int:
    """Open a store at least so often, and until a file says enough.

    Each time all rows must be those of one version.
    """
    known = np.load(versions)
    seen: Counter[str] = Counter()
    replaced = 0
    while sum(seen.values()) < opens or not Path(enough).exists():
        Store._checked.clear()
        try:
            opened = Store.open(store)
            found = opened.features(dtype="float16")
        except CorruptStoreError as error:
            if not packed or "replaced" not in str(error):
                raise
            replaced += 1
            continue
        name = "|".join(opened.paths())
        assert found.tobytes() == known[name].tobytes(), f"{store} served rows of two versions"
        seen[name] += 1
    teller("seen", list(seen.values()))
    teller("replaced", replaced)
    return 0


def flips(teller: Teller, files: list[str], rows: str, seed: int, count: int) -> int:
    """Flip one bit at a time in a store's files; tell how many were refused, by file.

    `files` are in a store's folder, or packed files.
    """
    chance, expected = random.Random(seed), np.load(rows)
    refused: Counter[str] = Counter()
    sizes = [Path(name).stat().st_size for name in files]
    for _ in range(count):
        path = Path(chance.choices(files, sizes if chance.random() < 0.5 else None)[0])
        bit = chance.randrange(8 * path.stat().st_size)
        store = path if path.suffix == ".h5" and path.parent.name == "packed" else _folder(path)
        original = _flip(path, bit)
        refused[_reading(store, path, expected)] += 1
        found = verify(store)
        named = [problem.file for problem in found.problems]
        assert any(path.name in name for name in named), (path, bit, named)
        _put(path, bit // 8, original)
    teller("refused", dict(refused))
    return 0


def _folder(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "shards" else path.parent


def _flip(path: Path, bit: int) -> int:
    with path.open("rb") as file:
        file.seek(bit // 8)
        original = file.read(1)[0]
    _put(path, bit // 8, original ^ 1 << bit % 8)
    return original


def _put(path: Path, offset: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([value]))


def _reading(store: Path, damaged: Path, expected: Any) -> str:
    """Read all rows; they are refused by an error that says what to do, or right."""
    Store._checked.clear()
    try:
        opened = Store.open(store)
        found = opened.features(dtype="float16")
    except CorruptStoreError as error:
        text = str(error)
        remedy = "pack the store again" if store.is_file() else f"verify {store} --repair"
        assert damaged.name in text, text
        assert remedy in text, text
        return damaged.name.split("-")[0]
    assert found.tobytes() == expected["features"].tobytes(), f"a wrong row from {damaged}"
    assert opened.paths() == expected["paths"].tolist()
    assert opened.labels().tolist() == expected["labels"].tolist()
    return f"{damaged.name} (harmless)"
