"""Whether a reply is dangerous, whatever it asks for: what hangs on it, where its links lead, who poses, what it says.

Each sign is a chance of one verdict; the signs of a verdict add up (`signs.scores`), and the likeliest verdict stands
from `THRESHOLD` on. A failed authentication makes lies likelier and proves nothing alone: forwarding breaks it too.
Only mail under a domain of ours that fails it is told by that.

Allow-lists bypass everything but malware, because the owner of a known address may have been infected; and not where
authentication failed, because then nothing shows that the owner wrote it.

The readers: `attachments`, `links`, `posing`, `wording`. Each is linear in the message and capped. Words and lists are
data (`replies_safety.toml`).

Log events: none; never raises on any message. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from mailback import address
from mailback.message import Message
from mailback.reply import attachments, links, posing, wording
from mailback.reply.lookalike import Alike
from mailback.reply.rulefiles import Lists, lists
from mailback.reply.signs import SEVERITY, Sign, Verdict, scores
from mailback.reply.words import one_of, squeeze
from mailback.resources import rules_dir

__all__ = ["FILE", "NOBODY", "THRESHOLD", "Known", "Safety", "SafetyRules", "Said", "Verdict", "assess", "shipped"]

FILE = "replies_safety.toml"
THRESHOLD = 0.5

_AUTH_FAILED = 0.25  # what a failed authentication adds to phishing, spam and impersonation
_OUR_NAME_FAILED = 0.6  # a writer under a domain of ours that fails it
_BRAND = 0.4
_ELSEWHERE = 0.2
_FAILED_DMARC = re.compile(r"\bdmarc\s*=\s*fail", re.IGNORECASE)
_FAILED_BOTH = re.compile(r"(?=.{0,2000}\bspf\s*=\s*fail)(?=.{0,2000}\bdkim\s*=\s*fail)", re.IGNORECASE | re.DOTALL)
_TABLES = (
    attachments.TABLES | wording.TABLES | links.TABLES | {"brands": ("names", "titles", "added"), "alike": ("letters",)}
)


@dataclass(frozen=True, slots=True)
class Safety:
    """The verdict, how sure it is, and the signs it rests on."""

    verdict: Verdict
    score: float
    """Chance of the verdict; of a clean one, of the likeliest that it is not."""
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
    """Ours, as A-labels in lower case. Where there are none, those that a message is addressed to count as ours."""
    names: Collection[str] = ()
    """Display names of our people."""
    allowed: Collection[str] = ()
    """Addresses (as `address.key`) and domains that bypass everything but malware."""


@dataclass(frozen=True, slots=True)
class SafetyRules:
    """The lists of `replies_safety.toml`, ready to be used."""

    attachments: attachments.AttachmentRules
    wording: wording.WordingRules
    links: links.LinkRules
    bearers: dict[str, frozenset[str]]
    """Domains that may bear a brand's name."""
    added: frozenset[str]
    titles: re.Pattern[str]
    alike: Alike

    @classmethod
    def load(cls, directories: Sequence[Path]) -> SafetyRules:
        """Raises RulesError with every problem of the files."""
        told = lists(directories, FILE, _TABLES)
        return cls(
            attachments=attachments.AttachmentRules.of(told),
            wording=wording.WordingRules.of(told),
            links=links.LinkRules.of(told),
            bearers=_bearers(told),
            added=frozenset(map(str.lower, told["brands.added"])),
            titles=one_of(told["brands.titles"]),
            alike=Alike(told["alike.letters"]),
        )


def _bearers(told: Lists) -> dict[str, frozenset[str]]:
    """`name = domain domain` by name; a later line of the same name adds to it."""
    found: dict[str, frozenset[str]] = {}
    for line in told["brands.names"]:
        name, _, domains = line.partition("=")
        key = squeeze(name)
        found[key] = found.get(key, frozenset()) | frozenset(domains.lower().split())
    return found


@lru_cache(maxsize=1)
def shipped() -> SafetyRules:
    """The file that ships, read once a process."""
    return SafetyRules.load([rules_dir()])


NOBODY = Known()


@dataclass(frozen=True, slots=True)
class Said:
    """What the readers of a reply have found before: what is new in it, and how to find that in another text."""

    new: str = ""
    thread: Sequence[str] = ()
    own: Callable[[str], str] | None = None
    """What is new in the HTML of a part; None where that cannot be told, and then all of it counts."""


