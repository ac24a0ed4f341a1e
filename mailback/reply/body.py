"""What the person wrote this time: a reply without quotes, attribution lines, earlier messages and boilerplate.

Everything is decided line by line, at most a few lines ahead, so the work is linear in the text whatever it holds;
texts are capped. Words that tell (verbs of attribution, header names, mobile signatures, disclaimers) are data:
`replies_body.toml`.

Order: HTML becomes text with its quotations marked; history is cut at a separator, a copied header block or an
attribution line that no quoted lines follow; quoted lines go and what stands between them (inline answers) stays; what
our own earlier messages said goes too, marked or not; then signatures and disclaimers. What is left may be empty: then
the subject speaks.

Log events: none; never raises on any string. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mailback.html import html_to_text
from mailback.message import Message
from mailback.reply.rulefiles import lists
from mailback.reply.words import fold, one_of, squeeze
from mailback.resources import rules_dir

FILE = "replies_body.toml"

TEXT_CAP = 40_000
"""Characters of a body that are looked at; people write less, quoted history stands below."""
_LINE_CAP = 400  # a longer line is prose: no signature, header or attribution
_LINES_CAP = 4_000
_THREAD_CAP = 40_000
_NAMED = 6  # words of an attribution without a date: more are a sentence of the person's
_ATTRIBUTION_LINES = 6  # mail programs break "On ... wrote:" over at most so many, counting empty ones
_SIGNATURE_LINES = 12
_POLITE = 5  # words of a polite ending, with its comma
_NAME = 80  # characters of a line that names the writer
_BEHIND_NAME = frozenset(("", " ", ",", "|", "("))
_FOOTER = 240  # characters of a footer
_LEGAL = 60  # characters from which a paragraph may be legal text
_SHINGLE = 4  # words that must agree in a row for a line to count as ours

_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: where a quotation of HTML begins and ends
_CUT = "\ue002"  # where an element begins that holds nothing but the earlier message
_MARKS = f" \t{_OPEN}{_CLOSE}"
_BLOCKQUOTE = re.compile(r"<(/?)blockquote\b[^<>]*>?", re.IGNORECASE)
_NAMED_ELEMENT = re.compile(r"<(?:div|span|table)\b([^<>=]{1,200}=[^<>]{1,600})>", re.IGNORECASE)
_ATTRIBUTED = 1500  # characters of the element that holds an attribution
_QUOTED = re.compile(r"[ \t]{0,3}(?:[A-Z]{0,2}[>＞]|\|(?: |$))")
_RULE = re.compile(r"[\s_*=~\-–—─]{3,}")
_DELIMITER = re.compile(r"(?:--|—|––|__|_{8,})[ \t]*")
_EDGE = " \t-_=*<>─—–:#|"
_FRAMED = re.compile(r"[ \t]*[-_=*]{3,}[^\n]{0,60}?[-_=*]{3,}[ \t]*")
"""`----- Mail original -----` above copied header fields, in whatever language."""
_DATED = re.compile(r"\b(?:19|20)\d\d\b|\d{1,2}[:.h]\d\d|\d{1,2}[./-]\d{1,2}[./-]\d{2}")
_CLOCK = re.compile(r"\d{1,2}[:.h]\d\d")
_LABEL = re.compile(r"[*_\s]{0,4}([^\s:*][^:*]{0,24}?)[ *_]{0,3}:")


@dataclass(frozen=True, slots=True)
class BodyRules:
    """The words of `replies_body.toml`, compiled."""

    verbs: re.Pattern[str]
    openers: tuple[str, ...]
    separators: frozenset[str]
    containers: re.Pattern[str]
    attributions: re.Pattern[str]
    signatures: re.Pattern[str]
    below: re.Pattern[str]
    from_labels: frozenset[str]
    labels: frozenset[str]
    mobile: re.Pattern[str]
    titles: frozenset[str]
    closings: frozenset[str]
    disclaimers: re.Pattern[str]
    banners: re.Pattern[str]
    footers: re.Pattern[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> BodyRules:
        """Raises RulesError with every problem of the files."""
        told = lists(
            directories,
            FILE,
            {
                "attribution": ("verbs", "openers"),
                "history": ("separators", "containers", "attributions", "signatures", "below"),
                "headers": ("from", "others"),
                "signature": ("mobile", "titles", "closings"),
                "disclaimer": ("phrases", "banners", "footers"),
            },
        )
        from_labels = frozenset(map(squeeze, told["headers.from"]))
        return cls(
            verbs=one_of(told["attribution.verbs"]),
            openers=tuple(f"{squeeze(opener)} " for opener in told["attribution.openers"]),
            separators=frozenset(squeeze(phrase).strip(_EDGE) for phrase in told["history.separators"]),
            containers=_pieces(told["history.containers"]),
            attributions=_pieces(told["history.attributions"]),
            signatures=_pieces(told["history.signatures"]),
            below=one_of(told["history.below"]),
            from_labels=from_labels,
            labels=from_labels | frozenset(map(squeeze, told["headers.others"])),
            mobile=re.compile("|".join(f"(?:{pattern})" for pattern in told["signature.mobile"])),
            titles=frozenset(map(squeeze, told["signature.titles"])),
            closings=frozenset(squeeze(phrase).rstrip(".,!") for phrase in told["signature.closings"]),
            disclaimers=one_of(told["disclaimer.phrases"]),
            banners=one_of(told["disclaimer.banners"]),
            footers=one_of(told["disclaimer.footers"]),
        )


def _pieces(told: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(piece.lower()) for piece in told) or r"(?!)")


@lru_cache(maxsize=1)
def shipped() -> BodyRules:
    """The file that ships, read once a process."""
    return BodyRules.load([rules_dir()])


@dataclass(frozen=True, slots=True)
class Body:
    """A reply taken apart."""

    text: str
    """What the person wrote, without the name and contact lines below it."""
    quoted: bool
    """Something of an earlier message was there."""


def visible(message: Message, rules: BodyRules | None = None) -> str:
    """The text that a person sees, quotations of HTML marked with `>` as in plain text."""
    rules = rules or shipped()
    for part in message.parts:
        if part.type == "text/plain" and part.disposition != "attachment" and not part.text.isspace() and part.text:
            return message.text[:TEXT_CAP]
    for part in message.parts:
        if part.type == "text/html" and part.disposition != "attachment":
            return _marked(part.text, rules)[:TEXT_CAP]
    return message.text[:TEXT_CAP]


def of_page(html: str, rules: BodyRules | None = None) -> str:
    """The text of HTML as `visible` takes it, whichever part it stands in."""
    return _marked(html, rules or shipped())[:TEXT_CAP]


def _marked(html: str, rules: BodyRules) -> str:
    """HTML as text, each line within a blockquote led by `>`."""
    page = "".join(_annotated(html[: 8 * TEXT_CAP], rules))
    page = _BLOCKQUOTE.sub(lambda tag: f"<br>{_CLOSE if tag[1] else _OPEN}<br>", page)
    text = html_to_text(page)
    if _OPEN not in text:
        return text.replace(_CLOSE, "")
    lines = []
    depth = 0
    for line in text.split("\n"):
        if _OPEN in line or _CLOSE in line:
            depth = max(0, depth + line.count(_OPEN) - line.count(_CLOSE))
            if line.strip(_MARKS):
                lines.append(f"> {line.strip(_MARKS)}" if depth else line.strip(_MARKS))
        else:
            lines.append(f"> {line}" if depth else line)
    return "\n".join(lines)


def _annotated(page: str, rules: BodyRules) -> Iterator[str]:
    """HTML with a mark before each element that is known to hold history, attribution or a signature."""
    at = 0
    for tag in _NAMED_ELEMENT.finditer(page):
        named, start = tag[1].lower(), tag.start()
        if start < at:
            continue
        if rules.containers.search(named):
            yield f"{page[at:start]}<br>{_CUT}<br>"
            at = start
        elif rules.signatures.search(named):
            yield f"{page[at:start]}<br>--<br>"
            at = start
        elif rules.attributions.search(named):
            end = page.find("</div", start, start + _ATTRIBUTED)
            if end >= 0:
                yield f"{page[at:start]}<br>{_OPEN}<br>{page[start:end]}<br>{_CLOSE}<br>"
                at = end
    yield page[at:]


def read(text: str, thread: Sequence[str] = (), *, sender: str = "", rules: BodyRules | None = None) -> Body:
    """Take a visible text apart; `thread` holds the texts of earlier messages, `sender` the display name of `From`."""
    rules = rules or shipped()
    lines = text[:TEXT_CAP].replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").split("\n")[:_LINES_CAP]
    history = _history(lines, rules)
    kept = [line.rstrip() for line in lines[: history.cut]]
    for start, end in history.attributions:
        kept[start:end] = [_GONE] * (end - start)
    kept = _unquoted(kept)
    kept = _not_ours(kept, thread)
    kept = _without_signature(kept, rules)
    kept = _without_boilerplate(kept, rules)
    told = _joined(_above_name(_joined(kept).split("\n"), squeeze(sender), rules))
    if thread and (not told or (len(told) < _LINE_CAP and rules.below.search(squeeze(told)))):
        told = f"{told}\n\n{_between(lines[history.cut :], thread, rules)}".strip()
    quoted = history.cut < len(lines) or bool(history.attributions) or _GONE in kept
    return Body(told, quoted)


def _between(lines: Sequence[str], thread: Sequence[str], rules: BodyRules) -> str:
    """What somebody wrote between the lines of the earlier message: what is left of it without what we had written.

    Empty where most of it is left: then it is not the message that we know.
    """
    below = [line for line in lines if line.strip() and _label(line) not in rules.labels and not _QUOTED.match(line)]
    known = _not_ours([line.rstrip() for line in below], thread)
    said = _said(thread)
    left = [line for line in known if line != _GONE and squeeze(line) not in said]
    return _joined(left) if len(left) * 2 <= len(below) else ""


def _said(thread: Sequence[str]) -> frozenset[str]:
    return frozenset(squeeze(line) for text in thread for line in text[:_THREAD_CAP].split("\n"))


_GONE = "\0"
"""Stands for a line that was history: what follows it directly is not its continuation."""


@dataclass(slots=True)
class _History:
    cut: int
    attributions: list[tuple[int, int]]


def _history(lines: Sequence[str], rules: BodyRules) -> _History:
    """Where earlier messages begin, and the attribution lines above quotations that do not end the new text."""
    found = _History(len(lines), [])
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line or line.isspace() or len(line) > _LINE_CAP or _QUOTED.match(line):
            at += 1
            continue
        if (
            line.strip() == _CUT
            or _separates(line, rules)
            or _header_block(lines, at, rules)
            or _notes_block(lines, at, rules)
        ):
            found.cut = at
            while found.cut and (_FRAMED.fullmatch(lines[found.cut - 1]) or not lines[found.cut - 1].strip()):
                found.cut -= 1
            return found
        if (end := _attribution(lines, at, rules)) is not None:
            following = next((line for line in lines[end : end + 4] if line.strip()), "")
            if not _QUOTED.match(following):
                found.cut = at
                return found
            found.attributions.append((at, end))
            at = end
            continue
        at += 1
    return found


def _separates(line: str, rules: BodyRules) -> bool:
    """`-----Original Message-----`, `Begin forwarded message:`; never words in a sentence."""
    core = squeeze(line)
    bare = core.strip(_EDGE)
    return bare in rules.separators and (core[:1] in "-_=*<>#|" or core.endswith(":") or len(bare) > 24)


def _header_block(lines: Sequence[str], at: int, rules: BodyRules) -> bool:
    """From, Sent, To, Subject as Outlook and others copy them above the earlier message."""
    if (first := _label(lines[at])) not in rules.labels:
        return False
    labels = [first]
    for line in _filled(lines, at + 1, 6):
        if (label := _label(line)) in rules.labels:
            labels.append(label)
        if len(set(labels)) >= 3:
            return not rules.from_labels.isdisjoint(labels)
    return False


def _notes_block(lines: Sequence[str], at: int, rules: BodyRules) -> bool:
    """Writer, date, and the names of the fields on lines of their own, as Lotus Notes copies them."""
    if "@" not in lines[at] or len(lines[at]) > _LINE_CAP:
        return False
    below = list(_filled(lines, at + 1, 14))
    if not below or not _DATED.search(below[0][:_LINE_CAP]):
        return False
    return len({name for line in below[1:] if (name := squeeze(line[:40])) in rules.labels}) >= 2


def _filled(lines: Sequence[str], start: int, count: int) -> Iterator[str]:
    return (line for line in lines[start : start + count] if line.strip())


def _label(line: str) -> str:
    """The name before the colon, as a header field would have it; empty when there is none."""
    match = _LABEL.match(fold(line[:60]))
    return match[1].strip() if match else ""


def _attribution(lines: Sequence[str], at: int, rules: BodyRules) -> int | None:
    """The line after an attribution that begins here, or None."""
    if not _may_attribute(fold(lines[at]).strip(), rules):
        return None
    joined = ""
    for end in range(at, min(at + _ATTRIBUTION_LINES, len(lines))):
        line = lines[end]
        broken = joined.count("<") > joined.count(">")  # the address of the line above goes on here
        if len(line) > _LINE_CAP or (_QUOTED.match(line) and not broken):
            return None
        joined = f"{joined} {squeeze(line)}".strip().lstrip("-").strip()
        if end == at and _above_quotation(lines, end) and _names_writer(joined, rules):
            return end + 1
        if _attributes(joined, rules) or (_above_quotation(lines, end) and _names_sender(joined)):
            return None if _begins_later(lines, at, end, rules) else end + 1
    return None


def _begins_later(lines: Sequence[str], at: int, end: int, rules: BodyRules) -> bool:
    """Whether the lines up to `end` attribute without the first one, which then is the person's last sentence."""
    opened = _opens(squeeze(lines[at]), rules)
    for start in range(at + 1, end + 1):
        line = squeeze(lines[start])
        if (_opens(line, rules) or not opened) and _attributes(squeeze(" ".join(lines[start : end + 1])), rules):
            return True
    return False


