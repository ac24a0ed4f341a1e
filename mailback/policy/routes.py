"""How a reply of a route is delivered: held, refused, sent elsewhere, copied, tagged in its subject.

All of it is off unless the settings say otherwise, but for replies that are not safe, which are held. A reply is
refused for malware only, where that is asked for; its meaning never has it refused or thrown away. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.header import Header
from typing import TYPE_CHECKING

from mailback.reply.safety import Safety, Verdict

if TYPE_CHECKING:
    from mailback.settings import RepliesSettings

OWNER = "owner"
"""Stands for whose the reply is among the further recipients."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one reply is delivered."""

    held: str | None = None
    """Why it is held for a person; None where it is not."""
    refused: str | None = None
    """Why it is refused."""
    subject_tag: str | None = None
    """As it stands in the header: ASCII, on one line."""
    redirect: str | None = None
    """The only recipient, instead of all it was addressed to."""
    copies: tuple[str, ...] = ()
    """Further recipients."""


AS_ADDRESSED = Delivery()


@dataclass(frozen=True, slots=True)
class RouteActions:
    """The actions of `[replies]`, by route."""

    malware: str = "quarantine"
    unsafe: str = "quarantine"
    held: frozenset[str] = frozenset()
    subject_tags: Mapping[str, str] = field(default_factory=dict)
    redirects: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: RepliesSettings) -> RouteActions:
        copies: dict[str, tuple[str, ...]] = {}
        for route, target in _pairs(settings.copy_to):
            copies[route] = (*copies.get(route, ()), target)
        return cls(
            malware=settings.malware,
            unsafe=settings.unsafe,
            held=frozenset(settings.quarantine),
            subject_tags={route: _in_header(tag) for route, tag in _pairs(settings.subject_tags)},
            redirects=dict(_pairs(settings.rewrite_to)),
            copies=copies,
        )

    def delivery(self, route: str, safety: Safety, owner: str | None) -> Delivery:
        """How a reply of that route is delivered."""
        action = self._of_verdict(safety.verdict)
        if action == "reject":
            return Delivery(refused=f"{safety.verdict.value}: {', '.join(safety.signals)}")
        held = None
        if action == "quarantine":
            held = f"{safety.verdict.value}: {', '.join(safety.signals)}"
        elif route in self.held:
            held = f"replies of the route {route} are held"
        told = (owner if target == OWNER else target for target in self.copies.get(route, ()))
        copies = tuple(dict.fromkeys(target for target in told if target))
        return Delivery(held, None, self.subject_tags.get(route), self.redirects.get(route), copies)

    def _of_verdict(self, verdict: Verdict) -> str:
        if verdict in (Verdict.CLEAN, Verdict.SPAM):  # spam has a route of its own
            return "tag"
        return self.malware if verdict is Verdict.MALWARE else self.unsafe


def _in_header(tag: str) -> str:
    """Text as a header field has it: as it is, or as an encoded word (RFC 2047)."""
    return tag if tag.isascii() else Header(tag, "utf-8", maxlinelen=998).encode()


def _pairs(told: Iterable[str]) -> list[tuple[str, str]]:
    return [(route, value) for route, _, value in (text.partition("=") for text in told)]
