"""What happens between the end of a message and the answer to it.

The order is the promise: the engine reads the message (`mailback.service.assessing`),
the store commits what follows from it, the message goes on to `next_hop` or `bounces_to`, and only then the peer is
told 250. Whatever fails before that is a temporary failure, or the next hop's own refusal: the peer keeps the mail,
so there is no queue here that could lose it. A message that comes again is the same event again.

Log events:
    received            a message was taken; `kind`, `id` (the event), `to` (where it went on to: `next_hop`,
                        `bounces_to`, `quarantine_to`, or `nobody` where it was refused as malware), `size`, and `notes`
                        where there is something to note: what could not be read, a suppression held back by a wave
    refused             a message was recorded and then refused or put off by where it goes on to (`to`); `reply` is
                        what the peer was told. Look at that server or folder when it lasts.
    not_recorded        the store could not commit; the peer was answered 451 and keeps the mail. The event
                        `store_unavailable` says what to do.
    copy_refused        a further recipient of `replies.copy_to` was refused (`reply`); the message itself went on.
                        Correct the address, or look at the server behind.
    loop                a message had passed more servers than any honest one; look who sends it round in circles
    intake_failed       a fault of our own, with its traceback; the peer was answered 451. Please report it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mailback.engine import Disposition, Engine, Outcome, unavailable
from mailback.envelope import Envelope
from mailback.service.assessing import Desk
from mailback.service.log import get_logger, whom
from mailback.store import StoreUnavailable
from mailback.store.waiting import COMMIT_S, committed
from mailback_smtpd import content
from mailback_smtpd.destination import Destination
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply

log = get_logger("smtpd")

HELD_FOR = "X-Mailback-Held-For"
"""The field that tells whom a held message was for, one a recipient."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that has come in full."""

    envelope: Envelope
    raw: bytes
    protocol: str
    """For the trace field: SMTP, ESMTP, ESMTPS, LMTP, UTF8SMTP ... (RFC 3848, RFC 6531 section 4.3)."""
    utf8: bool


