"""HTML to the text that a person would see, in time linear in its length, for any input.

Made for the HTML of mail: bounces laid out in tables, quoted replies, newsletters cut off in the middle. It is a
scanner, not a parser of the HTML grammar, and bends the grammar in two places on purpose: `<user@example.net>`,
which careless servers write without escaping, stays visible; and a tag ends at the next `<` when its `>` is missing.

How layout becomes text: `<br>`, blocks and table rows end the line, paragraphs leave an empty line, table cells are
parted by a tab so that a label and its value share a line. Script, style, title and everything that carries `hidden`
or `display:none` is dropped.

Emits no log events and never raises on a string.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

# A tag runs to its `>` or, when that is missing, to the next `<`. Every repetition is possessive, and a quoted value
# cannot pass a `<`, so no character is looked at more than a fixed number of times.
_MARKUP = re.compile(
    r"""<(?:
        (?P<comment>!--)
      | (?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9:_-]*+)(?=[\s/<>]|\Z)
        (?P<attributes>(?:[^<>"']++|"[^"<]*+"|'[^'<]*+'|["'])*+)>?
      | [!?/][^<>]*+>?
    )""",
    re.VERBOSE,
)
# Bounded repetitions: `int()` of a digit string without end is refused by Python (and was quadratic before).
_ENTITY = re.compile(r"&(?:\#[0-9]{1,7}+|\#[xX][0-9A-Fa-f]{1,6}+|[A-Za-z][A-Za-z0-9]{1,31}+);?")
_QUOTED_VALUE = re.compile(r""""[^"]*+"|'[^']*+'""")
_HIDDEN_ATTRIBUTE = re.compile(r"(?:^|\s)hidden(?=[\s=/]|\Z)")
_HIDDEN_STYLE = re.compile(
    r"display\s*+:\s*+none|visibility\s*+:\s*+hidden|mso-hide\s*+:\s*+all|max-height\s*+:\s*+0(?![.\d])"
)

# What separates the text before from the text after; a stronger one replaces a weaker one.
_NOTHING, _SPACE, _LINE, _TAB, _ROW, _GAP = range(6)
_SEPARATORS: Final = ("", " ", "\n", "\t", "\n", "\n\n")

_INVISIBLE: Final = {
    name: re.compile(rf"</{name}(?=[\s/>]|\Z)[^<>]*+>?", re.IGNORECASE)
    for name in ("script", "style", "title", "template", "svg", "noframes")
}
"""Elements whose content is not text; each with the tag that ends it."""
_REST_IS_INVISIBLE: Final = frozenset({"script", "style"})
"""Of those, the ones that a browser lets run to the end of the page when nothing closes them."""


