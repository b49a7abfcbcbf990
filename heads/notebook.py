"""Results as HTML, as a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.cache.markup import table
from headstart.heads import table as text

if TYPE_CHECKING:
    from headstart.heads.benchmark import Benchmark
    from headstart.heads.comparison import Comparison
    from headstart.heads.curve import Curve
    from headstart.heads.sweep import Sweep


def comparison(found: Comparison) -> str:
    """Return the table of heads, the best in bold, and what a reader should know of it."""
    pool = "" if found.pool == "none" else f", {found.pool}-pooled"
    title = f"{found.store}: {found.layer}{pool}, {found.rows:,} rows, {len(found.classes)} classes"
    rows = [text.cells(head) for head in found.heads]
    return table(title, text.HEADER, rows, text.notes(found), strong=0)


def curve(found: Curve) -> str:
    """Return accuracy against training rows: a line a head, a column a number of rows."""
    heads = list(dict.fromkeys(point.head for point in found.points))
    sizes = sorted({point.rows for point in found.points})
    known = {(point.head, point.rows): f"{point.accuracy:.3f}" for point in found.points}
    rows = [
        [head, *(known.get((head, size), "-") for size in sizes), found.last_step(head)]
        for head in heads
    ]
    header = ["training rows", *(f"{size:,}" for size in sizes), "last step"]
    return table("Accuracy against training rows", header, rows, [found.protocol])


def sweep(found: Sweep) -> str:
    """Return the cuts in the order of the network, the best in bold."""
    rows = [
        [
            cut.layer,
            cut.pool,
            f"{cut.bytes_per_image:,}",
            f"{cut.accuracy:.3f} ({cut.ci95[0]:.3f}-{cut.ci95[1]:.3f})",
            "yes" if cut.worth else "",
        ]
        for cut in found.cuts
    ]
    title = f"{found.store}: {found.rows:,} rows, {len(found.classes)} classes"
    header = ["layer", "pool", "bytes an image", "accuracy (95%)", "worth its bytes"]
    return table(title, header, rows, [found.protocol], strong=found.cuts.index(found.best))


def benchmark(found: Benchmark) -> str:
    """Return the modes, best accuracy first."""
    rows = [
        [
            one.mode,
            one.head,
            f"{one.accuracy:.3f} ({one.ci95[0]:.3f}-{one.ci95[1]:.3f})",
            f"{one.extract_seconds:.1f}",
            f"{one.train_seconds:.2f}",
            "" if one.p_value is None else f"{one.p_value:.2g}",
        ]
        for one in found.summaries()
    ]
    header = ["mode", "head", "accuracy (95%)", "extract s", "train s", "p against the best"]
    title = f"{found.rows:,} rows, {len(found.classes)} classes"
    notes = [f"{name} failed: {why}" for name, why in found.failed.items()]
    return table(title, header, rows, notes, strong=0)
