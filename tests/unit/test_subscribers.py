"""Subscribers: who is in, who is out and by what, and that a bounce never touches who is out by own word."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from mailback.cli.main import run
from mailback.effects.scoring import Scoring
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import ScoreEntry, Step, Subscriber, Suppression
from tests.support.engines import engine_of
from tests.support.mail import dsn

NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
WHO = "ada@receiver.test"
_numbers = count()


@pytest.fixture
def engine(store: Store) -> Engine:
    return engine_of(Settings(), store)


def bounce(engine: Engine, days_ago: float, *, hard: bool = False, delivered: bool = False, who: str = WHO) -> None:
    envelope = Envelope(recipients=("b@s.test",), source=Source.SMTPD, received_at=NOW - days_ago * DAY)
    message_id = f"<{next(_numbers)}@s.test>"
    if delivered:
        raw = dsn(who, message_id=message_id, action="delivered", status="2.0.0", diagnostic="250 2.0.0 OK")
    elif hard:
        raw = dsn(who, message_id=message_id)
    else:
        raw = dsn(who, message_id=message_id, status="5.2.2", diagnostic="552 5.2.2 Mailbox full")
    engine.inbound(envelope, raw)


def tell(store: Store, **facts: object) -> bool:
    person = Subscriber(WHO, "", WHO, **facts)  # type: ignore[arg-type]
    return store.submit(lambda tx: Scoring.of(Settings()).opted_in(tx, person, actor="ada", reason="test")).result()


def state(store: Store, who: str = WHO) -> Subscriber:
    [found] = store.subscriptions(who)[0]
    return found


# ---- what bounces do ------------------------------------------------------------------------------------------------


def test_a_hard_status_opts_an_active_subscriber_out_with_the_date(engine: Engine, store: Store) -> None:
    tell(store, opt_in_at=NOW - 90 * DAY, source="fair")
    for days in (4, 3):
        bounce(engine, days)
    assert (state(store).status, state(store).bounce_status, state(store).bounce_count) == ("in", "soft", 2)
    bounce(engine, 2)
    found = state(store)
    assert (found.status, found.out_by, found.bounce_status) == ("out", "bounce", "hard")
    assert found.opt_out_at == NOW - 2 * DAY
    assert [change.bounce_count for change in store.subscriptions(WHO)[1]] == [0, 1, 2, 3]


def test_a_permanent_failure_opts_out_at_once(engine: Engine, store: Store) -> None:
    tell(store)
    bounce(engine, 2, hard=True)
    assert (state(store).status, state(store).bounce_status, state(store).opt_out_at) == ("out", "hard", NOW - 2 * DAY)


def test_one_already_out_is_never_touched_by_a_bounce(engine: Engine, store: Store) -> None:
    tell(store, opt_in_at=NOW - 90 * DAY, own_out_at=NOW - 9 * DAY, own_out_by="import")
    before, history = state(store), store.subscriptions(WHO)[1]
    for days in (20, 4, 3, 2):
        bounce(engine, days)
    bounce(engine, 1, hard=True)
    assert (state(store), store.subscriptions(WHO)[1]) == (before, history)


def test_bounces_from_before_the_import_count(engine: Engine, store: Store) -> None:
    for days in (4, 3, 2):
        bounce(engine, days)
    tell(store, opt_in_at=NOW - 90 * DAY)
    assert (state(store).status, state(store).opt_out_at) == ("out", NOW - 2 * DAY)


def test_proof_of_life_brings_back_who_is_out_by_bounces(engine: Engine, store: Store) -> None:
    tell(store)
    for days in (4, 3, 2):
        bounce(engine, days)
    bounce(engine, 1, delivered=True)
    assert (state(store).status, state(store).bounce_status, state(store).opt_out_at) == ("in", "none", None)


@pytest.mark.parametrize("hard", [True, False])
def test_lifting_the_suppression_brings_back_who_is_out_by_bounces(engine: Engine, store: Store, hard: bool) -> None:
    tell(store)
    for days in (4, 3, 2):
        bounce(engine, days, hard=hard)
    store.submit(lambda transaction: transaction.lift(WHO, None, actor="ada", reason="called")).result()
    assert (state(store).status, state(store).bounce_status) == ("in", "none")


def test_a_wave_that_is_undone_brings_them_back(engine: Engine, store: Store) -> None:
    tell(store)
    bounce(engine, 2, hard=True)
    event = next(store.events())
    store.submit(lambda tx: tx.take_back(event.id, WHO, actor="ada", reason="server was broken")).result()
    assert (state(store).status, state(store).bounce_status) == ("in", "none")


def test_a_complaint_opts_out_and_the_next_bounce_says_nothing(engine: Engine, store: Store) -> None:
    tell(store, opt_in_at=NOW - 90 * DAY)
    said = Suppression(
        WHO, WHO, "all", "complaint/spam_complaint", "complaint", "spam_complaint", "event", NOW - 3 * DAY, None
    )
    store.submit(lambda transaction: transaction.suppress(said, "event:x")).result()
    bounce(engine, 1)
    found = state(store)
    assert (found.status, found.out_by, found.opt_out_at) == ("out", "spam_complaint", NOW - 3 * DAY)
    assert found.bounce_status == "none"


@pytest.mark.parametrize("first", ["complaint", "import"])
def test_a_complaint_stands_whether_it_was_told_before_or_after_an_import(store: Store, first: str) -> None:
    """Also one from before the opt-in that the file tells: a file lets nobody in again."""
    said = Suppression(
        WHO, WHO, "all", "complaint/spam_complaint", "complaint", "spam_complaint", "event", NOW - 30 * DAY, None
    )
    if first == "import":
        tell(store, opt_in_at=NOW - 9 * DAY)
    store.submit(lambda transaction: transaction.suppress(said, "event:x")).result()
    if first == "complaint":
        tell(store, opt_in_at=NOW - 9 * DAY)
    found = state(store)
    assert (found.status, found.out_by, found.opt_out_at) == ("out", "spam_complaint", NOW - 9 * DAY)


def test_an_unsubscribe_of_one_list_leaves_the_other_alone(store: Store) -> None:
    for list_id in ("news", "offers"):
        person = Subscriber(WHO, list_id, WHO, opt_in_at=NOW - 90 * DAY)
        store.submit(lambda tx, one=person: tx.subscribers.put(one, actor="ada", reason="test")).result()  # type: ignore[misc]
    said = Suppression(WHO, WHO, "list:news", "asked", "complaint", "unsubscribe_request", "event", NOW - DAY, None)
    store.submit(lambda transaction: transaction.suppress(said, "event:x")).result()
    assert {one.list_id: one.status for one in store.subscriptions(WHO)[0]} == {"news": "out", "offers": "in"}


def test_a_soft_status_decays(engine: Engine, store: Store) -> None:
    tell(store)
    bounce(engine, 3)
    found = state(store)
    assert found.bounce_status_at(NOW) == "soft"
    assert found.bounce_status_at(NOW + 6 * DAY) == "none"
    assert store.submit(lambda transaction: transaction.subscribers.decay(NOW + 6 * DAY)).result() == 1
    assert state(store).bounce_status == "none"


# ---- any order ------------------------------------------------------------------------------------------------------

_FACTS = st.lists(
    st.tuples(st.sampled_from(["in", "out", "full", "full", "full", "hard", "delivered"]), st.integers(1, 24 * 20)),
    min_size=1,
    max_size=10,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('subscribers')}/mailback.db") as opened:
        opened.upgrade()
        yield opened


def after(store: Store, facts: list[tuple[str, int]]) -> object:
    """How a subscriber stands after these facts, in this order."""
    who = f"user{next(_numbers)}@receiver.test"
    engine = engine_of(Settings.loads("[policy]\nwave_minimum = 0\nunproven_per_hour = 0"), store)
    scoring = Scoring.of(Settings())
    first = Subscriber(who, "", who, opt_in_at=NOW - 90 * DAY)
    store.submit(lambda tx: scoring.opted_in(tx, first, actor="x", reason="x")).result()
    for what, hours in facts:
        at = NOW - timedelta(hours=hours)
        if what in ("in", "out"):
            dates = {"opt_in_at": at} if what == "in" else {"own_out_at": at, "own_out_by": "import"}
            told = Subscriber(who, "", who, **dates)
            store.submit(
                lambda tx, one=told, anew=what == "in": scoring.opted_in(tx, one, actor="x", reason="x", anew=anew)  # type: ignore[misc]
            ).result()
        else:
            bounce(engine, hours / 24, hard=what == "hard", delivered=what == "delivered", who=who)
    found = state(store, who)
    return (
        found.status, found.opt_in_at, found.opt_out_at, found.out_by, found.bounce_status, found.bounce_count,
        found.bounce_until,
    )  # fmt: skip


@settings(
    deadline=None, max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(facts=_FACTS, data=st.data())
def test_no_order_changes_how_a_subscriber_stands(
    shared: Store, facts: list[tuple[str, int]], data: st.DataObject
) -> None:
    assert after(shared, data.draw(st.permutations(facts))) == after(shared, facts)


# ---- a nightly SQL statement, reproduced ----------------------------------------------------------------------------

SUBSCRIBERS = """user_id,mailing_list_status,opt_in_date,opt_out_date,source
101,I,2023-01-03,-,LinkedIn
102,I,2023-01-07,-,Medium
103,I,2023-01-03,-,Twitter
104,O,2023-01-29,2023-01-30,Twitter
"""
DELIVERIES = """date,user_id,delivered(Y/N)
1/1,101,Y
1/1,102,Y
1/1,103,N
1/15,101,N
1/15,103,N
2/1,101,N
2/1,102,N
2/1,103,N
"""
_MERGE = """
INSERT INTO bounce_score (user_id, bounce_count) SELECT user_id, 1 FROM delivery WHERE date = ? AND delivered = 'N'
ON CONFLICT (user_id) DO UPDATE SET bounce_count = bounce_count + 1
"""
_LABEL = """
UPDATE subscriber_feed SET
  bounce_status = CASE WHEN s.bounce_count >= 3 THEN 'hard bounce' ELSE 'soft bounce' END,
  opt_out_date = CASE WHEN s.bounce_count >= 3 THEN ? ELSE opt_out_date END,
  status = CASE WHEN s.bounce_count >= 3 THEN 'O' ELSE status END
