"""Deliveries in the score ledger: lines from the day of the first bounce on, whatever came first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.effects.scoring import rules_of
from mailback.envelope import Source
from mailback.observation import Observation
from mailback.policy.score import standing
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import ScoreEntry, Step
from tests.support.engines import engine_of
from tests.support.facts import SETTINGS

WHO = "ada@receiver.test"
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # every example is many commits: shrinking takes minutes
_stores = count()


class Fact(NamedTuple):
    number: int
    days: int
    hour: int = 0
    kind: Kind = Kind.DELIVERED
    grade: Provenance = Provenance.AUTHENTICATED

    @property
    def at(self) -> datetime:
        return NOON - timedelta(days=self.days) + timedelta(hours=self.hour)

    def told(self) -> Observation:
        delivered = self.kind is Kind.DELIVERED
        words = "250 2.0.0 OK" if delivered else "452 4.2.2 The mailbox is over quota"
        failure = DeliveryFailure(
            WHO, action="delivered" if delivered else "failed", status=words[4:9], smtp_code=words[:3], diagnostic=words
        )
        return Observation(
            self.at, self.kind, Source.LOG, "postfix log", failure, f"{self.number}",
            message_id=f"<{self.number}@sender.test>", grade=self.grade,
        )  # fmt: skip


def bounced(number: int, days: int, hour: int = 0) -> Fact:
    return Fact(number, days, hour, Kind.BOUNCE)


def hear(store: Store, facts: Sequence[Fact]) -> None:
    engine = engine_of(Settings.loads(SETTINGS), store)
    for fact in facts:
        engine.observe([fact.told()]).result()


def lines(store: Store) -> list[tuple[Step, datetime]]:
    return [(entry.step, entry.at) for entry in store.explain(WHO).score]


def line(fact: Fact) -> tuple[Step, datetime]:
    return Step.ALIVE if fact.kind is Kind.DELIVERED else Step.BOUNCE, fact.at


def test_who_never_bounced_has_no_ledger(store: Store) -> None:
    hear(store, [Fact(1, 5), Fact(2, 4), Fact(3, 3)])
    assert lines(store) == []
    known = store.engagement(WHO)
    assert known is not None
    assert known.sent == 3


def test_the_first_bounce_brings_the_deliveries_of_its_day_and_later_ones(store: Store) -> None:
    before, same_day, later, bounce = Fact(1, 5), Fact(2, 4, -3), Fact(3, 2), bounced(4, 4)
    hear(store, [before, same_day, later, bounce])
    assert lines(store) == [line(same_day), line(bounce), line(later)]


def test_a_delivery_told_before_the_bounces_around_it_breaks_their_row(store: Store) -> None:
    hear(store, [Fact(1, 3), bounced(2, 5), bounced(3, 4), bounced(4, 2)])
    assert store.lookup(WHO) is None
    hear(store, [bounced(5, 1)])
    assert store.lookup(WHO) is None
    hear(store, [bounced(6, 0)])
    assert store.lookup(WHO) is not None


def test_a_bounce_of_an_earlier_day_brings_what_was_delivered_since(store: Store) -> None:
    early, between, late = bounced(1, 6), Fact(2, 5), bounced(3, 4)
    hear(store, [between, late])
    assert lines(store) == [line(late)]
    hear(store, [early])
    assert lines(store) == [line(early), line(between), line(late)]


def test_a_bounce_that_turns_out_to_be_older_moves_where_the_lines_begin(store: Store) -> None:
    hear(store, [Fact(1, 5), bounced(2, 4), bounced(2, 5, -2)])
    assert lines(store) == [line(bounced(2, 5, -2)), line(Fact(1, 5))]


def test_a_bounce_that_is_taken_back_leaves_no_deliveries_behind(store: Store) -> None:
    hear(store, [bounced(1, 4), Fact(2, 3)])
    assert len(lines(store)) == 2
    [bounce] = [event for event in store.events(key=WHO) if event.kind is Kind.BOUNCE]
    store.submit(lambda tx: tx.take_back(bounce.id, WHO, actor="test", reason="wrong")).result()
    assert lines(store) == []


def test_a_day_keeps_the_first_eight_deliveries_whichever_came_first(store: Store) -> None:
    told = [Fact(number, 3, number) for number in range(10)]
    hear(store, [*told[5:], bounced(90, 3, 11), *told[:5]])
    assert lines(store) == [*map(line, told[:8]), line(bounced(90, 3, 11))]


def test_a_delivery_nobody_proves_is_a_line_of_its_own(store: Store) -> None:
    unproven = Fact(1, 3, grade=Provenance.UNPROVEN)
    hear(store, [unproven])
    assert lines(store) == [line(unproven)]
    hear(store, [bounced(2, 2), Fact(1, 3)])  # proven by another report, and older than the first bounce
    assert lines(store) == [line(bounced(2, 2))]


def test_an_open_within_the_batch_of_the_first_bounce_is_not_lost(store: Store) -> None:
    def work(tx: Transaction) -> list[str]:
        tx.enter(ScoreEntry(WHO, Step.ALIVE, NOON, "open", "open"))
        tx.enter(ScoreEntry(WHO, Step.BOUNCE, NOON - timedelta(days=1), "E1", "mailbox_full"), fresh=True)
        return [entry.cause for entry in tx.ledger(WHO)]

    assert store.submit(work).result() == ["mailbox_full", "open"]


_FACTS = st.lists(
    st.builds(
        Fact,
        st.integers(0, 11),
        st.integers(0, 9),
        st.integers(-11, 11),
        st.sampled_from((Kind.DELIVERED, Kind.BOUNCE, Kind.BOUNCE)),
        st.just(Provenance.AUTHENTICATED),
    ),
    min_size=2,
    max_size=10,
)


@settings(max_examples=30, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_FACTS, st.randoms(use_true_random=False))
def test_no_order_changes_the_ledger_or_what_comes_of_it(tmp_path: Path, facts: list[Fact], drawn: object) -> None:
    shuffled = list(facts)
    drawn.shuffle(shuffled)  # type: ignore[attr-defined]
    found = []
    for order in (facts, shuffled):
        with Store.open(f"sqlite:///{tmp_path / f'{next(_stores)}.db'}") as store:
            store.upgrade()
            hear(store, order)
            hold = store.lookup(WHO)
            found.append((lines(store), hold and (hold.since, hold.until, hold.source)))
            settled = standing(store.explain(WHO).score, rules_of(Settings())).hold
            expected = settled if settled is not None and settled.active(datetime.now(UTC)) else None
            assert (hold and hold.since) == (expected and expected.since)
    assert found[0] == found[1]
    earliest = {(f.kind, f.number): min(o.at for o in facts if (o.kind, o.number) == (f.kind, f.number)) for f in facts}
    first = min((at.date() for (kind, _), at in earliest.items() if kind is Kind.BOUNCE), default=None)
    wanted = sorted(at for (kind, _), at in earliest.items() if kind is Kind.DELIVERED and first and at.date() >= first)
    assert sorted(at for step, at in found[0][0] if step is Step.ALIVE) == wanted
