"""Numbers and results in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import _words
from headstart.cache import LeftOut


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (75264, "75.3 KB"), (2.5e13, "25.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    """Bytes are told in powers of 1000."""
    assert _words.size(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("800M", 800_000_000), ("1.5GiB", 1610612736), (" 2 kb ", 2000)]
)
def test_parse_size(text: str, count: int) -> None:
    """What people write for a size is understood."""
    assert _words.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "lots", "-1", "1 MB more", "M", "1e9"])
def test_what_is_no_size(text: str) -> None:
    """The message shows what is expected."""
    with pytest.raises(ValueError, match="expected for example 800M"):
        _words.parse_size(text)


@given(st.integers(0, 10**15))
def test_sizes_read_back_within_their_rounding(count: int) -> None:
    """A size printed and read again is the same to one part in a thousand or so."""
    assert _words.parse_size(_words.size(count)) == pytest.approx(count, rel=0.051)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.00 s"),
        (1e-6, "< 0.1 ms"),
        (0.00006, "0.1 ms"),
        (0.0021, "2.1 ms"),
        (0.123, "0.12 s"),
        (59.6, "60 s"),
        (200, "3 min 20 s"),
        (9000, "2.5 h"),
    ],
)
def test_seconds(count: float, text: str) -> None:
    """Durations are told as people would."""
    assert _words.seconds(count) == text


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("pixels of 32 bits, which have no defined range", ""),
        ("not a picture in one of the formats JPEG, PNG, GIF", ""),
        ("cannot be read: Permission denied", "cannot be read"),
        ("9 x 12 pixels, over the limit of 64", "over the limit of 64 pixels"),
        ("9 megabytes, over the limit of 4 in a tar", "over the limit of 4 megabytes in a tar"),
        ("90000 x 2 pixels, too elongated: over 426666 on one side", "too elongated"),
    ],
)
def test_the_kind_of_a_reason_is_all_of_it_but_its_measures(reason: str, kind: str) -> None:
    """A comma alone ends no reason."""
    assert _words.kind_of(reason) == (kind or reason)


def test_left_out_is_grouped_by_reason() -> None:
    """Each kind of reason is shown once, the commonest first, with an example."""
    rows = [LeftOut(f"{n}.png", "broken link") for n in range(3)]
    rows.append(LeftOut("b.png", "168.4 megapixels, over the limit of 64"))
    rows.append(LeftOut("c.png", "170.0 megapixels, over the limit of 64"))
    assert list(_words.left_out(rows)) == [
        "  left out: '0.png': broken link (and 2 more)",
        "  left out: 'b.png': 168.4 megapixels, over the limit of 64 (and 1 more)",
    ]
