"""The supervisor, in a process of its own with real forks and signals and a datagram socket in systemd's place."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import free_port

PATIENCE_S = 20.0

SERVICE = '''
import json, os, select, signal, socket, sys, time
from pathlib import Path
from types import SimpleNamespace
from mailback.service import log, sockets, supervisor

folder = Path(sys.argv[1])
read = lambda: json.loads((folder / "settings.json").read_text())

class SettingsError(Exception):
    def __init__(self, problems):
        self.problems = problems

class Part:
    """Answers each connection with its setting and its pid, one at a time."""
    name = "test"
    def __init__(self, settings):
        self.settings = settings
        self.workers = settings.get("workers", 1)
    def open(self):
        self.listener = sockets.open_listener("unix:%s/%s" % (folder, self.settings.get("socket", "s")), mode=0o666)
        for other in self.settings.get("listen", []):
            sockets.open_listener(other)
    def close(self):
        (folder / "closed").write_text(self.settings["answer"])
    def run(self, ready):
        how = self.settings.get("how", "serve")
        if how == "raise":
            raise RuntimeError("the disk\\nis full")
        if how == "exit":
            return 3
        if how == "segv":
            signal.raise_signal(signal.SIGSEGV)
        if how == "hang":
            time.sleep(1000)
        if how == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, lambda *_: None)
        asked_to_stop, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno())
        ready()
        ready()
        if how == "once":
            time.sleep(0.05)
            return 0
        while True:
            if asked_to_stop in select.select([asked_to_stop, self.listener], [], [])[0]:
                return 0
            try:
                peer, _ = self.listener.accept()
            except BlockingIOError:  # the other worker was faster
                continue
            with peer:
                facts = {"answer": self.settings["answer"], "pid": os.getpid(), "uid": os.getuid(),
                         "notify": "NOTIFY_SOCKET" in os.environ,
                         "status": Path("/proc/self/status").read_text()}
                peer.sendall(json.dumps(facts).encode())

def load():
    settings = read()
    if "problems" in settings:
        raise SettingsError(settings["problems"])
    if "bug" in settings:
        raise KeyError(settings["bug"])
    parts = [Part(settings)]
    if other := settings.get("other_part"):
        parts.append(Part(settings | {"listen": other, "socket": "s2"}))
    return parts

log.configure(SimpleNamespace(level="info", format="json", addresses=False))
for name, value in read().get("constants", {}).items():
    setattr(supervisor, name, value)
sys.exit(supervisor.supervise(load(), load=load if read().get("reload", True) else None,
                              drain_timeout_s=0.2, user=read().get("user")))
'''


class Service:
    """One run of the supervisor; `said` is its log, `told` what systemd heard."""

    def __init__(self, folder: Path, settings: dict[str, Any], env: dict[str, str]) -> None:
        self.folder = folder
        self.log: list[dict[str, Any]] = []
        self.told: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.put(settings)
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o666)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(folder)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")} | env, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def put(self, settings: dict[str, Any]) -> None:
        new = self.folder / "settings.new"
        new.write_text(json.dumps({"answer": "a"} | settings))
        new.rename(self.folder / "settings.json")

    def expect(self, event: str) -> dict[str, Any]:
        """The next log line with that event; those before it are kept in `log`."""
        end = time.monotonic() + PATIENCE_S
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"the log ended without {event}: {self.log}"
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == event:
                return self.log[-1]

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log]

    def hear(self, start: str) -> str:
        """The next datagram to systemd that starts so."""
        self._systemd.settimeout(PATIENCE_S)
        while True:
            self.told.append(self._systemd.recv(4096).decode())
            if self.told[-1].startswith(start):
                return self.told[-1]

    def silent_for(self, start: str, seconds: float) -> bool:
        """Whether systemd hears nothing that starts so in that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._systemd], [], [], left)[0] and self._systemd.recv(4096).decode().startswith(start):
                return False
        return True

    def ask(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.folder / "s"))
            data = b""
            while chunk := client.recv(65536):
                data += chunk
        return dict(json.loads(data))

    def workers(self) -> set[int]:
        """The pids of the children that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_S)
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
                self.log.append(json.loads(line))
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            left = self.workers()
            self.process.kill()
            self.process.wait()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._systemd.close()


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    tmp_path.chmod(0o755)
    running: list[Service] = []

    def begin(*, env: dict[str, str] | None = None, **settings: Any) -> Service:
        running.append(Service(tmp_path, settings, env or {}))
        return running[-1]

    yield begin
    for service in running:
        service.close()


def gone(pid: int) -> bool:
    """Whether a process that is no child of ours has ended, within our patience."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_ready_is_said_once_every_worker_serves_and_sigterm_ends_with_0(start: Start) -> None:
    service = start(workers=3)
    assert service.expect("ready")["parts"] == ["test:3"]
    assert service.hear("READY=1") == "READY=1\nSTATUS=serving test"
    assert len(service.workers()) == 3
    assert service.ask()["answer"] == "a"
    workers = service.workers()
    assert service.stop() == 0
    assert service.hear("STOPPING=1")
    assert service.events()[-2:] == ["stopping", "stopped"]
    assert all(gone(pid) for pid in workers)
    assert not (service.folder / "s").exists()
    assert (service.folder / "closed").exists()


