"""Entries of the journal as others tell them: a line of JSON, or options of a command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mailback.address import is_address
from mailback.reports.original import message_id
from mailback.store.records import JournalEntry

_TEXTS = ("return_path", "subject", "campaign", "list_id", "subscriber", "text")


def entry(told: Mapping[str, Any]) -> JournalEntry | str:
    """The entry, or what is wrong with it. Names are those of `journal list --json`."""
    recipients = told.get("recipients") or []
    if not isinstance(recipients, list | tuple) or not recipients:
        return "no recipient"
    for recipient in recipients:
        if not isinstance(recipient, str) or not is_address(recipient):
            return f"{recipient!r} is no mail address"
    number = told.get("message_id")
    if number is not None and message_id(str(number)) is None:
        return f"{number!r} is no Message-ID"
    try:
        at = datetime.fromisoformat(str(told["at"])) if told.get("at") else datetime.now(UTC)
    except ValueError:
        return f"{told['at']!r} is no time"
    texts: dict[str, Any] = {name: str(told[name]) for name in _TEXTS if told.get(name) is not None}
    return JournalEntry(
        at=at if at.tzinfo else at.replace(tzinfo=UTC),
        message_id=message_id(str(number)) if number is not None else None,
        envelope_sender=str(told.get("sender") or told.get("envelope_sender") or ""),
        recipients=tuple(recipients),
        source=str(told.get("source") or "operator")[:32],
        **texts,
    )
