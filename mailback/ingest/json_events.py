"""Events as platforms write them in JSON: an object a line, lists of them, or over many lines, for people to read.

An object that tells of several recipients is a row for each: `bouncedRecipients` and the like as Amazon SES writes them
(https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html), `mail.destination` where no
such list is there. What a queue wrapped (the `Message` of Amazon SNS, a JSON text within JSON) is unwrapped.

Emits no log events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

LONGEST = 4 * 1024 * 1024
"""Characters of one object that is written over many lines."""
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*"?', re.DOTALL)
"""One that nothing closes goes on to the end: looking for its end from each quote anew would take quadratic time."""
_GOES_ON = ("{", "[", ",", ":")
"""How a line ends behind which an object goes on; one that was cut off hardly does."""
_LISTS = ("recipients", "destination")
"""How the lists end that tell whom an event is about, first the ones that are asked first."""


class Piece(NamedTuple):
    """One JSON text."""

    line: int
    """Where it begins, from 1."""
    text: str


def pieces(lines: Iterable[str], before: int = 0) -> Iterator[Piece]:
    """The JSON texts of a file; `before` is how many lines stood above. What cannot be read is a piece as well."""
    held: list[str] = []
    began, depth, size, indent = 0, 0, 0, 0
    for number, line in enumerate(lines, before + 1):
        bare = line.strip()
        if held and bare.startswith("{") and _indent(line) <= indent:  # the one before was never closed
            yield Piece(began, "".join(held))
            held, depth, size = [], 0, 0
        if not held:
            bare = _element(bare)
            began, indent = number, _indent(line)
        if not bare:
            continue
        held.append(bare if not held else line)
        depth += _open(bare)
        size += len(line)
        if depth <= 0 or size > LONGEST or not _may_go_on(bare, held):
            yield Piece(began, "".join(held).strip().removesuffix(","))
            held, depth, size = [], 0, 0
    if held:
        yield Piece(began, "".join(held))


def _element(bare: str) -> str:
    """A line without what belongs to a list that is written over several lines: the brackets around its elements."""
    if bare.removesuffix(",") in ("[", "]"):
        return ""
    if bare.startswith("[") and _open(bare) == 1 and bare[1:].lstrip().startswith("{"):
        return bare[1:].lstrip()
    if bare.endswith("]") and _open(bare) == -1:
        return bare[:-1].rstrip()
    return bare


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _open(line: str) -> int:
    """How many more braces and brackets it opens than it closes."""
    bare = _STRING.sub("", line)
    return bare.count("{") + bare.count("[") - bare.count("}") - bare.count("]")


def _may_go_on(bare: str, held: list[str]) -> bool:
    """Whether an object that is open may go on behind this line: always but behind the first one that was cut off."""
    return len(held) > 1 or bare.endswith(_GOES_ON)


def records(told: object) -> Iterator[dict[str, str] | None]:
    """The rows of a JSON text, by dotted names; None for what is no object."""
    for one in told if isinstance(told, list) else [told]:
        if isinstance(one, dict):
            yield from _rows(_unwrapped(one))
        else:
            yield None


def _unwrapped(one: dict[str, Any]) -> dict[str, Any]:
    inner = one.get("Message")
    if one.get("Type") != "Notification" or not isinstance(inner, str):
        return one
    try:
        told = json.loads(inner)
    except ValueError:
        return one
    return told if isinstance(told, dict) else one


def _rows(one: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    plain = dict(_flat(one))
    found = [(path, items) for end in _LISTS for path, items in _lists(one) if path.lower().endswith(end)]
    if not found:
        yield plain
        return
    path, items = found[0]
    plain.pop(path, None)
    for item in items:
        yield plain | (dict(_flat(item, f"{path}.")) if isinstance(item, dict) else {path: str(item)})


def _lists(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _lists(inner, f"{before}{name}.")
        elif isinstance(inner, list) and inner:
            yield before + name, inner


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """A JSON object as columns; nested ones as `bounce.code`, which is also found as `code`; not what is empty."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{before}{name}.")
        elif inner is not None and inner != "":
            yield before + name, inner if isinstance(inner, str) else json.dumps(inner)
