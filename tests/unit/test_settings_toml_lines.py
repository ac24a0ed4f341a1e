"""The scanner that tells on which line a key stands: what it must step over without losing count."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.toml_lines import key_lines


def test_plain_keys_and_tables() -> None:
    assert key_lines('a = 1\n[t]\n# comment\nb = "x" # c = 2\n\n[t.u]\nc = 3\n') == {
        ("a",): 1, ("t",): 2, ("t", "b"): 4, ("t", "u"): 6, ("t", "u", "c"): 7,
    }  # fmt: skip


def test_dotted_and_quoted_keys() -> None:
    found = key_lines('smtpd.listen = 1\n"a.b".\'c "d\' = 2\n[ x . "y" ]\nz=1\n"\\u0065\\t" = 1')
    assert found["smtpd", "listen"] == 1
    assert found["a.b", 'c "d'] == 2
    assert found["x", "y", "z"] == 4
    assert found["x", "y", "e\t"] == 5


def test_arrays_over_several_lines_with_comments_and_brackets_in_strings() -> None:
    found = key_lines('l = [ # ] not the end\n  "a]",\n\n  "b#", # two\n  [1,\n 2],\n]\nnext = 1')
    assert [found["l", n] for n in range(3)] == [2, 4, 5]
    assert found["l", 2, 1] == 6
    assert found["next",] == 8


def test_inline_tables() -> None:
    found = key_lines('p = { a = 1, b.c = [1, 2], "d" = { e = "}" } } # x = 1\nq = {}\nr = 1')
    assert found["p", "b", "c", 1] == 1
    assert found["p", "d", "e"] == 1
    assert found["r",] == 3


@pytest.mark.parametrize(
    "value",
    [
        '"""one\ntwo = 2\n[three]"""',
        '"""a \\""" b\n""" ',
        '"""ends in two quotes\n"""""',
        "'''a\n'b' \\'''",
        "'''\n'''''",
        '"a \\" b = 1"\n',
        '"back\\\\"\n',
        "'c:\\'\n",
    ],
)
def test_strings_hide_whatever_they_hold(value: str) -> None:
    text = f"a = {value}\nb = 1"
    assert tomllib.loads(text).keys() == {"a", "b"}
    assert key_lines(text) == {("a",): 1, ("b",): text.count("\n") + 1}


def test_arrays_of_tables_count_their_elements() -> None:
    found = key_lines("[[r]]\nn = 1\n[r.sub]\nx = 1\n[[r]]\nn = 2\n[[r.deep]]\ny = 1\n[[r.deep]]\ny = 2")
    assert found["r", 0, "n"] == 2
    assert found["r", 0, "sub", "x"] == 4
    assert found["r", 1, "n"] == 6
    assert found["r", 1, "deep", 1, "y"] == 10


def test_a_table_opened_twice_keeps_its_first_line() -> None:
    assert key_lines("a.b = 1\na.c = 2")["a",] == 1


def test_a_long_file_is_read_in_linear_time() -> None:
    text = "".join(f'key{n} = [\'a\', {{ b = """x\n""" }}] # c\n' for n in range(20_000))
    assert key_lines(text)["key19999",] == 39_999


_NAMES = st.text(alphabet="ab.\"'#=[]{} \n\\é", min_size=1, max_size=5)
_VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text(alphabet="a\"'#=[]{},\\\n ", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


def _quoted(text: str) -> str:
    return '"' + "".join({'"': '\\"', "\\": "\\\\", "\n": "\\n"}.get(c, c) for c in text) + '"'


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[ " + ",\n # ] \n".join(map(_written, value)) + " ]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_quoted(k)} = {_written(v)}" for k, v in value.items()) + " }"
    return _quoted(value) if isinstance(value, str) else str(value)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for name, item in items:
        found |= _paths(item, (*path, name))
    return found


@given(st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=3), max_size=3))
def test_every_key_that_tomllib_reads_is_found(document: dict[str, Any]) -> None:
    lines = []
    for table, pairs in document.items():
        lines.append(f"[{_quoted(table)}]")
        lines += [f"{_quoted(name)} = {_written(value)}" for name, value in pairs.items()]
    text = "\n".join(lines)
    assert tomllib.loads(text) == document
    found = key_lines(text)
    assert found.keys() == _paths(document)
    numbered = text.split("\n")
    for table in document:
        assert numbered[found[table,] - 1] == f"[{_quoted(table)}]"
