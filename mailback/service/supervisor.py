"""The parent process of `mailback serve`: opens the sockets, forks the workers, keeps them running.

It holds no store, no event loop and no second thread, because it forks. A part (receiver, milter, policy server) says
how many workers it wants; each worker runs `Part.run` until SIGTERM. The parent restarts workers that die, tells
systemd how things stand (sd_notify), and does nothing else.

SIGTERM and SIGINT stop: workers finish what they have acknowledged, exit 0. A second SIGINT does not wait.
SIGHUP reloads: the new settings are loaded and checked here; when they are good, new workers start on the same
sockets, and once all of them serve, the old ones are told to drain. When they are bad, the old ones go on.

Log events, and what to do about each:
`ready`             every worker of every part serves. Nothing.
`reloading`, `reloaded`   SIGHUP was taken; the new settings are in force. Nothing.
`reload.failed`     the settings or the new workers are bad (`problem`, one line each); the old ones go on. Correct
                    them and reload again.
`reload.needs_restart`    an address could not be opened, or not without root (`problem`); the old ones go on. Free the
                    address and reload again, or restart the service.
`root`              the service runs as root. Set service.user, or use the unit that ships.
`worker.died`       a worker ended by itself (`status` or `signal`) and is started again in `restart_in_s`. Once: look
                    for its own last lines. SIGKILL: look for the kernel's out-of-memory killer. Again and again: the
                    reason is in `worker.failed`.
`worker.failed`     a worker ended with an exception, its traceback follows. Report it unless it names its cure.
`fork.failed`       no worker could be started (`problem`); it is tried again. Look at memory, pids and TasksMax.
`worker.late`       a worker did not serve within a minute of its start and is killed. Look at disk and store.
`worker.killed`     a worker did not drain in time. Connections it held were cut; nothing acknowledged is lost.
`start.failed`      a worker ended three times before it served (`reason`); the service exits 1.
`stopping`, `stopped`     SIGTERM was taken; all workers have ended. Nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from mailback.service import notify, privileges, sockets
from mailback.service.log import escape, get_logger

ATTEMPTS: Final = 3
"""Ends before serving, in a row, that make a start or a reload fail."""
START_TIMEOUT_S: Final = 60.0
"""Longest time between fork and `ready()`: a large SQLite file may have a migration or a WAL to work through."""
GRACE_S: Final = 5.0
"""What a worker has beyond the drain timeout to leave by itself before it is killed."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 15.0
"""Kept well below the unit's WatchdogSec, so one failing worker does not take down those that work."""
STEADY_S: Final = 30.0
"""A worker that has served so long starts again with the first back-off when it dies."""

_NEVER: Final = float("inf")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NAME = 15
_READY: Final = b"\x06"  # no text of an error starts with it
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_log = get_logger("supervisor")


class Part(Protocol):
    """One door or server. Its life in the parent is `open`, forks, `close`; in a worker it is `run`."""

    @property
    def name(self) -> str: ...
    @property
    def workers(self) -> int: ...
    def open(self) -> None:
        """In the parent, before any fork: listening sockets, and what is worth sharing."""

    def run(self, ready: Callable[[], None]) -> int:
        """In a worker: serve until SIGTERM; call `ready` once serving; the exit code."""

    def close(self) -> None:
        """In the parent, at the end."""


Loader = Callable[[], Sequence[Part]]
"""Builds the parts from the settings as they are now. Bad settings: raises something with `.problems` (texts)."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A child process."""

    pid: int
    started: float
    pipe: int
    """Read end of its readiness pipe; -1 once closed."""
    late: bool = False
    """Did not serve in time and was killed, though its end may not have been seen yet."""
    said: bytes = b""
    """What came through the pipe: `_READY` when it serves, else the reason why it cannot."""

    @property
    def ready(self) -> bool:
        return self.said.startswith(_READY)


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for one worker: the process that fills it, or when the next one is due."""

    part: Part
    index: int
    addresses: frozenset[str]
    """The keys of the part's listening sockets: all that the worker may hold."""
    worker: _Worker | None = None
    due: float = 0.0
    deaths: int = 0
    """In a row, each before the worker served for `STEADY_S`."""
    unready: int = 0
    """Ends before serving, in a row."""
    reason: str = ""


