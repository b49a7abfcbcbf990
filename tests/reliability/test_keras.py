"""Once with the real base: killed while it computes, and resumed to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fakes
from headstart.cache import Store
from reliability import lab

pytestmark = [pytest.mark.campaign, pytest.mark.tensorflow, pytest.mark.timeout(1800)]


def command(data: Path, store: Path) -> list[str]:
    """Return a real command with random weights."""
    words = ["extract", str(data), "-o", str(store), "--weights", "random", "--size", "75"]
    words += ["--engine", "keras", "--precision", "float32", "--quiet"]
    return [sys.executable, "-m", "headstart", *words]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_real_base_resumes_to_the_same_bits(number: signal.Signals, tmp_path: Path) -> None:
    """Rows of a killed and resumed run equal those of an uninterrupted one, bit for bit."""
    data = fakes.draw_classes(tmp_path / "data", per_class=1000)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    store, whole = tmp_path / "store", tmp_path / "whole"
    process = subprocess.Popen(command(data, store), env=environment)
    deadline = time.monotonic() + 120
    while not list((store / "shards").glob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == (-9 if number == signal.SIGKILL else 1)
    committed = lab.rows_on_disk(store)
    assert 0 < len(committed) < 2000, "the process was not in the middle of its run"
    for folder in (store, whole):
        subprocess.run(command(data, folder), env=environment, check=True)
    assert committed.keys() <= lab.rows_on_disk(store).keys()
    resumed, straight = Store.open(store), Store.open(whole)
    assert resumed.paths() == straight.paths()
    same = resumed.features(dtype="float16") == straight.features(dtype="float16")
    assert same.all()
    lab.check_clean(store)
