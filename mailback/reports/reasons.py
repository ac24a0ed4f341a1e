"""Why a free-text report says that delivery to one address failed: the words that belong to that address.

Log events: none; nothing here raises on any text.

A reason stands before the address on its line, where each of several has another (`Unknown user: a@b.example`); after
it in its own block; or in the reply of a quoted dialogue that names the address; or,
for a list of addresses with one reason for all, after the list or before it. Tried in this order, a text with an SMTP
code before one without.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from mailback.bounce.taxonomy import Subcategory
from mailback.reports import diagnostic
from mailback.reports.diagnostic import Said
from mailback.reports.legacy import Mention, Reading
from mailback.reports.once import Once
from mailback.reports.report import DeliveryFailure

_CAP = 1200  # characters of one reason
_EDGES = " \t\r\n-=_*:>\"'"
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LABEL = 40  # characters of a line that announces the reason and does not tell it
_ANSWERS_LOOKED_AT = 5  # lines of a dialogue that name one address


class Reason(NamedTuple):
    """What the text says of one recipient, with the codes that it names."""

    text: str
    said: Said


def reason(text: str) -> Reason:
    """A text as a reason; of a transcript of the session the refusal alone."""
    if "<--" in text and (refusals := _REFUSAL.findall(text)):
        text = refusals[-1]
    return Reason(text, diagnostic.codes(text))


_REFUSAL = re.compile(r"<--[ \t]*([45]\d\d[ \t-][^\n]*)")
"""`Mon 2013-09-16 10:30:22: <-- 550 No such user here`, among what was resolved, connected to and said before."""


_LABEL_ALONE = re.compile(
    r"(?:(?:original|final|intended|envelope|failed|the|your|mail|rcpt|e-?mail|recipients?|address(?:es)?|to|for) ?)+",
    re.IGNORECASE,
)
"""What announces an address and tells no reason."""
_NOTHING = Reason("", Said(None, None))


class Reasons:
    """The reasons of one report; what all its recipients share is worked out once."""

    def __init__(self, reading: Reading, listed: list[Mention]) -> None:
        self._text = reading.text
        self._mentions = reading.mentions
        self._starts = sorted(mention.start for mention in listed)
        self._listed = frozenset(mention.address.lower() for mention in listed)
        self._end = max((mention.end for mention in listed), default=0)
        self._heads = self._reasons_ahead(listed)

    def _reasons_ahead(self, listed: list[Mention]) -> dict[int, str]:
        """By where a line begins, the reason that heads it: of lists whose lines have one each, not all the same."""
        heads = {}
        for mention in listed:
            line_end = self._text.find("\n", mention.end)
            rest = self._text[mention.end : line_end if line_end >= 0 else len(self._text)]
            head, colon, between = self._text[mention.start : mention.end].rpartition(":")
            if not colon or rest.strip(_EDGES) or "@" in head or len(between) > len(mention.address) + 4:
                return {}
            heads[mention.start] = head.strip(_EDGES)
        told = set(heads.values())
        whole = len(told) > 1 and all(" " in head and not _LABEL_ALONE.fullmatch(head) for head in told)
        return heads if whole else {}

    def of(self, mention: Mention | None) -> Reason:
        """The reason for a mention; without one, what the text says at its beginning."""
        if mention is None:
            return self._beginning
        if mention.start in self._heads:
            return reason(self._heads[mention.start][:_CAP])
        own, adjacent = self._own(mention)
        if not adjacent:  # what stands below the last of a list is below them all
            own = self._concerning(own, mention)
        if own.said.smtp_code:
            return own
        named = self._reply_naming(mention)
        if named.text:
            return reason(f"{own.text} {named.text}") if own.text not in named.text else named
        if adjacent and len(self._starts) > 1:
            return own
        after = self._concerning(self._after_list, mention)
        for shared in (after, self._before_list):
            if any(shared.said):
                return shared
        return next((told for told in (own, after) if told.text), self._before_list)

    def _concerning(self, shared: Reason, mention: Mention) -> Reason:
        """What is said after the list, of this recipient: a transcript tells others' refusals as well."""
        address = mention.address.lower()
        if self._named_after <= {address}:
            return shared
        lines = [line.strip(_EDGES) for line in shared.text.split("\n") if address in line.lower()]
        return reason(" ".join(lines)) if lines else _NOTHING

    def _own(self, mention: Mention) -> tuple[Reason, bool]:
        """The rest of the line and what follows up to a blank line, or the paragraph after where that is empty.

        The second value says that it is the former, which belongs to this recipient alone.
        """
        position = bisect_right(self._starts, mention.start)
        following = self._starts[position] if position < len(self._starts) else len(self._text)
        block = self._text[mention.end : min(following, mention.end + 2 * _CAP)]
        pieces = _BLANK_LINE.split(block, maxsplit=3)
        for number, piece in enumerate(pieces[:2]):
            told = piece.strip(_EDGES)
            if _says_something(told):
                if len(told) < _LABEL and piece.rstrip().endswith((":", "：")) and len(pieces) > number + 1:
                    told = f"{told}: {pieces[number + 1].strip(_EDGES)}"  # "because:", and the reason further down
                return reason(told[:_CAP]), number == 0
        return _NOTHING, False

    def _reply_naming(self, mention: Mention) -> Reason:
        """The SMTP reply that names the address or answers its RCPT command."""
        for other in self._by_address[mention.address.lower()][:_ANSWERS_LOOKED_AT]:
            end = self._text.find("\n", other.end)
            end = len(self._text) if end < 0 else end
            line = reason(self._text[other.start : min(end, other.start + _CAP)].strip(" <>\t"))
            if line.said.smtp_code:
                return line
            if other.is_command:
                answer = reason(self._text[end + 1 : end + 1 + _CAP].split("\n>>>", 1)[0].replace("<<<", " ").strip())
                if answer.said.smtp_code:
                    return answer
        return _NOTHING

    @Once
    def _by_address(self) -> dict[str, list[Mention]]:
        told: dict[str, list[Mention]] = {}
        for mention in self._mentions:
            told.setdefault(mention.address.lower(), []).append(mention)
        return told

    @Once
    def _named_after(self) -> frozenset[str]:
        """The recipients that the text after the list names again."""
        near = (m.address.lower() for m in self._mentions if self._end <= m.start < self._end + _CAP)
        return self._listed.intersection(near)

    @Once
    def _after_list(self) -> Reason:
        return reason(self._text[self._end : self._end + _CAP].strip(_EDGES))

    @Once
    def _before_list(self) -> Reason:
        start = self._starts[0] if self._starts else 0
        return reason(self._text[max(0, start - _CAP) : start].strip(_EDGES))

    @Once
    def _beginning(self) -> Reason:
        return reason(self._text.strip()[:_CAP])


def _says_something(piece: str) -> bool:
    """Not the full stop after an address that ends a sentence, nor the rest of a list of addresses."""
    words = [word for word in piece.split() if "@" not in word] if "@" in piece else (piece,)
    return any(any(map(str.isalnum, word)) for word in words)


def failure(
    address: str,
    told: Reason,
    *,
    action: str = "failed",
    original_recipient: str | None = None,
    reporting_mta: str | None = None,
    cause: Subcategory | None = None,
) -> DeliveryFailure:
    """A record for one recipient of a free-text report; `told` is its reason as the text has it."""
    return DeliveryFailure(
        recipient=address,
        original_recipient=original_recipient,
        final_recipient=address,
        action=action,
        status=told.said.status,
        smtp_code=told.said.smtp_code,
        diagnostic=diagnostic.tidy(told.text),
        reporting_mta=reporting_mta,
        cause=cause,
    )