@dataclass(slots=True, eq=False)
class _Generation:
    """The workers of one state of the settings."""

    parts: tuple[Part, ...]
    slots: list[_Slot] = field(default_factory=list)

    @classmethod
    def opened(cls, parts: Sequence[Part]) -> _Generation:
        """Open the sockets of the parts. Raises `SocketError`."""
        slots = []
        for part in parts:
            sockets.asked()  # a part that failed to open may have left some
            part.open()
            addresses = sockets.asked()
            slots += [_Slot(part, index, addresses) for index in range(max(1, part.workers))]
        return cls(tuple(parts), slots)

    @property
    def serving(self) -> bool:
        return all(slot.worker is not None and slot.worker.ready for slot in self.slots)

    @property
    def failed(self) -> _Slot | None:
        return next((slot for slot in self.slots if slot.unready >= ATTEMPTS), None)


def supervise(
    parts: Sequence[Part],
    *,
    load: Loader | None = None,
    drain_timeout_s: float = 30.0,
    user: str | None = None,
    group: str | None = None,
) -> int:
    """Run the parts until SIGTERM; the exit code of the service.

    `load` builds the parts anew on SIGHUP; without it SIGHUP changes nothing. Workers have `drain_timeout_s` to
    finish. `user` and `group` are taken on once every socket is open.
    Raises `SocketError` and `PrivilegeError` before anything has started.
    """
    running: Sequence[Part] = parts
    try:
        if become := privileges.identity(user, group):
            sockets.own(*become)
        first = _Generation.opened(parts)
        if not privileges.drop(user, group) and privileges.running_as_root():
            _log.warning("root", advice="set service.user, or use the systemd unit that ships")
        gc.collect()
        gc.freeze()  # keeps the pages of what exists now shared with the workers
        supervisor = _Supervisor(first, load, drain_timeout_s)
        try:
            return supervisor.run()
        finally:
            running = supervisor.parts
    finally:
        for part in running:
            part.close()
        sockets.close_all()


