"""Links that lie: they show one host and lead to another, hide where they lead, or dress up as somebody's.

Links in what a reply quotes count little: it brings our own mail along, and our links lead through a counter of clicks,
as half of the world's do. What a protecting gateway or such a counter has rewritten says nothing about who wrote it
(`[links] rewriters`). Linear: HTML, links and what stands within a link are capped.

Log events: none; never raises on any message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import islice
from typing import NamedTuple

from mailback import address
from mailback.auth.domains import organizational
from mailback.message import Message
from mailback.reply import lookalike
from mailback.reply.lookalike import Alike
from mailback.reply.rulefiles import Lists
from mailback.reply.signs import Sign, Verdict

TABLES = {"links": ("rewriters", "shorteners", "free_pages")}
"""What of `replies_safety.toml` is read here."""

_LINKS = 200
_QUOTED = 0.3  # of the chance that is left to links in what is quoted
_HTML_CAP = 400_000
_TEXT_CAP = 40_000
_WITHIN = 2000  # characters of a link's content
_ANCHOR = re.compile(r"<a\s[^<>]{0,4000}>", re.IGNORECASE)
_HREF = re.compile(r"\bhref\s*=\s*(?:\"([^\"]{0,3000})|'([^']{0,3000})|([^\s\"'<>]{1,3000}))", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'\])]{3,1000}", re.IGNORECASE)
_AUTHORITY = re.compile(r"\s*(?:https?:)?[/\\]{2}([^/\\?#\s]{1,300})", re.IGNORECASE)
_SHOWN_HOST = re.compile(
    r"\s*(https?://|www\.)?((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?:[:/?#]\S{0,500})?\s*", re.IGNORECASE
)
_RUNS = re.compile(r"\s*(?:javascript|vbscript|data\s*:\s*text/html)", re.IGNORECASE)
_PASSWORD_FIELD = re.compile(r"<input[^<>]{0,500}type\s*=\s*[\"']?password", re.IGNORECASE)
_PHISHING = Verdict.PHISHING


@dataclass(frozen=True, slots=True)
class LinkRules:
    """The lists of `[links]`."""

    rewriters: frozenset[str]
    shorteners: frozenset[str]
    free_pages: frozenset[str]

    @classmethod
    def of(cls, told: Lists) -> LinkRules:
        return cls(*(frozenset(map(str.lower, told[f"links.{key}"])) for key in TABLES["links"]))


class Link(NamedTuple):
    """A link, and the text that it stands under."""

    target: str
    shown: str


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of the message around its links."""

    sender: str
    """Domain of the writer."""
    ours: frozenset[str]
    files: frozenset[str]
    """Endings of file names: `report.pdf` is no host."""
    bearers: dict[str, frozenset[str]]
    """Domains that may bear a brand's name, by name."""
    new: str = ""
    """What is new in the reply."""
    own: Callable[[str], str] | None = None
    """What is new in the HTML of a part; None where that cannot be told, and then all of it counts."""


def signs(message: Message, around: Around, rules: LinkRules, alike: Alike) -> Iterator[Sign]:
    """Signs in the links of what is new."""
    for url in islice(_URL.finditer(around.new[:_TEXT_CAP]), _LINKS):
        yield from _of_target(url[0] if "://" in url[0] else f"http://{url[0]}", around, rules, alike)
    for part in message.parts:
        if part.type != "text/html" or part.disposition == "attachment":
            continue
        page = part.text[:_HTML_CAP]
        found = [
            (link.shown, sign)
            for link in islice(_anchors(page), _LINKS)
            for sign in (*_of_target(link.target, around, rules, alike), *_mismatch(link, around, rules))
        ]
        if _PASSWORD_FIELD.search(page):
            yield Sign(_PHISHING, 0.7, "password_form")
        if found:
            there = _squeezed(around.own(page)) if around.own is not None else None
            yield from (sign if _stands(shown, there) else _quoted(sign) for shown, sign in found)


def foreign(message: Message, around: Around, rules: LinkRules, thread: Sequence[str]) -> bool:
    """Whether a link in what is new leads to a host that nobody here knows: neither the writer's nor one of ours, in
    no message before, no service that rewrites links."""
    known = {organizational(around.sender), *map(organizational, around.ours)}
    before = "\n".join(thread)[-_TEXT_CAP:].lower()
    for target in _targets(message, around):
        host, _ = _host(target)
        rewritten = not rules.rewriters.isdisjoint(_above(host))
        if host and organizational(host) not in known and not rewritten and host not in before:
            return True
    return False


def _targets(message: Message, around: Around) -> Iterator[str]:
    for url in islice(_URL.finditer(around.new[:_TEXT_CAP]), _LINKS):
        yield url[0] if "://" in url[0] else f"http://{url[0]}"
    for part in message.parts:
        if part.type == "text/html" and part.disposition != "attachment":
            page = part.text[:_HTML_CAP]
            there = _squeezed(around.own(page)) if around.own is not None and _ANCHOR.search(page) else None
            yield from (link.target for link in islice(_anchors(page), _LINKS) if _stands(link.shown, there))


