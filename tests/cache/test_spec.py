"""The spec: JSON both ways, differences by field."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.cache import Spec
from headstart.errors import CorruptStoreError, StoreVersionError

FIELDS = {field.name: field.type for field in dataclasses.fields(Spec)}
specs = st.builds(
    Spec,
    **{
        name: st.integers(1, 4096) if kind == "int" else st.text(max_size=12)
        for name, kind in FIELDS.items()
    },
)


@given(specs)
def test_json_both_ways(spec: Spec) -> None:
    """A spec survives JSON unchanged, and equal specs have equal JSON."""
    again = Spec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == spec.to_json()


@given(specs, st.sampled_from(sorted(FIELDS)))
def test_differences_name_the_field(spec: Spec, name: str) -> None:
    """Changing one field is reported as that field, with both values, and no other."""
    value = getattr(spec, name)
    changed: Any = value + 1 if isinstance(value, int) else value + "x"
    other = dataclasses.replace(spec, **{name: changed})
    assert spec.differences(other) == {name: (value, getattr(other, name))}
    assert spec.differences(other, ignore=frozenset({name})) == {}
    assert spec.differences(spec) == {}


def test_name_of_the_dataset() -> None:
    """A pooled layer has a dataset of its own beside the map's."""
    assert Spec(weights="").name == "mixed7"
    assert Spec(weights="", layer="mixed5", pool="avg").name == "mixed5.avg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "150"}, "size is '150'; expected a int"),
        ({"size": True}, "size is True"),
        ({"layer": None}, "layer is None"),
    ],
)
def test_what_is_no_spec_is_refused(change: dict[str, object], message: str) -> None:
    """A field of another type, or an unknown one, is named."""
    content = json.loads(Spec(weights="").to_json()) | change
    with pytest.raises(CorruptStoreError, match=message):
        Spec.from_json(json.dumps(content))


def test_a_field_of_a_later_version_says_upgrade() -> None:
    """What a newer Headstart adds decides values, too: it is refused, and not as damage."""
    content = json.loads(Spec(weights="").to_json()) | {"unheard_of": 1}
    with pytest.raises(StoreVersionError, match=r"unheard_of.*made by a newer Headstart; upgrade"):
        Spec.from_json(json.dumps(content))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_missing_field_is_named(field: str) -> None:
    """No default takes its place: it would decide values."""
    content = json.loads(Spec(weights="").to_json())
    del content[field]
    with pytest.raises(CorruptStoreError, match=f"the spec does not say {field}$"):
        Spec.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"size": 150}'])
def test_what_is_not_json_is_refused(text: str) -> None:
    """Text that is no spec at all gives our error, not json's."""
    with pytest.raises(CorruptStoreError):
        Spec.from_json(text)
