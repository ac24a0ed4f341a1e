"""Every log event of the service, of the way out and of the review is documented, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "mailback"
_LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def emitted(source: str) -> set[str]:
    """The first argument of every call of a method of `_log` named for a level."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in _LEVELS
        and isinstance(call.func.value, ast.Name) and call.func.value.id == "_log"
        and call.args and isinstance(call.args[0], ast.Constant)
    }  # fmt: skip


def documented(source: str) -> set[str]:
    """The events that a module's docstring lists: lines that begin with one or more names in backticks."""
    lines = (ast.get_docstring(ast.parse(source)) or "").partition("Log events, and")[2].splitlines()
    heads = [match[0] for line in lines if (match := re.match(r"`[a-z_.]+`(?:, `[a-z_.]+`)*", line))]
    return {name for head in heads for name in re.findall(r"[a-z_.]+", head)}


@pytest.mark.parametrize("folder", ["service", "outbound", "review", "ingest"])
def test_events_and_their_documentation_agree(folder: str) -> None:
    sources = [path.read_text() for path in (ROOT / folder).glob("*.py")]
    told = set().union(*map(emitted, sources))
    assert told
    assert told == set().union(*map(documented, sources))
