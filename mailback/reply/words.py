"""How words are compared in replies: one spelling for what people type in many ways.

Lower case, Latin letters without their marks (`né` and `ne` are the same word to somebody in a hurry), one sort of
apostrophe, quotation mark, dash and space, full-width punctuation as ASCII. Scripts other than Latin keep their
letters. Emits no log events and never raises on a string.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SPECIAL: Final = {
    "ß": "ss",
    "ẞ": "ss",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "ı": "i",
}
_PUNCTUATION: Final = {
    "‘": "'", "’": "'", "‚": "'", "`": "'", "´": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "…": "...",
    "，": ",", "．": ".", "：": ":", "；": ";", "！": "!", "？": "?",
    "（": "(", "）": ")", "／": "/", "＞": ">",
    "　": " ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "¿": "", "¡": "",
    "\u200b": "", "\u200c": "", "\u200d": "", "\u200e": "", "\u200f": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
    "\u0307": "",  # of a Turkish capital I with its dot, in lower case
}  # fmt: skip


_SPELLED: Final = "\u0370-\u052f"
"""Greek and Cyrillic: letters of words, as Latin ones are."""


def _marks_removed() -> dict[int, str]:
    table = {}
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base.isascii() and base.isalpha():
            table[code] = base.lower()
    digits = {0xFF10 + digit: str(digit) for digit in range(10)}
    return table | digits | {ord(k): v for k, v in (_SPECIAL | _PUNCTUATION).items()}


_FOLDED: Final = _marks_removed()


def fold(text: str) -> str:
    """The spelling that rules compare; line ends and runs of spaces stay as they are."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).lower().translate(_FOLDED)


def squeeze(text: str) -> str:
    """The same on one line: white space as single spaces, none at either end."""
    return " ".join(fold(text).split())


def one_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that finds any of the phrases, folded, as whole words where they begin and end with Latin, Greek or
    Cyrillic letters."""
    options = sorted({re.escape(squeeze(phrase)) for phrase in phrases}, key=len, reverse=True)
    if not options:
        return re.compile(r"(?!)")
    return re.compile(rf"(?<![a-z0-9{_SPELLED}])(?:{'|'.join(options)})(?![a-z{_SPELLED}])")
