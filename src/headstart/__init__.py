"""Headstart: run the frozen base once, iterate on heads in seconds.

Examples
--------
>>> import headstart as hs
>>> store = hs.extract("pets/", "pets.features", layer="mixed7")     # doctest: +SKIP
>>> X, y = store.features("mixed7", split="train"), store.labels(split="train")  # doctest: +SKIP
>>> print(hs.compare(store, heads=["logreg", "svm", "dense"]))       # doctest: +SKIP
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # that of typing takes longer to import than all the rest here
if TYPE_CHECKING:
    from typing import Any

    from headstart.cache import Spec, Store, pack, verify
    from headstart.errors import HeadstartError
    from headstart.extract import extract
    from headstart.heads import Comparison, compare
    from headstart.heads.curve import learning_curve
    from headstart.heads.export import export
    from headstart.heads.model import Model
    from headstart.heads.training import train
    from headstart.heads.transformer import InceptionFeatures
    from headstart.report import write_report

__all__ = [
    "Comparison",
    "HeadstartError",
    "InceptionFeatures",
    "Model",
    "Spec",
    "Store",
    "compare",
    "export",
    "extract",
    "learning_curve",
    "pack",
    "train",
    "verify",
    "write_report",
]

_HOME = {
    "Comparison": "headstart.heads",
    "HeadstartError": "headstart.errors",
    "InceptionFeatures": "headstart.heads.transformer",
    "Model": "headstart.heads.model",
    "Spec": "headstart.cache",
    "Store": "headstart.cache",
    "compare": "headstart.heads",
    "export": "headstart.heads.export",
    "extract": "headstart.extract",
    "learning_curve": "headstart.heads.curve",
    "pack": "headstart.cache",
    "train": "headstart.heads.training",
    "verify": "headstart.cache",
    "write_report": "headstart.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import headstart`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    if home.__name__ == f"{__name__}.{name}":  # `extract`, a package that can be called
        return home
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
