"""A report as one HTML page that asks no network for anything and runs nothing of its data."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from headstart import _words
from headstart._words import plain
from headstart.cache.catalog import now, versions
from headstart.errors import MissingExtraError, install
from headstart.report.drawing import SERIES
from headstart.report.figures import drawings
from headstart.report.gather import percent, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.report.content import Cell, Report
    from headstart.report.drawing import Drawing

_SIGNIFICANT = 0.05


def page(report: Report) -> str:
    """Return the page.

    Every value is escaped where it stands; the policy in its head allows the one style and the
    one script that are in it, by their digests, and pictures that are in it.

    Raises
    ------
    MissingExtraError
        If Jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"a report needs matplotlib and Jinja2; {install('report')}"
        ) from error
    here = files("headstart.report")
    style, script = (here.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: plain(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
    )
    environment.filters |= {
        "size": _words.size,
        "seconds": _words.seconds,
        "plural": _words.plural,
        "words": words,
        "percent": percent,
        "rate": lambda value: f"{value:.1%}",
        "share": _share,
        "verdict": _verdict,
        "number": lambda value: "-" if value is None else f"{value:.3f}",
        "heat": lambda share: min(9, round(9 * share)),
        "settings": _settings,
    }
    drawn = list(drawings(report))
    template = environment.from_string(here.joinpath("page.html").read_text("utf-8"))
    return template.render(
        r=report,
        c=report.insight.comparison,
        figures={
            d.key: {"drawing": d, "svg": Markup(d.svg())}  # noqa: S704 - its texts are escaped
            for d in drawn
        },
        data=_data(report, drawn),
        policy=policy(style, script),
        style=Markup(style),  # noqa: S704 - a file of ours
        script=Markup(script),  # noqa: S704 - likewise
        made=now(),
        versions=versions(),
        number_of_series=len(SERIES),
    )


def policy(style: str, script: str) -> str:
    """Return the content-security policy: nothing but this style, this script, and images here."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src 'sha256-{_digest(style)}'",
            f"script-src 'sha256-{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(report: Report, drawn: Sequence[Drawing]) -> dict[str, Any]:
    """Return what the script needs: rows by number, the cells of each matrix, points of maps."""
    rows = {
        str(row): [plain(named.path), plain(named.label), report.gallery.of(row)]
        for row, named in report.named.items()
    }
    return {
        "rows": rows,
        "cells": [
            [[_cell(cell) for cell in line] for line in one.cells]
            for one in report.insight.confusions
        ],
        "pairs": [[_cell(cell) for cell in one.most] for one in report.insight.confusions],
        "points": {d.key: [list(group) for group in d.points] for d in drawn if d.points},
    }


def _cell(cell: Cell) -> list[Any]:
    return [plain(cell.true), plain(cell.guess), cell.count, list(cell.rows)]


def _verdict(p_value: float | None) -> str:
    if p_value is None:
        return "best"
    sign = "worse" if p_value < _SIGNIFICANT else "not distinguishable"
    return f"{sign} (p={p_value:.2g})"


def _share(value: float) -> str:
    """Write a probability; none that was measured is 0 or 1.

    Examples
    --------
    >>> _share(0.9999), _share(0.7), _share(0.0001)
    ('> 99.9%', '70.0%', '< 0.1%')
    """
    if math.isnan(value):
        return "-"
    return "> 99.9%" if value >= 0.9995 else "< 0.1%" if value < 0.0005 else f"{value:.1%}"


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={float(f'{value:.3g}'):g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )
