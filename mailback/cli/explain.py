"""`mailback explain`: everything behind the state of an address. Emits no log events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import address_key, config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from mailback.policy.score import ScoreRules, Standing
    from mailback.store.records import Capture, Event, Explanation, Subscriber, Suppression, SuppressionChange

_EVENT_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("event", "dim", wraps=False), Column("kind", wraps=False),
    Column("type/cause"), Column("conf.", right=True, wraps=False), Column("provenance", wraps=False),
    Column("action", wraps=False), Column("said", "dim"),
)  # fmt: skip
EVIDENCE_COLUMNS = (
    Column("event", "dim", wraps=False), Column("layer", wraps=False), Column("rule", wraps=False),
    Column("says", wraps=False), Column("weight", right=True, wraps=False), Column("because of", "dim"),
)  # fmt: skip
SCORE_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("event", "dim", wraps=False), Column("cause", wraps=False),
    Column("in a row", right=True, wraps=False), Column("what it does"),
)  # fmt: skip
_CHANGE_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("change", wraps=False), Column("scope", wraps=False),
    Column("by", wraps=False), Column("reason"), Column("until (UTC)", wraps=False),
)  # fmt: skip

_CAPTURE_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("verdict", wraps=False), Column("reasons"), Column("meant", wraps=False),
    Column("where"), Column("by", wraps=False),
)  # fmt: skip

_REPLY_COLUMNS = (
    Column("event", "dim", wraps=False), Column("intent", "bold", wraps=False), Column("or", wraps=False),
    Column("flags"), Column("route", wraps=False), Column("due (UTC)", wraps=False), Column("told"),
    Column("safety", wraps=False), Column("owner", "cyan"),
)  # fmt: skip


@click.command()
@config_option
@json_option
@click.argument("address")
def explain(config: Path | None, address: str, as_json: bool) -> None:
    """Tell every event, verdict and decision behind an address's state, oldest first."""
    key = address_key(address)
    from mailback.cli.check import held_for_now
    from mailback.effects.scoring import rules_of
    from mailback.outbound.check import Check
    from mailback.policy.retry import is_stale

    settings, now = load_settings(config), datetime.now(UTC)
    rules, days = rules_of(settings), settings.retry.give_up_days
    with open_store(config) as store:
        explanation = store.explain(key)
        for_now = Check(store, *held_for_now(config, store)).answer(address)
        lists, _ = store.subscriptions(key)
        again = [one for one in store.retries(key) if one.state in ("open", "sent") and not is_stale(one, now, days)]
    if as_json:
        from mailback.cli.retry import to_dict as retry_dict
        from mailback.cli.subscriber import to_dict as subscriber_dict

        json_line(
            to_dict(address, explanation, rules)
            | {"lists": [subscriber_dict(one, now) for one in lists], "retries": [retry_dict(one) for one in again]}
            | {"later": for_now.reply if for_now.later else None}
        )
        return
    show(address, explanation, rules)
    if for_now.later:
        say(f"for now: {for_now.reply}")
    for person in lists:
        say(_on_list(person))
    for one in again:
        say(f"to be sent again: {safe(one.message_id)}, due {when(one.due_at)} UTC, {one.because} (retry {one.id})")


def show(address: str, explanation: Explanation, rules: ScoreRules | None = None) -> None:
    """The explanation as a person reads it."""
    from mailback.policy.score import ScoreRules, standing

    rules = rules or ScoreRules()
    for line in states(address, explanation):
        say(line)
    if explanation.engagement is not None:
        known = explanation.engagement
        told = f"{known.sent} arrived, {known.opens} opens, {known.clicks} clicks"
        say(f"engagement: {told}, last read {when(known.last)}")
    if explanation.captures:
        table(_CAPTURE_COLUMNS, map(_capture_row, explanation.captures), title="how it was entered")
    known_by = (
        explanation.events,
        explanation.changes,
        explanation.captures,
        explanation.engagement,
        explanation.score,
    )
    if not any(known_by):
        say("nothing is known about it")
        return
    if explanation.events:
        table(_EVENT_COLUMNS, map(_event_row, explanation.events), title="what happened")
        replies = [event for event in explanation.events if event.reply is not None]
        if replies:
            table(_REPLY_COLUMNS, map(_reply_row, replies), title="what was answered")
        table(EVIDENCE_COLUMNS, evidence_rows(explanation), title="why it was told so")
        for event in explanation.events:
            for note in event.notes:
                say(f"note on {safe(event.id)}: {safe(note)}")
    if explanation.score:
        table(SCORE_COLUMNS, score_rows(explanation, rules), title="what counts against it")
        say(_score_told(standing(explanation.score, rules)))
    if explanation.changes:
        table(_CHANGE_COLUMNS, map(_change_row, explanation.changes), title="what was done")
    held = _active(explanation)
    if held:
        say(_undo(address, held))


