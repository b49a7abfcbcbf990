"""What a command imports before it begins: a fifth faster without what nothing uses."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_UNUSED = "pandas"


class _Without:
    """Says of a module that it is not there."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        del path, target
        if name == _UNUSED:
            raise ModuleNotFoundError(f"{name} is passed over here", name=name)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import heads in the time that they need themselves.

    scikit-learn imports pandas where it is installed, and pandas pyarrow, though nothing of them is
    used until somebody has a table; and Python looks for garbage again and again while modules make
    objects that stay. For a process of our own: what is imported here takes pandas for missing,
    whoever imports it later finds it.

    Examples
    --------
    >>> with quick_imports():
    ...     import headstart.heads
    """
    finder, collected = _Without(), gc.isenabled()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if collected:
            gc.enable()
