"""Ctrl-C, a polite kill, and an impatient user: the run ends soon and says what is kept."""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import fakes
from headstart.cache import Store, verify
from reliability import lab
from reliability.counts import share

INT, TERM = signal.SIGINT, signal.SIGTERM
ONE_SIGINT, ONE_SIGTERM, TWO = (INT,), (TERM,), (INT, INT)
STOPPED = re.compile(r"headstart: stopped.*\n")
AT_ONCE = (
    "headstart: stopped at once; what was finished is kept: run the same command again to go on\n"
)
kinds = pytest.mark.parametrize(
    "signals", [ONE_SIGINT, ONE_SIGTERM, TWO], ids=["SIGINT", "SIGTERM", "two SIGINTs"]
)


def stop(
    running: lab.Running, signals: tuple[signal.Signals, ...], chance: random.Random
) -> lab.Ended:
    """Send signals, the second after a random moment; the process must end within 10 s."""
    for number in signals:
        running.kill(number)
        time.sleep(chance.uniform(0, 0.1) if len(signals) > 1 else 0)
    return running.wait(10.0)


def until_shard(running: lab.Running, store: Path) -> None:
    """Wait for the first shard."""
    while not list(store.glob("shards/*.h5")):
        assert running.until("base") is not None
        time.sleep(0.002)


def check_stopped(ended: lab.Ended, signals: tuple[signal.Signals, ...]) -> None:
    """Assert that a process ended by its own exit code 1, after one line."""
    assert ended.code == 1, ended
    assert STOPPED.fullmatch(ended.err), ended
    assert len(signals) > 1 or ended.err != AT_ONCE, ended


