"""Commands import what they use, and leave the process as it was."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from headstart._imports import quick_imports

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


@pytest.mark.parametrize("collected", [True, False])
def test_the_process_is_left_as_it_was(*, collected: bool) -> None:
    """Also when an import fails: finders are those of before, and garbage is collected or not."""
    finders, before = list(sys.meta_path), gc.isenabled()
    try:
        (gc.enable if collected else gc.disable)()
        with pytest.raises(ImportError), quick_imports():
            import_module("headstart.nowhere")
        assert gc.isenabled() is collected
    finally:
        (gc.enable if before else gc.disable)()
    assert sys.meta_path == finders