class _Supervisor:
    def __init__(self, first: _Generation, load: Loader | None, drain_timeout_s: float) -> None:
        self._current = first
        self._next: _Generation | None = None
        self._load = load
        self._drain_s = drain_timeout_s + GRACE_S
        self._leaving: dict[int, tuple[_Worker, str, float]] = {}
        """Workers told to drain, by pid, with their part's name and the time after which they are killed."""
        self._selector = selectors.DefaultSelector()
        self._started = False
        self._stopping = False
        self._reload_asked = False
        self._exit = 0
        self._watchdog_s = notify.watchdog_interval_s()
        self._watchdog_due = 0.0
        self._parent = os.getpid()

    @property
    def parts(self) -> Sequence[Part]:
        """The parts in force: those of the last good reload."""
        return self._current.parts

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        with self._signals():
            while not (self._stopping and not self._leaving):
                self._step()
        _log.info("stopped")
        return self._exit

    def _step(self) -> None:
        self._start_due()
        for key, _ in self._selector.select(self._wait_s()):
            key.data()
        self._reap()
        self._kill_late()
        self._judge_start()
        self._judge_reload()
        self._pat_watchdog()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become octets on a socket pair that the loop reads; their handlers do nothing themselves."""
        import socket

        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._take_signals(reader.recv(4096)))
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            reader.close()
            writer.close()

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                if self._stopping and number == signal.SIGINT:
                    self._drain_s = 0.0
                    self._leaving = {pid: (worker, name, 0.0) for pid, (worker, name, _) in self._leaving.items()}
                self._stop()
            elif number == signal.SIGHUP:
                self._reload_asked = True

    def _wait_s(self) -> float | None:
        """Seconds until something is due; None when only a signal or a pipe can wake us."""
        due = [deadline for _, _, deadline in self._leaving.values()]
        for slot in self._slots():
            if slot.worker is None:
                due.append(slot.due)
            elif not (slot.worker.ready or slot.worker.late):
                due.append(slot.worker.started + START_TIMEOUT_S)
        if self._watchdog_s is not None:
            due.append(self._watchdog_due)
        first = min(due, default=_NEVER)
        return max(0.0, first - time.monotonic()) if first < _NEVER else None

    def _slots(self) -> list[_Slot]:
        if self._stopping:
            return []
        return self._current.slots + (self._next.slots if self._next else [])

    # -- workers ----------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots():
            if slot.worker is None and slot.due <= now:
                self._fork(slot)

    def _fork(self, slot: _Slot) -> None:
        readable, writable = os.pipe()
        # Between fork and the child's own handlers a signal would write into the parent's socket pair.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._child(slot, readable, writable)
        except OSError as error:
            os.close(readable)
            slot.due = time.monotonic() + BACKOFF_MAX_S
            _log.error("fork.failed", worker=slot.part.name, problem=str(error), retry_in_s=BACKOFF_MAX_S)
            return
        finally:
            os.close(writable)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.set_blocking(readable, False)
        worker = slot.worker = _Worker(pid, time.monotonic(), readable)
        self._selector.register(readable, selectors.EVENT_READ, lambda: self._hear(worker))

    def _hear(self, worker: _Worker) -> None:
        """Read a readiness pipe; its end means the worker has said all it will."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(worker.pipe, 4096):
                worker.said = (worker.said + data)[:4096]
            self._hang_up(worker)

    def _hang_up(self, worker: _Worker) -> None:
        if worker.pipe >= 0:
            self._selector.unregister(worker.pipe)
            os.close(worker.pipe)
            worker.pipe = -1

    def _reap(self) -> None:
        for slot in self._slots():
            if slot.worker is not None and (status := _ended(slot.worker.pid)) is not None:
                self._bury(slot, slot.worker, status)
        for worker, _, _ in list(self._leaving.values()):
            if _ended(worker.pid) is not None:
                self._hang_up(worker)
                del self._leaving[worker.pid]

    def _bury(self, slot: _Slot, worker: _Worker, status: int) -> None:
        """A worker ended by itself: note why, and when to start the next."""
        if worker.pipe >= 0:
            self._hear(worker)
        self._hang_up(worker)
        now = time.monotonic()
        slot.worker = None
        slot.deaths = 1 if worker.ready and now - worker.started >= STEADY_S else slot.deaths + 1
        slot.unready = 0 if worker.ready else slot.unready + 1
        told = _how(status)
        said = worker.said.removeprefix(_READY).decode(errors="replace")
        slot.reason = escape(said) or ", ".join(f"{k} {v}" for k, v in told.items())
        wait = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(slot.deaths - 1, 16))
        slot.due = now + wait
        _log.error(
            "worker.died", worker=slot.part.name, pid=worker.pid, **told, served=worker.ready, deaths=slot.deaths,
            restart_in_s=round(wait, 1), advice=_advice(status),
        )  # fmt: skip

    def _kill_late(self) -> None:
        now = time.monotonic()
        for slot in self._slots():
            worker = slot.worker
            if worker and not (worker.ready or worker.late) and now - worker.started >= START_TIMEOUT_S:
                worker.late = True
                _log.error("worker.late", worker=slot.part.name, pid=worker.pid, after_s=START_TIMEOUT_S)
                os.kill(worker.pid, signal.SIGKILL)
        for pid, (worker, name, deadline) in self._leaving.items():
            if deadline <= now:
                _log.warning("worker.killed", worker=name, pid=pid, drain_timeout_s=round(self._drain_s, 1))
                os.kill(pid, signal.SIGKILL)
                self._leaving[pid] = (worker, name, _NEVER)

    def _dismiss(self, slots: Sequence[_Slot]) -> None:
        """Tell workers to drain; from here on their end is no death."""
        for slot in slots:
            if slot.worker is not None:
                os.kill(slot.worker.pid, signal.SIGTERM)
                self._leaving[slot.worker.pid] = (slot.worker, slot.part.name, time.monotonic() + self._drain_s)
                slot.worker = None

    # -- start, reload, stop ----------------------------------------------------------------------------------

    def _judge_start(self) -> None:
        if self._started or self._stopping:
            return
        if self._current.serving:
            self._started = True
            notify.ready(self._summary())
            _log.info("ready", parts=self._described(), pid=os.getpid())
        elif failed := self._current.failed:
            _log.error("start.failed", worker=failed.part.name, reason=failed.reason, attempts=ATTEMPTS)
            self._exit = 1
            self._stop(f"{failed.part.name}: {failed.reason}")

    def _judge_reload(self) -> None:
        if self._stopping or not self._started:
            return
        if self._next is None:
            if self._reload_asked:
                self._reload_asked = False
                self._begin_reload()
        elif self._next.serving:
            self._end_reload(self._next)
        elif failed := self._next.failed:
            self._dismiss(self._next.slots)
            self._next = None
            self._refuse_reload([f"{failed.part.name}: {failed.reason}"])

    def _begin_reload(self) -> None:
        notify.reloading()
        _log.info("reloading")
        sockets.begin()
        if self._load is None:
            self._refuse_reload(["these settings did not come from a file: restart to change them"])
            return
        try:
            following = _Generation.opened(self._load())
        except sockets.SocketError as error:
            _log.error("reload.needs_restart", problem=str(error))
            self._refuse_reload([str(error)])
        except Exception as error:  # whatever is wrong with the new settings, the old ones go on
            self._refuse_reload(_problems(error))
        else:
            self._next = following

    def _end_reload(self, following: _Generation) -> None:
        self._dismiss(self._current.slots)
        self._current, self._next = following, None
        closed = sockets.close_unwanted()
        notify.ready(self._summary())
        _log.info("reloaded", parts=self._described(), closed=closed)

    def _refuse_reload(self, problems: Sequence[str]) -> None:
        sockets.revert()
        for problem in problems:
            _log.error("reload.failed", problem=problem)
        notify.ready(f"{self._summary()}; the last reload failed: {problems[0] if problems else 'unknown'}")

    def _stop(self, status: str = "") -> None:
        if self._stopping:
            return
        notify.stopping(status)
        _log.info("stopping", drain_timeout_s=self._drain_s)
        slots = self._slots()
        self._stopping = True
        self._dismiss(slots)

    def _described(self) -> list[str]:
        return [f"{part.name}:{max(1, part.workers)}" for part in self._current.parts]

    def _summary(self) -> str:
        return "serving " + ", ".join(part.name for part in self._current.parts)

    def _pat_watchdog(self) -> None:
        """Only while every worker lives: a service that cannot keep its workers up is to be restarted by systemd."""
        if self._watchdog_s is None or time.monotonic() < self._watchdog_due:
            return
        alive = all(slot.worker is not None for slot in self._slots())
        if alive:
            notify.watchdog()
        self._watchdog_due = time.monotonic() + (self._watchdog_s if alive else min(1.0, self._watchdog_s))

    # -- in the child -----------------------------------------------------------------------------------------

    def _child(self, slot: _Slot, readable: int, writable: int) -> NoReturn:
        code = 70  # EX_SOFTWARE of sysexits.h
        readiness = _Readiness(writable)
        try:
            os.close(readable)
            self._become_worker(slot)
            code = slot.part.run(readiness.ready)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException as error:  # the boundary of the process
            readiness.cannot(f"{type(error).__name__}: {error}")
            _log.exception("worker.failed", worker=slot.part.name, problem=str(error))
        finally:
            # Not sys.exit: the parent's frames above us hold `finally` clauses that close its sockets.
            os._exit(code)

    def _become_worker(self, slot: _Slot) -> None:
        libc = ctypes.CDLL(None)
        # Drained rather than killed when the parent is gone: what is being received can still be finished.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        libc.prctl(_PR_SET_NAME, f"mb-{slot.part.name}"[:15].encode(), 0, 0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Ctrl-C and hang-up go to the whole process group; the parent alone decides what they mean.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if os.getppid() != self._parent:  # the parent died before prctl could say so
            os._exit(0)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
        self._selector.close()
        sockets.keep_only(slot.addresses)
        notify.forget()


