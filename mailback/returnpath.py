"""Return paths that prove themselves: what the envelope sender of our mail looks like, and what comes back to it.

Whoever sends a bounce to a signed return path has seen a message of ours, or somebody who has. Two forms:

    v1dkq4f...@bounce.example.com               mail to one recipient: a variable envelope return path (VERP)
    prvs=1337ab12cd=news=example.com@bounce...  the rest: BATV (draft-levine-smtp-batv-01, "simple private signature")

**VERP.** The local part is one word of digits and letters, read without regard to case, because case does not survive
all the servers on the way, and without any delimiter, because `+`, `-` and `=` mean something to some of them:

    v    1    dk    0123456789ab    ...
    form key  day   tag (60 bits)   body

A DSN is believed for the recipient that the *address* tells, whatever the report says, so the recipient must come out
of it without asking anybody: a door refuses at RCPT, where there is no time for a database, and a restored backup or a
second host may not know the journal entry. So the body is the recipient itself, encrypted. Each of the characters that
an unquoted address has takes six bits, which leaves room for addresses of up to 40 characters within the 64 octets of
RFC 5321 section 4.5.3.1.1. Only an address that is longer, quoted or not ASCII is told by a reference (80 bits, keyed,
the same for the same recipient) that the journal resolves; the address proves itself all the same.

The construction is that of a synthetic initialisation vector (RFC 5297): the tag is an HMAC-SHA256 of form, key, day
and recipient, truncated, and at the same time the nonce of the encryption. So one address a recipient and day comes out
(greylisting and sender reputation on the other side keep working), nothing random is needed, and a flipped bit
anywhere gives another recipient, whose tag does not fit. Others see the length in steps of four characters, and
whether two return paths of one day are for the same recipient; the journal's form shows that across days.

**BATV**, where the draft is departed from: the MAC is HMAC-SHA256 over the address as look-ups compare it, so that it
survives case folding; a sender outside the bounce domain stands as `local=domain`; and a tag is never laid over one of
ours. The form itself (`prvs=KDDDSSSSSS=`) is kept to the letter, because mailing lists, greylisting servers and
anti-spam gateways know it and look behind it. Its 24 bits are little and it names no recipient: see
`mailback.provenance.grading` for how little it proves alone. What does not fit 64 octets becomes an address like
VERP's, with the sender in the body.

What others do to a return path is undone before it is read: SRS0 and SRS1 (sender rewriting by a forwarder), a
`prvs=` or `btv1==` of somebody else around ours, `+extension` behind it. That is safe: what is inside must prove
itself.

**Unsubscribing.** The address of a `List-Unsubscribe` field (RFC 2369, RFC 8058) is a VERP address of a form of its own
behind the word `unsubscribe-`: a return path, which every server on the way has seen, does not unsubscribe, and the
other way round. It counts for years, as mail is kept.

Mailing lists that know their posters by the envelope sender see a new one each day. Recipients there belong in
`signing.exempt_recipients`: their mail goes out with the return path as it is.

Keys: see `Keys`. Emits no log events; the doors do.
"""

from __future__ import annotations

import hmac
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mailback import address

if TYPE_CHECKING:
    from mailback.settings import Settings

LONGEST_LOCAL = 64
"""Octets of a local part, RFC 5321 section 4.5.3.1.1."""
MOST_KEYS = 10
"""The key id is one digit (draft-levine-smtp-batv-01 section 4)."""

_EPOCH = date(1970, 1, 1).toordinal()
_DAYS = 1024  # of the two letters of a token
_PRVS_DAYS = 1000  # of the three digits of BATV
_CLOCK_SKEW_DAYS = 1  # signed a moment ago by a host on which it is tomorrow already
_TAG_LETTERS = 12
_REFERENCE_OCTETS = 10
_BODY_OCTETS = 30  # 48 letters
_MOST_WRAPPINGS = 5
_LONGEST_ADDRESS = 1000


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


class Subject(Enum):
    """Whom an address names in its body."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    SUBSCRIBER = "subscriber"
    """A recipient, in an address that unsubscribes."""


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


class KeyFileError(Exception):
    """The key file cannot be used; `problems` holds everything that is wrong with it, never a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Key:
    """One secret, its id, and the first day (UTC) on which it signs."""

    id: int
    start: date
    secret: bytes = field(repr=False)
    tags: bytes = field(init=False, repr=False, compare=False)
    seals: bytes = field(init=False, repr=False, compare=False)
    references: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("tags", "seals", "references"):  # a key for each use, none tells of another
            object.__setattr__(self, name, _mac(self.secret, b"mailback return path " + name.encode()))


