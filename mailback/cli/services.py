"""The suppression lists of sending services, read and written: their column names, their words, their times.

What a service calls a bounce is not always the address's fault: a block for the sender's reputation stands in the same
list. So where a list tells the server's words, they are judged like those of any bounce, and an address whose refusal
was somebody else's fault is left out and counted. Emits no log events.

Sources: Amazon SES API v2 (ListSuppressedDestinations, CreateImportJob), Twilio SendGrid (v3 suppression), Mailgun
(v3 bounces, complaints, unsubscribes and their CSV imports), Postmark (suppressions dump), Mailchimp (audience export).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from mailback.bounce.taxonomy import Fault, Subcategory, Type
from mailback.ingest.quoting import closed, rows

if TYPE_CHECKING:
    from mailback.store.records import Suppression

KINDS = ("bounce", "complaint", "unsubscribe")

_CAUSES: dict[str, tuple[Type, Subcategory | None]] = {
    "bounce": (Type.HARD_BOUNCE, None),
    "complaint": (Type.COMPLAINT, Subcategory.SPAM_COMPLAINT),
    "unsubscribe": (Type.COMPLAINT, Subcategory.UNSUBSCRIBE_REQUEST),
}
_SURE = 0.6
"""Confidence from which words are believed that it was not the address's fault."""
_EVERYTHING = "*"
_REPLY = re.compile(r"([45]\d\d)[ -]\s*(\S.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Service:
    """Names of columns, in lower case; the first that a record has counts."""

    address: tuple[str, ...]
    at: tuple[str, ...]
    word: tuple[str, ...] = ()
    """Columns whose word tells the kind."""
    words: Mapping[str, str] | None = None
    """What its words mean; who has one of `fine` is on no list of the suppressed."""
    fine: frozenset[str] = frozenset()
    outweighs: Mapping[str, Mapping[str, str]] | None = None
    """Columns of which a word says more than all others."""
    text: tuple[str, ...] = ()
    """Columns with the words of the server that refused."""
    code: tuple[str, ...] = ()
    """Columns with its reply code or enhanced status code."""
    tells: Mapping[str, str] | None = None
    """Columns that only the list of one kind has."""
    tags: str = ""
    """A column of what somebody unsubscribed from."""
    headless: tuple[str, ...] = ()
    """The columns of a CSV without names in its first line."""


SERVICES: dict[str, Service] = {
    "ses": Service(
        address=("emailaddress", "email address", "email", "address"),
        at=("lastupdatetime", "last update time", "date added"),
        word=("reason", "suppression reason"),
        words={"bounce": "bounce", "complaint": "complaint"},
        headless=("emailaddress", "reason"),
    ),
    "sendgrid": Service(
        address=("email",),
        at=("created", "created_at"),
        text=("reason",),
        code=("status",),
        tells={"status": "bounce", "reason": "bounce", "ip": "complaint", "group_id": "unsubscribe"},
    ),
    "mailgun": Service(
        address=("address",),
        at=("created_at", "createdat"),
        text=("error",),
        code=("code",),
        tells={"code": "bounce", "error": "bounce", "tags": "unsubscribe", "tag": "unsubscribe"},
        tags="tags",
    ),
    "postmark": Service(
        address=("emailaddress", "email", "email address"),
        at=("createdat", "bouncedat"),
        word=("suppressionreason", "type", "reason"),
        words={
            "hardbounce": "bounce", "bademailaddress": "bounce", "spamcomplaint": "complaint",
            "spamnotification": "complaint", "manualsuppression": "unsubscribe", "unsubscribe": "unsubscribe",
        },
    ),
    "mailchimp": Service(
        address=("email address", "email_address", "email"),
        at=("clean_time", "unsub_time", "last_changed"),
        word=("status",),
        words={"cleaned": "bounce", "unsubscribed": "unsubscribe"},
        fine=frozenset({"subscribed", "pending", "transactional", "archived"}),
        outweighs={
            "unsub_reason": {"abuse": "complaint"},
            "unsubscribe_reason": {"abuse": "complaint", "n/a (unsubscribed by complaint)": "complaint"},
        },
        tells={"clean_time": "bounce", "unsub_time": "unsubscribe"},
    ),
}  # fmt: skip
EXPORTS = tuple(SERVICES)


class KindUnknown(Exception):  # noqa: N818 - a question to the operator
    """The list does not tell whether its addresses bounced, complained or unsubscribed."""


class Judge:
    """Whether a refusal was the address's own fault, by the words of the server."""

    def __init__(self) -> None:
        from mailback.engine import Knowledge

        self._knowledge = Knowledge.load()

    def cause(self, text: str, code: str) -> tuple[Type, Subcategory | None] | None:
        """Type and subcategory of a bounce; None where somebody else was at fault."""
        from mailback.bounce.taxonomy import Kind
        from mailback.reports.report import DeliveryFailure, Report

        status = code if code.count(".") == 2 else None
        smtp_code = code if code.isdigit() and len(code) == 3 else None
        failure = DeliveryFailure(recipient="", action="failed", status=status, smtp_code=smtp_code, diagnostic=text)
        verdict = self._knowledge.judge(failure, Report(Kind.BOUNCE, failures=[failure])).verdict
        if verdict.subcategory is Subcategory.UNKNOWN or verdict.confidence < _SURE:
            return _CAUSES["bounce"]
        if verdict.fault is not Fault.RECIPIENT or not verdict.permanent:
            return None
        return verdict.type, verdict.subcategory


def records(stream: TextIO, service: Service) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a list and their line or place: CSV with names in its first line, a JSON document, or JSON lines.

    A document may be a list, or an object of which one value is the list. A CSV that begins with an address has no
    names, where the service writes it so. Raises ValueError for what is none of these, and for a row
    that cannot be read.
    """
    beginning = stream.read(4096)
    rest = _Rest(beginning, stream)
    if beginning.lstrip()[:1] not in ("{", "["):
        headless = service.headless if "@" in beginning.partition("\n")[0].partition(",")[0] else None
        reader = csv.DictReader(closed(rest), headless or None)
        names = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
        for line, row in rows(reader):
            if isinstance(row, csv.Error):
                raise ValueError(f"line {line}: {row}")
            yield line, {names[name]: value for name, value in row.items() if name in names}
        return
    for number, record in enumerate(_documents("".join(rest), service), 1):
        if not isinstance(record, dict):
            raise ValueError(f"entry {number} is no object")
        yield number, {str(name).lower(): value for name, value in record.items()}


class _Rest:
    """The lines of a stream of which the beginning was read already."""

    def __init__(self, beginning: str, stream: TextIO) -> None:
        self._begun = (beginning + stream.readline()).splitlines(keepends=True)
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        yield from self._begun
        yield from self._stream


def _documents(text: str, service: Service) -> Iterator[Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())
        return
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list) and _is_list_of(value, service)]
        document = lists[0] if lists else [document]
    yield from document


def _is_list_of(entries: list[Any], service: Service) -> bool:
    """Whether entries are what the service tells of addresses: an answer may hold links and the like beside them."""
    if not entries:
        return True
    return isinstance(entries[0], dict) and any(str(name).lower() in service.address for name in entries[0])


def plain(service: Service, record: Mapping[str, Any], kind: str | None, judge: Judge) -> dict[str, Any] | None:
    """A record in our own column names; None where the address is not to blame, nothing where the service mails it.

    Raises KindUnknown.
    """
    if _first(record, service.word).lower() in service.fine:
        return {}
    kind = kind or _kind(service, record)
    if kind is None:
        raise KindUnknown
    text, code = _first(record, service.text), _first(record, service.code)
    cause = judge.cause(text, code) if kind == "bounce" and (text or code) else _CAUSES[kind]
    if cause is None:
        return None
    told: dict[str, Any] = {
        "address": _first(record, service.address),
        "type": cause[0].value,
        "subcategory": cause[1].value if cause[1] is not None else None,
        "reason": " ".join((text if text.startswith(code) else f"{code} {text}").split())[:500] or None,
        "since": _time(_first(record, service.at)),
    }
    tag = _tag(record.get(service.tags)) if service.tags else None
    return told | ({"scope": f"list:{tag}"} if tag else {})


def _kind(service: Service, record: Mapping[str, Any]) -> str | None:
    for column, words in (service.outweighs or {}).items():
        if (said := str(record.get(column) or "").strip().lower()) in words:
            return words[said]
    word = _first(record, service.word).replace(" ", "").lower()
    if service.words and word in service.words:
        return service.words[word]
    told = (kind for column, kind in (service.tells or {}).items() if record.get(column) not in (None, ""))
    return next(told, None) or next((kind for column, kind in (service.tells or {}).items() if column in record), None)


def _first(record: Mapping[str, Any], columns: Iterable[str]) -> str:
    return next((str(record[name]).strip() for name in columns if record.get(name) not in (None, "")), "")


def _tag(value: object) -> str | None:
    """The one tag that somebody unsubscribed from; None for everything. Several tags are taken for everything."""
    tags = [str(tag) for tag in value] if isinstance(value, list) else str(value or "").replace("|", ",").split(",")
    tags = [tag.strip() for tag in tags if tag.strip()]
    return tags[0] if len(tags) == 1 and tags[0] != _EVERYTHING else None


def _time(text: str) -> str | None:
    """A time as `suppress import` reads it: from seconds since 1970, RFC 5322, or ISO 8601 with a space."""
    if not text:
        return None
    if text.replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC).isoformat()
    try:
        return parsedate_to_datetime(text).astimezone(UTC).isoformat()
    except (TypeError, ValueError):
        return text


def of_kind(suppression: Suppression, kind: str) -> bool:
    """Whether a suppression belongs on a service's list of bounces, complaints or unsubscribes."""
    if not _own_word(suppression):
        return kind == "bounce"
    return kind == ("unsubscribe" if suppression.subcategory == Subcategory.UNSUBSCRIBE_REQUEST else "complaint")


def _own_word(suppression: Suppression) -> bool:
    return suppression.type == Type.COMPLAINT


def _once(found: Iterable[Suppression]) -> Iterator[Suppression]:
    """One of each address, the one that counts for everything first; they come by address."""
    last = None
    for suppression in found:
        if suppression.scope == "all" and suppression.address_key != last:
            last = suppression.address_key
            yield suppression


def _write_ses(found: Iterable[Suppression], file: TextIO) -> int:
    rows = ((s.address, "COMPLAINT" if _own_word(s) else "BOUNCE") for s in _once(found))
    return _rows(file, None, rows)


def _write_sendgrid(found: Iterable[Suppression], file: TextIO) -> int:
    return _rows(file, ("email",), ((s.address,) for s in _once(found)))


def _write_mailgun(found: Iterable[Suppression], file: TextIO) -> int:
    rows = ((s.address, *_code_and_words(s.reason), format_datetime(s.since)) for s in _once(found))
    return _rows(file, ("address", "code", "error", "created_at"), rows)


def _code_and_words(reason: str) -> tuple[str, str]:
    """A server's reply in two; 550 without words where there is none, so that nobody takes ours for a server's."""
    found = _REPLY.fullmatch(reason)
    return (found[1], found[2]) if found else ("550", "")


def _write_postmark(found: Iterable[Suppression], file: TextIO) -> int:
    """Requests of at most fifty addresses, as the API takes them, one a line."""
    addresses, count = ({"EmailAddress": s.address} for s in _once(found)), 0
    while batch := list(islice(addresses, 50)):
        file.write(json.dumps({"Suppressions": batch}) + "\n")
        count += len(batch)
    return count


def _write_mailchimp(found: Iterable[Suppression], file: TextIO) -> int:
    return _rows(file, ("Email Address",), ((s.address,) for s in _once(found)))


def _rows(file: TextIO, head: tuple[str, ...] | None, rows: Iterable[tuple[str, ...]]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    if head is not None:
        writer.writerow(head)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - told at the end
        writer.writerow(row)
    return count


WRITERS: dict[str, Callable[[Iterable[Suppression], TextIO], int]] = {
    "ses": _write_ses,
    "sendgrid": _write_sendgrid,
    "mailgun": _write_mailgun,
    "postmark": _write_postmark,
    "mailchimp": _write_mailchimp,
}
