"""The bytes of a message to its headers, parts and text: lazy, linear in the size of the input, bounded, never raising.

`parse` looks at the header block only; parts are found, decoded and made text when they are asked for. Whatever the
bytes are, `parse` and everything on what it returns gives an answer: damaged mail is read the way its writer most
likely meant it, and what was guessed or left out stands in `Message.notes`. Past a cap of `Limits` the rest is left
out and `Message.truncated` is set; both are complete only for what has been read by then, since reading is lazy.

Three decisions that the rest of the house builds on:

- Files with LF, CRLF and CR read the same. Text has LF; `Part.body`, `Part.content`, `Headers.block` and
  `Message.raw` are the bytes as they stand, which signatures need (a file with bare CR is rewritten once, to LF).
- `Message.parts` does not enter a message that is attached to it (RFC 2046 section 5.2): what a report returns is
  `Part.message`, so that the text of a bounce is never mistaken for the text that bounced.
- No regular expression here backtracks without end: repetitions are possessive or short. Where a search could fail
  at the same text again and again, its failures are counted or its range is cut.

The parts lie in `mailback.mime`: character sets, transfer encodings, encoded words, parameters, header blocks,
multiparts. Emits no log events: the notes say what an operator would want to know, and the callers log or store them.
"""

from __future__ import annotations

import re

from mailback.html import html_to_text
from mailback.mime.charsets import as_text, decode
from mailback.mime.headers import (
    LINES,
    NO_HEADERS,
    SPACE,
    Headers,
    first_values,
    join_broken_folds,
    skip_lead,
    split_head,
    with_line_feeds,
)
from mailback.mime.limits import LIMITS, Limits, Reading
from mailback.mime.multipart import MAX_BOUNDARY, guess_boundary, part_spans
from mailback.mime.parameters import declared_charset, declared_type, decoded_parameters, parameters
from mailback.mime.transfer import decode_base64, decode_quoted_printable, transfer_encoding
from mailback.mime.words import decode_words

__all__ = [
    "LIMITS",
    "Headers",
    "Limits",
    "Message",
    "Part",
    "decode_words",
    "fields",
    "html_to_text",
    "parse",
]

_MAX_FIELDS_OF_GROUPS = 200_000  # of one report: 20,000 recipients with ten fields each
_MAX_TYPE = 200
_MAX_ENCODING = 100
_MESSAGE_TYPES = frozenset({"message/rfc822", "message/global", "message/news"})
_HEADER_TYPES = frozenset(
    {"text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers", "message/global-headers"}
)
_ATTACHED_TYPES = _MESSAGE_TYPES | _HEADER_TYPES
_META_CHARSET = re.compile(rb"<meta[^<>]{1,200}?charset\s{0,9}=[\s\"']{0,9}([A-Za-z0-9_:-]{1,40})", re.IGNORECASE)


