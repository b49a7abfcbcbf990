"""From a comparison, and what else was run, to all that a report shows."""

from __future__ import annotations

import collections
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart import _words
from headstart.cache.catalog import versions
from headstart.extract.decode import MAX_PIXELS, RULES
from headstart.heads.registry import HEAD_NAMES
from headstart.heads.table import extraction
from headstart.report.content import WORDS, Facts, Named, Report
from headstart.report.insight import insight
from headstart.report.others import bench_answer
from headstart.report.pictures import distinct, gather
from headstart.status import status

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from headstart.cache import Progress, Store
    from headstart.cache.store import Pool
    from headstart.heads.benchmark import Benchmark
    from headstart.heads.comparison import Comparison
    from headstart.heads.curve import Curve
    from headstart.heads.evaluation import HeadResult
    from headstart.heads.sweep import Sweep
    from headstart.report.content import Insight

_SIGNIFICANT = 0.05


def gathered(
    comparison: Comparison,
    *,
    curve: Curve | None = None,
    sweep: Sweep | None = None,
    bench: Benchmark | None = None,
    tsne: bool = False,
    data: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Put together all that a report shows.

    Parameters
    ----------
    comparison
        As `headstart.compare` returned it.
    curve, sweep, bench
        What else was run on the same pictures.
    tsne
        Also make a map that keeps neighbours together; takes seconds.
    data
        Where the pictures are; where they were at the last extraction by default.
    progress
        Called with (description, done, total).

    Raises
    ------
    DataError
        If `data` is given and is no dataset.
    """
    store = comparison.evidence.store
    facts = _facts(store, comparison.layer, comparison.evidence.source.pool)
    found = insight(comparison, tsne=tsne, progress=progress)
    large, small = _pictured(found)
    gallery = gather(store, large, small, data=data, progress=progress)
    paths, labels = store.paths(), store.labels()
    named = {
        row: Named(row, paths[row], store.classes[labels[row]] if labels[row] >= 0 else "")
        for row in distinct(large, small)
    }
    return Report(
        title=f"Headstart: {store.path.absolute().name}",
        answer=(*lead(bench, comparison), *answer(comparison)),
        warnings=tuple(_warnings(comparison, found, facts)),
        facts=facts,
        insight=found,
        gallery=gallery,
        named=named,
        commands=tuple(_commands(comparison, facts, curve=curve is not None)),
        curve=curve,
        sweep=sweep,
        bench=bench,
        bench_answer=tuple(bench_answer(bench)) if bench else (),
    )


def words(head: str) -> str:
    """Return how a head is called in a sentence."""
    return WORDS.get(head, head)


def answer(comparison: Comparison) -> Iterator[str]:
    """Yield the answer in one sentence, and then what helps to choose.

    Examples
    --------
    A linear SVM on mixed7 is best: 70.4% of 1,261 pictures recognised (95% interval: 67.9% to
    72.9%); logistic regression is not distinguishable from it; extraction took 9.00 s, once, all
    runs together, and one fit less than a second.
    """
    best, pool = comparison.heads[0], comparison.pool
    cut = comparison.layer + ("" if pool == "none" else f" ({pool}-pooled)")
    close = [head for head in comparison.heads[1:] if _close(head)]
    name = words(best.head)
    yield (
        f"{name[0].upper()}{name[1:]} on {cut} is best: {best.accuracy:.1%} of "
        f"{_words.plural(comparison.evaluated, 'picture')} recognised "
        f"(95% interval: {_interval(best)})"
        f"{_beside(close, len(comparison.heads))}; extraction took "
        f"{_words.seconds(comparison.extract_seconds)}, {extraction(comparison)}, and "
        f"one fit {_fits(comparison)}."
    )
    yield (
        f"Always answering “{_words.plain(comparison.majority)}” would reach "
        f"{comparison.majority_accuracy:.1%}."
    )
    if close:
        yield from _choice([best, *close])


def lead(bench: Benchmark | None, comparison: Comparison) -> Iterator[str]:
    """Yield a benchmark's best mode, and why the same head differs in what follows."""
    best = next(bench_answer(bench), None) if bench else None
    if bench is None or best is None:
        return
    seeds = len({record.seed for record in bench.records})
    how = "a fold for each of" if bench.resampled else "the mean of"
    yield f"Frozen, fine-tuned or from scratch? {best}"
    yield (
        "Heads on the frozen features alone are measured apart from that, so that the same head "
        f"has another accuracy below. The benchmark: {how} {_words.plural(seeds, 'seed')}; below: "
        f"{comparison.protocol.split(',')[0]}."
    )


def percent(result: HeadResult) -> str:
    """Return an accuracy with its interval, which need not lie evenly about it.

    Such as ``70.4% (67.9% to 72.9%)``.
    """
    return f"{result.accuracy:.1%} ({_interval(result)})"


def _interval(result: HeadResult) -> str:
    low, high = result.ci95
    return f"{low:.1%} to {high:.1%}"


def _close(result: HeadResult) -> bool:
    return result.p_value is not None and result.p_value >= _SIGNIFICANT


def _beside(close: list[HeadResult], heads: int) -> str:
    if heads == 1:
        return ""
    if not close:
        return "; every other head is worse, and not by chance"
    names = [words(head.head) for head in close]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"; {listed} {'is' if len(names) == 1 else 'are'} not distinguishable from it"


def _fits(comparison: Comparison) -> str:
    fits = [head.fit_seconds for head in comparison.heads]
    if max(fits) < 1:
        return "less than a second"
    if len(fits) == 1:
        return _words.seconds(fits[0])
    return f"{_words.seconds(min(fits))} to {_words.seconds(max(fits))}"


def _choice(level: list[HeadResult]) -> Iterator[str]:
    """Say what else tells heads apart that are as good as each other."""
    fast = min(level, key=lambda head: head.fit_seconds)
    sure = [head for head in level if head.log_loss is not None]
    parts = [f"{words(fast.head)} is fitted fastest ({_words.seconds(fast.fit_seconds)})"]
    if sure:
        honest = min(sure, key=lambda head: head.log_loss or 0.0)
        loss = f"(log loss {honest.log_loss:.3f})"
        if honest is fast:
            parts[0] += f" and has the best probabilities {loss}"
        else:
            parts.append(f"{words(honest.head)} has the best probabilities {loss}")
    yield f"Of those level with the best, {', and '.join(parts)}."


def _warnings(comparison: Comparison, found: Insight, facts: Facts) -> Iterator[str]:
    """Yield what would mislead a reader who does not know it."""
    if facts.settings.get("weights", "").startswith("random"):
        yield (
            "The base's weights are random: these figures show that everything runs, and say "
            "nothing about transfer learning."
        )
    low = comparison.heads[0].ci95[0]
    if low <= comparison.majority_accuracy:
        yield "The best head is not distinguishable from always giving the most frequent class."
    alike = found.quality.alike_rows
    if alike > 0.05 * len(comparison.evidence.rows.numbers):
        yield (
            f"{alike:,} pictures are almost the same as another one, without being the same file "
            "(a series of one artist or camera). Where such pictures lie on both sides of a split, "
            "accuracy is too high for pictures unlike these: a manifest with a column for the "
            "series, and --group-by, keeps them together."
        )
    if found.quality.across_labels:
        count = _words.plural(len(found.quality.across_labels), "group")
        yield f"{count} of identical pictures have different labels: no head can be right on both."


def _facts(store: Store, layer: str, pool: Pool) -> Facts:
    held = status(store.path)
    spec = store.stored(layer, pool)[0]
    kinds: dict[str, list[str]] = collections.defaultdict(list)
    for row in held.left_out:
        kinds[_words.kind_of(row.reason)].append(row.path)
    return Facts(
        store=store.place,
        rows=held.rows,
        classes=held.classes,
        splits={name or "no split": count for name, count in held.splits.items()},
        layers={
            name: " x ".join(map(str, store.shape(name))) + f" {spec.dtype}"
            for name in store.layers
        },
        bytes=held.bytes,
        extract_seconds=held.extract_seconds,
        spec=dict(vars(spec)),
        settings={name: str(value) for name, value in held.settings.items()},
        created=held.created,
        versions={name: version for name, version in versions().items() if version},
        left_out=tuple(
            (reason, len(paths), paths[0])
            for reason, paths in sorted(kinds.items(), key=lambda item: -len(item[1]))
        ),
        duplicates=held.duplicates,
    )


def _pictured(found: Insight) -> tuple[list[int], list[int]]:
    """Return the rows to show large and small, those that matter most first."""
    quality = found.quality
    cards = [*found.mistakes, *quality.suspects]
    large = distinct(
        [card.of.row for card in cards],
        [near.row for card in cards for near in card.near],
        [one.row for pair in quality.alike for one in pair],
        [one.row for group in quality.across_labels[:6] for one in group[:3]],
    )
    best, *others = found.confusions
    cells = [cell for line in best.cells for cell in line]
    wrong = [cell.rows for cell in cells if not cell.right]
    more = [cell.rows for other in others for line in other.cells for cell in line]
    maps = [place.rows for place in found.maps]
    shuffled = np.random.default_rng(0).permutation(distinct(*maps)).tolist() if maps else []
    right = [cell.rows for cell in cells if cell.right]
    pairs = [cell.rows for other in found.confusions for cell in other.most]
    small = distinct(*wrong, *pairs, *right, shuffled, *more)
    return large, small


def _commands(comparison: Comparison, facts: Facts, *, curve: bool) -> Iterator[str]:
    """Yield the commands that lead to these results."""
    settings, spec = facts.settings, facts.spec
    extract = ["extract", settings.get("data") or "DATA", "-o", facts.store]
    extract += ["--layer", ",".join(dict.fromkeys(name.split(".")[0] for name in facts.layers))]
    extract += ["--size", str(spec["size"]), "--weights", settings.get("weights") or "imagenet"]
    extract += ["--engine", str(spec["engine"]), "--precision", str(spec["precision"])]
    extract += ["--dtype", str(spec["dtype"])]
    if spec.get("pool", "none") != "none":
        extract += ["--pool", str(spec["pool"])]
    rule = next((name for name, rule in RULES.items() if rule == spec["decoding"]), "full")
    extract += ["--decoding", rule] if rule != "full" else []
    if int(settings.get("max_pixels") or MAX_PIXELS) != MAX_PIXELS:
        extract += ["--max-pixels", settings["max_pixels"]]
    if float(settings.get("validation") or 0):
        extract += ["--validation", settings["validation"]]
    heads = [head.head for head in comparison.heads]
    ours = [name for name in heads if name in HEAD_NAMES]
    how = _rows_options(comparison)
    compare = ["compare", facts.store, "--heads", ",".join(ours), *how]
    compare += ["--curve"] if curve else []
    train = ["train", facts.store, "--head", heads[0], *how, "-o", "best.model"]
    yield _command(extract)
    if ours:
        yield _command(compare)
    if heads[0] in HEAD_NAMES:
        yield _command([word for word in train if word != "--plain"])
    weights = comparison.evidence.options["class_weight"]
    if isinstance(weights, Mapping):
        yield f"# from Python, with class_weight={dict(weights)!r}"


def _rows_options(comparison: Comparison) -> list[str]:
    options: dict[str, Any] = comparison.evidence.options
    result = ["--layer", comparison.layer]
    result += ["--pool", comparison.pool] if comparison.pool != "none" else []
    for name in ("cv", "group_by", "class_weight", "max_memory"):
        if isinstance(options[name], int | str):
            result += [f"--{name.replace('_', '-')}", str(options[name])]
    result += ["--seed", str(options["seed"])]
    return result + (["--plain"] if options["plain"] else [])


def _command(parts: list[str]) -> str:
    return shlex.join(["headstart", *parts])
