"""The Authentication-Results field (RFC 8601): ours written, a trusted server's read, forged ones told.

Written: every word that comes from mail is either of a form that needs no quoting, or quoted, or left out; no control
character, line break or non-ASCII letter of a stranger gets in. Read: only what a server wrote that the operator trusts
by name, and only the topmost field of that name, since whatever lies below came with the message. Such a server must
itself remove fields that bear its name (section 5), as we do with those that bear ours.

Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mailback.address import domain_key, split
from mailback.auth.results import Arc, Authentication, Dkim, Dmarc, Result, Spf
from mailback.message import decode_words

FIELD: Final = "Authentication-Results"

_TOKEN_WORD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,255}")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_HOST = re.compile(r"[a-z0-9._-]{1,255}")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_NEEDS_ESCAPE = re.compile(r'(["\\])')
_LINE = 76
_LONGEST_REASON = 120
_LONGEST_VALUE = 16 * 1024
_MAX_RESULTS = 100


# --- Written ----------------------------------------------------------------------------------------------------------


def is_authserv_id(name: str) -> bool:
    """Whether `name` can stand for a server without quoting, as the name of a host in lower case can."""
    return _HOST.fullmatch(name) is not None


def write(told: Authentication) -> str:
    """The value of the field, folded with LF and a tab where lines get long."""
    results = [_spf(told.spf), *(_dkim(each) for each in told.dkim), _dmarc(told.dmarc), _arc(told.arc)]
    if not told.dkim:
        results.insert(1, ["dkim=none"])
    lines = [told.authserv_id]
    for words in filter(None, results):
        lines[-1] += ";"
        lines.extend(_folded(words))
    return "\n\t".join(lines)


def _folded(words: Iterable[str]) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > _LINE:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _spf(told: Spf) -> list[str]:
    local, _ = split(told.address)
    value = f"{local}@{told.domain}" if told.address and _LOCAL.fullmatch(local) else told.domain
    return _words("spf", told.result, told.reason, [(f"smtp.{told.identity}", value)])


def _dkim(told: Dkim) -> list[str]:
    properties = [
        ("header.d", told.domain),
        ("header.s", told.selector),
        ("header.a", told.algorithm),
        ("header.b", told.signature),
    ]
    return _words("dkim", told.result, told.reason, properties)


def _dmarc(told: Dmarc) -> list[str]:
    # `policy.dmarc` is what applies after `sp` and `pct`, by its entry in IANA's registry.
    properties = [("header.from", told.domain), ("policy.dmarc", told.disposition)]
    return _words("dmarc", told.result, told.reason, properties)


def _arc(told: Arc) -> list[str]:
    if told.result is Result.NONE:
        return []
    return _words("arc", told.result, told.reason, [])


def _words(method: str, result: Result, reason: str, properties: Iterable[tuple[str, str]]) -> list[str]:
    words = [f"{method}={result.value}"]
    if reason and result is not Result.PASS:
        words.append(f"reason={_quoted(reason)}")
    words.extend(f"{name}={_value(value)}" for name, value in properties if value)
    return words


def _value(value: str) -> str:
    """A property value (RFC 8601 section 2.2, `pvalue`): bare where the grammar allows it, quoted where not."""
    local, at, host = value.rpartition("@")
    if _TOKEN_WORD.fullmatch(value) or (at and _LOCAL.fullmatch(local) and _TOKEN_WORD.fullmatch(host)):
        return value
    return _quoted(value)


def _quoted(text: str) -> str:
    shown = _NOT_PRINTABLE.sub("?", text[:_LONGEST_REASON])
    return '"' + _NEEDS_ESCAPE.sub(r"\\\1", shown) + '"'


# --- Read -------------------------------------------------------------------------------------------------------------

_PIECE = re.compile(r'"(?:[^"\\]++|\\.)*+"|\\.|[();]|[^"\\();]++|.', re.DOTALL)
_PAIR = re.compile(r'([A-Za-z0-9._/-]{1,80}+)[ \t]*+=[ \t]*+("(?:[^"\\]++|\\.)*+"|[^\s"]++)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One result of a field: `dkim=pass header.d=example.org`."""

    method: str
    result: str
    properties: dict[str, str]
    """`smtp.mailfrom` and the like, lower case; values as written, quotes removed."""
    reason: str = ""


def server(value: str) -> str:
    """The authserv-id of a field's value, lower case; empty when it has none."""
    head = _without_comments(value[:_LONGEST_VALUE])[0].split()
    return domain_key(_unquoted(head[0])) if head else ""