class _Readiness:
    """A worker's end of its pipe: one word, then closed. A number used after that could be another file's."""

    def __init__(self, writable: int) -> None:
        self._writable = writable

    def ready(self) -> None:
        """The worker serves; the second call does nothing."""
        self._say(_READY)

    def cannot(self, reason: str) -> None:
        """The worker ends before it served."""
        self._say(reason.encode(errors="backslashreplace")[:2000])

    def _say(self, word: bytes) -> None:
        descriptor, self._writable = self._writable, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(descriptor, word)
            os.close(descriptor)


def _ended(pid: int) -> int | None:
    """The wait status of a child that has ended; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return status if found else None


def _how(status: int) -> dict[str, object]:
    if os.WIFSIGNALED(status):
        return {"signal": signal.Signals(os.WTERMSIG(status)).name}
    return {"status": os.waitstatus_to_exitcode(status)}


def _advice(status: int) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "somebody or the out-of-memory killer ended it: see the kernel's log"
    if os.WIFSIGNALED(status):
        return "a crash in native code, unless somebody sent the signal: report it with its core dump"
    return "its own last log lines say why"


def _problems(error: Exception) -> list[str]:
    """What is wrong with settings or rules, one text each; an unforeseen exception is one problem."""
    told = getattr(error, "problems", None)
    if told:
        return [str(problem) for problem in told]
    return [f"{type(error).__name__}: {error}"]