def test_killed_worker_is_replaced_while_connections_wait_unrefused(start: Start) -> None:
    service = start()
    service.expect("ready")
    for _ in range(3):
        victim = service.ask()["pid"]
        os.kill(victim, signal.SIGKILL)
        died = service.expect("worker.died")
        assert (died["signal"], died["pid"], died["served"]) == ("SIGKILL", victim, True)
        assert "out-of-memory" in died["advice"]
        assert service.ask()["pid"] != victim
    assert service.stop() == 0


def test_backoff_grows_while_a_worker_keeps_dying(start: Start) -> None:
    service = start(how="once", constants={"BACKOFF_FIRST_S": 0.1, "BACKOFF_MAX_S": 0.3})
    deaths = [service.expect("worker.died") for _ in range(4)]
    assert [died["restart_in_s"] for died in deaths] == [0.1, 0.2, 0.3, 0.3]
    assert deaths[0]["status"] == 0
    assert service.process.poll() is None  # it has served, so the service goes on


def test_worker_that_never_serves_fails_the_start_with_its_reason(start: Start) -> None:
    service = start(how="raise")
    assert service.wait() == 1
    assert service.events().count("worker.died") == 3
    failed = next(entry for entry in service.log if entry["event"] == "start.failed")
    assert failed["reason"] == r"RuntimeError: the disk\\nis full"  # escaped once for the parent, once for the log
    assert any("exception" in entry for entry in service.log if entry["event"] == "worker.failed")
    assert not any(told.startswith("READY=1") for told in service.told)


@pytest.mark.parametrize(("how", "reason"), [("exit", "status 3"), ("segv", "signal SIGSEGV")])
def test_start_failure_without_words_tells_status_or_signal(how: str, reason: str, start: Start) -> None:
    service = start(how=how)
    assert service.wait() == 1
    assert next(entry for entry in service.log if entry["event"] == "start.failed")["reason"] == reason


def test_worker_that_hangs_at_start_is_killed(start: Start) -> None:
    service = start(how="hang", constants={"START_TIMEOUT_S": 0.1})
    assert service.wait() == 1
    assert service.events().count("worker.late") == 3


def test_sighup_replaces_the_workers_and_no_connection_is_refused_or_cut(start: Start) -> None:
    service = start(workers=2)
    service.expect("ready")
    old = service.workers()
    failures: list[Exception] = []
    answers: set[str] = set()
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            try:
                answers.add(service.ask()["answer"])
            except (OSError, ValueError) as error:
                failures.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    service.put({"answer": "b", "workers": 1})
    service.signal(signal.SIGHUP)
    assert service.expect("reloaded")["parts"] == ["test:1"]
    assert all(gone(pid) for pid in old)
    assert service.ask()["answer"] == "b"
    over.set()
    asking.join()
    assert failures == []
    assert answers <= {"a", "b"}
    service.hear("READY=1")
    assert service.hear("RELOADING=1").startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert service.hear("READY=1")
    assert service.stop() == 0
    assert (service.folder / "closed").read_text() == "b"  # the parts in force are those that are closed


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"problems": ["mailback.toml:3: unknown key", "mailback.toml:9: no number"]},
         ["mailback.toml:3: unknown key", "mailback.toml:9: no number"]),
        ({"bug": "x"}, ["KeyError: 'x'"]),
        ({"how": "raise"}, [r"test: RuntimeError: the disk\\nis full"]),
    ],
)  # fmt: skip
def test_bad_settings_are_all_told_and_the_old_workers_go_on(
    settings: dict[str, Any], problems: list[str], start: Start
) -> None:
    service = start(workers=2)
    service.expect("ready")
    service.hear("READY=1")
    old = service.workers()
    service.put({"answer": "b"} | settings)
    service.signal(signal.SIGHUP)
    assert [service.expect("reload.failed")["problem"] for _ in problems] == problems
    service.hear("RELOADING=1")
    assert "the last reload failed" in service.hear("READY=1")
    assert service.workers() == old
    assert service.ask()["answer"] == "a"
    service.put({"answer": "c"})
    service.signal(signal.SIGHUP)
    service.expect("reloaded")
    assert all(gone(pid) for pid in old)
    assert service.ask()["answer"] == "c"
    assert service.stop() == 0


def test_reload_that_needs_a_new_address_opens_it_or_says_restart(start: Start) -> None:
    service = start()
    service.expect("ready")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service.put({"answer": "b", "listen": [f"127.0.0.1:{taken.getsockname()[1]}"]})
        service.signal(signal.SIGHUP)
        assert "another server holds the port" in service.expect("reload.needs_restart")["problem"]
        service.expect("reload.failed")
        assert service.ask()["answer"] == "a"
    service.signal(signal.SIGHUP)
    service.expect("reloaded")
    service.put({"answer": "c"})
    service.signal(signal.SIGHUP)
    assert len(service.expect("reloaded")["closed"]) == 1
    assert service.stop() == 0