def _elements(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID: Final = _elements("area base br col embed hr img input link meta param source track wbr")
"""Elements without content, hence without an end tag."""
_LINES = _elements(
    "address article aside body caption center dd details div dl dt fieldset figure footer form header hr html legend"
    " li main nav optgroup option section summary table tbody tfoot thead"
)
_PARAGRAPHS = _elements("blockquote h1 h2 h3 h4 h5 h6 ol p pre ul")
_BLOCKS: Final = dict.fromkeys(_LINES, _LINE) | dict.fromkeys(_PARAGRAPHS, _GAP)

# Zero-width characters that only pad previews or guide hyphenation; joiners stay, Persian and emoji need them.
_PADDING: Final = dict.fromkeys(map(ord, "\u00ad\u034f\u200b\u2060\ufeff\0"))


class _Page:
    """The text written so far, and the separator that waits for more text."""

    __slots__ = ("fresh_cell", "hidden", "hidden_depth", "nested_table", "pending", "pre", "written")

    def __init__(self) -> None:
        self.written: list[str] = []
        self.pending = _NOTHING
        self.fresh_cell = False
        """In a cell that has no text yet: block tags there must not part the value from its label."""
        self.nested_table = False
        self.pre = 0
        self.hidden = ""
        """Name of the hidden element whose end is awaited; empty when visible."""
        self.hidden_depth = 0

    def text(self, chunk: str) -> None:
        if "&" in chunk:
            chunk = _ENTITY.sub(_resolve, chunk)
        if not chunk.isascii() or "\0" in chunk:
            chunk = chunk.translate(_PADDING)
        if self.pre:
            self._preformatted(chunk)
        elif words := chunk.split():
            if not self.pending and chunk[0].isspace():
                self.pending = _SPACE
            self._write(" ".join(words))
            self.pending = _SPACE if chunk[-1].isspace() else _NOTHING
        elif chunk and not self.pending:
            self.pending = _SPACE

    def _preformatted(self, chunk: str) -> None:
        """Text within `<pre>`: its lines stand as they are, but those at its ends count as the block's own."""
        if self.pending >= _LINE:
            chunk = chunk.removeprefix("\n")
        ended = chunk.rstrip("\n")
        if ended:
            self._write(ended)
        self.block((_NOTHING, _LINE, _GAP)[min(len(chunk) - len(ended), 2)])

    def _write(self, text: str) -> None:
        if self.written:
            self.written.append(_SEPARATORS[self.pending])
        self.written.append(text)
        self.pending = _NOTHING
        self.fresh_cell = False

    def block(self, strength: int) -> None:
        if not self.fresh_cell and self.pending < strength:
            self.pending = strength

    def line_break(self) -> None:
        if not self.fresh_cell:
            self.pending = _GAP if self.pending in (_LINE, _ROW, _GAP) else _LINE

    def cell(self, *, opens: bool) -> None:
        # After `<tr>` the row's own line break stands; within a row the tab replaces what the last cell's blocks left.
        if not opens or self.pending < _ROW:
            self.pending = _TAB
        self.fresh_cell = opens

    def row(self, *, opens: bool) -> None:
        if opens and self.nested_table and self.fresh_cell:
            self.nested_table = False
            return
        self.fresh_cell = False
        self.block(_ROW)

    def tag(self, name: str, *, opens: bool) -> None:
        """A tag of the visible page, by its lower-case name."""
        if name == "br":
            self.line_break()
        elif name in ("td", "th"):
            self.cell(opens=opens)
        elif name == "tr":
            self.row(opens=opens)
        elif strength := _BLOCKS.get(name):
            self.block(strength)
            if name == "pre":
                self.pre = max(0, self.pre + (1 if opens else -1))
            elif name == "table":
                self.nested_table = opens and self.fresh_cell

    def hide(self, name: str) -> None:
        self.hidden, self.hidden_depth = name, 1

    def skip(self, name: str, *, opens: bool) -> None:
        """A tag within a hidden element: only the nesting of its own name counts."""
        if name == self.hidden:
            self.hidden_depth += 1 if opens else -1
            if not self.hidden_depth:
                self.hidden = ""

    def result(self) -> str:
        return "".join(self.written).strip()


def _resolve(entity: re.Match[str]) -> str:
    return unescape(entity[0])


def _is_hidden(attributes: str) -> bool:
    lowered = attributes.lower()
    if "none" not in lowered and "hid" not in lowered:
        return False
    return bool(_HIDDEN_STYLE.search(lowered) or _HIDDEN_ATTRIBUTE.search(_QUOTED_VALUE.sub('""', lowered)))


def _past_comment(html: str, start: int) -> int:
    end = html.find("-->", start)
    return len(html) if end < 0 else end + 3


def _past_invisible(html: str, name: str, start: int, unclosed: set[str]) -> int:
    """Where the text goes on after an element that holds none. `unclosed` remembers what has no end tag ahead, so
    that a page of opening tags is not searched to its end for each of them."""
    if name not in unclosed:
        if end := _INVISIBLE[name].search(html, start):
            return end.end()
        unclosed.add(name)
    return len(html) if name in _REST_IS_INVISIBLE else start


def html_to_text(html: str) -> str:
    """The visible text of `html`, lines ended by LF, without white space at either end. Linear in time and memory."""
    if "\r" in html:
        html = html.replace("\r\n", "\n").replace("\r", "\n")
    page = _Page()
    unclosed: set[str] = set()
    position = 0
    while markup := _MARKUP.search(html, position):
        if markup.start() > position and not page.hidden:
            page.text(html[position : markup.start()])
        position = markup.end()
        if markup["comment"]:
            position = _past_comment(html, position)
            continue
        if (name := markup["name"]) is None:
            continue
        name = name.lower()
        opens, attributes = not markup["close"], markup["attributes"]
        if opens and name in _INVISIBLE:
            if not attributes.endswith("/"):
                position = _past_invisible(html, name, position, unclosed)
        elif page.hidden:
            page.skip(name, opens=opens)
        elif opens and attributes and name not in _VOID and _is_hidden(attributes):
            page.hide(name)
        else:
            page.tag(name, opens=opens)
    if not page.hidden:
        page.text(html[position:])
    return page.result()
