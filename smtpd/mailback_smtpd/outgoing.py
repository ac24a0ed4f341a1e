"""A message on its way out of the receiver. Emits no log events."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a destination is given."""

    sender: str
    """Envelope sender; empty for the null sender, which every destination keeps."""
    recipients: tuple[str, ...]
    content: bytes
    """Rewritten and canonical (CRLF line ends), not dot-stuffed."""
    event_id: str
    utf8: bool = False
    """The client asked for SMTPUTF8 (RFC 6531)."""
