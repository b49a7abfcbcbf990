"""Commands import what they use, and leave the process as it was."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from headstart._imports import quick_imports, uncollected

PROGRAM = """
import sys
from headstart._imports import quick_imports
with quick_imports():
    import headstart.heads
print("sklearn" in sys.modules, "pandas" in sys.modules)
import pandas
print(pandas.Series([1, 2]).sum())
"""


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_heads_are_imported_without_pandas_which_is_there_afterwards() -> None:
    """scikit-learn would import pandas; who needs it finds it later."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True False", "3"]


def test_finders_are_those_of_before() -> None:
    """Also when an import fails."""
    finders = list(sys.meta_path)
    with pytest.raises(ImportError), quick_imports():
        import_module("headstart.nowhere")
    assert sys.meta_path == finders


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_garbage_goes_on_as_it_was(enabled: bool) -> None:
    """It rests while a large library is imported, also if that fails; nothing stays frozen."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with contextlib.suppress(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0
    finally:
        (gc.enable if before else gc.disable)()


def test_what_a_user_has_frozen_stays_so() -> None:
    """As before a fork."""
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() > frozen / 2 > 0
    finally:
        gc.unfreeze()
