"""The check of an address at the moment somebody enters it, and of each address of a list.

    check = CaptureCheck(CaptureRules.load([rules_dir()]), domain)
    found = check("ann@gmial.com")      # blocked: misspelt, "ann@gmail.com" was meant

Asked in this order, and all that is found is told: syntax (RFC 5321 and 6531, by email-validator), addresses of
functions, disposable domains, misspelt names of large providers, whether the domain takes mail (MX records, else an
address; null MX, RFC 7505), whether the address is suppressed already. The verdict is the worst of it:

    blocked   mail cannot arrive, or should not be sent: no address, no mail there, disposable, misspelt, known dead
    unknown   nothing speaks against it, and DNS gave no answer: no reason to refuse a person
    risky     mail arrives, at something that is not one person, or at somebody who stopped mail before
    ok        nothing speaks against it

What the lists hold is data (`capture.toml`). Who asks DNS, and how long, is the caller's: `domain` is a function. Pure
apart from that; linear in the length of an address. Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mailback import address
from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.store.records import MailDomain, Suppression

if TYPE_CHECKING:
    from mailback.bounce.rules import Rules

FILE = "capture.toml"
VERDICTS: Final = ("ok", "risky", "unknown", "blocked")
"""From the best to the worst."""

_LONGEST_ADDRESS = 320  # RFC 3696, erratum 1690 says 254; what is longer is refused by email-validator in its own words
_LONGEST_ORDINARY = 254
_ORDINARY = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_SPECIAL = frozenset({"alt", "arpa", "internal", "invalid", "local", "localhost", "onion", "test"})
"""Endings that are not the internet's (RFC 6761 and its kin); the library tells which may pass."""
_SHORTEST_NAME = 5  # letters of a provider's name from which on slips are looked for
_LONGEST_NAME = 40
_KEYBOARD = ("1234567890-", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_COUNTED_MAIL = frozenset({"null_mx", "no_host", "none"})
_COMPLAINT = "complaint"


class Reason(NamedTuple):
    """One thing that was found."""

    id: str
    """`syntax`, `no_domain`, `no_mail`, `disposable`, `misspelt`, `role`, `suppressed`, `opted_out`, `dns`."""
    weighs: str
    """The verdict that it alone makes."""
    says: str
    """In words."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What is to be thought of one address."""

    address: str
    """As it was entered, without blanks around it."""
    key: str
    verdict: str
    reasons: tuple[Reason, ...] = ()
    suggestion: str | None = None
    """The address that was meant, where it seems misspelt."""
    domain: str = ""
    provider: str | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "address": self.address, "verdict": self.verdict, "reasons": [reason.id for reason in self.reasons],
            "says": [reason.says for reason in self.reasons], "suggestion": self.suggestion, "domain": self.domain,
            "provider": self.provider,
        }  # fmt: skip


@dataclass(slots=True)
class CaptureRules:
    """The lists in force."""

    unread: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    disposable: set[str] = field(default_factory=set)
    disposable_mx: set[str] = field(default_factory=set)
    huge: set[str] = field(default_factory=set)
    large: set[str] = field(default_factory=set)
    real: set[str] = field(default_factory=set)
    endings: dict[str, str] = field(default_factory=dict)
    endings_of_large: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, directories: Sequence[Path], rules: Rules | None = None) -> CaptureRules:
        """Read `capture.toml` of each directory that has one; later ones add to earlier ones.

        `rules` tell the domains of providers, which are never misspelt. Raises RulesError with every problem found.
        """
        found = cls()
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, found._read)
        if problems:
            raise RulesError(problems)
        if rules is not None:
            found.real |= {host for provider in rules.providers.values() for host in provider.hosts}
        found.real |= found.huge | found.large
        return found

    def _read(self, top: Table) -> None:
        sections: dict[str, dict[str, set[str]]] = {
            "roles": {"unread": self.unread, "shared": self.shared},
            "disposable": {"domains": self.disposable, "mx": self.disposable_mx},
            "misspelt": {"huge": self.huge, "large": self.large, "real": self.real},
        }
        for section, lists in sections.items():
            if section not in top:
                continue
            table = top.table(section)
            for name, into in lists.items():
                into.update(word.lower() for _, word in table.strings(name))
            removed = {word.lower() for _, word in table.strings("remove")}
            for into in lists.values():
                into.difference_update(removed)
            if section == "misspelt":
                for name, endings in (("endings", self.endings), ("endings_of_large", self.endings_of_large)):
                    if name in table:
                        _read_endings(table.table(name), endings)
            table.finish()


