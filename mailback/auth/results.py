"""What authentication found out: one record a method, and all of them together.

Result words are those of RFC 8601 section 2.7. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from mailback.address import domain_key, key
from mailback.auth.domains import aligned


class Result(StrEnum):
    """What became of one check."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    """Nothing can be said: the owner says so, or what was found must not count either way."""
    POLICY = "policy"
    """Technically right, but not acceptable: a key too short, a body that the signature covers in part only."""
    NONE = "none"
    TEMPERROR = "temperror"
    """Could not be found out now; DNS did not answer in time."""
    PERMERROR = "permerror"
    """Cannot be found out ever: a record or signature that is malformed."""


@dataclass(frozen=True, slots=True)
class Spf:
    """May the client send for the domain of the envelope sender (RFC 7208)?"""

    result: Result
    domain: str = ""
    """The domain that was checked, A-labels in lower case."""
    identity: str = "mailfrom"
    """`mailfrom`, or `helo` for the null sender (RFC 7208 section 2.4)."""
    address: str = ""
    """The envelope sender; empty for the null sender."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dkim:
    """One DKIM signature (RFC 6376)."""

    result: Result
    domain: str = ""
    """`d=`, A-labels in lower case."""
    selector: str = ""
    algorithm: str = ""
    key_bits: int = 0
    """Of an RSA key; 0 when no key was read, 256 for Ed25519."""
    signature: str = ""
    """The first characters of `b=`, which tell signatures of one domain apart (RFC 6008)."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dmarc:
    """Does what passed speak for the domain in the From field (RFC 7489)?"""

    result: Result
    domain: str = ""
    """The author's domain, A-labels in lower case."""
    policy: str = ""
    """What the domain's owner asks for when it fails: `none`, `quarantine`, `reject`; empty without a record. The
    subdomain policy where that one applies."""
    disposition: str = ""
    """The policy that falls to this message: one step milder than `policy` for the share that `pct` exempts; `none`
    when it passed."""
    record_domain: str = ""
    """Where the record was found: the author's domain or its organisational domain."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Arc:
    """The chain of forwarders that vouch for what they saw (RFC 8617). It proves who sealed, not that any is honest."""

    result: Result
    domain: str = ""
    """Who sealed last."""
    sealers: tuple[str, ...] = ()
    """`d=` of each seal, the first forwarder first."""
    reason: str = ""


_UNCHECKED: Final = Result.NONE
_MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class Authentication:
    """All that is known about who is behind one message."""

    authserv_id: str
    """Who checked: our own name, or that of the trusted server whose Authentication-Results field was read."""
    spf: Spf = Spf(_UNCHECKED)
    dkim: tuple[Dkim, ...] = ()
    dmarc: Dmarc = Dmarc(_UNCHECKED)
    arc: Arc = Arc(_UNCHECKED)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that anything proved: of SPF and of each signature that passed, without repetition."""
        return tuple(dict.fromkeys(self._proven()))

    @property
    def failed(self) -> bool:
        """Whether DMARC fails, or SPF and DKIM both: nothing shows that the author wrote it. Forwarding does it too."""
        if self.dmarc.result is not Result.NONE:
            return self.dmarc.result is Result.FAIL
        dkim = {each.result for each in self.dkim}
        return self.spf.result is Result.FAIL and Result.FAIL in dkim and Result.PASS not in dkim

    def aligned(self, domain: str) -> bool:
        """Whether anything that passed speaks for `domain`: it has the same organisational domain (relaxed alignment,
        RFC 7489 section 3.1). False for an empty or malformed `domain`."""
        wanted = domain_key(domain)
        return any(aligned(proven, wanted) for proven in self._proven())

    def wrote(self, writer: str, envelope_sender: str) -> bool:
        """Whether what passed speaks for the one who says to have written it. SPF alone does for the envelope sender:
        whoever has a mailbox at a provider may send through its servers in a neighbour's name.
        """
        domain = writer.rpartition("@")[2]
        signed = replace(self, spf=Spf(_UNCHECKED))
        return signed.aligned(domain) or (key(writer) == key(envelope_sender) and self.aligned(domain))

    def header(self) -> str:
        """The value of the one Authentication-Results field (RFC 8601), folded with LF and a tab."""
        from mailback.auth.authres import write

        return write(self)

    def to_dict(self) -> dict[str, object]:
        """A small record for the event: results and domains, no reasons."""
        told: dict[str, object] = {
            "spf": {"result": self.spf.result.value, "domain": self.spf.domain, "identity": self.spf.identity},
            "dkim": [
                {"result": each.result.value, "domain": each.domain, "selector": each.selector}
                for each in self.dkim[:_MOST_TOLD]
            ],
            "dmarc": {
                "result": self.dmarc.result.value,
                "domain": self.dmarc.domain,
                "policy": self.dmarc.policy,
                "disposition": self.dmarc.disposition,
            },
        }
        if self.arc.result is not Result.NONE:
            told["arc"] = {"result": self.arc.result.value, "sealers": list(self.arc.sealers[:_MOST_TOLD])}
        return told

    def _proven(self) -> Iterator[str]:
        if self.spf.result is Result.PASS and self.spf.domain:
            yield self.spf.domain
        for each in self.dkim:
            if each.result is Result.PASS and each.domain:
                yield each.domain
