"""What to do with each address of a list: keep, drop or verify it, why, and whether it may be asked to come back.

    drop     mail cannot arrive there, or its owner does not want it
    verify   it may be well, and something says otherwise: ask first, or look
    keep     nothing speaks against it

The worst reason decides. `reengage` says that one message may ask this person to stay: who read our mail once and has
been silent since; whose hold is over. Who never read anything, who opted out and whose mailbox is gone may not be
asked.

Pure functions over records, no clock. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from mailback.store.history import History, Subscribed
from mailback.store.records import Suppression

KEEP, VERIFY, DROP = "keep", "verify", "drop"
ORDER: Final = (KEEP, VERIFY, DROP)
"""From the best to the worst."""


class Reason(NamedTuple):
    """Why an address is where it is."""

    id: str
    action: str
    says: str


@dataclass(frozen=True, slots=True)
class HygieneRules:
    """The numbers of `[hygiene]`."""

    dormant_days: int = 180
    unread_messages: int = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with one address."""

    action: str
    reasons: tuple[Reason, ...] = ()
    reengage: bool = False


_CHECKED: Final[dict[tuple[str, str], str]] = {
    ("role", "risky"): VERIFY, ("dns", "unknown"): VERIFY, ("syntax", "blocked"): DROP, ("no_domain", "blocked"): DROP,
    ("no_mail", "blocked"): DROP, ("disposable", "blocked"): DROP, ("misspelt", "blocked"): DROP,
    ("role", "blocked"): DROP,
}  # fmt: skip
"""What each finding of the capture check asks for; what it says of suppressions is said here in full."""


def judge(
    checked: tuple[tuple[str, str, str], ...],
    history: History | None,
    rules: HygieneRules,
    now: datetime,
    *,
    list_id: str | None = None,
) -> Judgement:
    """One address: `checked` is what the capture check found (id, what it weighs, in words), `history` what is known.

    `list_id` names the list, whose own suppressions count as well as those of everything.
    """
    reasons = [
        Reason(name, _CHECKED[name, weighs], says) for name, weighs, says in checked if (name, weighs) in _CHECKED
    ]
    back = False
    if history is not None:
        scopes = {"all"} | ({f"list:{list_id}"} if list_id else set())
        concerning = [one for one in history.suppressions if one.scope in scopes]
        reasons += map(_held, (one for one in concerning if one.active(now)))
        ends = [one.lifted_at or one.until for one in concerning if not one.active(now) and one.type != "complaint"]
        back = bool(ends)
        reasons += _left(history.lists, list_id, back=back)
        reasons += _silence(history, rules, now, max(filter(None, ends), default=None))
    action = max((reason.action for reason in reasons), key=ORDER.index, default=KEEP)
    if action == KEEP and back:
        reasons.append(Reason("returns", KEEP, "its hold is over: one message shows whether it is well"))
    silent = {reason.id for reason in reasons if reason.action == VERIFY} == {"dormant"}
    return Judgement(action, tuple(reasons), reengage=(action == KEEP and back) or (action == VERIFY and silent))


def _held(suppression: Suppression) -> Reason:
    cause = "/".join(filter(None, (suppression.type, suppression.subcategory))) or suppression.reason
    if suppression.type == "complaint":
        return Reason("opted_out", DROP, f"{cause}: only a new opt-in of this person ends that")
    if suppression.until is not None:
        return Reason("held", VERIFY, f"held until {suppression.until.astimezone(UTC):%Y-%m-%d}, {cause}")
    return Reason("suppressed", DROP, f"suppressed since {suppression.since.astimezone(UTC):%Y-%m-%d}, {cause}")


def _left(lists: Sequence[Subscribed], list_id: str | None, *, back: bool) -> Iterator[Reason]:
    """Who has left this list; where none is named, who has left every list that he was on. Whom bounces put out is no
    longer out where what they came to is over (`back`)."""
    concerning = [one for one in lists if list_id in (None, one.list_id)]
    if not concerning or not all(one.out for one in concerning):
        return
    last = concerning[-1]
    if back and all(one.out_by == "bounce" for one in concerning):
        return
    when = f" since {last.out_at.astimezone(UTC):%Y-%m-%d}" if last.out_at is not None else ""
    told = f"out of {last.list_id or 'the list'}{when}, {last.out_by or 'by own word'}"
    yield Reason("suppressed" if last.out_by == "bounce" else "opted_out", DROP, told)


def _silence(history: History, rules: HygieneRules, now: datetime, over: datetime | None) -> Iterator[Reason]:
    """Signs that nobody is there any more. What bounced before a hold was `over` is what made it."""
    long_ago = now - timedelta(days=rules.dormant_days)
    delivered, bounced = history.last_delivered, history.last_bounce
    if bounced is not None and bounced > max(filter(None, (delivered, history.last_sign, over)), default=long_ago):
        yield Reason("bouncing", VERIFY, f"bounced on {bounced:%Y-%m-%d}, and nothing arrived since")
    sign, contact = history.last_sign, history.last_contact
    if sign is not None and sign < long_ago:
        yield Reason("dormant", VERIFY, f"last read or answered on {sign:%Y-%m-%d}")
    elif sign is None and history.sent >= rules.unread_messages:
        yield Reason("unread", VERIFY, f"{history.sent} messages arrived, and none was read as far as anybody tells")
    elif sign is None and contact is not None and contact < long_ago:
        yield Reason("stale", VERIFY, f"last mailed on {contact:%Y-%m-%d}: the address may have died since")
