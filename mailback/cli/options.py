"""What several commands share: options, the settings and the store they name. Emits no log events."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailback.cli.errors import CommandError
from mailback.locations import CONFIG_VARIABLE

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """`--config F`, as every command takes it; also told by the environment, also accepted before the command."""
    return click.option(
        "--config",
        "-c",
        "config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        callback=_inherited,
        help=f"Configuration file. Default: ${CONFIG_VARIABLE}, /etc/mailback/mailback.toml, built-in settings.",
    )(command)


def _inherited(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        return value
    outer = context.find_root().params.get("config")
    return outer if isinstance(outer, Path) else None


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, one line an item.")(command)


def load_settings(config: Path | None, *, files: bool = False) -> Settings:
    """The settings in force; without the checks of files that only the server's user may read."""
    from mailback.settings import Settings

    return Settings.load(config, files=files)


@contextmanager
def open_store(config: Path | None, *, create: bool = False) -> Iterator[Store]:
    """The store that the settings name, closed at the end.

    `create` makes a database where there is none: for what adds to it. A question to a store that is not there is an
    error instead, because a wrong path would look like an empty list.
    """
    from mailback.store import Store

    settings = load_settings(config)
    with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
        if not create:
            require_database(store.path)
        elif not store.path.exists():
            store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            store.upgrade()
        yield store


def require_database(path: Path) -> None:
    """Raises StoreUnavailable, with what to do on a new host, where there is no database to ask."""
    try:
        path.stat()
    except FileNotFoundError:
        from mailback.store.errors import nothing_yet

        raise nothing_yet(path) from None
    except OSError:
        return  # there is something in the way; the store tells it when it is opened


def actor() -> str:
    """Who runs this command, for the audit trail: the person behind sudo, where there is one."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a uid without a name, as in containers
            name = f"uid {os.getuid()}"
    return f"operator:{name}"


_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """A time: `2026-11-30`, `2026-11-30T12:00`, or a span such as `7d`, `12h`, counted from now."""

    name = "time"

    def __init__(self, sign: int) -> None:
        self._sign = sign  # 1: the span lies ahead, -1: behind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        unit = _UNITS.get(text[-1:])
        try:
            if unit and text[:-1].isdigit():
                return datetime.now(UTC) + self._sign * timedelta(**{unit: int(text[:-1])})
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time: write 2026-11-30, 2026-11-30T12:00 or a span such as 7d or 12h", param, ctx
            )


class Whole(click.IntRange):
    """A whole number that the database and every counter can hold: as many digits as anybody likes are no fault."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > _LARGEST:
            self.fail(f"{number} is too large: at most {_LARGEST}", param, ctx)
        return number


_LARGEST = 2**63 - 1


def address_key(address: str) -> str:
    """What look-ups compare; a CommandError for what is no address."""
    from mailback.address import is_address, key

    bare = address.strip().removeprefix("<").removesuffix(">")
    if not is_address(bare):
        raise CommandError(f"{address!r} is no mail address", "write it as local-part@domain", exit_code=2)
    return key(bare)


_SCOPES = ("list:", "campaign:")
_STREAMS = ("stream:transactional", "stream:marketing")


def scope(_context: click.Context | None, _parameter: click.Parameter | None, value: str | None) -> str | None:
    """Checks a suppression scope: `all`, `list:ID`, `campaign:ID`, `stream:transactional` or `stream:marketing`."""
    if value is None or value == "all" or value in _STREAMS:
        return value
    if any(value.startswith(prefix) and len(value) > len(prefix) for prefix in _SCOPES):
        return value
    raise click.BadParameter(f"{value!r} is none of: all, list:ID, campaign:ID, {', '.join(_STREAMS)}")
