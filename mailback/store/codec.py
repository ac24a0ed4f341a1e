"""Between records and rows: times, texts and JSON as the tables hold them. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from json import encoder
from typing import Any

from mailback.bounce.taxonomy import Action, Fault, Kind, Provenance
from mailback.store.records import Event, JournalEntry, Suppression, SuppressionChange

TEXT_CAP = 8192
"""Longest text kept in a column, in characters; what is longer came from somebody who wants to fill the disk."""

Row = Sequence[Any]
"""A row as the driver gives it; the schema, not the type checker, knows what each column holds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _encoder() -> Callable[[object], str]:
    """`JSONEncoder.encode`, with its C part made once: to make it anew for each value takes as long as its work."""
    plain = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=str)
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:  # a Python without it
        return plain.encode
    escaped = encoder.encode_basestring_ascii
    inner = make(None, str, escaped, None, plain.key_separator, plain.item_separator, True, False, True)
    return lambda value: escaped(value) if isinstance(value, str) else "".join(inner(value, 0))


_encode = _encoder()


def ticks(at: datetime) -> int:
    """Whole microseconds since 1970 UTC. ValueError for a time without a zone: guessing one would shift it by hours."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be stored")
    return (at - _EPOCH) // _MICROSECOND


def optional_ticks(at: datetime | None) -> int | None:
    return None if at is None else ticks(at)


def moment(stored: int) -> datetime:
    return _EPOCH + timedelta(0, 0, stored)


def optional_moment(stored: int | None) -> datetime | None:
    return None if stored is None else moment(stored)


def text(value: str) -> str:
    """`value` as any database takes it: capped, no NUL, no lone surrogates (undecodable bytes of a header)."""
    if len(value) > TEXT_CAP:
        value = value[:TEXT_CAP]
    if "\0" in value:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    return value


def optional_text(value: str | None) -> str | None:
    return None if value is None else text(value)


def canonical_json(value: object) -> str:
    """Pure ASCII, sorted keys, no spaces; what JSON does not know (a time, an enum) stands as its text."""
    return _encode(value)


def _word(value: str | None) -> str | None:
    """A member of an enumeration as plain text, which takes the driver a fifth of the time."""
    return None if value is None else str(value)


def event_row(event: Event) -> tuple[object, ...]:
    """The values of the `event` table in the order of its columns."""
    sent = event.original_sent_at
    return (
        event.id,
        event.identity,
        ticks(event.at),
        str(event.kind),
        event.source,
        optional_text(event.recipient),
        event.recipient_key,
        optional_text(event.final_recipient),
        optional_text(event.domain),
        optional_text(event.provider),
        optional_text(event.report_message_id),
        optional_text(event.original_message_id),
        optional_text(event.envelope_sender),
        optional_text(event.original_sender),
        optional_text(event.subject),
        optional_text(event.campaign),
        optional_text(event.list_id),
        optional_text(event.subscriber),
        optional_text(event.client_address),
        optional_text(event.queue_id),
        optional_text(event.smtp_code),
        optional_text(event.status),
        optional_text(event.diagnostic),
        optional_text(event.reporting_mta),
        optional_text(event.remote_mta),
        event.delivery_attempts,
        None if sent is None else ticks(sent),
        _word(event.type),
        event.subcategory,
        _word(event.fault),
        int(event.permanent),
        event.confidence,
        _optional_json(event.risk),
        _word(event.action),
        str(event.provenance),
        _optional_json(event.authentication),
        _optional_json(event.engagement),
        _optional_json(event.reputation),
        _encode(event.evidence) if event.evidence else "[]",
        _encode(event.notes) if event.notes else "[]",
        event.raw_sha256,
        event.raw_size,
        event.processing_us,
        _word(event.intent),
        _word(event.route),
        optional_ticks(event.due_at),
        _optional_json(event.reply),
        optional_text(event.sending_ip),
    )


def _optional_json(value: Mapping[str, object] | None) -> str | None:
    return None if value is None else _encode(value)


def event_of(row: Row) -> Event:
    """The record behind a row of the `event` table, columns in the table's order."""
    values: dict[str, Any] = dict(zip(Event.__slots__, row, strict=True))
    values["at"] = moment(values["at"])
    values["original_sent_at"] = optional_moment(values["original_sent_at"])
    values["due_at"] = optional_moment(values["due_at"])
    values["permanent"] = bool(values["permanent"])
    values["kind"] = Kind(values["kind"])
    values["provenance"] = Provenance(values["provenance"])
    values["fault"] = None if values["fault"] is None else Fault(values["fault"])
    values["action"] = None if values["action"] is None else Action(values["action"])
    for name in ("risk", "authentication", "engagement", "reputation", "evidence", "notes", "reply"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Event(**values)


def suppression_row(s: Suppression) -> tuple[object, ...]:
    """The values of the `suppression` table up to `suggestion`, in its order."""
    return (
        s.address_key,
        text(s.address),
        s.scope,
        text(s.reason),
        s.type,
        s.subcategory,
        s.source,
        ticks(s.since),
        optional_ticks(s.until),
        s.event_id,
        optional_text(s.suggestion),
    )


def suppression_of(row: Row) -> Suppression:
    """The record behind a row of the `suppression` table, columns in the table's order."""
    # Spelled out, not zipped: this runs for every recipient that is refused.
    key, address, scope, reason, type_, subcategory, source, since, until, event_id, suggestion, at, by, why = row
    return Suppression(
        key, address, scope, reason, type_, subcategory, source, _EPOCH + timedelta(0, 0, since),
        None if until is None else _EPOCH + timedelta(0, 0, until), event_id, suggestion,
        None if at is None else _EPOCH + timedelta(0, 0, at), by, why,
    )  # fmt: skip


def journal_row(entry: JournalEntry) -> tuple[object, ...]:
    """The values of the `journal` table without the id, in the order of its columns."""
    return (
        ticks(entry.at), optional_text(entry.message_id), text(entry.envelope_sender),
        optional_text(entry.return_path), optional_text(entry.subject), optional_text(entry.campaign),
        optional_text(entry.list_id), optional_text(entry.subscriber), optional_text(entry.queue_id), entry.source,
        optional_text(entry.text),
    )  # fmt: skip


def journal_of(row: Row, recipients: tuple[str, ...]) -> JournalEntry:
    """The record behind a row of the `journal` table, columns in the table's order."""
    number, at, message_id, sender, return_path, subject, campaign, list_id, subscriber, queue_id, source, said = row
    return JournalEntry(
        _EPOCH + timedelta(0, 0, at), message_id, sender, recipients, return_path, subject, campaign, list_id,
        subscriber, queue_id, source, said, number,
    )  # fmt: skip


def change_of(row: Row) -> SuppressionChange:
    """The record behind a row of `suppression_change`, without its id, columns in the table's order."""
    values: dict[str, Any] = dict(zip(SuppressionChange.__slots__, row, strict=True))
    for name in ("at", "since"):
        values[name] = moment(values[name])
    values["until"] = optional_moment(values["until"])
    return SuppressionChange(**values)
