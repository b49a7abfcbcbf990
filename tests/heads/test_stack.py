"""Networks side by side: in groups, in batches, each as if it were alone."""

from __future__ import annotations

from itertools import chain, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

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


def grid(stack: ModuleType, units: int = 8, starts: int = 1) -> list[Any]:
    """Return networks of four rates and four dropouts, of some starts each."""
    every = product((1e-3, 3e-3, 1e-2, 3e-2), (0.0, 0.1, 0.2, 0.3), range(starts))
    return [stack.Network(units, dropout, rate, seed) for rate, dropout, seed in every]


@pytest.fixture
def alive(stack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return which networks are measured, epoch by epoch, as soon as any are trained."""
    numbers: list[list[int]] = []
    look = stack._Training._look

    def noted(self: Any, epoch: int, states: Any) -> None:
        numbers.append(list(states))
        look(self, epoch, states)

    monkeypatch.setattr(stack._Training, "_look", noted)
    return numbers


def test_more_networks_than_stand_side_by_side_take_turns(stack: ModuleType) -> None:
    """Each has its own loss, and learns; the best of all has weights."""
    networks = [stack.Network(8, 0.2, 1e-2 + seed * 1e-4, seed) for seed in range(10)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 10, 3), race=False)
    assert len({result.loss for result in trained}) == 10
    assert max(result.loss for result in trained) < np.log(3) - 0.2
    best = min(trained, key=lambda result: result.loss)
    assert [part.shape for part in best.weights] == [(20, 8), (8,), (8, 3), (3,)]


def test_without_a_race_four_of_a_size_stand_side_by_side(
    stack: ModuleType, alive: list[list[int]]
) -> None:
    """However many there are, only the last of a size are fewer."""
    networks = [stack.Network(units, 0.1, 1e-3, seed) for units in (8, 5) for seed in range(9)]
    stack.train(examples(stack), networks, stack.Schedule(32, 1, 1), race=False)
    assert list(map(len, alive)) == [4, 4, 1, 4, 4, 1]
    assert all(len({networks[n].units for n in pool}) == 1 for pool in alive)


@pytest.mark.parametrize("race", [True, False])
def test_who_is_finished_takes_no_more_steps(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch, *, race: bool
) -> None:
    """However a grid comes, and whoever stands beside it."""
    taken: list[int] = []
    step = stack.step.step

    def counted(states: Any, *arguments: Any) -> Any:
        taken.append(len(states))
        return step(states, *arguments)

    monkeypatch.setattr(stack.step, "step", counted)
    fast_and_slow = [stack.Network(8, 0.1 * n, r, 0) for n in range(4) for r in (1e38, 1e-3)]
    schedule = stack.Schedule(30, 9, 1)
    trained = stack.train(examples(stack), fast_and_slow, schedule, race=race)
    assert [result.epoch > 1 for result in trained] == [False, True] * 4
    epochs = [min(result.epoch + 1, 9) for result in trained]
    assert sum(taken) <= 4 * sum(epochs)  # of four batches
    assert max(taken) == 4


def test_without_a_race_each_is_trained_to_its_own_end(stack: ModuleType) -> None:
    """All end where they end alone, starts of the same settings too."""
    networks = [*grid(stack)[::3], *grid(stack, units=5, starts=2)[:5]]
    rows, schedule = examples(stack), stack.Schedule(32, 8, 2)
    together = stack.train(rows, networks, schedule, race=False)
    for network, beside in zip(networks, together, strict=True):
        if network.seed == networks[0].seed:
            (alone,) = stack.train(rows, [network], schedule, race=False)
            assert beside.epoch == alone.epoch
            assert beside.loss == pytest.approx(alone.loss, rel=1e-4)
    assert sum(result.epoch > 3 for result in together) > len(networks) / 2


@pytest.mark.parametrize("starts", [1, 2])
def test_who_wins_a_race_ends_where_it_would_without(stack: ModuleType, starts: int) -> None:
    """At most an eighth goes on after six epochs; who is dropped has its loss of until then.

    Batches and draws are everyone's, whoever is left to take them.
    """
    networks, rows = grid(stack, starts=starts), examples(stack)
    schedules = [stack.Schedule(32, epochs, 99) for epochs in (3, 6, 12)]
    three, six, twelve = (stack.train(rows, networks, s, race=False) for s in schedules)
    raced = stack.train(rows, networks, schedules[-1])
    to_the_end = [n for n, result in enumerate(raced) if result.epoch > 6]
    assert 1 <= len(to_the_end) <= len(networks) // 8
    for n, found in enumerate(raced):
        ends = [twelve[n]] if n in to_the_end else [three[n], six[n], twelve[n]]
        assert any(found.loss == pytest.approx(each.loss, rel=1e-5) for each in ends)
    for trained in (twelve, raced):  # whoever was best before has left its weights
        best = min(trained, key=lambda result: result.loss)
        assert [result for result in trained if result.weights] == [best]


def test_starts_of_the_same_settings_race(stack: ModuleType) -> None:
    """Also where there are four networks or fewer."""
    networks = [stack.Network(8, 0.2, rate, seed) for rate in (1e-2, 1e-5) for seed in range(2)]
    rows = examples(stack)
    after_three = stack.train(rows, networks, stack.Schedule(32, 3, 9))
    trained = stack.train(rows, networks, stack.Schedule(32, 12, 9))
    for heat in ((0, 1), (2, 3)):
        (best,) = (n for n in heat if trained[n].epoch > 3)
        (other,) = (n for n in heat if n != best)
        assert trained[other].loss == after_three[other].loss


def test_four_settings_or_fewer_do_not_race(stack: ModuleType) -> None:
    """Each is trained to its own end; a fifth makes all of them race."""
    networks = [stack.Network(8, 0.2, rate, 0) for rate in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)]
    rows, schedule = examples(stack), stack.Schedule(32, 9, 9)
    assert min(result.epoch for result in stack.train(rows, networks[:4], schedule)) > 6
    assert sum(result.epoch > 6 for result in stack.train(rows, networks, schedule)) <= 2


def test_progress_counts_the_epochs_of_all(stack: ModuleType) -> None:
    """Sixteen settings of which four go on, then two, have done most of their work in a few."""
    told: list[float] = []
    stack.train(examples(stack), grid(stack), stack.Schedule(32, 14, 99), told.append)
    networks = [16] * 3 + [4] * 3 + [2] * 8
    assert told == pytest.approx((np.cumsum(networks) / sum(networks)).tolist())


@pytest.mark.parametrize("race", [True, False])
def test_progress_goes_on_from_pool_to_pool(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch, *, race: bool
) -> None:
    """It never falls and ends at 1, also where all of a pool are finished before their epochs."""
    monkeypatch.setattr(stack, "_RACING", 0)
    networks = [stack.Network(8, 0.2, rate, n) for n in range(4) for rate in (1e-3, 1e38)]
    told: list[float] = []
    stack.train(examples(stack), networks, stack.Schedule(32, 5, 2), told.append, race=race)
    assert told == sorted(told)
    assert 0 < told[0] < 0.5 in told
    assert told[-1] == 1


@pytest.mark.parametrize(("starts", "units"), [(17, [8]), (2, [5, 8, 8, 6, 7, 9])])
def test_any_number_races(stack: ModuleType, starts: int, units: list[int]) -> None:
    """Also of several sizes; what was best has its weights."""
    networks = [stack.Network(size, 0.2, 3e-3, n) for size in units for n in range(starts)]
    trained = stack.train(examples(stack), networks, stack.Schedule(32, 8, 9))
    best = min(range(len(networks)), key=lambda n: trained[n].loss)
    assert trained[best].epoch > 6
    assert trained[best].weights[0].shape == (20, networks[best].units)


@pytest.mark.parametrize("finite", [1, 4])
def test_who_has_diverged_does_not_go_on(
    stack: ModuleType, alive: list[list[int]], finite: int
) -> None:
    """It loses against any other, wins no heat and takes no finalist's place."""
    rates = [1e-3] * finite + [1e38] * (8 - finite)
    networks = [stack.Network(8, 0.1 * (n % 4), rate, n) for n, rate in enumerate(rates)]
    stack.train(examples(stack), networks, stack.Schedule(32, 8, 99))
    assert list(map(len, alive)) == [8] * 3 + [1] * 5
    assert alive[-1][0] < finite


def test_networks_past_memory_do_not_wait_for_each_other(
    stack: ModuleType, monkeypatch: pytest.MonkeyPatch, alive: list[list[int]]
) -> None:
    """Where only a few fit in memory, as many race at a time, and no more than that are kept."""
    monkeypatch.setattr(stack, "_RACING", 8 * (16 * 32 + 12 * 3) * 6)
    trained = stack.train(examples(stack), grid(stack), stack.Schedule(32, 4, 9))
    counts = list(map(len, alive))
    assert max(counts) == 6
    assert counts.count(6) == 3  # of pools of six, five and five, until the heat
    assert all(result.epoch for result in trained)


def test_all_weights_of_a_network_take_room(stack: ModuleType) -> None:
    """As many fit as their states have bytes, or fewer: products may be rounded to fewer."""
    rows, network = examples(stack), stack.Network(8, 0.2, 1e-3, 0)
    training = stack._Training(rows, [network], stack.Schedule(32, 1, 1))
    state = training._start(0)
    parts = [*state.inner, state.rounded, *state.outer]
    size = sum(stack.ops.convert_to_numpy(part).nbytes for part in parts)
    rounded = stack.ops.convert_to_numpy(state.rounded)
    assert training.room() == stack._RACING // (size + rounded.size * (4 - rounded.itemsize))


losses = st.lists(st.floats(0, 1e6), min_size=2, max_size=7)


@given(losses)
def test_hope_is_between_nothing_and_the_lowest_loss(stack: ModuleType, curve: list[float]) -> None:
    """One that did not fall in its last epoch hopes for no more than it has had."""
    hope = stack._hoped(curve)
    assert 0 <= hope <= min(curve)
    if curve[-1] >= curve[-2]:
        assert hope == min(curve)


@given(losses, st.sampled_from([np.nan, np.inf]))
def test_who_has_diverged_has_no_hope(stack: ModuleType, curve: list[float], end: float) -> None:
    assert stack._hoped([*curve, end]) == np.inf


@given(st.floats(0.01, 10), st.floats(0.5, 0.99), st.floats(0.5, 0.99))
def test_who_falls_faster_hopes_for_more(
    stack: ModuleType, last: float, one: float, other: float
) -> None:
    """Of two with the same loss the one that is falling faster is ahead."""
    assume(abs(one - other) > 1e-6)
    fast, slow = (stack._hoped([last / share, last]) for share in sorted((one, other)))
    assert fast < slow


def test_hope_looks_eight_epochs_ahead(stack: ModuleType) -> None:
    assert stack._hoped([4.0, 2.0]) == 2 * 0.5**8


@st.composite
def races(draw: Any) -> tuple[list[tuple[float, float, int]], list[list[float]]]:
    """Draw settings, in the order of a pool, and a curve for each."""
    rates, dropouts = st.sampled_from([1e-3, 2e-3, 3e-3]), st.sampled_from([0.1, 0.2])
    settings = sorted(draw(st.sets(st.tuples(rates, dropouts, st.integers(0, 3)), min_size=1)))
    curve = st.lists(st.one_of(st.floats(0.1, 2), st.just(np.nan)), min_size=6, max_size=6)
    return settings, [draw(curve) for _ in settings]


@given(races(), st.integers(1, 8), st.sampled_from(["settings", "starts"]))
def test_the_most_hopeful_always_goes_on(stack: ModuleType, race: Any, epoch: int, of: str) -> None:
    """Nobody is dropped but after three and six epochs, nor by one that hopes for less."""
    (drawn, curves), all_race = race, of == "settings"
    networks = [stack.Network(8, dropout, rate, seed) for rate, dropout, seed in drawn]
    numbers = list(range(len(networks)))
    stay = stack._going_on(epoch, numbers, networks, curves, all_race=all_race)
    hoped = [stack._hoped(curve) for curve in curves]
    hopeful = [n for n in numbers if np.isfinite(hoped[n])] or numbers
    assert stay == sorted(set(stay))
    assert min(hoped[n] for n in stay) == min(hoped)
    if epoch not in {3, 6}:
        assert stay == numbers
        return
    assert set(stay) <= set(hopeful)
    if all_race:
        assert len(stay) <= max(2, -(-len(numbers) // 2))
    if epoch == 6:
        dropped = [hoped[n] for n in numbers if n not in stay]
        assert max(hoped[n] for n in stay) <= min(dropped, default=np.inf)
        assert all_race or stay == hopeful
        assert len(stay) >= min(2, len(hopeful))
    if epoch == 3:
        heats = stack._heats(hopeful, networks, all_race=all_race)
        assert list(chain.from_iterable(heats)) == hopeful
        assert all(sum(n in stay for n in heat) <= 1 <= len(heat) <= 4 for heat in heats)
        rates = {networks[n].learning_rate for n in hopeful}
        assert {networks[n].learning_rate for n in stay} == rates or all_race


@given(
    st.lists(st.sampled_from([4, 8, 16]), min_size=1, max_size=40),
    st.integers(0, 20),
    st.booleans(),
)
def test_every_network_has_one_place(
    stack: ModuleType, units: list[int], room: int, race: bool
) -> None:
    """In one pool, no larger than there is room; and there in one group, of its own size."""
    networks = [stack.Network(size, 0.1, 1e-3, seed) for seed, size in enumerate(units)]
    pools = stack._pools(networks, room, race=race)
    assert sorted(chain.from_iterable(pools)) == list(range(len(units)))
    assert max(map(len, pools)) <= (max(4, room) if race else 4)
    for pool in pools:
        groups = stack._groups(pool, networks)
        assert list(chain.from_iterable(groups)) == pool
        assert {len(group) for group in groups} <= {1, 2, 4}
        assert all(len({networks[n].units for n in group}) == 1 for group in groups)


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
    orders = []
    for epoch in (1, 2, 1):
        batches = list(stack._batches(rows, 50, 4, seed=(3, epoch)))
        assert {batch.numbers.shape for batch in batches} == {(60,)}
        numbers = np.concatenate([batch.numbers for batch in batches])
        weight = np.concatenate([batch.weight for batch in batches])
        assert sorted(numbers[weight > 0]) == rows.chosen.tolist()
        assert np.allclose(weight[weight > 0], 1 / 60)
        assert all((batch.codes == rows.codes[batch.numbers]).all() for batch in batches)
        orders.append(numbers.tolist())
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_what_fills_up_the_rows_is_zero(stack: ModuleType) -> None:
    """Behind the features is the one of the biases; the rest tells the network nothing."""
    X = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    filled = stack._with_ones(X)
    assert filled.shape == (64, 32)
    assert (filled[:5, :20] == X).all()
    assert (filled[:5, 20] == 1).all()
    assert not filled[5:].any()
    assert not filled[:, 21:].any()
