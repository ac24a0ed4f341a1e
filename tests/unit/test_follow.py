"""Following a log: no line is lost or counted twice across rotations, restarts, outages of the store."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from mailback.engine import Engine
from mailback.ingest.feed import Feed
from mailback.ingest.follow import FileFollower, JournalFollower
from mailback.ingest.log_import import LogReader, read_log
from mailback.ingest.part import follow
from mailback.ingest.postfix_log import DeliveryLog, Rules
from mailback.settings import Settings
from mailback.store import Store
from tests.support import journald
from tests.support.server import wait_for


def line(number: int) -> str:
    """A delivery to recipient `number`."""
    return (
        f"Nov 25 10:00:{number % 60:02d} mx postfix/smtp[7]: 4YxK{number:06d}zQz: to=<r{number}@b.example>, "
        f"relay=mx.b.example[192.0.2.9]:25, delay=1.{number}, delays=0/0/0/1, dsn=2.0.0, status=sent (250 Ok)\n"
    )


class Following:
    """A log, its follower, and whom events tell of."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.path = folder / "mail.log"
        self.store = store
        self._follower: FileFollower | None = None

    def write(self, *numbers: int) -> None:
        with self.path.open("a") as file:
            file.writelines(map(line, numbers))

    def poll(self) -> None:
        if self._follower is None:
            self._feed = Feed(Engine(Settings(), self.store))
            reader = LogReader(self.store, self._feed, DeliveryLog(Rules()))
            self._follower = FileFollower(self.path, self.store, reader, UTC)
        for _ in range(3):
            self._follower.poll()
        self._feed.finish()

    def restart(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None

    def told(self) -> list[int]:
        return sorted(int((event.recipient or "r0@").partition("@")[0][1:]) for event in self.store.events())

    def read_twice(self) -> int:
        return sum(self._feed.told.values()) - sum(self._feed.new.values())


@pytest.fixture
def log(tmp_path: Path, store: Store) -> Iterator[Following]:
    folder = tmp_path / "log"
    folder.mkdir()
    following = Following(folder, store)
    yield following
    following.restart()


def test_lines_that_come_are_read_once(log: Following) -> None:
    log.write(1, 2)
    log.poll()
    log.write(3)
    log.poll()
    log.poll()
    assert log.told() == [1, 2, 3]
    assert log.read_twice() == 0


def test_half_a_line_waits_for_its_other_half(log: Following) -> None:
    log.write(1)
    whole = line(2)
    with log.path.open("a") as file:
        file.write(whole[:70])
    log.poll()
    with log.path.open("a") as file:
        file.write(whole[70:])
    log.poll()
    assert log.told() == [1, 2]


def test_a_renamed_log_is_read_to_its_end_while_its_writer_still_holds_it(log: Following) -> None:
    log.write(1)
    log.poll()
    writer = log.path.open("a")
    log.path.rename(log.path.with_name("mail.log.1"))
    log.poll()
    writer.write(line(2))
    writer.flush()
    log.write(3)
    log.poll()
    writer.write(line(4))
    writer.close()
    log.poll()
    assert log.told() == [1, 2, 3, 4]
    assert log.read_twice() == 0


def test_a_log_that_was_copied_and_truncated_loses_nothing(log: Following) -> None:
    log.write(1)
    log.poll()
    log.write(2)
    shutil.copy2(log.path, log.path.with_name("mail.log.1"))
    os.truncate(log.path, 0)
    log.write(3)
    log.poll()
    assert log.told() == [1, 2, 3]
    assert log.read_twice() == 0


def test_a_truncated_log_that_has_grown_past_the_old_place_is_noticed(log: Following) -> None:
    log.write(1)
    log.poll()
    os.truncate(log.path, 0)
    log.write(5, 6, 7)
    log.poll()
    assert log.told() == [1, 5, 6, 7]


def test_a_restart_goes_on_where_it_ended(log: Following) -> None:
    log.write(1, 2)
    log.poll()
    log.restart()
    log.write(3)
    log.poll()
    assert log.told() == [1, 2, 3]
    assert log.read_twice() == 0


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_what_was_rotated_and_packed_while_nobody_followed_is_read_in_order(
    log: Following, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    log.write(1)
    log.poll()
    log.restart()
    log.write(2)
    content = log.path.read_bytes()
    log.path.with_name(f"mail.log.2{suffix}").write_bytes(pack(content))
    os.utime(log.path.with_name(f"mail.log.2{suffix}"), (1000, 1000))
    log.path.unlink()
    log.write(3)
    log.path.rename(log.path.with_name("mail.log.1"))
    os.utime(log.path.with_name("mail.log.1"), (2000, 2000))
    log.path.with_name("mail.log.3.gz").write_bytes(gzip.compress(line(99).encode()))
    os.utime(log.path.with_name("mail.log.3.gz"), (500, 500))
    log.write(4)
    log.poll()
    assert log.told() == [1, 2, 3, 4], "and not the one from before following began"
    assert log.read_twice() == 0


def test_a_gap_is_told(log: Following, capfd: pytest.CaptureFixture[str]) -> None:
    log.write(1)
    log.poll()
    log.restart()
    log.path.unlink()
    log.write(2)
    log.poll()
    assert log.told() == [1, 2]
    assert "follow.gap" in capfd.readouterr().err


def test_a_log_that_is_not_there_yet_is_told_once_and_read_when_it_comes(
    log: Following, capfd: pytest.CaptureFixture[str]
) -> None:
    log.poll()
    log.poll()
    assert capfd.readouterr().err.count("follow.missing") == 1
    log.write(1)
    log.poll()
    assert log.told() == [1]


def test_what_was_ingested_is_not_read_again_by_following(log: Following) -> None:
    log.write(1, 2)
    feed = Feed(Engine(Settings(), log.store))
    read_log(LogReader(log.store, feed, DeliveryLog(Rules())), log.store, str(log.path), zone=UTC)
    feed.finish()
    log.write(3)
    log.poll()
    assert log.told() == [1, 2, 3]
    assert log.read_twice() == 0


def test_a_store_that_fails_loses_no_line(log: Following, tmp_path: Path) -> None:
    """The database goes read-only for a while: the follower gives up, and a new one reads the same lines."""
    from mailback.store import StoreUnavailable

    log.write(1)
    log.poll()
    (tmp_path / "mailback.db").rename(tmp_path / "away.db")
    log.write(2)
    with pytest.raises(StoreUnavailable):
        log.poll()
    (tmp_path / "away.db").rename(tmp_path / "mailback.db")
    log.restart()
    log.poll()
    assert log.told() == [1, 2]


def test_several_logs_are_followed_until_the_end(log: Following, tmp_path: Path) -> None:
    other = tmp_path / "log" / "other"
    other.write_text(line(7))
    log.write(1)
    settings = Settings.loads(f'follow.files = ["{log.path}", "{other}"]\nfollow.timezone = "UTC"')
    stop = threading.Event()
    thread = threading.Thread(
        target=follow, args=(settings, log.store, Engine(settings, log.store), stop, lambda: None)
    )
    thread.start()
    try:
        wait_for(lambda: log.told() == [1, 7])
        log.write(2)
        wait_for(lambda: log.told() == [1, 2, 7])
    finally:
        stop.set()
        thread.join()


JOURNALCTL = """#!{python}
import json, sys, time
after = next((a.partition("=")[2] for a in sys.argv if a.startswith("--after-cursor=")), "")
assert "SYSLOG_FACILITY=2" in sys.argv and "--output=json" in sys.argv, sys.argv
entries = [json.loads(line) for line in open({entries!r})]
known = [entry["__CURSOR"] for entry in entries]
for entry in entries[known.index(after) + 1 if after else 0:]:
    print(json.dumps(entry), flush=True)
if {stays}:
    time.sleep(60)
sys.exit("the journal was closed")
"""


def journal_of(log: Following, command: list[str]) -> tuple[JournalFollower, Feed]:
    feed = Feed(Engine(Settings(), log.store))
    reader = LogReader(log.store, feed, DeliveryLog(Rules()))
    return JournalFollower(["SYSLOG_FACILITY=2"], log.store, reader, command), feed


@pytest.mark.skipif(journald.unavailable() is not None, reason=str(journald.unavailable()))
def test_the_journal_of_systemd_is_followed_and_read_on_behind_its_cursor(log: Following) -> None:
    with journald.running() as journal:

        def write(*numbers: int) -> None:
            for number in numbers:
                journal.write("postfix/smtp", line(number).partition("]: ")[2].rstrip())

        def read_until(numbers: list[int]) -> None:
            follower, feed = journal_of(log, journal.reader)

            def done() -> bool:
                follower.poll()
                feed.finish()
                return log.told() == numbers

            wait_for(done, what=str(numbers))
            follower.close()
            assert sum(feed.told.values()) == sum(feed.new.values()), "nothing is read twice"

        write(1, 2)
        journal.write("dovecot", "imap-login: Login: user=<someone>")
        read_until([1, 2])
        write(3)
        read_until([1, 2, 3])


def test_a_journalctl_that_ends_is_started_again_and_nothing_is_read_twice(log: Following, tmp_path: Path) -> None:
    import sys

    entries, program = tmp_path / "entries", tmp_path / "journalctl"

    def add(*numbers: int) -> None:
        with entries.open("a") as file:
            for number in numbers:
                said = line(number).partition("]: ")[2].rstrip("\n")
                entry = {
                    "__CURSOR": f"s={number}", "__REALTIME_TIMESTAMP": "1795600801250000", "_HOSTNAME": "mx",
                    "SYSLOG_IDENTIFIER": "postfix/smtp", "MESSAGE": said,
                }  # fmt: skip
                file.write(json.dumps(entry) + "\n")

    def run(*, stays: bool, until: Callable[[], bool]) -> None:
        program.write_text(JOURNALCTL.format(python=sys.executable, entries=str(entries), stays=stays))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        follower, feed = journal_of(log, [str(program)])

        def done() -> bool:
            follower.poll()
            feed.finish()
            return until()

        wait_for(done)
        follower.close()
        assert sum(feed.told.values()) == sum(feed.new.values()), "nothing is read twice"

    add(1, 2)
    run(stays=True, until=lambda: log.told() == [1, 2])
    add(3)
    run(stays=False, until=lambda: log.told() == [1, 2, 3])
