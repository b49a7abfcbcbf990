"""Tables as HTML for notebooks, every value escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(
    title: str,
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    notes: Iterable[object] = (),
    *,
    strong: int | None = None,
) -> str:
    """Return a table with a title above it and notes below.

    Parameters
    ----------
    title : str
    header : sequence
        Headings of the columns.
    rows : iterable of sequence
        Cells; the first of each is its heading.
    notes : iterable
        A paragraph each.
    strong : int, optional
        A row to set in bold.

    Examples
    --------
    >>> table("pets", ["class", "rows"], [["<cat>", 2]])
    '<div><p><b>pets</b></p><table><thead><tr><th scope="col">class</th><th scope="col">rows</th>\
</tr></thead><tbody><tr><th scope="row">&lt;cat&gt;</th><td>2</td></tr></tbody></table></div>'
    """
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    body = "".join(_row(row, strong=number == strong) for number, row in enumerate(rows))
    below = "".join(f"<p><small>{_text(note)}</small></p>" for note in notes)
    return (
        f"<div><p><b>{_text(title)}</b></p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{below}</div>"
    )


def _row(cells: Sequence[object], *, strong: bool) -> str:
    first, *others = [f"<b>{_text(cell)}</b>" if strong else _text(cell) for cell in cells]
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _text(value: object) -> str:
    return html.escape(str(value))
