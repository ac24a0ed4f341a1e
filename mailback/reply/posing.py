"""Writers who pose as somebody: as one of ours from outside, from a domain that looks like ours, under a famous name.

Log events: none; never raises on any message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from mailback import address
from mailback.auth.domains import organizational
from mailback.message import Message
from mailback.reply import contact, lookalike
from mailback.reply.lookalike import Alike
from mailback.reply.signs import Sign, Verdict
from mailback.reply.words import squeeze

_IMPERSONATION, _PHISHING = Verdict.IMPERSONATION, Verdict.PHISHING
_NAMES = 50
_LONG_LABEL = 7  # letters from which a name that differs in one is no accident
_LONG_ENOUGH = 5  # letters from which a name within another is no accident
_ADDRESS = re.compile(r"[\w.+-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
_NAME_WORD = re.compile(r"[^\W_.]+(?:\.[^\W_]+)*")
_NAME_PART = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_NAME_READ = 200
_VIA = re.compile(r"\b(?:via|uber|por|par|tramite)\b")


@dataclass(frozen=True)
class Writer:
    """Who wrote a message, as its header says."""

    message: Message

    @cached_property
    def _author(self) -> tuple[str, str]:
        return contact.author(self.message.header("from"))

    @property
    def name(self) -> str:
        return self._author[0]

    @property
    def address(self) -> str:
        return self._author[1]

    @cached_property
    def domain(self) -> str:
        return address.domain(self.address)

    @cached_property
    def reply_domain(self) -> str:
        """Where answers would go; the writer's own domain where nothing else is said."""
        told = self.message.header("reply-to")[:2000]
        return (address.domain(contact.author(told)[1]) if told else "") or self.domain

    @cached_property
    def addressed(self) -> list[tuple[str, str]]:
        """Name and domain of those whom it is to."""
        told = contact.addressed(self.message.header("to"))[:_NAMES]
        return [(name[:500], domain) for name, who in told if (domain := address.domain(who))]


def ours(writer: Writer, domains: frozenset[str]) -> frozenset[str]:
    """Our domains; where nobody has told them, those that the message is to: it was delivered to us."""
    return domains or frozenset(domain for _, domain in writer.addressed)


def below(domain: str, domains: frozenset[str]) -> bool:
    """Whether a domain is one of these, or below one."""
    return any(domain == known or domain.endswith(f".{known}") for known in domains)


class Likeness(Protocol):
    """What of the rules tells who looks like somebody else."""

    @property
    def added(self) -> frozenset[str]: ...
    @property
    def titles(self) -> re.Pattern[str]: ...
    @property
    def alike(self) -> Alike: ...


def signs(writer: Writer, names: frozenset[str], domains: frozenset[str], rules: Likeness) -> Iterator[Sign]:
    """Signs that a writer from outside poses as one of ours."""
    if not writer.domain:
        return
    yield from _named_like_ours(writer, names, domains, rules)
    yield from _address_in_name(writer, domains)
    yield from _domain_like_ours(writer.domain, domains, rules.added, rules.alike)
    if lookalike.mixes_scripts(lookalike.shown(writer.domain)):
        yield Sign(_IMPERSONATION, 0.55, "homograph_domain")


def elsewhere(writer: Writer) -> bool:
    """Whether answers would go to another organisation than the writer's."""
    return organizational(writer.reply_domain) != organizational(writer.domain)


def _named_like_ours(writer: Writer, names: frozenset[str], domains: frozenset[str], rules: Likeness) -> Iterator[Sign]:
    if not writer.name:
        return
    bare = _untitled(writer.name, rules.titles)
    shown = (writer.name, bare) if " " in bare else (writer.name,)
    if squeeze(writer.name) in set(map(squeeze, names)) or any(
        lookalike.same_person(one, name, rules.alike) for name in names for one in shown
    ):
        yield Sign(_IMPERSONATION, 0.7, "display_name_of_ours")
    elif " " in writer.name and any(
        below(domain, domains) and lookalike.same_person(one, name, rules.alike)
        for name, domain in writer.addressed
        for one in shown
    ):
        yield Sign(_IMPERSONATION, 0.6, "display_name_of_ours")


def _untitled(name: str, titles: re.Pattern[str]) -> str:
    """`CEO Ada Quill`, `Ada Quill (Director)`: the name alone."""
    words = " ".join(_NAME_PART.findall(name[:_NAME_READ]))
    kept = titles.sub(" ", squeeze(words))
    return words if kept == squeeze(words) else " ".join(kept.split())


def _address_in_name(writer: Writer, domains: frozenset[str]) -> Iterator[Sign]:
    """An address as a display name, which is all that many mail programs show."""
    found = _ADDRESS.search(writer.name)
    if found is None or _VIA.search(squeeze(writer.name)):
        return
    named = address.domain_key(found[1])
    if below(named, domains):
        yield Sign(_IMPERSONATION, 0.75, "address_of_ours_in_name")
    elif organizational(named) != organizational(writer.domain):
        yield Sign(_IMPERSONATION, 0.25, "address_in_name")


def _domain_like_ours(domain: str, domains: frozenset[str], added: frozenset[str], alike: Alike) -> Iterator[Sign]:
    if not domains:  # asking for the public suffix would load the whole list, at the start of every command
        return
    theirs = lookalike.shown(domain)
    label = lookalike.shown(lookalike.registered(domain))
    for our in domains:
        own_label = lookalike.registered(our)
        if alike.skeleton(theirs) == alike.skeleton(our) or (
            label != own_label and len(own_label) >= _LONG_ENOUGH and alike.skeleton(label) == alike.skeleton(own_label)
        ):
            yield Sign(_IMPERSONATION, 0.8, "lookalike_domain")
        elif len(own_label) >= _LONG_LABEL and lookalike.near(label, own_label):
            yield Sign(_IMPERSONATION, 0.6, "lookalike_domain")
        elif len(own_label) >= _LONG_ENOUGH and _with_words(label, own_label, added):
            yield Sign(_IMPERSONATION, 0.55, "lookalike_domain")
        elif f".{our}." in f".{domain}.":  # ours as the beginning of a longer name: example.com.evil.test
            yield Sign(_IMPERSONATION, 0.7, "lookalike_domain")


def _with_words(label: str, own: str, added: frozenset[str]) -> bool:
    """Ours with a word that such letters add: `example-support`, `login-example`, `examplebilling`."""
    if not (label.startswith(own) or label.endswith(own)):
        return False
    rest = label.replace(own, "", 1).strip("-")
    return bool(rest) and all(word in added for word in rest.split("-"))


def of_brand(writer: Writer, bearers: dict[str, frozenset[str]]) -> bool:
    """Whether the writer bears a famous name without being of its domains."""
    if not writer.name:
        return False
    shown = f" {' '.join(_NAME_WORD.findall(squeeze(writer.name)))} "
    return any(
        brand in shown and (f" {brand} " in shown or not brand.isascii()) and not below(writer.domain, allowed)
        for brand, allowed in bearers.items()
    )
