"""`mailback doctor`: looks at the live system and says what to do about what is not well.

Nothing is changed. Each area is looked at by a function that yields findings; one that cannot look says so as a finding
instead of ending the others. Emits no log events.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.diagnosis import Finding
from mailback.cli.options import config_option, json_option
from mailback.cli.out import Cell, Column, json_line, table

if TYPE_CHECKING:
    from mailback.settings import Address, ServiceSettings, Settings
    from mailback.store import Store

_COLUMNS = (Column("area", wraps=False), Column("state", wraps=False), Column("finding"), Column("what to do"))
_TIMEOUT_S = 3.0
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "afs"})


@click.command()
@config_option
@json_option
@click.option(
    "--postfix-config",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the Postfix configuration to look at. Default: that of the installed postconf.",
)
def doctor(*, config: Path | None, as_json: bool, postfix_config: Path | None) -> int:
    """Check the live system: settings, store, sockets, DNS, Postfix. Changes nothing.

    Each finding is ok, warn or fail, and says what to do. Exit code 1 when something fails.
    """
    findings = list(examine(config, postfix_config))
    if as_json:
        for finding in findings:
            json_line(finding.to_dict())
    else:
        rows = [(f.area, f.state, f.what, Cell(f.advice, "dim" if f.state == "ok" else "")) for f in findings]
        table(_COLUMNS, rows)
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def examine(config: Path | None, postfix_config: Path | None = None) -> Iterator[Finding]:
    """Every finding, in the order in which things depend on each other."""
    from mailback.cli.postfix import examine_postfix
    from mailback.settings import Settings, SettingsError

    try:
        settings = Settings.load(config)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "fail", str(problem), "correct it; nothing starts before")
        return
    areas: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("settings", lambda: _settings(settings, config)),
        ("store", lambda: _store(settings)),
        ("listen", lambda: _listening(settings)),
        ("follow", lambda: _followed(settings)),
        ("clamd", lambda: _clamd(settings)),
        ("dns", lambda: _dns(settings)),
        ("postfix", lambda: examine_postfix(settings, postfix_config)),
    ]
    for area, look in areas:
        try:
            yield from look()
        except PermissionError as error:
            what = f"{error.filename or area}: this user may not look at it"
            yield Finding(area, "fail", what, "run doctor as root, or as the user that Mailback runs as")
        except Exception as error:  # one area that cannot be looked at must not hide the others
            what = getattr(error, "reason", None) or f"cannot be looked at: {type(error).__name__}: {error}"
            yield Finding(area, "fail", str(what), getattr(error, "advice", "see the finding"))


# ---- settings -------------------------------------------------------------------------------------------------------


def _settings(settings: Settings, config: Path | None) -> Iterator[Finding]:
    from mailback.locations import find_config
    from mailback.walk.knowledge import Knowledge

    found = find_config(config)
    yield Finding("settings", "ok", f"{found} is good" if found else "no configuration file: built-in settings")
    for warning in settings.warnings():
        yield Finding("settings", "warn", warning, "correct it, or leave it if it is meant")
    try:
        Knowledge.load(settings)
    except PermissionError:
        raise
    except Exception as error:
        for problem in getattr(error, "problems", [error]):
            yield Finding("settings", "fail", f"rules: {problem}", "correct the rule file")
    else:
        yield Finding("settings", "ok", "the rules load")
    if found is not None and found.stat().st_mode & stat.S_IWOTH:
        yield Finding("settings", "fail", f"{found} may be written by anybody", f"chmod o-w {found}")
    for key, path in (
        ("smtpd.tls_key_file", settings.smtpd.tls_key_file),
        ("store.password_file", settings.store.password_file),
        ("signing.secret_file", settings.signing.secret_file),
        ("llm.key_file", settings.llm.key_file),
        ("web.key_file", settings.web.key_file),
    ):
        if path is not None and path.exists() and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding("settings", "fail", f"{key}: {path} may be read by anybody", f"chmod o-rwx {path}")


# ---- store ----------------------------------------------------------------------------------------------------------


def _store(settings: Settings) -> Iterator[Finding]:
    from mailback.locations import sqlite_path
    from mailback.store import Store

    path = sqlite_path(settings.store.url)
    if path is not None:
        yield from _database_file(path, settings.service)
        if not path.exists():
            return
    with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
        yield from _contents(store)


def _contents(store: Store) -> Iterator[Finding]:
    problems = store.check()
    for problem in problems:
        yield Finding("store", "fail", problem.what, problem.advice)
    if not any(problem.in_data for problem in problems):
        yield Finding("store", "ok", "schema, integrity and audit chain are whole")
        if store.key_is_lost():
            told = "the key of erasures is gone: addresses that were erased are mailed again"
            yield Finding("store", "fail", told, f"bring {store.path.name}.erasure.key back from a backup")
        for wave in store.waves(only_open=True):
            told = f"wave {wave.id}: {wave.members} addresses of {wave.provider} ({wave.subcategory}) wait"
            yield Finding("store", "warn", told, "mailback wave list; then mailback wave undo, or confirm")
        if not store.watches_waves():
            told = (
                "nothing tells what arrives or what leaves: a provider that breaks is told from 1000 failures on only"
            )
            yield Finding("store", "warn", told, "follow Postfix's log ([follow]), or have journal.outbound written")
        yield _reviews(store)
        yield from _breakers(store)


def _reviews(store: Store) -> Finding:
    from datetime import UTC, datetime

    figures = store.stats(since=datetime.now(UTC)).review
    if figures.overdue:
        told = f"{figures.overdue} of {figures.open} items that wait for a person are overdue"
        return Finding("review", "warn", told, "mailback review list --overdue")
    return Finding("review", "ok", f"{figures.open} items wait for a person, none is overdue")


def _breakers(store: Store) -> Iterator[Finding]:
    from datetime import UTC, datetime

    from mailback.policy.breaker import CLOSED, at

    for breaker in (at(written, datetime.now(UTC)) for written in store.breakers()):
        if breaker.state != CLOSED:
            told = f"breaker {breaker.name} is {breaker.state.replace('_', ' ')}: {breaker.reason}"
            advice = "mend what the refusals complain of, then mailback breaker close; mailback breaker list"
            yield Finding("store", "warn", told, advice)


def _database_file(path: Path, service: ServiceSettings) -> Iterator[Finding]:
    from mailback.store.checking import space

    folder = path.parent
    if not folder.is_dir():
        advice = "mailback store upgrade makes it, and so does the first mailback serve"
        yield Finding("store", "warn", f"{folder} does not exist yet", advice)
        return
    yield from _file_system(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Finding("store", "fail", f"{folder} may be written by anybody ({mode:o})", f"chmod o-w {folder}")
    if path.exists():  # then the store's own check tells of rights and space
        yield from _owner(path, path.stat().st_uid, service)
        return
    yield Finding("store", "warn", f"there is no database at {path} yet", "mailback store upgrade")
    if not os.access(folder, os.W_OK):
        advice = "run doctor as the user that Mailback runs as, or give it the folder"
        yield Finding("store", "warn", f"this user may not write to {folder}", advice)
    for problem in space(folder):
        yield Finding("store", "fail", problem.what, problem.advice)


def _owner(path: Path, owner: int, service: ServiceSettings) -> Iterator[Finding]:
    """A database that another user owns can be read by the service, and not written."""
    from mailback.service import privileges

    try:
        become = privileges.identity(service.user, service.group)
    except privileges.PrivilegeError as error:
        yield Finding("store", "fail", str(error), f"adduser --system --group {service.user}")
        return
    if become is not None and owner != become[0]:
        yield Finding("store", "fail", f"{path} does not belong to {service.user}", f"chown {service.user}: {path}*")
    if become is None and owner != (of_folder := path.parent.stat().st_uid) and of_folder != 0:
        what = f"{path} does not belong to the owner of its folder: a service that runs as that user cannot write it"
        yield Finding("store", "fail", what, f"chown --reference={path.parent} {path}*")


def _file_system(folder: Path) -> Iterator[Finding]:
    kind = _mounted(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        what = f"{folder} is on {kind}: SQLite's locks do not work on network file systems"
        yield Finding("store", "fail", what, "move the database to a local disk, or use PostgreSQL")


def _mounted(folder: Path) -> str:
    """The type of the file system that a folder lies on; empty where that cannot be told."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    best, kind = "", ""
    for line in lines:
        _, place, type_, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        if len(place) >= len(best) and real.is_relative_to(place):
            best, kind = place, type_
    return kind


