r"""The small language that rule patterns are written in: what `re` and hyperscan read alike and neither can choke on.

A pattern is matched against UTF-8 bytes that were lower-cased and had their white space folded to single spaces.

    abc  \.  \(       the character itself (a backslash before punctuation); letters are lower-cased
    é  ä  ł           a Latin letter with a mark: itself, or what servers without it write (e, ae, l, ? and U+FFFD)
    .                 one byte
    \d  \w  \b        an ASCII digit, an ASCII word character, a word boundary
    [abc0-9] [éè]     one character out of a set;  [^ab]  one byte that is not in a set of ASCII characters
    (one|two)         alternatives; `(?:` is accepted and means the same
    x?  x{3}  x{0,40} a bounded number of times

Left out on purpose: `*`, `+` and open `{3,}` (unbounded), back references and look-around (hyperscan has none), flags
and anchors. The number of ways in which a pattern can match so far and then fail at one place of the text is its
*work*; `re` backtracks at most so many times there, so that a bound on it makes every search linear in the text.
`parse` refuses a pattern above `MAX_WORK`, one that needs no literal text, and everything that is not of the language.
Emits no log events.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

MAX_WORK = 1500
"""Ways a pattern may be tried at one place: room for one `.{0,80}` with a few optional words around it."""
MAX_REPEAT = 200
MIN_LITERAL = 2
"""Bytes that every match must contain one after another: a shorter pattern says nothing."""

_PLAIN = re.compile(r"[^\\\[\](){}?*+.|^$]+")  # most patterns are nothing but text: they need no parser
_COUNT = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")
_CLASSES = {"d": (b"\\d", b"7"), "w": (b"\\w", b"w")}
_LETTERS = re.compile(r"[ß-öø-ɏḀ-ỿ]|[^ß-öø-ɏḀ-ỿ]+")
_PLAINLY = {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ı": "i", "ð": "d", "þ": "th"}
"""Letters that Unicode does not take apart, as they are written in ASCII."""
_IN_TWO = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"}
_LOST = ("?", "\ufffd")
"""What stands for a letter that some program on the way could not say."""


class DialectError(ValueError):
    """A pattern that is not of the language; `args[0]` says what and where."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that must stand there; lower case."""

    text: bytes


@dataclass(frozen=True, slots=True)
class OneOf:
    """A single byte out of a class; `example` is one of them."""

    source: bytes
    example: bytes


@dataclass(frozen=True, slots=True)
class Boundary:
    """A word boundary; consumes nothing."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An item, `least` to `most` times."""

    item: Node
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items one after another."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    options: tuple[Node, ...]


Node = Literal | OneOf | Boundary | Repeat | Sequence | Choice


def parse(pattern: str) -> Node:
    """Read a pattern.

    Raises DialectError for what is not of the language or would be costly to search for.
    """
    if pattern.isascii() and _PLAIN.fullmatch(pattern):
        node: Node = Literal(pattern.lower().encode())
    else:
        node = _Reader(pattern).whole()
    if min(map(len, needed(node)), default=0) < MIN_LITERAL:
        raise DialectError(f"needs at least {MIN_LITERAL} bytes of literal text in every alternative")
    if (cost := work(node)) > MAX_WORK:
        raise DialectError(f"could be tried in {cost} ways at one place, at most {MAX_WORK} are allowed")
    return node


def emit(node: Node) -> bytes:
    """The pattern as both engines take it: bytes, no capture groups."""
    match node:
        case Literal(text):
            return re.escape(text)
        case OneOf(source, _):
            return source
        case Boundary():
            return b"\\b"
        case Sequence(items):
            return b"".join(map(emit, items))
        case Choice(options):
            return b"(?:" + b"|".join(map(emit, options)) + b")"
        case Repeat(item, least, most):
            body = emit(item) if isinstance(item, OneOf | Choice) else b"(?:" + emit(item) + b")"
            return body + (b"?" if (least, most) == (0, 1) else b"{%d,%d}" % (least, most))


def work(node: Node) -> int:
    """In how many ways the node can match at one place, at most.

    Of alternatives only those count together that can begin alike: `(user|mailbox)` is one way, `(mail|mailbox)` two.
    """
    match node:
        case Sequence(items):
            ways = 1
            for item in items:
                ways *= work(item)
            return ways
        case Choice(options):
            return _work_of_choice(options)
        case Repeat(item, least, most):
            inner = work(item)
            return most - least + 1 if inner == 1 else sum(inner**n for n in range(least, most + 1))
        case _:
            return 1


def _work_of_choice(options: tuple[Node, ...]) -> int:
    first: dict[bytes, int] = {}
    for option in options:
        begins = _begins(option)
        first[begins] = first.get(begins, 0) + work(option)
    anything = first.pop(b"", 0)
    return anything + max((ways + _of_shorter(first, begins) for begins, ways in first.items()), default=0)


def _of_shorter(first: dict[bytes, int], begins: bytes) -> int:
    """Ways of the alternatives of which only the first byte is fixed, and is the same."""
    return first.get(begins[:1], 0) if len(begins) > 1 else 0


def _begins(node: Node) -> bytes:
    """The first two bytes of every match, or the one, where they are fixed; empty where anything may stand."""
    match node:
        case Literal(text):
            return text[:2]
        case Sequence(items):
            return next((_begins(item) for item in items if not isinstance(item, Boundary)), b"")
        case _:
            return b""


