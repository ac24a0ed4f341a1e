"""What an address turned out to be worth as a proof. Emits no log events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum

REFUSAL = "this return path was not given out by us, or too long ago: no mail of ours is answered here"
"""What a door tells who sends a bounce to an address that is not signed, with 550 5.7.1."""


class Standing(Enum):
    """What an address is worth as a proof."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    """It bears no mark of ours."""
    WRONG = "wrong"
    """It bears our form, and the MAC is another: forged, mangled, or by a key that is gone."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Verified:
    """What an address turned out to be; recipient, sender and day are told of signed and expired ones only."""

    standing: Standing
    recipient: str | None = None
    """To whom the message went, as look-ups compare it; None where the address is not about one recipient."""
    sender: str | None = None
    """The return path as it was before it was signed, where the address itself tells it."""
    return_path: str | None = None
    """The local part as it was given out, in lower case: what the journal knows the message by."""
    names_recipient: bool = False
    """Given out for one recipient: where `recipient` is None, the journal knows whom."""
    unsubscribes: bool = False
    """Given out to unsubscribe its recipient, and for nothing else."""
    day: date | None = None
    """When it was signed (VERP), or the last day on which it counts (BATV)."""

    @property
    def signed(self) -> bool:
        return self.standing is Standing.SIGNED


UNSIGNED = Verified(Standing.UNSIGNED)
WRONG = Verified(Standing.WRONG)
