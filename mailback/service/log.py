"""Logs: structlog to standard error, one line an event, as `key=value` text or JSON.

Whatever came out of mail may be in a value, so every value has its control characters, escape sequences, line ends,
bidirectional overrides and lone surrogates written as `\\x1b`, `\\n`, `\\u202e`: a log line can neither be forged nor
reach a terminal raw. Addresses are shown by domain only (`whom`), unless `[log] addresses = true`.

Text is for people and journald: under systemd the time stamp is left out (the journal has its own) and each line
starts with its priority, as sd-daemon(3) writes it. One event is one write(2), so lines of several worker processes
do not mix. A reader that has gone away never stops the service. Records of the standard `logging` module, as
libraries write them, come out the same way from WARNING up.

Importing this module costs nothing worth naming: structlog (90 ms) is imported with the first line logged.

Events: `library` (a warning of a library, in `message`; read it, most need nothing).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import logging

    _Step = Callable[[object, str, MutableMapping[str, Any]], Any]
    """What structlog calls a processor: logger, method, event to event, the last one to the line."""

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

VALUE_MAX: Final = 2000
"""Characters of one value that are logged; a diagnostic text can be as long as the sender likes."""


class LogSettings(Protocol):
    """The section `[log]` of the settings."""

    @property
    def level(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def addresses(self) -> bool: ...


class _State:
    """How to log; replaced as a whole by `configure`."""

    level: str = "info"
    format: str = "auto"
    addresses: bool = False
    generation: int = 0
    """Counts `configure`, so that loggers made before it follow."""
    ready: bool = False
    steps: tuple[_Step, ...] = ()
    """structlog's processors, for events of the level info: see `Logger.info`."""


def configure(settings: LogSettings) -> None:
    """Set level, format and how addresses are shown, for this process and those it forks. May be called again."""
    _State.level, _State.format, _State.addresses = settings.level, settings.format, settings.addresses
    _set_up()


def whom(address: str | None) -> str:
    """An address as it may be logged: `*@domain`, or in full where the settings allow it."""
    if not address:
        return "<>"
    if _State.addresses:
        return address
    _, at, domain = address.rpartition("@")
    return f"*@{domain}" if at else "*"


def escape(text: str) -> str:
    """`text` with everything that is not plainly printable, and the backslash, written as an escape."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii") for char in text
    )


class Logger:
    """A named logger; the name is logged as `part`."""

    __slots__ = ("_bound", "_context", "_generation")

    def __init__(self, context: Mapping[str, object]) -> None:
        self._context = dict(context)
        self._bound: Any = None
        self._generation = -1

    def bind(self, **values: object) -> Logger:
        """A logger that adds these values to each of its events."""
        return Logger(self._context | values)

    def debug(self, event: str, **values: object) -> None:
        if _LEVELS[_State.level] <= 10:  # spares the call on hot paths
            self._logger().debug(event, **values)

    def info(self, event: str, **values: object) -> None:
        """What is logged of each message: structlog's processors are run here, without its wrapper."""
        if not _State.ready:
            _set_up()
        if _LEVELS[_State.level] > _LEVELS["info"]:
            return
        told: Any = {**self._context, **values, "event": event}
        for step in _State.steps:
            told = step(None, "info", told)
        _write(told)

    def warning(self, event: str, **values: object) -> None:
        self._logger().warning(event, **values)

    def error(self, event: str, **values: object) -> None:
        self._logger().error(event, **values)

    def critical(self, event: str, **values: object) -> None:
        self._logger().critical(event, **values)

    def exception(self, event: str, **values: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._logger().error(event, exc_info=True, **values)

    def _logger(self) -> Any:
        if self._generation != _State.generation or not _State.ready:
            import structlog

            if not _State.ready:
                _set_up()
            self._bound = structlog.get_logger(**self._context).bind()
            self._generation = _State.generation
        return self._bound


def get_logger(name: str) -> Logger:
    """The logger of a part; cheap, at import time too."""
    return Logger({"part": name})


def _set_up() -> None:
    import structlog

    _State.generation += 1
    _State.ready = True
    _State.steps = (
        structlog.processors.add_log_level,
        _exception_text,
        _escape_values,
        _json if _wants_json() else _text_renderer(),
    )
    structlog.configure(
        processors=_State.steps,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[_State.level]),
        logger_factory=_StandardError,
        cache_logger_on_first_use=False,
    )
    _take_over_logging()


