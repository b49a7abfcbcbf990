"""Interrupts: one that ends the work in order, one that ends the process, none that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import headstart
from headstart import cli
from headstart._interrupts import Interrupts

#: A program whose one command is `work`; it tells when it begins, and ends by itself in 20 s.
PROGRAM = """
import os, signal, sys, time, weakref
from headstart import cli
stop = lambda: os.kill(os.getpid(), signal.SIGINT)
class Kept:
    pass
def work():
    {work}
    time.sleep(20)
    return 0
cli._parse = lambda _: {{"run": lambda **_: work(), "debug": False, "json": None}}
sys.exit(cli.main())
"""
AT_ONCE = "headstart: stopped at once; what was finished is kept"


def ended(work: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the program; it must not wait for the end of its sleep."""
    program = PROGRAM.format(work=work.replace("\n", "\n    "))
    words = [*before, sys.executable, "-c", program]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=15)


@pytest.mark.parametrize(
    "work",
    [
        "stop()",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "try: stop()\nexcept KeyboardInterrupt: raise ImportError('half of it')",
        "kept = Kept()\nstays = weakref.ref(kept, lambda _: stop())\ndel kept",
        "class Last:\n    def __del__(self): stop()\nLast()",
    ],
    ids=["SIGINT", "SIGTERM", "an import makes another error of it", "in a callback", "finalizer"],
)
def test_an_interrupt_is_one_line(work: str) -> None:
    """Wherever it falls, also where Python could only print it and go on."""
    done = ended(work)
    assert (done.returncode, done.stderr) == (1, "headstart: stopped\n")


def test_a_second_interrupt_ends_at_once() -> None:
    """It is not raised: the clean-up would be broken off and the process not end."""
    done = ended(
        "try: stop()\nexcept KeyboardInterrupt: stop()\nprint('not here', file=sys.stderr)"
    )
    assert done.returncode == 1
    assert done.stderr.startswith(AT_ONCE)
    assert done.stderr.count("\n") == 1


def test_interrupts_do_not_break_the_end() -> None:
    """When all is said, signals change neither the exit code nor what was said."""
    done = ended("import atexit; atexit.register(stop); raise OSError('the disk')")
    assert (done.returncode, done.stderr) == (1, "headstart: the disk\n")
    done = ended("import atexit; atexit.register(stop); return 0")
    assert (done.returncode, done.stderr) == (0, "")


def test_ignored_signals_stay_ignored() -> None:
    """``nohup`` and background jobs of a script are not interrupted."""
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    done = ended("stop(); return 0", *ignoring)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_lost_errors_are_shown() -> None:
    """What a finalizer raises besides is printed as ever."""
    done = ended("class Last:\n    def __del__(self): 1 / 0\nLast()\nreturn 0")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


def test_called_with_words_it_leaves_signals_alone() -> None:
    """A program that calls `main` keeps its own handlers, and is not ended."""
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["status", "no/such/store"]) == 1
    with pytest.raises(KeyboardInterrupt), Interrupts(program=False) as interrupts:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert interrupts.came
    assert interrupts.leave(1) == 1
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_little_is_imported_before_it_listens() -> None:
    """What runs before `main` cannot answer an interrupt, so it is the least."""
    for module, heavy in {
        "headstart.__main__": {"argparse", "pathlib", "re", "typing", "json"},
        "headstart.cli": {"numpy", "h5py", "tqdm", "logging", "socket", "importlib.metadata"},
    }.items():
        program = f"import sys; before = {{*sys.modules}}; import {module}; print(*sys.modules)"
        program = program.replace("*sys.modules)", "*(sys.modules.keys() - before))")
        words = [sys.executable, "-S", "-c", program]
        path = {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=path)
        assert module in done.stdout.split()
        assert heavy & set(done.stdout.split()) == set()


def test_an_interrupt_while_the_command_line_is_loaded() -> None:
    """Is one line, and so is one of the program that never comes so far."""
    for name in ("SIGINT", "SIGTERM"):
        program = (
            "import os, signal, sys; from headstart import __main__ as program\n"
            "class Stop:\n"
            "    def find_spec(self, *_):\n"
            f"        os.kill(os.getpid(), signal.{name})\n"
            "sys.meta_path.insert(0, Stop())\n"
            "program.main()"
        )
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=15)
        assert (done.returncode, done.stderr) == (1, "headstart: stopped\n")
