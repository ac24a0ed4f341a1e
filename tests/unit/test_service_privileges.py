"""Giving up root: for good, wholly, or not at all."""

from __future__ import annotations

import json
import pwd
import subprocess
import sys
from typing import Any

import pytest

from mailback.service import privileges
from mailback.service.privileges import PrivilegeError


def afterwards(code: str) -> dict[str, Any]:
    """What a process tells of itself after running `code`, or the error that it raised."""
    prelude = "import ctypes, json, os\nfrom mailback.service import privileges\n"
    tell = (
        "except privileges.PrivilegeError as error:\n  print(json.dumps({'error': str(error)}))\n"
        "else:\n  status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "  print(json.dumps({'uid': os.getresuid(), 'gid': os.getresgid(), 'groups': os.getgroups(),\n"
        "    'changed': changed, 'capabilities': int(status['CapEff'], 16) | int(status['CapPrm'], 16),\n"
        "    'no_new': status['NoNewPrivs'].strip()}))"
    )
    body = "".join(f"  {line}\n" for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}try:\n{body}{tell}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.root
def test_user_and_group_are_taken_on_wholly() -> None:
    nobody = pwd.getpwnam("nobody")
    told = afterwards("changed = privileges.drop('nobody')")
    assert told["changed"] is True
    assert told["uid"] == [nobody.pw_uid] * 3
    assert told["gid"] == [nobody.pw_gid] * 3
    assert 0 not in told["groups"]
    assert told["capabilities"] == 0
    assert told["no_new"] == "1"


@pytest.mark.root
def test_numbers_name_user_and_group_too() -> None:
    nobody = pwd.getpwnam("nobody")
    told = afterwards(f"changed = privileges.drop('{nobody.pw_uid}', '1')")
    assert (told["uid"][0], told["gid"]) == (nobody.pw_uid, [1, 1, 1])
    assert told["groups"] == [1]


@pytest.mark.root
def test_root_that_could_come_back_is_an_error() -> None:
    keep_capabilities = "ctypes.CDLL(None).prctl(28, 4, 0, 0, 0)\n"  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP
    told = afterwards(keep_capabilities + "changed = privileges.drop('nobody')")
    assert "root could be taken back" in told["error"]


@pytest.mark.root
def test_another_user_is_out_of_reach_without_root() -> None:
    nobody = pwd.getpwnam("nobody")
    without = (
        f"import encodings.idna, grp, pwd\nos.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
    )
    assert "only root can become" in afterwards(without + "changed = privileges.drop('root')")["error"]
    assert "only root can become" in afterwards(without + "changed = privileges.drop('nobody', 'root')")["error"]
    assert afterwards(without + "changed = privileges.drop('nobody')")["changed"] is False


def test_nothing_asked_for_changes_nothing() -> None:
    assert privileges.drop(None) is False
    assert privileges.identity(None) is None


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no-such-user", None, "no user 'no-such-user'"),
        ("4294967290", None, "no user '4294967290'"),
        ("nobody", "no-such-group", "no group 'no-such-group'"),
    ],
)  # fmt: skip
def test_unknown_names_are_told(user: str, group: str | None, text: str) -> None:
    with pytest.raises(PrivilegeError, match=text):
        privileges.drop(user, group)
