"""Public keys of DKIM and ARC: the key record (RFC 6376 section 3.6.1), the keys in it, and where records come from.

A record comes from DNS, or for our own signatures from a key table: a text file of one record a line,

    # name                              record as in DNS
    news._domainkey.example.org         v=DKIM1; k=rsa; p=MIIBIjANBgkq...

which may keep keys that DNS no longer has: a bounce can come back days after a key was taken out of service.

Emits no log events.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailback.address import domain_key
from mailback.auth.tags import TagListError, parse_tags

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

Records = Callable[[str], tuple[bytes, ...]]
"""The TXT records at a name; raises `resolver.UnansweredError`."""

LEAST_RSA_BITS: Final = 1024
"""RFC 8301 section 3.2: signatures by shorter keys must not count."""
_MOST_RSA_BITS = 8192  # the RFC asks for 4096; far beyond, one signature costs too much
_LONGEST_RECORD = 8 * 1024
_ED25519_OCTETS = 32


class UnusableKeyError(ValueError):
    """The key record is missing, revoked, malformed or not for mail; the text says which."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key record says."""

    type: str
    """`rsa` or `ed25519`."""
    bits: int
    public: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    """`t=y`: the signer is trying things out, and its mail is to be treated as if it were not signed."""
    strict: bool = False
    """`t=s`: the domain of `i=` must be `d=` itself."""
    hashes: tuple[str, ...] = ()
    """The hash algorithms that the key may be used with; empty for all."""

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` of a SHA-256 digest is by this key (RFC 8017 section 8.2.2, RFC 8463 section 3)."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519, padding
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, digest)
            else:
                self.public.verify(signature, digest, padding.PKCS1v15(), Prehashed(SHA256()))
        except InvalidSignature:
            return False
        return True


def find_key(records: Records, selector: str, domain: str) -> Key:
    """The key of a signature. Raises UnusableKeyError, or UnansweredError when DNS does.

    Several records at one name leave the outcome undefined (RFC 6376 section 3.6.2.2); the first that can be read
    counts, so that a stray record does not undo a key.
    """
    found = [record for record in records(f"{selector}._domainkey.{domain}") if record.strip()]
    problem = "no key record"
    for record in found[:5]:
        try:
            return read_key(record)
        except UnusableKeyError as error:
            problem = str(error)
    raise UnusableKeyError(problem)


@lru_cache(maxsize=1024)
def read_key(record: bytes) -> Key:
    """The key in a record. Raises UnusableKeyError."""
    if len(record) > _LONGEST_RECORD:
        raise UnusableKeyError("the key record is too long")
    try:
        tags = parse_tags(record)
    except TagListError as error:
        raise UnusableKeyError(f"key record: {error}") from None
    if tags.get("v", "DKIM1") != "DKIM1":
        raise UnusableKeyError("the key record is of another version")
    services = _words(tags.get("s", "*"))
    if not {"*", "email"} & set(services):
        raise UnusableKeyError("the key is not for mail")
    flags = _words(tags.get("t", ""))
    kind = tags.get("k", "rsa").lower()
    public, bits = _public(kind, _octets(tags.get("p")))
    return Key(kind, bits, public, "y" in flags, "s" in flags, _words(tags.get("h", "").lower()))


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(":") if word.strip())


def _octets(encoded: str | None) -> bytes:
    if encoded is None:
        raise UnusableKeyError("the key record has no p=")
    packed = "".join(encoded.split())
    if not packed:
        raise UnusableKeyError("the key is revoked")
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise UnusableKeyError("p= of the key record is no base64") from None


def _public(kind: str, octets: bytes) -> tuple[RSAPublicKey | Ed25519PublicKey, int]:
    if kind == "rsa":
        return _rsa(octets)
    if kind == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if len(octets) != _ED25519_OCTETS:
            raise UnusableKeyError("an Ed25519 key has 32 octets")
        return Ed25519PublicKey.from_public_bytes(octets), _ED25519_OCTETS * 8
    raise UnusableKeyError("a key of unknown type")


def _rsa(octets: bytes) -> tuple[RSAPublicKey, int]:
    """A SubjectPublicKeyInfo, or the bare RSAPublicKey that some publish; the loader takes both."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        public = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("p= of the key record is no RSA key") from None
    if not isinstance(public, RSAPublicKey):
        raise UnusableKeyError("p= of the key record is no RSA key")
    if public.key_size > _MOST_RSA_BITS:
        raise UnusableKeyError(f"an RSA key of {public.key_size} bits")
    return public, public.key_size


class KeyTableError(ValueError):
    """A key table that cannot be used; `problems` has a line for each thing that is wrong, as `file:line: what`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class KeyTable:
    """Key records at hand, by the name they have in DNS."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        """Raises UnusableKeyError when a record is none."""
        for record in records.values():
            read_key(record)
        self._records = {domain_key(name): record for name, record in records.items()}

    @classmethod
    def load(cls, path: Path) -> KeyTable:
        """Raises KeyTableError with every problem of the file, OSError when it cannot be read."""
        records: dict[str, bytes] = {}
        problems: list[str] = []
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            try:
                records.update(_table_line(line))
            except UnusableKeyError as error:
                problems.append(f"{path}:{number}: {error}")
        if problems:
            raise KeyTableError(problems)
        return cls(records)

    def records(self, name: str) -> tuple[bytes, ...]:
        record = self._records.get(domain_key(name))
        return () if record is None else (record,)

    def or_else(self, records: Records) -> Records:
        """The table's record where it has one, else what `records` finds."""
        return lambda name: self.records(name) or records(name)


def _table_line(line: str) -> dict[str, bytes]:
    text = line.strip()
    if not text or text.startswith("#"):
        return {}
    name, *rest = text.split(None, 1)
    if "._domainkey." not in name or not rest:
        raise UnusableKeyError("expected `selector._domainkey.domain` and the record, on one line")
    record = rest[0].strip().strip('"').encode("utf-8")
    read_key(record)
    return {name: record}
