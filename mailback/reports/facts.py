"""What every reader needs to know of a message first: who sent it, to whom, under which subject, as which MIME types.

Log events: none. Worked out once a message and only when asked for, so that each reader is a few comparisons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailback.envelope import Envelope, Source
from mailback.message import Message
from mailback.reports import addresses
from mailback.reports.dialects import Dialects
from mailback.reports.once import Once
from mailback.reports.original import OriginalNames
from mailback.reports.vocabulary import Vocabulary
from mailback.reports.words import Words

_ANSWERS = re.compile(
    r"(?:re|aw|antw|antwort|sv|vs|odp|ynt|res|rif|ref|回复|回覆|答复|返信|回信|답장|fwd?|wg|tr|rv|enc|i|fs|vl|doorst|転送|转发|轉寄|전달|transfer)"
    r"(?:\[\d{1,3}\])?\s?[:：]\s*",
    re.IGNORECASE,
)
"""What mail programs put before the subject of an answer or a forwarded message."""

_SMTP_SOURCES = frozenset({Source.SMTPD, Source.MILTER})


@dataclass
class Facts:
    """What is known before any text is read; each worked out when first asked for, as most reports need few."""

    message: Message
    envelope: Envelope | None
    names: OriginalNames
    vocabulary: Vocabulary
    cap: int
    """Failures kept of one report."""

    @property
    def dialects(self) -> Dialects:
        return self.vocabulary.dialects

    @property
    def words(self) -> Words:
        return self.vocabulary.words

    def get(self, name: str) -> str:
        """A header field, decoded and lower case; empty when absent."""
        value = self.message.headers.get(name)
        return value.lower() if value else ""

    @Once
    def types(self) -> frozenset[str]:
        """The MIME types of all parts."""
        return frozenset([part.type for part in self.message.parts])

    @Once
    def _subject(self) -> tuple[str, bool]:
        subject = " ".join((self.message.headers.get("subject") or "").split()).lower()[:500]
        mark = _ANSWERS.match(subject)
        return (subject[mark.end() :], True) if mark else (subject, False)

    @property
    def subject(self) -> str:
        """Decoded, lower case, white space collapsed, without the mark of an answer."""
        return self._subject[0]

    @Once
    def subject_says(self) -> frozenset[str]:
        """The lists of phrases of which one stands in the subject, by the names of `Dialects` and `Words`."""
        return self.vocabulary.subjects.told(self.subject)

    @Once
    def automatic(self) -> bool:
        """The subject begins as only automatic answers do."""
        return "auto_subjects" in self.subject_says and self.subject.startswith(self.words.auto_subjects)

    @property
    def answers(self) -> bool:
        """The subject says that this is an answer or a forwarded message."""
        return self._subject[1]

    @Once
    def _from(self) -> str:
        return self.message.headers.get("from") or ""

    @Once
    def sender(self) -> str:
        """The From address, empty when there is none."""
        found = addresses.of_header(self._from)
        return found[-1] if found else ""

    @Once
    def return_path(self) -> str | None:
        """The envelope sender as the server that delivered wrote it down (RFC 5321 section 4.4), without brackets."""
        value = self.message.headers.get("return-path")
        return None if value is None else value.strip(" <>")

    @Once
    def null_sender(self) -> bool:
        """The envelope sender is `<>` or a mail server's own (RFC 5321 section 4.5.5)."""
        return _is_null_sender(self.return_path, self.envelope)

    @Once
    def daemon(self) -> bool:
        """The From address or name is one that only mail servers use, or a field is there that only they set."""
        if _is_daemon(self._from.lower(), self.sender.lower(), self.dialects):
            return True
        return not self.message.headers.names.isdisjoint(self.dialects.machine_headers)

    @Once
    def ours(self) -> tuple[str, ...]:
        """Whom the message was sent to: for a report, the sender of the original. Lower case."""
        headers = self.message.headers
        return _ours(headers.get("to"), headers.get("delivered-to"), self.envelope)


def _is_null_sender(return_path: str | None, envelope: Envelope | None) -> bool:
    if envelope is not None and envelope.source in _SMTP_SOURCES:
        return envelope.sender == "" or envelope.sender[:13].lower() == "mailer-daemon"
    if return_path is None:
        return False
    inner = return_path.lower()
    return inner == "" or inner.startswith(("mailer-daemon", "postmaster@", "double-bounce"))


def _is_daemon(field: str, sender: str, dialects: Dialects) -> bool:
    local = sender.partition("@")[0]
    if local in dialects.machines or local.startswith(("mailer-daemon", "postmaster")):
        return True
    name = field.partition("<")[0] if "<" in field else field
    return dialects.machine_names.search(name) is not None or name.strip(" \"'") in dialects.machine_full_names


def _ours(to: str | None, delivered_to: str | None, envelope: Envelope | None) -> tuple[str, ...]:
    told = addresses.of_header(to) if to else []
    if delivered_to:
        told += addresses.of_header(delivered_to)
    if envelope is not None:
        told += envelope.recipients
    return tuple(dict.fromkeys(address.lower() for address in told[:50]))
