"""All checks of one message in one walk: SPF, DKIM, DMARC, ARC.

The message is split once more, strictly, for the signatures (`fields`); what the rest of the house takes for the author
must be what was authenticated, so DMARC refuses a message of which the two readers see different From fields.

Safe to use from any thread; blocks for DNS at most the budget of the resolver. Emits no log events.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from mailback.address import domain_key
from mailback.auth import arc, authres, dkim, dmarc
from mailback.auth.fields import HeaderError, SignedMessage, split
from mailback.auth.resolver import Lookups, Resolver
from mailback.auth.results import Arc, Authentication, Dkim, Dmarc, Result, Spf
from mailback.envelope import Envelope
from mailback.message import Message

_SPF_LIFE_S = 10.0
"""Shorter than any TTL in use: who takes an address out of his record should not have to wait longer than for DNS."""
_MOST_KNOWN = 2048


class Authenticator:
    """Checks messages in the name of one server."""

    def __init__(
        self,
        resolver: Resolver,
        authserv_id: str,
        *,
        trusted_ids: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        share: Callable[[], float] = random.random,
    ) -> None:
        """`authserv_id` is how we sign Authentication-Results, usually the host name; `trusted_ids` are the servers
        before us whose fields are believed; `share` gives where in 0 to 1 a message falls for DMARC's `pct`.

        Raises ValueError when `authserv_id` is none.
        """
        self.authserv_id = domain_key(authserv_id)
        if not authres.is_authserv_id(self.authserv_id):
            raise ValueError(f"authserv-id {authserv_id!r}: expected the name of a host")
        self._resolver = resolver
        self._trusted = tuple(trusted_ids)
        self._clock = clock
        self._share = share
        self._known: OrderedDict[tuple[str | None, str, str | None], tuple[float, Spf]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, envelope: Envelope, raw: bytes, message: Message, lookups: Lookups | None = None) -> Authentication:
        """Everything that can be found out about `raw`, of which `message` is the reading. Never raises on mail.

        `lookups` are the questions that this message has left; without them it has all.
        """
        lookups = lookups or self._resolver.lookups()
        checked = self._spf(envelope, lookups)
        try:
            signed = split(raw)
        except HeaderError as error:
            return self._malformed(checked, raw, str(error))
        signatures = dkim.verify_all(signed, lookups.txt, self._clock())
        policy = self._dmarc(signed, message, checked, signatures, lookups)
        return Authentication(self.authserv_id, checked, signatures, policy, arc.verify(signed, lookups.txt))

    def upstream(self, message: Message) -> Authentication | None:
        """What a trusted server before us found out; None when no such server is configured or left a field.

        Ask only for mail that came from that server: from elsewhere, anybody may have written the field.
        """
        return authres.trusted(_written(message), self._trusted) if self._trusted else None

    def forged(self, message: Message) -> tuple[int, ...]:
        """Which Authentication-Results fields to remove because they bear our name, as `authres.forged` counts."""
        plain = authres.forged(_written(message), self.authserv_id)
        # A reader after us may decode what has no business there (RFC 2047 section 5).
        decoded = authres.forged(message.headers.get_all(authres.FIELD), self.authserv_id)
        return tuple(sorted({*plain, *decoded}))

    def _spf(self, envelope: Envelope, lookups: Lookups) -> Spf:
        """As evaluated for the same client and names a moment ago: a provider's server brings many messages."""
        from mailback.auth.spf import evaluate

        asked, now = (envelope.client_address, envelope.sender, envelope.helo), time.monotonic()
        with self._lock:
            known = self._known.get(asked)
        if known is not None and known[0] > now:
            return known[1]
        found = evaluate(envelope, lookups, self.authserv_id)
        if found.result is not Result.TEMPERROR:
            with self._lock:
                self._known[asked] = now + _SPF_LIFE_S, found
                self._known.move_to_end(asked)
                while len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        return found

    def _dmarc(
        self,
        signed: SignedMessage,
        message: Message,
        checked: Spf,
        signatures: tuple[Dkim, ...],
        lookups: Lookups,
    ) -> Dmarc:
        froms = [b" ".join(value.split()) for _, value in signed.named("from")]
        if froms != [b" ".join(value.split()) for value in message.headers.raw_all("from")]:
            return Dmarc(Result.PERMERROR, reason="the From field can be read in two ways")
        return dmarc.evaluate(froms, spf=checked, dkim=signatures, records=lookups.txt, share=self._share())

    def _malformed(self, checked: Spf, raw: bytes, why: str) -> Authentication:
        """A header that could not have been signed: whatever it claims is in error, and nobody is its author."""
        claimed = (Dkim(Result.PERMERROR, reason=why),) if dkim.FIELD.encode() in raw[:65536].lower() else ()
        return Authentication(self.authserv_id, checked, claimed, Dmarc(Result.PERMERROR, reason=why), Arc(Result.NONE))


def _written(message: Message) -> list[str]:
    """The Authentication-Results fields as they stand: whoever could write in encoded words could pose as anybody."""
    return [value.decode("utf-8", "replace") for value in message.headers.raw_all(authres.FIELD)]
