"""The program: ``headstart``, and ``python -m headstart``."""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Run the command line; while that is being loaded, an interrupt ends it without ado."""
    for one in _SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _stop)
    from headstart import cli

    code = cli.main()
    gc.freeze()  # what is left goes with the process: to look for garbage in it took 0.13 s
    return code


def _stop(*_: object) -> NoReturn:
    """Nothing has begun that could be ended in order."""
    os.write(2, b"headstart: stopped\n")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
