"""The one comparison that the readers of texts share. Log events: none."""

from __future__ import annotations

from collections.abc import Iterable


def says(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text contains one of the phrases; both lower case. A substring search each, at the speed of C."""
    return any(map(text.__contains__, phrases))
