"""Challenges and moderation holds: the mail was not refused, somebody has to do something before it arrives.

Log events: none; nothing here raises on any bytes.

Told by the fields that challenge programs set and the services that send for them, else by subject *and* text
together, because each phrase alone also stands in people's mail; in automatic mail a phrase that only challenges have
is enough.
"""

from __future__ import annotations

from mailback.bounce.taxonomy import Kind
from mailback.reports import original as originals
from mailback.reports.bounces import explanation
from mailback.reports.facts import Facts
from mailback.reports.phrases import says
from mailback.reports.report import Report


def read(facts: Facts) -> Report | None:
    """A demand to confirm, or the notice of a mailing list that a moderator has the message."""
    said = facts.words
    certain = not facts.message.headers.names.isdisjoint(said.challenge_headers) or _from_service(facts)
    automatic = not facts.daemon and (facts.null_sender or facts.get("auto-submitted").startswith("auto-"))
    challenge = "challenge_subjects" in facts.subject_says
    moderation = "moderation_subjects" in facts.subject_says
    if not certain and not automatic and (facts.answers or not (challenge or moderation) or _from_person(facts)):
        return None
    text = explanation(facts)
    lower = text[:8000].lower()
    if not (
        certain
        or (automatic and says(lower, said.challenge_certain))
        or (challenge and says(lower, said.challenge_texts))
        or (moderation and says(lower, said.moderation_texts))
    ):
        return None
    return Report(
        kind=Kind.CHALLENGE,
        dialect="moderation" if moderation else "challenge",
        explanation=lambda: text,
        returned=lambda: originals.of_message(facts.message, facts.names),
    )


def _from_service(facts: Facts) -> bool:
    """Whether a service that challenges wrote this, by the domains of its sender."""
    hosts = facts.words.challenge_hosts
    for address in (facts.sender, facts.return_path or ""):
        domain = address.rpartition("@")[2].lower()
        if domain.endswith(hosts) and (domain in hosts or domain.endswith(tuple(f".{host}" for host in hosts))):
            return True
    return False


_MACHINES = frozenset({"precedence", "list-id", "x-auto-response-suppress", "x-mailman-version", "x-beenthere"})


def _from_person(facts: Facts) -> bool:
    """Whether nothing shows a machine: who writes is who gets the bounces, and no field is there that machines set."""
    sender = facts.sender.lower()
    envelope = (facts.return_path or "").lower()
    if envelope != sender or facts.daemon or sender.startswith(("no-", "noreply", "confirm", "verify", "challenge")):
        return False
    return facts.message.headers.names.isdisjoint(_MACHINES)
