"""Whoever asks to be erased is nowhere in the store any more, and is never mailed again."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope
from mailback.settings import Settings
from mailback.store import Store, SuppressionLookup, erasure
from mailback.store.records import JournalEntry
from mailback.store.schema import metadata
from tests.support.mail import dsn, reply
from tests.support.records import a_suppression, do

WHO = "Ada.Lovelace@receiver.test"
KEY = "ada.lovelace@receiver.test"
OTHER = "bob@receiver.test"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mailback.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/mailback.db"\n[mail]\nsending_domains = ["sender.test"]\n')
    return path


@pytest.fixture
def store(config: Path, tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as opened:
        opened.upgrade()
        yield opened


@pytest.fixture
def lived(store: Store, config: Path, tmp_path: Path) -> Store:
    """A store that knows two people: what was sent, what bounced, what was answered, who is on a list."""
    engine = Engine(Settings.load(config), store)
    now = datetime.now(UTC)
    for who, number in ((WHO, 1), (OTHER, 2)):
        entry = JournalEntry(now - timedelta(hours=1), f"<{number}@sender.test>", "news@sender.test", (who,), text="x")
        do(store, lambda t, entry=entry: t.journal(entry))  # type: ignore[misc]
        bounce = dsn(who, message_id=f"<{number}@sender.test>", status="4.2.2", diagnostic=f"452 4.2.2 <{who}> full")
        engine.inbound(Envelope(recipients=("news@sender.test",)), bounce)
        said = reply(who, message_id=f"<r{number}@receiver.test>")
        engine.inbound(Envelope(sender=who, recipients=("news@sender.test",)), said)
        engine.inbound(Envelope(recipients=("news@sender.test",)), dsn(who, message_id=f"<b{number}@sender.test>"))
        under_way = {"to": who, "message_id": f"<{number}@sender.test>"}
        name = f"postfix-queue:mx postfix 4F{number} {who.lower()}"
        do(store, lambda t, name=name, under_way=under_way: t.put_place(name, under_way))  # type: ignore[misc]
    both = JournalEntry(now, "<both@sender.test>", "news@sender.test", (WHO, OTHER))
    do(store, lambda t: t.journal(both))
    do(
        store,
        lambda t: t.suppress(a_suppression(address_key=KEY, address=WHO, reason=f"{WHO} phoned"), f"operator:{WHO}"),
    )
    file = tmp_path / "list.csv"
    file.write_text(f"email\n{WHO}\n{OTHER}\n")
    assert run(["subscriber", "import", "--config", str(config), "--list", "weekly", str(file)]) == 0
    run(["validate", "--config", str(config), WHO, OTHER])
    return store


def everything(path: Path) -> str:
    """All that the database holds, as text."""
    with sqlite3.connect(path) as connection:
        return "\n".join(connection.iterdump()).lower()


def forget(config: Path, *addresses: str) -> int:
    return run(["forget", "--config", str(config), "--reason", "asked to be erased, ticket 7", *addresses])


def test_nothing_about_the_address_is_left_and_everything_about_the_other(lived: Store, config: Path) -> None:
    assert everything(lived.path).count("ada.lovelace") > 10
    others = len(list(lived.events(key=OTHER)))
    assert forget(config, WHO) == 0
    assert "ada.lovelace" not in everything(lived.path)
    assert len(list(lived.events(key=OTHER))) == others
    assert lived.find_journal(message_id="<1@sender.test>") == []
    [entry] = lived.find_journal(message_id="<both@sender.test>")
    assert entry.recipients == (OTHER,)
    assert lived.check() == []


def test_nothing_is_left_in_the_file_either(lived: Store, config: Path) -> None:
    lived.fold()
    assert b"ovelace" in lived.path.read_bytes()
    assert forget(config, WHO) == 0
    lived.close()
    assert b"ovelace" not in lived.path.read_bytes()


def test_an_erased_address_is_refused_however_it_is_written(lived: Store, config: Path) -> None:
    assert forget(config, WHO) == 0
    for written in (WHO, KEY):
        assert run(["check", "--config", str(config), written]) == 1
    with SuppressionLookup(f"sqlite:///{lived.path}") as lookup:
        found = lookup.lookup(KEY)
        assert found is not None
        assert found.address_key.startswith("erased:")


def test_an_erased_address_is_explained_as_what_it_is(
    lived: Store, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` refuses it: that nothing is known about it would send whoever asks on a wrong track."""
    assert run(["forget", "--config", str(config), "--reason", "asked", WHO]) == 0
    capsys.readouterr()
    assert run(["explain", "--config", str(config), WHO]) == 0
    told = capsys.readouterr().out
    assert f"{WHO}: suppressed since" in told
    assert "may be mailed" not in told
    assert f"on a new opt-in alone: mailback suppress remove {WHO} --opt-in" in told


