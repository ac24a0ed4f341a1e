"""How much of one message is read, and what reading it has used up and found out. Emits no log events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one message is read."""

    max_parts: int = 1_000
    """In the whole message, messages attached to it included."""
    max_depth: int = 50
    """Containers within containers; an attached message is a container."""
    max_header_bytes: int = 1024 * 1024
    """In the whole message, its parts and attached messages included, so that nesting cannot multiply them."""
    max_headers: int = 2_000
    """Fields of one header block."""
    max_text_bytes: int = 1024 * 1024
    """Octets of one part that are made into text."""
    max_groups: int = 20_000
    """Groups of fields that `fields` returns: recipients of one report."""


LIMITS: Final = Limits()
_MAX_NOTES = 20


class Reading:
    """What reading one message has used up and found out; shared by its parts and the messages attached to it."""

    __slots__ = ("header_bytes", "limits", "notes", "parts", "truncated")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.notes: list[str] = []
        self.truncated = False
        self.parts = limits.max_parts
        self.header_bytes = limits.max_header_bytes

    def note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def cut(self, text: str) -> None:
        self.truncated = True
        self.note(text)