def _undo(address: str, held: list[Suppression]) -> str:
    from mailback.store.precedence import is_own_word

    if any(map(is_own_word, held)):
        return f"to undo, on a new opt-in alone: mailback suppress remove {safe(address)} --opt-in --reason TEXT"
    return f"to undo: mailback suppress remove {safe(address)} --reason TEXT"


def _on_list(person: Subscriber) -> str:
    name = f"the list {safe(person.list_id)}" if person.list_id else "the list"
    if person.status == "in":
        return f"on {name}: in since {when(person.opt_in_at, never='a day that is not known')}"
    return f"on {name}: out since {when(person.opt_out_at)} UTC by {safe(person.out_by)}"


def states(address: str, explanation: Explanation) -> list[str]:
    """Whether an address may be mailed, and what stands against it: a line for each suppression in force."""
    held = [f"{safe(address)}: {_state(suppression)}" for suppression in _active(explanation)]
    return held or [f"{safe(address)}: may be mailed"]


def _active(explanation: Explanation) -> list[Suppression]:
    now = datetime.now(UTC)
    return [suppression for suppression in explanation.suppressions if suppression.active(now)]


def _state(suppression: Suppression) -> str:
    scope = "" if suppression.scope == "all" else f" for {safe(suppression.scope)}"
    until = f"until {when(suppression.until)} UTC" if suppression.until else "for ever"
    suggestion = f"; new address: {safe(suppression.suggestion)}" if suppression.suggestion else ""
    return f"suppressed{scope} since {when(suppression.since)} UTC, {until}: {safe(suppression.reason)}{suggestion}"


def _event_row(event: Event) -> list[object]:
    cause = "/".join(filter(None, (event.type or event.intent, event.subcategory)))
    return [
        when(event.at), event.id, event.kind, cause, _two_digits(event.confidence), event.provenance, event.action,
        _said(event),
    ]  # fmt: skip


def _capture_row(attempt: Capture) -> list[object]:
    reasons = ", ".join(attempt.reasons)
    return [when(attempt.at), attempt.verdict, reasons, attempt.suggestion, attempt.source, attempt.actor]


def _reply_row(event: Event) -> list[object]:
    """What was read in a reply, but for its text."""
    reply = event.reply or {}
    runner_up, safety = reply.get("runner_up"), reply.get("safety")
    told = {"language": "in", "return_date": "back", "follow_up_date": "again", "new_contact": "instead"}
    flags = reply.get("flags")
    return [
        event.id, event.intent, f"{runner_up} {_two_digits(reply.get('runner_up_confidence'))}" if runner_up else None,
        ", ".join(map(str, flags)) if isinstance(flags, list) else None, event.route,
        when(event.due_at) if event.due_at else None,
        "; ".join(f"{word} {reply[name]}" for name, word in told.items() if reply.get(name)),
        safety.get("verdict") if isinstance(safety, dict) else None, reply.get("owner"),
    ]  # fmt: skip


def _said(event: Event) -> str:
    """Code and diagnostic; most diagnostics begin with the code themselves, and then it is not told twice."""
    code, diagnostic = event.smtp_code or event.status or "", event.diagnostic or ""
    if re.match(rf"(?:\d{{3}}[ -])?{re.escape(code)}(?![\d.])", diagnostic):
        return diagnostic
    return " ".join(filter(None, (code, diagnostic)))


