"""Addresses that name one recipient to us alone: written, sealed, read back. Pure.

What they look like and why stands in `mailback.returnpath`. Emits no log events.
"""

from __future__ import annotations

import hmac
import re
from binascii import a2b_base64, b2a_base64
from datetime import date, timedelta
from enum import Enum
from typing import NamedTuple

from mailback.returnpath.days import EPOCH, days_past
from mailback.returnpath.keys import UNSUBSCRIBE_DAYS, Key, Keys, mac_of
from mailback.returnpath.standing import WRONG, Standing, Verified

LONGEST_LOCAL = 64
"""Octets of a local part, RFC 5321 section 4.5.3.1.1."""
_DAYS = 1024  # of the two letters of a token
_TAG_LETTERS = 12
_REFERENCE_OCTETS = 10
_BODY_OCTETS = 30  # 48 letters


class Subject(Enum):
    """Whom an address names in its body."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    SUBSCRIBER = "subscriber"
    """A recipient, in an address that unsubscribes."""


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
TOKEN = re.compile(r"([vwstux])([0-9])([0-9a-v]{2})([0-9a-v]{12})([0-9a-v]{5,48})", re.IGNORECASE)

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


def token_of(subject: Subject, who: str, key: Key, on: date, room: int = LONGEST_LOCAL) -> str:
    """A local part of at most `room` octets that names `who` (an `address.key`) to us alone."""
    sealed = _PACKABLE.fullmatch(who) is not None and _sealed_length(who) <= room
    day = _PAIRS[(on.toordinal() - EPOCH) % _DAYS]
    head = f"{_LETTER[_Form(subject, sealed)]}{key.id}{day}"
    content = _pack(who) if sealed else mac_of(key.references, who.encode())[:_REFERENCE_OCTETS]
    tag = _tag(key, head, content)
    body = _sealed(key, head, tag, content) if sealed else content
    return head + _written(tag, _TAG_LETTERS) + _letters(body)


def verify_token(found: re.Match[str], keys: Keys, on: date, max_age_days: int) -> Verified:
    """What a local part that `TOKEN` has found is worth."""
    letter, key_id, day_letters, tag_letters, letters = (part.lower() for part in found.groups())
    form = _FORMS[letter]
    key = keys.find(int(key_id))
    body = _octets(letters)
    if key is None or body is None or (form.sealed and len(body) > _BODY_OCTETS):
        return WRONG
    head, tag = f"{letter}{key_id}{day_letters}", int(tag_letters, 32)
    content = _sealed(key, head, tag, body) if form.sealed else body
    if not hmac.compare_digest(_tag(key, head, content).to_bytes(8, "big"), tag.to_bytes(8, "big")):
        return WRONG
    who = _unpack(content) if form.sealed else None
    age = days_past(on, int(day_letters, 32), _DAYS)
    unsubscribes = form.subject is Subject.SUBSCRIBER
    in_time = age <= (UNSUBSCRIBE_DAYS if unsubscribes else max_age_days)
    return Verified(
        Standing.SIGNED if in_time and keys.signed_on(key, on - timedelta(days=age)) else Standing.EXPIRED,
        recipient=who if form.subject is not Subject.SENDER else None,
        sender=who if form.subject is Subject.SENDER else None,
        return_path=f"{head}{tag_letters}{letters}",
        names_recipient=form.subject is not Subject.SENDER,
        unsubscribes=unsubscribes,
        day=on - timedelta(days=age),
    )


def _sealed_length(who: str) -> int:
    octets = (len(who) + 3) // 4 * 3
    return 4 + _TAG_LETTERS + (octets * 8 + 4) // 5


def _tag(key: Key, head: str, content: bytes) -> int:
    """60 bits that say: form, key, day and content go together."""
    return int.from_bytes(mac_of(key.tags, head.encode() + content)[:8], "big") >> 4


def _sealed(key: Key, head: str, tag: int, content: bytes) -> bytes:
    """Encrypts, and decrypts what was encrypted. The tag is the nonce: it differs for all that differs."""
    stream = mac_of(key.seals, head.encode() + tag.to_bytes(8, "big"))
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
