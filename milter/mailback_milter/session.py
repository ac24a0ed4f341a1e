"""One connection from the MTA: what each callback of the milter protocol is answered.

A message on its way out costs two answers, RCPT and DATA: neither its header nor its body is sent to us. One that comes
in is collected, byte for byte as it stood on the wire (SMFIP_HDR_LEADSPC; line ends CRLF), given to the engine at the
end, and tagged. What the MTA need not wait for is negotiated to go without an answer, what we do not need is negotiated
away, and macros are asked for by name (SMFIF_SETSYMLIST), so `milter_*_macros` in main.cf need no change.

Where nobody waits for an answer at RCPT (mail from sendmail(1), reports of Postfix itself) there is none but at the end
of the message. Measured with Postfix 3.7: a temporary failure there leaves the file in maildrop or the bounced message
in the queue, and both are tried again; a rejection there sends the mail back to its sender with the reason. A refusal
at RCPT would have pickup(8) try the same file for ever.

Callbacks of one connection may run on different threads, never at the same time, so a session holds plain state and
takes no locks. What native code they may use, and why, is told in `mailback_milter.reading`.

Log events (of the part `milter`):

    recorded            A message came in and its events are committed. Nothing to do.
    refused             A recipient was refused because it is suppressed; `mailback explain ADDRESS` says why.
    returned            Mail from sendmail(1) went back to its sender: all its recipients are suppressed.
    not_refused         A suppressed recipient of sendmail(1) mail passed, since others of that mail are not suppressed.
                        Route through the socketmap if that matters: docs/postfix.md.
    truncated           A message is larger than `milter.max_message_bytes`: only its beginning was read. Raise the
                        limit to Postfix's message_size_limit if it should have been read whole.
    store_unavailable   The store could not commit or answer; `milter.failure_action` was applied, by default a 451, so
                        that the peer keeps the mail. The `reason`, and what to do (`advice`), stand in the event.
    failed              A defect: `milter.failure_action` was applied. Report it with the traceback.
    not_allowed         The MTA does not let us do `action` (tag, untag or hold): the message went without. Look for
                        what speaks the milter protocol in the place of Postfix.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import milter
from mailback.engine import TAG_PREFIX, Disposition, Outcome, unavailable
from mailback.envelope import Envelope, Source
from mailback.outbound.check import Answer, clip, printable
from mailback.service.log import get_logger, whom
from mailback.store.errors import StoreUnavailable
from mailback_milter.direction import Direction, DirectionRules, Sender

log = get_logger("milter")

ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE | milter.SETSYMLIST
_STEPS = (
    milter.P_NOUNKNOWN
    | milter.P_NR_CONN
    | milter.P_NR_HELO
    | milter.P_NR_MAIL
    | milter.P_NR_HDR
    | milter.P_NR_EOH  # not P_NOEOH: libmilter takes a message without header fields for a protocol error then
    | milter.P_HDR_LEADSPC
    | milter.P_SKIP
)
# The macros that we read, by the stage at which they are known; the stages not named send none.
_MACROS = {
    milter.M_CONNECT: "",
    milter.M_HELO: "",
    milter.M_ENVFROM: "i {daemon_name} {auth_authen} {client_addr} {client_name}",
    milter.M_ENVRCPT: "",
    milter.M_DATA: "",
    milter.M_EOH: "",
    milter.M_EOM: "i",
}
_REPLY_TEXT_MAX = 480
"""Octets; RFC 5321 section 4.5.3.1.5 allows 512 for a whole reply line."""


class Reader(Protocol):
    """What reads messages: `mailback_milter.reading.ReadingRoom`."""

    def inbound(self, envelope: Envelope, raw: bytes) -> Outcome: ...


class RecipientCheck(Protocol):
    """What knows the suppressed: `mailback.outbound.check.Check`."""

    def answer(self, recipient: str, *, sender: str | None = None) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Door:
    """What all sessions of a worker share."""

    reader: Reader
    check: RecipientCheck
    directions: DirectionRules
    failure_action: str
    """`tempfail`, `accept` or `quarantine`: what becomes of a message when we fail."""
    max_message_bytes: int
    open_sessions: set[Session] = field(default_factory=set)


@dataclass(slots=True)
class Transaction:
    """One message, from MAIL on."""

    sender: Sender
    direction: Direction
    recipients: list[str] = field(default_factory=list)
    """Of a message that is read: all of them; of sendmail(1) mail: those that are not suppressed."""
    refusal: Answer | None = None
    """Sendmail(1) mail: the first suppressed recipient."""
    head: list[bytes] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    size: int = 0
    truncated: bool = False
    forged: list[str] = field(default_factory=list)
    """Names of header fields that only we may set, as they stand, one for each field."""
    failed: bool = False
    """Something went wrong where no answer could be given."""

    @property
    def reads(self) -> bool:
        return self.direction is Direction.INBOUND or self.direction is Direction.REPORT

    @property
    def raw(self) -> bytes:
        """The message as it stood on the wire."""
        return b"".join((*self.head, b"\r\n", *self.body))

    def collect(self, octets: bytes, kept: list[bytes], limit: int) -> None:
        """Keep what is below the limit; the rest is not read."""
        room = limit - self.size
        if len(octets) > room:
            self.truncated = True
            octets = octets[:room]
        kept.append(octets)
        self.size += len(octets)


class Session:
    """One connection; each method is a callback and returns what libmilter is to answer."""

    __slots__ = ("_client_address", "_client_name", "_daemon_name", "_door", "_helo", "_steps", "_transaction")

    def __init__(self, door: Door) -> None:
        self._door = door
        self._steps = 0
        self._helo: str | None = None
        self._client_name: str | None = None
        self._client_address: str | None = None
        self._daemon_name: str | None = None
        self._transaction: Transaction | None = None

    # -- the conversation, in its order -----------------------------------------------------------------------

    def negotiate(self, context: milter.Context, options: list[int]) -> int:
        """Of what the MTA offers (actions, steps and two reserved words) take what we need."""
        actions = options[0] & ACTIONS
        steps = options[1] & _STEPS
        if actions & milter.SETSYMLIST:
            for stage, names in _MACROS.items():
                context.setsymlist(stage, names)
            steps |= options[1] & milter.P_NOCONNECT  # all that it tells is among the macros
        self._steps = steps
        options[:] = [actions, steps, 0, 0]
        self._door.open_sessions.add(self)
        return milter.CONTINUE

    def connect(self, context: milter.Context, name: str, _family: int, peer: object) -> int:
        """Comes only from an MTA that does not let us choose macros."""
        self._client_name = name
        self._client_address = str(peer[0]) if isinstance(peer, tuple) else None
        self._daemon_name = _macro(context, "{daemon_name}")
        return self._unanswered(milter.P_NR_CONN)

    def helo(self, _: milter.Context, name: str) -> int:
        """RFC 5321 section 4.1.1.1."""
        self._helo = name
        return self._unanswered(milter.P_NR_HELO)

    def mail(self, context: milter.Context, path: bytes, *_parameters: bytes) -> int:
        """RFC 5321 section 4.1.1.2; decides which way the message goes."""
        sender = Sender(
            address=_mailbox(path),
            queue_id=_macro(context, "i"),
            daemon_name=_macro(context, "{daemon_name}") or self._daemon_name,
            auth_user=_macro(context, "{auth_authen}"),
            client_address=_macro(context, "{client_addr}") or self._client_address,
        )
        self._client_name = _macro(context, "{client_name}") or self._client_name
        self._transaction = Transaction(sender, self._door.directions.direction(sender))
        return self._unanswered(milter.P_NR_MAIL)

    def recipient(self, context: milter.Context, path: bytes, *_parameters: bytes) -> int:
        """RFC 5321 section 4.1.1.3; for a message on its way out the one answer that matters."""
        transaction = self._transaction
        if transaction is None:
            return milter.CONTINUE
        address = _mailbox(path)
        if transaction.reads:
            transaction.recipients.append(address)
            return milter.CONTINUE
        answer = self._door.check.answer(address, sender=transaction.sender.address)
        if answer.allowed:
            transaction.recipients.append(address)
            return milter.CONTINUE
        if transaction.direction is Direction.SUBMITTED:
            transaction.refusal = transaction.refusal or answer
            return milter.CONTINUE
        log.info("refused", recipient=whom(address), sender=whom(transaction.sender.address))
        return _reply(context, answer.code, answer.enhanced, answer.text)

    def data(self, _: milter.Context) -> int:
        """The last moment to tell the MTA that we need not see the message."""
        transaction = self._transaction
        if transaction is None or transaction.reads or transaction.failed or transaction.refusal is not None:
            return milter.CONTINUE
        self._transaction = None
        return milter.ACCEPT

    def header(self, _: milter.Context, name: str, value: bytes) -> int:
        """One field; `value` keeps its leading space, and its folds with their line ends as LF."""
        transaction = self._transaction
        if transaction is not None and transaction.reads:
            if b"\n" in value:
                value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            colon = b":" if self._steps & milter.P_HDR_LEADSPC else b": "
            line = b"%b%b%b\r\n" % (name.encode(), colon, value)
            transaction.collect(line, transaction.head, self._door.max_message_bytes)
            if name[: len(TAG_PREFIX)].lower() == TAG_PREFIX:
                transaction.forged.append(name)
        return self._unanswered(milter.P_NR_HDR)

    def end_of_header(self, _: milter.Context) -> int:
        """Nothing to do; see `_STEPS` for why it is called."""
        return self._unanswered(milter.P_NR_EOH)

    def body(self, _: milter.Context, chunk: bytes) -> int:
        """Up to 64 kB of the body, lines ended by CRLF."""
        transaction = self._transaction
        if transaction is None or not transaction.reads:
            return milter.CONTINUE
        transaction.collect(chunk, transaction.body, self._door.max_message_bytes)
        return milter.SKIP if transaction.truncated and self._steps & milter.P_SKIP else milter.CONTINUE

    def end_of_message(self, context: milter.Context) -> int:
        """The one moment at which a message can be changed; what comes in is answered once its events are committed."""
        transaction = self._transaction
        if transaction is None:
            return milter.CONTINUE
        if transaction.direction is Direction.SUBMITTED and transaction.refusal and not transaction.failed:
            return self._return_to_sender(context, transaction, transaction.refusal)
        # Before anything can fail: whoever reads our tags behind us must be able to trust them.
        _remove(context, transaction.forged)
        if transaction.failed:
            return self._fail(context)
        return self._read(context, transaction)

    def abort(self, _: milter.Context) -> int:
        """The message is gone (RSET, a lost connection): free what was collected."""
        self._transaction = None
        return milter.CONTINUE

    def close(self) -> int:
        """The connection is gone."""
        self._transaction = None
        self._door.open_sessions.discard(self)
        return milter.CONTINUE

    # -- at the end of a message ------------------------------------------------------------------------------

    def _read(self, context: milter.Context, transaction: Transaction) -> int:
        sender = transaction.sender
        queue_id = _macro(context, "i") or sender.queue_id
        if transaction.truncated:
            log.warning("truncated", queue_id=queue_id, limit=self._door.max_message_bytes)
        envelope = Envelope(
            sender=sender.address,
            recipients=tuple(transaction.recipients),
            client_address=sender.client_address,
            client_name=self._client_name,
            helo=self._helo,
            auth_user=sender.auth_user,
            queue_id=queue_id,
            source=Source.MILTER,
        )
        outcome = self._door.reader.inbound(envelope, transaction.raw)
        log.info(
            "recorded", queue_id=queue_id, kind=outcome.kind.value, event_id=outcome.event_id,
            disposition=outcome.disposition.value, bytes=transaction.size, notes=outcome.notes or None,
        )  # fmt: skip
        return self._carry_out(context, transaction, outcome)

    def _carry_out(self, context: milter.Context, transaction: Transaction, outcome: Outcome) -> int:
        """The engine's outcome in the milter's words."""
        disposition = outcome.disposition
        if disposition is Disposition.DISCARD:
            return milter.DISCARD
        if disposition is Disposition.TEMPFAIL:
            return _reply(context, outcome.smtp_code, outcome.enhanced, outcome.text)
        if disposition is Disposition.REJECT and transaction.direction is not Direction.REPORT:
            return _reply(context, outcome.smtp_code, outcome.enhanced, outcome.text)
        # A report that is rejected would be written again, for ever: it passes with its tags.
        _add(context, outcome.add_headers, leading_space=bool(self._steps & milter.P_HDR_LEADSPC))
        if disposition is Disposition.QUARANTINE:
            _hold(context, outcome.text)
        return milter.CONTINUE

    def _return_to_sender(self, context: milter.Context, transaction: Transaction, refusal: Answer) -> int:
        """Mail from sendmail(1) to suppressed recipients: rejected as a whole, it comes back to its sender."""
        queue_id = transaction.sender.queue_id
        if transaction.recipients:
            log.warning("not_refused", queue_id=queue_id, passed=len(transaction.recipients))
            return milter.CONTINUE
        log.info("returned", queue_id=queue_id, sender=whom(transaction.sender.address))
        return _reply(context, refusal.code, refusal.enhanced, refusal.text)

    # -- when we fail -----------------------------------------------------------------------------------------

    def failed(self, context: milter.Context, stage: str, error: Exception) -> int:
        """The boundary: `error` came out of a callback. Applies the failure action as far as `stage` allows."""
        queue_id = self._transaction.sender.queue_id if self._transaction else None
        if isinstance(error, StoreUnavailable):
            log.error(
                "store_unavailable", stage=stage, queue_id=queue_id, reason=error.reason, advice=error.advice,
                failure_action=self._door.failure_action,
            )  # fmt: skip
        else:
            log.exception("failed", stage=stage, queue_id=queue_id, failure_action=self._door.failure_action)
        transaction = self._transaction
        if transaction is None:
            return self._unanswered(_NO_REPLY.get(stage, 0))
        transaction.failed = True
        if stage == "eom":
            return self._fail(context)
        if stage == "rcpt" and transaction.direction is Direction.OUTBOUND and self._door.failure_action == "tempfail":
            return _reply(context, 451, "4.3.0", unavailable())
        return self._unanswered(_NO_REPLY.get(stage, 0))

    def _fail(self, context: milter.Context) -> int:
        """The failure action at the end of a message, the one stage at which each of the three can be taken."""
        if self._door.failure_action == "tempfail":
            return _reply(context, 451, "4.3.0", unavailable())
        if self._door.failure_action == "quarantine":
            _hold(context, "Mailback could not read this message")
        return milter.CONTINUE

    def _unanswered(self, step: int) -> int:
        """No answer where that was negotiated; an MTA that cannot do without gets the one that means go on."""
        return milter.NOREPLY if self._steps & step else milter.CONTINUE


_NO_REPLY = {
    "connect": milter.P_NR_CONN,
    "helo": milter.P_NR_HELO,
    "mail": milter.P_NR_MAIL,
    "header": milter.P_NR_HDR,
    "eoh": milter.P_NR_EOH,
}


def _mailbox(path: bytes) -> str:
    """The address of MAIL or RCPT: smtpd(8) sends it in angle brackets, cleanup(8) without."""
    if path[:1] == b"<" and path[-1:] == b">":
        path = path[1:-1]
    return path.decode("utf-8", "backslashreplace")  # never surrogates: the store could not write them


def _macro(context: milter.Context, name: str) -> str | None:
    """A macro's value; None when it is not set. One that is not UTF-8 counts as not set: pymilter cannot read it."""
    try:
        return context.getsymval(name) or None
    except UnicodeDecodeError:
        return None