def _read_endings(table: Table, into: dict[str, str]) -> None:
    for ending in table.unread():
        into[ending] = table.text(ending)


class CaptureCheck:
    """Checks addresses; as safe to share between threads as the functions that it is given."""

    def __init__(
        self,
        rules: CaptureRules,
        domain: Callable[[str], MailDomain | None] | None = None,
        suppression: Callable[[str], Suppression | None] | None = None,
    ) -> None:
        """`domain` tells what is known of a domain (None: DNS is not asked), `suppression` what holds mail to a key."""
        self._rules = rules
        self._domain = domain
        self._suppression = suppression
        self._near = lru_cache(maxsize=65_536)(self._nearest)

    def __call__(self, entered: str) -> Captured:
        """What is to be thought of an address; raises what the two functions raise."""
        text = entered.strip()
        wrong = syntax_error(text)
        key, domain = address.key(text), address.domain(text)
        if wrong is not None:
            meant = self._missing_dot(text)
            return Captured(text, key, "blocked", (Reason("syntax", "blocked", wrong),), meant, domain)
        known = self._domain(domain) if self._domain is not None else None
        reasons = list(self._reasons(text, key, domain, known))
        meant = self.misspelt(domain, known)
        if meant is not None:
            reasons.insert(0, Reason("misspelt", "blocked", f"{domain} looks like a misspelling of {meant}"))
        verdict = max((reason.weighs for reason in reasons), key=VERDICTS.index, default="ok")
        suggestion = f"{address.split(text)[0]}@{meant}" if meant is not None else None
        provider = known.provider if known is not None else None
        return Captured(text, key, verdict, tuple(reasons), suggestion, domain, provider)

    def _reasons(self, text: str, key: str, domain: str, known: MailDomain | None) -> Iterator[Reason]:
        local = address.split(text)[0].lower().partition("+")[0]
        if local in self._rules.unread:
            yield Reason("role", "blocked", f"nobody reads {local}@")
        elif local in self._rules.shared:
            yield Reason("role", "risky", f"{local}@ is a function, not a person")
        hosts = known.hosts if known is not None else ()
        if _below(domain, self._rules.disposable) or any(_below(host, self._rules.disposable_mx) for host in hosts):
            yield Reason("disposable", "blocked", f"{domain} gives out mailboxes that are thrown away")
        if known is not None and known.mail == "unknown":
            yield Reason("dns", "unknown", f"DNS gave no answer about {domain}")
        elif known is not None and known.mail in _COUNTED_MAIL:
            yield Reason(*_NO_MAIL[known.mail](domain))
        held = self._suppression(key) if self._suppression is not None else None
        if held is not None:
            yield _held(held)

    def misspelt(self, domain: str, known: MailDomain | None) -> str | None:
        """The domain that was meant; None where this one is as good as any."""
        if domain in self._rules.real:
            return None
        name, _, ending = domain.partition(".")
        takes_none = known is not None and known.mail in _COUNTED_MAIL
        last = domain.rpartition(".")[2]
        if last in self._rules.endings:
            better = domain[: -len(last)] + self._rules.endings[last]
            return better if better in self._rules.real else self._near(better, takes_none=True) or better
        if (right := self._rules.endings_of_large.get(ending)) and self._listed(f"{name}.{right}"):
            return f"{name}.{right}"
        return self._near(domain, takes_none=takes_none)

    def _listed(self, domain: str) -> bool:
        return domain in self._rules.huge or domain in self._rules.large

    def _nearest(self, domain: str, *, takes_none: bool) -> str | None:
        """The large provider whose name this one is a slip away from."""
        name, _, ending = domain.partition(".")
        if not _SHORTEST_NAME - 1 <= len(name) <= _LONGEST_NAME:
            return None
        best: tuple[int, str] | None = None
        for listed in sorted(self._rules.huge | self._rules.large if takes_none else self._rules.huge):
            wanted, _, its_ending = listed.partition(".")
            if its_ending != ending or len(wanted) < _SHORTEST_NAME or wanted == name:
                continue
            slips = distance(name, wanted)
            counts = slips <= 2 if takes_none and len(wanted) > _SHORTEST_NAME else slips == 1
            if counts and (takes_none or _is_slip(name, wanted)) and (best is None or slips < best[0]):
                best = slips, listed
        return best[1] if best else None

    def _missing_dot(self, text: str) -> str | None:
        """`ann@gmailcom` and `ann@gmail` lack what everybody can add."""
        local, _, host = text.rpartition("@")
        flat = {listed.replace(".", ""): listed for listed in sorted(self._rules.huge)}
        flat |= {
            listed.partition(".")[0]: listed for listed in sorted(self._rules.huge, reverse=True) if ".com" in listed
        }
        found = flat.get(host.lower().strip(".").replace(",", ""))
        meant = f"{local}@{found}" if local and found else None
        return meant if meant is not None and syntax_error(meant) is None else None


