"""Giving up root once the sockets are open.

The change is for good and is verified: a service told to run as somebody that cannot become that somebody does not
go on as root. Nothing here logs; `PrivilegeError` says what to do.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)


class PrivilegeError(RuntimeError):
    """The user or group cannot be changed to what the settings say."""


def drop(user: str | None, group: str | None = None) -> bool:
    """Become `user` and `group` (names or numbers; group defaults to the user's own) for good.

    Both None changes nothing. Returns whether anything changed; raises `PrivilegeError`. Call it with one thread and
    before any fork.
    """
    if user is None and group is None:
        return False
    account = _account(user)
    gid = _gid(group, account)
    uid = os.getuid() if account is None else account.pw_uid
    if os.geteuid() != 0:
        _require_already(uid, gid)
        return False
    try:
        if account is None:
            os.setgroups([gid])
        else:
            os.initgroups(account.pw_name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become user {uid}, group {gid}: {error.strerror}") from error
    _verify(uid, gid)
    _no_new_privileges()
    return True


def identity(user: str | None, group: str | None = None) -> tuple[int, int] | None:
    """The user and group numbers that `drop` will take on; None when it will change nothing."""
    if (user is None and group is None) or os.geteuid() != 0:
        return None
    account = _account(user)
    return (os.getuid() if account is None else account.pw_uid, _gid(group, account))


def check(user: str | None, group: str | None = None) -> None:
    """Raise what `drop` would raise for want of an account or of the right to become it; change nothing."""
    if user is None and group is None:
        return
    account = _account(user)
    gid = _gid(group, account)
    if os.geteuid() != 0:
        _require_already(os.getuid() if account is None else account.pw_uid, gid)


def out_of_reach(folder: Path) -> Path | None:
    """The topmost of the folders down to `folder` that the effective user may not enter or read; None when it may."""
    for place in (*reversed(folder.parents), folder):
        needed = os.X_OK | (os.R_OK if place == folder else 0)
        if not os.access(place, needed, effective_ids=True):
            return place
    return None


def running_as_root() -> bool:
    return os.geteuid() == 0


def _account(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(f"there is no user {user!r}: create it or correct service.user") from None


def _gid(group: str | None, account: pwd.struct_passwd | None) -> int:
    if group is None:
        assert account is not None
        return account.pw_gid
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegeError(f"there is no group {group!r}: create it or correct service.group") from None


def _require_already(uid: int, gid: int) -> None:
    if uid != os.geteuid() or gid not in {os.getegid(), *os.getgroups()}:
        raise PrivilegeError(
            f"only root can become user {uid}, group {gid} (this is user {os.geteuid()}): "
            "start as root, or leave service.user and service.group unset"
        )


def _verify(uid: int, gid: int) -> None:
    """Ask the kernel, and try the way back: a capability kept by accident would allow it."""
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PrivilegeError(f"user and group are not {uid} and {gid} after the change")
    if uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError("root could be taken back after giving it up: this process keeps CAP_SETUID")


def _no_new_privileges() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise PrivilegeError(f"prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
