"""The sections about what follows: suppressions, scores, retries, breakers, the check of addresses and hygiene.

Emits no log events.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mailback.settings.section import Section
from mailback.settings.values import Transport


class PolicySettings(Section):
    """Thresholds of what is done about a bounce."""

    hard_bounces_needed: int = Field(
        1,
        ge=1,
        le=100,
        description=("Permanent failures, on different days (UTC), before an address is suppressed."),
    )
    hold_during_review: bool = Field(
        False,
        description=("Hold an address back while a person looks at its case, at most as long as the rules say."),
    )
    min_confidence: float = Field(
        0.6, ge=0, le=1, description="Verdicts below this confidence do nothing that cannot be undone."
    )
    recent_days: int = Field(
        30,
        ge=1,
        le=3650,
        description=(
            "Days after an open or a click within which somebody counts as a recent reader, whose mailbox has hardly "
            "gone whatever a server says."
        ),
    )
    unproven_share: float = Field(
        0.02,
        gt=0,
        le=1,
        description=(
            "Suppressions without proof that one source (client network, reporting domain) may cause in an hour, as a "
            "share of the recipients that were mailed on the busiest day of the last week: 50 at least, 2000 at most, "
            "and 500 where neither journal nor log nor anything else of yours tells what is mailed. All sources "
            "together may cause four times as many. The rest waits for a person."
        ),
    )
    unproven_per_hour: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        examples=[500],
        description=(
            "The same as a plain number for each source, whatever is mailed, and no limit for all together. 0 is no "
            "limit at all."
        ),
    )
    wave_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description=(
            "Share of the addresses of one provider that took mail lately and now fail for good at once, from which on "
            "it is a wave: new permanent suppressions there freeze until `mailback wave undo` or `mailback wave "
            "confirm`. So many never die within an hour; of few addresses it takes more, nine of nine at least."
        ),
    )
    wave_factor: float = Field(
        5.0, ge=1, le=1000, description="How many times the provider's normal rate, over a week, makes it a wave."
    )
    wave_minimum: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        examples=[500],
        description=(
            "Permanent suppressions of one cause and provider in an hour from which on they are a wave whatever their "
            "share, if `wave_factor` says so too. Unset, it is 1000, and only where nothing tells what arrives "
            "(Postfix's log, an application) nor what left (the journal). 0 is never a wave, by shares neither."
        ),
    )


class ScoreSettings(Section):
    """When bounces that heal by themselves hold an address back: the score of an address, and its escalation."""

    bounces_needed: int = Field(
        3,
        ge=1,
        le=100,
        description=(
            "Soft bounces in a row, on different days (UTC) within the window, that hold an address back. A row of the "
            "handling rules may ask for another number (`escalate_after`)."
        ),
    )
    window_days: int = Field(
        7, ge=1, le=3650, description="Days after which a soft bounce no longer counts (`window_days` of a row)."
    )
    suppress_days: int = Field(
        7, ge=1, le=3650, description="Days that an address is held back, where its row has no `suppress_days`."
    )
    graduate_after: int = Field(
        3,
        ge=1,
        le=1000,
        description="Holds in a row, with nothing delivered in between, of which the last is for ever.",
    )
    memory_days: int = Field(
        365,
        ge=30,
        le=3650,
        description="Days after which an earlier hold is forgotten; `mailback store maintain` removes what is older.",
    )
    delivery_resets: bool = Field(
        True,
        description=(
            "Whether a delivery, an open, a click or a person's reply begins the count anew. Off: only a person who "
            "lifts the suppression does, as with a plain count of bounces."
        ),
    )
    growth: float = Field(
        1.0,
        ge=1,
        le=10,
        description=(
            "How many times as long as the one before each further hold is, of an address that nothing arrived at in "
            "between: with 2, a hold of 7 days is followed by one of 14. 1: all are alike."
        ),
    )
    probe: bool = Field(
        False,
        description=(
            "Whether the first message after a hold is a probe: if it bounces softly, the next hold follows at once "
            "instead of after `bounces_needed` more; if it arrives, the count begins anew."
        ),
    )
    probe_wait_s: int = Field(
        3600,
        ge=0,
        le=30 * 86400,
        description=(
            "After a hold that bounces made, one message is let through and the others are told to try later, until "
            "something shows that the mailbox lives, or at most for so many seconds: then the next one tries. Three of "
            "which nothing comes back end it. 0: all mail passes from the end of the hold on."
        ),
    )


class RetrySettings(Section):
    """When a message that failed for a while should be sent again: advice, `mailback retry due`."""

    multiples: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (1, 4, 12),
        description=(
            "Delay of each try as a multiple of `retry_after_s` of its row in the handling rules: a cause of one hour "
            "is tried after 1, 4 and 12 hours."
        ),
    )
    reader_multiples: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (24, 48), description="Further tries for an active reader."
    )
    reader_days: int = Field(
        30, ge=1, le=365, description="Who opened, clicked or replied within so many days is an active reader."
    )
    jitter: float = Field(
        0.1, ge=0, le=0.5, description="How far a delay may differ, as a share of it: what failed together spreads out."
    )
    cost_limit: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="What the tries of one message to one recipient may cost; each costs `retry_cost` of its row.",
    )
    give_up_days: int = Field(
        14, ge=1, le=365, description="Days after its first failure from which on a message is not tried again."
    )


class BreakerSettings(Section):
    """What is done while a provider refuses mail because of its sender; `breakers.toml` of the rules says when."""

    act: bool = Field(
        True,
        description=(
            "Hold mail to a provider whose breaker is open: recipients are answered 451 until it ends, then single "
            "messages try. Off: breakers trip and are told (log, `mailback doctor`, `mailback breaker list`), and "
            "mail goes on."
        ),
    )
    hold_transport: Transport | None = Field(
        None,
        description=(
            "Transport of Postfix's master.cf that the socketmap table `transport` sends held mail to. Unset: "
            "Postfix's own `retry`, which defers it with the reason."
        ),
        examples=["held"],
    )
    slow_transport: Transport | None = Field(
        None,
        description=(
            "Transport that mail goes to while a provider asks for less of it; it is then not refused at RCPT. Unset: "
            "such mail passes one message every `pace_s` seconds, and the rest is deferred. A `relayhost` has to be "
            "named again, as the next hop."
        ),
        examples=["slow"],
    )


class ProviderSettings(Section):
    """Who runs the mail of a recipient's domain."""

    look_up: bool = Field(
        True,
        description=(
            "Ask DNS for the MX records of recipients' domains, in the background and never while a client waits: most "
            "domains have their mail run by somebody else. Off: only reports and the domain itself tell the provider."
        ),
    )


class CaptureSettings(Section):
    """The check of addresses that somebody enters: `mailback validate`."""

    retention_days: int = Field(
        365,
        ge=1,
        le=3650,
        description="Days that an attempt to enter an address is kept; `mailback store maintain` removes older ones.",
    )


class HygieneSettings(Section):
    """What `mailback hygiene` takes for a sign that nobody is there any more."""

    dormant_days: int = Field(
        180,
        ge=7,
        le=3650,
        description="Days without a read, an answer or (where reads are not told) a message after which to verify.",
    )
    unread_messages: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Messages that arrived without any being read after which to verify an address.",
    )
