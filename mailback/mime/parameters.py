"""The type that a Content-Type declares, and its parameters (RFC 2045 section 5.1, RFC 2231). Emits no log events."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from mailback.mime.charsets import decode
from mailback.mime.words import decoded_words, header_text, one_line

_MAX_PARAMETER_BYTES = 16 * 1024  # of one Content-Type or Content-Disposition
_TYPE = re.compile(r"[\s\"']*+([^\s;,/\"'()]++)[ \t]*+/[ \t]*+([^\s;,/\"'()]++)")

# A value ends at the semicolon, or where another `name=` follows although the semicolon is missing.
_PARAMETER = re.compile(
    r'([^\s=;"]++)(?:[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|([^;\s]*+(?:[ \t]++(?![^\s=;"]++=)[^;\s]++)*+)))?+',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXTENDED_NAME = re.compile(r"([^*]++)(?:\*([0-9]{1,4}+))?+(\*)?+\Z")


@lru_cache(maxsize=1024)
def declared_type(content_type: str) -> str:
    """The type that a Content-Type begins with, lower case; empty where it is none. Few differ but for the boundary."""
    declared = _TYPE.match(content_type)
    return f"{declared[1]}/{declared[2]}".lower() if declared else ""


def parameters(value: str) -> dict[str, str]:
    """The parameters in `value` by lower-case name, octets as Latin-1 still; the first of a name counts. What stands
    before them has no `=` and is passed over."""
    found: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(value[:_MAX_PARAMETER_BYTES]):
        if quoted or bare:
            text = _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted or bare.strip('"')
            found.setdefault(name.lower(), text)
    return found


def decoded_parameters(value: str) -> dict[str, str]:
    """Parameters with RFC 2231's continuations put together and every value decoded, RFC 2047's words too, which the
    RFC forbids there and half the world writes."""
    plain = parameters(value)
    extended: dict[str, dict[int, tuple[str, bool]]] = {}
    for name in [name for name in plain if "*" in name]:
        if parsed := _EXTENDED_NAME.match(name):
            segment = (plain.pop(name), bool(parsed[3]))
            extended.setdefault(parsed[1], {}).setdefault(int(parsed[2] or 0), segment)
    decoded = {name: _parameter_text(text) for name, text in plain.items()}
    return decoded | {name: _extended_value(segments) for name, segments in extended.items()}


@lru_cache(maxsize=1024)
def declared_charset(content_type: str) -> str:
    """The charset that a Content-Type declares, lower case; empty where it declares none. Those of texts are few."""
    return decoded_parameters(content_type).get("charset", "").strip(" \t\"'").lower()


def _parameter_text(text: str) -> str:
    return text if text.isascii() and "=?" not in text else header_text(text.encode("latin-1"), "")


def _extended_value(segments: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231 sections 3 and 4: segments in order, the first of which may say `charset'language'`."""
    charset: str | None = None
    octets: list[bytes] = []
    for number in sorted(segments):
        text, percent = segments[number]
        if percent and charset is None:
            declared, quote, rest = text.partition("'")
            charset = declared if quote else ""
            text = rest.partition("'")[2] if quote else text
        octets.append(unquote_to_bytes(text.encode("latin-1")) if percent else text.encode("latin-1"))
    return one_line(decoded_words(decode(b"".join(octets), charset or "")))
