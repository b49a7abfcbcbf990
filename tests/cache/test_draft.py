"""A shard that grows is the shard that is written at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from headstart.cache import Draft, RowId, write_rows
from stores import SPEC, picture_id

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("shape", [(7, 7, 768), (2, 2, 3), (90, 90, 5), (1536,), (3,)])
@pytest.mark.parametrize("rows", [1, 5, 12])
def test_rows_that_come_one_after_another(
    tmp_path: Path, shape: tuple[int, ...], rows: int
) -> None:
    """The same bytes under the same name, whether a chunk holds one row, several or a part."""
    ids: list[RowId] = [(picture_id(str(n)), 0) for n in range(rows)]
    features = np.maximum(np.random.default_rng(0).normal(size=(rows, *shape)), 0)
    features = features.astype(np.float32)
    draft = Draft(SPEC.dtype, room=20)
    for first in range(0, rows, 4):
        part = slice(first, first + 4)
        assert draft.add(ids[part], features[part]) == len(ids[part])
    assert draft.rows == ids
    grown = write_rows(tmp_path, SPEC, draft.rows, draft.features, {}, packed=draft.packed)
    once = write_rows(tmp_path, SPEC, ids, features.astype(SPEC.dtype), {})
    assert grown.info == once.info


def test_there_is_room_for_so_many_rows() -> None:
    """What is left over waits for the next shard, and memory is used again."""
    ids: list[RowId] = [(picture_id(str(n)), 0) for n in range(5)]
    features = np.arange(5 * 4, dtype=np.float32).reshape(5, 2, 2)
    draft = Draft("float16", room=3)
    assert draft.add(ids, features) == 3
    assert draft.add(ids[3:], features[3:]) == 0
    assert draft.full
    first = draft.features
    draft.clear()
    assert draft.add(ids[3:], features[3:]) == 2
    np.testing.assert_array_equal(draft.features, features[3:])
    assert np.shares_memory(first, draft.features)


def test_what_is_too_large_is_kept_for_whoever_refuses_it() -> None:
    """An infinity, without a warning."""
    draft = Draft("float16", room=1)
    draft.add([(picture_id("a"), 0)], np.full((1, 2), 1e6, np.float32))
    assert np.isinf(draft.features).all()


def test_the_next_shard_is_packed_anew(tmp_path: Path) -> None:
    """Chunks of one shard never end in another: each is the file its rows make at once."""
    ids: list[RowId] = [(picture_id(str(n)), 0) for n in range(5)]
    features = np.random.default_rng(0).normal(size=(5, 7, 7, 768)).astype(np.float32)
    features[features < 1] = 0
    draft, done = Draft("float16", room=3), 0
    while done < len(ids):
        first = done
        for _ in range(2):  # some rows, then more
            done += draft.add(ids[done : done + 2], features[done : done + 2])
        mine = slice(first, done)
        grown = write_rows(tmp_path, SPEC, draft.rows, draft.features, {}, packed=draft.packed)
        once = write_rows(tmp_path, SPEC, ids[mine], features[mine].astype(np.float16), {})
        assert draft.packed
        assert grown.info == once.info
        draft.clear()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_of_another_number_of_rows_are_refused(dtype: str) -> None:
    """None is left without its own, or given another's."""
    ids: list[RowId] = [(picture_id(str(n)), 0) for n in range(3)]
    for count in (1, 2, 4):
        with pytest.raises(ValueError, match=f"features of {count} rows were given for 3 rows"):
            Draft(dtype, room=8).add(ids, np.ones((count, 2, 2), np.float32))
