"""Where the parts of a multipart lie (RFC 2046 section 5.1). Emits no log events: what was guessed is noted."""

from __future__ import annotations

import re

from mailback.mime.headers import CARRIAGE_RETURN, LINE_FEED
from mailback.mime.limits import Reading

MAX_BOUNDARY = 1_000  # RFC 2046 section 5.1.1 allows 70; some writers do not count
_MAX_FALSE_BOUNDARIES = 10_000  # lines that begin like a delimiter and are none
_MAX_GUESSES = 50  # lines looked at in search of an undeclared boundary
_DELIMITER_END = re.compile(rb"(--)?+[ \t]*+\r?(?:\n|\Z)")
_MIME_FIELD = re.compile(rb"content-[a-z-]{1,40}+[ \t]*+:", re.IGNORECASE)


def part_spans(data: bytes, start: int, end: int, boundary: bytes, reading: Reading) -> list[tuple[int, int]]:
    """Where the parts between the delimiter lines of `boundary` begin and end, header blocks included.

    A longer boundary that begins like this one is not this one (its line goes on), and a closing delimiter closes
    nothing when another part follows it. A part that nothing closes runs to `end`.
    """
    delimiter = b"--" + boundary
    spans: list[tuple[int, int]] = []
    begin, false_hits = -1, 0
    at = data.find(delimiter, start, end)
    while at >= 0:
        after = at + len(delimiter)
        line = _DELIMITER_END.match(data, after, end) if at == start or data[at - 1] == LINE_FEED else None
        if line:
            if begin >= 0:  # the line end before a delimiter belongs to the delimiter (RFC 2046 section 5.1.1)
                stop = at - 2 if data[at - 2] == CARRIAGE_RETURN else at - 1
                spans.append((begin, max(begin, stop)))
            begin = -1 if line[1] else line.end()
            if len(spans) > reading.parts:
                return spans
        else:
            false_hits += 1
            if false_hits > _MAX_FALSE_BOUNDARIES:
                reading.cut("a multipart has too many lines that only resemble its delimiter")
                break
        at = data.find(delimiter, after, end)
    if begin >= 0:
        reading.note("a multipart ends without its closing delimiter")
        spans.append((begin, end))
    return spans


def guess_boundary(data: bytes, start: int, end: int) -> bytes:
    """The boundary of a multipart that declares none, or another: the first line that begins with `--` and is followed
    by a MIME field. Empty when there is none."""
    at = start if data.startswith(b"--", start, end) else data.find(b"\n--", start, end) + 1
    for _ in range(_MAX_GUESSES):
        if at < start or (at == 0 and not data.startswith(b"--")):
            return b""
        stop = data.find(b"\n", at, min(end, at + MAX_BOUNDARY))
        if stop >= 0 and _MIME_FIELD.match(data, stop + 1, end):
            return data[at + 2 : stop].rstrip()
        at = data.find(b"\n--", at, end) + 1
    return b""
