"""Many processes at one store: writers meet, readers see one version."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fakes
from headstart.cache import Store
from reliability import lab
from reliability.counts import share

LAYERS = ("mixed7", "mixed5", "mixed0")


def together(
    forge: lab.Forge, commands: list[tuple[Path, Path, *tuple[str, ...]]], **request: object
) -> list[lab.Ended]:
    """Run ``extract DATA STORE MORE...`` in several processes from the same moment on."""
    start = time.time() + 0.1 + 0.03 * len(commands)
    running = [
        forge.extract(*command, start=start, delay=0.01, **request)  # type: ignore[arg-type]
        for command in commands
    ]
    ended = [one.wait() for one in running]
    begun = [one.values("begin")[0] for one in ended]
    done = [one.values("done")[0] for one in ended]
    assert max(begun) < min(done), "the processes did not meet"
    return ended


def same(forge: lab.Forge, store: Path, data: Path, count: int, **request: object) -> Counter[str]:
    """All do the same: all succeed."""
    ended = together(forge, [(data, store)] * count, **request)
    assert [one.code for one in ended] == [0] * count, ended
    lab.check(store, data)
    return Counter(ok=count)


def layers(
    forge: lab.Forge, store: Path, data: Path, count: int, **request: object
) -> Counter[str]:
    """Each wants other layers: what one has published, no other takes away."""
    wanted = [LAYERS[number % 3] for number in range(count)]
    ended = together(forge, [(data, store, "--layer", name) for name in wanted], **request)
    done = {name for name, one in zip(wanted, ended, strict=True) if one.code == 0}
    assert done == set(Store.open(store).layers), (done, ended)
    for one in ended:
        assert one.code == 0 or re.fullmatch(
            r"headstart: .* another run .* is kept: run the same command again\n", one.err
        ), one
    lab.check(store, data, *done)
    log = lab.Log(store.parent / "log")
    for name in set(wanted):  # whoever was refused has lost nothing
        assert forge.extract(data, store, "--layer", name, log=str(log.path)).wait().code == 0
    assert log.take(data) == [] or len(done) < len(set(wanted))
    lab.check(store, data, *set(wanted))
    return Counter(ok=len(done), refused=len(ended) - sum(one.code == 0 for one in ended))


def specs(forge: lab.Forge, store: Path, data: Path, count: int, **request: object) -> Counter[str]:
    """They want different weights: one spec wins, the others are refused by name."""
    weights = [f"random:{number % 2}" for number in range(count)]
    ended = together(forge, [(data, store, "--weights", name) for name in weights], **request)
    won = {name for name, one in zip(weights, ended, strict=True) if one.code == 0}
    assert len(won) == 1, ended
    for one in ended:
        assert one.code == 0 or re.fullmatch(
            r"headstart: .*made under another spec \(weights: .*another -o.*\n", one.err
        ), one
    Store._checked.clear()
    opened = Store.open(store)
    paths, features = lab.expected(data, weights=won.pop())
    assert opened.paths() == paths
    assert opened.features(dtype="float16").tobytes() == features.tobytes()
    return Counter(ok=sum(one.code == 0 for one in ended), refused=sum(e.code for e in ended))


def data_sets(
    forge: lab.Forge, store: Path, data: Path, count: int, **request: object
) -> Counter[str]:
    """They bring different pictures: the store holds the rows of one of them, whole."""
    more = fakes.draw_classes(store.parent / "more", ("cat", "dog", "owl"), 5)
    chosen = [data if number % 2 else more for number in range(count)]
    ended = together(forge, [(one, store) for one in chosen], **request)
    assert [one.code for one in ended] == [0] * count, ended
    rows = len(Store.open(store))
    lab.check(store, data if rows == len(lab.usable(data)) else more)
    return Counter(ok=count)


KINDS = (same, layers, specs, data_sets)


@share("rounds")
def test_processes_fill_one_store_at_once(
    count: int,
    forge: lab.Forge,
    lockless_forge: lab.Forge,
    chance: random.Random,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """Two to eight processes, every other round with file locks that lock nothing.

    One consistent result, or one clean refusal; nothing damaged, nothing left over.
    """
    data = fakes.draw_classes(tmp_path / "data", per_class=6)
    outcome: Counter[str] = Counter()
    processes = 0
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        store, many = folder / "store", chance.randrange(2, 9 if count > len(KINDS) else 4)
        kind = KINDS[number % len(KINDS)]
        lockless = (number + number // len(KINDS)) % 2 == 1
        chosen = lockless_forge if lockless else forge
        outcome += kind(chosen, store, data, many, no_locks=lockless)
        lab.check_clean(store)
        processes += many
    assert processes >= 2 * count
    figures(f"{count} rounds of {processes} processes, which met: {dict(outcome)}")


def versions(tmp_path: Path) -> tuple[list[Path], Path]:
    """Make three datasets that differ in names, number and bytes; and a file of their rows."""
    folders = [
        fakes.draw_classes(tmp_path / f"version{number}", (f"a{number}", "b"), 4 + 2 * number)
        for number in range(3)
    ]
    fakes.draw(folders[1] / "b" / "0001.png", 99)
    rows = {}
    for folder in folders:
        paths, features = lab.expected(folder)
        rows["|".join(paths)] = features
    np.savez(tmp_path / "versions.npz", **rows)
    return folders, tmp_path / "versions.npz"


@share("opens")
@pytest.mark.parametrize("packed", [False, True], ids=["store", "packed file"])
def test_readers_see_one_version(
    count: int,
    packed: bool,
    forge: lab.Forge,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """While a writer publishes, every reader finds all rows of one version or, packed, is told."""
    folders, rows = versions(tmp_path)
    store, stop, one = tmp_path / "store", tmp_path / "stop", tmp_path / "one.h5"
    enough = tmp_path / "enough"
    first = forge.extract(folders[0], store).wait()
    assert first.code == 0
    assert forge.run("pack", store, "-o", one).code == 0
    writing = {"store": store, "versions": folders, "stop": stop, "size": lab.SIZE}
    writing |= {"enough": enough}
    writer = forge.start(
        call="publish", arguments=writing | {"packed": one if packed else None}, shard_rows=4
    )
    target = one if packed else store
    reading = {"store": target, "versions": rows, "opens": count // 2, "packed": packed}
    reading |= {"enough": enough}
    readers = [forge.start(call="read", arguments=reading) for _ in range(2)]
    seen: Counter[int] = Counter()
    replaced = 0
    for reader in readers:
        ended = reader.wait(600)
        assert ended.code == 0, ended.err
        seen.update(dict(enumerate(sorted(ended.values("seen")[0]))))
        replaced += ended.values("replaced")[0]
    stop.write_text("")
    ended = writer.wait()
    assert ended.code == 0, ended.err
    (published,) = ended.values("published")
    assert len(seen) == 3, "the readers did not see the versions change"
    assert published >= 6
    figures(f"{seen.total()} opens while {published} versions were published, {replaced} replaced")
