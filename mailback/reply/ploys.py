"""What a text is up to, by kinds of words that stand together: a bank that has changed and bills to pay, vouchers and
their codes, a blocked account and a link to prove it by.

No single word of these is wrong; honest people write of banks, invoices, passwords and parcels all the time. So a ploy
names several kinds, which must stand within a few lines of each other, and kinds that speak against it: who tells of
`my password`, or asks where to change the bank, is not after ours.

Kinds and ploys are data (`[ploy]` of `replies_safety.toml`). Linear in the text, which is read in overlapping windows.
Log events: none; never raises on any text. A wrong rule raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mailback.bounce.rulefile import RulesError
from mailback.reply.phrases import Phrases, Text
from mailback.reply.rulefiles import Lists
from mailback.reply.signs import Sign, Verdict
from mailback.reply.words import fold

KINDS = (
    *("account", "blocked", "prove", "danger", "secret", "enter", "username", "answer", "bank", "changed"),
    *("pay", "pressed", "where", "done", "complains", "same", "former", "wages", "moving", "gift_card", "codes"),
    *("parcel", "fee", "refund", "claim", "file", "charge", "not_you", "yours", "firsthand", "mine", "ranking"),
    *("offers", "placed_link", "price", "coins", "gain", "easy", "per_day", "millions", "dead", "contacts"),
    *("sale", "loan", "unasked", "factory", "catalogue", "developers", "hourly", "casino", "bonus"),
    *("followers", "filmed", "ransom", "thing", "act", "loss", "bait", "prize", "collect", "visitors"),
    *("pitch", "fakes", "slimming", "miracle"),
)
TABLES = {"ploy": ("signs", *KINDS)}
"""What of `replies_safety.toml` is read here."""

_ELIDED = re.compile(r"\b(l|d|qu|n|s|j|m|t|c|un|dell|all|nell|sull|dall|quest)'")
"""French and Italian articles that are bound to the next word: `l'iban` is an IBAN."""
LINK, FOREIGN, COLD, _ASKS = "link", "foreign", "cold", "asks"
_WINDOW, _STEP = 70, 35  # words
_ROW = re.compile(
    r"(?P<verdict>[a-z]+) (?P<chance>0\.\d+) (?P<says>[a-z_]+) = (?P<all>[a-z_, ]+?)(?:; not (?P<no>.+))?"
)


class _Row(NamedTuple):
    sign: Sign
    needed: frozenset[str]
    barred: frozenset[str]


class PloyRules:
    """Kinds of words, and what they make together."""

    def __init__(self, told: Lists) -> None:
        self._kinds = Phrases({kind: told[f"ploy.{kind}"] for kind in KINDS})
        self._rows = tuple(map(_row, told["ploy.signs"]))

    def found(self, text: str, beside: frozenset[str] = frozenset()) -> Iterator[Sign]:
        """Every ploy of a text, once; `beside` tells what is there beside its words: `LINK`, `FOREIGN`, `COLD`."""
        text = _ELIDED.sub(r"\1 ", fold(text))
        whole = Text(text)
        kinds = self._of(whole, text) | beside
        likely = [row for row in self._rows if row.needed <= kinds]
        if not likely:
            return
        words = text.split()
        windows = (
            [kinds] if len(words) <= _WINDOW else [self._of(Text(part), part) | beside for part in _windows(words)]
        )
        for row in likely:
            if any(row.needed <= there and row.barred.isdisjoint(there) for there in windows):
                yield row.sign

    def _of(self, text: Text, written: str) -> set[str]:
        kinds = set(self._kinds.found(text))
        if "?" in written or "？" in written:
            kinds.add(_ASKS)
        return kinds


def _windows(words: list[str]) -> Iterator[str]:
    for start in range(0, max(1, len(words) - _STEP), _STEP):
        yield " ".join(words[start : start + _WINDOW])


def _row(line: str) -> _Row:
    match = _ROW.fullmatch(" ".join(line.split()))
    if match is None:
        raise RulesError([f"{line!r} under [ploy] signs: expected VERDICT CHANCE NAME = KIND, KIND; not KIND"])
    needed, barred = (frozenset(re.findall(r"\w+", match[name] or "")) for name in ("all", "no"))
    known = {*KINDS, LINK, FOREIGN, COLD, _ASKS}
    if match["verdict"] not in {verdict.value for verdict in Verdict} or not needed | barred <= known:
        wrong = ", ".join(sorted((needed | barred) - known)) or match["verdict"]
        raise RulesError([f"{line!r} under [ploy] signs: no such kind or verdict: {wrong}"])
    return _Row(Sign(Verdict(match["verdict"]), float(match["chance"]), match["says"]), needed, barred)
