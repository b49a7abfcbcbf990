"""What the command line says: results as text for people."""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING

from headstart.errors import install

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headstart.cache import LeftOut, Store, Verification
    from headstart.cache.verify import Problem
    from headstart.extract import PartSummary, Summary
    from headstart.extract.changes import Changes
    from headstart.heads.card import Card
    from headstart.heads.export import Exported
    from headstart.heads.model import Model
    from headstart.inspection import Inspection, Pictures
    from headstart.status import Staleness, Status

_SHOWN = 5


def size(count: float) -> str:
    """Return bytes for people: ``28.3 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def parse_size(text: str) -> int:
    """Return the bytes that ``800M``, ``4 GB`` or ``1.5GiB`` mean.

    Raises
    ------
    ValueError
        If it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is no size; expected for example 800M, 4GB or 1.5GiB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " "))


def plural(count: int, what: str) -> str:
    """Return a count of things: ``1 row``, ``1,261 rows``, ``3 classes``."""
    ending = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{ending}"


def seconds(count: float) -> str:
    """Return a duration for people: ``0.42 s``, ``3 min 20 s``; of the least, a bound."""
    if 0 < count < 0.00005:
        return "< 0.1 ms"
    if 0 < count < 0.005:
        return f"{1000 * count:.1f} ms"
    if count < 10:
        return f"{count:.2f} s"
    if count < 120:
        return f"{count:.0f} s"
    minutes, rest = divmod(round(count), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes / 60:.1f} h"


_UNREAD = (
    "  not read again: of what was there before, sizes were checked, and that seals are there; "
    "headstart verify reads it all"
)


def unread(summary: Summary) -> Iterator[str]:
    """Say what was not looked at of the rows that an extraction took as they were."""
    if summary.reused:
        yield _UNREAD


def extracted(store: Store, summary: Summary) -> Iterator[str]:
    """Say what an extraction did."""
    layers = ", ".join(f"{name} {_shape(store.shape(name))}" for name in store.layers)
    yield f"{plural(summary.rows, 'row')} in {store.place}: {layers}, {store.spec.dtype}"
    yield (
        f"  computed {summary.computed:,}, reused {summary.reused:,}, "
        f"duplicates {summary.duplicates:,}, left out {len(summary.left_out):,}"
        f" ({seconds(summary.seconds)})"
    )
    splits = collections.Counter(store.catalog.split)
    if splits.keys() != {""}:
        yield "  " + ", ".join(f"{name or 'no split'} {count:,}" for name, count in splits.items())
    if ignored := summary.source.ignored_validation:
        yield f"  --validation {ignored:g} ignored: this dataset has splits of its own"
    yield from passed_over(summary.source.dataset.other_kinds, summary.source.dataset.empty_classes)
    yield from _changed(summary.changes)
    yield from left_out(summary.left_out, f"{store.place}/ledger.jsonl")
    conflicts = summary.source.conflicts
    yield from _groups("identical pictures on both sides of a split", conflicts.across_splits)
    yield from _groups("identical pictures under two labels", conflicts.across_labels)


def part(summary: PartSummary, store: str) -> Iterator[str]:
    """Say what a job did that computed one part."""
    yield (
        f"part {summary.part} of {store}: {plural(summary.rows, 'row')}, computed "
        f"{summary.computed:,}, reused {summary.rows - summary.computed:,}, "
        f"left out {len(summary.left_out):,} ({seconds(summary.seconds)})"
    )
    yield "  not published: when all parts are done, run the same command without --part"


def _changed(changes: Changes) -> Iterator[str]:
    """Say how the rows differ from those of the run before, if there was one."""
    if not changes.before:
        return
    if 2 * changes.in_common < changes.before:
        yield (
            f"  warning: of the {plural(changes.before, 'picture')} that were here before, "
            f"{changes.in_common:,} are in this dataset; was another one meant? To have the rest "
            "back, extract theirs again: nothing is computed twice while its shards are here"
        )
    kinds = {
        "new": changes.new,
        "removed": changes.removed,
        "changed": changes.changed,
        "moved": changes.moved,
        "relabelled": changes.relabelled,
        "moved to another split": changes.resplit,
    }
    found = [f"{len(paths):,} {what}" for what, paths in kinds.items() if paths]
    if found:
        yield f"  since the last run: {', '.join(found)}"


