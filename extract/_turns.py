"""Many side by side, or one alone."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """Lets threads work beside each other, until one asks to be alone.

    From then on nobody begins, and when those that work are done, it has its turn.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._beside, self._alone = 0, False

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Work beside others, as soon as nobody wants to be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work with nobody beside; not from within either."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._beside)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
