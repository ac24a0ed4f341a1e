"""Look-ups with a million rows, against bare sqlite3 point queries in the same run: suppressions and the journal.

    python bench/lookup.py [--addresses 1000000] [--events 0] [--seconds 2]

The peer is the least that Python can do: one prepared statement, one connection, one thread, `SELECT reason ... WHERE
address_key = ?` on the same file. Ours adds what the peer leaves out: scopes, lifted and ended suppressions, a file
replaced under it, any number of threads, a record instead of a column. The goal is at most three times the peer's time.

What is counted is processor time, so that other work on the machine changes little. Everything is asked in random
order; hits are addresses of the list, misses are not. The database is built in a temporary folder and removed. The row
with threads shows what it costs to ask from several; it has no goal, because its peer is one thread.

With --events 10000000 the same database holds as many events and their lines of the score ledger, of which look-ups
must feel nothing; what a row of each table takes is printed then (some 8 GB of temporary disk, five minutes).

The journal holds as many messages, each to one recipient with 500 octets of text; every tenth bears the one Message-ID
of a mailing list. The peer reads the message's row by the same column, without its recipients. Asked by Message-ID and
recipient, as each bounce does, the peer is the two queries that this takes: whether it went to that recipient.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.address import key
from mailback.effects.senders import Senders
from mailback.engine import Engine
from mailback.outbound.brakes import Brakes
from mailback.outbound.check import Check
from mailback.policy.breaker import ANY, Terms, new, tripped
from mailback.recipient.hosting import Hosting
from mailback.settings import Settings
from mailback.store import Store, SuppressionLookup, Transaction
from mailback.store.codec import ticks
from mailback.store.domains import DomainLookup
from mailback.store.records import MailDomain
from tests.support.facts import SETTINGS
from tests.support.feeding import read

GOAL = 3.0
_BLOCK = 2000
_SCOPES = ("all", "list:weekly.example.org", "stream:marketing")

Ask = Callable[[Sequence[str]], object]


def address(number: int) -> str:
    return f"user{number:07}@d{number % 4999}.example"


def build(path: Path, count: int) -> None:
    """Fill the list behind the store's back: its history and audit are not what is measured."""
    with Store.open(f"sqlite:///{path}") as store:
        store.upgrade()
    since = ticks(datetime(2026, 1, 1, tzinfo=UTC))
    until = ticks(datetime(2100, 1, 1, tzinfo=UTC))

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            who = address(number)
            yield who, who.upper(), "all", since, until if number % 5 == 0 else None

    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO suppression (address_key, address, scope, reason, type, subcategory, source, since, until)"
        " VALUES (?, ?, ?, 'hard_bounce/user_unknown', 'hard_bounce', 'user_unknown', 'event', ?, ?)",
        rows(),
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def build_events(path: Path, count: int, addresses: int) -> None:
    """Fill the events and the ledger behind the store's back: made by the engine once, repeated under other names."""
    end = datetime(2026, 11, 20, tzinfo=UTC)
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        with Store.open(f"sqlite:///{folder}/made.db") as store:
            store.upgrade()
            read(Engine(Settings.loads(SETTINGS), store), store, 2000, 1, end, 0)
        with sqlite3.connect(f"{folder}/made.db") as made:
            cursor = made.execute("SELECT * FROM event")
            names = [column[0] for column in cursor.description]
            events = cursor.fetchall()
            entries = made.execute("SELECT step, day, fact, at, cause, suppress_days, needed, window_days FROM score")
            ledger = {entry[2]: entry for entry in entries.fetchall()}
    place = {name: n for n, name in enumerate(names)}

    def rows() -> Iterator[list[object]]:
        for number in range(count):
            row = list(events[number % len(events)])
            who = address(number % addresses)
            row[place["id"]] = f"01K{number:023}"
            row[place["identity"]] = f"{number:040x}"  # in order: a random one makes the index as large, much later
            row[place["at"]] -= number * 250_000 % 31_536_000_000_000
            row[place["recipient"]] = row[place["recipient_key"]] = who
            row[place["original_message_id"]] = message_id(number)
            yield row

    def lines() -> Iterator[tuple[object, ...]]:
        for person in range(addresses):
            for number in range(person, count, addresses):
                entry = ledger.get(events[number % len(events)][0])
                if entry is not None:
                    step, day, _, *rest = entry
                    yield address(person), step, day, f"01K{number:023}", *rest

    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'event' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.executemany(f"INSERT INTO event VALUES ({','.join('?' * len(names))})", rows())
    connection.executemany("INSERT INTO score VALUES (?,?,?,?,?,?,?,?,?)", lines())
    for _, made_by in indexes:
        connection.execute(made_by)
    connection.commit()
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def show_sizes(path: Path) -> None:
    """What a row of each table takes, as `mailback store size` tells it."""
    print("| table | rows | octets a row, indexes included |\n|---|---:|---:|")
    with Store.open(f"sqlite:///{path}") as store:
        for table in store.sizes():
            if table.rows > 1000:
                print(f"| `{table.name}` | {table.rows:,} | {table.octets_a_row:,.0f} |")
    print()