def left_out(rows: Sequence[LeftOut], where: str = "") -> Iterator[str]:
    """Say what was left out: each kind of reason, with how often and an example."""
    kinds = collections.defaultdict(list)
    for row in rows:
        kinds[kind_of(row.reason)].append(row)
    most = sorted(kinds.values(), key=len, reverse=True)
    for found in most[:_SHOWN]:
        example = found[0]
        times = "" if len(found) == 1 else f" (and {len(found) - 1:,} more)"
        yield f"  left out: {example.path!r}: {example.reason}{times}"
    if rest := sum(map(len, most[_SHOWN:])):
        yield f"  left out: {plural(rest, 'other')} for other reasons"
    if where and rows:
        yield f"  every one with its reason: {where}"


def passed_over(kinds: Sequence[tuple[str, int]], empty_classes: Sequence[str]) -> Iterator[str]:
    """Say which files were no pictures by their names, and which classes have none."""
    if kinds:
        from headstart.extract.folders import described_kinds

        yield plain(f"  passed over: {described_kinds(kinds)}")
    if empty_classes:
        shown = ", ".join(map(repr, empty_classes[:_SHOWN]))
        more = f" and {len(empty_classes) - _SHOWN:,} more" if len(empty_classes) > _SHOWN else ""
        yield f"  warning: class folders without one picture, so no classes: {shown}{more}"


def _groups(what: str, groups: Sequence[Sequence[str]]) -> Iterator[str]:
    if groups:
        example = ", ".join(repr(path) for path in groups[0][:3])
        yield f"  warning: {plural(len(groups), 'group')} of {what}; for example {example}"


def held(found: Status) -> Iterator[str]:
    """Say what is in a store."""
    rows, classes = plural(found.rows, "row"), plural(len(found.classes), "class")
    yield f"{found.store}: {rows}{_views(found)}, {classes}, {size(found.bytes)}"
    for name, about in found.layers.items():
        spec = about["spec"]
        yield f"  layer     {name} {_shape(about['shape'])} {spec['dtype']}"
    spec = next(iter(found.layers.values()))["spec"]
    weights = found.settings.get("weights", "")
    engine = f"{spec['engine']} {spec['precision']}"
    yield f"  base      {spec['architecture']}, {spec['size']} px, {engine}"
    yield f"  weights   {weights} (sha256 {spec['weights'][:16]}...)"
    yield f"  decoding  {spec['decoding']}, {spec['resampling']}"
    yield "  classes   " + ", ".join(f"{name} {count:,}" for name, count in found.classes.items())
    splits = ", ".join(f"{name or 'none'} {count:,}" for name, count in found.splits.items())
    yield f"  splits    {splits}"
    yield f"  made      {found.created}, extraction took {seconds(found.extract_seconds)}"
    left = plural(len(found.left_out), "picture")
    yield f"  {plural(found.duplicates, 'duplicate row')}, {left} left out"
    if found.unused_bytes:
        yield f"  {size(found.unused_bytes)} in shards that no row needs now"
    yield from left_out(found.left_out)


def _views(found: Status) -> str:
    """Say which rows are pictures, where some are views of them."""
    if not found.viewed:
        return ""
    each = (found.rows - found.pictures) // found.viewed
    whom = "each" if found.viewed == found.pictures else f"{found.viewed:,} of them"
    return f" ({plural(found.pictures, 'picture')} and {plural(each, 'view')} of {whom})"


def kind_of(reason: str) -> str:
    """Return what reasons of one kind have in common.

    Examples
    --------
    >>> kind_of("168.4 megapixels, over the limit of 64")
    'over the limit of 64 megapixels'
    >>> kind_of("90000 x 2 pixels, too elongated: over 426666 on one side")
    'too elongated'
    >>> kind_of("not a picture in one of the formats JPEG, PNG")
    'not a picture in one of the formats JPEG, PNG'
    """
    measured = re.sub(r"^[\d. x]+ (mega\w+|pixels), (over the limit of [\d.]+)", r"\2 \1", reason)
    return re.sub(r"^\d+ x \d+ pixels, ", "", measured).split(":")[0].strip()


#: The first line of a model's page, by which it is known.
PAGE = "<!-- The card of a Headstart model, as headstart train writes it. -->"


def plain(text: str) -> str:
    """Return one line that a terminal shows as it is; what would steer it, as escapes."""
    from headstart.extract.picture import printable

    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in printable(text))


