"""How figures are drawn: one look, as SVG for a page and as SVG and PDF for a paper."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from headstart._words import plain
from headstart.errors import MissingExtraError, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Width and height in inches: at 72 points an inch, as wide as a phone.
WIDE, SQUARE = (4.9, 3.1), (4.9, 4.6)
INK, MUTED, GRID, PAPER = "#1c2128", "#59636e", "#d5dae0", "#ffffff"
#: Told apart by colour-blind people too (after Okabe & Ito), dark enough for white paper.
SERIES = (
    *("#0072b2", "#c2410c", "#00795c", "#a3467f"),
    *("#8a6d00", "#3b8fc4", "#5b4fb0", "#59636e"),
)
_LETTER, _LINE = 4.6, 9.5  # width and height of text at 8 points, in points
_LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 0}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_CLASSES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}
_CLASSES |= {colour: f"s{number}" for number, colour in reversed(list(enumerate(SERIES)))}
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.facecolor": PAPER,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DECLARATION = re.compile(r"\s*([a-z-]+)\s*:\s*([^;]+?)\s*(?:;|$)")
_KEPT = frozenset(
    {
        *("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-dashoffset"),
        *("stroke-linecap", "stroke-linejoin", "opacity", "fill-opacity", "stroke-opacity"),
        *("font-size", "font-weight", "text-anchor"),
    }
)


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn.

    Attributes
    ----------
    key : str
        Its name in files and addresses.
    title : str
    alt : str
        What it shows, for those who do not see it.
    note : str
        How to read it.
    draw : callable
        Given matplotlib's axes, draws.
    size : tuple of float
    table : tuple of tuple of str
        The same numbers, headings first; empty where they are too many.
    points : tuple of tuple of int
        For a map: the rows behind each group of points.
    """

    key: str
    title: str
    alt: str
    note: str
    draw: Callable[[Any], None]
    size: tuple[float, float] = WIDE
    table: tuple[tuple[str, ...], ...] = ()
    points: tuple[tuple[int, ...], ...] = ()

    def save(self, file: Any, kind: str) -> None:
        """Write the figure as ``svg`` or ``pdf``, the same bytes every time."""
        with _styled() as figure_of:
            figure = figure_of(figsize=self.size, layout="constrained")
            self.draw(figure.subplots())
            dateless = {"Date": None} if kind == "svg" else {"CreationDate": None}
            figure.savefig(file, format=kind, metadata=dateless)

    def svg(self) -> str:
        """Return the figure for a page: without style attributes, colours as classes."""
        buffer = io.StringIO()
        self.save(buffer, "svg")
        return inline(buffer.getvalue(), self.key, self.title, self.alt)


@contextmanager
def _styled() -> Iterator[Any]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"a report needs matplotlib and Jinja2; {install('report')}"
        ) from error
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A font here may lack a letter of a class name; the page's reader has others.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield Figure


def shown(name: str, most: int = 22) -> str:
    """Return a name that fits beside an axis, without anything that would steer its reader."""
    text = plain(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def colour(number: int) -> str:
    """Return the colour of a series; those past the last share one."""
    return SERIES[min(number, len(SERIES) - 1)]


def marker(number: int) -> str:
    """Return the marker of a series."""
    return MARKERS[min(number, len(MARKERS) - 1)]


def name_points(axes: Any, points: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Write names beside points, one below the other where they would lie on each other.

    A name that is not beside its point has a line to it. The axes' limits and scales must be set.
    """
    width, height = (72 * 0.85 * inches for inches in axes.figure.get_size_inches())
    axes.autoscale_view()
    to_share = axes.transScale + axes.transLimits
    taken: list[tuple[float, float, float]] = []  # left, right and middle, in points
    for name, point in sorted(points, key=lambda named: -named[1][1]):
        share = to_share.transform(point)
        left, middle = share[0] * width + 6, share[1] * height
        right = left + _LETTER * len(name)
        wanted = middle
        while any(
            left < end and begin < right and abs(middle - other) < _LINE
            for begin, end, other in taken
        ):
            middle -= 1
        taken.append((left, right, middle))
        far = wanted - middle > _LINE / 2
        axes.annotate(
            name,
            point,
            xytext=(9 if far else 6, middle - wanted),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops=_LEADER if far else None,
        )


def percent_axis(axis: Any) -> None:
    """Write shares as percentages."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")


def inline(svg: str, key: str, title: str, alt: str) -> str:
    """Return a figure's SVG as a page may hold it under a policy that allows no style attribute.

    Names are made those of this figure alone, colours become classes that follow the reader's
    light or dark scheme, and a title and a description are added.
    """
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib wrote it a moment ago
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        element.attrib = dict(_attributes(element.attrib, key))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    head = []
    for tag, text in (("title", title), ("desc", alt)):
        child = ET.Element(tag, {"id": f"{key}-{tag}"})
        child.text = text
        head.append(child)
    root[:0] = head
    root.attrib |= {
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-desc",
        "class": "plot",
        "stroke-linejoin": "round",
    }
    return ET.tostring(root, encoding="unicode")


def _attributes(given: dict[str, str], key: str) -> Iterator[tuple[str, str]]:
    classes: list[str] = []
    plain_values = {name: value for name, value in given.items() if name != "style"}
    for name, value in [*plain_values.items(), *_DECLARATION.findall(given.get("style", ""))]:
        bare = name.removeprefix(f"{{{_LINK}}}")
        if bare in ("fill", "stroke") and value in _CLASSES:
            classes.append(f"{bare[0]}-{_CLASSES[value]}")
        elif bare == "id":
            yield bare, f"{key}-{value}"
        elif bare == "href":
            yield bare, f"#{key}-{value.removeprefix('#')}"
        elif value.startswith("url(#"):
            yield bare, f"url(#{key}-{value[5:]}"
        elif bare == "font":
            yield "font-size", value.split("px")[0].split()[-1]
        elif name in plain_values or bare in _KEPT:
            yield bare, value
    if classes:
        yield "class", " ".join(classes)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> tuple[tuple[str, ...], ...]:
    """Return the numbers of a figure as text."""
    return (tuple(header), *(tuple(map(str, row)) for row in rows))
