"""Group commit: what recording a bounce and suppressing its address costs, and how many a second become durable.

    python bench/commit.py [--seconds 2]

The peer is a bare sqlite3 connection on the same disk that inserts one row and commits with synchronous=FULL, as fast
as one thread can. Ours writes an event, a suppression, its history and an audit row a unit; with 20 threads that each
wait for their own commit the units share the fsyncs.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.bounce.taxonomy import Action, Fault, Kind
from mailback.store import Recorded, Store, Transaction, new_id
from mailback.store.records import Event, Suppression

BUDGET_US = 120
_THREADS = 20
_BURST = 2000

_numbers = count()
_evidence: list[dict[str, object]] = [{"layer": "status", "rule": "5.1.1", "weight": 0.4, "says": "user_unknown"}]


def unit() -> Callable[[Transaction], Recorded]:
    """What the engine submits for one hard bounce to an address not seen before."""
    number = next(_numbers)
    who = f"user{number}@example.org"
    now = datetime.now(UTC)
    event = Event(
        id=new_id(), identity=f"{number:064x}", at=now, kind=Kind.BOUNCE, source="smtpd", recipient=who,
        recipient_key=who, domain="example.org", report_message_id=f"<{number}@mx.example.org>", smtp_code="550",
        original_message_id=f"<{number}@example.com>", status="5.1.1", diagnostic="550 5.1.1 <>: no such user here",
        reporting_mta="mx.example.org", type="hard_bounce", subcategory="user_unknown", fault=Fault.RECIPIENT,
        permanent=True, confidence=0.97, action=Action.SUPPRESS_PERMANENTLY, evidence=_evidence, raw_size=6000,
    )  # fmt: skip

    def work(transaction: Transaction) -> Recorded:
        recorded = transaction.record(event)
        reason = Suppression(
            who, who, "all", "hard_bounce/user_unknown", "hard_bounce", "user_unknown", "event", now, None, event.id
        )
        transaction.suppress(reason, f"event:{event.id}")
        return recorded

    return work


def one_commit_a_row(folder: Path, seconds: float) -> float:
    connection = sqlite3.connect(folder / "peer.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE event (id TEXT PRIMARY KEY, detail TEXT)")
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO event VALUES (?, ?)", (new_id(), "x" * 500))
        connection.execute("COMMIT")
        done += 1
    connection.close()
    return done / seconds


def processor_time(store: Store) -> float:
    """Microseconds of CPU a unit, in batches that are full; the best of five bursts."""
    best = float("inf")
    for _ in range(5):
        units = [unit() for _ in range(_BURST)]
        started = time.process_time()
        for future in [store.submit(work) for work in units]:
            future.result()
        best = min(best, (time.process_time() - started) / _BURST * 1e6)
    return best


def waiting_threads(store: Store, threads: int, seconds: float) -> float:
    """Units a second that became durable, each thread waiting for its own before the next."""
    end = time.perf_counter() + seconds
    done = [0] * threads

    def wait_in_turn(place: int) -> None:
        while time.perf_counter() < end:
            store.submit(unit()).result()
            done[place] += 1

    running = [threading.Thread(target=wait_in_turn, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(done) / seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seconds", type=float, default=2.0, help="for each rate")
    seconds = options.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        peer = one_commit_a_row(Path(folder), seconds)
        with Store.open(f"sqlite:///{folder}/mailback.db") as store:
            store.upgrade()
            cost = processor_time(store)
            one, many = (waiting_threads(store, threads, seconds) for threads in (1, _THREADS))
    print("## Group commit\n")
    print("| what | durable a second | against the bare commit |\n|---|---:|---:|")
    print(f"| bare sqlite3, one row a commit | {peer:,.0f} | 1.00 |")
    print(f"| bounce recorded and suppressed, one thread | {one:,.0f} | {one / peer:.2f} |")
    print(f"| bounce recorded and suppressed, {_THREADS} threads | {many:,.0f} | {many / peer:.2f} |")
    told = "met" if cost <= BUDGET_US else "**missed**"
    print(f"\nCPU of one bounce recorded and suppressed, in a batch: {cost:.0f} µs (goal {BUDGET_US}: {told}).\n")


if __name__ == "__main__":
    main()
