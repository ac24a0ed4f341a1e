"""The arguments of MAIL and RCPT: paths and parameters (RFC 5321 sections 3.3 and 4.1.2, RFC 6531 section 3.3).

aiosmtpd reads addresses with the header parser of the `email` package, which takes comments and folding white space
that have no place in an envelope, and costs more than the rest of the command. This is the grammar of RFC 5321 in one
regular expression without nested repetition. Emits no log events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LOCAL = 255
"""RFC 5321 section 4.5.3.1.1 asks for 64; return paths that carry a recipient (VERP, SRS, BATV) are longer."""
MAX_ADDRESS = 510

_DOT_STRING = r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,\"]+"  # dots anywhere: `a..b@` and `a.@` exist in real systems
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"'
_LITERAL = r"\[[0-9A-Za-z:.\-]+\]"
_LABEL = r"[^\s\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]+"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PATH = re.compile(rf"<{_ROUTE}((?:{_DOT_STRING}|{_QUOTED})@(?:{_DOMAIN}|{_LITERAL}))>")
_BARE = re.compile(rf"((?:{_DOT_STRING}|{_QUOTED})@(?:{_DOMAIN}|{_LITERAL}))(?=\s|\Z)")
_POSTMASTER = re.compile(r"<(postmaster)>", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\s=\x00-\x20\x7f]+))?\Z")


@dataclass(frozen=True, slots=True)
class Path:
    """A reverse-path or forward-path with the parameters that follow it."""

    address: str
    """Without angle brackets and source route; empty for the null sender."""
    parameters: dict[str, str | None]
    """Upper-case keyword to value; None where the keyword stands alone."""


class PathSyntax(Exception):  # noqa: N818 - says what is wrong, not that something failed
    """The argument is no path; `str()` says why, in our own words only."""


def reverse_path(argument: str | None) -> Path:
    """Read the argument of MAIL: `FROM:<a@b> SIZE=1`, or `FROM:<>` for the null sender. Raises PathSyntax."""
    text = _after_keyword(argument, "FROM:")
    if text.startswith("<>"):
        return Path("", _parameters(text[2:]))
    return _path(text)


def forward_path(argument: str | None) -> Path:
    """Read the argument of RCPT: `TO:<a@b>`; `<Postmaster>` needs no domain (RFC 5321 section 4.5.1)."""
    text = _after_keyword(argument, "TO:")
    if match := _POSTMASTER.match(text):
        return Path(match[1], _parameters(text[match.end() :]))
    return _path(text)


def _after_keyword(argument: str | None, keyword: str) -> str:
    if argument is None or argument[: len(keyword)].upper() != keyword:
        raise PathSyntax(f"expected {keyword}<address>")
    return argument[len(keyword) :].strip(" ")  # "MAIL FROM: <a@b>" is common enough to be taken


def _path(text: str) -> Path:
    match = _PATH.match(text) or _BARE.match(text)
    if match is None:
        raise PathSyntax("malformed address")
    address = match[1]
    local, _, _ = address.rpartition("@")
    if len(address.encode("utf-8", "surrogateescape")) > MAX_ADDRESS or len(local) > MAX_LOCAL:
        raise PathSyntax("address too long")
    return Path(address, _parameters(text[match.end() :]))


def _parameters(text: str) -> dict[str, str | None]:
    if text and text[0] != " ":
        raise PathSyntax("malformed address")
    found: dict[str, str | None] = {}
    for word in text.split():
        match = _PARAMETER.match(word)
        if match is None or match[1].upper() in found:
            raise PathSyntax("malformed or repeated parameter")
        found[match[1].upper()] = match[2]
    return found
