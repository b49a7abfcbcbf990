"""What has become of a store's rows: pictures that came, changed, moved and went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.cache import Filling, Rows

    #: SHA-256 of a picture, name of its class, its split.
    _Row = tuple[bytes, str, str]


@dataclass(frozen=True)
class Changes:
    """Paths of rows, by what has become of them; but for `in_common`, in the order of the rows.

    Attributes
    ----------
    new
        Pictures the store did not have.
    changed
        Paths whose picture is another one now: their rows are replaced.
    moved
        New paths of pictures the store had: moved, renamed or copied.
    removed
        Paths that are gone, also of pictures that moved. Features stay in the shards, so that
        pictures which come back cost nothing.
    relabelled, resplit
        Paths whose class, or split, is another one now.
    before
        How many different pictures the store had.
    in_common
        How many of them there still are, under whatever path.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    resplit: tuple[str, ...]
    before: int
    in_common: int

    def counts(self) -> dict[str, int]:
        """Return how many there are of each."""
        return {name: n if isinstance(n, int) else len(n) for name, n in asdict(self).items()}


def changes(before: Filling, after: Rows) -> Changes:
    """Compare the rows a store publishes with those it shall have."""
    old, new = _published(before), _rows(after)
    had, has = {row[0] for row in old.values()}, {row[0] for row in new.values()}
    came = {path: row for path, row in new.items() if path not in old}
    stayed = [(path, old[path], row) for path, row in new.items() if path in old]
    return Changes(
        new=tuple(path for path, row in came.items() if row[0] not in had),
        changed=tuple(path for path, was, now in stayed if was[0] != now[0]),
        moved=tuple(path for path, row in came.items() if row[0] in had),
        removed=tuple(path for path in old if path not in new),
        relabelled=tuple(path for path, was, now in stayed if was[1] != now[1]),
        resplit=tuple(path for path, was, now in stayed if was[2] != now[2]),
        before=len(had),
        in_common=len(had & has),
    )


def _published(filling: Filling) -> dict[str, _Row]:
    content = filling.before
    if content is None:
        return {}
    labels, digests = content.label.tolist(), content.image_sha256.tolist()
    return _by_path(content.path, digests, content.classes, labels, content.split)


def _rows(rows: Rows) -> dict[str, _Row]:
    return _by_path(rows.path, rows.image_sha256, rows.classes, rows.label, rows.split)


def _by_path(
    paths: list[str],
    digests: list[bytes],
    classes: tuple[str, ...],
    labels: list[int],
    splits: list[str],
) -> dict[str, _Row]:
    names = [classes[label] if label >= 0 else "" for label in labels]
    return dict(zip(paths, zip(digests, names, splits, strict=True), strict=True))