# ---- sockets --------------------------------------------------------------------------------------------------------


def _listening(settings: Settings) -> Iterator[Finding]:
    from mailback.settings import listen_address

    probes: list[tuple[str, tuple[str, ...], Callable[[socket.socket], str]]] = [
        ("smtpd.listen", settings.smtpd.listen, _greeting),
        ("milter.listen", settings.milter.listen, lambda _: "accepts connections"),
        ("policyd.listen", settings.policyd.listen, _policy_answer),
        ("policyd.socketmap", settings.policyd.socketmap, _socketmap_answer),
        ("web.listen", settings.web.listen, _health),
    ]
    for key, listens, probe in probes:
        for listen in listens:
            yield _probed(f"{key} {listen}", listen_address(listen), probe)


# ---- the log that is followed --------------------------------------------------------------------------------------


_BEHIND_S = 300
"""Seconds after which lines that wait to be read are a sign that nobody reads."""


def _followed(settings: Settings) -> Iterator[Finding]:
    """Whether each log can be read, and was read up to its end lately."""
    from mailback.locations import sqlite_path
    from mailback.store import Store

    for path in settings.follow.files:
        if (problem := _unreadable_log(path, settings.service.user)) is not None:
            yield Finding("follow", "fail", f"follow.files: {path}: {problem[0]}", problem[1])
    database = sqlite_path(settings.store.url)
    if not settings.follow.files or database is None or not database.exists():
        return
    with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
        for path in settings.follow.files:
            if path.is_file():
                yield _place_of_log(store, path)


