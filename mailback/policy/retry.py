"""When a message that failed for a while should be sent again. Pure: the jitter is drawn from the message.

The first try comes after `retry_after_s` of the cause's row in the handling rules, each further one after a multiple of
it: with one hour and the multiples 1, 4, 12 that is one hour, four hours, twelve hours after the failure before. An
active reader earns more tries. Tries end with the multiples, with the money (`cost_limit`), or when the message is too
old to be worth sending.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailback.bounce.taxonomy import Action
from mailback.policy.handling import Handling
from mailback.store.records import Retry

RETRIED = frozenset({Action.RETRY_WITH_DELAY, Action.RETRY_IMMEDIATELY})


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The numbers of `[retry]`."""

    multiples: tuple[int, ...] = (1, 4, 12)
    reader_multiples: tuple[int, ...] = (24, 48)
    """What an active reader earns beyond those."""
    reader_days: int = 30
    jitter: float = 0.1
    cost_limit: int = 10
    give_up_days: int = 14


@dataclass(frozen=True, slots=True)
class Advice:
    """When to try again, or why not."""

    due: datetime | None
    because: str


def advise(retry: Retry, handling: Handling, rules: RetryRules, *, reader: bool) -> Advice:
    """What follows from the failures of one message to one recipient so far (`retry.failures`, `retry.failed_at`)."""
    multiples = rules.multiples + (rules.reader_multiples if reader else ())
    if retry.failures > len(multiples):
        return Advice(None, f"{len(multiples)} tries were in vain")
    if retry.failures * handling.retry_cost > rules.cost_limit:
        return Advice(None, f"another try would cost more than {rules.cost_limit}")
    delay = timedelta(0)
    if handling.action is not Action.RETRY_IMMEDIATELY:
        seconds = (handling.retry_after_s or 0) * multiples[retry.failures - 1]
        delay = timedelta(seconds=seconds * _jitter(retry, rules))
    due = retry.failed_at + delay
    if due > retry.first_at + timedelta(days=rules.give_up_days):
        return Advice(None, f"the message would be older than {rules.give_up_days} days")
    told = f"try {retry.failures} of {len(multiples)}"
    return Advice(due, f"{told}, an active reader" if reader else told)


def is_stale(retry: Retry, now: datetime, give_up_days: int) -> bool:
    """Whether a message that waits has become too old to be sent: so by the clock, nothing is written for that."""
    return retry.state == "open" and now > retry.first_at + timedelta(days=give_up_days)


def _jitter(retry: Retry, rules: RetryRules) -> float:
    """A factor around 1, the same each time it is asked for: thousands of messages that failed together spread."""
    seed = f"{retry.address_key}\0{retry.thread}\0{retry.failures}".encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(hashlib.sha256(seed).digest()[:8]) / 2**64
    return 1 + rules.jitter * (2 * drawn - 1)
