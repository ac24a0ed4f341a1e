"""What the readers of safety find: one sign at a time, a chance of one verdict.

Signs of one verdict add up as chances do: two that are each wrong in half of the cases are both wrong in a quarter.
Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """What a reply is, beside what it says; of equally likely ones the later is told, the worst last."""

    CLEAN = "clean"
    SPAM = "spam"
    ABUSE = "abuse"
    IMPERSONATION = "impersonation"
    PHISHING = "phishing"
    MALWARE = "malware"


class Sign(NamedTuple):
    """One thing that was found."""

    verdict: Verdict
    chance: float
    """Between 0 and 1: how often a message with this sign, and no other, is what the verdict says."""
    says: str
    """Its name, as `safety.signals` tells it."""


SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


def scores(signs: Iterable[Sign]) -> dict[Verdict, float]:
    """How likely each verdict is; a sign that was found twice counts once."""
    strongest: dict[tuple[Verdict, str], float] = {}
    for verdict, chance, says in signs:
        strongest[verdict, says] = max(chance, strongest.get((verdict, says), 0.0))
    wrong: dict[Verdict, float] = {}
    for (verdict, _), chance in strongest.items():
        wrong[verdict] = wrong.get(verdict, 1.0) * (1.0 - chance)
    return {verdict: 1.0 - chance for verdict, chance in wrong.items()}
