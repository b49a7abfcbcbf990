"""Parts of an extraction: by content, in any order and at once, and together one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fakes
from headstart.cache import Store, verify
from headstart.errors import DataError, SpecMismatchError, StoreNotFoundError
from headstart.extract import Part, Settings, Speed, fill_part, fill_store

SIZE = 75
SPEED = Speed(batch_size=8, workers=2)


def parts(of: int) -> list[Part]:
    return [Part(number, of) for number in range(1, of + 1)]


@given(st.binary(min_size=32, max_size=32), st.integers(1, 999))
def test_a_picture_is_in_exactly_one_part(digest: bytes, of: int) -> None:
    """Whatever its bytes, whatever the number of parts."""
    assert sum(part.has(digest.hex().encode()) for part in parts(of)) == 1


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4"])
def test_what_names_no_part_is_refused(text: str) -> None:
    """The message says what was given and shows what is expected."""
    with pytest.raises(DataError, match=r"--part .*such as 3/16"):
        Part.parse(text)
    assert Part.parse("3/16") == Part(3, 16)


@pytest.mark.usefixtures("fake_base")
class TestFilling:
    def test_parts_make_the_store_of_one_run(self, pets: Path, tmp_path: Path) -> None:
        """In any order; each computes its own pictures once, and the last run only publishes."""
        shutil.copy(min(pets.rglob("*.png")), max(pets.iterdir()) / "copy.png")
        whole, _ = fill_store(pets, tmp_path / "whole", Settings(size=SIZE, views=1), speed=SPEED)
        settings, store = Settings(size=SIZE, views=1), tmp_path / "store"
        done = [fill_part(pets, store, settings, part, speed=SPEED) for part in parts(4)[::-1]]
        assert all(one.computed == one.rows > 0 for one in done)
        with pytest.raises(StoreNotFoundError):
            Store.open(store)
        filled, summary = fill_store(pets, store, Settings(), speed=SPEED)
        assert summary.computed == 0
        assert sum(one.computed for one in done) == summary.reused
        assert filled.paths() == whole.paths()
        assert filled.spec == whole.spec
        assert filled.labels().tolist() == whole.labels().tolist()
        np.testing.assert_array_equal(filled.features("mixed7"), whole.features("mixed7"))
        assert verify(store).sound

    def test_a_part_that_failed_is_computed_at_the_end(self, pets: Path, tmp_path: Path) -> None:
        """The run that publishes computes what no part has."""
        store, settings = tmp_path / "store", Settings(size=SIZE)
        done = [fill_part(pets, store, settings, part, speed=SPEED) for part in parts(3)[1:]]
        _, summary = fill_store(pets, store, settings, speed=SPEED)
        assert summary.reused == sum(one.computed for one in done)
        assert summary.computed == summary.rows - summary.reused > 0

    def test_a_part_done_costs_nothing_and_is_refused_another_spec(
        self, pets: Path, tmp_path: Path
    ) -> None:
        """Parts that are not published yet hold the store's spec."""
        store = tmp_path / "store"
        first = fill_part(pets, store, Settings(size=SIZE), Part(1, 2), speed=SPEED)
        again = fill_part(pets, store, Settings(), Part(1, 2), speed=SPEED)
        assert (again.rows, again.computed) == (first.rows, 0)
        with pytest.raises(SpecMismatchError, match="size"):
            fill_part(pets, store, Settings(size=SIZE + 1), Part(2, 2), speed=SPEED)

    def test_what_cannot_be_used_is_told_by_its_part_and_noted_at_the_end(
        self, pets: Path, tmp_path: Path
    ) -> None:
        """Nothing of it is lost between the parts and the publication."""
        bad = min(pets.iterdir()) / "bad.png"
        bad.write_bytes(b"\x89PNG, but not really")
        store = tmp_path / "store"
        done = [fill_part(pets, store, Settings(size=SIZE), p, speed=SPEED) for p in parts(2)]
        assert sorted(len(one.left_out) for one in done) == [0, 1]
        _, summary = fill_store(pets, store, Settings(), speed=SPEED)
        assert [one.path for one in summary.left_out] == [str(bad.relative_to(pets))]
        assert sum(one.rows for one in done) == summary.rows


def test_the_stand_in_is_a_function_of_the_picture() -> None:
    """Else these comparisons would show nothing."""
    base = fakes.FakeBase(fakes.fake_find_weights("x"), size=4, layers=("mixed7",))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    one, other = base(pixels)["mixed7"]
    assert not np.array_equal(one, other)
