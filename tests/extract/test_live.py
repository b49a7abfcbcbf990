"""Features of pictures without a store: every picture once, in order, or why it is of no use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fakes
from headstart.errors import DataError
from headstart.extract.live import live_features

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 8


def base(batch_size: int, *, at_once: int = 1, per_core: bool = False) -> Any:
    made = fakes.FakeBase(
        fakes.fake_find_weights("imagenet"), size=SIZE, layers=["mixed0"], batch_size=batch_size
    )
    made.at_once, made.per_core = at_once, per_core
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    return [fakes.draw(folder / f"{n}.png", seed=n) for n in range(12)]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    wanted=st.lists(st.one_of(st.none(), st.integers(0, 11)), max_size=30),
    batch_size=st.integers(1, 5),
    at_once=st.integers(1, 3),
    per_core=st.booleans(),
)
def test_each_picture_has_its_features_or_a_reason_in_order(
    files: list[Path],
    tmp_path: Path,
    wanted: list[int | None],
    batch_size: int,
    at_once: int,
    per_core: bool,
) -> None:
    """What a batch comes with is of pictures before its last: all in order, batch after batch."""
    mine = base(batch_size, at_once=at_once, per_core=per_core)
    gone = tmp_path / "gone.png"
    pictures = [gone if number is None else files[number] for number in wanted]
    passed = list[int]()
    for positions, features, unusable in live_features(pictures, mine, size=SIZE, workers=2):
        passed += sorted([*positions, *unusable])
        assert len(positions) <= batch_size
        assert all(wanted[position] is None for position in unusable)
        for position, row in zip(positions, features.get("mixed0", ()), strict=True):
            expected = fakes.features_of(pictures[position], "mixed0", size=SIZE)
            np.testing.assert_array_equal(row.astype(np.float16), expected)
    assert passed == list(range(len(wanted)))


@pytest.mark.parametrize("per_core", [False, True])
def test_what_is_no_picture_ends_it(files: list[Path], per_core: bool) -> None:
    """What was computed before comes first; and no thread is left behind."""
    wrong, found = np.zeros((8, 8), np.uint8), list[int]()
    mine = base(2, at_once=3, per_core=per_core)

    def take() -> None:
        for positions, *_ in live_features([*files[:9], wrong], mine, size=SIZE, workers=3):
            found.extend(positions)

    with pytest.raises(DataError, match=r"\(8, 8\)"):
        take()
    assert found == list(range(2 * mine.calls))
    assert len(found) >= 2
    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "base"))]


def test_no_picture_loads_nothing(tmp_path: Path) -> None:
    """A base is not asked how many batches it takes, for which it may need a framework."""

    class Shy(fakes.FakeBase):
        at_once = property(lambda _: pytest.fail("asked"), lambda *_: None)

    shy: Any = Shy(fakes.fake_find_weights("imagenet"), size=SIZE, layers=["mixed0"])
    ((positions, features, unusable),) = live_features([tmp_path], shy, size=SIZE, workers=2)
    assert (positions, features, list(unusable)) == ([], {}, [0])


@pytest.mark.parametrize("per_core", [False, True])
def test_leaving_early_leaves_no_thread(files: list[Path], per_core: bool) -> None:
    """The rest is not computed."""
    mine = base(2, per_core=per_core)
    stream = live_features(files, mine, size=SIZE, workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert mine.calls < 6
    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "base"))]
