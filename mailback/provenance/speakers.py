"""Who may report about recipients once it is authenticated: `config/rules/speakers.toml`.

Emits no log events: loading raises RulesError with every problem, file and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailback import address
from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.bounce.taxonomy import Kind

FILE = "speakers.toml"


@dataclass(frozen=True, slots=True)
class Voice:
    """An author who is authenticated, and whom he may speak for."""

    domain: str
    """Himself, and all whose mail servers are his."""
    recipients: frozenset[str] = frozenset()
    """Further domains."""
    anybody: bool = False
    """Every domain: a service that reports for many providers."""


@dataclass(slots=True)
class Speakers:
    """The authors that no customer of a provider can be."""

    mail_systems: set[str] = field(default_factory=set)
    complaint_roles: set[str] = field(default_factory=set)
    feedback: dict[str, Voice] = field(default_factory=dict)
    """By the address of the sender, or by a domain that he and his subdomains have."""

    @classmethod
    def load(cls, directories: Sequence[Path]) -> Speakers:
        """Read `speakers.toml` of each directory that has one. Raises RulesError with every problem found."""
        speakers = cls()
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, speakers._read)
        if problems:
            raise RulesError(problems)
        return speakers

    def voice(self, author: str, domain: str, kind: Kind) -> Voice | None:
        """Whom an authenticated author may speak for; None for one who may be anybody's customer.

        `author` is an address of `domain`, or the null sender of a server of that name.
        """
        local = address.split(author)[0].lower()
        if kind is Kind.COMPLAINT:
            known = next((self.feedback[name] for name in _names(author, domain) if name in self.feedback), None)
            if known is not None:
                return known
            if local in self.complaint_roles:
                return Voice(domain)
        return Voice(domain) if not author or local in self.mail_systems else None

    def _read(self, top: Table) -> None:
        for name, known in (("mail_system", self.mail_systems), ("complaint", self.complaint_roles)):
            if name in top:
                table = top.table(name)
                known.update(text.lower() for _, text in table.strings("localparts"))
                table.finish()
        for table in top.list_of_tables("feedback"):
            table.text("name")
            recipients = frozenset(address.domain_key(text) for _, text in _listed(table, "recipients"))
            for _, sender in table.strings("senders"):
                domain = address.domain(sender) if "@" in sender else address.domain_key(sender)
                key = address.key(sender) if "@" in sender else domain
                self.feedback[key] = Voice(domain, recipients, anybody=not recipients)
            table.finish()


def _names(author: str, domain: str) -> Iterator[str]:
    """What an author may be listed as: his address, his domain, and each domain above that."""
    yield address.key(author)
    while "." in domain:
        yield domain
        domain = domain.partition(".")[2]


def _listed(table: Table, key: str) -> list[tuple[int, str]]:
    return table.strings(key) if key in table else []