def syntax_error(text: str) -> str | None:
    """What is wrong with an address as such; None where nothing is."""
    if _is_ordinary(text):
        return None
    from email_validator import EmailNotValidError, validate_email

    if len(text) > _LONGEST_ADDRESS:
        return f"An address has {_LONGEST_ADDRESS} characters at most"
    try:
        validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=True,
            allow_quoted_local=True,
            test_environment=True,  # domains below .test are DNS's to refuse
            strict=True,  # RFC 5321 section 4.5.3.1.1: 64 octets before the @
        )
    except EmailNotValidError as error:
        return str(error).rstrip(".")
    except (UnicodeError, ValueError, IndexError) as error:  # of IDNA's tables, on labels made to break them
        return f"the domain cannot be written in DNS ({type(error).__name__})"
    return None if "." in address.domain(text) else "The part after the @-sign is not a domain of the internet"


def _is_ordinary(text: str) -> bool:
    """Whether it is an address beyond doubt, as nearly all are: a list has a million, and the library is slow."""
    if len(text) > _LONGEST_ORDINARY or not _ORDINARY.fullmatch(text):
        return False
    local, _, host = text.partition("@")
    labels = host.lower().split(".")
    return (
        len(local) <= 64
        and labels[-1] not in _SPECIAL
        and all(len(label) <= 63 and label[2:4] != "--" for label in labels)
    )


def distance(one: str, other: str) -> int:
    """Letters swapped with their neighbour, missing, too many or wrong, between two names; 3 stands for more than 2."""
    if abs(len(one) - len(other)) > 2:
        return 3
    two_before: list[int] = []
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
        two_before, before = before, row
    return min(before[-1], 3)


def _is_slip(name: str, wanted: str) -> bool:
    """Whether one of a finger: a wrong letter is a neighbour of the right one, a missing one is not the first, without
    which a name is often another (`mail`, `cloud`)."""
    if len(name) != len(wanted):
        return name != wanted[1:]
    wrong = [(a, b) for a, b in zip(name, wanted, strict=True) if a != b]
    return len(wrong) == 2 or all(_neighbours(a, b) for a, b in wrong)


def _neighbours(one: str, other: str) -> bool:
    places = {letter: (y, x + y / 2) for y, row in enumerate(_KEYBOARD) for x, letter in enumerate(row)}
    if one not in places or other not in places:
        return False
    (y1, x1), (y2, x2) = places[one], places[other]
    return abs(y1 - y2) <= 1 and abs(x1 - x2) <= 1


def _below(host: str, names: set[str]) -> bool:
    """Whether a host is one of the names, or below one."""
    while host:
        if host in names:
            return True
        host = host.partition(".")[2]
    return False


_NO_MAIL: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "none": lambda domain: ("no_domain", "blocked", f"{domain} does not exist, or has neither MX record nor address"),
    "null_mx": lambda domain: ("no_mail", "blocked", f"{domain} says that it takes no mail (null MX)"),
    "no_host": lambda domain: ("no_mail", "blocked", f"the MX records of {domain} lead to hosts without address"),
}


def _held(suppression: Suppression) -> Reason:
    """A mailbox that is gone stays gone; who opted out before may opt in again, and who was full may have room."""
    since = suppression.since.astimezone(UTC)
    cause = "/".join(filter(None, (suppression.type, suppression.subcategory))) or suppression.reason
    told = f"suppressed since {since:%Y-%m-%d}, {cause}"
    if suppression.type == _COMPLAINT:
        return Reason("opted_out", "risky", f"{told}: only a new opt-in of this person ends that")
    return Reason("suppressed", "risky" if suppression.until is not None else "blocked", told)


@lru_cache(maxsize=8)
def shipped_check(dns: bool, nameservers: tuple[str, ...]) -> CaptureCheck:
    """The check with the lists that ship, without a store; made once a process. Raises ValueError without a server."""
    from mailback.auth.resolver import Resolver
    from mailback.bounce import rules
    from mailback.bounce.providers import ProviderNames
    from mailback.recipient.mailhosts import MailHosts
    from mailback.resources import rules_dir

    found = rules.load([rules_dir()])
    hosts = MailHosts(Resolver(nameservers), ProviderNames(found).of_mx, lasting=False) if dns else None
    return CaptureCheck(CaptureRules.load([rules_dir()], found), hosts)
