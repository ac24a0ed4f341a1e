"""Tag lists, `a=1; b=2`: of signatures, key records and DMARC records (RFC 6376 section 3.2). Linear, pure."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPACE = " \t\r\n"
_MAX_TAGS = 100


class TagListError(ValueError):
    """No tag list; the text says why."""


def parse_tags(data: bytes) -> dict[str, str]:
    """Tags by name, values without the white space around them, folds still within. Raises TagListError."""
    text = data.decode("utf-8", "replace")
    specs = text.split(";", _MAX_TAGS)
    if len(specs) > _MAX_TAGS:
        raise TagListError("too many tags")
    found: dict[str, str] = {}
    for spec in specs:
        name, equals, value = spec.partition("=")
        name = name.strip(_SPACE)
        if not name and not equals:
            continue  # a closing semicolon; RFC 6376 allows one, some write more
        if not equals or not _NAME.fullmatch(name):
            raise TagListError("not a list of tag=value")
        if name in found:
            raise TagListError(f"{name}= stands there twice")
        found[name] = value.strip(_SPACE)
    return found


def without_value(data: bytes, tag: bytes) -> bytes:
    """`data` with the value of one tag taken out, white space around it too; how a signature is hashed that is part of
    what it signs (RFC 6376 section 3.5, `b=`)."""
    specs = data.split(b";")
    for place, spec in enumerate(specs):
        name, equals, _ = spec.partition(b"=")
        if equals and name.strip(b" \t\r\n") == tag:
            specs[place] = name + equals
    return b";".join(specs)
