"""What is changed in a message before it goes on: trace and tag fields in front, forged tags out, nothing else.

Where line ends are what RFC 5321 section 2.3.8 demands, every other octet stays as it came. Where a CR or LF stands
alone they become CRLF first: readers disagree on whether such an octet ends a line, and each disagreement lets
somebody hide a header field from one reader and show it to the next, or end a message early at a server behind us
(SMTP smuggling). Postfix does the same with `smtpd_forbid_bare_newline = normalize`. Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import format_datetime

from mailback.auth import authres

MAX_HOPS = 50
"""`Received` fields after which a message is taken to go in circles (RFC 5321 section 6.3 asks for at least 100 or a
better sign; Postfix stops at 50)."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_FIELD = rb"(?im:^%s[^\n]*(?:\n|\Z)(?:[ \t][^\n]*(?:\n|\Z))*)"
_RESULTS = re.compile(_FIELD % (authres.FIELD.encode("ascii") + rb"[ \t]*:"))
_SUBJECT = re.compile(_FIELD % rb"subject[ \t]*:")
_RECEIVED = re.compile(rb"(?im)^received[ \t]*:")


def canonical(raw: bytes) -> bytes:
    """`raw` with CRLF line ends only; the same object where it has them already."""
    pairs = raw.count(b"\r\n")
    if pairs == raw.count(b"\n") and pairs == raw.count(b"\r"):
        return raw
    return _LINE_END.sub(b"\r\n", raw)


def header_block(content: bytes) -> bytes:
    """The header of canonical content, up to and including the CRLF of its last field."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]


def hops(header: bytes) -> int:
    """How many `Received` fields a header has."""
    return len(_RECEIVED.findall(header))


def is_8bit(content: bytes) -> bool:
    return not content.isascii()


def without_fields(header: bytes, prefixes: Sequence[str]) -> bytes:
    """A header without the fields whose names start with one of `prefixes` (lower case), folded lines included."""
    names = b"|".join(re.escape(prefix.encode("ascii")) for prefix in prefixes)
    if not names or not re.search(rb"(?im)^(?:" + names + rb")", header):
        return header
    return re.sub(_FIELD % (b"(?:" + names + b")"), b"", header)


def without_results(header: bytes, authserv_id: str) -> bytes:
    """A header without the `Authentication-Results` that claim to be ours (RFC 8601 section 5): they are forged."""

    def kept(field: re.Match[bytes]) -> bytes:
        return b"" if authres.poses(field[0].partition(b":")[2], authserv_id) else field[0]

    return _RESULTS.sub(kept, header)


def with_subject_tag(header: bytes, tag: bytes) -> bytes:
    """A header whose first Subject begins with `tag`; it gets one where it has none."""
    found = _SUBJECT.search(header)
    if found is None:
        return header + b"Subject: " + tag + b"\r\n"
    name, colon, value = found[0].partition(b":")
    if value.lstrip().startswith(tag):
        return header
    return header[: found.start()] + name + colon + b" " + tag + b" " + value.lstrip(b" \t") + header[found.end() :]


def rewritten(
    content: bytes,
    add: Iterable[tuple[str, str]],
    remove: Sequence[str],
    trace: bytes,
    authserv_id: str,
    *,
    subject_tag: str | None = None,
) -> bytes:
    """Canonical content with the fields of `add` and `trace` in front, and without those that `remove` names.

    Values of `add` are folded with LF. `authserv_id` is our own name, under which no peer can have authentication
    results, trusted as it may be: behind an MTA every client is that MTA, and what it passes on is a stranger's.

    `subject_tag`, in ASCII, is put before the subject.

    The trace field stands between ours and theirs: a header that begins with a folded line, as no honest one does,
    adds its text to the trace, never to a tag.
    """
    header = header_block(content)
    added = "".join(f"{name}: {value}\n" for name, value in add).replace("\n", "\r\n").encode("utf-8", "replace")
    kept = without_results(without_fields(header, remove) if remove else header, authserv_id)
    if subject_tag is not None:
        kept = with_subject_tag(kept, subject_tag.encode("ascii"))
    separator = b"" if content[len(header) : len(header) + 2] == b"\r\n" or kept else b"\r\n"
    return b"".join((added, trace, kept, separator, content[len(header) :]))


def received_field(
    *,
    helo: str,
    client: str | None,
    hostname: str,
    protocol: str,
    event_id: str,
    recipients: Sequence[str],
    at: datetime,
) -> bytes:
    """The trace field of RFC 5321 section 4.4; `for` only with one recipient, so that no Bcc becomes visible."""
    name = helo if _HELO.match(helo) else "unknown"
    literal = "local" if client is None else f"[IPv6:{client}]" if ":" in client else f"[{client}]"
    only = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
    return (
        f"Received: from {name} ({literal})\r\n"
        f"\tby {hostname} (Mailback) with {protocol} id {event_id}{only};\r\n"
        f"\t{format_datetime(at)}\r\n"
    ).encode("utf-8", "replace")


def return_path(sender: str) -> bytes:
    """The field that final delivery adds (RFC 5321 section 4.4)."""
    return f"Return-Path: <{sender}>\r\n".encode("utf-8", "replace")
