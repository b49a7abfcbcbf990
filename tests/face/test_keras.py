"""Keras is imported without its noise, and what a user does meanwhile is the user's own."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from headstart import _keras

if TYPE_CHECKING:
    import pytest


def test_garbage_is_collected_as_ever_once_keras_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is young then stays young: nobody imports half a million objects any more."""
    monkeypatch.setitem(sys.modules, "keras", ModuleType("keras"))
    monkeypatch.setattr(_keras, "uncollected", lambda: 1 / 0)
    assert _keras.import_keras() is sys.modules["keras"]
