"""Bounces in free text: everything that is not RFC 3464, from dozens of servers in many languages.

Log events: none; nothing here raises on any text.

There are far too many servers to write a parser for each, but only a few shapes of text. So one reader looks at every
address in the text and asks *how it stands there*: at the head of a block (`<a@b.example>: reason`), behind a label
(`Recipient: a@b.example`), in a quoted SMTP dialogue (`>>> RCPT TO:<a@b.example>`), or within a sentence. The best
evidence found wins, weaker evidence is ignored where better exists. What differs between servers and languages (where
the returned message begins, labels, words for "delayed") is data: `config/rules/dialects.toml`.

Whom a bounce is *not* about: its own sender, the person it was sent to, whoever is to be asked for help, and anybody
in the returned message. Those count only where nothing else names a recipient.

Cost: linear. Each address of the text is looked at once, with a bounded window around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice

from mailback.reports import addresses
from mailback.reports.dialects import Dialects

REPORT_CAP = 524_288
"""Characters of explanation read; real ones have 500-5000, the rest of a long text is the returned message."""

_LINE_WINDOW = 200  # characters before and after an address that are looked at
_MENTIONS_CAP = 25_000  # addresses looked at; of a report on 10,000 recipients each may stand there twice


class Standing(IntEnum):
    """How an address stands in the text: the lower, the better the evidence that delivery to it failed."""

    LABELLED = 0
    HEADING = 1
    LEADING = 2
    DIALOGUE = 3
    OWN = 4
    """Heads a block, but is the address that the report was sent to: who mails himself, or a salutation."""
    OBJECT = 5
    MENTIONED = 6
    SUMMARY = 7


@dataclass(slots=True)
class Mention:
    """One address as it stands in the report text."""

    address: str
    standing: Standing
    start: int
    """Where its line begins."""
    end: int
    """Where the address ends, with its closing bracket."""
    is_command: bool
    """It stands in a quoted `RCPT TO` command; the lines after it are the answer."""


@dataclass(slots=True)
class Reading:
    """The text of a report, cut in two, and who it mentions."""

    text: str
    """The explanation, without the returned message."""
    returned: str
    """The returned message or header block, as far as the text carries it; empty when there is none."""
    mentions: list[Mention] = field(default_factory=list)
    generated_from: dict[str, str] = field(default_factory=dict)
    """Lower-case final address -> the address it was expanded from, where the text tells (Exim)."""


def read(text: str, dialects: Dialects, ours: Iterable[str] = ()) -> Reading:
    """Cut off the returned message and find the addresses of the rest. `ours`: addresses that sent the original."""
    explanation, returned = split_returned(text, dialects)
    reading = Reading(explanation, returned)
    known = {address.lower() for address in ours}
    reading.mentions = list(islice(_mentions(explanation, dialects, known, reading.generated_from), _MENTIONS_CAP))
    return reading


# Where the returned message begins


_RETURNED_START = re.compile(
    r"\n[ \t>|]{0,8}+(?:received|return-path|dkim-signature|mime-version|x-received|arc-seal|delivered-to)[ \t]{0,9}+:"
)
"""For lower-case text. Begins with the line feed, not with `^`: a literal is searched for many times faster."""
_HEADER_AFTER = re.compile(r"[\s\-=_*]{0,200}+(?:From [^\n]*\n)?[ \t>|]{0,8}+[A-Za-z][A-Za-z0-9-]{1,50}+[ \t]?:")
"""A line that announces the returned message is believed without an address before it only where headers follow."""
_HEADER_LINE = re.compile(r"[ \t>|]{0,8}[A-Za-z][A-Za-z0-9-]{1,50}[ \t]*:")


def lowered(text: str) -> str:
    """Lower case, each character in its place: the one letter that would become two becomes one."""
    return text.replace("\u0130", "I").lower()


def split_returned(text: str, dialects: Dialects) -> tuple[str, str]:
    """(explanation, returned message).

    A line of the dialects' data ends the explanation; so does a line that only a message header has. A header block
    is taken from its first line on, which may stand above the field that gave it away.
    """
    window = f"\n{text[:REPORT_CAP]}"
    lower = lowered(window)
    cut, after = len(window), len(text)
    found = dialects.returned.search(lower)
    if found and ("@" in window[: found.start()] or _HEADER_AFTER.match(window, found.end())):
        cut, after = found.start() + 1, found.end() - 1
    header = _RETURNED_START.search(lower, 0, cut)
    if header:
        cut = _block_start(window, header.start() + 1)
        after = cut - 1
    return window[1:cut], text[after:].lstrip("\r\n")


def has_header(returned: str) -> bool:
    """Whether what follows the explanation begins with the header of a message that went through a mail server."""
    return _RETURNED_START.search(lowered(f"\n{returned[:4000]}")) is not None


def _block_start(text: str, position: int) -> int:
    """The first line of the run of header lines that ends at `position`."""
    for _ in range(60):
        if position <= 1:
            break
        line_start = text.rfind("\n", 0, position - 1) + 1
        line = text[line_start : position - 1]
        if not (_HEADER_LINE.match(line) or (line[:1] in " \t" and line.strip())):
            break
        position = line_start
    return position


# How addresses stand


_BULLET = re.compile(r"[\s<\"'*•·\-–—|>(\[#]*(?:\d{1,4}[.)]\s*)?[\s<\"'(\[]*$")
_COMMAND = 24  # characters before an address that may be a command
_RCPT = re.compile(r"RCPT\s+TO\s*[:=]?\s*<?$", re.IGNORECASE)
_MAIL = re.compile(r"(?:MAIL\s+FROM|envelope[- ]from|envelope[- ]sender|FROM)\s*[:=]\s*<?$", re.IGNORECASE)
_REPLY_LINE = re.compile(r"[\s<>*|.-]*(?:[45]\d\d[ \-]|[45]\.\d\.\d{1,3}\s)")
_HEADING_TAIL = re.compile(
    r"[>\"'\])]*\s*(?:$|[:;：,，、]|\.\.\.|[\[(]|[-–—]{1,2}\s|\s[-–—>=]{1,2}\s|on (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|\d))"
)
_BLOCK = re.compile(r"[>\"'\])]{0,3}[ \t]*[:：][ \t]*\n?[ \t]*[^\s:]")
_CLOSING = re.compile(r"[>\"'\])]{0,3}")
_GENERATED = re.compile(r"\(?(?:ultimately )?(?:generated|expanded) (?:from|by):? <?$", re.IGNORECASE)
_NAMED = re.compile(r"[\"']?\s?<[^<>\s]{1,200}@[^<>\s]{1,200}>")
_CLOSING_MARKS = " \t>\"'])）」』＞.。"
_OPENING = " \t<\"'([「『＜"
_ADDRESS_TYPES = ("rfc822;", "rfc822:", "smtp;", "smtp:", "utf-8;", "mailto:")


def _mentions(text: str, dialects: Dialects, ours: set[str], generated_from: dict[str, str]) -> Iterator[Mention]:
    last: Mention | None = None
    for found, start, end in addresses.find(text):
        if "<" in text[end : end + 3] and _NAMED.match(text, end):
            continue  # the display name of the address that follows
        address = addresses.tidy(found)
        if not addresses.is_full(address):
            continue
        line_start = max(text.rfind("\n", max(0, start - _LINE_WINDOW), start) + 1, start - _LINE_WINDOW)
        before = text[line_start:start]
        if before[-7:].lower() == "mailto:":
            before = before[:-7]
        if before.endswith("<") and "@" in before:
            before = _without_display_name(before)
        tail = before[-40:]
        if "ed " in tail and _GENERATED.search(tail):
            if last is not None:
                generated_from.setdefault(last.address.lower(), address)
            else:
                yield Mention(address, Standing.LEADING, line_start, end, is_command=False)
            continue
        line_end = text.find("\n", end, end + _LINE_WINDOW)
        after = text[end : line_end if line_end >= 0 else end + _LINE_WINDOW]
        standing = _standing(before, after, dialects)
        if standing is None or (standing is Standing.HEADING and _is_introduced(text, line_start, after, dialects)):
            continue
        if standing > Standing.LABELLED and (address.lower() in ours or dialects.is_role(address)):
            heads_block = standing is Standing.HEADING and _BLOCK.match(text, end) is not None
            standing = Standing.OWN if heads_block else Standing.SUMMARY
        closing = _CLOSING.match(text, end)
        is_command = standing is Standing.DIALOGUE and _RCPT.search(before[-_COMMAND:]) is not None
        last = Mention(address, standing, line_start, closing.end() if closing else end, is_command)
        yield last


def _is_introduced(text: str, line_start: int, after: str, dialects: Dialects) -> bool:
    """An address alone on its line that the line above gives to write to, or to have written: a contact, an author."""
    if after.strip(_CLOSING_MARKS):
        return False
    above = text[max(0, line_start - _LINE_WINDOW) : line_start].rstrip().rpartition("\n")[2]
    return dialects.introduces(above)


def _without_display_name(before: str) -> str:
    """`<a@b.example> <` heads a line just as `<` does: people are shown an address as the name of an address."""
    stem = before[:-1].rstrip(" \"'")
    name = stem[max(stem.rfind(" "), stem.rfind("\t")) + 1 :]
    return f"{stem[: len(stem) - len(name)]}<" if "@" in name and "<" not in name else before


def _standing(before: str, after: str, dialects: Dialects) -> Standing | None:
    """How an address stands between the text before and after it on its line; None: certainly not a recipient."""
    if _BULLET.match(before):
        return Standing.HEADING if _HEADING_TAIL.match(after) else Standing.LEADING
    command = before[-_COMMAND:]
    said = command.lower()
    if "rcpt" in said and _RCPT.search(command):
        return Standing.DIALOGUE
    if ("from" in said or "sender" in said) and _MAIL.search(command):
        return None
    stem = before.rstrip(_OPENING)
    if stem.lower().endswith(_ADDRESS_TYPES):
        stem = stem[: max(stem.rfind(";"), stem.rfind(":"))].rstrip(_OPENING)
    if stem and stem[-1] in ":：=":
        told = dialects.label(stem[-61:-1])
        if told is not None:
            return None if told == "sender" else _LABELS[told]
    if _REPLY_LINE.match(before):
        return Standing.DIALOGUE
    context = before[-80:]
    if "@" in context:  # what is said of an address before this one is not said of this one
        context = context.rpartition("@")[2].partition(" ")[2]
    if dialects.asks_for_contact(context):
        return None
    in_brackets = before.endswith("<") and after.startswith(">")
    return Standing.OBJECT if in_brackets or dialects.names_object(stem[-40:]) else Standing.MENTIONED


_LABELS = {"recipient": Standing.LABELLED, "object": Standing.OBJECT, "summary": Standing.SUMMARY}


# From mentions to failures


def recipients(reading: Reading) -> list[Mention]:
    """The mentions of the best standing, one for each address, in order."""
    if not reading.mentions:
        return []
    best = min(mention.standing for mention in reading.mentions)
    told: dict[str, Mention] = {}
    for mention in reading.mentions:
        if mention.standing == best:
            told.setdefault(mention.address.lower(), mention)
    return list(told.values())