def model(found: Model, path: object) -> Iterator[str]:
    """Say what a model is."""
    return map(plain, _model(found, path))


def needs(found: Model) -> Iterator[str]:
    """Say what a model needs to predict that not every machine has."""
    if found.card.spec.engine == "openvino":
        yield (
            "  needs     OpenVINO to predict, as its features were made with it (the extra 'cpu'); "
            "a model on features of extract --engine keras does not"
        )


def _model(found: Model, path: object) -> Iterator[str]:
    card = found.card
    spec, low, high = card.spec, *card.ci95
    chosen = ", ".join(f"{name}={value}" for name, value in card.params.items())
    yield f"{path}: {card.head}{f' ({chosen})' if chosen else ''} on {_cut(card)}"
    rows = zip(card.classes, card.rows, strict=True)
    yield "  classes   " + ", ".join(f"{name} {count:,}" for name, count in rows)
    yield f"  accuracy  {card.accuracy:.3f} ({low:.3f}-{high:.3f}): {card.measured}"
    yield f"            always the most frequent class: {card.majority_accuracy:.3f}"
    yield f"  base      {spec.architecture}, {spec.size} px, {spec.engine} {spec.precision}"
    carried = ", in the model" if found.bundled is not None else ""
    yield f"  weights   {card.weights} (sha256 {spec.weights[:16]}...){carried}"
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    yield f"  made      {card.created}, with {versions}"


def model_card(card: Card) -> Iterator[str]:
    """Say the same as a page in Markdown."""
    low, high = card.ci95
    yield PAGE
    yield f"# {_cell(card.head)} on {_cut(card)}"
    yield ""
    yield (
        f"Accuracy **{card.accuracy:.3f}** (95%: {low:.3f}-{high:.3f}), log loss "
        f"{card.log_loss:.3f}; always answering the most frequent class reaches "
        f"{card.majority_accuracy:.3f}. Measured on rows it was not trained on: "
        f"{_cell(card.measured)}."
    )
    yield ""
    yield "| class | training rows |"
    yield "|---|---|"
    for name, count in zip(card.classes, card.rows, strict=True):
        yield f"| {_cell(name)} | {count:,} |"
    yield ""
    facts = {
        **{f"hyperparameter {name}": value for name, value in card.params.items()},
        "base": f"{card.spec.architecture}, weights {card.weights}",
        "digest of the weights": card.spec.weights,
        "input": f"{card.spec.size}x{card.spec.size}, {card.spec.decoding}",
        "arithmetic": f"{card.spec.engine}, {card.spec.precision}, kept as {card.spec.dtype}",
        "made": card.created,
        **card.versions,
    }
    yield "| | |"
    yield "|---|---|"
    for name, value in facts.items():
        yield f"| {_cell(name)} | {_cell(str(value))} |"


def exported(found: Exported) -> Iterator[str]:
    """Say what was written, and how near it is to the model."""
    same = found.parity
    kind = found.kind if found.quantize == "none" else f"{found.kind}, {found.quantize}"
    yield plain(f"{found.file}: {kind}, {size(found.bytes)}; classes and input: {found.labels}")
    yield (
        f"  checked   {same.same_labels} of {plural(same.rows, 'label')} as the model's, "
        f"probabilities within {same.largest_difference:.1g}, on rows of {plain(found.store)}"
    )
    if not found.same_classes:
        yield (
            "            warning: that store has other classes, so it is not the one the model was "
            "trained on; name that with --store"
        )
    if same.cached_precision != "float32":
        yield (
            f"            the model itself, in float32 against the {same.cached_precision} of the "
            f"store: {same.same_cached_labels} of {same.rows} labels the same, probabilities "
            f"within {same.largest_cached_difference:.1g}"
        )


def _cut(card: Card) -> str:
    pool = "" if card.pool == "none" else f", {card.pool}-pooled"
    return f"{card.spec.name}{pool}, {sum(card.rows):,} rows"


