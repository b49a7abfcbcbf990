"""A disk that refuses, or a power cut, at the N-th file operation of a process."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Fault:
    """Counts the operations on files below `root` that change the disk; strikes at one.

    Parameters
    ----------
    root
        Only files in here count.
    at
        The operation to strike at, from 1.
    what
        An errno: the operation fails; ``"before"``: the process is killed before it;
        ``"after"``: killed when it is done (a write: when half of it is done).
    lasting
        Whether all later operations fail too.
    struck
        Called with a word for the operation the first time.
    slow
        Seconds that every fsync takes.
    """

    def __init__(
        self,
        root: str,
        *,
        struck: Callable[[str], None],
        at: int = 0,
        what: int | str = 0,
        lasting: bool = False,
        slow: float = 0.0,
    ) -> None:
        self._root, self._at, self._what, self._lasting = os.path.realpath(root), at, what, lasting
        self._struck, self._slow = struck, slow
        self.count = 0

    def install(self) -> None:
        """Put the counted operations in the place of the real ones, for good."""
        for name in ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir"):
            self._wrap(os, name)
        real_fsync, real_open = os.fsync, io.open

        def fsync(descriptor: Any) -> None:
            time.sleep(self._slow)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.strike("fsync", path, lambda: real_fsync(descriptor))

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not self._below(file):
                return real_open(file, mode, *args, **options)
            self.strike("open", file, lambda: None)
            return _File(real_open(file, mode, *args, **options), self, os.fspath(file))

        vars(os)["fsync"] = fsync
        io.open = opened  # type: ignore[assignment,unused-ignore]
        builtins.open = opened

    def _wrap(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(path: Any, *args: Any, **options: Any) -> Any:
            return self.strike(name, path, lambda: real(path, *args, **options))

        setattr(module, name, counted)

    def _below(self, path: Any) -> bool:
        return os.path.realpath(Path(path).parent).startswith(self._root)

    def strike(self, name: str, path: Any, do: Callable[[], Any], half: Any = None) -> Any:
        """Do the operation, or what shall happen instead."""
        if not self._below(path):
            return do()
        self.count += 1
        if not (self.count == self._at or (self._lasting and self.count > self._at > 0)):
            return do()
        if self.count == self._at:
            self._struck(f"{name} {Path(os.fspath(path)).name.split('-')[0]}")
        if self._what == "after":
            with contextlib.suppress(OSError):
                (half or do)()
        elif half is not None and isinstance(self._what, int):
            half()
        if isinstance(self._what, str):
            os.kill(os.getpid(), signal.SIGKILL)
        named = () if name in ("write", "fsync") else (os.fspath(path),)  # as Python does
        raise OSError(self._what, os.strerror(int(self._what)), *named)


class _File:
    """A file open for writing, whose writes count."""

    def __init__(self, file: Any, fault: Fault, path: str) -> None:
        self._file, self._fault, self._path = file, fault, path

    def write(self, data: Any) -> Any:
        content = data if isinstance(data, str) else bytes(data)

        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        return self._fault.strike("write", self._path, lambda: self._file.write(content), half)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