def _opens(line: str, rules: BodyRules) -> bool:
    """`On Tue, 5 Jan`, `5 янв. 2026`: an opener or a day, and a number or an address in the same line."""
    return line[:1].isdigit() or (line.startswith(rules.openers) and any(map(line.__contains__, "0123456789@")))


def _may_attribute(line: str, rules: BodyRules) -> bool:
    if line.startswith(rules.openers) or "@" in line:
        return True
    return bool(line[:1].isdigit() or _DATED.search(line) or rules.verbs.search(line))


def _above_quotation(lines: Sequence[str], at: int) -> bool:
    return bool(_QUOTED.match(next(_filled(lines, at + 1, 3), "")))


def _names_sender(line: str) -> bool:
    """`2026/1/5 Ann via Forum <ann@host.example>`, which some programs put above a quotation without any verb."""
    return line.endswith(">") and "@" in line and line[:1].isdigit() and _DATED.search(line) is not None


def _names_writer(line: str, rules: BodyRules) -> bool:
    """`Ann wrote:`, which above quoted lines needs neither date nor address."""
    verb = rules.verbs.search(line)
    bare = line.rstrip('"*_ ')
    return verb is not None and bare.endswith(":") and len(bare) - verb.end() <= 2 and len(line.split()) <= _NAMED


