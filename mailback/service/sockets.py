"""Listening sockets: how an address is written, and how it is opened once for all worker processes.

The supervisor opens every socket before it gives up its privileges and before it forks; workers inherit them and
accept on them together. A registry keyed by the address makes a second `open_listener` of the same address return
the same socket, so a reload replaces the workers while connections wait in the kernel's queue, unrefused.

Forms of an address: `127.0.0.1:8025`, `[::1]:25`, `*:25` (both families), `localhost:25`, `unix:/run/mailback/x.sock`
(also `local:` or a bare absolute path), `inet:8891@127.0.0.1` and `inet6:8891@::1` (as libmilter writes them),
`fd:NAME` (a socket that systemd opened: FileDescriptorName=NAME), and any of them after `lmtp:`.

A unix socket that nobody answers is left over from a killed server and is replaced; one that answers belongs to a
running server and is an error. Nothing here logs: every failure is a `SocketError` whose text says what to do.
"""

from __future__ import annotations

import errno
import grp
import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

BACKLOG = 1024
"""Connections the kernel keeps waiting; net.core.somaxconn caps it."""

_FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

_PROBE_TIMEOUT_S = 1.0
_SUN_PATH_MAX = 107  # unix(7): sun_path is 108 octets with its NUL

_HOST_PORT = re.compile(r"(?!inet6?:|unix:|local:)(?:\[(?P<six>[^\]]+)\]|(?P<host>[^\[\]:/@\s]*)):(?P<port>\d{1,5})\Z")
_MILTER_INET = re.compile(r"(?P<family>inet6?):(?P<port>\d{1,5})@(?P<host>[^@/\s]+)\Z")
_FD_NAME = re.compile(r"fd:(?P<name>[\x21-\x39\x3b-\x7e]{1,255})\Z")  # systemd.socket(5): printable ASCII, no colon


class SocketError(OSError):
    """An address cannot be listened on; the text names the address, the reason and the way out."""


class GroupError(SocketError):
    """A unix socket cannot be given to the group, or with the mode, of the settings."""


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on."""

    kind: str
    """`inet`, `unix` or `fd`."""
    host: str = ""
    """Name or IP address without brackets; empty means every address of both families."""
    port: int = 0
    """0 lets the kernel choose, which only tests want."""
    path: str = ""
    name: str = ""
    """The FileDescriptorName of an `fd:` address."""
    lmtp: bool = False
    """Speak LMTP (RFC 2033) on it instead of SMTP."""

    @property
    def key(self) -> str:
        """The address without its protocol: two spellings of one address have one key."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd:{self.name}"
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"lmtp:{self.key}" if self.lmtp else self.key


def parse_listen(text: str) -> Listen:
    """Read an address as written in the settings; `ValueError` says what was expected."""
    rest = text.strip()
    lmtp = rest.lower().startswith("lmtp:")
    if lmtp:
        rest = rest[len("lmtp:") :]
    for prefix in ("unix:", "local:", ""):
        if rest.startswith(prefix + "/"):
            return _unix(rest[len(prefix) :], lmtp)
    if match := _FD_NAME.match(rest):
        return Listen("fd", name=match["name"], lmtp=lmtp)
    if match := _MILTER_INET.match(rest):
        return Listen("inet", match["host"].strip("[]"), _port(match["port"], text), lmtp=lmtp)
    if match := _HOST_PORT.match(rest):
        host = match["six"] or match["host"]
        return Listen("inet", "" if host == "*" else host, _port(match["port"], text), lmtp=lmtp)
    raise ValueError(
        f"{text!r} is no address to listen on: expected HOST:PORT, [IPv6]:PORT, *:PORT, unix:/PATH, "
        "inet:PORT@HOST or fd:NAME"
    )


def _unix(path: str, lmtp: bool) -> Listen:
    if len(os.fsencode(path)) > _SUN_PATH_MAX:
        raise ValueError(f"{path!r} is too long for a unix socket: {_SUN_PATH_MAX} octets at most")
    if "\0" in path:
        raise ValueError(f"{path!r} holds a NUL")
    return Listen("unix", path=os.path.normpath(path), lmtp=lmtp)


def _port(digits: str, text: str) -> int:
    port = int(digits)
    if port > 65535:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    return port


@dataclass(slots=True)
class _Open:
    """A socket of the registry, with what is needed to close it without harm to a successor."""

    socket: socket.socket
    inode: tuple[int, int] | None = None
    """(st_dev, st_ino) of the unix socket file that we made; None for all others."""
    wanted: bool = True
    """Asked for since the last `begin`."""


