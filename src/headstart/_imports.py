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
        """Let no other finder look for it."""
        del path, target
        if name == _UNUSED:
            raise ModuleNotFoundError(f"{name} is passed over here", name=name)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import heads in the time that they need themselves.

    scikit-learn imports pandas where it is installed, and pandas pyarrow, though nothing of them is
    used until somebody has a table. For a process of our own: what is imported here takes pandas
    for missing, whoever imports it later finds it. Keras, if it is imported, has it all the same.

    Examples
    --------
    >>> with quick_imports():
    ...     import headstart.heads
    """
    finder = _Without()
    try:
        sys.meta_path.insert(0, finder)
        with uncollected():
            yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let nobody look for garbage among half a million objects while they are being imported.

    Python would look through all of them again and again, for a fifth of the import's time. They
    end in the oldest generation, where they would have come to be.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()