def _attributes(line: str, rules: BodyRules) -> bool:
    """Whether a line tells who wrote what follows: a date or an address, a verb, and a colon or the verb at its end."""
    if len(line) > _LINE_CAP:
        return False
    line = line.rstrip("-").rstrip()
    colon = line.rstrip('"*_ ').endswith(":")
    verb = rules.verbs.search(line)
    dated = _DATED.search(line) is not None
    if verb is None:
        return colon and "@" in line and dated and _CLOCK.search(line) is not None
    if not (dated or "@" in line):
        return False
    return colon or len(line) - verb.end() <= 3


def _unquoted(lines: list[str]) -> list[str]:
    """Quoted lines removed; a line that a mail program broke off a long quoted one goes with it."""
    kept = []
    broken = False
    for index, line in enumerate(lines):
        if _QUOTED.match(line):
            kept.append(_GONE)
            broken = len(line) > 66
            continue
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if broken and line and _QUOTED.match(following) and len(line) < 30 and len(following.strip()) > 2:
            kept.append(_GONE)
        else:
            kept.append(line)
        broken = False
    return kept


def _shingles(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[shift:] for shift in range(_SHINGLE)), strict=False)


def _not_ours(lines: list[str], thread: Sequence[str]) -> list[str]:
    """Drop what stands in our own earlier messages.

    A line counts as ours when every run of four words in it is; shorter lines (`Unsubscribe`) only in the middle of
    others that are ours, because a person may well answer with one of our words.
    """
    if not thread:
        return lines
    ours: set[tuple[str, ...]] = set()
    whole: set[str] = set()
    for text in thread:
        ours.update(_shingles(squeeze(text[:_THREAD_CAP]).split()))
        whole.update(squeeze(line) for line in text[:_THREAD_CAP].split("\n"))
    whole.discard("")
    long = [False] * len(lines)
    short = [False] * len(lines)
    for index, line in enumerate(lines):
        words = squeeze(line).split()
        if len(words) > _SHINGLE + 1:
            long[index] = all(map(ours.__contains__, _shingles(words)))
        elif words:
            short[index] = " ".join(words) in whole
    return [
        _GONE if long[index] or (short[index] and _beside(index, long, lines)) else line
        for index, line in enumerate(lines)
    ]


