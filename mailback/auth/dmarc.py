"""DMARC: whether what passed speaks for the author, and what the author's domain asks for if not (RFC 7489).

The sampling of `pct` and all else is pure: the share that a message falls into is handed in. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailback.auth.domains import aligned, author_domains, is_domain, organizational
from mailback.auth.keys import Records
from mailback.auth.resolver import UnansweredError
from mailback.auth.results import Dkim, Dmarc, Result, Spf
from mailback.auth.tags import TagListError, parse_tags

_POLICIES: Final = ("none", "quarantine", "reject")
_MILDER: Final = {"none": "none", "quarantine": "none", "reject": "quarantine"}
_LONGEST_RECORD = 8 * 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """A DMARC record (RFC 7489 section 6.3)."""

    policy: str
    subdomain_policy: str
    strict_dkim: bool
    strict_spf: bool
    percent: int
    found_at: str
    """The domain whose record it is."""

    def for_author(self, domain: str) -> str:
        """`p=` for the domain that has the record, `sp=` for those below it."""
        return self.policy if domain == self.found_at else self.subdomain_policy


def evaluate(froms: Sequence[bytes], *, spf: Spf, dkim: Sequence[Dkim], records: Records, share: float) -> Dmarc:
    """Judge a message that has the values `froms` of From fields; `share` is where in 0 to 1 it falls for `pct`."""
    if len(froms) != 1:
        return Dmarc(Result.PERMERROR, reason=f"{len(froms)} From fields")
    authors = author_domains(froms[0].decode("utf-8", "replace"))
    if authors is None:
        return Dmarc(Result.PERMERROR, reason="a From field too long to be honest")
    if len(authors) > 1:
        # Section 6.6.1: a reader may be shown either, and only one of them may be proven.
        return Dmarc(Result.PERMERROR, reason="authors of several domains")
    if not authors or not is_domain(authors[0]):
        return Dmarc(Result.NONE, reason="the author has no domain")
    author = authors[0]
    try:
        policy = find_policy(author, records)
    except UnansweredError as error:
        return Dmarc(Result.TEMPERROR, author, reason=str(error))
    if policy is None:
        return Dmarc(Result.NONE, author, reason="no DMARC record")
    result, reason = _result(author, policy, spf, dkim)
    asked = policy.for_author(author)
    falls = "none" if result is not Result.FAIL else asked if share * 100 < policy.percent else _MILDER[asked]
    return Dmarc(result, author, asked, falls, policy.found_at, reason)


def _result(author: str, policy: Policy, spf: Spf, dkim: Sequence[Dkim]) -> tuple[Result, str]:
    """Pass by one aligned pass; temperror where an aligned check may yet have passed (section 6.6.2)."""
    spf_aligned = aligned(spf.domain, author, strict=policy.strict_spf)
    results = [each.result for each in dkim if aligned(each.domain, author, strict=policy.strict_dkim)]
    results += [spf.result] if spf_aligned else []
    if Result.PASS in results:
        return Result.PASS, ""
    if Result.TEMPERROR in results:
        return Result.TEMPERROR, "DNS kept the answer from us"
    proven = spf.result is Result.PASS or any(each.result is Result.PASS for each in dkim)
    return Result.FAIL, "what passed does not speak for the author" if proven else "nothing passed"


def find_policy(author: str, records: Records) -> Policy | None:
    """The record of the author's domain, else of its organisational domain (section 6.6.3). Raises UnansweredError."""
    for domain in dict.fromkeys((author, organizational(author))):
        policy = _policy_at(domain, records)
        if policy is not None:
            return policy
    return None


def _policy_at(domain: str, records: Records) -> Policy | None:
    """None where there is no record, or several: then none counts."""
    found = [record for record in records(f"_dmarc.{domain}") if _is_dmarc(record)]
    return read_policy(found[0], domain) if len(found) == 1 else None


def _tags(record: bytes) -> dict[str, str]:
    """The tags of a record; what has no form of one is passed over, of a tag that is repeated the first counts
    (section 6.3: syntax errors in the remainder of a record are ignored)."""
    tags: dict[str, str] = {}
    for part in record.split(b";"):
        try:
            told = parse_tags(part)
        except TagListError:
            continue
        for name, value in told.items():
            if name == "p" and name in tags:
                return {}  # two policies are none
            tags.setdefault(name, value)
    return tags


def _is_dmarc(record: bytes) -> bool:
    version, equals, value = record[:64].partition(b";")[0].partition(b"=")
    return bool(equals) and version.strip() == b"v" and value.strip() == b"DMARC1"


@lru_cache(maxsize=1024)
def read_policy(record: bytes, domain: str) -> Policy | None:
    """The policy in a record; None when it has none that can be read (sections 6.3 and 6.6.3)."""
    if len(record) > _LONGEST_RECORD:
        return None
    tags = _tags(record)
    asked = tags.get("p", "").lower()
    if asked not in _POLICIES or tags.get("sp", "none").lower() not in _POLICIES:
        if not tags.get("rua"):
            return None
        asked, tags = "none", tags | {"sp": "none"}
    percent = tags.get("pct", "")
    return Policy(
        policy=asked,
        subdomain_policy=tags.get("sp", asked).lower(),
        strict_dkim=tags.get("adkim", "r").lower() == "s",
        strict_spf=tags.get("aspf", "r").lower() == "s",
        percent=min(int(percent), 100) if percent.isascii() and percent.isdigit() and len(percent) <= 3 else 100,
        found_at=domain,
    )
