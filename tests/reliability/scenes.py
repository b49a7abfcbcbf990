"""What a process is doing when the disk refuses or the power goes: one scene each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headstart.cache import Store
from headstart.errors import CorruptStoreError, StoreNotFoundError
from reliability import lab

SHARD_ROWS = 6


@dataclass(eq=False)
class Scene:
    """A folder ``work`` with stores in it, and a command that changes something there."""

    forge: lab.Forge
    data: Path
    less: Path
    folder: Path

    #: The error may be passed over, since nothing is lost by it.
    tolerant = False

    def __post_init__(self) -> None:
        self.template, self.work = self.folder / "template", self.folder / "work"
        self.store = self.work / "store"
        self.template.mkdir(parents=True)
        self.work.mkdir()
        self.prepare()
        shutil.rmtree(self.template)
        self.work.rename(self.template)

    def reset(self) -> None:
        """Make ``work`` anew."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.template, self.work)

    def prepare(self) -> None:
        """Fill ``work``."""

    def act(self, **request: Any) -> lab.Ended:
        """Run the command."""
        raise NotImplementedError

    def check_after_trouble(self) -> None:
        """Assert that what is there is as before, or as after."""
        self._check_served(self.data)

    def check_done(self) -> None:
        """Assert that all is as after an undisturbed run, with nothing left over."""
        lab.check(self.store, self.data)
        lab.check_clean(self.store)
        assert lab.temporaries(self.work) == []

    def extract(self, data: Path, *more: str, **request: Any) -> lab.Ended:
        """Fill the store."""
        return self.forge.extract(data, self.store, *more, shard_rows=SHARD_ROWS, **request).wait()

    def _check_served(self, *datasets: Path) -> None:
        Store._checked.clear()
        try:
            served = len(Store.open(self.store))
        except (StoreNotFoundError, CorruptStoreError):
            return
        lab.check(self.store, {len(lab.expected(data)[0]): data for data in datasets}[served])


class Fresh(Scene):
    """The first extraction into a folder that is not there yet."""

    def act(self, **request: Any) -> lab.Ended:
        """Extract."""
        return self.extract(self.data, **request)


class Growing(Scene):
    """New pictures for a store."""

    def prepare(self) -> None:
        """Fill the store with half of the pictures."""
        self.extract(self.less)

    def act(self, **request: Any) -> lab.Ended:
        """Extract all."""
        return self.extract(self.data, **request)

    def check_after_trouble(self) -> None:
        """Assert that the store is there, old or new."""
        assert Store.open(self.store)
        self._check_served(self.less, self.data)


class SecondLayer(Growing):
    """A further layer for a store."""

    def prepare(self) -> None:
        """Fill the store with one layer."""
        self.extract(self.data)

    def act(self, **request: Any) -> lab.Ended:
        """Add a layer."""
        return self.extract(self.data, "--layer", "mixed7,mixed5", **request)

    def check_done(self) -> None:
        """Assert that both layers are there."""
        lab.check(self.store, self.data, "mixed7", "mixed5")
        super().check_done()


class Recovery(Scene):
    """The run after one that was killed before it could publish."""

    def prepare(self) -> None:
        """Kill a run when it has published its first shard."""
        fault = {"root": str(self.work), "at": 11, "what": "before"}
        assert self.extract(self.data, fault=fault).code == -9
        assert list((self.store / "shards").glob("*.h5"))
        assert lab.temporaries(self.work)

    def act(self, **request: Any) -> lab.Ended:
        """Extract again."""
        return self.extract(self.data, **request)


class Repair(Scene):
    """A damaged shard and a missing one."""

    def prepare(self) -> None:
        """Damage a store."""
        self.extract(self.data)
        one, two, *_ = sorted((self.store / "shards").glob("*.h5"))
        one.write_bytes(one.read_bytes()[:-1])
        two.unlink()

    def act(self, **request: Any) -> lab.Ended:
        """Mend it."""
        words = ("verify", self.store, "--repair", "--quiet")
        return self.forge.run(*words, shard_rows=SHARD_ROWS, **request)


class LostCatalog(Repair):
    """A damaged ``features.h5`` over two layers."""

    def prepare(self) -> None:
        """Damage a store."""
        self.extract(self.data, "--layer", "mixed7,mixed5")
        catalog = self.store / "features.h5"
        catalog.write_bytes(catalog.read_bytes()[:4096])

    def check_done(self) -> None:
        """Assert that both layers are there."""
        lab.check(self.store, self.data, "mixed7", "mixed5")
        super().check_done()


class Pack(Scene):
    """Packing over an older packed file."""

    def prepare(self) -> None:
        """Pack half of the pictures, then fill the store."""
        self.file = self.work / "one.h5"
        self.extract(self.less)
        self.forge.run("pack", self.store, "-o", self.file)
        self.extract(self.data)
        self.source = lab.snapshot(self.store)

    def act(self, **request: Any) -> lab.Ended:
        """Pack."""
        return self.forge.run("pack", self.store, "-o", self.file, "--quiet", **request)

    def check_after_trouble(self) -> None:
        """Assert that the store is untouched and the file old or new."""
        assert lab.snapshot(self.store) == self.source
        size = len(Store.open(self.file))
        lab.check(self.file, {len(lab.expected(d)[0]): d for d in (self.less, self.data)}[size])

    def check_done(self) -> None:
        """Assert that the file is new."""
        lab.check(self.file, self.data)
        super().check_done()


class Derived(Scene):
    """Keeping a row space in ``derived/``, which nobody misses if it fails."""

    tolerant = True

    def prepare(self) -> None:
        """Fill the store."""
        self.extract(self.data)
        self.source = lab.snapshot(self.store)
        self.right = self.act().values("derived")
        shutil.rmtree(self.store / "derived")

    def act(self, **request: Any) -> lab.Ended:
        """Compute the row space."""
        return self.forge.run(call="derived", arguments={"store": str(self.store)}, **request)

    def check_after_trouble(self) -> None:
        """Assert that the store is untouched."""
        found = lab.snapshot(self.store)
        assert {name: found[name] for name in self.source} == self.source

    def check_done(self) -> None:
        """Assert that the row space is kept, and right, and gone is what was left over."""
        kept = self.act()
        assert kept.values("cached") == [True]
        assert kept.values("derived") == pytest.approx(self.right)
        self.extract(self.data)
        super().check_done()


SCENES = (Fresh, Growing, SecondLayer, Recovery, Repair, LostCatalog, Pack, Derived)
