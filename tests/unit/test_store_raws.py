"""Messages kept as they came in: which, for how long, and whom they are erased with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.raws import MOST
from tests.support.mail import dsn, reply

WHO = "ada@receiver.test"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mailback.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/mailback.db'\n")
    return file


@pytest.fixture
def store(config: Path) -> Iterator[Store]:
    with Store.open(Settings.load(config).store.url) as opened:
        opened.upgrade()
        yield opened


def comes_in(
    store: Store, raw: bytes, keep: str = "review", *, days_ago: float = 0, sender: str = "", at: datetime | None = None
) -> str:
    settings = Settings.model_validate({"store": {"keep_raw": keep}})
    at = at or datetime.now(UTC) - timedelta(days=days_ago)
    envelope = Envelope(sender, ("news@sender.test",), source=Source.SMTPD, received_at=at)
    return Engine(settings, store).inbound(envelope, raw).event_id


def kept(store: Store, event_id: str) -> bytes | None:
    event = store.event(event_id)
    assert event is not None
    assert event.raw_sha256 is not None
    return store.raw(event.raw_sha256)


CLEAR = dsn(WHO, message_id="<1@sender.test>")
UNCLEAR = dsn(WHO, message_id="<2@sender.test>", status="5.0.0", diagnostic="500 xyzzy")


@pytest.mark.parametrize(
    ("keep", "clear", "unclear"), [("never", False, False), ("review", False, True), ("all", True, True)]
)
def test_what_is_kept_is_the_message_octet_by_octet(store: Store, keep: str, clear: bool, unclear: bool) -> None:
    for raw, expected in ((CLEAR, clear), (UNCLEAR, unclear)):
        assert kept(store, comes_in(store, raw, keep)) == (raw if expected else None)


def test_the_reply_of_a_person_that_waits_is_kept_too(store: Store) -> None:
    angry = "Our lawyer will take legal action over the breach of GDPR."
    letter = reply(WHO, message_id="<3@receiver.test>", text=angry)
    event_id = comes_in(store, letter, sender=WHO)
    assert kept(store, event_id) == letter


def test_a_very_long_message_is_kept_to_its_limit(
    store: Store, config: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    long = dsn(WHO, message_id="<4@sender.test>", padding=MOST)
    event_id = comes_in(store, long, "all")
    assert run(["store", "message", event_id, "--config", str(config)]) == 0
    told = capfdbinary.readouterr()
    assert told.out == long[:MOST]
    assert str(len(long)).encode() in told.err


def test_strangers_do_not_fill_the_disk_with_what_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailback.engine._RAWS_AN_HOUR", 2)
    at = datetime.now(UTC).replace(minute=30)
    ids = [
        comes_in(store, dsn(WHO, message_id=f"<m{n}@sender.test>", status="5.0.0", diagnostic="500 xyzzy"), at=at)
        for n in range(4)
    ]
    assert [kept(store, one) is not None for one in ids] == [True, True, False, False]


def test_a_message_that_is_not_kept_is_told(store: Store, config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    event_id = comes_in(store, CLEAR)
    assert run(["store", "message", event_id, "--config", str(config)]) == 1
    assert "keep_raw" in capfd.readouterr().err
    assert run(["store", "message", "01NOSUCHEVENT", "--config", str(config)]) == 1


def test_maintenance_removes_what_is_past_its_time(store: Store, config: Path) -> None:
    old = comes_in(store, UNCLEAR, days_ago=31)
    young = comes_in(store, CLEAR, "all", days_ago=29)
    assert run(["store", "maintain", "--config", str(config)]) == 0
    assert kept(store, old) is None
    assert kept(store, young) == CLEAR


def test_who_is_erased_is_erased_from_messages(store: Store, config: Path) -> None:
    event_id = comes_in(store, UNCLEAR)
    event = store.event(event_id)
    assert event is not None
    assert event.raw_sha256 is not None
    assert run(["forget", WHO, "--reason", "asked", "--config", str(config)]) == 0
    assert store.raw(event.raw_sha256) is None