def _beside(index: int, long: Sequence[bool], lines: Sequence[str]) -> bool:
    """Whether one of the two filled lines above or below is ours."""
    around = 0
    for step in (-1, 1):
        seen = 0
        at = index + step
        while 0 <= at < len(lines) and abs(at - index) <= 4 and seen < 2:
            seen += bool(lines[at])
            around += long[at]
            at += step
    return around > 0


def _without_signature(lines: list[str], rules: BodyRules) -> list[str]:
    """Cut below a signature delimiter, up to the next quotation, and drop what mail programs add."""
    kept = []
    below = False
    for line in lines:
        if line == _GONE:
            below = False
        elif _DELIMITER.fullmatch(line):
            below = True
            continue
        if below:
            continue
        if line and len(line) <= 120 and rules.mobile.fullmatch(squeeze(line).strip("\"'-._*~)]>")):
            continue
        kept.append(line)
    return kept


def _without_boilerplate(lines: list[str], rules: BodyRules) -> list[str]:
    """Drop banners, and cut at the first paragraph of legal text that has words above it.

    Where such text is all there is, and says one thing of the kind only, somebody wrote it: people write of
    confidential data too.
    """
    kept: list[str] = []
    paragraph: list[str] = []
    law: list[str] = []
    feet: list[str] = []  # lines that are footers only where nothing but footers follows
    written = False
    for line in [*lines, ""]:
        if line and line != _GONE:
            paragraph.append(line)
            continue
        told = squeeze(" ".join(paragraph))
        legal = bool(paragraph) and _length(told) > _LEGAL and rules.disclaimers.search(told) is not None
        if legal and written:
            return kept
        added = bool(paragraph) and len(told) < 500 and rules.banners.search(told)
        footer = written and 0 < len(told) <= _FOOTER and "?" not in told and rules.footers.search(told)
        if legal:
            law += [] if len(set(rules.disclaimers.findall(told))) > 1 else [*paragraph, ""]
        elif footer:
            feet += [*paragraph, ""]
        elif not added:
            kept += [*feet, *paragraph] if told else paragraph
            feet = [] if told else feet
            written = written or bool(told)
        paragraph = []
        kept.append(line)
    return kept if written else [*kept, *law]


