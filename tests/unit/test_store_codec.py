"""JSON as the tables and the audit chain hold it: the fast way to write it must give what the plain one gives."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Kind
from mailback.store.codec import canonical_json

_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(codec=None))
    | st.datetimes(timezones=st.just(UTC)) | st.sampled_from(Kind) | st.binary(max_size=3)
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(_VALUES)
def test_every_value_is_written_as_the_plain_encoder_writes_it(value: object) -> None:
    plain = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=str).encode(value)
    assert canonical_json(value) == plain
    assert plain.isascii()


def test_a_time_stands_as_its_text() -> None:
    assert canonical_json({"b": Kind.BOUNCE, "at": datetime(2026, 1, 2, tzinfo=UTC)}) == (
        '{"at":"2026-01-02 00:00:00+00:00","b":"bounce"}'
    )
