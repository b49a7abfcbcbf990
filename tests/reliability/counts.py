"""How much of each part is tried: a share in the default suite, all of it in the campaign."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark.structures import MarkDecorator

#: Part to (default suite, ``pytest -m campaign``).
COUNTS = {
    "kills": (9, 200),
    "crash points": (31, 1),  # every n-th file operation
    "failing operations": (97, 1),  # every n-th combination of operation, error and duration
    "signals": (2, 30),
    "flips": (150, 10_000),
    "repairs": (5, 100),
    "cuts": (4, 1),  # every n-th multiple of 4 KiB
    "rounds": (4, 60),
    "opens": (150, 5_000),
    "out of memory": (7, 28),  # messages; and each at four batch sizes
    "pictures": (1_500, 5_000),
    "mutants": (300, 20_000),
}


def share(part: str) -> MarkDecorator:
    """Run a test with both counts, the larger one in the campaign alone."""
    few, many = COUNTS[part]
    marks = [pytest.mark.campaign, pytest.mark.timeout(1800)]
    cases = [pytest.param(few, id="share"), pytest.param(many, id="campaign", marks=marks)]
    return pytest.mark.parametrize("count", cases)


def new_seed(*, campaign: bool) -> int:
    """Return HEADSTART_SEED; else always the same in the default suite, a new one otherwise."""
    given = os.environ.get("HEADSTART_SEED")
    if given is not None:
        return int(given)
    return secrets.randbelow(1 << 31) if campaign else 1
