"""Work in a process of its own."""

from __future__ import annotations

import generators
import pytest

from headstart._child import in_child
from headstart.errors import DataError, HeadstartError


def test_a_process_of_its_own_hands_over_values_and_errors() -> None:
    """Values come as they are there; errors arrive typed; a death is told."""
    assert list(in_child(generators.counts, 3)) == [0, 1, 2]
    for generator, error, message in (
        (generators.fails, DataError, "of no use"),
        (generators.dies, HeadstartError, "exit code -9"),
    ):
        values = in_child(generator, 1)
        assert next(values) == 1
        with pytest.raises(error, match=message):
            next(values)
