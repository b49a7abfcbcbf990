"""Work in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import generators
import pytest

from headstart._child import in_child
from headstart.errors import DataError, HeadstartError


def test_a_process_of_its_own_hands_over_values_and_errors() -> None:
    """Values come as they are there; errors arrive typed; a death is told."""
    assert list(in_child(generators.counts, 3)) == [0, 1, 2]
    for generator, error, message in (
        (generators.fails, DataError, "of no use"),
        (generators.breaks, HeadstartError, "^KeyError: 'mixed99'"),
        (generators.leaves, HeadstartError, r"ended by itself \(exit code 3\); what was done"),
        (generators.dies, HeadstartError, r"killed \(exit code -9\), probably for lack of memory"),
    ):
        values = in_child(generator, 1)
        assert next(values) == 1
        with pytest.raises(error, match=message):
            next(values)


def test_an_unexpected_error_tells_where_it_came_from() -> None:
    """The traceback of the process comes as a note, for --debug to show."""
    with pytest.raises(HeadstartError) as caught:
        list(in_child(generators.breaks, 1))
    assert "in breaks" in "".join(caught.value.__notes__)


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    """A new process runs such a script again, and cannot start."""
    script = tmp_path / "script.py"
    script.write_text(
        "import generators\n"
        "from headstart._child import in_child\n"
        "print(list(in_child(generators.counts, 3)))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(generators.__file__).parent)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'must do so under `if __name__ == "__main__":`' in done.stderr
