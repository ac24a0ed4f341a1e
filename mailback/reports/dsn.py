"""Delivery status notifications: RFC 3464 and its internationalised form, RFC 6533.

Log events: none; nothing here raises on any bytes. What was odd about a report stands in `Report.notes`.

The standard wants one group of per-message fields, then one group a recipient, separated by blank lines. Servers in
the field leave blank lines out, put them between the fields of one recipient, repeat a group without a separator,
break long diagnostics without indenting them, and put the whole thing into a text/plain part. So the reader goes
line by line and asks of each field whether it can still belong to the recipient at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailback.message import Message, Part, decode_words
from mailback.reports import addresses, diagnostic
from mailback.reports.report import DeliveryFailure

STATUS_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})

Fields = dict[str, list[str]]

_OF_RECIPIENT = frozenset(
    {
        "final-recipient",
        "original-recipient",
        "action",
        "status",
        "diagnostic-code",
        "remote-mta",
        "last-attempt-date",
        "will-retry-until",
        "final-log-id",
        "x-actual-recipient",
        "x-failed-recipient",
        "localized-diagnostic-code",
    }
)
"""RFC 3464 section 2.3, and what servers add to it; any other field before the first of these is of the message."""

_NAMES_RECIPIENT = ("final-recipient", "original-recipient", "x-failed-recipient")

_SAYS_SOMETHING = frozenset({*_NAMES_RECIPIENT, "action", "status"})

_OF_MESSAGE = frozenset(
    {
        "reporting-mta",
        "original-envelope-id",
        "arrival-date",
        "received-from-mta",
        "dsn-gateway",
        "x-postfix-sender",
        "x-postfix-queue-id",
    }
)
"""RFC 3464 section 2.2: of the message wherever they stand."""

ACTIONS = {
    "failed": "failed",
    "failure": "failed",
    "fail": "failed",
    "undeliverable": "failed",
    "bounced": "failed",
    "rejected": "failed",
    "delayed": "delayed",
    "delay": "delayed",
    "transient-failure": "delayed",
    "deferred": "delayed",
    "delivered": "delivered",
    "deliverable": "delivered",  # sendmail -bv and Postfix address probes
    "delivery": "delivered",
    "success": "delivered",
    "relayed": "relayed",
    "expanded": "expanded",
}
"""RFC 3464 section 2.3.3 and the words that servers use instead."""

_LINE_CAP = 8_000  # characters of one field kept
_FOLDS_CAP = 200  # continuation lines of one field kept


def status_parts(message: Message) -> list[Part]:
    """The machine-readable parts of a report (RFC 6522 section 3); normally one."""
    return [part for part in message.parts if part.type in STATUS_TYPES]


def looks_like_fields(text: str) -> bool:
    """True when a text holds per-recipient fields outside their own MIME part."""
    return "-recipient" in text.lower() and _EMBEDDED.search(text) is not None


_EMBEDDED = re.compile(r"^(?:Final|Original)-Recipient[ \t]*:.{0,400}?;", re.MULTILINE | re.IGNORECASE)


def read(content: bytes | str, cap: int) -> tuple[Fields, list[DeliveryFailure], bool]:
    """(per-message fields, one record a recipient, whether the cap cut the report).

    A record whose recipient could not be read has the empty string there; the caller looks elsewhere for it.
    """
    text = content if isinstance(content, str) else _text(content)
    told: Fields = {}
    failures: list[DeliveryFailure] = []
    for group in _groups(text, told):
        if len(failures) >= cap:
            return told, failures, True
        failures.append(_failure(group, told))
    return told, failures, False


def fields_of(content: bytes | str) -> Fields:
    """All fields of a machine-readable part that has no groups: feedback reports, disposition notifications."""
    told: Fields = {}
    for name, value in _lines(content if isinstance(content, str) else _text(content)):
        if name:
            told.setdefault(name, []).append(value)
    return told


def _text(content: bytes) -> str:
    """RFC 3464 is ASCII, RFC 6533 UTF-8; what is neither must still be read somehow."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _groups(text: str, of_message: Fields) -> Iterator[Fields]:
    """One dictionary a recipient; fields of the message go to `of_message`."""
    current: Fields | None = None
    blank = False
    for name, value in _lines(text):
        if not name:
            blank = True
            continue
        if name in _OF_MESSAGE:
            of_message.setdefault(name, []).append(value)
            continue
        if current is None:
            if name in _OF_RECIPIENT:
                current = {}
        elif (blank or name in current) and _opens(name, current, blank):
            yield current
            current = {}
        blank = False
        fields = of_message if current is None else current
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    if current is not None and not current.keys().isdisjoint(_SAYS_SOMETHING):
        yield current


