"""Proof on a returned original: a DKIM signature of ours in the header block that a bounce brings back.

Bounces rarely return the whole body, and often none. The signature's `b=` is over the header fields and over `bh=`, the
hash of the body as it was; so with `bh=` taken at its word the fields can be verified without the body, and show that
this message was sent by somebody who has our key. What is proven is what `covered` names and nothing else: a recipient
who was not in a signed To may still have been made up.

An expired signature proves as much here: it says that we sent the message once, which is all that is asked. A body that
differs from `bh=` proves nothing against it: servers cut and re-encode what they return. The caller is told (`body`).

Blocks for DNS unless the key is in a key table. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailback.address import domain_key
from mailback.auth.dkim import FIELD, check_author, check_identity, read_signature
from mailback.auth.domains import mailboxes
from mailback.auth.fields import HeaderError, SignedMessage, split_fields
from mailback.auth.keys import Records
from mailback.auth.results import Result
from mailback.auth.signature import RefusedError, Signature, check_body, check_key, header_digest, key_of

_MAX_SIGNATURES: Final = 5
_LONGEST_RECIPIENTS: Final = 64 * 1024


class Body(StrEnum):
    """What the returned body says."""

    ABSENT = "absent"
    INTACT = "intact"
    DIFFERS = "differs"
    """Cut, re-encoded or exchanged."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a returned header block carries a signature of ours that is right."""

    result: Result
    """`pass`; `fail` when signatures of ours are there and none is right; `none` without one; `temperror` when DNS kept
    the key from us; `permerror` when the block or the signature is malformed."""
    domain: str = ""
    selector: str = ""
    covered: frozenset[str] = frozenset()
    """Names (lower case) of fields that are in the block, and of which every one is signed."""
    recipients: tuple[str, ...] = ()
    """The mailboxes of To and Cc, as far as they are covered."""
    body: Body = Body.ABSENT
    reason: str = ""


def verify(block: bytes, sending_domains: Collection[str], records: Records, *, body: bytes | None = None) -> Proof:
    """Look for our own signature in the header block of a returned message.

    Only signatures with `d=` in `sending_domains` count. `records` is `Lookups.txt`, or `KeyTable.records`, or both
    (`KeyTable.or_else`). `body` is what was returned of the body, None when nothing was. Never raises on mail.
    """
    try:
        original = SignedMessage(split_fields(block.rstrip(b"\r\n")), body or b"")
    except HeaderError as error:
        return Proof(Result.PERMERROR, reason=str(error))
    ours = {domain_key(domain) for domain in sending_domains}
    best = Proof(Result.NONE, reason="no signature of ours")
    tried = 0
    for field in original.named(FIELD):
        try:
            signature = read_signature(field)
        except RefusedError:
            continue  # whose it is cannot be told
        if signature.domain not in ours:
            continue
        tried += 1
        if tried > _MAX_SIGNATURES:
            break
        proof = _verified(signature, original, records, returned=body is not None)
        if proof.result is Result.PASS:
            return proof
        if best.result is not Result.TEMPERROR:
            best = proof
    return best


def _verified(signature: Signature, original: SignedMessage, records: Records, *, returned: bool) -> Proof:
    try:
        check_author(signature, original)
        key = key_of(signature, records)
        check_identity(signature, strict=key.strict)
        check_key(signature, key, header_digest(signature, original))
    except RefusedError as refused:
        return Proof(refused.result, signature.domain, signature.selector, reason=str(refused))
    body = _body(signature, original) if returned else Body.ABSENT
    covered = _covered(signature, original)
    recipients = tuple(_recipients(original, covered))
    return Proof(Result.PASS, signature.domain, signature.selector, covered, recipients, body)


def _covered(signature: Signature, original: SignedMessage) -> frozenset[str]:
    """A field of which one is signed and another is not proves nothing: a reader may take either."""
    names = set(signature.signed)
    return frozenset(name for name in names if 0 < original.count(name) <= signature.signed.count(name))


def _recipients(original: SignedMessage, covered: frozenset[str]) -> Iterator[str]:
    for name in ("to", "cc"):
        for _, value in original.named(name) if name in covered else ():
            yield from mailboxes(value[:_LONGEST_RECIPIENTS].decode("utf-8", "replace"))


def _body(signature: Signature, original: SignedMessage) -> Body:
    try:
        check_body(signature, original)
    except RefusedError:
        return Body.DIFFERS
    return Body.INTACT
