"""What a report returns of our own message: its header block, and from it who sent what to whom for which campaign.

Log events: none; nothing here raises on any bytes.

The header block is kept as it stands (bytes), because our own DKIM signature in it is a proof that the message was
ours. Which fields tell campaign, list and subscriber is configuration (`OriginalNames`), as every sender has his own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mailback.message import Headers, Message, Part, fields
from mailback.reports import addresses
from mailback.reports.dates import date
from mailback.reports.report import Original


@dataclass(frozen=True, slots=True)
class OriginalNames:
    """Which fields of the returned message tell campaign, list and subscriber; the first one present counts."""

    campaign: tuple[str, ...] = (
        "X-Campaign-ID",
        "X-CampaignID",
        "X-Campaign",
        "X-Mailgun-Campaign-ID",
        "X-Mailgun-Tag",
        "X-SES-Configuration-Set",
        "X-SES-Message-Tags",
        "X-MC-Tags",
        "X-PM-Tag",
        "X-Mailer-Campaign",
        "X-CSA-Complaints-Campaign",
        "Feedback-ID",
    )
    list_id: tuple[str, ...] = ("List-Id", "X-List-ID", "X-Mailman-List", "X-BeenThere", "Mailing-List")
    subscriber: tuple[str, ...] = ("X-Subscriber-ID", "X-Subscriber", "X-Contact-ID", "X-Recipient-ID")


DEFAULT = OriginalNames()

_RETURNED = {
    "message/rfc822": True,
    "message/global": True,
    "text/rfc822-headers": False,
    "message/rfc822-headers": False,
    "message/global-headers": False,
    "text/rfc822-header": False,
    "text/rfc822": False,
    "message/partial": False,
}
"""Types of the part that returns our message (RFC 6522 section 3, RFC 6533 section 6); true: read as a message."""

RETURNED_TYPES = frozenset(_RETURNED)

_ANGLE_ID = re.compile(r"<[^<>\s]{1,900}>")


def of_message(message: Message, names: OriginalNames = DEFAULT) -> Original | None:
    """What the returned part of a report tells; None when nothing was returned."""
    part = returned_part(message)
    return None if part is None else of_part(part, names)


def returned_part(message: Message) -> Part | None:
    """The part that carries our message or its header block."""
    for part in message.parts[1:]:
        if part.type in _RETURNED:
            return part
    return None


def of_part(part: Part, names: OriginalNames = DEFAULT) -> Original | None:
    """Read a returned message (message/rfc822) or header block (text/rfc822-headers)."""
    if _RETURNED.get(part.type, False) and part.message is not None:
        return of_headers(part.message.headers, names)
    return of_block(part.content, names)


def of_block(block: bytes, names: OriginalNames = DEFAULT) -> Original | None:
    """Read header lines that stand in a text; None when there are none among its first paragraphs."""
    rest = _without_indent(block[:_BLOCK_CAP])
    for _ in range(_PARAGRAPHS):
        end = _BLANK_LINE.search(rest)
        for headers in fields(rest[: end.start()] if end else rest):
            if "from" in headers or "to" in headers or "subject" in headers or "message-id" in headers:
                return of_headers(headers, names)
        if end is None:
            break
        rest = rest[end.end() :]
    return None


def _without_indent(block: bytes) -> bytes:
    """Mailing-list servers indent or quote the message that they return."""
    indent = _INDENT.match(block)
    if indent is None or not indent[1]:
        return block.lstrip()
    return block.replace(b"\n" + indent[1], b"\n")[indent.end() :]


_INDENT = re.compile(rb"(?:[ \t]*\r?\n)*([ \t>|]*)")
_BLANK_LINE = re.compile(rb"\n[ \t>]*\r?\n")
_PARAGRAPHS = 4
_BLOCK_CAP = 262_144  # bytes of returned header read; real ones have 1-20 kB


def of_headers(headers: Headers, names: OriginalNames = DEFAULT) -> Original:
    """What header fields tell of the message that they belong to."""
    get = headers.get
    original = marks(headers, names)
    original.sender = _sender(headers)
    to = get("to") or ""
    also = get("cc")
    original.recipients = tuple(addresses.of_header(f"{to}, {also}" if also else to))
    original.date = date(get("date"))
    original.header_block = headers.block
    return original


def marks(headers: Headers, names: OriginalNames = DEFAULT) -> Original:
    """What tells a message from others, apart from its addresses: for whoever knows those from the envelope."""
    return Original(
        message_id=message_id(headers.get("message-id")),
        subject=headers.get("subject"),
        list_id=_list_id(headers, names.list_id),
        campaign=_first(headers, names.campaign),
        subscriber=_first(headers, names.subscriber),
    )


def _sender(headers: Headers) -> str | None:
    """Return-Path where the reporter left it, else From, else Sender."""
    for name in ("return-path", "from", "sender", "reply-to"):
        value = headers.get(name)
        if value:
            found = addresses.of_header(value)
            if found:
                return found[0]
    return None


def _first(headers: Headers, names: tuple[str, ...]) -> str | None:
    present, wanted = headers.names, _lower(names)
    if present.isdisjoint(wanted):  # as nearly always
        return None
    for name in wanted:
        if name in present:
            value = headers.get(name)
            if value:
                return value
    return None


@lru_cache(maxsize=64)
def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    """Twenty names are looked for in every message that goes out or comes back, and few of them are there."""
    return tuple(name.lower() for name in names)


def _list_id(headers: Headers, names: tuple[str, ...]) -> str | None:
    """RFC 2919: the identifier is what stands in the angle brackets, not the describing phrase before it."""
    value = _first(headers, names)
    if value is None:
        return None
    inner = value.rpartition("<")[2].partition(">")[0].strip()
    return inner or value


def message_id(value: str | None) -> str | None:
    """The identifier with its angle brackets, as one compares it; None when there is none."""
    if not value:
        return None
    found = _ANGLE_ID.search(value[:2000])
    if found:
        return found.group()
    bare = value.strip()
    return f"<{bare}>" if "@" in bare and " " not in bare and len(bare) < 900 else None


def complete(original: Original | None, told: Mapping[str, list[str]]) -> Original | None:
    """Fill in from the report's own fields what the returned message lacks: sender and Message-ID."""
    sender = next((told[name][0] for name in ("x-postfix-sender", "x-sender") if name in told), None)
    if sender is not None:
        address = addresses.of_field(sender)[1]
        if address:
            original = original or Original()
            original.sender = address
    reported = told.get("x-original-message-id")
    if reported:
        original = original or Original()
        original.message_id = original.message_id or message_id(reported[0])
    return original
