"""`mailback serve`, and each of its parts alone: load the settings, make the store ready, hand over to the supervisor.

The parent process that forks the workers must hold neither threads nor an open database, so the store is opened and
brought to its newest schema in a child of its own, which ends before anything listens. The child runs as the user that
the service becomes, so that the database belongs to whoever writes it.

Log events:
`config.warning`      something in the settings can be run but is hardly meant (`warning`). Correct it, or leave it.
`reload.fixed`        a reload found other values of `keys`, which only a restart changes; those of the start stay in
                      force. Restart, or put the old values back.
`store.ready`         the database is at the newest schema. Nothing.
Everything that prevents a start is told as any command's failure: one line a problem, exit code 1 or 2.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import config_option, load_settings

if TYPE_CHECKING:
    from mailback.service.supervisor import Part
    from mailback.settings import Settings


def _receiver(settings: Settings) -> Part:
    from mailback_smtpd.part import SmtpdPart

    return SmtpdPart(settings)


def _milter(settings: Settings) -> Part:
    from mailback_milter.part import MilterPart

    return MilterPart(settings)


def _policyd(settings: Settings) -> Part:
    from mailback.outbound.part import PolicydPart

    return PolicydPart(settings)


def _web(settings: Settings) -> Part:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise CommandError("[web] needs packages that are not installed", "pip install 'mailback[web]'", exit_code=2)
    from mailback.web.part import WebPart

    return WebPart(settings)


def _watch(settings: Settings) -> Part:
    from mailback.outbound.watch import WatchPart

    return WatchPart(settings)


def _follower(settings: Settings) -> Part:
    from mailback.ingest.part import FollowPart

    return FollowPart(settings)


_PARTS: dict[str, Callable[[Settings], Part]] = {
    "smtpd": _receiver,
    "milter": _milter,
    "policyd": _policyd,
    "web": _web,
    "follow": _follower,
}
_SWITCHES = {"follow": "`files` and no `journal`"}


def _wanted(settings: Settings) -> list[str]:
    """The parts that the settings switch on."""
    on = {
        "smtpd": settings.smtpd.listen,
        "milter": settings.milter.listen,
        "policyd": settings.policyd.listen or settings.policyd.socketmap,
        "web": settings.web.listen,
        "follow": settings.follow.on,
    }
    return [name for name in _PARTS if on[name]]


def _build(settings: Settings, only: str | None) -> list[Part]:
    wanted = _wanted(settings)
    if only == "watch":
        return [_watch(settings)]
    if only is not None:
        if only not in wanted:
            raise CommandError(
                f"[{only}] has no {_SWITCHES.get(only, '`listen`')}",
                f"set it in the configuration, or MAILBACK_{only.upper()}_{'FILES' if only == 'follow' else 'LISTEN'}",
                exit_code=2,
            )
        return [_PARTS[only](settings)]
    if not wanted:
        raise CommandError(
            "nothing to serve: no section of the configuration has a `listen`",
            "set one of smtpd.listen, milter.listen, policyd.listen, web.listen (see mailback config show --template)",
            exit_code=2,
        )
    from mailback.review.clock import ClockPart

    beside: list[Part] = [ClockPart(settings), _watch(settings)]
    if settings.llm.url is not None:
        beside.append(_suggester(settings))
    return [*(_PARTS[name](settings) for name in wanted), *beside]


def _suggester(settings: Settings) -> Part:
    from importlib.util import find_spec

    from mailback.review.suggesting import SuggestPart

    if find_spec("httpx") is None:
        raise CommandError(
            "[llm] has a `url`, and httpx is not installed", "pip install 'mailback[llm]', or unset it", exit_code=2
        )
    return SuggestPart(settings)


def _run(config: Path | None, only: str | None = None) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload: by default it would end us
    settings = load_settings(config, files=True)
    parts = _build(settings, only)

    from mailback.service import log, privileges
    from mailback.service.sockets import GroupError, SocketError
    from mailback.service.supervisor import supervise

    log.configure(settings.log)
    _tell_warnings(settings)
    try:
        privileges.check(settings.service.user, settings.service.group)
        prepare_store(settings)
        return supervise(
            parts,
            load=_Reload(config, only, settings),
            drain_timeout_s=settings.smtpd.drain_timeout_s,
            user=settings.service.user,
            group=settings.service.group,
        )
    except (GroupError, privileges.PrivilegeError) as error:  # these name the way out themselves
        raise CommandError(str(error), exit_code=2) from error
    except SocketError as error:
        raise CommandError(str(error)) from error


class _Reload:
    """Builds the parts from the settings as they are now; raises what is wrong with them, and then nothing changes.

    What only a restart changes keeps the value that it had at the start.
    """

    def __init__(self, config: Path | None, only: str | None, settings: Settings) -> None:
        self._config = config
        self._only = only
        self._at_start = settings

    def __call__(self) -> Sequence[Part]:
        from mailback.service import log

        wanted = load_settings(self._config, files=True)
        settings = wanted.keeping_fixed(self._at_start)
        parts = _build(settings, self._only)
        if fixed := self._at_start.needs_restart(wanted):
            log.get_logger("serve").warning("reload.fixed", keys=", ".join(fixed), advice="restart to change these")
        log.configure(settings.log)
        _tell_warnings(settings)
        return parts


def _tell_warnings(settings: Settings) -> None:
    from mailback.service import log

    for warning in settings.warnings():
        log.get_logger("serve").warning("config.warning", warning=warning)


def prepare_store(settings: Settings) -> None:
    """Bring the store to its newest schema in a child process. Raises CommandError with the child's reason."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _upgrade_and_exit(settings, writable)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if status:
        what, _, advice = said.partition("\0")
        raise CommandError(what or f"the store could not be made ready (status {status})", advice)

    from mailback.service import log

    log.get_logger("serve").debug("store.ready")


