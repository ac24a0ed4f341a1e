"""Events in bulk: how many a second become durable, and whether any order and any crash leads to the same state.

    python bench/events.py [--events 100000] [--orders 2] [--kills 5]

Made-up lives of addresses (`tests/support/facts.py`) go through `Engine.observe` in batches of 500, each with the place
behind it, as a log or a table is read: verdict, event, score, hold, retry advice and audit in one transaction a batch,
synchronous=FULL. The process is kept on one core, and its processor time is counted, all of its threads, so other work
on the machine matters little; the goal is 5,000 events a second. Making the facts is not counted. One event in eight is
a failure: a bad day's mail, as failures cost more than deliveries. They come in the order of their time, as from a log,
and then in no order at all, where each event changes pages all over the file.

Then the same facts in further orders, and once more in a process that is killed at random instants and goes on from its
place; the state of every table (ids and history aside) must be the same each time. With --events 1000000 a run takes
about ten minutes an order.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.engine import Engine
from mailback.settings import Settings
from mailback.store import Store
from tests.support.facts import SETTINGS, digest
from tests.support.feeding import BATCH, read

ROOT = Path(__file__).resolve().parents[1]
GOAL = 5000
SEED = 11


def one_core() -> None:
    """Keep this process and what it starts on one core: two threads on two would take it from each other's hands."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def ordered(path: Path, count: int, end: datetime, order: int) -> float:
    """Events a second of processor time, in one order."""
    with Store.open(f"sqlite:///{path}") as store:
        store.upgrade()
        return count / read(Engine(Settings.loads(SETTINGS), store), store, count, SEED, end, order)


def bare(path: Path, folder: Path) -> float:
    """The peer: the same rows of the event table alone, made beforehand, an INSERT each, a commit every 500."""
    with closing(sqlite3.connect(path)) as made:
        rows = made.execute("SELECT * FROM event").fetchall()
        schema = [sql for (sql,) in made.execute("SELECT sql FROM sqlite_master WHERE tbl_name = 'event' AND sql > ''")]
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as peer:
        peer.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + ";".join(schema))
        marks = f"INSERT INTO event VALUES ({','.join('?' * len(rows[0]))})"
        began = time.process_time()
        for start in range(0, len(rows), BATCH):
            peer.execute("BEGIN IMMEDIATE")
            for row in rows[start : start + BATCH]:
                peer.execute(marks, row)
            peer.execute("COMMIT")
        return len(rows) / (time.process_time() - began)


def killed(path: Path, count: int, end: datetime, kills: int) -> int:
    """Read in a process that is killed again and again; how often it was killed before it had ended."""
    command = [
        sys.executable, "-m", "tests.support.feeding", str(path), str(count), str(SEED), end.isoformat(), "99"
    ]  # fmt: skip
    drawn, done = random.Random(SEED), 0
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            time.sleep(drawn.uniform(0.1, 0.2) * count / 4000)
            done += reader.poll() is None
            reader.kill()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
    return done


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--events", type=int, default=100_000)
    options.add_argument("--orders", type=int, default=2)
    options.add_argument("--kills", type=int, default=5)
    told = options.parse_args()
    one_core()
    end = datetime.now(UTC).replace(microsecond=0)
    rates, paths = [], []
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        for order in range(told.orders):
            path = Path(folder) / f"order{order}.db"
            rates.append(ordered(path, told.events, end, order))
            paths.append(path)
        peer = bare(Path(folder) / "order0.db", Path(folder))
        crashed = Path(folder) / "crashed.db"
        times = killed(crashed, told.events, end, told.kills) if told.kills else 0
        if told.kills:
            paths.append(crashed)
        # As of now, for all: a hold that ran out while they were read was made by the first and is not by the last.
        now = datetime.now(UTC)
        states = [digest(path, now) for path in paths]
    same = all(state == states[0] for state in states)
    print("## Events in bulk\n")
    print("| what | |\n|---|---|")
    for order, rate in enumerate(rates):
        met = "met" if rate >= GOAL else "**missed**"
        which = "in no order" if order else "in the order of their time"
        print(f"| events durable, a second of one core, {which} | {rate:,.0f} (goal {GOAL:,}: {met}) |")
    print(f"| bare sqlite3, the rows of `event` alone, in the order of their time | {peer:,.0f}, "
          f"{peer / rates[0]:.1f} times as many |")  # fmt: skip
    print(f"| {told.events:,} events in {told.orders} orders, and killed {times} times: the same state | "
          f"{'yes' if same else '**no**'} |")  # fmt: skip
    for table, state in states[0].items():
        print(f"| `{table}` | {state} |")
    print()
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
