"""Progress bars: one a stage, silent where nobody watches."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

_PATIENCE = 1.0  # seconds before a bar appears
_UNITS = {
    "reading": "files",
    "decoding": "images",
    "extracting": "images",
    "verifying": "B",
    "packing": "rows",
}


class Bars:
    """A progress callback that draws: called with stage, done, total.

    Bars appear for stages that take over a second, on a terminal only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._stage = ""
        self._begun = 0.0
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell that `done` of `total` of a stage are done; what is in brackets may change."""
        if not self._shown:
            return
        name = stage.partition(" (")[0]
        if name != self._stage:
            self._close()
            self._stage, self._begun = name, time.monotonic()
        if self._bar is None and time.monotonic() - self._begun > _PATIENCE:
            self._bar = self._open(name, total)
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_description(stage, refresh=False)
            self._bar.update(done - self._bar.n)

    def _open(self, stage: str, total: int) -> Any:
        from tqdm import tqdm  # takes longer than all else that runs before the first answer

        unit = _UNITS.get(stage, "steps")
        bar = tqdm(
            total=total,
            desc=stage,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            leave=False,
            dynamic_ncols=True,
        )
        bar.start_t -= time.monotonic() - self._begun
        return bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal clean."""
        self._close()