def rate(asks: Sequence[Ask], keys: Sequence[str], seconds: float) -> list[float]:
    """Microseconds of CPU a question for each of `asks`: the best block of many, in turns, so noise hits all alike."""
    best = [float("inf")] * len(asks)
    end = time.perf_counter() + seconds * len(asks)
    place = 0
    while time.perf_counter() < end:
        block = keys[place : place + _BLOCK] or keys[:_BLOCK]
        place = (place + _BLOCK) % len(keys)
        for n, ask in enumerate(asks):
            started = time.process_time()
            ask(block)
            best[n] = min(best[n], (time.process_time() - started) / len(block) * 1e6)
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--addresses", type=int, default=1_000_000)
    options.add_argument("--events", type=int, default=0, help="events in the database beside the list")
    options.add_argument("--seconds", type=float, default=2.0, help="for each line of the table")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        path = Path(folder, "mailback.db")
        build(path, chosen.addresses)
        beside = ""
        if chosen.events:
            build_events(path, chosen.events, chosen.addresses)
            beside = f" and {chosen.events:,} events"
        size = path.stat().st_size / 1e6
        print(f"## Suppression look-up: {chosen.addresses:,} addresses{beside}, {size:,.0f} MB\n")
        measure(path, chosen.addresses, chosen.seconds)
        if chosen.events:
            show_sizes(path)
            return
    with tempfile.TemporaryDirectory(prefix="mailback-bench-") as folder:
        path = Path(folder, "mailback.db")
        build_journal(path, chosen.addresses)
        print(f"## Journal look-up: {chosen.addresses:,} messages, {path.stat().st_size / 1e6:.0f} MB\n")
        measure_journal(path, chosen.addresses, chosen.seconds)


def measure(path: Path, count: int, seconds: float) -> None:  # noqa: C901 - one closure a way of asking
    numbers = random.Random(1)  # the same questions in every run
    hits = [address(numbers.randrange(count)) for _ in range(50_000)]
    misses = [f"x{who}" for who in hits]

    bare = sqlite3.connect(path, check_same_thread=False)
    execute = bare.execute

    def point_query(keys: Sequence[str]) -> None:
        for who in keys:
            execute("SELECT reason FROM suppression WHERE address_key = ?", (who,)).fetchone()

    with SuppressionLookup(f"sqlite:///{path}") as found, ThreadPoolExecutor(8) as pool:

        def one_scope(keys: Sequence[str]) -> None:
            for who in keys:
                found.lookup(who)

        def three_scopes(keys: Sequence[str]) -> None:
            for who in keys:
                found.lookup(who, _SCOPES)

        def with_key(addresses: Sequence[str]) -> None:
            for who in addresses:
                found.lookup(key(who))

        check = Check(found)

        def whole_check(addresses: Sequence[str]) -> None:
            for who in addresses:
                check.answer(who)

        def eight_threads(keys: Sequence[str]) -> None:
            list(pool.map(one_scope, [keys[n::8] for n in range(8)]))

        calm, stormy = _recipient_checks(path, found)
        assert found.lookup(hits[0]) is not None
        assert found.lookup(misses[0]) is None
        rows = [
            ("not suppressed", misses, one_scope),
            ("not suppressed, three scopes", misses, three_scopes),
            ("the whole check of a recipient, not suppressed", misses, whole_check),
            ("suppressed", hits, one_scope),
            ("suppressed, three scopes", hits, three_scopes),
            ("suppressed, with the key of the address", hits, with_key),
            ("suppressed, eight threads on one list", hits, eight_threads),
            ("recipient check, all providers take our mail", misses, _asked_of(calm)),
            ("recipient check, another provider's breaker is open", misses, _asked_of(stormy)),
        ]
        print("| look-up | bare point query, µs | Mailback, µs | times | goal |")
        print("|---|---:|---:|---:|---|")
        for name, keys, ask in rows:
            peer, ours = rate([point_query, ask], keys, seconds)
            told = f"at most {GOAL:.0f}: {'met' if ours / peer <= GOAL else '**missed**'}"
            goal = "" if ask is eight_threads else told
            print(f"| {name} | {peer:.1f} | {ours:.1f} | {ours / peer:.2f} | {goal} |")
        print()
    bare.close()