def test_an_address_that_a_reload_gives_up_is_refused_and_can_be_taken_again(start: Start) -> None:
    ports = [free_port(), free_port()]
    service = start(listen=[f"127.0.0.1:{ports[0]}"], workers=2)
    service.expect("ready")
    for now, given_up in ((1, 0), (0, 1)):
        old = service.workers()
        service.put({"answer": "b", "workers": 2, "listen": [f"127.0.0.1:{ports[now]}"]})
        service.signal(signal.SIGHUP)
        assert service.expect("reloaded")["closed"] == [f"127.0.0.1:{ports[given_up]}"]
        assert all(gone(pid) for pid in old)
        socket.create_connection(("127.0.0.1", ports[now]), PATIENCE_S).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[given_up]), PATIENCE_S)
    assert service.stop() == 0


def test_a_worker_holds_the_addresses_of_its_own_part_only(start: Start) -> None:
    ports = [free_port(), free_port()]
    service = start(listen=[f"127.0.0.1:{ports[0]}"], other_part=[f"127.0.0.1:{ports[1]}"])
    service.expect("ready")
    listening = {f"0100007F:{port:04X}": port for port in ports}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    inodes = {row[9]: listening[row[1]] for row in rows if row[1] in listening and row[3] == "0A"}
    held = []
    for pid in service.workers():
        links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        held.append({port for inode, port in inodes.items() if f"socket:[{inode}]" in links})
    assert sorted(held, key=sorted) == sorted([{port} for port in ports], key=sorted)
    assert service.stop() == 0


def test_sighup_without_a_settings_file_changes_nothing(start: Start) -> None:
    service = start(reload=False)
    service.expect("ready")
    service.signal(signal.SIGHUP)
    service.expect("reload.failed")
    assert service.ask()["answer"] == "a"
    assert service.stop() == 0


def test_worker_that_ignores_sigterm_is_killed_after_the_drain_timeout(start: Start) -> None:
    service = start(how="stubborn", constants={"GRACE_S": 0.1})
    service.expect("ready")
    worker = service.ask()["pid"]
    assert service.stop() == 0
    killed = next(entry for entry in service.log if entry["event"] == "worker.killed")
    assert killed["pid"] == worker
    assert gone(worker)


def test_second_ctrl_c_does_not_wait_for_the_drain(start: Start) -> None:
    service = start(how="stubborn", constants={"GRACE_S": 600.0})
    service.expect("ready")
    service.signal(signal.SIGINT)
    service.expect("stopping")
    service.signal(signal.SIGINT)
    assert service.wait() == 0
    assert "worker.killed" in service.events()


def test_workers_do_not_outlive_a_parent_that_was_killed(start: Start) -> None:
    service = start(workers=3)
    service.expect("ready")
    workers = service.workers()
    assert len(workers) == 3
    service.process.kill()
    service.process.wait()
    assert all(gone(pid) for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_process_group_are_the_parents_to_judge(number: signal.Signals, start: Start) -> None:
    service = start()
    service.expect("ready")
    worker = service.ask()["pid"]
    os.kill(worker, number)
    assert service.ask()["pid"] == worker
    assert service.stop() == 0


def test_sigterm_during_a_start_that_hangs_stops_at_once(start: Start) -> None:
    service = start(how="hang")
    wait_for_children(service)
    assert service.stop() == 0
    assert "ready" not in service.events()


def wait_for_children(service: Service) -> None:
    end = time.monotonic() + PATIENCE_S
    while not service.workers() and time.monotonic() < end:
        time.sleep(0.01)


def test_watchdog_is_patted_while_all_workers_live_and_only_then(start: Start) -> None:
    service = start(env={"WATCHDOG_USEC": "100000"}, constants={"BACKOFF_FIRST_S": 600.0, "BACKOFF_MAX_S": 600.0})
    service.expect("ready")
    for _ in range(3):
        service.hear("WATCHDOG=1")
    os.kill(service.ask()["pid"], signal.SIGKILL)
    service.expect("worker.died")
    while not service.silent_for("WATCHDOG=1", 0.3):  # what was sent before the death may still be queued
        assert service.process.poll() is None
    assert service.stop() == 0


def test_workers_know_nothing_of_systemd(start: Start) -> None:
    service = start()
    service.expect("ready")
    assert service.ask()["notify"] is False


@pytest.mark.root
def test_root_is_given_up_before_any_worker_starts(start: Start) -> None:
    nobody = pwd.getpwnam("nobody")
    service = start(user="nobody")
    service.expect("ready")
    assert "root" not in service.events()
    told = service.ask()
    status = dict(line.split(":\t", 1) for line in told["status"].splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert (service.folder / "s").stat().st_uid == nobody.pw_uid
    assert service.process.poll() is None


def test_user_that_cannot_be_taken_on_starts_nothing(start: Start) -> None:
    service = start(user="no-such-user-here")
    assert service.process.wait(PATIENCE_S) != 0
    assert not (service.folder / "s").exists()