def test_a_server_that_runs_learns_of_the_first_erasure(lived: Store, config: Path) -> None:
    do(lived, lambda t: t.lift(KEY, actor="test", reason="test"))
    assert lived.lookup(KEY) is None
    assert forget(config, WHO) == 0
    assert lived.lookup(KEY) is not None, "it looked before there was a key"
    assert lived.lookup("else@receiver.test") is None


def test_the_audit_trail_holds_and_tells_of_the_erasure(lived: Store, config: Path) -> None:
    before = lived.verify_audit()
    assert forget(config, WHO) == 0
    after = lived.verify_audit()
    assert after.holds
    assert after.rows > before.rows
    told = [entry for entry in lived.audit_trail() if entry.verb == "erase"]
    assert told[0].detail["chain_ended_with"] == before.last_hash
    assert told[0].subject.startswith("erased:")
    with sqlite3.connect(lived.path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE audit SET actor = 'x'")


def test_only_a_new_opt_in_ends_it(lived: Store, config: Path) -> None:
    assert forget(config, WHO) == 0
    assert run(["suppress", "remove", "--config", str(config), "--reason", "mistake", WHO]) == 1
    assert run(["check", "--config", str(config), WHO]) == 1
    assert run(["suppress", "remove", "--config", str(config), "--reason", "signed up", "--opt-in", WHO]) == 0
    assert run(["check", "--config", str(config), WHO]) == 0


def test_forgetting_twice_and_whom_nobody_knows_is_no_fault(lived: Store, config: Path) -> None:
    assert forget(config, WHO, "stranger@receiver.test") == 0
    assert forget(config, WHO) == 0
    assert run(["check", "--config", str(config), "stranger@receiver.test"]) == 1


def test_the_key_is_for_the_owner_of_the_database_only(lived: Store, config: Path) -> None:
    assert forget(config, WHO) == 0
    key = erasure.key_file(lived.path)
    assert stat.S_IMODE(key.stat().st_mode) & 0o027 == 0
    assert key.stat().st_size == 32


def test_a_key_that_is_gone_is_told_and_no_other_is_made(
    lived: Store, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["forget", "--reason", "asked", "--config", str(config), WHO]) == 0
    key = erasure.key_file(lived.path)
    key.rename(key.with_suffix(".elsewhere"))
    capsys.readouterr()
    assert run(["forget", "--reason", "asked", "--config", str(config), "bob@receiver.test"]) == 1
    assert "bring it back from a backup first" in capsys.readouterr().err
    assert not key.exists()
    run(["doctor", "--config", str(config)])
    assert "the key of erasures is gone" in capsys.readouterr().out


def test_erased_addresses_are_in_no_export(
    lived: Store, config: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert forget(config, WHO) == 0
    for format_ in ("text", "csv", "json", "ses"):
        capfd.readouterr()
        assert run(["suppress", "export", "--config", str(config), "--format", format_]) == 0
        assert "erased:" not in capfd.readouterr().out


def test_every_table_about_an_address_is_erased() -> None:
    """A table that is added later must be thought of."""
    known = {table for table, _ in erasure.tables()} | {"event", "journal_recipient"}
    about = {table.name for table in metadata.tables.values() if {"address_key", "recipient_key"} & set(table.c.keys())}
    assert about == known
