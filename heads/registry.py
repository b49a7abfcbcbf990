"""The heads by name: a new one is a class of its own and one line here."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadError

if TYPE_CHECKING:
    from headstart.heads.base import Head

_HEADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logreg": ("logreg", "LogisticHead", {}),
    "svm": ("svm", "SVMHead", {}),
    "svm-rbf": ("svm", "SVMHead", {"kernel": "rbf"}),
    "ridge": ("ridge", "RidgeHead", {}),
    "ncm": ("neighbours", "NearestMeanHead", {}),
    "knn": ("neighbours", "NeighboursHead", {}),
    "dense": ("dense", "DenseHead", {}),
}

#: Names that `make_head` and ``headstart compare --heads`` know.
HEAD_NAMES = tuple(_HEADS)


def make_head(name: str) -> Head:
    """Return a new head by its name.

    Raises
    ------
    HeadError
        If there is no such head; the message names the nearest ones.

    Examples
    --------
    >>> make_head("svm-rbf").kernel
    'rbf'
    """
    if not isinstance(name, str):
        raise HeadError(
            f"expected the name of a head; found a {type(name).__name__}. `compare` takes other "
            "classifiers, too"
        )
    if name not in _HEADS:
        near = difflib.get_close_matches(name, HEAD_NAMES, cutoff=0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise HeadError(f"no head is called {name!r}{hint}; there are {', '.join(HEAD_NAMES)}")
    module, kind, options = _HEADS[name]
    head: Head = getattr(import_module(f"headstart.heads.{module}"), kind)(**options)
    return head


def make_fitting(name: str, *, streamed: bool, max_memory: int | None = None) -> Head:
    """Return a new head by its name: where rows are streamed, one that is trained past memory.

    Parameters
    ----------
    name
        Of the head.
    streamed
        Whether rows do not fit in memory, as `headstart.heads.forms.Forms.streamed` says.
    max_memory
        Bytes that a head past memory may use; half of the machine's by default.

    Raises
    ------
    HeadError
        If there is no such head, or it needs all rows at once.
    """
    return make_streamed(name, max_memory=max_memory) if streamed else make_head(name)


def make_streamed(name: object, *, max_memory: int | None) -> Head:
    """Return a new head that is trained past memory, by the name of the one it stands for.

    Raises
    ------
    HeadError
        If this head needs all rows at once.
    """
    from headstart.heads.stream import STREAMED

    if name not in STREAMED:
        title = name if isinstance(name, str) else type(name).__name__
        raise HeadError(
            f"head {title!r} needs all rows in memory, where they do not fit; those that do not: "
            f"{', '.join(STREAMED)} (ridge of pooled features only). Or use a larger --max-memory"
        )
    kind, options = STREAMED[str(name)]
    return kind(**options, max_memory=max_memory)
