"""Ctrl-C, a polite kill, and an impatient user: the run ends soon and says what is kept."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reliability import lab
from reliability.counts import share

INT, TERM = signal.SIGINT, signal.SIGTERM


@share("signals")
@pytest.mark.parametrize(
    "signals", [(INT,), (TERM,), (INT, INT)], ids=["SIGINT", "SIGTERM", "two SIGINTs"]
)
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

    A second SIGINT may come when all is said and the interpreter is ending: then that is what
    the process ends by.
    """
    log = lab.Log(tmp_path / "log")
    stopped, slowest, late, kept, by_signal = 0, 0.0, 0, 0, 0
    while stopped < count:
        store = tmp_path / f"store{stopped + late}"
        slow = {"root": str(tmp_path), "slow": 0.003}
        running = forge.extract(data, store, delay=0.02, log=str(log.path), fault=slow)
        running.until("filling")
        time.sleep(chance.uniform(0, 0.3))
        sent = time.monotonic()
        for number in signals:
            running.kill(number)
            time.sleep(chance.uniform(0, 0.1) if len(signals) > 1 else 0)
        ended = running.wait(10.0)
        before, _ = lab.rows_on_disk(store), log.take(data)
        if ended.code == 0:  # it was done before the signal came
            late += 1
            lab.check(store, data)
            continue
        stopped += 1
        slowest = max(slowest, time.monotonic() - sent)
        said_all = re.match(r"headstart: stopped.* kept.*run the same command again.*\n", ended.err)
        assert said_all, ended
        if len(signals) == 1:
            assert (ended.code, said_all[0]) == (1, ended.err), ended
        else:
            assert ended.code in {1, -signal.SIGINT}, ended
            by_signal += ended.code != 1
        if said := re.search(r"(\d+) of \d+ pictures are kept", ended.err):
            assert sum(before.values()) >= int(said[1])
            kept += int(said[1])
        again = forge.extract(data, store, log=str(log.path)).wait()
        assert again.code == 0, again
        computed = log.take(data)
        assert len(computed) == 40 - len(before)
        lab.check(store, data)
        lab.check_clean(store)
    assert late < 2 * count + 5
    assert kept > 0
    figures(
        f"{stopped} stopped, slowest end {slowest:.2f} s, {late} were done before, "
        f"{by_signal} ended by a second signal after the message"
    )
