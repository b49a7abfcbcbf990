"""Damage anywhere is found before a wrong row is served, named, and mended."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.cache import Filling, LeftOut, Rows, Spec, Store, pack, verify
from headstart.errors import CorruptStoreError, StoreError
from reliability import lab, tasks
from reliability.counts import share

PAGE = 4096


@pytest.fixture
def store(forge: lab.Forge, data: Path, tmp_path: Path) -> Path:
    """Give a store of 40 rows in five shards, with a picture in the ledger."""
    (data / "cat" / "broken.png").write_text("no picture")
    made = tmp_path / "store"
    assert forge.extract(data, made, shard_rows=8).wait().code == 0
    return made


def shards(store: Path) -> list[Path]:
    """Return the shards of a store."""
    return sorted((store / "shards").glob("*.h5"))


def packed(store: Path) -> Path:
    """Pack a store."""
    folder = store.parent / "packed"
    folder.mkdir()
    return pack(Store.open(store), folder / "one.h5")


def refused(store: Path, damaged: Path) -> None:
    """Assert that reading names the file and the remedy, and that `verify` finds it."""
    Store._checked.clear()
    with pytest.raises(CorruptStoreError) as caught:
        Store.open(store).features()
    assert damaged.name in str(caught.value)
    assert ("--repair" in str(caught.value)) == store.is_dir()
    assert damaged.name in "".join(problem.file for problem in verify(store).problems)


@share("flips")
def test_flipped_bits(
    count: int,
    forge: lab.Forge,
    chance: random.Random,
    seed: int,
    store: Path,
    data: Path,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """One flipped bit in any file: refused by name, or (the ledger's) proved harmless; found.

    In processes of their own, since a crash or a hang would be a finding too.
    """
    del chance
    paths, features = lab.expected(data)
    rows = tmp_path / "rows.npz"
    labels = Store.open(store).labels()
    np.savez(rows, paths=np.array(paths), features=features, labels=labels)
    running = []
    for part in (1, 2):
        copy = tmp_path / str(part) / "store"
        shutil.copytree(store, copy)
        files = [copy / "features.h5", copy / "ledger.jsonl", *shards(copy), packed(copy)]
        arguments = {"files": files, "rows": rows, "seed": seed + part, "count": count // 2}
        running.append(forge.start(call="flips", arguments=arguments))
    found: Counter[str] = Counter()
    for one in running:
        ended = one.wait(1800)
        assert ended.code == 0, ended.err
        found.update(ended.values("refused")[0])
    assert sum(found.values()) == count
    assert min(found["features.h5"], found["mixed7"], found["one.h5"]) > count / 20
    harmless = {name for name in found if "harmless" in name}
    assert harmless <= {"ledger.jsonl (harmless)"}
    figures(f"{count} flips, no wrong row: {dict(found)}")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Give a store whose every file has many pages, made of noise, without pictures."""
    store, spec, rows = tmp_path / "large", Spec(weights="0" * 64), 900
    draw = np.random.default_rng(0)
    ids = [(b"%064x" % number, 0) for number in range(rows)]
    filling = Filling(store)
    for first in range(0, rows, 300):
        part = draw.normal(size=(300, 4, 4, 12)).astype(np.float16)
        filling.add(spec, ids[first : first + 300], part, {})
    paths = [f"class/{number:06d}.png" for number in range(rows)]
    table = Rows(("class",), paths, [""] * rows, [0] * rows, [one for one, _ in ids], [0] * rows)
    left_out = [LeftOut(f"bad/{number:06d}.png", "it is empty") for number in range(300)]
    filling.publish(table, ["mixed7"], left_out=left_out, unreadable={}, settings={}, seconds=1.0)
    return store


@share("cuts")
def test_cut_files(
    count: int, large: Path, chance: random.Random, figures: Callable[[str], None]
) -> None:
    """A file cut at any multiple of 4 KiB, and just beside its ends, is refused and found."""
    cuts: Counter[str] = Counter()
    one = packed(large)
    for path in (large / "features.h5", shards(large)[1], one):
        whole = path.read_bytes()
        sizes = [0, 1, 127, 128, 129, len(whole) - 1, *range(PAGE, len(whole), PAGE)]
        assert len(sizes) > 12
        for size in sizes[chance.randrange(count) :: count]:
            path.write_bytes(whole[:size])
            if path != one:
                refused(large, path)
            elif size > 8:
                refused(one, one)
            else:  # not even HDF5
                with pytest.raises(StoreError, match=r"one\.h5 is not a store"):
                    Store.open(one)
            cuts[path.name.split("-")[0]] += 1
        path.write_bytes(whole)
    ledger = large / "ledger.jsonl"
    whole = ledger.read_bytes()
    for size in range(0, len(whole), PAGE):
        ledger.write_bytes(whole[:size])
        assert [problem.file for problem in verify(large).problems] == ["ledger.jsonl"]
        cuts["ledger.jsonl"] += 1
    ledger.write_bytes(whole)
    Store._checked.clear()
    assert verify(large).sound
    assert len(Store.open(large).features()) == len(Store.open(one).features()) == 900
    figures(f"{sum(cuts.values())} cuts: {dict(cuts)}")


def test_missing_shard(store: Path) -> None:
    """A shard that is gone is missed when the store is opened."""
    gone = shards(store)[2]
    gone.unlink()
    refused(store, gone)


def test_shard_of_another_store(forge: lab.Forge, store: Path, tmp_path: Path) -> None:
    """A sound shard of another store, of the same size even, is not taken for ours."""
    import fakes

    others = tmp_path / "other"
    data = fakes.draw_classes(tmp_path / "others", ("cat", "dog"), 20)
    fakes.draw(data / "cat" / "0000.png", 77)
    assert forge.extract(data, others, "--weights", "random:3", shard_rows=8).wait().code == 0
    for mine, theirs in zip(shards(store), shards(others), strict=True):
        original = mine.read_bytes()
        shutil.copy(theirs, mine)
        refused(store, mine)
        mine.write_bytes(original)
    Store._checked.clear()
    assert verify(store).sound


def test_shards_of_one_store_swapped(store: Path) -> None:
    """Two shards of a store under each other's names are both found."""
    one, two, *_ = shards(store)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    Store._checked.clear()
    with pytest.raises(CorruptStoreError, match=r"not the shard|bytes; expected"):
        Store.open(store).features()
    assert {problem.file for problem in verify(store).problems} == {
        f"shards/{path.name}" for path in (one, two)
    }


def test_catalog_of_another_store(forge: lab.Forge, store: Path, tmp_path: Path) -> None:
    """A catalog does not serve another store's shards."""
    import fakes

    data = fakes.draw_classes(tmp_path / "others", ("owl", "yak"), 3)
    assert forge.extract(data, tmp_path / "other").wait().code == 0
    shutil.copy(tmp_path / "other" / "features.h5", store)
    Store._checked.clear()
    with pytest.raises(CorruptStoreError, match=r"mixed7-\w+\.h5 is missing.*--repair"):
        Store.open(store)


class Damage:
    """Ways to damage a file of a store."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, path: Path, others: list[Path]) -> str:
        """Damage one file; return how."""
        whole = path.read_bytes()
        how = self._chance.choice(["flip", "cut", "gone", "empty", "other", "torn"])
        if how == "flip":
            tasks._flip(path, self._chance.randrange(8 * len(whole)))
        elif how == "cut":
            path.write_bytes(whole[: self._chance.randrange(1, len(whole))])
        elif how == "gone":
            path.unlink()
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "other":
            shutil.copy(self._chance.choice([one for one in others if one.name != path.name]), path)
        else:
            start = self._chance.randrange(len(whole) - 64)
            torn = bytes(byte ^ 0xFF for byte in whole[start : start + 64])
            path.write_bytes(whole[:start] + torn + whole[start + 64 :])
        return how


@share("repairs")
def test_repair_computes_what_is_damaged_and_nothing_else(
    count: int,
    forge: lab.Forge,
    chance: random.Random,
    store: Path,
    data: Path,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """One to three damaged files: `verify` finds them, `--repair` mends the store."""
    damage, log = Damage(chance), lab.Log(tmp_path / "log")
    whole, heads = lab.snapshot(store), lab.heads(store)
    kinds: Counter[str] = Counter()
    rows = 0
    for number in range(count):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(store, copy)
        files = [copy / "features.h5", copy / "ledger.jsonl", *shards(copy)]
        chosen = chance.sample(files, chance.randrange(1, 4))
        for path in chosen:
            if path.name == "ledger.jsonl":
                path.write_text("{}\n")
                continue
            kinds[damage(path, shards(store))] += 1
        if not (copy / "features.h5").exists():  # no store says where its pictures are
            shutil.copy(copy / "ledger.jsonl", copy / "features.h5")
        lists = copy / "features.h5" not in chosen  # else a copy under another's name will do
        survivors = set() if lists else {row for part in lab.heads(copy).values() for row in part}
        found = forge.run("verify", copy, "--quiet")
        assert found.code == 1, (chosen, found)
        words = ("verify", copy, "--repair", "--data", data)
        ended = forge.run(*words, log=str(log.path), shard_rows=8)
        assert ended.code == 0, (chosen, ended)
        lost = {row for path in chosen if path.name in heads for row in heads[path.name]}
        lost -= survivors
        computed = log.take(data)
        assert sorted(computed) == sorted(lost), (chosen, len(computed), len(lost))
        rows += len(computed)
        lab.check(copy, data)
        lab.check_clean(copy)
        kept = lab.snapshot(copy)
        for name, content in whole.items():
            if name.startswith("shards/") and copy / name not in chosen:
                assert kept[name] == content, "a sound shard was touched"
        shutil.rmtree(copy)
    assert rows
    figures(f"{count} repairs computed {rows} rows, none for nothing: {dict(kinds)}")


def test_repair_without_data_asks_for_it(forge: lab.Forge, store: Path) -> None:
    """With every shard and the catalog gone nobody knows where the pictures are."""
    for path in shards(store):
        path.write_bytes(b"")
    (store / "features.h5").write_bytes(b"")
    ended = forge.run("verify", store, "--repair")
    assert ended.code == 1
    assert "--data" in ended.err


def test_repair_of_a_lost_catalog_remembers_split_and_data(
    forge: lab.Forge, data: Path, tmp_path: Path
) -> None:
    """The shards tell what the catalog told: the pictures' place and the validation share."""
    store = tmp_path / "store"
    assert forge.extract(data, store, "--validation", "0.3").wait().code == 0
    splits = Store.open(store).splits().tolist()
    assert 0 < splits.count("validation") < 40
    (store / "features.h5").write_bytes(b"")
    ended = forge.run("verify", store, "--repair", log=str(tmp_path / "log"))
    assert ended.code == 0, ended
    assert lab.Log(tmp_path / "log").take(data) == []
    assert lab.check(store, data).splits().tolist() == splits


def test_repair_of_a_lost_catalog_keeps_layers_of_both_poolings(
    forge: lab.Forge, data: Path, tmp_path: Path
) -> None:
    """No layer is lost with the catalog."""
    store = tmp_path / "store"
    assert forge.extract(data, store, "--layer", "mixed7,mixed5").wait().code == 0
    assert forge.extract(data, store, "--layer", "mixed0", "--pool", "avg").wait().code == 0
    layers = Store.open(store).layers
    (store / "features.h5").write_bytes(b"")
    assert forge.run("verify", store, "--repair").code == 0
    assert sorted(Store.open(store).layers) == sorted(layers)
    lab.check(store, data, "mixed7", "mixed5")


def test_repair_keeps_a_shard_equal_to_the_damaged_one(
    fake_base: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that stands still makes the new shard's name the damaged one's; it stays."""
    from headstart.extract import Settings, fill_store
    from headstart.repair import verify_and_repair

    monkeypatch.setattr("headstart.cache.fill.time.perf_counter", lambda: 0.0)
    store = tmp_path / "store"
    fill_store(data, store, Settings(size=lab.SIZE))
    (only,) = shards(store)
    tasks._flip(only, 8000)
    assert verify_and_repair(store, repair=True).sound
    assert shards(store) == [only]
    lab.check(store, data)


def test_repair_of_a_packed_file_says_pack_again(forge: lab.Forge, store: Path) -> None:
    """There is nothing to mend a packed file from but its store."""
    one = packed(store)
    tasks._flip(one, 9999)
    ended = forge.run("verify", one, "--repair")
    assert ended.code == 1
    assert "pack" in ended.err


def test_repair_leaves_files_that_are_not_ours(forge: lab.Forge, store: Path) -> None:
    """A user's own file in ``shards/`` is no damaged shard."""
    own = store / "shards" / "notes.h5"
    own.write_bytes(b"my own")
    shards(store)[0].unlink()
    assert forge.run("verify", store, "--repair").code == 0
    assert own.read_bytes() == b"my own"
