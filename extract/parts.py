"""One part of an extraction of many, for job schedulers: by content, nothing published."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from headstart.errors import DataError

if TYPE_CHECKING:
    from headstart.cache import LeftOut
    from headstart.extract.plan import Plan

_WORDS = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Which pictures are a job's own: those whose SHA-256 leaves its number, divided by all.

    A picture stays in its part whatever becomes of the others, identical pictures are in one
    part, and of n pictures each of k parts has n/k, give or take about the root of that.

    Parameters
    ----------
    number
        From 1 to `of`.
    of
        How many parts there are.

    Raises
    ------
    DataError
        If there is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Refuse a part that is none."""
        if not 1 <= self.number <= self.of:
            raise DataError(
                f"--part {self}: expected a number from 1 to that of all parts, such as 3/16"
            )

    def __str__(self) -> str:
        """Return the part as people write it."""
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the part that ``"3/16"`` names.

        Raises
        ------
        DataError
            If it names none.
        """
        found = _WORDS.fullmatch(text)
        if found is None:
            raise DataError(f"--part {text}: expected NUMBER/PARTS, such as 3/16")
        return cls(int(found[1]), int(found[2]))

    def has(self, sha256: bytes) -> bool:
        """Tell whether a picture with this SHA-256 (hex) belongs to the part."""
        return int(sha256, 16) % self.of == self.number - 1

    def of_plan(self, plan: Plan) -> Plan:
        """Return a plan that computes this part's pictures and no others."""
        missing = {
            name: [row for row in rows if self.has(row[0])] for name, rows in plan.missing.items()
        }
        return dataclasses.replace(plan, missing=missing)


@dataclass(frozen=True)
class PartSummary:
    """What a job did that computed one part.

    Attributes
    ----------
    part
        Which one.
    rows, computed
        Rows of the part, pictures and their views, each once; how many of them were computed now.
    left_out
        Pictures of the part that could not be used, and why; the run that publishes notes them.
    seconds
        That the job took.
    """

    part: Part
    rows: int
    computed: int
    left_out: tuple[LeftOut, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "part": str(self.part),
            "rows": self.rows,
            "computed": self.computed,
            "reused": self.rows - self.computed,
            "left_out": [row._asdict() for row in self.left_out],
            "seconds": self.seconds,
        }
