"""May this address be mailed? One answer behind the milter's RCPT, policy service, socketmap and `mailback check`.

An address that is not on the suppression list may be. One that is gets

    550 5.7.1 <address>: suppressed since 2026-01-31, hard_bounce/user_unknown (mailback explain address)
    550 5.7.1 <address>: suppressed since 2026-01-31 until 2026-02-07 09:30 UTC, soft_bounce/mailbox_full (...)

in SPEC's words: 550 also where the suppression ends, because mail held back for days helps nobody (a queue gives up
after five) and the sender should hear now. Times are UTC.

Where the recipient's provider refuses our mail at the moment (`mailback.policy.breaker`), the answer is to try later:

    451 4.7.1 <address>: mail from 192.0.2.25 to google is held until 2026-01-31 12:30 UTC, block_bounce/ip_blocked

After a hold that bounces made, one message shows whether the mailbox lives (`mailback.outbound.probes`); until that is
known the others are answered

    451 4.7.1 <address>: held until 2026-01-31 12:30 UTC, one message is trying whether it takes mail again (...)

The null sender (RFC 5321 section 4.5.5) is never refused. What comes from `<>` is a notice about a message that the
recipient wrote himself, a delivery status notification or a read receipt, never a campaign; refusing it would leave
him without an answer, leave Postfix with a bounce it cannot deliver, and break sender verification by other sites.

Nothing here logs. A store that cannot be read raises `StoreUnavailable`; what the front then answers is its own choice.
This module imports neither SQLAlchemy nor structlog: `mailback check` has 300 ms in all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from mailback import address
from mailback.policy.breaker import ANY, next_at
from mailback.policy.passage import nameless
from mailback.store.records import Breaker, Suppression

if TYPE_CHECKING:
    from mailback.outbound.brakes import Brakes
    from mailback.outbound.probes import Probes

REPLY_MAX: Final = 500
"""Octets of a whole reply, code included: RFC 5321 section 4.5.3.1.5 allows 512 with CRLF, and Postfix adds to it."""
REASON_MAX: Final = 100
"""Octets of a free-text reason that are told."""

CODE: Final = 550
ENHANCED: Final = "5.7.1"  # RFC 3463 section 3.8: delivery not authorized, message refused

DEFERRED: Final = 451
DEFERRED_ENHANCED: Final = "4.7.1"

_UNSAFE = re.compile(r"[^\x20-\x24\x26-\x7e]")  # all but printable ASCII; `%` too: an MTA may read it as a format
_ESCAPED = re.compile(r"\\x\{[0-9A-F]*\Z|\\x?\Z")


class Lookup(Protocol):
    """What finds a suppression: `mailback.store.SuppressionLookup` or `Store`."""

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a recipient may be mailed, and what SMTP says where not."""

    allowed: bool
    code: int = 250
    enhanced: str = "2.1.5"
    text: str = ""
    """Printable ASCII without `%`, one line; empty when allowed."""
    suppression: Suppression | None = None
    breaker: Breaker | None = None
    """What the recipient has to wait for, where he is not suppressed and may not be mailed now."""

    @property
    def later(self) -> bool:
        """Whether the recipient may not be mailed now, and may be later: his provider holds mail, or a message that
        tries whether he takes mail again is under way."""
        return not self.allowed and self.code == DEFERRED

    @property
    def reply(self) -> str:
        """The whole SMTP reply, at most `REPLY_MAX` octets."""
        return f"{self.code} {self.enhanced} {self.text}".rstrip()


ALLOWED: Final = Answer(allowed=True)


class Check:
    """Answers from one suppression list, and the breakers and probes where they are acted on; as safe to share between
    threads as its look-up is."""

    __slots__ = ("_brakes", "_lookup", "_probes")

    def __init__(self, lookup: Lookup, brakes: Brakes | None = None, probes: Probes | None = None) -> None:
        self._lookup = lookup
        self._brakes = brakes
        self._probes = probes

    def answer(
        self,
        recipient: str,
        *,
        sender: str | None = None,
        list_id: str | None = None,
        campaign: str | None = None,
        stream: str | None = None,
        sending_ip: str | None = None,
        queued: bool = False,
        token: str | None = None,
    ) -> Answer:
        """May `recipient` be mailed by this list, campaign and stream, from this address of ours?

        `queued`: the table of transports asks, which may send mail to a slower one instead of holding it. `token`: what
        tells this message from others (`mailback.policy.passage`); the same message may ask again. `sender` is the
        envelope sender: the empty string is the null sender, None is not known. `stream` is
        `transactional` or `marketing`. A suppression of everything counts always, one of a list, campaign or stream
        only where that is named. Raises `StoreUnavailable`.
        """
        if sender == "":
            return ALLOWED
        key = address.key(recipient)
        concerned = scopes(list_id, campaign, stream)
        probes = self._probes
        found = self._lookup.lookup(key, concerned) if probes is None else probes.last(key, concerned)
        if found is not None and (probes is None or found.active(probes.clock())):
            return refusal(recipient, found)
        if token is None:
            token = nameless(queued=queued)
        if self._brakes is not None:
            breaker = self._brakes.held(key, sender, sending_ip, token=token, queued=queued)
            if breaker is not None:
                return deferral(recipient, breaker, self._brakes.clock())
        if found is not None and probes is not None and (until := probes.waits_until(found, token)):
            return probing(recipient, until)
        return ALLOWED

    def transport(self, breaker: Breaker | None) -> str | None:
        """The transport that mail which has to wait is sent to, for this breaker where one holds it; None: it is
        deferred where it is."""
        if self._brakes is None:
            return None
        slows = breaker is not None and self._brakes.slows(breaker)
        return self._brakes.slow_transport if slows else self._brakes.hold_transport