def _unreadable_log(path: Path, user: str | None) -> tuple[str, str] | None:
    """What is wrong, and what to do; asked for the service's user where root asks."""
    groups = "let its user read it: systemd/mailback.service.d/postfix-log.conf, or usermod -aG adm USER"
    try:
        status = path.stat()
    except FileNotFoundError:
        return "is not there", "correct the path: postconf maillog_file; rsyslog's is /var/log/mail.log on Debian"
    except OSError as error:
        return error.strerror or str(error), groups
    if os.geteuid() != 0:
        return None if os.access(path, os.R_OK) else ("may not be read by this user", groups)
    if user is None or status.st_mode & stat.S_IROTH:
        return None
    import pwd

    account = pwd.getpwnam(user)
    owned = status.st_uid == account.pw_uid and status.st_mode & stat.S_IRUSR
    shared = status.st_gid in os.getgrouplist(user, account.pw_gid) and status.st_mode & stat.S_IRGRP
    return None if owned or shared else (f"may not be read by {user}", groups.replace("USER", user))


def _place_of_log(store: Store, path: Path) -> Finding:
    from datetime import UTC, datetime

    from mailback.cli.out import when

    led_to = store.place(f"follow:{path}")
    place = store.place(str(led_to.position.get("log"))) if led_to is not None else None
    if led_to is None:
        return Finding("follow", "warn", f"{path} was never followed", "start Mailback (mailback serve)")
    read = int(place.position.get("offset") or 0) if place is not None else 0
    at = max(led_to.at, place.at) if place is not None else led_to.at
    waiting = path.stat().st_size - read
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    told = f"{path}: read up to octet {read}, last at {when(at)} UTC"
    if waiting > 0 and (written - at).total_seconds() > _BEHIND_S:
        return Finding(
            "follow", "warn", f"{told}; {waiting} octets wait", "start Mailback, or look at its log for follow events"
        )
    return Finding("follow", "ok", told)


def _probed(name: str, address: Address, probe: Callable[[socket.socket], str]) -> Finding:
    if address.family == "fd":
        advice = "systemctl status mailback-smtpd.socket tells its state"
        return Finding("listen", "ok", f"{name}: opened by systemd", advice)
    if address.family == "tcp" and address.port == 0:
        return Finding("listen", "ok", f"{name}: any free port")
    try:
        with _connected(address) as connection:
            said = probe(connection)
    except PermissionError:
        return Finding("listen", "warn", f"{name}: this user may not connect", "run doctor as root or as postfix")
    except (ConnectionRefusedError, FileNotFoundError):
        return Finding("listen", "warn", f"{name}: nobody listens", "start Mailback (mailback serve)")
    except (OSError, ValueError) as error:
        what = f"{name}: {error or type(error).__name__}"
        return Finding("listen", "fail", what, "another program listens there, or Mailback hangs: look at its log")
    return Finding("listen", "ok", f"{name}: {said}")