def present(message: Message) -> bool:
    """Whether there is any link in HTML."""
    return any(part.type == "text/html" and _ANCHOR.search(part.text[:_HTML_CAP]) for part in message.parts)


def _stands(shown: str, there: str | None) -> bool:
    return there is None or _squeezed(shown) in there


def _quoted(sign: Sign) -> Sign:
    """The same in what a reply quotes: most likely our own link, through a counter of clicks."""
    return sign._replace(chance=_QUOTED * sign.chance, says=f"quoted_{sign.says}")


def _squeezed(text: str) -> str:
    return "".join(text.split()).lower()


def _anchors(page: str) -> Iterator[Link]:
    for anchor in _ANCHOR.finditer(page):
        href = _HREF.search(anchor[0])
        if href is None:
            continue
        end = page.find("</a", anchor.end(), anchor.end() + _WITHIN)
        inner = page[anchor.end() : end if end >= 0 else anchor.end() + _WITHIN]
        yield Link(unescape(href[1] or href[2] or href[3] or ""), unescape(_TAG.sub("", inner)).strip())


def _host(target: str) -> tuple[str, bool]:
    """The host of a URL as A-labels, and whether something stands before it with an `@`."""
    found = _AUTHORITY.match(target)
    if found is None:
        return "", False
    before, at, host = found[1].rpartition("@")
    return address.domain_key(host.partition(":")[0].strip("[]")), bool(at and before)


def _of_target(target: str, around: Around, rules: LinkRules, alike: Alike) -> Iterator[Sign]:
    """What the target says by itself."""
    if _RUNS.match(target):
        yield Sign(_PHISHING, 0.5, "script_link")
        return
    host, behind_name = _host(target)
    if not host:
        return
    if behind_name:
        yield Sign(_PHISHING, 0.6, "link_hides_host")
    if _is_public_address(host):
        yield Sign(_PHISHING, 0.35, "link_to_address")
        return
    below = organizational(host)
    if below in rules.shorteners:
        yield Sign(_PHISHING, 0.1, "shortened_link")
    if any(host.endswith(f".{page}") for page in rules.free_pages):
        yield Sign(_PHISHING, 0.15, "free_page")
    yield from _dressed_up(host, below, around, alike)


def _above(host: str) -> Iterator[str]:
    """A host and every domain above it."""
    while host:
        yield host
        host = host.partition(".")[2]


def _is_public_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(int(host) if host.isdigit() else host).is_global
    except ValueError:
        return False


def _dressed_up(host: str, below: str, around: Around, alike: Alike) -> Iterator[Sign]:
    """Hosts that look like somebody else's."""
    if below in around.ours or below == organizational(around.sender):
        return
    shown = lookalike.shown(host)
    if lookalike.mixes_scripts(shown):
        yield Sign(_PHISHING, 0.6, "homograph_link")
        return
    known = {domain for bearers in around.bearers.values() for domain in bearers} | around.ours
    if below in known:
        return
    if any(f".{domain}." in f".{host}." and below != organizational(domain) for domain in known):
        yield Sign(_PHISHING, 0.6, "link_posing")
    elif not shown.isascii() and any(alike.plain(shown) == domain for domain in known):
        yield Sign(_PHISHING, 0.8, "homograph_link")
    elif _posing_label(lookalike.registered(host), around, alike):
        yield Sign(_PHISHING, 0.5, "link_posing")


def _posing_label(label: str, around: Around, alike: Alike) -> bool:
    """A registered name that is a brand's but for letters that look alike: `paypa1`, `rnicrosoft`."""
    names = (brand for brand in around.bearers if len(brand) > 4 and brand.isascii() and brand.isalpha())
    return any(label != brand and alike.skeleton(label) == alike.skeleton(brand) for brand in names)


def _mismatch(link: Link, around: Around, rules: LinkRules) -> Iterator[Sign]:
    """A text that is a host, over a link to another."""
    shown = _SHOWN_HOST.fullmatch(link.shown)
    host, _ = _host(link.target)
    if shown is None or not host or host.replace(".", "").isdigit():
        return
    name = address.domain_key(shown[2])
    if shown[1] is None and name.rpartition(".")[2] in around.files:
        return
    shown_below, below = organizational(name), organizational(host)
    rewritten = not rules.rewriters.isdisjoint(_above(host))
    if "." not in shown_below or shown_below == below or rewritten:
        return
    # Who mails from a domain may let its links run through a counter; who shows somebody else's may not.
    own = shown_below == organizational(around.sender)
    yield Sign(_PHISHING, 0.2 if own else 0.6, "link_text_mismatch")
