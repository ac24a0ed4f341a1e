"""`mailback review`: what waits for a person, decided one by one or many at once.

Emits no log events. What is decided is written to the audit trail with the name of whoever runs the command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import Whole, actor, address_key, config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, complain, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from mailback.bounce.taxonomy import Type
    from mailback.effects.scoring import Scoring
    from mailback.policy.handling import Handling
    from mailback.review.deciding import Answer, Consequences, Right
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.reading import ReviewFilter
    from mailback.store.records import Event, Review, Suggestion
    from mailback.store.transaction import Transaction

    Work = Callable[[Transaction, int, bool], Answer]
    """Decides one item; the last says whether it is one of several."""

F = TypeVar("F", bound=Callable[..., Any])

SHOWN = 50
"""Items listed where nobody says how many."""
_AT_ONCE = 100  # items decided in one transaction, so that mail goes on being recorded meanwhile
STATES = ("open", "approved", "corrected", "expired", "all")

_COLUMNS = (
    Column("item", "cyan", right=True, wraps=False), Column("due", wraps=False), Column("kind", wraps=False),
    Column("told as", wraps=False), Column("conf.", right=True, wraps=False), Column("recipient", wraps=False),
    Column("state", wraps=False), Column("why it waits"),
)  # fmt: skip
_numbers = click.argument("items", metavar="ITEM...", type=Whole(min=1), nargs=-1)


@click.group()
def review() -> None:
    """What waits for a person: list, show, approve, correct."""


def _filters(command: F) -> F:
    """The options that choose items."""
    options = (
        click.option("--overdue", is_flag=True, help="Only what should have been decided by now."),
        click.option("--kind", metavar="KIND", help="Kind of message: bounce, complaint, reply, ..."),
        click.option("--type", "type_", metavar="TYPE", help="Told as this type, such as hard_bounce."),
        click.option("--cause", metavar="CAUSE", help="Told as this cause, such as user_unknown."),
        click.option("--intent", metavar="INTENT", help="Told as this intent, such as billing."),
        click.option("--domain", metavar="DOMAIN", help="About recipients of this domain."),
        click.option("--address", metavar="ADDRESS", help="About this recipient."),
        click.option("--reason", metavar="TEXT", help="Only where the reason holds this text."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _chosen(state: str, told: dict[str, Any]) -> ReviewFilter:
    """The filter of the options. Raises BadParameter for a word that nothing is called."""
    from mailback.bounce.taxonomy import Kind, Subcategory, Type
    from mailback.cli.events import known_word
    from mailback.reply.intent import Intent
    from mailback.store.reading import ReviewFilter

    kind = known_word(told["kind"], Kind, "--kind")
    return ReviewFilter(
        state=None if state == "all" else state,
        overdue_at=datetime.now(UTC) if told["overdue"] else None,
        kind=Kind(kind) if kind else None,
        type=known_word(told["type_"], Type, "--type"),
        subcategory=known_word(told["cause"], Subcategory, "--cause"),
        intent=known_word(told["intent"], Intent, "--intent"),
        domain=_domain(told["domain"]),
        key=address_key(told["address"]) if told["address"] else None,
        reason=told["reason"],
    )


def _domain(domain: str | None) -> str | None:
    from mailback import address

    return address.domain(f"x@{domain.removeprefix('@')}") if domain else None


@review.command("list")
@config_option
@json_option
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True, help="Which items.")
@_filters
@click.option("--limit", type=Whole(min=1), metavar="N", help=f"At most so many. Default: {SHOWN}; JSON: all.")
def list_items(*, config: Path | None, as_json: bool, state: str, limit: int | None, **told: Any) -> None:
    """List what waits for a decision, the most pressing first, with the time that is left."""
    which = _chosen(state, told)
    now = datetime.now(UTC)
    with open_store(config) as store:
        found = store.reviews(which, limit=limit or (None if as_json else SHOWN + 1))
        if as_json:
            for item in found:
                json_line(to_dict(item, now))
            return
        rows = [_row(item, now) for item in found]
    more = limit is None and len(rows) > SHOWN
    table(_COLUMNS, rows[:SHOWN] if more else rows, empty="nothing waits")
    if more:
        say("there are more: --limit N shows them, mailback stats counts them")


def _row(item: Review, now: datetime) -> list[object]:
    due = Cell(countdown(item, now), "bold red" if item.overdue(now) else "")
    told = f"{item.told} -> {item.right}" if item.right else item.told
    return [
        item.id, due, item.kind, Cell(told, ""), None if item.confidence is None else f"{item.confidence:.2f}",
        item.recipient, item.state, item.reason,
    ]  # fmt: skip


def countdown(item: Review, now: datetime) -> str:
    """How long there is still time, or since when it is over: `12 min`, `3 h overdue`."""
    if item.due is None or item.state != "open":
        return "-"
    left = item.due - now
    return f"{_span(-left)} overdue" if left <= timedelta() else _span(left)


def _span(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if minutes < 1:
        return f"{max(0, int(span.total_seconds()))} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"


def to_dict(item: Review, now: datetime) -> dict[str, object]:
    """One line of `review list --json`."""
    left = None if item.due is None else round((item.due - now).total_seconds())
    return {
        "item": item.id,
        "event": item.event_id,
        "at": iso(item.at),
        "kind": item.kind,
        "recipient": item.recipient,
        "type": item.type,
        "subcategory": item.subcategory,
        "intent": item.intent,
        "confidence": None if item.confidence is None else round(item.confidence, 3),
        "route": item.route,
        "reason": item.reason,
        "bulk": not item.alone,
        "due": iso(item.due),
        "left_s": left if item.state == "open" else None,
        "overdue": item.overdue(now),
        "breached_at": iso(item.breached_at),
        "state": item.state,
        "closed_at": iso(item.closed_at),
        "closed_by": item.closed_by,
        "note": item.note,
        "right": item.right,
    }


@review.command()
@config_option
@json_option
@click.argument("item", metavar="ITEM", type=Whole(min=1))
def show(*, config: Path | None, as_json: bool, item: int) -> None:
    """Show one item: what was read, why it was told so, what approval would do."""
    with open_store(config) as store:
        found = store.review(item)
        if found is None:
            raise CommandError(f"there is no item {item}", "mailback review list --state all")
        event = store.event(found.event_id)
        suggestion = store.suggestion(found.event_id)
    now = datetime.now(UTC)
    if as_json:
        more = {"text": found.text, "evidence": event.evidence if event else [], "notes": event.notes if event else []}
        told = _suggestion(suggestion)
        json_line(to_dict(found, now) | {"approval": _asked(found), "suggestion": told} | more)
    else:
        _show(found, event, suggestion, now)


def _suggestion(said: Suggestion | None) -> dict[str, object] | None:
    """What an endpoint suggests, if it does."""
    if said is None or said.state != "told":
        return None
    return {"intent": said.intent, "confidence": said.confidence, "because": said.because, "source": said.source}


def _asked(item: Review) -> str:
    """What approval does."""
    if item.wanted is None:
        return "confirms the verdict; nothing is suppressed"
    until = f"until {when(item.wanted.until)} UTC" if item.wanted.until else "for ever"
    scope = "" if item.wanted.scope == "all" else f" for {item.wanted.scope}"
    return f"suppresses {item.recipient}{scope} {until}"


def _show(item: Review, event: Event | None, suggestion: Suggestion | None, now: datetime) -> None:
    from mailback.cli.explain import EVIDENCE_COLUMNS

    due = f"{countdown(item, now)} ({when(item.due)} UTC)" if item.due else "at leisure"
    confidence = "" if item.confidence is None else f", confidence {item.confidence:.2f}"
    told = {
        "item": f"{item.id}, {item.state}",
        "due": due if item.state == "open" else None,
        "told as": f"{item.told}{confidence}",
        "right": item.right,
        "suggested": _suggested(suggestion),
        "about": item.recipient,
        "why it waits": item.reason,
        "approval": _asked(item) if item.state == "open" else None,
        "decided": f"by {item.closed_by} at {when(item.closed_at)} UTC" if item.closed_at else None,
        "note": item.note,
        "event": f"{item.event_id} of {when(item.at)} UTC, {item.kind}",
        "as it came": f"mailback store message {item.event_id}" if event and event.raw_sha256 else None,
        "subject": event.subject if event else None,
        "queue id": event.queue_id if event and item.route == "escalate" else None,
    }
    for name, value in told.items():
        if value:
            say(f"{name + ':':14}{safe(value)}")
    for line in (item.text or "").splitlines():
        say(f"  | {safe(line)}")
    if event is not None:
        names = ("layer", "rule", "says")
        rows = [
            [event.id, *(e.get(name) for name in names), e.get("weight"), Cell(e.get("text"), "dim")]
            for e in event.evidence
        ]
        table(EVIDENCE_COLUMNS, rows, title="why it was told so")
        for note in event.notes:
            say(f"note: {safe(note)}")
    if item.alone:
        say("it is decided by itself, never in bulk")


def _suggested(said: Suggestion | None) -> str | None:
    if said is None or said.state != "told":
        return None
    return f"{said.intent} ({said.confidence or 0:.2f}) by {said.source}: {said.because}"


@review.command()
@config_option
@json_option
@_numbers
@click.option("--all", "every", is_flag=True, help="Every open item that the filters choose.")
@_filters
@click.option("--note", metavar="TEXT", help="Kept with the decision.")
def approve(
    *, config: Path | None, as_json: bool, items: tuple[int, ...], every: bool, note: str | None, **told: Any
) -> int:
    """Say that verdicts are right: what they asked for is done.

    Name items, or choose them with --all and filters. Legal and security matters are decided one by one: among several
    they are left out and told. Exit code 1 when any item was not decided.
    """
    from mailback.review.deciding import approve as decide

    by = actor()
    which = _which(items, every, told)
    rules = _consequences(config)

    def work(transaction: Transaction, number: int, many: bool) -> Answer:
        return decide(transaction, number, rules, by=by, note=note, many=many)

    with open_store(config) as store:
        return _decided(store, _numbers_of(store, items, which), work, many=every or len(items) > 1, as_json=as_json)


def _which(items: Sequence[int], every: bool, told: dict[str, Any]) -> ReviewFilter | None:
    """The filter, where items are chosen by one. Raises BadParameter where the choice is unclear."""
    filtered = any(told.values())
    if items and (every or filtered):
        raise click.BadParameter("name items or choose them by filters, not both", param_hint="ITEM")
    if not items and not every:
        raise click.BadParameter("name items, or choose them with --all and filters", param_hint="ITEM")
    return _chosen("open", told) if every else None


def _numbers_of(store: Store, items: Sequence[int], which: ReviewFilter | None) -> list[int]:
    if which is None:
        return list(dict.fromkeys(items))
    return [item.id for item in store.reviews(which)]


def _decided(store: Store, numbers: Sequence[int], work: Work, *, many: bool, as_json: bool) -> int:
    """Decide each item, many in a transaction, and tell what became of it; the exit code."""
    refused = 0
    waiting = iter(numbers)
    while some := list(islice(waiting, _AT_ONCE)):
        for answer in store.submit(partial(_all, work, some, many=many)).result():
            refused += not answer.done
            _tell(answer, as_json=as_json)
    if not numbers and not as_json:
        say("nothing waits")
    elif many and not as_json:
        say(f"{len(numbers) - refused} decided, {refused} not")
    return 1 if refused else 0


def _all(work: Work, numbers: Sequence[int], transaction: Transaction, *, many: bool) -> list[Answer]:
    return [work(transaction, number, many) for number in numbers]


def _tell(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        json_line({"item": answer.number, "done": answer.done, "said": answer.said})
    elif answer.done:
        say(f"item {answer.number}: {safe(answer.said)}")
    else:
        complain(f"item {answer.number}: {safe(answer.said)}")


@review.command()
@config_option
@json_option
@_numbers
@click.option("--event", "event_id", metavar="EVENT", help="An event, as mailback events shows it, instead of an item.")
@click.option("--as-cause", metavar="CAUSE", help="What the failure really was, such as mailbox_full.")
@click.option("--as-type", metavar="TYPE", help="Its type, where it is not the usual one of the cause.")
@click.option("--as-intent", metavar="INTENT", help="What the reply really meant, such as question.")
@click.option("--recipient", metavar="ADDRESS", help="Whom a report is about that names nobody.")
@click.option("--again", is_flag=True, help="Decide anew what was decided before.")
@click.option("--note", metavar="TEXT", help="Kept with the decision.")
def correct(
    *, config: Path | None, as_json: bool, items: tuple[int, ...], event_id: str | None, as_cause: str | None,
    as_type: str | None, as_intent: str | None, recipient: str | None, again: bool, note: str | None,
) -> int:  # fmt: skip
    """Say what messages really are: what the wrong verdict did is undone, what the right one asks for is done.

    A verdict that acted at once is corrected by its event. Corrections teach: `mailback model train` learns from them.
    Exit code 1 when any item was not decided.
    """
    from mailback.review.deciding import correct as decide
    from mailback.review.deciding import open_for

    if bool(items) == bool(event_id):
        raise click.BadParameter("name items, or one event with --event", param_hint="ITEM")
    right = _right(as_cause, as_type, as_intent, recipient)
    by = actor()
    rules = _consequences(config)

    def work(transaction: Transaction, number: int, many: bool) -> Answer:
        return decide(transaction, number, right, rules, by=by, note=note, many=many, again=again or bool(event_id))

    with open_store(config) as store:
        if event_id is not None:
            made = store.submit(lambda transaction: open_for(transaction, event_id, by)).result()
            if made is None:
                raise CommandError(f"there is no event {event_id}", "mailback events")
            items = (made,)
        return _decided(store, list(dict.fromkeys(items)), work, many=len(items) > 1, as_json=as_json)


def _right(as_cause: str | None, as_type: str | None, as_intent: str | None, recipient: str | None) -> Right:
    from mailback.bounce.taxonomy import CAUSES, Subcategory, Type
    from mailback.cli.events import known_word
    from mailback.reply.intent import Intent
    from mailback.review.deciding import Right

    intent = known_word(as_intent, Intent, "--as-intent")
    cause = known_word(as_cause, Subcategory, "--as-cause")
    type_ = known_word(as_type, Type, "--as-type")
    if (intent is None) == (cause is None):
        raise click.BadParameter("say what it is: a cause with --as-cause, or an intent with --as-intent")
    if cause is None and (type_ or recipient):
        raise click.BadParameter("--as-type and --recipient go with --as-cause")
    if recipient is not None:
        address_key(recipient)
    if cause is None:
        return Right(intent=intent)
    subcategory = Subcategory(cause)
    usual = CAUSES[subcategory].type
    kept = _type_of(Type(type_), usual) if type_ else usual
    return Right(kept, subcategory, recipient=recipient)


def _type_of(type_: Type, usual: Type) -> Type:
    """The type that was asked for. A cause has one type, and while a server is still trying it is a delay."""
    from mailback.bounce.taxonomy import Type

    if type_ not in (usual, Type.DELAYED_BOUNCE):
        raise click.BadParameter(f"this cause is of type {usual}, or {Type.DELAYED_BOUNCE} while a server is trying")
    return type_


def _consequences(config: Path | None) -> Consequences:
    """What follows from verdicts, as settings and rules say."""
    from mailback.policy.handling import HandlingRules
    from mailback.reply import routing
    from mailback.resources import rules_dir
    from mailback.review.deciding import Consequences

    settings = load_settings(config)
    directories = [rules_dir(), *filter(None, [settings.rules.directory])]
    return Consequences(
        handling=HandlingRules.load(directories),
        routes=routing.load(directories),
        rescore=partial(_rescore, _scoring(settings)),
        by_list=settings.replies.opt_out_scope == "list",
    )


def _scoring(settings: Settings) -> Scoring:
    """The score ledger as a person's word moves it: neither proof nor confidence nor budget stands in the way."""
    from mailback.effects.scoring import Scoring, rules_of
    from mailback.policy.decision import DecisionRules
    from mailback.provenance.guard import Guard

    return Scoring(rules_of(settings), DecisionRules(min_confidence=0.0), Guard(0, 0, 1.0))


def _rescore(scoring: Scoring, transaction: Transaction, event: Event, handling: Handling | None) -> None:
    from mailback.bounce.taxonomy import Action
    from mailback.policy.decision import Decision
    from mailback.store.transaction import Recorded

    if handling is not None:
        recorded = Recorded(event.id, new=False, better=True)
        scoring.heard(transaction, event, recorded, handling, Decision(event.action or Action.NO_ACTION, "corrected"))
    if event.recipient_key is not None and event.recipient is not None:
        scoring.settle(transaction, event.recipient_key, event.recipient)