_KEY_LINE = re.compile(r"([0-9])\s+(\d{4}-\d\d-\d\d)\s+([0-9a-fA-F]{64})")
_HEADER = """\
# Keys that return paths are signed with, one a line: id, first day (UTC) on which it signs, secret.
# The youngest that has begun signs; all of them are accepted. Written by `mailback signing`. Keep this file secret,
# and the same on every host that sends for, or receives at, the bounce domain.
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a key file, youngest last."""

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, text: str, file: str = "key file") -> Keys:
        """Read a key file. Raises KeyFileError with every problem, each with its line."""
        keys: list[Key] = []
        problems: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = _key_of(line)
            if key is None:
                problems.append(f"{file}:{number}: expected an id from 0 to 9, a day and 64 hexadecimal digits")
            elif any(key.id == other.id for other in keys):
                problems.append(f"{file}:{number}: the id {key.id} is taken by another key")
            else:
                keys.append(key)
        if not keys and not problems:
            problems.append(f"{file}: holds no key; make one: mailback signing keygen")
        if problems:
            raise KeyFileError(problems)
        return cls(tuple(sorted(keys, key=lambda key: key.start)))

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Read the key file at `path`. Raises KeyFileError."""
        try:
            return cls.parse(path.read_text("ascii"), str(path))
        except OSError as error:
            raise KeyFileError([f"{path}: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise KeyFileError([f"{path}: is no key file"]) from error

    def text(self) -> str:
        """The key file."""
        return _HEADER + "".join(f"{key.id} {key.start.isoformat()} {key.secret.hex()}\n" for key in self.keys)

    def signing(self, on: date) -> Key:
        """The key that signs on a day: the youngest that has begun, or the first to begin where none has."""
        begun = [key for key in self.keys if key.start <= on]
        return begun[-1] if begun else self.keys[0]

    def find(self, key_id: int) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def rotated(self, secret: bytes, start: date, *, on: date, max_age_days: int) -> Keys:
        """With a new key from `start`, and without those whose last signature has run out.

        Raises ValueError when all ten ids are in use, or another key begins later than the new one.
        """
        if any(key.start >= start for key in self.keys):
            raise ValueError("a key that begins on that day or later is there already")
        kept = tuple(
            key
            for key, successor in zip(self.keys, (*self.keys[1:], None), strict=True)
            if successor is None or successor.start + timedelta(days=max_age_days + _CLOCK_SKEW_DAYS) >= on
        )
        return Keys((*kept, Key(_free_id(kept), start, secret)))


def _key_of(line: str) -> Key | None:
    found = _KEY_LINE.fullmatch(line.strip())
    if found is None:
        return None
    try:
        start = date.fromisoformat(found[2])
    except ValueError:
        return None
    return Key(int(found[1]), start, bytes.fromhex(found[3]))


def _free_id(keys: Sequence[Key]) -> int:
    """The id after the youngest's, so that one comes again as late as can be: a replaced key's address must not fit."""
    taken = {key.id for key in keys}
    last = keys[-1].id if keys else 0
    for step in range(1, MOST_KEYS + 1):
        if (candidate := (last + step) % MOST_KEYS) not in taken:
            return candidate
    raise ValueError("all ten key ids are in use; wait until the oldest has run out, or remove a line of the key file")


# Signing ----------------------------------------------------------------------------------------------------


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
        return f"{_token(Subject.RECIPIENT, distinct.pop(), key, on)}@{domain}"
    local = _prvs(sender, key, domain=domain, last_day=on + timedelta(days=max_age_days))
    return f"{local or _token(Subject.SENDER, address.key(sender), key, on)}@{domain}"


def _is_tagged(sender: str) -> bool:
    local = address.split(sender)[0]
    return _TOKEN.fullmatch(local) is not None or local[:5].lower() == "prvs="


_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def _prvs(sender: str, key: Key, *, domain: str, last_day: date) -> str | None:
    """The local part of a BATV address; None where there is no room for it."""
    local, host = address.split(sender)
    if not _PLAIN_LOCAL.fullmatch(local):
        return None
    place = "" if address.domain_key(host) == domain else f"={address.domain_key(host)}"
    days = f"{key.id}{(last_day.toordinal() - _EPOCH) % _PRVS_DAYS:03}"
    tagged = f"prvs={days}{_prvs_mac(key, days, address.key(sender))}={local}{place}"
    return tagged if len(tagged) <= LONGEST_LOCAL else None


def _prvs_mac(key: Key, days: str, sender: str) -> str:
    """draft-levine-smtp-batv-01 section 4: the first three octets of the MAC, as hexadecimal digits."""
    return _mac(key.tags, f"prvs={days}={sender}".encode())[:3].hex()


class _Form(NamedTuple):
    subject: Subject
    sealed: bool
    """The body is the encrypted address; else a reference to the journal."""


_FORMS = {
    "v": _Form(Subject.RECIPIENT, True),
    "w": _Form(Subject.RECIPIENT, False),
    "s": _Form(Subject.SENDER, True),
    "t": _Form(Subject.SENDER, False),
    "u": _Form(Subject.SUBSCRIBER, True),
    "x": _Form(Subject.SUBSCRIBER, False),
}
_LETTER = {form: letter for letter, form in _FORMS.items()}
_TOKEN = re.compile(r"([vwstux])([0-9])([0-9a-v]{2})([0-9a-v]{12})([0-9a-v]{5,48})", re.IGNORECASE)

# base32hex (RFC 4648 section 7) in lower case: its letters are the digits that int(text, 32) reads.
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]

# Six bits a character, packed as base64 does. `A`, all bits zero, fills the last group up and stands for nothing.
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_@+=!#$%&'*/?^`{|}~"
_TO_SIX_BITS = str.maketrans(_CHARACTERS, _BASE64[1 : len(_CHARACTERS) + 1])
_FROM_SIX_BITS = str.maketrans(_BASE64[1 : len(_CHARACTERS) + 1], _CHARACTERS, "A")
_PACKABLE = re.compile(f"[{re.escape(_CHARACTERS)}]{{1,40}}")
_UNPACKED = re.compile(f"[{re.escape(_CHARACTERS)}]{{1,40}}")


def unsubscribe_address(recipient: str, keys: Keys, *, domain: str, on: date) -> str:
    """The address of a recipient's `List-Unsubscribe` field; its local part is the token of a one-click link as well.

    Where `verify` tells no recipient for it, the journal has to know whom it was given out for.
    """
    token = _token(Subject.SUBSCRIBER, address.key(recipient), keys.signing(on), on, LONGEST_LOCAL - len(_UNSUBSCRIBE))
    return f"{_UNSUBSCRIBE}{token}@{domain}"


_UNSUBSCRIBE = "unsubscribe-"
_UNSUBSCRIBE_DAYS = 900
"""How long an unsubscribe address counts: as long as the day in it is not mistaken for a later one."""


def _token(subject: Subject, who: str, key: Key, on: date, room: int = LONGEST_LOCAL) -> str:
    """A local part of at most `room` octets that names `who` (an `address.key`) to us alone."""
    sealed = _PACKABLE.fullmatch(who) is not None and _sealed_length(who) <= room
    day = _PAIRS[(on.toordinal() - _EPOCH) % _DAYS]
    head = f"{_LETTER[_Form(subject, sealed)]}{key.id}{day}"
    content = _pack(who) if sealed else _mac(key.references, who.encode())[:_REFERENCE_OCTETS]
    tag = _tag(key, head, content)
    body = _sealed(key, head, tag, content) if sealed else content
    return head + _written(tag, _TAG_LETTERS) + _letters(body)


def _sealed_length(who: str) -> int:
    octets = (len(who) + 3) // 4 * 3
    return 4 + _TAG_LETTERS + (octets * 8 + 4) // 5


def _tag(key: Key, head: str, content: bytes) -> int:
    """60 bits that say: form, key, day and content go together."""
    return int.from_bytes(_mac(key.tags, head.encode() + content)[:8], "big") >> 4


def _sealed(key: Key, head: str, tag: int, content: bytes) -> bytes:
    """Encrypts, and decrypts what was encrypted. The tag is the nonce: it differs for all that differs."""
    stream = _mac(key.seals, head.encode() + tag.to_bytes(8, "big"))
    size = len(content)
    return (int.from_bytes(content, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")


def _pack(who: str) -> bytes:
    text = who.translate(_TO_SIX_BITS)
    return a2b_base64(text + "A" * (-len(text) % 4))


def _unpack(octets: bytes) -> str | None:
    """The address that `_pack` made these octets of; None where it made none such."""
    text = b2a_base64(octets, newline=False).decode().rstrip("A").translate(_FROM_SIX_BITS)
    return text if _UNPACKED.fullmatch(text) and _pack(text) == octets else None


def _letters(octets: bytes) -> str:
    count = (len(octets) * 8 + 4) // 5
    return _written(int.from_bytes(octets, "big") << (count * 5 - len(octets) * 8), count)


def _octets(letters: str) -> bytes | None:
    """What `_letters` wrote so; None for letters that it does not write."""
    size = len(letters) * 5 // 8
    spare = len(letters) * 5 - size * 8
    number = int(letters, 32)
    if spare >= 5 or number & ((1 << spare) - 1):
        return None
    return (number >> spare).to_bytes(size, "big")


def _written(number: int, count: int) -> str:
    """`number` in `count` letters, five bits each."""
    odd = count % 2
    number <<= odd * 5
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range((count + odd) * 5 - 10, -1, -10)])[:count]


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


# Verifying --------------------------------------------------------------------------------------------------

_UNSIGNED = Verified(Standing.UNSIGNED)
_WRONG = Verified(Standing.WRONG)
_OURS_PRVS = re.compile(r"prvs=([0-9])([0-9]{3})([0-9a-f]{6})=(.+)", re.IGNORECASE)
# SRS (Sender Rewriting Scheme): SRS0=hash=time=domain=local, and SRS1=hash=first forwarder==the rest of SRS0. The
# separator behind the number may be any of `=+-`.
_SRS0 = re.compile(r"srs0[=+-][^=]+=[^=]+=([^=]+)=(.+)", re.IGNORECASE)
_SRS1 = re.compile(r"srs1[=+-][^=]+=[^=]+=([=+-][^=]+=[^=]+=[^=]+=.+)", re.IGNORECASE)
_FOREIGN_TAG = re.compile(r"(?:prvs=[^=]+=|btv1==[^=]+==)(.+)", re.IGNORECASE)


def verify(path: str, keys: Keys, *, on: date, max_age_days: int) -> Verified:
    """What an address that something came back to is worth on a day. Never raises.

    Looks behind what others wrapped around the address. The domain is not looked at, except as part of what BATV
    signs: whose it is, the caller has decided.
    """
    if len(path) > _LONGEST_ADDRESS:
        return _UNSIGNED
    local, host = address.split(path)
    worst = _UNSIGNED
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
    return (before, host) if plus and _TOKEN.fullmatch(before) else None


def _verify_local(local: str, host: str, keys: Keys, on: date, max_age_days: int) -> Verified:
    if found := _TOKEN.fullmatch(local):
        return _verify_token(found, keys, on, max_age_days)
    if found := _OURS_PRVS.fullmatch(local):
        return _verify_prvs(found, host, keys, on, max_age_days)
    return _UNSIGNED


def _verify_token(found: re.Match[str], keys: Keys, on: date, max_age_days: int) -> Verified:
    letter, key_id, day_letters, tag_letters, letters = (part.lower() for part in found.groups())
    form = _FORMS[letter]
    key = keys.find(int(key_id))
    body = _octets(letters)
    if key is None or body is None or (form.sealed and len(body) > _BODY_OCTETS):
        return _WRONG
    head, tag = f"{letter}{key_id}{day_letters}", int(tag_letters, 32)
    content = _sealed(key, head, tag, body) if form.sealed else body
    if not hmac.compare_digest(_tag(key, head, content).to_bytes(8, "big"), tag.to_bytes(8, "big")):
        return _WRONG
    who = _unpack(content) if form.sealed else None
    age = _past(on, int(day_letters, 32), _DAYS)
    unsubscribes = form.subject is Subject.SUBSCRIBER
    return Verified(
        Standing.SIGNED if age <= (_UNSUBSCRIBE_DAYS if unsubscribes else max_age_days) else Standing.EXPIRED,
        recipient=who if form.subject is not Subject.SENDER else None,
        sender=who if form.subject is Subject.SENDER else None,
        return_path=f"{head}{tag_letters}{letters}",
        names_recipient=form.subject is not Subject.SENDER,
        unsubscribes=unsubscribes,
        day=on - timedelta(days=age),
    )


def _past(on: date, day: int, modulus: int) -> int:
    """How many days `day`, a day number less its higher digits, lies behind `on`; -1 is tomorrow."""
    today = on.toordinal() - _EPOCH
    return (today - day + _CLOCK_SKEW_DAYS) % modulus - _CLOCK_SKEW_DAYS


def _verify_prvs(found: re.Match[str], host: str, keys: Keys, on: date, max_age_days: int) -> Verified:
    key_id, days, mac, rest = found.groups()
    key = keys.find(int(key_id))
    if key is None:
        return _WRONG
    before, _, place = rest.rpartition("=")
    for sender in (f"{rest}@{host}", f"{before}@{place}") if before else (f"{rest}@{host}",):
        if hmac.compare_digest(_prvs_mac(key, key_id + days, address.key(sender)), mac.lower()):
            left = (int(days) - (on.toordinal() - _EPOCH)) % _PRVS_DAYS
            good = left <= max_age_days + _CLOCK_SKEW_DAYS
            return Verified(
                Standing.SIGNED if good else Standing.EXPIRED,
                sender=sender,
                return_path=found[0].lower(),
                day=on + timedelta(days=left if good else left - _PRVS_DAYS),
            )
    return _WRONG


# For a sender and a receiver with settings -----------------------------------------------------------------------


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
