"""Whose a reply is: the contact's owner, else who sent the original, else the account's, else the mailbox's own.

Owners of contacts, accounts (domains) and mailboxes are data: `replies_owners.toml` of the operator's rules, which a
CRM can write; a reload takes it up. Emits no log events: loading raises RulesError with every problem, file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailback import address
from mailback.bounce.rulefile import RulesError, Table, read_table

FILE = "replies_owners.toml"
RECIPIENT, NOBODY = "recipient", "nobody"
"""Words of `replies.default_owner`: whoever reads the mailbox that it came to; or a person has to claim it."""


@dataclass(slots=True)
class Owners:
    """Owners by contact (`address.key`), by account (domain) and by mailbox of ours."""

    contact: dict[str, str] = field(default_factory=dict)
    account: dict[str, str] = field(default_factory=dict)
    mailbox: dict[str, str] = field(default_factory=dict)
    default: str = RECIPIENT

    @classmethod
    def load(cls, directories: Sequence[Path], default: str = RECIPIENT) -> Owners:
        """The file of each directory that has one, later entries over earlier ones.

        Raises RulesError with every problem found.
        """
        owners = cls(default=default)
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, owners._read)
        if problems:
            raise RulesError(problems)
        return owners

    def owner(self, contact: str | None, original_sender: str | None, recipients: Iterable[str]) -> str | None:
        """Whose a reply of `contact` to `recipients` is; None where nobody is found."""
        found = self._of_contact(contact) or original_sender or self._of_account(contact)
        return found or self._of_mailbox(tuple(recipients))

    def _of_contact(self, contact: str | None) -> str | None:
        return self.contact.get(address.key(contact)) if contact and self.contact else None

    def _of_account(self, contact: str | None) -> str | None:
        """By the contact's domain, or one above it."""
        domain = address.domain(contact) if contact and self.account else ""
        while "." in domain:
            if domain in self.account:
                return self.account[domain]
            domain = domain.partition(".")[2]
        return None

    def _of_mailbox(self, recipients: Sequence[str]) -> str | None:
        for recipient in recipients:
            if (owner := self.mailbox.get(address.key(recipient))) is not None:
                return owner
        if self.default == RECIPIENT:
            return next(iter(recipients), None)
        return None if self.default == NOBODY else self.default

    def _read(self, top: Table) -> None:
        for name, known, of_domains in (
            ("contact", self.contact, False), ("account", self.account, True), ("mailbox", self.mailbox, False),
        ):  # fmt: skip
            if name not in top:
                continue
            table = top.table(name)
            for who in table.unread():
                owner = table.text(who)
                if not (of_domains or address.is_address(who)):
                    table.wrong(f"{who!r} is no mail address", who)
                if not address.is_address(owner):
                    table.wrong(f"{owner!r} is no mail address", who)
                known[address.domain_key(who) if of_domains else address.key(who)] = owner