def _length(told: str) -> int:
    """Characters, those of Chinese and Japanese twice: a word there is one or two."""
    return len(told) if told.isascii() else len(told) + sum(letter >= "\u3000" for letter in told)


def _above_name(lines: list[str], sender: str, rules: BodyRules) -> list[str]:
    """Cut the name, title and telephone at the end: below a polite ending, or from the writer's own name on.

    A polite ending with nothing below it is part of what was written.
    """
    named = _Name.of(sender, rules.titles)
    for index in range(max(1, len(lines) - _SIGNATURE_LINES), len(lines)):
        line = squeeze(lines[index]).strip(".,! -/")
        alone = not lines[index - 1] or _ends_politely(lines[index - 1])
        ends = line in rules.closings and index + 1 < len(lines)
        if ends or named.is_of(line) or named.ends(line, rules.closings) or (alone and named.begins(line)):
            below = [line for line in lines[index + 1 :] if line]
            if all(len(line) < 80 and not line.endswith("?") for line in below) and any(lines[:index]):
                above = lines[:index]
                return above[:-1] if _ends_politely(above[-1]) and any(above[:-1]) else above
    return lines


def _ends_politely(line: str) -> bool:
    """`Warm wishes,` above a name, in whatever words."""
    return line.rstrip().endswith((",", "，")) and len(line.split()) <= _POLITE