def _reply(context: milter.Context, code: int, enhanced: str, text: str) -> int:
    """Set the SMTP answer. The text goes through `printable`, since libmilter takes `%` for a format."""
    context.setreply(str(code), enhanced, clip(printable(text), _REPLY_TEXT_MAX))
    return milter.TEMPFAIL if code < 500 else milter.REJECT


def _remove(context: milter.Context, names: list[str]) -> None:
    """Remove each field of these names. From the last: removing one renumbers those of its name behind it."""
    if not names:
        return
    places = Counter(name.lower() for name in names)
    try:
        for name in names:
            context.chgheader(name, places[name.lower()], None)
            places[name.lower()] -= 1
    except milter.error:
        log.error("not_allowed", action="remove header fields")


def _add(context: milter.Context, fields: tuple[tuple[str, str], ...], *, leading_space: bool) -> None:
    """Put fields on top of the message, in their order."""
    space = " " if leading_space else ""
    try:
        for name, value in reversed(fields):
            context.addheader(name, space + value, 0)
    except milter.error:
        log.error("not_allowed", action="add header fields")


def _hold(context: milter.Context, reason: str) -> None:
    """Onto Postfix's hold queue; `postsuper -H` lets it go, a milter cannot."""
    try:
        context.quarantine(clip(printable(reason), _REPLY_TEXT_MAX))
    except milter.error:
        log.error("not_allowed", action="hold")
