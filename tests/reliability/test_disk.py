"""The power goes, or the disk refuses, at every single file operation."""

from __future__ import annotations

import errno
import functools
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fakes
from reliability import lab
from reliability.counts import share
from reliability.scenes import SCENES, Derived, Scene

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


@pytest.fixture(scope="module", params=SCENES, ids=lambda scene: scene.__name__)
def scene(
    request: pytest.FixtureRequest,
    forge: lab.Forge,
    heads_forge: lab.Forge,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scene:
    """Give each scene in turn."""
    tmp_path = tmp_path_factory.mktemp("scene")
    data = fakes.draw_classes(tmp_path / "data", per_class=8)
    less = fakes.draw_classes(tmp_path / "less", per_class=4)
    chosen = heads_forge if request.param is Derived else forge
    made: Scene = request.param(chosen, data, less, tmp_path / "scene")
    return made


@functools.cache
def operations(scene: Scene) -> int:
    """Return how many file operations the undisturbed command does; check what it makes."""
    scene.reset()
    ended = scene.act(fault={"root": str(scene.work), "at": 1 << 30})
    assert ended.code == 0, ended.err
    scene.check_done()
    (count,) = ended.values("operations")
    assert count >= 5
    return int(count)


def trials(kinds: list[Any], count: int, last: int, chance: random.Random) -> list[Any]:
    """Return every `count`-th of all (operation, kind), from a random first."""
    every = [(at, kind) for at in range(1, last + 1) for kind in kinds]
    return every[chance.randrange(count) :: count]


@share("crash points")
def test_power_cut_at_every_operation(
    count: int, scene: Scene, chance: random.Random, figures: Callable[[str], None]
) -> None:
    """Killed right before, or right after (half-way through a write), any file operation.

    What is served is old or new, and the same command again ends as if nothing had been.
    """
    struck: Counter[str] = Counter()
    last = operations(scene)
    for at, what in trials(["before", "after"], count, last, chance):
        scene.reset()
        ended = scene.act(fault={"root": str(scene.work), "at": at, "what": what})
        assert ended.code == -9, (at, what, ended)
        struck[ended.struck.split()[0]] += 1
        scene.check_after_trouble()
        again = scene.act()
        assert again.code == 0, (at, what, again.err)
        scene.check_done()
    assert struck
    figures(f"{sum(struck.values())} power cuts at {last} operations: {dict(struck)}")


@share("failing operations")
def test_disk_refuses_at_every_operation(
    count: int, scene: Scene, chance: random.Random, figures: Callable[[str], None]
) -> None:
    """A file operation fails, once or from then on.

    The command says so in one line and ends with 1; what is served is old or new; nothing
    crashes at exit; the same command again ends as if nothing had been.
    """
    struck: Counter[str] = Counter()
    last = operations(scene)
    kinds = [(error, lasting) for error in ERRORS for lasting in (False, True)]
    for at, (error, lasting) in trials(kinds, count, last, chance):
        scene.reset()
        fault = {"root": str(scene.work), "at": at, "what": error, "lasting": lasting}
        ended = scene.act(fault=fault)
        where = (at, errno.errorcode[error], lasting, ended)
        assert ended.struck, where
        struck[ended.struck.split()[0]] += 1
        there = ended.struck.startswith("mkdir") and ended.code == 0  # it was there already
        if scene.tolerant or there:
            assert ended.code == 0, where
        else:
            assert ended.code == 1, where
            assert ended.err.startswith("headstart: "), where
            assert ended.err.count("\n") == 1, where
            assert os.strerror(error) in ended.err, where
            assert str(scene.work) in ended.err, where
        scene.check_after_trouble()
        again = scene.act()
        assert again.code == 0, (where, again.err)
        scene.check_done()
    assert struck
    figures(f"{sum(struck.values())} refusals at {last} operations: {dict(struck)}")


def test_full_disk_while_packing_does_not_crash(
    forge: lab.Forge, data: Path, tmp_path: Path
) -> None:
    """A real limit on the size of files, reached inside HDF5's own writing, is one clean error."""
    store, packed = tmp_path / "store", tmp_path / "one.h5"
    assert forge.extract(data, store).wait().code == 0
    for limit in (100, 1_000, 4_000, 8_000):
        ended = forge.run("pack", store, "-o", packed, file_size_limit=limit)
        assert ended.code == 1, ended
        assert "File too large" in ended.err
        assert lab.temporaries(tmp_path) == []
        assert not packed.exists()
