"""Which of many patterns occur in a text: hyperscan where it is installed, plain `re` else, with the same answers.

Hyperscan walks the text once for all patterns together (about 10 µs a diagnostic, whatever their number); the fallback
looks for one literal that each pattern needs and runs `re` only where it is found. Both read the language of
`mailback.bounce.dialect`, so the answers agree (a test holds them to it over every rule that ships).

Compiling a thousand patterns takes hyperscan longer than the rest of a command's start (measured: 0.9 s), so the
compiled database is kept in `$XDG_CACHE_HOME/mailback` under a name that is a hash of the patterns, the flags and the
hyperscan version. The file is written whole and then renamed, readable by its owner alone; one that belongs to someone
else, that others may write or whose digest is wrong is not used (hyperscan trusts what it loads); a folder that
cannot be written is no error.

A scratch space of hyperscan serves one scan at a time: each thread has its own. A set that is built before `fork` is
shared by the children. Emits no log events.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mailback.bounce import dialect

Engine = Literal["auto", "hyperscan", "re"]

_SUFFIX = ".hsdb"
_DIGEST = 32  # bytes of SHA-256 before the serialised database


_ADDRESS = re.compile(r"""<?[^<>()\[\]"',;=]*@[^<>()\[\]"',;:=]*>?""")
_LONGEST_ADDRESS = 400  # longer words with an @ are no addresses; looking for one in them would cost the square


def prepare(text: str) -> bytes:
    """The bytes that patterns are matched against: lower case, white space folded, addresses as `@`, UTF-8.

    Addresses are hidden because anything may stand in them: `full@`, `spam-alerts@`, `unknown.user@`. Lone
    surrogates (undecodable bytes of a broken charset) become question marks.
    """
    words = text.lower().split()
    if "@" in text:
        words = [_hidden(word) if "@" in word else word for word in words]
    return " ".join(words).encode("utf-8", "replace")


def _hidden(word: str) -> str:
    return _ADDRESS.sub("@", word) if len(word) <= _LONGEST_ADDRESS else "@"


class PatternSet:
    """Compiled patterns, numbered in the order in which they were given; safe to use from several threads."""

    def __init__(self, nodes: Sequence[dialect.Node], *, engine: Engine = "auto", cache: Path | None = None) -> None:
        self._sources = tuple(map(dialect.emit, nodes))
        self._compiled: list[re.Pattern[bytes] | None] = [None] * len(nodes)
        self._words = tuple([node.text.decode() if isinstance(node, dialect.Literal) else None for node in nodes])
        self._hyperscan = _load_hyperscan() if engine != "re" and nodes else None
        if engine == "hyperscan" and self._hyperscan is None:
            raise RuntimeError("hyperscan is not installed")
        self.engine = "re" if self._hyperscan is None else "hyperscan"
        if self._hyperscan is None:
            self._needed = tuple((number, dialect.needed(node)) for number, node in enumerate(nodes))
        else:
            self._database = _database(self._hyperscan, self._sources, cache)
            self._local = threading.local()

    def __len__(self) -> int:
        return len(self._sources)

    def found(self, data: bytes) -> list[int]:
        """Numbers of the patterns that occur in `data` (see `prepare`), each once, in no order."""
        # Hyperscan 0.9.1 misses some matches at the very end of a text, where the last word of the pattern is short and
        # the set is large (a test has one). `.` matches no line's end, so that the answers stay the same.
        data += b"\n"
        if self._hyperscan is None:
            return self._found_by_re(data)
        local = self._local
        try:
            scratch, hits, note = local.state
        except AttributeError:
            hits = []
            append = hits.append

            def note(number: int, _start: int, _end: int, _flags: int, _context: object) -> None:
                append(number)

            scratch = self._hyperscan.Scratch(self._database)
            local.state = (scratch, hits, note)
        hits.clear()
        self._database.scan(data, match_event_handler=note, scratch=scratch)
        return list(hits)

    def _found_by_re(self, data: bytes) -> list[int]:
        return [
            number
            for number, literals in self._needed
            if any(literal in data for literal in literals) and self.pattern(number).search(data)
        ]

    def pattern(self, number: int) -> re.Pattern[bytes]:
        """One pattern for `re`: the fallback's own, and what shows where a pattern that was found stands."""
        pattern = self._compiled[number]
        if pattern is None:
            pattern = self._compiled[number] = re.compile(self._sources[number])
        return pattern

    def matched(self, number: int, data: bytes) -> str:
        """The words that a pattern found in `data`; those of most patterns are the pattern."""
        if (words := self._words[number]) is not None:
            return words
        match = self.pattern(number).search(data)
        return match.group().decode("utf-8", "replace") if match else ""


def cache_directory() -> Path:
    """Where compiled databases are kept: the cache folder of systemd's unit, else the user's."""
    if assigned := os.environ.get("CACHE_DIRECTORY"):
        return Path(assigned.split(":")[0])  # systemd separates several by colons
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "mailback"


def _load_hyperscan() -> Any:
    """The hyperscan module, or None where there is no wheel for the machine."""
    try:
        import hyperscan
    except ImportError:
        return None
    return hyperscan


def _database(hyperscan: Any, sources: tuple[bytes, ...], cache: Path | None) -> Any:
    # Not CASELESS: text and patterns are lower case already, and without it a scan takes 3 µs instead of 5, and 8
    # instead of 27 where the rest of the work has pushed the tables out of the processor's cache.
    flags = hyperscan.HS_FLAG_SINGLEMATCH
    if cache is None:
        return _compile(hyperscan, sources, flags)
    key = hashlib.sha256(repr((hyperscan.__version__, flags, sources)).encode()).hexdigest()[:32]
    path = cache / f"rules-{key}{_SUFFIX}"
    serialised = _read_own(path)
    if serialised is not None:
        try:
            return hyperscan.loadb(serialised, mode=hyperscan.HS_MODE_BLOCK)
        except hyperscan.HyperscanError:  # made for another processor: the cache folder is on a shared disk
            pass
    database = _compile(hyperscan, sources, flags)
    _write_own(path, hyperscan.dumpb(database))
    return database


def _compile(hyperscan: Any, sources: tuple[bytes, ...], flags: int) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(sources)
    database.compile(expressions=list(sources), ids=list(range(count)), elements=count, flags=[flags] * count)
    return database


def _read_own(path: Path) -> bytes | None:
    """The database in a cache file that only we can have written, else None."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            content = file.read()
    except OSError:
        return None
    digest, serialised = content[:_DIGEST], content[_DIGEST:]
    return serialised if hashlib.sha256(serialised).digest() == digest else None


def _write_own(path: Path, serialised: bytes) -> None:
    """Keep a database for the next start, atomically; older ones are left to `_forget_old`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".new")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(serialised).digest() + serialised)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        _forget_old(path)
    except OSError:
        return  # the next start compiles again


def _forget_old(current: Path, keep: int = 12) -> None:
    """Remove all but the newest few databases: each edit of a rule file leaves one behind, and a start reads three."""
    kept = sorted(current.parent.glob(f"rules-*{_SUFFIX}"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in kept[keep:]:
        if path != current:
            path.unlink(missing_ok=True)