SILENT = Said()


def assess(
    message: Message,
    known: Known = NOBODY,
    *,
    authentication_failed: bool = False,
    said: Said = SILENT,
    virus: str | None = None,
    rules: SafetyRules | None = None,
) -> Safety:
    """The verdict on a message; `authentication_failed` where DMARC, or both SPF and DKIM, failed; `virus` is what a
    scanner found."""
    rules = rules or shipped()
    writer = posing.Writer(message)
    failed = authentication_failed or _told_failed(message)
    found = [*_scanned(virus), *attachments.signs(message, said.new, rules.attachments)]
    trusted = address.key(writer.address) in known.allowed or posing.below(writer.domain, frozenset(known.allowed))
    if failed or not trusted:
        found += _lies(message, writer, known, said, rules, failed=failed)
    likely = scores(found)
    if not likely:
        return Safety(Verdict.CLEAN, 0.0, ())
    verdict = max(likely, key=lambda one: (round(likely[one], 6), SEVERITY[one]))
    told = tuple(dict.fromkeys(sign.says for sign in found))
    return Safety(verdict if likely[verdict] >= THRESHOLD else Verdict.CLEAN, likely[verdict], told)


def _scanned(virus: str | None) -> Iterator[Sign]:
    """What a scanner found: a virus, a lie, or something that only may be unwanted, such as an encrypted archive."""
    if virus is None:
        return
    if ".phishing." in virus.lower():
        yield Sign(Verdict.PHISHING, 0.9, f"scanner:{virus}")
    else:
        doubtful = virus.startswith(_DOUBTFUL)
        yield Sign(Verdict.MALWARE, 0.4 if doubtful else 0.99, f"scanner:{virus}")


_DOUBTFUL = ("Heuristics.Encrypted", "Heuristics.Limits", "PUA.")
"""Findings of a scanner that says only that it could not look, or that somebody might not want it."""


def _told_failed(message: Message) -> bool:
    """Whether any server on the way said so. Who says that a message *passed* must be trusted; nobody lies here."""
    told = message.header("authentication-results")[:4000]
    return bool(_FAILED_DMARC.search(told) or _FAILED_BOTH.match(told))


def _lies(
    message: Message, writer: posing.Writer, known: Known, said: Said, rules: SafetyRules, *, failed: bool
) -> Iterator[Sign]:
    ours = posing.ours(writer, frozenset(known.domains))
    inside = posing.below(writer.domain, ours)
    around = links.Around(writer.domain, ours, rules.attachments.files, rules.bearers, said.new, said.own)
    actionable = links.present(message) or attachments.has_page(message, rules.attachments)
    answers = bool(message.header("in-reply-to") or message.header("references"))
    words = wording.Words(
        said.new,
        message.header("subject"),
        said.thread,
        actionable=actionable,
        foreign=partial(links.foreign, message, around, rules.links, said.thread),
        answers=answers,
    )
    phrases = wording.search(words, rules.wording)
    found = [
        *links.signs(message, around, rules.links, rules.alike),
        *wording.signs(words, phrases, rules.wording),
    ]
    if not inside or failed:
        found += _posed(writer, known, ours, phrases, rules, inside=inside, failed=failed)
    yield from found
    lied = {sign.verdict for sign in found} & {Verdict.PHISHING, Verdict.IMPERSONATION, Verdict.SPAM}
    for verdict in lied if failed else ():
        yield Sign(verdict, _AUTH_FAILED, "authentication_failed")


def _posed(
    writer: posing.Writer,
    known: Known,
    ours: frozenset[str],
    phrases: wording.Found,
    rules: SafetyRules,
    *,
    inside: bool,
    failed: bool,
) -> Iterator[Sign]:
    """Signs of posing, and what counts only beside others."""
    found = [] if inside else list(posing.signs(writer, frozenset(known.names), ours, rules))
    if inside and failed and known.domains:
        found.append(Sign(Verdict.IMPERSONATION, _OUR_NAME_FAILED, "our_domain_unproven"))
    found += wording.pretext(phrases)
    if found and posing.elsewhere(writer):
        found.append(Sign(Verdict.IMPERSONATION, _ELSEWHERE, "reply_to_elsewhere"))
    if not inside and posing.of_brand(writer, rules.bearers):
        found.append(Sign(Verdict.PHISHING, _BRAND, "famous_name"))
    yield from found