def _opens(name: str, current: Fields, blank: bool) -> bool:
    """Whether this field begins the next recipient: it is there already, or a blank line says so.

    A blank line alone is no proof, since some servers put blank lines between the fields of one recipient.
    """
    if name in {"final-recipient", "action"} and name in current:
        return True
    if not blank or name not in _OF_RECIPIENT:
        return False
    if name in _NAMES_RECIPIENT and "action" not in current and "status" not in current:
        return False
    return name in current or (name in _NAMES_RECIPIENT and any(field in current for field in _NAMES_RECIPIENT))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """(lower-case name, unfolded value) of each field; ("", "") for each blank line.

    A line that is neither a field nor indented continues the field before it: servers quote multi-line replies so.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # All lines in one call, but for reports so long that a tuple a line would take hundreds of megabytes.
    lines = _LINES.findall(text) if len(text) < _LONG else (match.groups("") for match in _LINES.finditer(text))
    name, value = "", ""
    more: list[str] = []
    for told, written, other in lines:
        if told:
            if name:
                yield name, _joined([value, *more]) if more else value
            name, more = _NAMES.get(told) or told.lower(), []
            value = _joined(written.split("\n")) if "\n" in written else written.strip()[:_LINE_CAP]
        elif other:
            more += other.split("\n", _FOLDS_CAP)[:_FOLDS_CAP]
        else:
            if name:
                yield name, _joined([value, *more]) if more else value
            name, more = "", []
            yield "", ""


_NAME = r"[A-Za-z][A-Za-z0-9_-]{1,60}+"
_LINES = re.compile(
    rf"({_NAME})[ \t]*+:([^\n]*+(?:\n[ \t]++\S[^\n]*+)*+)\n?"
    rf"|((?:(?!{_NAME}[ \t]*+:)[^\S\n]*+\S[^\n]*+\n?)++)"
    r"|[^\n]*+\n?"
)
"""A field with its indented lines, or all lines in a row that are neither, or a blank one."""
_LONG = 262_144  # characters
_NAMES = {
    name: name.lower()
    for name in (
        "Action", "Arrival-Date", "Diagnostic-Code", "Final-Recipient", "Last-Attempt-Date", "Original-Recipient",
        "Received-From-MTA", "Remote-MTA", "Reporting-MTA", "Status", "Will-Retry-Until", "X-Postfix-Queue-ID",
        "X-Postfix-Sender",
    )
}  # fmt: skip
"""How nearly all servers spell the names: a look-up for these, a pattern for the rest."""


def _joined(lines: list[str]) -> str:
    return " ".join([line.strip()[:_LINE_CAP] for line in lines[:_FOLDS_CAP]]).strip()[:_LINE_CAP]


def _failure(group: Fields, of_message: Fields) -> DeliveryFailure:
    final = _address(group, "final-recipient") or _address(group, "x-failed-recipient")
    original = _address(group, "original-recipient")
    stated = diagnostic.of_field(_first(group, "status"))
    kind, text = _diagnostic(group)
    said = diagnostic.codes(text) if text else diagnostic.Said(None, None)
    return DeliveryFailure(
        recipient=final if addresses.is_full(final) else original or final,
        original_recipient=original or None,
        final_recipient=final or None,
        action=_action(_first(group, "action"), stated or said.status),
        status=diagnostic.settle(stated, said.status, said.smtp_code),
        stated_status=stated,
        smtp_code=said.smtp_code,
        diagnostic=diagnostic.tidy(text),
        diagnostic_type=kind,
        reporting_mta=_mta(_first(of_message, "reporting-mta")),
        remote_mta=_mta(_first(group, "remote-mta")),
        fields=group,
    )


def _first(group: Fields, name: str) -> str:
    values = group.get(name)
    return values[0] if values else ""


def _address(group: Fields, name: str) -> str:
    value = _first(group, name)
    return addresses.of_field(value)[1] if value else ""


def _action(value: str, status: str | None) -> str:
    """RFC 3464 section 2.3.3; where the field is missing or garbled, the class of the status tells."""
    if (action := ACTIONS.get(value)) is not None:
        return action
    word = _ACTION.match(value)
    if word and (action := ACTIONS.get(word[1].lower())) is not None:
        return action
    return "delivered" if status is not None and status[0] == "2" else "failed"


_ACTION = re.compile(r"[\s\"']*([A-Za-z-]*)")


def _diagnostic(group: Fields) -> tuple[str | None, str]:
    """(type, text) of Diagnostic-Code (RFC 3464 section 2.3.6); the type is None where the field has none."""
    values = group.get("diagnostic-code") or group.get("localized-diagnostic-code")
    if not values:
        return None, ""
    value = " ".join(values[:20]) if len(values) > 1 else values[0]
    kind, semicolon, text = value.partition(";")
    kind = kind.strip()
    if not semicolon or not _DIAGNOSTIC_TYPE.fullmatch(kind):
        kind, text = "", value
    if "=?" in text:
        text = decode_words(text)
    return kind.lower() or None, text.strip()


_DIAGNOSTIC_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")


def _mta(value: str) -> str | None:
    """The name of `dns; mx.example.org` (RFC 3464 section 2.1.2), without what servers add in brackets."""
    if not value:
        return None
    kind, semicolon, name = value.partition(";")
    name = (name if semicolon else kind).strip()
    return name.partition(" (")[0].strip()[:255] or None


def reporting_mta(told: Fields) -> str | None:
    """The server that made the report, from the per-message fields."""
    return _mta(_first(told, "reporting-mta"))