@dataclass(slots=True)
class _Registry:
    open: dict[str, _Open] = field(default_factory=dict)
    before: frozenset[str] = frozenset()
    """The keys that were open at the last `begin`."""
    owner: tuple[int, int] = (-1, -1)
    """User and group that unix sockets are given; -1 leaves what the kernel gave."""
    asked: set[str] = field(default_factory=set)
    """The keys asked for since `asked` was last called."""
    inherited: dict[str, socket.socket] | None = None
    """What systemd handed over, by name; None until looked for."""


_registry = _Registry()


def open_listener(listen: Listen | str, *, mode: int = 0o660, group: str | int | None = None) -> socket.socket:
    """The listening socket of an address, non-blocking; opened now, or the one that is open already.

    `mode` and `group` concern unix sockets: who may connect. Raises `SocketError`.
    """
    wanted = parse_listen(listen) if isinstance(listen, str) else listen
    known = _registry.open.get(wanted.key)
    if known is None:
        known = _registry.open[wanted.key] = _OPENERS[wanted.kind](wanted)
        known.socket.setblocking(False)
        known.socket.set_inheritable(False)
    known.wanted = True
    _registry.asked.add(wanted.key)
    if known.inode is not None:
        _grant(wanted.path, mode, group)
    return known.socket


def own(uid: int, gid: int) -> None:
    """Who the service will be: unix sockets opened from here on are given to that user and group."""
    _registry.owner = (uid, gid)


def asked() -> frozenset[str]:
    """The keys of the addresses asked for since the last call: after a part's `open`, those of that part."""
    keys = frozenset(_registry.asked)
    _registry.asked.clear()
    return keys


def keep_only(keys: frozenset[str]) -> None:
    """In a worker: let go of every socket but these; the files of unix sockets stay, they are the parent's.

    A port listens until its last holder closes it. Held by a worker that never accepts on it, it would swallow its
    clients and could not be opened again.
    """
    for key in _registry.open.keys() - keys:
        _registry.open.pop(key).socket.close()
    for name, handed in (_registry.inherited or {}).items():
        if f"fd:{name}" not in keys:
            handed.close()
    _registry.inherited = None


def begin() -> None:
    """A reload starts: from here on note which addresses are asked for."""
    _registry.before = frozenset(_registry.open)
    for known in _registry.open.values():
        known.wanted = False


def revert() -> list[str]:
    """The reload failed: close what was opened since `begin`, keep the rest; returns the keys closed."""
    for key, known in _registry.open.items():
        known.wanted = key in _registry.before
    return close_unwanted()


def close_unwanted() -> list[str]:
    """Close what nobody has asked for since `begin`; returns the keys closed."""
    gone = [key for key, known in _registry.open.items() if not known.wanted]
    for key in gone:
        _close(key, _registry.open.pop(key))
    return gone


def close_listener(listen: Listen | str) -> None:
    """Close one address and remove its unix socket file; nothing happens when it is not open."""
    key = (parse_listen(listen) if isinstance(listen, str) else listen).key
    if known := _registry.open.pop(key, None):
        _close(key, known)


def close_all() -> None:
    """Close every socket, removing the files of unix sockets that are still ours."""
    begin()
    close_unwanted()


def _close(key: str, known: _Open) -> None:
    if known.inode is not None:
        path = Path(key.removeprefix("unix:"))
        try:
            found = path.lstat()
            if (found.st_dev, found.st_ino) == known.inode:  # else another server has put its own there
                path.unlink()
        except OSError:
            pass  # gone already, or the folder is not ours to write: the next start replaces a dead socket
    if not key.startswith("fd:"):  # systemd's stay: a later reload may name them again, and cannot ask for them twice
        known.socket.close()


def _grant(path: str, mode: int, group: str | int | None) -> None:
    try:
        if group is not None:
            os.chown(path, -1, group if isinstance(group, int) else grp.getgrnam(group).gr_gid)
        Path(path).chmod(mode)
    except KeyError:
        raise GroupError(f"unix:{path}: there is no group {group!r}: create it or correct socket_group") from None
    except OSError as error:
        # After a reload without privileges nothing can be changed, and nothing has to be when it is so already.
        if not _granted(path, mode, group):
            raise GroupError(
                f"unix:{path}: cannot give it mode {mode:o} and group {group}: {error.strerror}; "
                "start as root, or put the service's user into that group"
            ) from error


def _granted(path: str, mode: int, group: str | int | None) -> bool:
    found = Path(path).stat()
    gid = grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    return stat.S_IMODE(found.st_mode) == mode and gid in (None, found.st_gid)