def _cell(text: str) -> str:
    """Return text that stays inside a cell of a Markdown table, whatever it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", plain(" ".join(text.split())))


def stale(found: Staleness) -> Iterator[str]:
    """Say what an extraction would do now."""
    if found.to_compute:
        yield f"extract would compute {plural(found.to_compute, 'picture')} of {found.data}:"
    else:
        yield f"extract would compute nothing: the features of {found.data} are all here"
        yield _UNREAD
    reasons = {
        "new": found.new,
        "changed": found.changed,
        "moved or copied (reused)": found.moved,
        "relabelled (reused)": found.relabelled,
        "moved to another split (reused)": found.resplit,
        "removed": found.removed,
    }
    for what, paths in reasons.items():
        if paths:
            more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
            yield f"  {len(paths):,} {what}: {', '.join(map(repr, paths[:_SHOWN]))}{more}"


def verified(found: Verification) -> Iterator[str]:
    """Say whether a store is sound."""
    for problem in found.problems:
        yield f"  damaged: {problem.file}: {_without_place(found.store, problem)}"
    if found.unlisted:
        unused = plural(len(found.unlisted), "sound shard")
        yield f"  {unused} not in use (of a run that was stopped)"
    if found.repaired:
        yield f"  computed again: {plural(len(found.repaired), 'picture')}"
    if found.sound:
        rows, shards = plural(found.rows, "row"), plural(found.shards, "shard")
        yield f"{found.store} is sound: {rows} in {shards}"
    else:
        yield f"{found.store} is damaged: {plural(len(found.problems), 'problem')}"


def _without_place(store: str, problem: Problem) -> str:
    """Return what is wrong with a file, without the name and the word that stand before it."""
    place = store if store.endswith(problem.file) else f"{store}/{problem.file}"
    what = re.sub(rf"^(shard )?{re.escape(place)}:? ", "", problem.what)
    return what.removeprefix("is damaged: ")


def inspected(found: Inspection) -> Iterator[str]:
    """Say what can be cut, and what an extraction of the pictures would cost."""
    yield f"InceptionV3 at {found.size}x{found.size}; cut with --layer NAME (default mixed7)"
    yield f"  {'layer':<24}{'shape':>16}{'float16/image':>16}{'GFLOP':>8}"
    for row in found.layers:
        yield (
            f"  {row.name:<24}{_shape(row.shape):>16}{size(row.bytes_per_image):>16}"
            f"{row.gflop:>8.2f}"
        )
    if found.pictures is not None:
        yield from _pictures(found, found.pictures)


def _pictures(found: Inspection, pictures: Pictures) -> Iterator[str]:
    yield ""
    yield f"{pictures.data}: {_labelled(pictures)}"
    yield (
        f"  {pictures.distinct:,} different ones, {len(found.left_out):,} would be left out, "
        f"{plural(pictures.other_files, 'other file')}"
    )
    if pictures.splits.keys() != {""}:
        splits = pictures.splits.items()
        yield "  " + ", ".join(f"{name or 'no split'} {count:,}" for name, count in splits)
    yield from passed_over(pictures.other_kinds, pictures.empty_classes)
    yield from left_out(found.left_out)
    yield from _groups("identical pictures on both sides of a split", pictures.across_splits)
    yield from _groups("identical pictures under two labels", pictures.across_labels)
    cost = pictures.cost
    pooled = "" if cost.pool == "none" else f", {cost.pool} pooled"
    yield (
        f"  extraction at {', '.join(cost.layers)}{pooled}: about {seconds(cost.seconds)} "
        f"({cost.images_per_second:.0f} images/s here), at most {size(cost.bytes)} on disk, "
        f"about {size(cost.memory)} of memory"
    )


def _labelled(pictures: Pictures) -> str:
    """Return how many pictures there are of each class, and without one."""
    classes = [f"{name} {count:,}" for name, count in pictures.classes.items()]
    unknown = pictures.usable - sum(pictures.classes.values())
    if not classes:
        return (
            f"{plural(pictures.usable, 'picture')}, none with a label: features can be extracted, "
            "but no head trained"
        )
    rest = f", {unknown:,} without a label" if unknown else ""
    found = f"{plural(pictures.usable, 'picture')} in {plural(len(classes), 'class')}"
    return f"{found} ({', '.join(classes)}){rest}"


def benched(folder: str, page: str | None) -> str:
    """Say where a benchmark's page is, and what it lacks."""
    from headstart import plots

    where = f"{folder}/bench.md" + (f" and {page}" if page else "")
    if plots.available():
        return f"With plots in {where}"
    return f"In {where}, without plots, which need matplotlib; {install('plots')}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
