"""How we stand at a provider is told by what it did to our mail, and kept with each failure as it was then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from mailback.bounce.classify import reputation_risk
from mailback.bounce.taxonomy import Kind, Type
from mailback.effects.reputation import Reputation
from mailback.effects.senders import Senders
from mailback.engine import Engine
from mailback.envelope import Source
from mailback.observation import Observation
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Event
from tests.support.command import within

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
OURS = "[mail]\nsending_domains = ['sender.test', 'other.test']\nsending_addresses = ['192.0.2.25']\n"
GONE = "550 5.1.1 No such user"
BLOCKED = "554 5.7.1 Service unavailable; client host [192.0.2.25] blocked using zen.spamhaus.org"
_numbers = count()


def told(
    engine: Engine, said: str | None, *, sender: str = "news@sender.test", who: str = "", at: datetime = NOW
) -> Event:
    """An outcome that our own log tells; `said` is None where the message arrived."""
    number = next(_numbers)
    action, kind = ("delivered", Kind.DELIVERED) if said is None else ("failed", Kind.BOUNCE)
    code, status, *_ = (said or "250 2.0.0 Ok").split()
    failure = DeliveryFailure(
        who or f"u{number}@receiver.test", action=action, status=status, smtp_code=code, diagnostic=said or "250 Ok"
    )
    one = Observation(at, kind, Source.LOG, "test", failure, str(number), f"<{number}@s.test>", sender=sender)
    [observed] = engine.observe([one]).result()
    assert observed.event_id is not None
    found = engine._store.event(observed.event_id)
    assert found is not None
    return found


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(Settings.loads(OURS), store)


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailback.effects.reputation._FRESH_S", 0.0)


def test_it_is_the_share_of_what_the_provider_took_of_what_it_judged(engine: Engine) -> None:
    for _ in range(30):
        told(engine, None)
    assert told(engine, GONE).reputation == {"domain": 1.0, "ip": 1.0}
    for _ in range(10):
        told(engine, BLOCKED)
    event = told(engine, GONE)
    assert event.reputation == {"domain": 1.0, "ip": 0.75}, "a block of the address is none of the domain"
    assert event.risk is not None
    assert event.risk["reputation"] == pytest.approx(reputation_risk(Type.HARD_BOUNCE, 0.75))
    for _ in range(20):
        told(engine, GONE)
    assert told(engine, GONE).reputation == {"domain": 1.0, "ip": 0.75}, "dead addresses say nothing of us"


def test_each_domain_of_ours_and_each_provider_has_its_own(engine: Engine) -> None:
    for _ in range(20):
        told(engine, None)
        told(engine, None, sender="a@other.test")
    for _ in range(20):
        told(engine, "550 5.7.1 Message rejected as spam", sender="a@other.test")
    assert told(engine, GONE).reputation == {"domain": 1.0, "ip": pytest.approx(40 / 60, abs=0.001)}
    assert told(engine, GONE, sender="a@other.test").reputation == {
        "domain": 0.5, "ip": pytest.approx(40 / 60, abs=0.001)
    }  # fmt: skip
    assert told(engine, GONE, who="u@elsewhere.test").reputation is None


def test_few_messages_and_old_ones_tell_nothing(engine: Engine) -> None:
    for _ in range(19):
        told(engine, None)
    event = told(engine, GONE)
    assert event.reputation is None
    assert event.risk is not None
    assert event.risk["reputation"] == pytest.approx(reputation_risk(Type.HARD_BOUNCE, 0.5))
    told(engine, None)
    assert told(engine, GONE).reputation is not None
    assert told(engine, GONE, at=NOW + timedelta(days=9)).reputation is None


def test_where_nothing_tells_what_arrives_there_is_no_share(engine: Engine) -> None:
    for _ in range(30):
        told(engine, BLOCKED)
    assert told(engine, GONE).reputation is None


def test_shares_are_kept_for_a_minute(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = [0.0]
    reputation = Reputation(Senders((), ("sender.test",)), clock=lambda: clock[0])

    def share() -> dict[str, float] | None:
        event = told_apart(Kind.BOUNCE)
        store.submit(lambda transaction: reputation.complete(transaction, event)).result()
        return event.reputation

    assert share() is None
    for _ in range(20):
        store.submit(lambda transaction: reputation.note(transaction, told_apart(Kind.DELIVERED))).result()
    assert share() is None
    clock[0] += 60
    assert share() == {"domain": 1.0}


def told_apart(kind: Kind) -> Event:
    return Event("1", "1", NOW, kind, "log", domain="receiver.test", original_sender="news@sender.test")


def test_explain_tells_it(engine: Engine, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        told(engine, None)
    told(engine, GONE, who="ann@receiver.test")
    config = tmp_path / "mailback.toml"
    config.write_text(f"store.url = 'sqlite:///{store.path}'\n")
    assert "100% taken" in within(config, capsys)("explain", "ann@receiver.test").out
