"""Keys and signatures for tests, made by dkimpy, which is not what checks them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class SigningKey:
    """A private key as dkimpy wants it, and its record in DNS."""

    algorithm: bytes
    private: bytes
    record: str


@lru_cache(maxsize=8)
def rsa_key(bits: int = 2048) -> SigningKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(b"rsa-sha256", private, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")


@lru_cache(maxsize=8)
def ed25519_key() -> SigningKey:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    record = f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}"
    return SigningKey(b"ed25519-sha256", base64.b64encode(private), record)


def signed(
    raw: bytes,
    key: SigningKey,
    domain: str = "sender.test",
    selector: str = "s1",
    *,
    canonicalization: str = "relaxed/relaxed",
    headers: tuple[str, ...] | None = None,
    length: bool = False,
) -> bytes:
    """`raw` with a DKIM-Signature on top; `headers` are the signed fields, the usual ones when not told."""
    header, _, body = canonicalization.encode().partition(b"/")
    return bytes(
        dkim.DKIM(raw).sign(
            selector.encode(),
            domain.encode(),
            key.private,
            signature_algorithm=key.algorithm,
            canonicalize=(header, body),
            include_headers=[name.encode() for name in headers] if headers else None,
            length=length,
        )
        + raw
    )


def sealed(raw: bytes, key: SigningKey, domain: str, authserv_id: str, selector: str = "s1") -> bytes:
    """`raw` with one more ARC set on top; it needs an Authentication-Results field by `authserv_id`."""
    fields = dkim.arc_sign(raw, selector.encode(), domain.encode(), key.private, authserv_id.encode())
    assert fields, "dkimpy made no ARC set"
    return b"".join(fields) + raw
