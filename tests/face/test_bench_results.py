"""What a benchmark has still to run."""

from __future__ import annotations

from headstart._bench_results import Wanted


def test_what_is_missing_keeps_its_order() -> None:
    """The table first, then the curves, small parts first; what is there is not run again."""
    one, two = ("frozen", "svm"), ("scratch", "convnet")
    wanted = Wanted([one, two], (0, 1), [two], [0.25, 0.5])
    assert list(wanted.missing(set())) == [
        (one, [(0, 1.0), (1, 1.0)]),
        (two, [(0, 1.0), (1, 1.0)]),
        (two, [(0, 0.25), (1, 0.25), (0, 0.5), (1, 0.5)]),
    ]
    have = {(one, (0, 1.0)), (one, (1, 1.0)), (two, (0, 1.0)), (two, (1, 0.25))}
    assert list(wanted.missing(have)) == [
        (two, [(1, 1.0)]),
        (two, [(0, 0.25), (0, 0.5), (1, 0.5)]),
    ]