def _open_unix(listen: Listen) -> _Open:
    _remove_stale(listen.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect before mode and group are set; the supervisor has one thread, so the mask is nobody else's.
    mask = os.umask(0o177)
    try:
        listener.bind(listen.path)
        if _registry.owner != (-1, -1):  # a sandbox may forbid the call altogether
            os.chown(listen.path, *_registry.owner)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SocketError(f"{listen}: cannot listen: {error.strerror}; {_unix_advice(error, listen.path)}") from error
    finally:
        os.umask(mask)
    made = Path(listen.path).lstat()
    return _Open(listener, (made.st_dev, made.st_ino))


def _unix_advice(error: OSError, path: str) -> str:
    folder = Path(path).parent
    if error.errno == errno.ENOENT:
        return f"create the folder {folder}"
    return f"let this user write to {folder}"


def _remove_stale(path: str) -> None:
    """Remove a socket file whose server is dead; raise when something lives there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"unix:{path}: {error.strerror}; {_unix_advice(error, path)}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketError(f"unix:{path}: a file that is no socket stands there: move it away or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except OSError as error:  # EAGAIN is a full queue, a timeout a busy server: somebody is there
            raise SocketError(f"unix:{path}: in use or not ours ({error}): stop the other server first") from error
        else:
            raise SocketError(f"unix:{path}: another server answers there: stop it first")
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise SocketError(f"unix:{path}: cannot replace the dead socket: {error.strerror}") from error


def _open_inet(listen: Listen) -> _Open:
    if not listen.host:
        return _open_any(listen)
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise SocketError(f"{listen}: cannot find the address of {listen.host!r}: {error}") from error
    family, _, _, _, address = found[0]
    return _Open(_bind(listen, socket.AddressFamily(family), address, v6only=True))


def _open_any(listen: Listen) -> _Open:
    """One socket for both families, or IPv4 alone where the kernel has no IPv6."""
    try:
        return _Open(_bind(listen, socket.AF_INET6, ("::", listen.port), v6only=False))
    except SocketError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _Open(_bind(listen, socket.AF_INET, ("0.0.0.0", listen.port)))  # noqa: S104  `*` asks for it


def _bind(
    listen: Listen, family: socket.AddressFamily, address: tuple[str | int, ...] | tuple[int, bytes], *,
    v6only: bool = True,
) -> socket.socket:  # fmt: skip
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        # A restarted server must not wait for the old one's TIME_WAIT; two living servers still exclude each other.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        advice = _INET_ADVICE.get(error.errno or 0, "check the address")
        failure = SocketError(f"{listen}: cannot listen: {error.strerror}; {advice}")
        failure.errno = error.errno
        raise failure from error
    return listener


_INET_ADVICE = {
    errno.EADDRINUSE: "another server holds the port: stop it or choose another port",
    errno.EACCES: 'ports below 1024 need root or a systemd socket unit (listen = "fd:NAME")',
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}


def _open_fd(listen: Listen) -> _Open:
    handed = inherited()
    listener = handed.get(listen.name)
    if listener is None:
        names = ", ".join(sorted(handed)) or "none"
        raise SocketError(
            f"{listen}: systemd handed over no socket of that name (handed over: {names}): "
            "enable the socket unit whose FileDescriptorName= it is, and start the service through systemd"
        )
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SocketError(f"{listen}: the socket does not listen: the unit needs ListenStream= and Accept=no")
    return _Open(listener)


def inherited() -> dict[str, socket.socket]:
    """The sockets that systemd opened for this process (sd_listen_fds(3)), by name; the environment is cleared.

    A name given to several sockets of one unit means the first; the others are `NAME.1`, `NAME.2` and so on.
    """
    if _registry.inherited is not None:
        return _registry.inherited
    pid, count, names = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    _registry.inherited = {}
    if pid != str(os.getpid()) or not count.isdigit():
        return _registry.inherited
    given = names.split(":") if names else []
    for offset in range(int(count)):
        name = given[offset] if offset < len(given) else "unknown"
        handed = socket.socket(fileno=_FIRST_FD + offset)
        handed.set_inheritable(False)
        _registry.inherited[_free_name(name)] = handed
    return _registry.inherited


def _free_name(name: str) -> str:
    taken = _registry.inherited or {}
    if name not in taken:
        return name
    return next(other for n in range(1, len(taken) + 1) if (other := f"{name}.{n}") not in taken)


_OPENERS = {"unix": _open_unix, "inet": _open_inet, "fd": _open_fd}
