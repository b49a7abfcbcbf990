"""Parts of an extraction, each in a process of its own, all at once on one folder."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from headstart.cache import Store
from reliability.lab import Forge, check, check_clean, rows_on_disk


def test_four_parts_at_once_equal_one_run(forge: Forge, data: Path, tmp_path: Path) -> None:
    """No row is computed twice, and the run that publishes computes none."""
    whole, store = tmp_path / "whole", tmp_path / "store"
    assert forge.extract(data, whole).wait().code == 0
    jobs = [forge.extract(data, store, "--part", f"{n}/4", delay=0.05) for n in range(1, 5)]
    ended = [job.wait() for job in jobs]
    assert [one.code for one in ended] == [0] * 4, ended
    begun = [min(one.values("begin")) for one in ended]
    assert max(begun) < min(min(one.values("done")) for one in ended), "they ran one by one"
    assert not (store / "features.h5").exists()
    last = forge.extract(data, store).wait()
    assert (last.code, last.values("base")) == (0, [])
    check(store, data)
    check_clean(store)
    assert set(rows_on_disk(store).values()) == {1}
    one, other = Store.open(whole), Store.open(store)
    assert one.paths() == other.paths()
    np.testing.assert_array_equal(one.features("mixed7"), other.features("mixed7"))


def test_killed_parts_are_made_up_for(
    forge: Forge, data: Path, tmp_path: Path, chance: random.Random
) -> None:
    """Whatever the parts came to, the run that publishes ends with every row."""
    store = tmp_path / "store"
    jobs = [forge.extract(data, store, "--part", f"{n}/3", delay=0.05) for n in (1, 2, 3)]
    victim = chance.choice(jobs)
    assert victim.until("base") is not None, "it was not at work"
    victim.kill()
    assert sorted(job.wait().code for job in jobs) == [-9, 0, 0]
    last = forge.extract(data, store).wait()
    assert last.code == 0, last.err
    assert last.values("base"), "the killed part was done already"
    check(store, data)
    check_clean(store)
    assert set(rows_on_disk(store).values()) == {1}
