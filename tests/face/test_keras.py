"""Keras is imported without its noise, and leaves the interpreter as it was."""

from __future__ import annotations

import contextlib
import gc

import pytest

from headstart import _keras


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_garbage_goes_on_as_it_was(enabled: bool) -> None:
    """It rests while a large library is imported, also if that fails; nothing stays frozen."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with contextlib.suppress(ImportError), _keras._uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0
    finally:
        (gc.enable if before else gc.disable)()


def test_what_a_user_has_frozen_stays_so() -> None:
    """As before a fork."""
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with _keras._uncollected():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()
