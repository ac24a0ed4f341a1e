"""DKIM: every signature of a message, judged (RFC 6376, Ed25519 by RFC 8463, algorithms and key sizes by RFC 8301).

Two things are stricter than the letter of the RFC: a signature that leaves a From field or a part of the body unsigned
does not count (somebody else may have written it), and of more than `MAX_SIGNATURES` the rest is not looked at (each
costs a DNS question).

Emits no log events.
"""

from __future__ import annotations

from typing import Final

from mailback.address import domain_key
from mailback.auth.fields import Field, SignedMessage
from mailback.auth.keys import Key, Records
from mailback.auth.results import Dkim, Result
from mailback.auth.signature import (
    RefusedError,
    Signature,
    check_body,
    check_dates,
    check_key,
    header_digest,
    key_of,
    read,
    told_tags,
)

FIELD: Final = "dkim-signature"
MAX_SIGNATURES: Final = 10
_NEEDED = ("v", "a", "b", "bh", "d", "h", "s")
_LONGEST_TOLD = 253


def verify_all(message: SignedMessage, records: Records, now: float) -> tuple[Dkim, ...]:
    """A result for each signature, topmost first, of the first `MAX_SIGNATURES`; `now` is in seconds since 1970."""
    return tuple(verify(field, message, records, now) for field in message.named(FIELD)[:MAX_SIGNATURES])


def verify(field: Field, message: SignedMessage, records: Records, now: float) -> Dkim:
    """What became of one signature."""
    try:
        signature = read_signature(field)
    except RefusedError as refused:
        return _unread(field, refused)
    key: Key | None = None
    result, reason = Result.PASS, ""
    try:
        # What costs no DNS question comes first: most that fail do so by a changed body.
        check_author(signature, message)
        check_dates(signature, now)
        check_body(signature, message)
        key = key_of(signature, records)
        check_identity(signature, strict=key.strict)
        check_key(signature, key, header_digest(signature, message))
        if key.testing:
            raise RefusedError(Result.NEUTRAL, "the signer is testing (t=y)")
    except RefusedError as refused:
        result, reason = refused.result, str(refused)
    bits = key.bits if key else 0
    return Dkim(result, signature.domain, signature.selector, signature.algorithm, bits, signature.hint, reason)


def read_signature(field: Field) -> Signature:
    """A DKIM signature that is well-formed. Raises RefusedError."""
    signature = read(field, needed=_NEEDED)
    if signature.tags["v"] != "1":
        raise RefusedError(Result.PERMERROR, "a signature of another version")
    if "from" not in signature.signed:
        raise RefusedError(Result.PERMERROR, "the signature does not cover From")
    if "dns/txt" not in signature.tags.get("q", "dns/txt").lower().split(":"):
        raise RefusedError(Result.PERMERROR, "the key is to be had in a way that nobody knows")
    check_identity(signature, strict=False)
    return signature


def check_identity(signature: Signature, *, strict: bool) -> None:
    """`i=` lies in `d=`, and is it where the key says so (RFC 6376 section 3.6.1, `t=s`). Raises RefusedError."""
    identity = signature.tags.get("i")
    if identity is None:
        return
    host = domain_key(identity.rpartition("@")[2])
    if host != signature.domain and (strict or not host.endswith("." + signature.domain)):
        raise RefusedError(Result.PERMERROR, "i= is not within d=")


def check_author(signature: Signature, message: SignedMessage) -> None:
    """Every From field is signed: one put on top of the signed one is what a reader would see (RFC 6376 section 8.15).
    Raises RefusedError."""
    if message.count("from") > signature.signed.count("from"):
        raise RefusedError(Result.FAIL, "a From field that the signature does not cover")


def _unread(field: Field, refused: RefusedError) -> Dkim:
    """A result for a signature that cannot be read, with the domain it claims as far as that can be told."""
    try:
        claimed = domain_key(told_tags(field).get("d", ""))[:_LONGEST_TOLD]
    except RefusedError:
        claimed = ""
    return Dkim(refused.result, domain=claimed, reason=str(refused))
