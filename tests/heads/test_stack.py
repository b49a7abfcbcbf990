"""Networks side by side: in groups, in batches, each as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart._keras import import_keras

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
]


@pytest.fixture(scope="module")
def stack() -> ModuleType:
    """Return the module, which imports Keras."""
    import_keras()
    from headstart.heads import stack

    return stack


def examples(stack: ModuleType, n: int = 150) -> Any:
    """Return n rows of three classes that can be told apart, the last 30 of them held out."""
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 3
    X = (rng.normal(size=(n, 20)) + 2 * np.eye(20)[codes]).astype(np.float32)
    return stack.Examples(X, codes, np.ones(n, np.float32), np.arange(n - 30), np.arange(n - 30, n))


def test_more_networks_than_stand_side_by_side_take_turns(stack: ModuleType) -> None:
    """Each has its own loss, and learns; weights are kept of those that were best so far."""
    networks = [stack.Network(8, 0.2, 1e-2 + seed * 1e-4, seed) for seed in range(10)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 10, 3))
    assert len({result.loss for result in trained}) == 10
    assert max(result.loss for result in trained) < np.log(3) - 0.2
    best = min(trained, key=lambda result: result.loss)
    assert [part.shape for part in best.weights] == [(20, 8), (8,), (8, 3), (3,)]


def test_networks_of_a_pace_stand_side_by_side(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a grid comes: fast ones are not kept in training by slow ones beside them."""
    taken: list[None] = []
    step = stack.step.step

    def counted(*arguments: Any) -> Any:
        taken.append(None)
        return step(*arguments)

    monkeypatch.setattr(stack.step, "step", counted)
    fast_and_slow = [stack.Network(8, 0.1 * n, r, 0) for n in range(4) for r in (1e38, 1e-3)]
    trained = stack.train(examples(stack), fast_and_slow, stack.Schedule(30, 9, 1))
    assert [result.epoch > 1 for result in trained] == [False, True] * 4
    assert len(taken) <= 4 * (9 + 2)  # of four batches


def test_starts_of_the_same_settings_race(stack: ModuleType) -> None:
    """The best after three epochs goes on, of a group of four or fewer; settings never race."""
    starts = [stack.Network(8, 0.2, 3e-3, seed) for seed in range(6)]
    slower = [stack.Network(8, 0.2, 1e-3, seed) for seed in range(2)]
    rows = examples(stack)
    told: list[float] = []
    after_three = stack.train(rows, starts + slower, stack.Schedule(32, 3, 9))
    trained = stack.train(rows, starts + slower, stack.Schedule(32, 12, 9), told.append)
    for heat in ((0, 1, 2), (3, 4, 5), (6, 7)):
        best = min(heat, key=lambda n: after_three[n].loss)
        assert [n for n in heat if trained[n].epoch > 3] == [best]
        assert all(trained[n].loss == after_three[n].loss for n in heat if n != best)
    assert min(trained, key=lambda result: result.loss).weights
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize(("starts", "units"), [(17, [8]), (2, [5, 8, 8, 6, 7, 9])])
def test_any_number_races(stack: ModuleType, starts: int, units: list[int]) -> None:
    """Also in several groups of leaders, and of several sizes; what was best has its weights."""
    networks = [stack.Network(size, 0.2, 3e-3, n) for size in units for n in range(starts)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 6, 9))
    assert sum(result.epoch > 3 for result in trained) == 5
    best = min(range(len(networks)), key=lambda n: trained[n].loss)
    assert trained[best].weights[0].shape == (20, networks[best].units)


def test_who_is_finished_in_a_heat_does_not_go_on(stack: ModuleType) -> None:
    """With a patience of one epoch, those that go on have taken as many steps as each other."""
    networks = [stack.Network(8, 0.0, rate, seed) for rate in (1e38, 1e-2) for seed in range(2)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 8, 1))
    assert all(result.epoch <= 1 for result in trained[:2])
    assert max(result.epoch for result in trained[2:]) > 3


@pytest.mark.parametrize("units", [(7, 7), (5, 8)])
def test_who_goes_on_goes_on_from_where_it_was(stack: ModuleType, units: tuple[int, int]) -> None:
    """In another place, the next step is the one it would have taken where it was."""
    networks = [stack.Network(size, 0.0, 1e-2, size) for size in units]
    rows = examples(stack)
    X = stack._with_ones(rows.X)
    on_device = stack.ops.cast(X, stack._dtype())
    sizes = stack.Sizes(rows.X.shape[1], X.shape[1], 3)
    first = stack.Stack(networks, 2, sizes)
    before, after = (list(next(stack._batches(rows, 40, first.units, (0, n)))) for n in (1, 2))
    for batch in before:
        first.state = stack.step.step(first.state, on_device, batch, first.places)
    begun = [first.begun(h) for h in (1, 0)]
    assert begun[0].steps == len(before)
    second = stack.Stack(networks[::-1], 2, sizes, begun)
    for batch in after:
        for each in (first, second):
            each.state = stack.step.step(each.state, on_device, batch, each.places)
    for h in (0, 1):
        for old, new in zip(first.begun(h).weights, second.begun(1 - h).weights, strict=True):
            for there, here in zip(old, new, strict=True):
                np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)


def test_a_step_is_traced_once_for_numbers_of_rows_that_are_nearly_equal(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds of a comparison differ by a row or two: their training waits for no compiler."""
    traced: list[None] = []
    between = stack.step._between

    def counted(*arguments: Any) -> Any:
        traced.append(None)
        return between(*arguments)

    monkeypatch.setattr(stack.step, "_between", counted)
    for n in (1008, 1009, 1007):  # as of 1,261 in five folds; batches of 140 and 139 rows
        stack.train(examples(stack, n), [stack.Network(7, 0.0, 1e-3, 0)], stack.Schedule(140, 1, 1))
    assert len(traced) == 1


def test_batches_hold_every_row_once_and_weigh_it(stack: ModuleType) -> None:
    """Rows that fill up the last batch do not count; each epoch has an order of its own."""
    rows = examples(stack)
    epochs = stack._batches(rows, 50, 4, seed=(3, 1))
    orders = []
    for _ in range(2):
        batches = list(next(epochs))
        assert {batch.numbers.shape for batch in batches} == {(60,)}
        numbers = np.concatenate([batch.numbers for batch in batches])
        weight = np.concatenate([batch.weight for batch in batches])
        assert sorted(numbers[weight > 0]) == rows.chosen.tolist()
        assert np.allclose(weight[weight > 0], 1 / 60)
        assert all((batch.codes == rows.codes[batch.numbers]).all() for batch in batches)
        orders.append(numbers.tolist())
    assert orders[0] != orders[1]


def test_what_fills_up_the_rows_is_zero(stack: ModuleType) -> None:
    """Behind the features is the one of the biases; the rest tells the network nothing."""
    X = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    filled = stack._with_ones(X)
    assert filled.shape == (64, 32)
    assert (filled[:5, :20] == X).all()
    assert (filled[:5, 20] == 1).all()
    assert not filled[5:].any()
    assert not filled[:, 21:].any()
