"""Postfix's log to durable events: lines a minute and events a second, on one core, beside a bare insert of the rows.

    python bench/ingest.py [--messages 20000]

The log has five lines a message (smtpd, cleanup, qmgr, the outcome, removed): seven in ten arrive, the others are
refused or deferred with wordings of many servers. All is counted as processor time of the whole process, the store's
writer with its fsyncs included, so that a busy machine changes nothing. The peer inserts rows of the size of an event
into the same schema, a batch a transaction, with synchronous=FULL, and reads no log.

Two figures have goals: 200,000 lines a minute, and 5,000 events a second in batches with full durability.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.engine import Engine
from mailback.envelope import Source
from mailback.ingest.feed import Feed
from mailback.ingest.log_import import LogReader, read_log
from mailback.ingest.postfix_log import DeliveryLog, Rules
from mailback.observation import Observation
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store

LINES_GOAL = 200_000
EVENTS_GOAL = 5_000
_BATCH = 1000
_MIX = (*[Kind.DELIVERED] * 7, Kind.BOUNCE, Kind.DELAY, Kind.DELAY)
_WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
_BASE_52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_REFUSALS = (
    ("5.1.1", "bounced", "said: 550 5.1.1 <{who}>: Recipient address rejected: User unknown in virtual mailbox table"),
    ("5.1.1", "bounced", "said: 550-5.1.1 The email account that you tried to reach does not exist. {number} - gsmtp"),
    ("5.7.1", "bounced", "said: 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.example"),
    ("4.2.2", "deferred", "said: 452 4.2.2 The email account that you tried to reach is over quota {number}"),
    ("4.7.1", "deferred", "said: 450 4.7.1 <{who}>: Recipient address rejected: Greylisted, see {number}"),
    ("4.7.0", "deferred", "said: 421 4.7.0 [TS01] Messages from 192.0.2.1 temporarily deferred due to complaints"),
)


def log_of(messages: int) -> str:
    """A log as Postfix writes it."""
    chance = random.Random(7)
    lines = []
    for number in range(messages):
        at = (_WHEN + timedelta(milliseconds=20 * number)).strftime("%b %d %H:%M:%S")
        queue_id = "4Y" + "".join(chance.choices(_BASE_52, k=12))
        who = f"user{number}@domain{chance.randrange(500)}.example"
        host = f"mx{number % 50}.example[192.0.2.9]"
        head = f"{at} mx postfix/"
        if chance.random() < 0.7:
            agent, dsn, status = "smtp", "2.0.0", "sent"
            words = f"250 2.0.0 OK  {number} d9443c01a7336-23dcca9si - gsmtp"
        else:
            dsn, status, said = chance.choice(_REFUSALS)
            agent = "smtp"
            words = f"host {host} {said.format(who=who, number=number)} (in reply to RCPT TO command)"
        timing = f"delay=1.{number % 97}, delays=0.1/0.01/0.5/0.3"
        outcome = f"dsn={dsn}, status={status} ({words})"
        lines += [
            f"{head}smtpd[7]: {queue_id}: client=app.example.com[192.0.2.7]\n",
            f"{head}cleanup[8]: {queue_id}: message-id=<{number}.{queue_id}@example.com>\n",
            f"{head}qmgr[9]: {queue_id}: from=<news@example.com>, size=4711, nrcpt=1 (queue active)\n",
            f"{head}{agent}[10]: {queue_id}: to=<{who}>, relay={host}:25, {timing}, {outcome}\n",
            f"{head}qmgr[9]: {queue_id}: removed\n",
        ]
    return "".join(lines)


def reading(path: Path, lines: int) -> tuple[float, float]:
    """(Seconds of CPU to read and follow the lines without any store, seconds with all that belongs to it)."""
    with Store.open(f"sqlite:///{path.parent}/log.db") as store:
        store.upgrade()
        feed = Feed(Engine(Settings(), store))
        reader = LogReader(store, feed, DeliveryLog(Rules()))
        began = time.process_time()
        read_log(reader, store, str(path), zone=UTC)
        feed.finish()
        took = time.process_time() - began
        assert reader.log.tally.lines == lines
        assert sum(feed.new.values()) == lines // 5
    from mailback.ingest import syslog

    bare = DeliveryLog(Rules())
    form = syslog.Lines(syslog.Clock(datetime.now(UTC), UTC))
    began = time.process_time()
    for line in path.read_text().splitlines():
        record = form.record(line)
        if record is not None:
            bare.read(record)
    return time.process_time() - began, took


def observing(folder: Path, count: int) -> float:
    """Seconds of CPU for events that come in batches: of ten, seven deliveries, a refusal for good and two delays."""
    observations = []
    for number in range(count):
        who, kind = f"user{number}@example.org", _MIX[number % 10]
        action = {Kind.DELIVERED: "delivered", Kind.BOUNCE: "failed", Kind.DELAY: "delayed"}[kind]
        status, code = ("2.0.0", "250") if kind is Kind.DELIVERED else ("5.1.1", "550")
        failure = DeliveryFailure(
            who, action=action, status=status, smtp_code=code, diagnostic=f"{code} {status} User {number} told so"
        )
        observations.append(
            Observation(_WHEN, kind, Source.LOG, "bench", failure, f"{number}", f"<{number}@example.com>",
                        Provenance.AUTHENTICATED, "measured")
        )  # fmt: skip
    with Store.open(f"sqlite:///{folder}/events.db") as store:
        store.upgrade()
        engine = Engine(Settings(), store)
        engine.observe(observations[:10]).result()
        began = time.process_time()
        for start in range(10, count, _BATCH):
            engine.observe(observations[start : start + _BATCH]).result()
        return time.process_time() - began


def inserting(folder: Path, count: int) -> float:
    """Seconds of CPU of the peer: rows as large as events, by bare sqlite3."""
    with Store.open(f"sqlite:///{folder}/peer.db") as store:
        store.upgrade()
    source = sqlite3.connect(folder / "events.db")
    rows = source.execute("SELECT * FROM event").fetchall()
    source.close()
    connection = sqlite3.connect(folder / "peer.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    marks = ",".join("?" * len(rows[0]))
    began = time.process_time()
    for start in range(0, len(rows), _BATCH):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO event VALUES ({marks})", rows[start : start + _BATCH])
        connection.execute("COMMIT")
    took = time.process_time() - began
    connection.close()
    return took * count / len(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--messages", type=int, default=20_000, help="in the log; five lines each")
    messages = options.parse_args().messages
    lines = 5 * messages
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        path = Path(folder) / "mail.log"
        path.write_text(log_of(messages))
        bare, whole = reading(path, lines)
        observed = observing(Path(folder), messages)
        inserted = inserting(Path(folder), messages)
    a_minute, a_second = 60 * lines / whole, messages / observed
    print("## Postfix's log and batches of events\n")
    print("On one core, by processor time of the whole process, full durability.\n")
    print("| what | rate | goal | |\n|---|---:|---:|---|")
    print(f"| lines of the log read and followed, nothing stored | {60 * lines / bare:,.0f} a minute | | |")
    met = "met" if a_minute >= LINES_GOAL else "**missed**"
    print(f"| lines of the log to durable events | {a_minute:,.0f} a minute | {LINES_GOAL:,} | {met} |")
    met = "met" if a_second >= EVENTS_GOAL else "**missed**"
    print(
        f"| events judged, decided, recorded, {_BATCH} a batch | {a_second:,.0f} a second | {EVENTS_GOAL:,} | {met} |"
    )
    print(f"| peer: the same rows inserted by bare sqlite3 | {messages / inserted:,.0f} a second | | |")
    print(f"\nAn event costs {observed / messages * 1e6:.0f} µs, {observed / inserted:.1f} times its bare insert.\n")


if __name__ == "__main__":
    main()