def scopes(list_id: str | None = None, campaign: str | None = None, stream: str | None = None) -> tuple[str, ...]:
    """The suppression scopes that concern a message."""
    if not (list_id or campaign or stream):
        return ("all",)
    named = (("list", list_id), ("campaign", campaign), ("stream", stream))
    return ("all", *(f"{kind}:{name}" for kind, name in named if name))


def refusal(recipient: str, suppression: Suppression) -> Answer:
    """The refusal of one recipient, worded for whoever reads the bounce it causes."""
    until = f" until {suppression.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if suppression.until else ""
    period = f"since {suppression.since.astimezone(UTC):%Y-%m-%d}{until}"
    cause = clip(printable(_cause(suppression)), REASON_MAX)
    shown = _shown(recipient)
    around = len(f"{CODE} {ENHANCED} " + _text("", period, cause))
    if around + 2 * len(shown) > REPLY_MAX:
        shown = clip(shown, (REPLY_MAX - around) // 2)
    return Answer(
        allowed=False, code=CODE, enhanced=ENHANCED, text=_text(shown, period, cause), suppression=suppression
    )


def deferral(recipient: str, breaker: Breaker, now: datetime) -> Answer:
    """What is answered while the provider of a recipient refuses our mail."""
    end = next_at(breaker, now)
    until = f"until {_to_the_minute(end):%Y-%m-%d %H:%M} UTC" if end else "until further notice"
    from_ = "" if breaker.sender == ANY else f" from {breaker.sender}"
    cause = clip(printable(" ".join(breaker.reason.partition(":")[0].split()) or breaker.rule), REASON_MAX)
    about = (
        f"mail{clip(printable(from_), REASON_MAX)} to {clip(printable(breaker.provider), REASON_MAX)} is held {until}"
    )
    told = f"{about}, {cause} (mailback breaker list)"
    shown = clip(_shown(recipient), REPLY_MAX - len(f"{DEFERRED} {DEFERRED_ENHANCED} <>: {told}"))
    return Answer(allowed=False, code=DEFERRED, enhanced=DEFERRED_ENHANCED, text=f"<{shown}>: {told}", breaker=breaker)


def probing(recipient: str, until: datetime) -> Answer:
    """What is answered while one message tries whether the recipient takes mail again."""
    told = f"held until {_to_the_minute(until):%Y-%m-%d %H:%M} UTC, one message is trying whether it takes mail again"
    shown = clip(_shown(recipient), (REPLY_MAX - len(f"{DEFERRED} {DEFERRED_ENHANCED} {told}") - 30) // 2)
    text = f"<{shown}>: {told} (mailback explain {shown})"
    return Answer(allowed=False, code=DEFERRED, enhanced=DEFERRED_ENHANCED, text=text)


def _to_the_minute(moment: datetime) -> datetime:
    """Rounded up: who comes at the minute told may pass."""
    return (moment.astimezone(UTC) + timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)


def _text(shown: str, period: str, cause: str) -> str:
    return f"<{shown}>: suppressed {period}, {cause} (mailback explain {shown})"


def _cause(suppression: Suppression) -> str:
    if suppression.type:
        return "/".join(filter(None, (suppression.type, suppression.subcategory)))
    return " ".join(suppression.reason.split()) or suppression.source


def printable(text: str) -> str:
    """`text` in printable ASCII without `%`; what is neither becomes `\\x{E9}`, the form of RFC 6533 section 3.

    A reply in UTF-8 needs a client that said SMTPUTF8 (RFC 6531 section 3.7.4.2), and none of the fronts is told that
    in time. CR and LF would begin a reply of the sender's own making.
    """
    return _UNSAFE.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def _shown(recipient: str) -> str:
    """An address as replies tell it, and as `mailback explain` takes it: the domain in A-labels where it has others."""
    if not recipient.isascii():
        local, host = address.split(recipient)
        name = address.domain_key(host)
        if name.isascii() and name:
            recipient = f"{local}@{name}"
    return printable(recipient)


def clip(text: str, octets: int) -> str:
    """At most `octets` of ASCII text, with an ellipsis where something is missing and no half escape before it."""
    if len(text) <= octets:
        return text
    return _ESCAPED.sub("", text[: max(0, octets - 3)]) + "..."