def _upgrade_and_exit(settings: Settings, writable: int) -> None:
    """In the child: upgrade, say why not, and leave without touching what belongs to the parent."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    try:
        _upgrade(settings)
        code = 0
    except BaseException as error:  # whatever it is, the parent tells it
        what, advice = _reason(error)
        os.write(writable, f"{what}\0{advice}".encode(errors="backslashreplace"))
    finally:
        os._exit(code)


def _reason(error: BaseException) -> tuple[str, str]:
    """What is wrong, and what to do."""
    from mailback.service.privileges import PrivilegeError

    if advice := getattr(error, "advice", ""):  # StoreUnavailable
        return str(getattr(error, "reason", error)), advice
    if isinstance(error, PrivilegeError):
        return str(error), ""
    if isinstance(error, OSError):
        return str(error), "look at [store] url, and at who may write to its folder"
    if isinstance(error, ImportError) and (hidden := _hidden_installation()):
        return hidden
    return f"{type(error).__name__}: {error}", "this is a fault in Mailback: report it"


_INSTALLATION = (Path(os.__file__).parent, Path(__file__).parents[1])
"""Python's library and ours: modules are imported from both when they are needed, which is after root is given up."""


def _hidden_installation() -> tuple[str, str] | None:
    """What to say where the user that the service has become cannot read the code that it runs."""
    from mailback.service import privileges

    for folder in _INSTALLATION:
        if closed := privileges.out_of_reach(folder):
            return (
                f"the service's user (uid {os.geteuid()}) cannot read the installation at {folder}: {closed} is closed",
                "install Python and Mailback where service.user may read, such as /opt, or open that folder to it",
            )
    return None


def _upgrade(settings: Settings) -> None:
    from mailback.locations import sqlite_path
    from mailback.service import privileges
    from mailback.store import Store

    user, group = settings.service.user, settings.service.group
    path = sqlite_path(settings.store.url)
    if path is not None:
        make_folder(path.parent, user, group)
    # Imported as whoever started us: the interpreter may lie where the service's user cannot look.
    for module in ("alembic.command", "alembic.runtime.migration", "mailback.store.upgrade"):
        import_module(module)
    privileges.drop(user, group)
    store = Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s)
    try:
        store.upgrade()
    finally:
        store.close()


def make_folder(folder: Path, user: str | None = None, group: str | None = None) -> None:
    """The folder of the database, closed to others, owned by whom the service becomes."""
    from mailback.service import privileges

    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True)
    if become := privileges.identity(user, group):
        os.chown(folder, *become)


@click.command()
@config_option
def serve(config: Path | None) -> int:
    """Run every door and server that the configuration switches on.

    A part is on when its section has a `listen`: [smtpd], [milter], [policyd], [web]; [follow] when it has `files` or
    `journal`; the clock of the review and the watch always are. Says `ready` on the log (and to systemd) once every
    socket listens. SIGTERM finishes what was begun and exits 0; SIGHUP reads settings and rules anew.
    """
    return _run(config)


@click.command()
@config_option
def milter(config: Path | None) -> int:
    """Run the milter alone."""
    return _run(config, "milter")


@click.command()
@config_option
def smtpd(config: Path | None) -> int:
    """Run the receiver alone."""
    return _run(config, "smtpd")


@click.command()
@config_option
def follow(config: Path | None) -> int:
    """Follow Postfix's log as it is written, alone."""
    return _run(config, "follow")


@click.command()
@config_option
def watch(config: Path | None) -> int:
    """Watch breakers and ask DNS who runs the mail of recipients' domains, alone.

    For hosts where the parts are started one by one; `mailback serve` does it beside whatever else it does.
    """
    return _run(config, "watch")


@click.command()
@config_option
def policyd(config: Path | None) -> int:
    """Run the policy service and the socketmap alone."""
    return _run(config, "policyd")


@click.command()
@config_option
def web(config: Path | None) -> int:
    """Run the HTTP interface alone."""
    return _run(config, "web")