def results(value: str) -> tuple[MethodResult, ...]:
    """What a field's value tells, as far as it can be read; `none` and what is no result are passed over."""
    if len(value) > _LONGEST_VALUE:
        return ()
    read = (_result(segment) for segment in _without_comments(value)[1 : _MAX_RESULTS + 1])
    return tuple(each for each in read if each is not None)


def _result(segment: str) -> MethodResult | None:
    pairs = [(name.lower(), _unquoted(value)) for name, value in _PAIR.findall(segment)]
    if not pairs:
        return None
    (method, result), *rest = pairs
    told = dict(reversed(rest))
    return MethodResult(method.partition("/")[0], result.lower(), told, told.pop("reason", ""))


def _without_comments(value: str) -> list[str]:
    """The parts between semicolons, comments (which nest) left out. A comment that never closes ends the field."""
    parts: list[list[str]] = [[]]
    depth = 0
    for piece in _PIECE.findall(value):
        if depth or piece == "(":
            depth += {"(": 1, ")": -1}.get(piece, 0)
            parts[-1].append(" ")
        elif piece == ";":
            parts.append([])
        else:
            parts[-1].append(piece)
    return ["".join(part) for part in parts]


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if len(word) >= 2 and word[0] == word[-1] == '"' else word


_BETWEEN_NAMES = re.compile(r'[\s()",;/\\]++')


def claims(value: str, authserv_id: str) -> bool:
    """Whether a field says that it is by `authserv_id`; in doubt it does: a reader after us may be less strict."""
    ours = domain_key(authserv_id)
    if len(value) > _LONGEST_VALUE:
        return ours in value.lower()
    head = _BETWEEN_NAMES.split(value.partition(";")[0].lower())
    return server(value) == ours or ours in (word.rstrip(".") for word in head)


def poses(octets: bytes, authserv_id: str) -> bool:
    """Whether a field that another wrote, its value as it stands in the message, bears our name and must go.

    Both doors ask this of every Authentication-Results field that comes in (section 5). Encoded words have no business
    there (RFC 2047 section 5), yet a reader after us may decode them.
    """
    written = octets.decode("utf-8", "replace")
    return claims(written, authserv_id) or ("=?" in written and claims(decode_words(octets), authserv_id))


def forged(values: Sequence[str], authserv_id: str) -> tuple[int, ...]:
    """Which of a message's Authentication-Results fields must go because they bear our name (section 5).

    Counted from 1 at the top among the fields of that name, as a milter counts them.
    """
    return tuple(place for place, value in enumerate(values, 1) if claims(value, authserv_id))


def trusted(values: Iterable[str], authserv_ids: Collection[str]) -> Authentication | None:
    """What the topmost field of a trusted server tells; None without one."""
    names = {domain_key(name) for name in authserv_ids}
    for value in values:
        name = server(value)
        if name and name in names:
            return _authentication(name, results(value))
    return None


def _authentication(name: str, told: tuple[MethodResult, ...]) -> Authentication:
    reason = f"told by {name}"
    spf = [_read_spf(each, word, reason) for each, word in _of("spf", told)]
    dmarc = [
        Dmarc(word, _domain(each, "header.from"), disposition=_disposition(each), reason=reason)
        for each, word in _of("dmarc", told)
    ]
    arc = [Arc(word, reason=reason) for _, word in _of("arc", told)]
    dkim = tuple(
        Dkim(
            word,
            _domain(each, "header.d") or _domain(each, "header.i"),
            domain_key(each.properties.get("header.s", "")),
            signature=each.properties.get("header.b", "")[:8],
            reason=reason,
        )
        for each, word in _of("dkim", told)
    )
    return Authentication(
        name,
        spf[0] if spf else Spf(Result.NONE),
        dkim,
        dmarc[0] if dmarc else Dmarc(Result.NONE),
        arc[0] if arc else Arc(Result.NONE),
    )


def _of(method: str, told: Iterable[MethodResult]) -> Iterator[tuple[MethodResult, Result]]:
    for each in told:
        if each.method == method and each.result in _KNOWN:
            yield each, Result(each.result)


_KNOWN = frozenset(result.value for result in Result)


def _read_spf(told: MethodResult, result: Result, reason: str) -> Spf:
    identity = "mailfrom" if told.properties.get("smtp.mailfrom") else "helo"
    value = told.properties.get(f"smtp.{identity}", "")
    return Spf(result, _domain(told, f"smtp.{identity}"), identity, value if "@" in value else "", reason)


def _disposition(told: MethodResult) -> str:
    asked = told.properties.get("policy.dmarc", "").lower()
    return asked if asked in ("none", "quarantine", "reject") else ""


def _domain(told: MethodResult, name: str) -> str:
    return domain_key(told.properties.get(name, "").rpartition("@")[2])