def needed(node: Node) -> tuple[bytes, ...]:
    """Literals of which every match contains at least one; empty when there is no such set.

    The fallback engine looks for them first: searching a literal is far cheaper than running a pattern.
    """
    match node:
        case Literal(text):
            return (text,)
        case Sequence(items):
            best: tuple[bytes, ...] = ()
            for item in items:
                found = needed(item)
                if found and (not best or _rank(found) > _rank(best)):
                    best = found
            return best
        case Choice(options):
            all_found = [needed(option) for option in options]
            return tuple({text for found in all_found for text in found}) if all(all_found) else ()
        case Repeat(item, least, _):
            return needed(item) if least else ()
        case _:
            return ()


def _rank(literals: tuple[bytes, ...]) -> tuple[int, int]:
    return min(map(len, literals)), -len(literals)


@lru_cache(maxsize=256)
def _example(source: bytes) -> bytes | None:
    """A visible member of a set; None where it has none."""
    members = re.compile(source)
    return next((bytes([n]) for n in range(33, 127) if members.fullmatch(bytes([n]))), None)


@lru_cache(maxsize=256)
def _letter(char: str) -> Node:
    """One character; of a Latin letter with a mark, each of its spellings.

    SMTP replies are ASCII (RFC 5321 section 4.2), so that most servers that speak these languages write them without
    the marks; what is not ASCII is often lost on its way through a program that knows no other alphabet.
    """
    plain = _PLAINLY.get(char) or unicodedata.normalize("NFD", char)[0]
    if char.isascii() or not plain.isascii():
        return Literal(char.encode())
    spellings = dict.fromkeys((char, plain, _IN_TWO.get(char, plain), *_LOST))
    return Choice(tuple(Literal(spelling.encode()) for spelling in spellings))


def _spelled(text: str) -> list[Node]:
    """Plain text, in as few items as it takes."""
    if text.isascii():
        return [Literal(text.lower().encode())]
    parts = _LETTERS.findall(text.lower())
    return [_letter(part) if len(part) == 1 else Literal(part.encode()) for part in parts]


class _Reader:
    """The place reached in a pattern; recursive descent, one method a construct."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def whole(self) -> Node:
        node = self.choice()
        if self.at < len(self.pattern):
            raise self.wrong("a closing bracket without its opening one")
        return node

    def wrong(self, what: str) -> DialectError:
        return DialectError(f"{what} (at character {self.at + 1} of {self.pattern!r})")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def choice(self) -> Node:
        options = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self) -> Node:
        items: list[Node] = []
        while (char := self.peek()) and char not in "|)":
            for item in self.plain() or [self.repeated(self.item())]:
                if isinstance(item, Literal) and items and isinstance(items[-1], Literal):
                    items[-1] = Literal(items[-1].text + item.text)
                else:
                    items.append(item)
        if not items:
            raise self.wrong("an empty alternative")
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def plain(self) -> list[Node]:
        """Several plain characters at once; the last is left where a repetition follows, which is its alone."""
        run = _PLAIN.match(self.pattern, self.at)
        if run is None:
            return []
        end = run.end() - (self.pattern[run.end() : run.end() + 1] in ("?", "{"))
        if end == self.at:
            return []
        text = self.pattern[self.at : end]
        self.at = end
        return _spelled(text)

    def item(self) -> Node:
        char = self.peek()
        self.at += 1
        match char:
            case "(":
                return self.group()
            case "[":
                return self.char_class()
            case ".":
                return OneOf(b".", b"~")
            case "\\":
                return self.escape()
            case "*" | "+" | "?" | "{" | "}" | "]" | "^" | "$":
                self.at -= 1
                raise self.wrong(f"{char!r} is not allowed here")
        return _letter(char.lower())

    def group(self) -> Node:
        if self.peek() == "?":
            if self.pattern[self.at : self.at + 2] != "?:":
                raise self.wrong("look-around, flags and named groups are not allowed")
            self.at += 2
        node = self.choice()
        if self.peek() != ")":
            raise self.wrong("a bracket is not closed")
        self.at += 1
        return node if isinstance(node, Choice) else Choice((node,))

    def escape(self) -> Node:
        char = self.peek()
        self.at += 1
        if char == "b":
            return Boundary()
        if char in _CLASSES:
            return OneOf(*_CLASSES[char])
        if not char or char.isalnum() or not char.isascii():
            self.at -= 1
            raise self.wrong(f"\\{char} is not allowed")
        return Literal(char.encode())

    def char_class(self) -> Node:
        end = self.pattern.find("]", self.at + 1)
        body = self.pattern[self.at : end]
        if end < 0 or "\\" in body or "[" in body:
            raise self.wrong("a set holds plain characters only, without a backslash or a bracket")
        self.at = end + 1
        if not body.isascii():
            if "-" in body or body.startswith("^"):
                raise self.wrong("a set beyond ASCII names each of its characters")
            return Choice(tuple(_letter(char) for char in dict.fromkeys(body.lower())))
        source = b"[" + body.lower().encode() + b"]"
        example = _example(source)
        if example is None:
            raise self.wrong("an empty set")
        return OneOf(source, example)

    def repeated(self, item: Node) -> Node:
        if self.peek() == "?":
            self.at += 1
            least, most = 0, 1
        elif self.peek() == "{":
            count = _COUNT.match(self.pattern, self.at)
            if count is None:
                raise self.wrong("a repetition is {n} or {m,n}: an open end is not allowed")
            self.at = count.end()
            least, most = int(count[1]), int(count[2] or count[1])
        else:
            return item
        if isinstance(item, Boundary) or not 1 <= most <= MAX_REPEAT or least > most:
            raise self.wrong(f"a repetition runs from a smaller to a larger number, at most {MAX_REPEAT}")
        if self.peek() in ("?", "*", "+", "{"):
            raise self.wrong("a repetition of a repetition is not allowed")
        return Repeat(item, least, most)
