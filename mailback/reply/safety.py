"""Whether a reply is dangerous, whatever it asks for: attachments that run, links that lie, writers who pose as ours.

Each sign is a chance; the strongest of a verdict counts, and the verdict stands from `THRESHOLD` on. A failed
authentication makes links that lie and writers who pose likelier, and proves nothing alone: forwarding breaks it too.
Allow-lists bypass everything but malware, because the owner of a known address may have been infected.

Work is linear in the message: archives are read by their directory only, never unpacked, and links are capped.
Log events: none; never raises on any message. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from mailback import address
from mailback.message import Message, Part
from mailback.reply.rulefiles import lists
from mailback.reply.words import squeeze
from mailback.resources import rules_dir

FILE = "replies_safety.toml"
THRESHOLD = 0.5

_ARCHIVE_CAP = 10_000_000  # bytes of an archive whose directory is read
_MEMBERS = 1000
_LINKS = 200
_HTML_CAP = 400_000
_AUTH_FAILED = 0.2  # what a failed authentication adds to phishing and impersonation
_LINK = re.compile(
    r"<a\s[^<>]{0,400}?href\s*=\s*[\"']?https?://([^\s\"'<>/?#]{1,255})[^<>]{0,2000}>([^<]{1,300})<", re.IGNORECASE
)
_SHOWN_HOST = re.compile(
    r"\s*(?:https?://)?((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24})(?:[:/?#]\S{0,200})?\s*", re.IGNORECASE
)
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "3": "e", "5": "s", "-": None, ".": None})


class Verdict(StrEnum):
    """What a reply is, beside what it says."""

    CLEAN = "clean"
    SPAM = "spam"
    PHISHING = "phishing"
    MALWARE = "malware"
    ABUSE = "abuse"
    IMPERSONATION = "impersonation"


@dataclass(frozen=True, slots=True)
class Safety:
    """The verdict, how sure it is, and the signs it rests on."""

    verdict: Verdict
    score: float
    signals: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return self.verdict is Verdict.CLEAN

    def to_dict(self) -> dict[str, object]:
        return {"verdict": self.verdict.value, "score": round(self.score, 2), "signals": list(self.signals)}


@dataclass(frozen=True, slots=True)
class Known:
    """Who we are, and whom the operator trusts."""

    domains: Collection[str] = ()
    """Ours, as A-labels in lower case."""
    names: Collection[str] = ()
    """Display names of our people."""
    allowed: Collection[str] = ()
    """Addresses (as `address.key`) and domains that bypass everything but malware."""


@dataclass(frozen=True, slots=True)
class SafetyRules:
    """The lists of `replies_safety.toml`."""

    executable: frozenset[str]
    macro: frozenset[str]
    harmless: frozenset[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> SafetyRules:
        """Raises RulesError with every problem of the files."""
        told = lists(directories, FILE, {"attachment": ("executable", "macro", "harmless")})
        return cls(
            executable=frozenset(told["attachment.executable"]),
            macro=frozenset(told["attachment.macro"]),
            harmless=frozenset(told["attachment.harmless"]),
        )


@lru_cache(maxsize=1)
def shipped() -> SafetyRules:
    """The file that ships, read once a process."""
    return SafetyRules.load([rules_dir()])


NOBODY = Known()


def assess(
    message: Message,
    known: Known = NOBODY,
    *,
    authentication_failed: bool = False,
    new: str | None = None,
    rules: SafetyRules | None = None,
) -> Safety:
    """The verdict on a message; `authentication_failed` where DMARC, or both SPF and DKIM, failed.

    `new` is what is new in a reply: links in what it quotes are likely our own, which lead through a counter of clicks.
    """
    signs = list(_attachments(message, rules or shipped()))
    name, sender = parseaddr(message.header("from"))
    domain = address.domain(sender)
    if address.key(sender) not in known.allowed and domain not in known.allowed:
        doubt = _AUTH_FAILED if authentication_failed else 0.0
        others = [*_links(message, new), *_posing(name, domain, known)]
        signs += [(verdict, min(1.0, score + doubt), says) for verdict, score, says in others]
    if not signs:
        return Safety(Verdict.CLEAN, 0.0, ())
    verdict, score, _ = max(signs, key=lambda sign: sign[1])
    told = tuple(dict.fromkeys(says for _, _, says in signs))
    return Safety(verdict if score >= THRESHOLD else Verdict.CLEAN, score, told)


_Sign = tuple[Verdict, float, str]


def _attachments(message: Message, rules: SafetyRules) -> Iterator[_Sign]:
    for part in message.parts:
        if part.filename:
            yield from _name(part.filename, rules)
            if part.filename.lower().endswith(".zip"):
                yield from _members(part, rules)


def _name(filename: str, rules: SafetyRules) -> Iterator[_Sign]:
    pieces = filename.lower().rstrip(". ").split(".")
    ending = pieces[-1].strip() if len(pieces) > 1 else ""
    if ending in rules.executable:
        hidden = len(pieces) > 2 and pieces[-2].strip() in rules.harmless
        yield (Verdict.MALWARE, 0.98, "double_extension") if hidden else (Verdict.MALWARE, 0.9, "executable_attachment")
    elif ending in rules.macro:
        yield Verdict.MALWARE, 0.6, "macro_attachment"


def _members(part: Part, rules: SafetyRules) -> Iterator[_Sign]:
    """Executables in an archive, by the names in its directory."""
    content = part.content
    if len(content) > _ARCHIVE_CAP:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [member.filename for member in archive.infolist()[:_MEMBERS]]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return
    if any(score >= THRESHOLD for name in names for _, score, _ in _name(name, rules)):
        yield Verdict.MALWARE, 0.9, "executable_in_archive"


def _links(message: Message, new: str | None) -> Iterator[_Sign]:
    """Links that show one host and lead to another; in a quotation they are a sign, and alone no verdict."""
    quoted = False
    for part in message.parts:
        if part.type != "text/html":
            continue
        for number, link in enumerate(_LINK.finditer(part.text[:_HTML_CAP])):
            if number >= _LINKS:
                break
            shown = _SHOWN_HOST.fullmatch(link[2])
            if shown is not None and not _related(shown[1].lower(), link[1].lower().rpartition("@")[2].split(":")[0]):
                if new is None or shown[0].strip() in new:
                    yield Verdict.PHISHING, 0.6, "link_text_mismatch"
                    return
                quoted = True
    if quoted:
        yield Verdict.PHISHING, 0.3, "quoted_link_text_mismatch"


def _related(one: str, other: str) -> bool:
    """Whether two hosts share their last two labels: `www.a.example` and `a.example`."""
    return one.split(".")[-2:] == other.split(".")[-2:]


def _posing(name: str, domain: str, known: Known) -> Iterator[_Sign]:
    ours = {ours.lower() for ours in known.domains}
    if not domain or any(domain == our or domain.endswith(f".{our}") for our in ours):
        return
    if name and squeeze(name) in set(map(squeeze, known.names)):
        yield Verdict.IMPERSONATION, 0.7, "display_name_of_ours"
    if any(_skeleton(domain) == _skeleton(our) for our in ours):
        yield Verdict.IMPERSONATION, 0.8, "lookalike_domain"


def _skeleton(domain: str) -> str:
    """A domain as the eye takes it: `rn` for `m`, `1` for `l`, `0` for `o`, hyphens gone."""
    return domain.replace("rn", "m").replace("vv", "w").translate(_ALIKE)