def _wants_json() -> bool:
    return _State.format == "json"


def _write(line: str) -> None:
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass  # whoever read our log is gone or too slow; mail matters more


class _StandardError:
    """Where structlog's last word goes: file descriptor 2, in one write."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = error = critical = msg


def _exception_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn `exc_info` into the text of its traceback, under `exception`."""
    wanted = event.pop("exc_info", None)
    if wanted:
        import traceback

        found = wanted if isinstance(wanted, BaseException) else sys.exc_info()[1]
        if found is not None:
            event["exception"] = "".join(traceback.format_exception(found)).rstrip()
    return event


def _escape_values(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "exception":
            event[key] = _plain(value)
    if (text := event.get("exception")) is not None:
        event["exception"] = "\n".join(map(escape, str(text).split("\n")))  # the line ends are ours, see _text
    return event


def _plain(value: object) -> object:
    """A value that can be written: numbers as they are, containers element by element, all else as escaped text."""
    if value is None or isinstance(value, (bool, int, float)):  # not a union, which takes longer
        return value
    if type(value) is str and len(value) <= VALUE_MAX:
        return escape(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:100]]
    if isinstance(value, Mapping):
        return {escape(str(key)): _plain(item) for key, item in list(value.items())[:100]}
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if len(text) > VALUE_MAX:
        text = f"{text[:VALUE_MAX]}... ({len(text)} characters)"
    return escape(text)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    import json

    head = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": event.pop("level")}
    return json.dumps({**head, "event": event.pop("event"), **event}, ensure_ascii=False)


class _Text:
    """`TIME LEVEL EVENT key=value ...`; values with spaces in double quotes; a traceback on lines of its own."""

    def __init__(self, *, journal: bool, colour: bool) -> None:
        self._journal, self._colour = journal, colour

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        level, name, exception = event.pop("level"), event.pop("event"), event.pop("exception", None)
        line = " ".join([*self._head(level, str(name)), *(f"{key}={_quoted(value)}" for key, value in event.items())])
        if exception is not None:
            # The bar keeps a line of an exception's text from looking like an event of its own.
            line += "".join(f"\n  | {part}" for part in exception.split("\n"))
        if self._journal:
            return _PRIORITIES[level] + line.replace("\n", "\n" + _PRIORITIES[level])
        return line

    def _head(self, level: str, name: str) -> list[str]:
        if self._journal:
            return [level, name]
        now = time.time_ns() // 1_000_000
        stamp = f"{_second(now // 1000)}.{now % 1000:03d}Z"
        if not self._colour:
            return [stamp, level, name]
        return [f"\x1b[2m{stamp}\x1b[0m", f"\x1b[{_COLOURS[level]}m{level}\x1b[0m", f"\x1b[1m{name}\x1b[0m"]


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    """A second since 1970 as it is written; many events have the same."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _text_renderer() -> _Text:
    colour = os.isatty(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return _Text(journal=_is_journal(), colour=colour)


def _is_journal() -> bool:
    """Whether standard error is the journal: systemd.exec(5) says to compare $JOURNAL_STREAM with the descriptor."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _quoted(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _quoted(",".join(str(item) for item in value))
    text = str(value)
    if text and " " not in text and '"' not in text and "=" not in text:
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _take_over_logging() -> None:
    """Send the standard library's records through the same escaping: aiosmtpd, asyncio and Alembic write there."""
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _forward(record)

    root = logging.getLogger()
    for old in [handler for handler in root.handlers if type(handler).__qualname__ == Forward.__qualname__]:
        root.removeHandler(old)
    root.addHandler(Forward(logging.WARNING))


def _forward(record: logging.LogRecord) -> None:
    level = max((name for name, number in _LEVELS.items() if number <= record.levelno), key=_LEVELS.__getitem__)
    try:
        message = record.getMessage()
    except Exception:  # a library's own mistake in a format string
        message = str(record.msg)
    found = record.exc_info[1] if record.exc_info else None
    log = _LIBRARY._logger()
    getattr(log, level)("library", logger=record.name, message=message, **({"exc_info": found} if found else {}))


_LIBRARY = get_logger("library")
