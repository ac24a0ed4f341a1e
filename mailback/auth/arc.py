"""ARC: the chain of forwarders, verified as RFC 8617 section 5.2 orders it.

The chain passes when every set is complete, every seal is right and the last message signature is. Seals sign all sets
before them, so hashing each anew would be quadratic in their number: the hash of what came before is carried on.

Emits no log events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailback.auth.fields import RELAXED, Field, SignedMessage, canonical_field
from mailback.auth.keys import Records
from mailback.auth.results import Arc, Result
from mailback.auth.signature import (
    RefusedError,
    Signature,
    check_body,
    check_key,
    header_digest,
    key_of,
    own_field,
    read,
    told_tags,
)

MAX_SETS: Final = 50
"""RFC 8617 section 4.2.1."""
_RESULTS: Final = "arc-authentication-results"
_MESSAGE_SIGNATURE: Final = "arc-message-signature"
_SEAL: Final = "arc-seal"
_NEEDED_OF_SIGNATURE = ("i", "a", "b", "bh", "d", "h", "s")
_NEEDED_OF_SEAL = ("i", "a", "b", "cv", "d", "s")


@dataclass(frozen=True, slots=True)
class _Set:
    """What one forwarder added."""

    results: Field
    signature: Signature
    seal: Signature


def verify(message: SignedMessage, records: Records) -> Arc:
    """The state of the chain: `none` without one, `pass`, `fail`, or `temperror` when DNS kept a key from us."""
    if not any(message.count(name) for name in (_RESULTS, _MESSAGE_SIGNATURE, _SEAL)):
        return Arc(Result.NONE)
    sealers: tuple[str, ...] = ()
    try:
        chain = _chain(message)
        sealers = tuple(each.seal.domain for each in chain)
        _check_states(chain)
        _check_message_signature(chain[-1].signature, message, records)
        _check_seals(chain, records)
    except RefusedError as refused:
        result = Result.TEMPERROR if refused.result is Result.TEMPERROR else Result.FAIL
        return Arc(result, sealers[-1] if sealers else "", sealers, str(refused))
    return Arc(Result.PASS, sealers[-1], sealers)


def _chain(message: SignedMessage) -> list[_Set]:
    """The sets in order. Raises RefusedError when one is missing, doubled or malformed."""
    fields = {name: message.named(name) for name in (_RESULTS, _MESSAGE_SIGNATURE, _SEAL)}
    length = len(fields[_SEAL])
    if length > MAX_SETS:
        raise RefusedError(Result.FAIL, f"more than {MAX_SETS} ARC sets")
    if not length or any(len(found) != length for found in fields.values()):
        raise RefusedError(Result.FAIL, "an ARC set is incomplete")
    results = {_instance(field): field for field in fields[_RESULTS]}
    signatures = _by_number(fields[_MESSAGE_SIGNATURE], _NEEDED_OF_SIGNATURE)
    seals = _by_number(fields[_SEAL], _NEEDED_OF_SEAL)
    numbers = range(1, length + 1)
    if not all(set(found) == set(numbers) for found in (results, signatures, seals)):
        raise RefusedError(Result.FAIL, "the ARC sets are not numbered from 1 without a gap")
    return [_Set(results[n], signatures[n], seals[n]) for n in numbers]


def _by_number(fields: Sequence[Field], needed: tuple[str, ...]) -> dict[int, Signature]:
    read_all = (read(field, needed=needed, default_canonicalization=RELAXED) for field in fields)
    return {signature.number: signature for signature in read_all}


def _instance(field: Field) -> int:
    """`i=` of ARC-Authentication-Results, which is followed by what Authentication-Results has (section 4.1.1)."""
    tags = told_tags((field[0], field[1].partition(b";")[0]))
    digits = tags.get("i", "")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 2 else 0


def _check_states(chain: Sequence[_Set]) -> None:
    """What each forwarder said of the chain before it (section 5.2, steps 2 and 3)."""
    for number, each in enumerate(chain, 1):
        state = each.seal.tags["cv"].lower()
        if state != ("none" if number == 1 else "pass"):
            raise RefusedError(Result.FAIL, f"set {number} says cv={state[:10]}")
        if "h" in each.seal.tags:
            raise RefusedError(Result.FAIL, f"the seal of set {number} has h=")


def _check_message_signature(signature: Signature, message: SignedMessage, records: Records) -> None:
    if _SEAL in signature.signed:
        raise RefusedError(Result.FAIL, "the message signature covers a seal")
    if "from" not in signature.signed or message.count("from") > signature.signed.count("from"):
        raise RefusedError(Result.FAIL, "a From field that the chain does not cover")
    check_body(signature, message)
    check_key(signature, key_of(signature, records), header_digest(signature, message))


def _check_seals(chain: Sequence[_Set], records: Records) -> None:
    """Section 5.1.1: a seal signs all sets before it, and its own with `b=` empty; always in relaxed form."""
    running = hashlib.sha256()
    for number, each in enumerate(chain, 1):
        if each.seal.header_canonicalization != RELAXED:
            raise RefusedError(Result.FAIL, f"the seal of set {number} is not relaxed")
        running.update(canonical_field(each.results, RELAXED))
        running.update(canonical_field(each.signature.field, RELAXED))
        sealed = running.copy()
        sealed.update(own_field(each.seal))
        check_key(each.seal, key_of(each.seal, records), sealed.digest())
        running.update(canonical_field(each.seal.field, RELAXED))
