"""Return paths whole: which form a message leaves under, and what an address is worth that something came back to.

`sign`, `verify` and `unsubscribe_address` are pure; `ReturnPaths` is these with the keys and settings of a host.
Emits no log events; the doors do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from mailback import address
from mailback.returnpath.batv import PRVS, prvs_of, verify_prvs
from mailback.returnpath.keys import Keys
from mailback.returnpath.standing import UNSIGNED, Standing, Verified
from mailback.returnpath.verp import LONGEST_LOCAL, TOKEN, Subject, token_of, verify_token

if TYPE_CHECKING:
    from mailback.settings import Settings

_LONGEST_ADDRESS = 1000
_MOST_WRAPPINGS = 5
_UNSUBSCRIBE = "unsubscribe-"

# SRS (Sender Rewriting Scheme): SRS0=hash=time=domain=local, and SRS1=hash=first forwarder==the rest of SRS0. The
# separator behind the number may be any of `=+-`.
_SRS0 = re.compile(r"srs0[=+-][^=]+=[^=]+=([^=]+)=(.+)", re.IGNORECASE)
_SRS1 = re.compile(r"srs1[=+-][^=]+=[^=]+=([=+-][^=]+=[^=]+=[^=]+=.+)", re.IGNORECASE)
_FOREIGN_TAG = re.compile(r"(?:prvs=[^=]+=|btv1==[^=]+==)(.+)", re.IGNORECASE)


def sign(sender: str, recipients: Iterable[str], keys: Keys, *, domain: str, on: date, max_age_days: int) -> str | None:
    """The return path of a message from `sender` to `recipients`; None where it stays as it is.

    That is: the null sender (RFC 5321 section 4.5.5), a message to nobody, and a return path that bears a tag already
    (draft-levine-smtp-batv-01 section 5: tags are not nested). `domain` is the bounce domain, `max_age_days` how long
    a BATV address counts; a VERP address tells the day it was signed.
    """
    if not sender or _is_tagged(sender):
        return None
    key = keys.signing(on)
    distinct = {address.key(recipient) for recipient in recipients}
    if not distinct:
        return None
    if len(distinct) == 1:
        return f"{token_of(Subject.RECIPIENT, distinct.pop(), key, on)}@{domain}"
    local = prvs_of(sender, key, domain=domain, last_day=on + timedelta(days=max_age_days))
    return f"{local or token_of(Subject.SENDER, address.key(sender), key, on)}@{domain}"


def _is_tagged(sender: str) -> bool:
    local = address.split(sender)[0]
    return TOKEN.fullmatch(local) is not None or local[:5].lower() == "prvs="


def unsubscribe_address(recipient: str, keys: Keys, *, domain: str, on: date) -> str:
    """The address of a recipient's `List-Unsubscribe` field; its local part is the token of a one-click link as well.

    Where `verify` tells no recipient for it, the journal has to know whom it was given out for.
    """
    token = token_of(
        Subject.SUBSCRIBER, address.key(recipient), keys.signing(on), on, LONGEST_LOCAL - len(_UNSUBSCRIBE)
    )
    return f"{_UNSUBSCRIBE}{token}@{domain}"


def verify(path: str, keys: Keys, *, on: date, max_age_days: int) -> Verified:
    """What an address that something came back to is worth on a day. Never raises.

    Looks behind what others wrapped around the address. The domain is not looked at, except as part of what BATV
    signs: whose it is, the caller has decided.
    """
    if len(path) > _LONGEST_ADDRESS:
        return UNSIGNED
    local, host = address.split(path)
    worst = UNSIGNED
    for _ in range(_MOST_WRAPPINGS):
        found = _verify_local(local, host, keys, on, max_age_days)
        if found.standing in (Standing.SIGNED, Standing.EXPIRED):
            return found
        worst = found if found.standing is Standing.WRONG else worst
        inner = _unwrapped(local, host)
        if inner is None:
            break
        local, host = inner
    return worst


def _unwrapped(local: str, host: str) -> tuple[str, str] | None:
    """One layer of what others do to a return path undone; None where there is none."""
    if found := _SRS1.fullmatch(local):
        return f"SRS0{found[1]}", host
    if found := _SRS0.fullmatch(local):
        return found[2], found[1]
    if found := _FOREIGN_TAG.fullmatch(local):
        return found[1], host
    if local[: len(_UNSUBSCRIBE)].lower() == _UNSUBSCRIBE:
        return local[len(_UNSUBSCRIBE) :], host
    before, plus, _ = local.partition("+")
    return (before, host) if plus and TOKEN.fullmatch(before) else None


def _verify_local(local: str, host: str, keys: Keys, on: date, max_age_days: int) -> Verified:
    if found := TOKEN.fullmatch(local):
        return verify_token(found, keys, on, max_age_days)
    if found := PRVS.fullmatch(local):
        return verify_prvs(found, host, keys, on, max_age_days)
    return UNSIGNED


@dataclass(frozen=True, slots=True)
class ReturnPaths:
    """The keys with the settings that go with them: what the doors and the engine hold."""

    keys: Keys
    domain: str
    """The bounce domain, as `address.domain_key` writes it."""
    max_age_days: int
    senders: frozenset[str] = frozenset()
    """Domains whose mail is signed, as A-labels; empty: every sender's."""
    exempt: frozenset[str] = frozenset()
    """Recipients, as addresses or whole domains, whose mail goes out with the return path as it is."""

    def sign(self, sender: str, recipients: Sequence[str], at: datetime | None = None) -> str | None:
        """The return path for a message that goes out now; None where it stays as it is."""
        if self.senders and address.domain(sender) not in self.senders:
            return None
        if self.exempt and any(self._is_exempt(recipient) for recipient in recipients):
            return None
        return sign(sender, recipients, self.keys, domain=self.domain, on=_day(at), max_age_days=self.max_age_days)

    def verify(self, path: str, at: datetime | None = None) -> Verified:
        """What an address is worth now."""
        return verify(path, self.keys, on=_day(at), max_age_days=self.max_age_days)

    def refuses(self, path: str, at: datetime | None = None) -> Standing | None:
        """Why mail from the null sender to an address answers no mail of ours; None where it may.

        Only addresses in the bounce domain are told apart; `postmaster` takes mail from anybody (RFC 5321 section
        4.5.1).
        """
        if address.domain(path) != self.domain or address.split(path)[0].lower() == "postmaster":
            return None
        standing = self.verify(path, at).standing
        return None if standing is Standing.SIGNED else standing

    def unsubscribe_address(self, recipient: str, at: datetime | None = None) -> str:
        """The address of a recipient's `List-Unsubscribe` field."""
        return unsubscribe_address(recipient, self.keys, domain=self.domain, on=_day(at))

    def _is_exempt(self, recipient: str) -> bool:
        return address.key(recipient) in self.exempt or address.domain(recipient) in self.exempt


def _day(at: datetime | None) -> date:
    return (at or datetime.now(UTC)).astimezone(UTC).date()


def load(settings: Settings) -> ReturnPaths | None:
    """What the settings ask for; None where signing is off. Raises KeyFileError with every problem of the key file."""
    signing, mail = settings.signing, settings.mail
    if signing.secret_file is None or mail.bounce_domain is None:
        return None
    domain = address.domain_key(mail.bounce_domain)
    ours = frozenset(map(address.domain_key, mail.sending_domains))
    return ReturnPaths(
        Keys.load(signing.secret_file),
        domain,
        signing.max_age_days,
        senders=ours | {domain} if ours else ours,
        exempt=frozenset(map(address.key, signing.exempt_recipients)),
    )
