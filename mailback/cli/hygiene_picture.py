"""The summary of a list as an SVG picture: one bar of keep, verify and drop, and below it a bar for each reason.

Plain SVG 1.1 without script, font or anything from elsewhere; readable without colour, with a title for screen readers.
Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 760
_LEFT, _BAR, _ROW = 190, 430, 26
_COLOURS: Final = {"keep": "#2e7d32", "verify": "#b26a00", "drop": "#b3261e"}
_FONT: Final = "font-family='Segoe UI, Roboto, Helvetica, Arial, sans-serif'"
_MOST_REASONS = 16


def draw(total: int, actions: Mapping[str, int], reasons: Mapping[tuple[str, str], int], name: str) -> str:
    """The picture as text."""
    shown = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    height = 150 + _ROW * len(shown)
    body = "\n".join([*_head(total, name), *_stack(total, actions), *_rows(total, shown)])
    told = ", ".join(f"{actions.get(action, 0)} {action}" for action in _COLOURS)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' viewBox='0 0 {WIDTH} {height}'"
        f" role='img'>\n<title>{escape(_safe(name))}: {total} addresses, {told}</title>\n"
        f"<rect width='100%' height='100%' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def _head(total: int, name: str) -> Iterator[str]:
    yield _text(24, 36, f"{total:,} addresses", size=20, weight="600")
    yield _text(24, 58, _safe(name), size=13, colour="#555555")


def _stack(total: int, actions: Mapping[str, int]) -> Iterator[str]:
    """One bar of all, and what its parts are."""
    x = 24.0
    wide = WIDTH - 48
    legend = 24
    for action, colour in _COLOURS.items():
        count = actions.get(action, 0)
        width = wide * count / total if total else 0.0
        if width:
            yield f"<rect x='{x:.1f}' y='72' width='{width:.1f}' height='26' fill='{colour}'/>"
            x += width
        share = f"{count / total:.1%}" if total else "-"
        yield f"<rect x='{legend}' y='110' width='12' height='12' fill='{colour}'/>"
        yield _text(legend + 18, 121, f"{action} {count:,} ({share})", size=13)
        legend += 220


def _rows(total: int, shown: list[tuple[tuple[str, str], int]]) -> Iterator[str]:
    """A bar for each reason, beside the most frequent one."""
    most = max((count for _, count in shown), default=1)
    for number, ((action, reason), count) in enumerate(shown):
        y = 140 + _ROW * number
        width = max(1.0, _BAR * count / most)
        yield _text(_LEFT - 10, y + 15, f"{action}: {reason}", size=13, anchor="end")
        colour = _COLOURS.get(action, "#555555")
        yield f"<rect x='{_LEFT}' y='{y + 3}' width='{width:.1f}' height='16' fill='{colour}'/>"
        yield _text(_LEFT + width + 8, y + 15, f"{count:,} ({count / total:.1%})", size=12, colour="#333333")


def _text(
    x: float, y: float, said: str, *, size: int, colour: str = "#111111", weight: str = "400", anchor: str = "start"
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' font-weight='{weight}' fill='{colour}'"
        f" text-anchor='{anchor}'>{escape(said)}</text>"
    )


def _safe(name: str) -> str:
    """A file name without what XML does not take."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)[:80]