def _connected(address: Address) -> socket.socket:
    if address.family == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(address.host)
        except OSError:
            connection.close()
            raise
        return connection
    host = {"*": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    return socket.create_connection((host, address.port), timeout=_TIMEOUT_S)


def _greeting(connection: socket.socket) -> str:
    said = connection.recv(512).decode("ascii", "replace").strip()
    connection.sendall(b"QUIT\r\n")
    if not said.startswith("220"):
        raise ValueError(f"greets with {said[:60]!r}, which is no SMTP server's greeting")
    return "greets as a mail server"


def _policy_answer(connection: socket.socket) -> str:
    connection.sendall(
        b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"
        b"sender=doctor@mailback.invalid\nrecipient=doctor@mailback.invalid\n\n"
    )
    said = connection.recv(512).decode("ascii", "replace").strip()
    if not said.startswith("action="):
        raise ValueError(f"answers {said[:60]!r}, which is no policy service's answer")
    return f"answers {said}"


def _socketmap_answer(connection: socket.socket) -> str:
    query = b"transport doctor@mailback.invalid"
    connection.sendall(b"%d:%b," % (len(query), query))
    said = connection.recv(512).decode("ascii", "replace")
    if "NOTFOUND" not in said and "OK " not in said:
        raise ValueError(f"answers {said[:60]!r}, which is no socketmap's answer")
    return "answers look-ups"


def _health(connection: socket.socket) -> str:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    said = connection.recv(512).decode("ascii", "replace").partition("\r\n")[0]
    if " 503 " in said:
        raise ValueError("answers, and its store cannot be used: see `store`")
    if not said.startswith("HTTP/1.1 200"):
        raise ValueError(f"answers {said[:60]!r}, which is not Mailback's HTTP interface")
    return "answers, and its store too"


# ---- the virus scanner ----------------------------------------------------------------------------------------------


def _clamd(settings: Settings) -> Iterator[Finding]:
    from mailback.reply.clamd import Clamd, ClamdError

    scanner = Clamd.of(settings)
    if scanner is None:
        return
    where = f"safety.clamd {settings.safety.clamd}"
    try:
        yield Finding("clamd", "ok", f"{where}: {scanner.ping()}")
    except PermissionError:
        yield Finding("clamd", "fail", f"{where}: this user may not connect", "put mailback into clamd's socket group")
    except (OSError, ClamdError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        yield Finding("clamd", "fail", f"{where}: {reason}", "start clamd; until then replies go on unscanned")


# ---- DNS ------------------------------------------------------------------------------------------------------------


def _dns(settings: Settings) -> Iterator[Finding]:
    import dns.exception
    import dns.resolver

    if settings.auth.enabled:
        yield from _nameservers(settings.auth.nameservers)
    try:
        resolver = dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        yield Finding("dns", "fail", f"no resolver is configured: {error}", "put a nameserver into /etc/resolv.conf")
        return
    resolver.lifetime = _TIMEOUT_S
    servers = ", ".join(str(server) for server in resolver.nameservers)
    try:
        resolver.resolve(".", "NS")
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        pass  # an answer all the same: a resolver of a private network need not know the root
    except dns.exception.DNSException as error:
        advice = "look at /etc/resolv.conf and at the resolver itself; a caching one on this host is best"
        yield Finding("dns", "fail", f"{servers} does not answer: {_dns_reason(error)}", advice)
        return
    yield Finding("dns", "ok", f"{servers} answers")
    for domain in dict.fromkeys((*settings.mail.sending_domains, *filter(None, [settings.mail.bounce_domain]))):
        try:
            answer = resolver.resolve(domain, "MX")
            hosts = ", ".join(sorted(str(record.exchange).rstrip(".") for record in answer))
            yield Finding("dns", "ok", f"{domain}: bounces come to {hosts}")
        except dns.exception.DNSException as error:
            advice = "publish an MX record that leads to this host: without one no bounce comes back"
            yield Finding("dns", "warn", f"{domain}: no MX ({_dns_reason(error)})", advice)


def _nameservers(named: Sequence[str]) -> Iterator[Finding]:
    """Those that authentication asks, where it asks others than this host does."""
    from mailback.auth import Resolver

    for server in named:
        if Resolver([server], timeout_s=_TIMEOUT_S).answers():
            yield Finding("dns", "ok", f"auth.nameservers: {server} answers")
        else:
            advice = "correct auth.nameservers: until one answers, nobody is authenticated (temperror)"
            yield Finding("dns", "fail", f"auth.nameservers: {server} does not answer", advice)


def _dns_reason(error: Exception) -> str:
    """The kind of failure; the whole text of dnspython repeats each attempt."""
    import re

    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
