"""The units: that systemd takes them, how much they leave open, and that the service runs inside what they allow."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.service import supervisor
from mailback.service.sockets import parse_listen

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
PAGE = (ROOT / "docs" / "systemd.md").read_text()
SERVICES = ("mailback.service", "mailback-maintenance.service")
PATIENCE_S = 60.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs Debian's package systemd")


def directives(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def values(unit: str, name: str) -> list[str]:
    return [value for key, value in directives(UNITS / unit) if key == name]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min|h)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would lie in /etc/systemd/system, with a command that exists on this machine."""
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket"), *UNITS.glob("*.timer")):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/mailback/bin/mailback", "/bin/true"))
    return tmp_path


def analyze(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_PAGER": "cat", "SYSTEMD_COLORS": "0"},
    )  # fmt: skip


def exposure(unit: str, folder: Path) -> float:
    told = analyze("security", "--offline=yes", "--no-pager", folder / unit, folder=folder)
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert match, told.stderr
    return float(match[1])


def stated(what: str) -> float:
    match = re.search(rf"^\| {re.escape(what)} \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert match, f"docs/systemd.md states no exposure of {what}"
    return float(match[1])


@needs_systemd
def test_systemd_takes_every_unit_without_a_word(installed: Path) -> None:
    units = sorted(path for path in installed.iterdir() if path.is_file())
    assert len(units) == 4
    told = analyze("verify", "--man=no", *units, folder=installed)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@needs_systemd
def test_misspelled_directive_would_be_noticed(installed: Path) -> None:
    unit = installed / "mailback.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", "--man=no", unit, folder=installed).stderr


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_no_more_than_the_page_says(unit: str, installed: Path) -> None:
    assert exposure(unit, installed) <= stated(f"`{unit}`")


@needs_systemd
@pytest.mark.parametrize("name", ["postfix.conf", "postfix-log.conf"])
def test_exposure_with_a_drop_in_is_no_more_than_the_page_says(name: str, installed: Path) -> None:
    unit = installed / "mailback.service"
    drop_in = (UNITS / "mailback.service.d" / name).read_text()
    unit.write_text(unit.read_text().replace("[Install]", drop_in + "[Install]"))
    assert exposure(unit.name, installed) <= stated(f"`mailback.service` with `{name}`")


@needs_systemd
def test_timer_has_a_calendar_that_systemd_understands(installed: Path) -> None:
    [calendar] = values("mailback-maintenance.timer", "OnCalendar")
    assert analyze("calendar", calendar, folder=installed).returncode == 0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs Debian's package systemd")
def test_user_is_one_that_sysusers_can_make() -> None:
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", UNITS / "mailback.sysusers"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (UNITS / "mailback.sysusers").read_text().splitlines()[-1].startswith("u mailback ")
    assert {values(unit, "User")[0] for unit in SERVICES} == {"mailback"}