def evidence_rows(explanation: Explanation) -> list[list[object]]:
    """What each verdict rests on, for a table with EVIDENCE_COLUMNS."""
    names = ("layer", "rule", "says")
    return [
        [event.id, *(e.get(name) for name in names), _two_digits(e.get("weight")), Cell(e.get("text"), "dim")]
        for event in explanation.events
        for e in (*event.evidence, *_results(event), *_standing_then(event))
    ]


def _standing_then(event: Event) -> Iterator[dict[str, object]]:
    """How the sender stood at the provider at that time, as evidence."""
    there = event.provider or event.domain
    for side, share in (event.reputation or {}).items():
        yield {"layer": "reputation", "rule": side, "says": f"{share:.0%} taken", "text": there}


def _results(event: Event) -> Iterator[dict[str, object]]:
    """Who brought the report, as evidence: a row for each check that had a result."""
    told = event.authentication or {}
    for rule in ("spf", "dkim", "dmarc", "arc"):
        found = told.get(rule)
        for each in found if isinstance(found, list) else [found]:
            if isinstance(each, dict) and each.get("result") != "none":
                who = each.get("domain") or ", ".join(map(str, each.get("sealers") or ()))
                yield {"layer": "authentication", "rule": rule, "says": each.get("result"), "text": who}


def _change_row(change: SuppressionChange) -> list[object]:
    until = "-" if change.verb == "lifted" else when(change.until, never="for ever")
    return [when(change.at), change.verb, change.scope, change.actor, change.reason, until]


def _two_digits(number: object) -> str | None:
    return f"{number:.2f}" if isinstance(number, int | float) else None


def to_dict(address: str, explanation: Explanation, rules: ScoreRules | None = None) -> dict[str, object]:
    """The explanation as a script reads it."""
    from mailback.policy.score import ScoreRules

    now = datetime.now(UTC)
    return {
        "address": address,
        "key": explanation.key,
        "suppressed": any(s.active(now) for s in explanation.suppressions),
        "suppressions": [_record(s) | {"active": s.active(now)} for s in explanation.suppressions],
        "changes": [_record(change) for change in explanation.changes],
        "events": [_record(event) for event in explanation.events],
        "engagement": explanation.engagement.to_dict() if explanation.engagement is not None else None,
        "captures": [_record(attempt) for attempt in explanation.captures],
        "score": score_to_dict(explanation, rules or ScoreRules(), now),
    }


def score_to_dict(explanation: Explanation, rules: ScoreRules, now: datetime) -> dict[str, object]:
    """The score of an address and each line of its ledger."""
    from mailback.policy.score import standing

    told = standing(explanation.score, rules, explained=True)
    hold = told.hold
    return {
        "bounce_status": told.status(now).value,
        "count": told.count(now),
        "decays_at": iso(told.decays_at),
        "hold": None if hold is None else {
            "since": iso(hold.since), "until": iso(hold.until), "round": hold.round, "event": hold.entry.fact,
        },
        "lines": [
            {
                "at": iso(line.entry.at), "step": line.entry.step.value, "cause": line.entry.cause,
                "event": None if line.entry.step == "alive" else line.entry.fact, "count": line.count,
                "because": line.because,
            }
            for line in told.lines
        ],
    }  # fmt: skip


def score_rows(explanation: Explanation, rules: ScoreRules) -> list[list[object]]:
    """The score ledger, a row a line, for a table with SCORE_COLUMNS."""
    from mailback.policy.score import standing

    return [
        [when(line.entry.at), None if line.entry.step == "alive" else line.entry.fact, line.entry.cause, line.count,
         line.because]
        for line in standing(explanation.score, rules, explained=True).lines
    ]  # fmt: skip


def _score_told(told: Standing) -> str:
    now = datetime.now(UTC)
    if told.hard_since is not None:
        until = "a person lifts that" if told.gone is not None else "something shows that the mailbox lives"
        return f"bounce status: hard since {when(told.hard_since)} UTC, until {until}"
    count = told.count(now)
    after = f", until {when(told.decays_at)} UTC" if count else ""
    return f"bounce status: {told.status(now)}; {count} soft bounces in a row count{after}"


def _record(record: object) -> dict[str, object]:
    from dataclasses import asdict

    plain = asdict(record)  # type: ignore[call-overload]
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in plain.items()}