def _recipient_checks(path: Path, found: SuppressionLookup) -> tuple[Check, Check]:
    """What a front asks for each recipient: without and with a breaker that stands, all domains being known."""
    now = datetime.now(UTC)
    beside = path.with_name("breakers.db")
    with Store.open(f"sqlite:///{beside}") as store:
        store.upgrade()
        open_now = tripped(new("google", "ip", ANY, now), Terms(longest_s=10**8, pause_s=10**8), "rate", "why", now)
        known = [MailDomain(f"d{number}.example", "mx", ("mx.example",), "hoster.example") for number in range(4999)]

        def fill(transaction: Transaction) -> None:
            transaction.put_breaker(open_now, "bench")
            for domain in known:
                transaction.put_domain(domain)

        store.submit(fill).result()

    def check(database: Path) -> Check:
        hosting = Hosting(DomainLookup(database).find)
        return Check(found, Brakes(database, Senders(), hosting, lambda _: None))

    return check(path), check(beside)


def _asked_of(check: Check) -> Ask:
    def ask(addresses: Sequence[str]) -> None:
        for who in addresses:
            check.answer(who, sender="news@sender.example")

    return ask


def message_id(number: int) -> str:
    return "<weekly@list.example>" if number % 10 == 0 else f"<{number:07}.{number % 9973}@sender.example>"


def return_path(number: int) -> str:
    return f"v1ab{number * 2_654_435_761 % 2**60:012x}{number:032}"


def build_journal(path: Path, count: int) -> None:
    """Fill the journal behind the store's back: a million commits are not what is measured."""
    with Store.open(f"sqlite:///{path}") as store:
        store.upgrade()
    at = ticks(datetime(2026, 11, 1, tzinfo=UTC))
    text = "A line of the message that was sent. " * 14
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO journal (id, at, message_id, envelope_sender, return_path, subject, source, text)"
        " VALUES (?, ?, ?, 'news@sender.example', ?, 'The November issue', 'milter', ?)",
        ((n + 1, at + n, message_id(n), return_path(n), text) for n in range(count)),
    )
    connection.executemany(
        "INSERT INTO journal_recipient (journal_id, at, recipient_key, recipient) VALUES (?, ?, ?, ?)",
        ((n + 1, at + n, address(n), address(n)) for n in range(count)),
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def each(ask: Callable[[str], object]) -> Ask:
    """`ask`, of one after the other."""

    def ask_all(keys: Sequence[str]) -> None:
        for sought in keys:
            ask(sought)

    return ask_all


def measure_journal(path: Path, count: int, seconds: float) -> None:
    numbers = random.Random(1)
    asked = [numbers.randrange(count) for _ in range(50_000)]
    unique = [message_id(n) for n in asked if n % 10]
    both = [f"{message_id(n)} {address(n)}" for n in asked]
    bare = sqlite3.connect(path)
    execute = bare.execute

    def peer_by(column: str) -> Ask:
        query = f"SELECT * FROM journal WHERE {column} = ?"
        return each(lambda sought: execute(query, (sought,)).fetchone())

    def peer_by_both(sought: str) -> None:
        number, _, who = sought.partition(" ")
        rows = execute("SELECT journal_id FROM journal_recipient WHERE recipient_key = ?", (who,)).fetchall()
        for (row,) in rows:
            execute("SELECT * FROM journal WHERE id = ? AND message_id = ?", (row, number)).fetchone()

    with Store.open(f"sqlite:///{path}") as store:

        def by_both(sought: str) -> None:
            number, _, who = sought.partition(" ")
            store.find_journal(message_id=number, key=who)

        by_id = each(lambda sought: store.find_journal(message_id=sought))
        by_path = each(lambda sought: store.find_journal(return_path=sought))
        assert store.find_journal(message_id=unique[0])
        assert len(store.find_journal(message_id=message_id(asked[0]), key=address(asked[0]))) == 1
        rows: list[tuple[str, Sequence[str], Ask, Ask]] = [
            ("by Message-ID, with its recipients", unique, peer_by("message_id"), by_id),
            ("by return path, with its recipients", list(map(return_path, asked)), peer_by("return_path"), by_path),
            ("by Message-ID and recipient", both, each(peer_by_both), each(by_both)),
        ]
        print("| look-up | bare query, µs | Mailback, µs | times | goal |")
        print("|---|---:|---:|---:|---|")
        for name, keys, theirs, ask in rows:
            peer, ours = rate([theirs, ask], keys, seconds)
            told = f"at most {GOAL:.0f}: {'met' if ours / peer <= GOAL else '**missed**'}"
            print(f"| {name} | {peer:.1f} | {ours:.1f} | {ours / peer:.2f} | {told} |")
        print()
    bare.close()


if __name__ == "__main__":
    main()