class _Name(NamedTuple):
    """The display name of `From`, as the writer may put it below a mail."""

    whole: str
    first: str
    last: str
    titles: frozenset[str]

    @classmethod
    def of(cls, sender: str, titles: frozenset[str]) -> _Name:
        last, comma, first = sender.partition(", ")
        whole = f"{first} {last}" if comma and first and " " not in first else sender
        return cls(whole, whole.partition(" ")[0], whole.rpartition(" ")[2], titles)

    def is_of(self, line: str) -> bool:
        """The whole name, the first one, or `A. Lovelace`."""
        if not self.whole or len(line) > _NAME:
            return False
        initial, _, rest = line.partition(" ")
        return line in (self.whole, self.first) or (rest == self.last and initial.rstrip(".") == self.first[0])

    def ends(self, line: str, closings: Set[str]) -> bool:
        """A polite ending and the name on one line: `Mvh Ada`, `Best wishes, Ada Lovelace`."""
        for name in (self.whole, self.first):
            if name and line.endswith(f" {name}") and line[: -len(name)].rstrip(" ,.-/") in closings:
                return True
        return False

    def begins(self, line: str) -> bool:
        """The whole name and what people put behind it, on one line: `Ada Lovelace | Analyst`, `Ada Lovelace (Mrs)`."""
        if " " not in self.whole or len(line) > _NAME:
            return False
        before, name, behind = line.partition(self.whole)
        called = all(word.strip(".") in self.titles for word in before.split())
        return bool(name) and called and behind[:1] in _BEHIND_NAME


def _joined(lines: Sequence[str]) -> str:
    """Lines as a text: no empty ones at the ends, never two in a row, no ruler at the end."""
    kept: list[str] = []
    for line in lines:
        if line.strip(" \t\0"):
            kept.append(line)
        elif kept and kept[-1]:
            kept.append("")
    while kept and (not kept[-1] or _RULE.fullmatch(kept[-1])):
        kept.pop()
    return "\n".join(kept).strip()