@share("signals")
@kinds
def test_stopped_runs_end_and_resume(
    count: int,
    signals: tuple[signal.Signals, ...],
    forge: lab.Forge,
    chance: random.Random,
    data: Path,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """Within 10 s, in one line, with exit code 1; the next run computes only what is missing.

    In every other run the threads that decode compute, too.
    """
    log = lab.Log(tmp_path / "log")
    stopped, slowest, late, kept, at_once = 0, 0.0, 0, 0, 0
    while stopped < count:
        store = tmp_path / f"store{stopped + late}"
        slow = {"root": str(tmp_path), "slow": 0.003}
        shared = (stopped + late) % 2 == 1
        options = {"delay": 0.02, "log": str(log.path), "fault": slow, "shared": shared}
        running = forge.extract(data, store, **options)
        if stopped == 0:  # one at least is in the middle of its work
            until_shard(running, store)
        else:
            running.until("filling")
            time.sleep(chance.uniform(0, 0.3))
        sent = time.monotonic()
        ended = stop(running, signals, chance)
        before, _ = lab.rows_on_disk(store), log.take(data)
        if ended.code == 0:  # it was done before the signal came
            late += 1
            lab.check(store, data)
            continue
        stopped += 1
        slowest = max(slowest, time.monotonic() - sent)
        check_stopped(ended, signals)
        kept += sum(before.values())
        if said := re.search(r"(\d+) of 40 pictures are kept in .*run the same", ended.err):
            assert sum(before.values()) == int(said[1])
        elif ended.err == AT_ONCE:
            at_once += 1
        elif "all that was computed before is kept" in ended.err:
            assert not before
        else:  # it had nothing more to keep
            assert ended.err == "headstart: stopped\n"
            lab.check(store, data)
        again = forge.extract(data, store, log=str(log.path)).wait()
        assert again.code == 0, again
        computed = log.take(data)
        assert len(computed) == 40 - len(before)
        lab.check(store, data)
        lab.check_clean(store)
    assert late < 2 * count + 5
    assert kept >= 4
    if count > 2:
        assert (at_once > 0) == (signals == TWO)
    figures(
        f"{stopped} stopped, slowest end {slowest:.2f} s, {at_once} at once, "
        f"{late} were done before"
    )


@dataclass
class Verb:
    """A command to stop, and how long it takes when nobody does."""

    forge: lab.Forge
    words: tuple[str | Path, ...]
    seconds: float = 0.0

    def start(self) -> lab.Running:
        """Start it, until it listens to signals."""
        running = self.forge.start(*self.words, "--quiet")
        running.until("listening")
        return running

    def measure(self) -> None:
        """Let it end by itself."""
        begun = time.monotonic()
        ended = self.start().wait()
        assert ended.code == 0, ended
        self.seconds = time.monotonic() - begun


@share("signals")
@pytest.mark.parametrize("name", ["verify", "pack", "compare", "demo"])
def test_stopped_commands_end(
    count: int,
    name: str,
    forge: lab.Forge,
    heads_forge: lab.Forge,
    chance: random.Random,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """So do the other commands that take time, by one signal or two; the store is untouched."""
    data, store, one = tmp_path / "data", tmp_path / "store", tmp_path / "one.h5"
    demo = tmp_path / "demo"
    if name == "demo":  # half a minute if nobody stops it
        count = max(1, count // 5)
    else:
        fakes.draw_classes(data, per_class=50)
        words = ("extract", data, "-o", store, "--size", "32", "--quiet")
        assert forge.start(*words, big=True).wait().code == 0
    verb = {
        "verify": Verb(forge, ("verify", store)),
        "pack": Verb(forge, ("pack", store, "-o", one)),
        "compare": Verb(heads_forge, ("compare", store, "--heads", "logreg,svm")),
        "demo": Verb(heads_forge, ("demo", "-o", demo), seconds=25.0 if count > 2 else 2.0),
    }[name]
    if name != "demo":
        verb.measure()
    untouched = lab.snapshot(store / "shards")
    ends: Counter[str] = Counter()
    slowest = 0.0
    while ends.total() - ends["done before"] < count:
        one.unlink(missing_ok=True)
        shutil.rmtree(store / "derived", ignore_errors=True)
        signals = chance.choice([ONE_SIGINT, ONE_SIGTERM, TWO])
        running = verb.start()
        time.sleep(chance.uniform(0, verb.seconds))
        sent = time.monotonic()
        ended = stop(running, signals, chance)
        if ended.code == 0:
            ends["done before"] += 1
            verb.seconds *= 0.8
            assert ended.err == ""
            continue
        slowest = max(slowest, time.monotonic() - sent)
        check_stopped(ended, signals)
        ends["at once" if ended.err == AT_ONCE else "in order"] += 1
        assert lab.snapshot(store / "shards") == untouched
        assert not one.exists() or ended.err == "headstart: stopped\n"
        left = [path for path in lab.temporaries(tmp_path) if f"-{running.pid}-" in path.name]
        assert left == [] or ended.err == AT_ONCE
    assert ends["done before"] < count + 10
    if name == "pack":
        verb.measure()
        assert len(Store.open(one)) == 100
        assert lab.temporaries(tmp_path) == []
    if (demo / "pictures.features" / "features.h5").exists():
        assert verify(demo / "pictures.features").sound
    figures(f"{dict(ends)}, slowest end {slowest:.2f} s")


LISTENING = """
import os, signal, sys
from headstart import __main__ as program
def listens(number, handler, real=signal.signal):
    real(number, handler)
    if number == signal.SIGTERM:
        signal.signal = real
        os.write(int(os.environ["LISTENING"]), b".")
signal.signal = listens
sys.exit(program.main())
"""


@share("signals")
def test_early_interrupts_are_one_line(
    count: int,
    chance: random.Random,
    data: Path,
    tmp_path: Path,
    figures: Callable[[str], None],
) -> None:
    """From the moment a real process listens, while it imports: one line, exit code 1.

    An import that is broken off may raise another error, or crash as the interpreter ends.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    late, slowest = 0, 0.0
    for number in range(count):
        store = tmp_path / f"store{number}"
        words = ["extract", str(data), "-o", str(store), "--weights", "random", "--quiet"]
        ours, theirs = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", LISTENING, *words],
            env=environment | {"LISTENING": str(theirs)},
            pass_fds=[theirs],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)
        assert select.select([ours], [], [], 30)[0]
        assert os.read(ours, 1) == b"."
        os.close(ours)
        time.sleep(chance.choice([0.05, 0.5, 3.0]) * chance.random())
        sent = time.monotonic()
        signals = chance.choice([ONE_SIGINT, ONE_SIGTERM, TWO])
        for one in signals:
            process.send_signal(one)
            time.sleep(chance.uniform(0, 0.05) if len(signals) > 1 else 0)
        _, error = process.communicate(timeout=10)
        slowest = max(slowest, time.monotonic() - sent)
        late += process.returncode == 0
        assert process.returncode == 0 or STOPPED.fullmatch(error), (process.returncode, error)
        assert process.returncode in {0, 1}, error
    assert late <= count / 2
    figures(f"{count - late} stopped while they started, slowest end {slowest:.2f} s")