@pytest.mark.parametrize("unit", SERVICES)
def test_command_of_the_unit_exists(unit: str) -> None:
    [command] = values(unit, "ExecStart")
    words = command.split()[1:]
    options = words.index("--config")
    assert words[options + 1] == "/etc/mailback/mailback.toml"
    done = subprocess.run(
        [sys.executable, "-m", "mailback.cli.main", *words[:options], "--help"], cwd=ROOT, capture_output=True,
        text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


def test_every_directive_is_explained() -> None:
    files = [path for path in UNITS.rglob("*") if path.suffix in {".service", ".socket", ".timer", ".conf"}]
    assert len(files) == 6
    used = {name for path in files for name, _ in directives(path)}
    assert sorted(name for name in used if f"`{name}`" not in PAGE) == []


def test_every_file_is_on_the_page() -> None:
    files = {path.name for path in UNITS.rglob("*") if path.is_file()} - {"mailback-maintenance.timer"}
    assert sorted(name for name in files if name not in PAGE) == []
    assert "`.timer`" in PAGE


def test_stop_is_given_longer_than_workers_may_drain() -> None:
    from mailback.settings import Settings

    drain = Settings.loads("").smtpd.drain_timeout_s
    assert seconds(values("mailback.service", "TimeoutStopSec")[0]) > drain + supervisor.GRACE_S


def test_watchdog_outlasts_the_longest_pause_before_a_restart() -> None:
    watchdog = seconds(values("mailback.service", "WatchdogSec")[0])
    assert watchdog / 2 + supervisor.BACKOFF_MAX_S + 1 < watchdog


def test_name_of_the_socket_is_one_the_configuration_can_use() -> None:
    [name] = values("mailback-smtpd.socket", "FileDescriptorName")
    assert parse_listen(f"fd:{name}").name == name
    assert values("mailback-smtpd.socket", "Service") == ["mailback.service"]


# Runs a command as the unit would: its system call filter, no capability, no writable code, its address families. The
# kernel enforces it, through libseccomp, which systemd itself depends on.
SANDBOX = """
import ctypes, os, subprocess, sys

def sets():
    told = subprocess.check_output(["systemd-analyze", "syscall-filter", "--no-pager"], text=True)
    found, current = {}, None
    for line in told.splitlines():
        if line.startswith("@"):
            current = found.setdefault(line.strip(), [])
        elif not line.startswith(" "):
            current = None
        elif current is not None and not line.strip().startswith("#"):
            current.append(line.strip())
    return found

SETS = sets()
def calls(name):
    return {call for entry in SETS[name] for call in calls(entry)} if name.startswith("@") else {name}

allowed = calls("@default")
families = [getattr(__import__("socket"), name) for name in sys.argv[1].split()]
for line in sys.argv[2].split(";"):
    named = {call for word in line.lstrip("~").split() for call in calls(word)}
    allowed = allowed - named | calls("@default") if line.startswith("~") else allowed | named

class Compare(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)
    ]

EQUAL, MASKED_EQUAL, WRITE, EXECUTE, ALLOW, EPERM = 4, 7, 2, 4, 0x7FFF0000, 0x00050001
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(EPERM)))

def allow(name, *conditions):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        rules = (Compare * len(conditions))(*conditions)
        done = seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, len(conditions), rules)
        assert done == 0, name

for name in allowed:
    if name == "socket":
        for family in families:
            allow(name, Compare(0, EQUAL, family, 0))
    elif name == "mmap":
        for protection in (0, WRITE, EXECUTE):
            allow(name, Compare(2, MASKED_EQUAL, WRITE | EXECUTE, protection))
    elif name in ("mprotect", "pkey_mprotect"):
        allow(name, Compare(2, MASKED_EQUAL, EXECUTE, 0))
    else:
        allow(name)

libc = ctypes.CDLL(None)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: gone with the exec below
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, Linux 6.3
assert seccomp.seccomp_load(context) == 0
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""


def sandboxed(*command: str) -> list[str]:
    [families] = values("mailback.service", "RestrictAddressFamilies")
    filters = ";".join(values("mailback.service", "SystemCallFilter"))
    return [sys.executable, "-c", SANDBOX, families, filters, *command]


def has_seccomp() -> bool:
    if shutil.which("systemd-analyze") is None:
        return False
    done = subprocess.run(sandboxed("/bin/true"), capture_output=True, check=False, timeout=PATIENCE_S)
    return done.returncode == 0


needs_seccomp = pytest.mark.skipif(not has_seccomp(), reason="needs systemd-analyze, libseccomp and its use allowed")


@needs_seccomp
@pytest.mark.parametrize(
    "forbidden",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import os; os.chown('/tmp', -1, -1)",
        "import os; os.setuid(os.getuid())",
        "import os; os.sched_setaffinity(0, {0})",
    ],
)  # fmt: skip
def test_sandbox_of_this_test_forbids_what_the_unit_forbids(forbidden: str) -> None:
    subprocess.run([sys.executable, "-c", forbidden], check=True, timeout=PATIENCE_S)
    done = subprocess.run(
        sandboxed(sys.executable, "-c", forbidden), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert "PermissionError" in done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the name of a unix socket has 107 octets."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        yield Path(name)


@needs_seccomp
def test_service_runs_inside_what_the_unit_allows(folder: Path) -> None:
    (folder / "mailback.toml").write_text(
        f'[store]\nurl = "sqlite:///{folder}/db/mailback.db"\n[mail]\nsending_domains = ["ours.example"]\n'
        f'[smtpd]\nlisten = "fd:smtpd"\nnext_hop = "maildir:{folder}/inbox"\n'
        f'[policyd]\nlisten = "unix:{folder}/policy"\n'
        f'[milter]\nlisten = "unix:{folder}/milter"\nworkers = 1\n'
        '[auth]\nnameservers = ["127.0.0.1:9"]\ntimeout_s = 0.2\nbudget_s = 0.5\n'
    )
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    serve = sandboxed(sys.executable, "-m", "mailback.cli.main", "serve", "--config", str(folder / "mailback.toml"))
    take_fd_3 = (
        f"import os, sys; os.dup2({listener.fileno()}, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "milter", ROOT / "smtpd")))
    process = subprocess.Popen(
        [sys.executable, "-c", take_fd_3, *serve[1:]], stderr=subprocess.PIPE, text=True, pass_fds=[listener.fileno()],
        env=os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtpd", "PYTHONPATH": paths},
    )  # fmt: skip
    listener.close()
    assert process.stderr is not None
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            if " ready " in line:
                break
        else:
            pytest.fail("".join(log))
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S) as client:
            client.sendmail(
                "ann@theirs.example", ["bob@ours.example"], "Subject: hello\r\n\r\nA person wrote this.\r\n"
            )
        assert len(list((folder / "inbox" / "new").iterdir())) == 1
        with socket.socket(socket.AF_UNIX) as policy:
            policy.settimeout(PATIENCE_S)
            policy.connect(str(folder / "policy"))
            policy.sendall(b"protocol_state=RCPT\nrecipient=ann@theirs.example\n\n")
            assert policy.recv(100) == b"action=DUNNO\n\n"
        with socket.socket(socket.AF_UNIX) as milter:
            milter.settimeout(PATIENCE_S)
            milter.connect(str(folder / "milter"))
            offer = struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)
            milter.sendall(offer)
            assert milter.recv(9)[4:] == struct.pack("!cI", b"O", 6)
    finally:
        process.terminate()
        rest = process.stderr.read()
        process.stderr.close()
        code = process.wait(PATIENCE_S)
    assert code == 0, rest
    assert "worker.died" not in rest