FROM bounce_score AS s WHERE s.user_id = subscriber_feed.user_id AND subscriber_feed.status = 'I'
"""


def by_sql(people: list[dict[str, str]], rows: list[tuple[str, str, str]]) -> dict[str, tuple[str, ...]]:
    """What a plain count of bounces, run each night, makes of the same tables."""
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE subscriber_feed (user_id PRIMARY KEY, status, opt_out_date, bounce_status)")
        db.execute("CREATE TABLE delivery (date, user_id, delivered)")
        db.execute("CREATE TABLE bounce_score (user_id PRIMARY KEY, bounce_count)")
        for one in people:
            told = (one["user_id"], one["mailing_list_status"], one["opt_out_date"])
            db.execute("INSERT INTO subscriber_feed VALUES (?, ?, ?, '-')", told)
        db.executemany("INSERT INTO delivery VALUES (?, ?, ?)", rows)
        for date in sorted({row[0] for row in rows}):
            db.execute(_MERGE, (date,))
            db.execute(_LABEL, (date,))
        found = db.execute("SELECT user_id, status, opt_out_date, bounce_status FROM subscriber_feed").fetchall()
    return {user: tuple(told) for user, *told in found}


def by_mailback(
    tmp_path: Path, people: str, deliveries: str, capsys: pytest.CaptureFixture[str]
) -> dict[str, tuple[str, ...]]:
    config = tmp_path / "plain.toml"
    config.write_text(
        f"[store]\nurl = 'sqlite:///{tmp_path}/plain{next(_numbers)}.db'\n"
        "[score]\nwindow_days = 3650\ndelivery_resets = false\n"
    )
    (tmp_path / "people.csv").write_text(people)
    (tmp_path / "deliveries.csv").write_text(deliveries)
    told = ["--config", str(config)]
    assert run(["subscriber", "import", str(tmp_path / "people.csv"), *told]) == 0
    assert run(["ingest", "csv", "--deliveries", "--year", "2023", str(tmp_path / "deliveries.csv"), *told]) == 0
    capsys.readouterr()
    words = ["in=I", "out=O", "none=-", "never=-", "soft=soft bounce", "hard=hard bounce"]
    columns = "id=user_id,status,opt_out_date,bounce_status"
    assert (
        run(["subscriber", "export", "--columns", columns, *[w for one in words for w in ("--word", one)], *told]) == 0
    )
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {row["user_id"]: (row["status"], row["opt_out_date"], row["bounce_status"]) for row in rows}


def test_a_daily_table_of_deliveries_gives_the_tables_that_plain_sql_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = by_mailback(tmp_path, SUBSCRIBERS, DELIVERIES, capsys)
    assert found == {
        "101": ("I", "-", "soft bounce"),
        "102": ("I", "-", "soft bounce"),
        "103": ("O", "2023-02-01", "hard bounce"),
        "104": ("O", "2023-01-30", "-"),
    }
    people = list(csv.DictReader(io.StringIO(SUBSCRIBERS)))
    iso = [
        (f"2023-{int(month):02}-{int(day):02}", user, told)
        for date, user, told in csv.reader(DELIVERIES.splitlines()[1:])
        for month, day in [date.split("/")]
    ]
    assert found == by_sql(people, iso)


_HELD_TWICE = {(1, day): "N" for day in (3, 7, 12, 19, 25, 28)}
"""Bounces enough for a second hold: who is out by the first stays out with its date."""


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(_HELD_TWICE)
@given(st.dictionaries(st.tuples(st.integers(1, 5), st.integers(1, 28)), st.sampled_from("YNN"), min_size=1))
def test_any_daily_table_gives_what_plain_sql_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: dict[tuple[int, int], str]
) -> None:
    people = [
        {"user_id": str(user), "mailing_list_status": "O" if user == 5 else "I", "opt_in_date": "2022-12-01",
         "opt_out_date": "2022-12-24" if user == 5 else "-", "source": "fair"}
        for user in range(1, 6)
    ]  # fmt: skip
    rows = [(f"2023-02-{day:02}", str(user), told) for (user, day), told in cells.items()]
    written = io.StringIO()
    writer = csv.DictWriter(written, list(people[0]))
    writer.writeheader()
    writer.writerows(people)
    deliveries = "\n".join(["date,user_id,delivered", *map(",".join, rows)]) + "\n"
    assert by_mailback(tmp_path, written.getvalue(), deliveries, capsys) == by_sql(people, rows)


def test_the_same_table_under_the_defaults_forgets_what_is_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: list[str]
) -> None:
    (tmp_path / "people.csv").write_text(SUBSCRIBERS)
    (tmp_path / "deliveries.csv").write_text(DELIVERIES)
    assert run(["subscriber", "import", str(tmp_path / "people.csv"), *config]) == 0
    assert run(["ingest", "csv", "--deliveries", "--year", "2023", str(tmp_path / "deliveries.csv"), *config]) == 0
    capsys.readouterr()
    assert run(["subscriber", "list", "--status", "in", "--bounces", "none", "--json", *config]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["101", "102", "103"]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_an_import_may_be_repeated_and_an_old_one_takes_nothing_back(
    store: Store, tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(f"Email;Status;Opt-in date\n{WHO};active;2026-01-03\nbob@receiver.test;;2026-01-04\n")
    assert run(["subscriber", "import", str(file), *config]) == 0
    assert "2 added or changed, 0 known" in capsys.readouterr().out
    assert run(["subscriber", "import", str(file), *config]) == 0
    assert "0 added or changed, 2 known" in capsys.readouterr().out
    assert run(["subscriber", "opt-out", "--reason", "wrote to us", WHO, *config]) == 0
    assert run(["subscriber", "import", str(file), *config]) == 0
    assert state(store).status == "out"
    newer = tmp_path / "newer.csv"
    newer.write_text(f"email,status,opt_in\n{WHO},active,2099-01-01\n")
    assert run(["subscriber", "import", str(newer), *config]) == 0
    assert state(store).status == "out", "a file does not let in who told us not to be"
    assert store.lookup(WHO) is not None


def test_a_new_opt_in_ends_what_the_person_had_said(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["subscriber", "opt-out", "--reason", "asked", "--at", "5d", WHO, *config]) == 0
    assert store.lookup(WHO) is not None
    for days in (4, 3):
        bounce(engine, days)
    assert run(["subscriber", "opt-in", "--reason", "signed up at the fair", WHO, *config]) == 0
    found = state(store)
    assert (found.status, found.bounce_status) == ("in", "none")
    assert store.lookup(WHO) is None
    assert ScoreEntry(WHO, Step.ALIVE, found.opt_in_at, "opt_in", "opt_in") in store.explain(WHO).score  # type: ignore[arg-type]
    capsys.readouterr()
    assert run(["subscriber", "show", "--json", WHO, *config]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [change["status"] for change in told["changes"]] == ["out", "in"]
    assert run(["subscriber", "show", "nobody@receiver.test", *config]) == 1


@pytest.mark.parametrize(("scope", "status"), [("all", "in"), ("list:other", "out")])
def test_lifting_an_own_word_for_a_new_opt_in_lets_the_person_in_again(
    engine: Engine, store: Store, config: list[str], scope: str, status: str
) -> None:
    tell(store, opt_in_at=NOW - 90 * DAY)
    for where in {"all", scope}:
        said = Suppression(
            WHO, WHO, where, "complaint/spam_complaint", "complaint", "spam_complaint", "event", NOW - 3 * DAY, None
        )
        store.submit(lambda transaction, said=said: transaction.suppress(said, "event:x")).result()  # type: ignore[misc]
    assert state(store).status == "out"
    lift = ["suppress", "remove", "--opt-in", "--reason", "signed up again", "--scope", scope, WHO, *config]
    assert run(lift) == 0
    assert state(store).status == status


def test_a_new_opt_in_ends_what_bounces_had_come_to_and_tells_of_what_others_hold_back(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["subscriber", "opt-in", "--reason", "form", "--at", "9d", WHO, *config]) == 0
    bounce(engine, 5, hard=True)
    assert store.lookup(WHO) is not None
    assert state(store).status == "out"
    assert run(["subscriber", "opt-in", "--reason", "form", WHO, *config]) == 0
    assert store.lookup(WHO) is None
    assert (state(store).status, state(store).bounce_status) == ("in", "none")
    assert run(["suppress", "add", "--reason", "legal hold", "bob@receiver.test", *config]) == 0
    capsys.readouterr()
    assert run(["subscriber", "opt-in", "--reason", "form", "bob@receiver.test", *config]) == 0
    assert "still suppressed" in capsys.readouterr().err
    assert store.lookup("bob@receiver.test") is not None


def test_a_row_that_cannot_be_read_is_told_and_the_others_are_imported(
    store: Store, tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(
        f"email,status,opt_in\nnobody,I,\n{WHO},maybe,\n{WHO},I,someday\n\nbob@receiver.test,I,2026-01-03\n"
    )
    assert run(["subscriber", "import", str(file), *config]) == 1
    told = capsys.readouterr()
    assert "1 added or changed, 0 known as they are, 3 not understood" in told.out
    assert [line.split(":")[1].strip() for line in told.err.splitlines()] == ["line 2", "line 3", "line 4"]
    assert [one.address for one in store.subscribers()] == ["bob@receiver.test"]


def test_octets_of_another_charset_and_a_quote_that_nothing_closes_are_told_with_their_lines(
    store: Store, tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(
        b'email,status,source\nbob@receiver.test,I,\njos\xe9@receiver.test,I,\neve@receiver.test,I,"fair\n\n'
    )
    assert run(["subscriber", "import", str(file), *config]) == 1
    told = capsys.readouterr()
    assert [line.split(":")[1].strip() for line in told.err.splitlines()] == ["line 3", "line 4"]
    assert "is no UTF-8" in told.err
    assert "a quote is opened here that nothing closes" in told.err
    assert [one.address for one in store.subscribers()] == ["bob@receiver.test"]


@pytest.mark.parametrize(
    "arguments",
    [["--map", "Nope=address"], ["--map", "email=nope"], []],
    ids=["no such column", "no such field", "no address"],
)
def test_columns_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, config: list[str], arguments: list[str]
) -> None:
    file = tmp_path / "list.csv"
    file.write_text("name,email\n" if arguments else "name,colour\n")
    assert run(["subscriber", "import", *arguments, str(file), *config]) == 2


def test_an_export_imports_again_to_the_same(
    store: Store, tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.csv").write_text(SUBSCRIBERS)
    assert run(["subscriber", "import", str(tmp_path / "people.csv"), *config]) == 0
    assert run(["subscriber", "export", "-o", str(tmp_path / "out.csv"), *config]) == 0
    assert (tmp_path / "out.csv").stat().st_mode & 0o007 == 0, "it holds addresses"
    before = list(store.subscribers())
    capsys.readouterr()
    assert run(["subscriber", "import", str(tmp_path / "out.csv"), *config]) == 0
    assert "0 added or changed, 4 known" in capsys.readouterr().out
    assert list(store.subscribers()) == before
    assert run(["subscriber", "export", "--columns", "nope", *config]) == 2
    assert run(["subscriber", "export", "--word", "nope=x", *config]) == 2