class Part:
    """One node of the MIME tree: a container (`children`) or a leaf (`content`, `text`)."""

    __slots__ = (
        "_begin",
        "_children",
        "_content",
        "_content_type",
        "_data",
        "_end",
        "_message",
        "_params",
        "_reading",
        "_text",
        "depth",
        "headers",
        "is_container",
        "type",
    )

    def __init__(
        self,
        data: bytes,
        head: tuple[Headers, int],
        end: int,
        reading: Reading,
        depth: int,
        *,
        implied_type: str = "text/plain",
    ) -> None:
        """A part whose header block has been split off; `implied_type` is what it is without a Content-Type."""
        self.headers, self._begin = head
        self.depth = depth
        """0 for the root of a message; attached messages count on from the part that they are attached as."""
        self.type = implied_type
        """`text/plain`, `message/delivery-status`, ...; lower case. Where no Content-Type can be read: text/plain, or
        message/rfc822 in a digest (RFC 2046 section 5.1.5)."""
        self._content_type = self.headers.written("content-type")
        if self._content_type:
            self.type = declared_type(self._content_type[:_MAX_TYPE]) or implied_type
        self.is_container = self.type.startswith("multipart/")
        """Whether it is a multipart."""
        self._data = data
        self._end = end
        self._reading = reading
        self._params: dict[str, str] | None = None
        self._children: tuple[Part, ...] | None = None
        self._content: bytes | None = None
        self._text: str | None = None
        self._message: Message | None = None

    def __repr__(self) -> str:
        return f"<Part {self.type}, {self._end - self._begin} octets>"

    @property
    def params(self) -> dict[str, str]:
        """The parameters of Content-Type by lower-case name, decoded (RFC 2231)."""
        if self._params is None:
            self._params = decoded_parameters(self._content_type)
        return self._params

    @property
    def charset(self) -> str:
        """The declared charset in lower case; empty when none is declared."""
        declared = self._content_type
        return declared_charset(declared) if len(declared) <= _MAX_TYPE else declared_charset.__wrapped__(declared)

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, ... (RFC 2183); lower case, empty when not told."""
        return self.headers.written("content-disposition").partition(";")[0].strip(SPACE).lower()

    @property
    def filename(self) -> str:
        """The name that the sender gave the part; empty when none. It is text to show, not a path to write to."""
        disposition = self.headers.written("content-disposition")
        return decoded_parameters(disposition).get("filename") or self.params.get("name", "")

    @property
    def body(self) -> bytes:
        """The octets after the header block, still in their transfer encoding."""
        return self._data[self._begin : self._end]

    @property
    def content(self) -> bytes:
        """The octets with their transfer encoding undone. What was not encoded is not kept a second time."""
        if self._content is None:
            encoding = self._encoding
            content = self._decoded_body(self._end, encoding)
            if not encoding:
                return content
            self._content = content
        return self._content

    @property
    def text(self) -> str:
        """The content as text with LF, HTML with its tags, `Limits.max_text_bytes` octets at most; a container has
        none."""
        if self._text is None:
            self._text = "" if self.is_container else self._read_text()
        return self._text

    @property
    def children(self) -> tuple[Part, ...]:
        """The parts of a multipart, in order; empty for a leaf. A multipart in which no delimiter can be found has one
        child, text/plain, with everything."""
        if self._children is None:
            self._children = tuple(self._split()) if self.is_container else ()
        return self._children

    @property
    def message(self) -> Message | None:
        """The attached message of message/rfc822 and message/global, and, with no or little body, of
        text/rfc822-headers and message/global-headers; None for other types and beyond `Limits.max_depth`."""
        if self._message is None and self.type in _ATTACHED_TYPES:
            self._message = self._attached()
        return self._message

    @property
    def _encoding(self) -> str:
        return transfer_encoding(self.headers.written("content-transfer-encoding")[:_MAX_ENCODING])

    def _decoded_body(self, end: int, encoding: str) -> bytes:
        body = self._data[self._begin : end]
        if encoding == "base64":
            return decode_base64(body)
        return decode_quoted_printable(body) if encoding == "quoted-printable" else body

    def _read_text(self) -> str:
        limit = self._reading.limits.max_text_bytes
        if self._end - self._begin <= limit:
            content = self.content
        else:
            # At most three octets encode one, so what is beyond three times the limit need not even be decoded.
            content = self._decoded_body(min(self._end, self._begin + 3 * limit), self._encoding)
        if len(content) > limit:
            self._reading.cut(f"the text of a part is cut after {limit} octets")
            content = content[:limit]
        charset = self.charset
        if not charset and self.type == "text/html" and (meta := _META_CHARSET.search(content, 0, 2048)):
            charset = meta[1].decode("ascii")
        return as_text(decode(content, charset))

    def _attached(self) -> Message | None:
        reading = self._reading
        if self.depth >= reading.limits.max_depth:
            reading.cut(f"nested deeper than {reading.limits.max_depth}: the rest is left out")
            return None
        if self._encoding:  # RFC 2046 section 5.2.1 forbids it; some do it
            content = with_line_feeds(self.content)
            return Message(content, 0, len(content), reading, self.depth + 1)
        return Message(self._data, self._begin, self._end, reading, self.depth + 1)

    def _split(self) -> list[Part]:
        reading, depth = self._reading, self.depth + 1
        if self.depth >= reading.limits.max_depth:
            reading.cut(f"nested deeper than {reading.limits.max_depth}: the rest is left out")
            return []
        data, spans = self._delimited()
        if spans is None:
            begin, end = (self._begin, self._end) if data is self._data else (0, len(data))
            if begin >= end:
                return []
            reading.note("a multipart without delimiter lines is read as text")
            return [Part(data, (NO_HEADERS, begin), end, reading, depth)]
        implied = "message/rfc822" if self.type == "multipart/digest" else "text/plain"
        children: list[Part] = []
        for start, stop in spans:
            if not reading.parts:
                reading.cut(f"more than {reading.limits.max_parts} parts: the rest are left out")
                break
            reading.parts -= 1
            children.append(
                Part(data, split_head(data, start, stop, reading), stop, reading, depth, implied_type=implied)
            )
        return children

    def _delimited(self) -> tuple[bytes, list[tuple[int, int]] | None]:
        """The data that the parts lie in, and where; None instead when nothing delimits any."""
        data, start, end = self._data, self._begin, self._end
        boundary = self._boundary()
        if boundary and (spans := part_spans(data, start, end, boundary, self._reading)):
            return data, spans
        if self._encoding:  # the container was encoded as a whole, which RFC 2045 section 6.4 forbids
            data = with_line_feeds(self.content)
            start, end = 0, len(data)
            if boundary and (spans := part_spans(data, start, end, boundary, self._reading)):
                return data, spans
        if guess := guess_boundary(data, start, end):
            self._reading.note("a multipart has another boundary than it declares")
            return data, part_spans(data, start, end, guess, self._reading)
        return data, None

    def _boundary(self) -> bytes:
        """The declared boundary in octets; empty when there is none or it is beyond all measure."""
        declared = parameters(self._content_type).get("boundary")
        boundary = declared.encode("latin-1") if declared else self.params.get("boundary", "").encode()
        boundary = boundary.rstrip()
        return boundary if len(boundary) <= MAX_BOUNDARY else b""


_PLAIN = frozenset({"text/plain"})
_HTML = frozenset({"text/html"})
_READABLE = _PLAIN | _HTML


class Message:
    """A message, or one attached to another. See the head of this module for what reading lazily means."""

    __slots__ = ("_data", "_end", "_parts", "_reading", "_start", "_text", "root")

    def __init__(self, data: bytes, start: int, end: int, reading: Reading, depth: int) -> None:
        self._data = data
        self._start = start
        self._end = end
        self._reading = reading
        self._parts: tuple[Part, ...] | None = None
        self._text: str | None = None
        head = split_head(data, skip_lead(data, start, end), end, reading)
        self.root = Part(data, head, end, reading, depth)
        """The message as a part: its header block is the message's own."""

    def __repr__(self) -> str:
        return f"<Message {self.root.type}, {self._end - self._start} octets>"

    @property
    def raw(self) -> bytes:
        """The whole message as it stands."""
        return self._data[self._start : self._end]

    @property
    def headers(self) -> Headers:
        return self.root.headers

    @property
    def notes(self) -> list[str]:
        """What was damaged, guessed or left out, in what has been read so far; shared with attached messages."""
        return self._reading.notes

    @property
    def truncated(self) -> bool:
        """Whether a limit left something out, in what has been read so far."""
        return self._reading.truncated

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, depth first, the root and other containers included, without those of attached messages."""
        if self._parts is None:
            self._parts = _walk(self.root) if self.root.is_container else (self.root,)
        return self._parts

    @property
    def text(self) -> str:
        """What a person reads first: the first text/plain or text/html body that is not empty, HTML made visible text.
        Of alternatives the plain one counts, unless it is empty. The empty string when there is none."""
        if self._text is None:
            self._text = _first_text(self.root)
        return self._text

    def header(self, name: str) -> str:
        """The decoded value of the first field `name`; empty when there is none."""
        return self.root.headers.get(name) or ""


# Both walks keep their own stack: how deep mail may nest is a setting, how deep Python may call is not.


def _walk(root: Part) -> tuple[Part, ...]:
    walked: list[Part] = []
    ahead = [root]
    while ahead:
        part = ahead.pop()
        walked.append(part)
        if part.is_container:
            ahead.extend(reversed(part.children))
    return tuple(walked)


def _first_text(root: Part) -> str:
    """The first readable text. An alternative is searched for plain text, then again for HTML; what lies within it is
    not searched twice once more, so that nested alternatives do not multiply the work."""
    ahead = [(root, _READABLE)]
    while ahead:
        part, types = ahead.pop()
        if part.type in types:
            if text := _visible_text(part):
                return text
            continue
        orders = (_HTML, _PLAIN) if part.type == "multipart/alternative" and types == _READABLE else (types,)
        for order in orders:  # last in, first out
            ahead.extend((child, order) for child in reversed(part.children))
    return ""


def _visible_text(part: Part) -> str:
    if part.depth and part.disposition == "attachment":
        return ""
    text = part.text if part.type in _PLAIN else html_to_text(part.text)
    return "" if text.isspace() else text


def parse(raw: bytes, limits: Limits = LIMITS) -> Message:
    """Read a message. Never raises, whatever the bytes; linear in their number; see `Limits` for what is left out."""
    data = with_line_feeds(raw)
    return Message(data, 0, len(data), Reading(limits), 0)


_EMPTY_LINES = re.compile(r"\n(?:[ \t]*+\r?\n)++")


def fields(block: bytes, limits: Limits = LIMITS) -> list[Headers]:
    """The groups of fields in `block`, parted by empty lines: the body of message/delivery-status (RFC 3464 section
    2.1), message/feedback-report (RFC 5965), message/disposition-notification (RFC 8098).

    Lines that are no field continue the field before them: a diagnostic that a server wrapped without indenting. A
    group without any field is left out, and so is what is beyond `max_groups` or 200,000 fields. Never raises.
    """
    text = with_line_feeds(block).decode("latin-1").lstrip(SPACE)
    groups: list[Headers] = []
    room = _MAX_FIELDS_OF_GROUPS
    for group in _EMPTY_LINES.split(text, limits.max_groups)[: limits.max_groups]:
        lines = LINES.findall(group[: limits.max_header_bytes])
        lines.pop()
        first = first_values(lines)
        if "" in first:
            lines = join_broken_folds(lines)
            first = first_values(lines)
        if lines:
            groups.append(Headers(group, lines, first))
        room -= len(lines)
        if room <= 0:
            break
    return groups
