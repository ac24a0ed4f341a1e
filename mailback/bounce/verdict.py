"""Why a delivery failed, as decided, with the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mailback.bounce.taxonomy import CAUSES, Fault, Subcategory, Type


class Evidence(NamedTuple):
    """One vote of one layer."""

    layer: str
    """`status`, `text`, `provider`, `model`, `engagement` or `report`."""
    rule: str
    """Which rule: an enhanced status code, the id of a text rule, the name of a model."""
    weight: float
    says: str
    """The subcategory voted for."""
    text: str = ""
    """The words that matched, capped."""

    def to_dict(self) -> dict[str, object]:
        told: dict[str, object] = {
            "layer": self.layer, "rule": self.rule, "weight": round(self.weight, 3), "says": str(self.says),
        }  # fmt: skip
        return told | ({"text": self.text} if self.text else {})


@dataclass(frozen=True, slots=True)
class Risk:
    """Each 0..1: how much this failure endangers further delivery, the sender's reputation, the contact's interest."""

    deliverability: float
    reputation: float
    engagement: float

    def to_dict(self) -> dict[str, float]:
        return {
            "deliverability": round(self.deliverability, 3),
            "reputation": round(self.reputation, 3),
            "engagement": round(self.engagement, 3),
        }


UNKNOWN_RISK = Risk(0.5, 0.5, 0.5)


class Verdict(NamedTuple):
    """What the layers decided for one recipient."""

    type: Type
    subcategory: Subcategory
    confidence: float
    evidence: tuple[Evidence, ...] = ()
    risk: Risk = UNKNOWN_RISK

    @property
    def fault(self) -> Fault | None:
        return CAUSES[self.subcategory].fault

    @property
    def permanent(self) -> bool:
        """True only for a recipient fault that will not heal, told as a final failure."""
        return self.type is Type.HARD_BOUNCE and CAUSES[self.subcategory].permanent