class Intake:
    """The engine, the two destinations, and the order between them; one a worker process."""

    def __init__(
        self,
        engine: Engine,
        *,
        next_hop: Destination,
        bounces_to: Destination,
        quarantine: Destination,
        hostname: str,
        authserv_id: str | None = None,
    ) -> None:
        """`authserv_id` is the name that nobody else's results of authentication may bear; `hostname` without one."""
        self._engine = engine
        self._desk = Desk(engine)
        self._next_hop = next_hop
        self._bounces_to = bounces_to
        self._quarantine = quarantine
        self._hostname = hostname
        self._authserv_id = authserv_id or hostname

    async def take(self, arrival: Arrival) -> list[Reply]:
        """Record a message and hand it on; a reply for each recipient. Never raises."""
        recipients = arrival.envelope.recipients
        try:
            return await self._take(arrival)
        except StoreUnavailable as error:
            log.warning("not_recorded", reason=error.reason, client=arrival.envelope.client_address)
            reply = Reply(451, "4.3.0", unavailable())
        except TimeoutError:
            log.error(
                "store_unavailable", reason=f"no commit within {COMMIT_S:.0f} s", advice="look at the disk's load"
            )
            reply = Reply(451, "4.3.0", unavailable())
        except Exception:  # the boundary: a fault of ours must never cost the peer its mail
            log.exception("intake_failed", sender=whom(arrival.envelope.sender), size=len(arrival.raw))
            reply = Reply(451, "4.3.0", "internal fault, please try again later")
        return [reply] * len(recipients)

    async def close(self) -> None:
        """Give up what the destinations keep open."""
        await asyncio.gather(self._next_hop.close(), self._bounces_to.close(), self._quarantine.close())
        await asyncio.to_thread(self._desk.close)

    async def _take(self, arrival: Arrival) -> list[Reply]:
        canonical = content.canonical(arrival.raw)
        if content.hops(content.header_block(canonical)) > content.MAX_HOPS:
            log.warning("loop", sender=whom(arrival.envelope.sender), client=arrival.envelope.client_address)
            refusal = Reply(554, "5.4.6", "too many hops, this message goes in circles")
            return [refusal] * len(arrival.envelope.recipients)
        outcome = await self._record(arrival)
        replies = await self._hand_on(arrival, canonical, outcome)
        self._tell(arrival, outcome, replies)
        return replies

    async def _record(self, arrival: Arrival) -> Outcome:
        assessment = await self._desk.assess(arrival.envelope, arrival.raw)
        return await committed(self._engine.commit(assessment), COMMIT_S)

    async def _hand_on(self, arrival: Arrival, canonical: bytes, outcome: Outcome) -> list[Reply]:
        count = len(arrival.envelope.recipients)
        said = Reply(outcome.smtp_code, outcome.enhanced, outcome.text)
        if outcome.disposition in (Disposition.REJECT, Disposition.TEMPFAIL, Disposition.DISCARD):
            return [said] * count
        destination = self._destination(outcome)
        if not destination.keeps:
            return [said] * count
        replies = await destination.deliver(self._outgoing(arrival, canonical, outcome))
        if outcome.disposition is Disposition.REWRITE:
            replies = [*replies[:1] * count, *replies[1:]]
        for reply in replies[count:]:
            if not reply.accepted:
                log.warning("copy_refused", id=outcome.event_id, reply=reply.line.decode("ascii"))
        return [said if reply.accepted else reply for reply in replies[:count]]

    def _destination(self, outcome: Outcome) -> Destination:
        if outcome.disposition is Disposition.QUARANTINE:
            return self._quarantine
        return self._bounces_to if outcome.machine else self._next_hop

    def _recipients(self, arrival: Arrival, outcome: Outcome) -> tuple[str, ...]:
        """Whom the message goes on to: as addressed or where its route sends it, then the copies."""
        restored = dict(outcome.restored)
        addressed = tuple(restored.get(recipient, recipient) for recipient in arrival.envelope.recipients)
        delivery = outcome.delivery
        if outcome.disposition is Disposition.QUARANTINE:
            return addressed
        first = addressed if delivery.redirect is None else (delivery.redirect,)
        return (*first, *(copy for copy in delivery.copies if copy not in first))

    def _outgoing(self, arrival: Arrival, canonical: bytes, outcome: Outcome) -> Outgoing:
        envelope = arrival.envelope
        trace = content.received_field(
            helo=envelope.helo or "",
            client=envelope.client_address,
            hostname=self._hostname,
            protocol=arrival.protocol,
            event_id=outcome.event_id,
            recipients=envelope.recipients,
            at=envelope.received_at,
        )
        return Outgoing(
            sender=envelope.sender,
            recipients=self._recipients(arrival, outcome),
            content=content.rewritten(
                canonical,
                (*outcome.add_headers, *_held_for(arrival, outcome)),
                outcome.remove_headers,
                trace,
                self._authserv_id,
                subject_tag=outcome.delivery.subject_tag,
            ),
            event_id=outcome.event_id,
            utf8=arrival.utf8,
        )

    def _tell(self, arrival: Arrival, outcome: Outcome, replies: list[Reply]) -> None:
        envelope = arrival.envelope
        told = {
            "id": outcome.event_id,
            "kind": outcome.kind.value,
            "to": _TO.get(outcome.disposition) or ("bounces_to" if outcome.machine else "next_hop"),
            "sender": whom(envelope.sender),
            "recipients": len(envelope.recipients),
            "client": envelope.client_address or "local",
            "size": len(arrival.raw),
            "notes": outcome.notes or None,
        }
        refused = next((reply for reply in replies if not reply.accepted), None)
        if refused is None:
            log.info("received", **told)
        else:
            log.warning("refused", **told, reply=refused.line.decode("ascii"))


def _held_for(arrival: Arrival, outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """Whom a held message was for: a Maildir keeps no envelope, and it must be possible to deliver it after all."""
    if outcome.disposition is not Disposition.QUARANTINE:
        return ()
    return tuple((HELD_FOR, who) for who in arrival.envelope.recipients if who.isprintable())


_TO = {Disposition.QUARANTINE: "quarantine_to", Disposition.REJECT: "nobody"}
