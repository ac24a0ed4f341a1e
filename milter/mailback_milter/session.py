"""One connection from the MTA: what each step of the milter protocol is answered. No socket, no clock, no thread.

A message on its way out is answered at RCPT, and at its end, once the journal's entry is committed; of its body the
beginning is kept. Where there is no journal, it is answered at DATA, and nothing of it is sent to us. With signed
return paths it leaves under another envelope sender.

A message that comes in is collected, byte for byte as it stood on the wire (SMFIP_HDR_LEADSPC; line ends CRLF), given
to the engine at the end, and tagged; fields that only we may write are removed: our tags, and authentication results
under our name. What the MTA need not wait for is negotiated to go without an answer (each answer costs both sides a
change of process, more than all that is computed for it), what we do not need is negotiated away, and macros are asked
for by name (SMFIF_SETSYMLIST), so `milter_*_macros` in main.cf need no change.

Where nobody waits for an answer at RCPT (mail from sendmail(1), reports of Postfix itself) there is none but at the end
of the message. Measured with Postfix 3.7: a temporary failure there leaves the file in maildrop or the bounced message
in the queue, and both are tried again; a rejection there sends the mail back to its sender with the reason. A refusal
at RCPT would have pickup(8) try the same file for ever.

Log events (of the part `milter`):

    recorded            A message came in and its events are committed. Nothing to do.
    refused             A recipient was refused because it is suppressed; `mailback explain ADDRESS` says why.
    backscatter         Mail from the null sender to an address in the bounce domain was refused at RCPT: it is not one
                        that we gave out (`standing`: unsigned, wrong, expired), so no mail of ours is answered. Nothing
                        to do; many that are expired or wrong: docs/belief.md.
    returned            Mail from sendmail(1) went back to its sender: all its recipients are suppressed.
    not_refused         A suppressed recipient of sendmail(1) mail passed, since others of that mail are not suppressed.
                        Route through the socketmap if that matters: docs/postfix.md.
    truncated           A message is larger than `milter.max_message_bytes`: only its beginning was read. Raise the
                        limit to Postfix's message_size_limit if it should have been read whole.
    store_unavailable   The store could not commit or answer; `milter.failure_action` was applied, by default a 451, so
                        that the peer keeps the mail. The `reason`, and what to do (`advice`), stand in the event.
    failed              A defect: `milter.failure_action` was applied. Report it with the traceback.
    not_allowed         The MTA does not let us do `action` (tag, untag, hold, sign, restore, redirect, copy, withhold):
                        the message went without. Look for what speaks the milter protocol in the place of Postfix.
    withheld            A message of a mailing list or campaign went to some of its recipients only: `recipients` of
                        them have opted out of it. `mailback explain ADDRESS` says why. Where all of them have, the
                        message is `refused`.
    held                A reply was put onto Postfix's hold queue, `reason` says why. `postqueue -p` shows it (`!`),
                        `postsuper -H ID` delivers it, `postsuper -d ID` deletes it.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from mailback.auth import authres
from mailback.engine import TAG_PREFIX, Disposition, Outcome, unavailable
from mailback.envelope import Envelope, Source
from mailback.outbound.check import Answer, clip, printable
from mailback.outbound.outgoing import BODY_READ, Outgoing
from mailback.returnpath import REFUSAL, ReturnPaths
from mailback.service.log import get_logger, whom
from mailback.store.errors import StoreUnavailable
from mailback.store.records import JournalEntry
from mailback_milter import protocol
from mailback_milter.direction import Direction, DirectionRules, Sender
from mailback_milter.protocol import Action, Command, Stage, Step

log = get_logger("milter")

_RESTORING = Action.ADD_RECIPIENT | Action.REMOVE_RECIPIENT
_ACTIONS = Action.ADD_FIELDS | Action.CHANGE_FIELDS | Action.QUARANTINE | Action.CHOOSE_MACROS
_STEPS = (
    Step.NO_UNKNOWN
    | Step.NO_END_OF_HEADER
    | Step.QUIET_CONNECT
    | Step.QUIET_HELO
    | Step.QUIET_MAIL
    | Step.QUIET_HEADER
    | Step.QUIET_BODY
    | Step.LEADING_SPACE
)
# The macros that we read, by the stage at which they are known. All the others are turned off.
_MACROS = (
    (Stage.CONNECT, ""),
    (Stage.HELO, ""),
    (Stage.MAIL, "i {daemon_name} {auth_authen} {client_addr} {client_name}"),
    (Stage.RECIPIENT, ""),
    (Stage.DATA, ""),
    (Stage.END_OF_HEADER, ""),
    (Stage.END_OF_MESSAGE, "i"),
)
_QUIET = {
    Command.CONNECT: Step.QUIET_CONNECT,
    Command.HELO: Step.QUIET_HELO,
    Command.MAIL: Step.QUIET_MAIL,
    Command.HEADER: Step.QUIET_HEADER,
    Command.BODY: Step.QUIET_BODY,
}
"""Commands that are not answered where the step was negotiated."""

_TAG_PREFIX = TAG_PREFIX.encode()
_OURS_BEGIN = b"XxAa"
"""With what the names of fields begin that only we may write."""
_RESULTS = authres.FIELD.lower().encode()
_REPLY_TEXT_MAX = 480
"""Octets; RFC 5321 section 4.5.3.1.5 allows 512 for a whole reply line."""


class RecipientCheck(Protocol):
    """What knows the suppressed: `mailback.outbound.check.Check`."""

    def answer(
        self,
        recipient: str,
        *,
        sender: str | None = None,
        list_id: str | None = None,
        campaign: str | None = None,
        token: str | None = None,
    ) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What all sessions of a worker share."""

    check: RecipientCheck
    directions: DirectionRules
    failure_action: str
    """`tempfail`, `accept` or `quarantine`: what becomes of a message when we fail."""
    max_message_bytes: int
    authserv_id: str | None
    """Our name: what comes in cannot have authentication results under it. None where we write none and were given no
    name: then it would be that of the whole host, under which other milters of this Postfix rightly speak."""
    outgoing: Outgoing | None = None
    """What is done with mail that goes out, apart from the check of its recipients."""
    return_paths: ReturnPaths | None = None
    """None where return paths are not signed."""
    readdresses: bool = False
    """Whether replies of some route go to other recipients than they were addressed to, or to further ones."""

    @property
    def actions(self) -> int:
        """What we ask to be allowed."""
        signs = Action.CHANGE_SENDER | _RESTORING if self.return_paths is not None else 0
        readdresses = _RESTORING if self.readdresses else 0
        withholds = Action.REMOVE_RECIPIENT if self.outgoing is not None and self.outgoing.reads_header else 0
        return _ACTIONS | signs | readdresses | withholds

    @property
    def steps(self) -> int:
        """How we ask the MTA to shorten the conversation. DATA is of use only where a message that goes out need not be
        seen: see `Session._data`."""
        return _STEPS | (Step.NO_DATA if self.outgoing is not None else 0)


class Sending(NamedTuple):
    """The answer at the end of a message that goes out: `Session.sent` follows once the entry is committed."""

    entry: JournalEntry
    return_path: str | None


class Reading(NamedTuple):
    """The answer at the end of a message that has to be read first: `Session.recorded` or `Session.failed` follows."""

    envelope: Envelope
    raw: bytes


def _token() -> str:
    return f"milter:{secrets.token_hex(6)}"


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
    forged: list[tuple[int, bytes]] = field(default_factory=list)
    """Header fields that only we may set, from the top: place among those of its name, from 1; name as it stands."""
    places: Counter[bytes] = field(default_factory=Counter)
    """How many header fields there were of each name, in lower case, of which some may be forged."""
    withheld: tuple[str, ...] = ()
    """Recipients of a message that goes out who have opted out of its list or campaign."""
    token: str = field(default_factory=_token)
    """What the check knows the message by."""
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

    def note(self, name: bytes, *, forged: bool) -> None:
        """Count a field of a name that may be forged; where it is, remember its place."""
        key = name.rstrip().lower()
        self.places[key] += 1
        if forged:
            self.forged.append((self.places[key], name))


class Session:
    """One connection. `take` is given each packet and returns what to send back."""

    __slots__ = (
        "_actions", "_client_address", "_client_name", "_daemon_name", "_helo", "_macros", "_queue_id", "_rules",
        "_steps", "_transaction",
    )  # fmt: skip

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._actions = 0
        self._steps = 0
        self._macros: dict[int, bytes] = {}
        """By the command that they came with, as they came: they come with each header field, and few are read."""
        self._forget_client()

    def _forget_client(self) -> None:
        self._helo: str | None = None
        self._client_name: str | None = None
        self._client_address: str | None = None
        self._daemon_name: str | None = None
        self._queue_id: str | None = None
        self._transaction: Transaction | None = None

    def take(self, command: int, data: bytes) -> bytes | Reading | Sending:
        """What one packet is answered; empty for no answer. Raises ProtocolError only.

        Whatever else goes wrong here becomes the failure action, so nothing else reaches the MTA.
        """
        try:
            answer = _DISPATCH.get(command, Session._unknown)(self, data)
        except protocol.ProtocolError:
            raise
        except Exception as error:
            return self.failed(command, error)
        if answer == protocol.CONTINUE and self._steps & _QUIET.get(command, 0):
            return protocol.SILENCE
        return answer

    # -- the conversation, in its order -----------------------------------------------------------------------

    def _negotiate(self, data: bytes) -> bytes:
        """Of what the MTA offers take what we need."""
        version, actions, steps = protocol.opening(data)
        self._actions = actions & self._rules.actions
        self._steps = steps & self._rules.steps
        if not self._steps & Step.QUIET_BODY:
            self._steps |= steps & Step.SKIP_ALLOWED
        if not self._actions & Action.CHOOSE_MACROS:
            return protocol.negotiated(version, self._actions, self._steps, ())
        self._steps |= steps & Step.NO_CONNECT  # all that it tells is among the macros
        return protocol.negotiated(version, self._actions, self._steps, _MACROS)

    def _macro(self, data: bytes) -> bytes:
        if not data:
            raise protocol.ProtocolError("macros of no command")
        self._macros[data[0]] = data
        return protocol.SILENCE

    def _told(self, command: int) -> dict[str, str]:
        """The macros that came with a command."""
        data = self._macros.pop(command, None)
        return {} if data is None else protocol.macros(data)

    def _connect(self, data: bytes) -> bytes:
        """Comes only from an MTA that does not let us choose macros."""
        self._client_name, self._client_address = protocol.peer(data)
        self._daemon_name = self._told(Command.CONNECT).get("daemon_name")
        return protocol.CONTINUE

    def _hello(self, data: bytes) -> bytes:
        """RFC 5321 section 4.1.1.1."""
        self._helo = protocol.text(data.rstrip(b"\0"))
        return protocol.CONTINUE

    def _mail(self, data: bytes) -> bytes:
        """RFC 5321 section 4.1.1.2; decides which way the message goes."""
        macros = self._told(Command.MAIL)
        sender = Sender(
            address=_mailbox(data),
            queue_id=macros.get("i"),
            daemon_name=macros.get("daemon_name") or self._daemon_name,
            auth_user=macros.get("auth_authen"),
            client_address=macros.get("client_addr", "").removeprefix("IPv6:") or self._client_address,
        )
        self._client_name = macros.get("client_name") or self._client_name
        self._queue_id = sender.queue_id
        self._transaction = Transaction(sender, self._rules.directions.direction(sender))
        return protocol.CONTINUE

    def _recipient(self, data: bytes) -> bytes:
        """RFC 5321 section 4.1.1.3; for a message on its way out the one answer that matters."""
        transaction = self._transaction
        if transaction is None:
            return protocol.CONTINUE
        address = _mailbox(data)
        if transaction.reads:
            return self._backscatter(transaction, address) or self._accepted(transaction, address)
        answer = self._rules.check.answer(address, sender=transaction.sender.address, token=transaction.token)
        submitted = transaction.direction is Direction.SUBMITTED
        if answer.allowed or (submitted and answer.later):
            # What must wait and has nobody who would try again waits in the queue: its table of transports holds it.
            return self._accepted(transaction, address)
        if submitted:
            transaction.refusal = transaction.refusal or answer
            return protocol.CONTINUE
        log.info("refused", recipient=whom(address), sender=whom(transaction.sender.address))
        return _reply(answer.code, answer.enhanced, answer.text)

    def _accepted(self, transaction: Transaction, address: str) -> bytes:
        transaction.recipients.append(address)
        return protocol.CONTINUE

    def _backscatter(self, transaction: Transaction, address: str) -> bytes | None:
        """The refusal of a bounce to an address that we did not give out; None for anything else.

        Never of a report that this Postfix wrote itself: nobody would hear it, see `_return_to_sender`.
        """
        paths = self._rules.return_paths
        if paths is None or transaction.sender.address or transaction.direction is not Direction.INBOUND:
            return None
        standing = paths.refuses(address)
        if standing is None:
            return None
        log.info(
            "backscatter", recipient=whom(address), standing=standing.value, client=transaction.sender.client_address
        )
        return _reply(550, "5.7.1", REFUSAL)

    def _data(self, _: bytes) -> bytes:
        """The last moment to tell the MTA that we need not see the message."""
        transaction = self._transaction
        if transaction is None or transaction.reads or transaction.failed or transaction.refusal is not None:
            return protocol.CONTINUE
        if self._rules.outgoing is not None and transaction.recipients:
            return protocol.CONTINUE
        self._transaction = None
        return protocol.ACCEPT

    def _header(self, data: bytes) -> bytes:
        """One field; its value keeps the leading space, and its folds with their line ends as LF."""
        transaction = self._transaction
        if transaction is None or not (transaction.reads or self._remembers):
            return protocol.CONTINUE
        name, _, value = data[:-1].partition(b"\0")
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        colon = b":" if self._steps & Step.LEADING_SPACE else b": "
        transaction.collect(b"%b%b%b\r\n" % (name, colon, value), transaction.head, self._rules.max_message_bytes)
        initial = name[:1]
        if initial not in _OURS_BEGIN:
            return protocol.CONTINUE
        if initial in b"Xx" and name[: len(_TAG_PREFIX)].lower() == _TAG_PREFIX:
            transaction.note(name, forged=True)
        elif initial in b"Aa" and name.rstrip().lower() == _RESULTS and transaction.reads:
            ours = self._rules.authserv_id
            transaction.note(name, forged=ours is not None and authres.poses(value, ours))
        return protocol.CONTINUE

    def _body(self, data: bytes) -> bytes:
        """Up to 64 kB of the body, lines ended by CRLF."""
        transaction = self._transaction
        if transaction is None:
            return protocol.CONTINUE
        if not transaction.reads:
            return self._beginning(transaction, data)
        transaction.collect(data, transaction.body, self._rules.max_message_bytes)
        return protocol.SKIP if transaction.truncated and self._steps & Step.SKIP_ALLOWED else protocol.CONTINUE

    def _beginning(self, transaction: Transaction, data: bytes) -> bytes:
        """The first piece of the body of a message that goes out is all that is looked at."""
        outgoing = self._rules.outgoing
        if outgoing is not None and outgoing.reads_body and not transaction.body:
            transaction.body.append(data[:BODY_READ])
        return protocol.SKIP if self._steps & Step.SKIP_ALLOWED else protocol.CONTINUE

    @property
    def _remembers(self) -> bool:
        return self._rules.outgoing is not None and self._rules.outgoing.reads_header

    def _end_of_message(self, data: bytes) -> bytes | Reading | Sending:
        """The one moment at which a message can be changed; what comes in is answered once its events are committed."""
        if data:
            self._body(data)  # sendmail may send the last of the body with it
        self._queue_id = self._told(Command.END_OF_MESSAGE).get("i") or self._queue_id
        transaction = self._transaction
        if transaction is None:
            return protocol.CONTINUE
        if transaction.failed:
            return self._fail(transaction)
        if transaction.refusal is not None:
            refused = self._return_to_sender(transaction, transaction.refusal)
            if refused is not None:
                return refused
        if not transaction.reads:
            return self._send(transaction)
        if transaction.truncated:
            log.warning("truncated", queue_id=self._queue_id, limit=self._rules.max_message_bytes)
        return Reading(self._envelope(transaction), transaction.raw)

    def _abort(self, _: bytes) -> bytes:
        """The message is gone (RSET, a lost connection): free what was collected."""
        self._transaction = None
        return protocol.SILENCE

    def _new_client(self, _: bytes) -> bytes:
        """The MTA keeps the connection for its next client (SMFIC_QUIT_NC; sendmail does)."""
        self._forget_client()
        self._macros.clear()
        return protocol.SILENCE

    def _silent(self, _: bytes) -> bytes:
        return protocol.SILENCE

    def _unknown(self, _: bytes) -> bytes:
        """Steps that we have nothing to say to."""
        return protocol.CONTINUE

    # -- at the end of a message ------------------------------------------------------------------------------

    def _envelope(self, transaction: Transaction) -> Envelope:
        return Envelope(
            sender=transaction.sender.address,
            recipients=tuple(transaction.recipients),
            client_address=transaction.sender.client_address,
            client_name=self._client_name,
            helo=self._helo,
            auth_user=transaction.sender.auth_user,
            queue_id=self._queue_id,
            source=Source.MILTER,
        )

    def recorded(self, outcome: Outcome) -> bytes:
        """A `Reading` was read and its events are committed: the engine's outcome in the protocol's words."""
        transaction = self._transaction
        if transaction is None:  # aborted meanwhile
            return protocol.CONTINUE
        log.info(
            "recorded", queue_id=self._queue_id, kind=outcome.kind.value, event_id=outcome.event_id,
            disposition=outcome.disposition.value, bytes=transaction.size, notes=outcome.notes or None,
        )  # fmt: skip
        untagged = self._remove(transaction.forged)
        match outcome.disposition:
            case Disposition.DISCARD:
                return protocol.DISCARD
            case Disposition.TEMPFAIL:
                return _reply(outcome.smtp_code, outcome.enhanced, outcome.text)
            case Disposition.REJECT if transaction.direction is not Direction.REPORT:
                return _reply(outcome.smtp_code, outcome.enhanced, outcome.text)
        # A report that is rejected would be written again, for ever: it passes with its tags.
        delivery = outcome.delivery
        held = self._hold(delivery.held or outcome.text) if outcome.disposition is Disposition.QUARANTINE else b""
        if held:
            log.info("held", queue_id=self._queue_id, event_id=outcome.event_id, reason=delivery.held)
        changed = self._tag_subject(transaction, delivery.subject_tag) if delivery.subject_tag else b""
        return untagged + self._add(outcome.add_headers) + changed + self._readdress(outcome) + held + protocol.CONTINUE

    def _readdress(self, outcome: Outcome) -> bytes:
        """The recipients that the message is delivered to."""
        transaction = self._transaction
        delivery = outcome.delivery
        if transaction is None or delivery.redirect is None:
            return self._restore(outcome.restored) + self._copy(delivery.copies)
        if not self._may(_RESTORING, "redirect"):
            return b""
        gone = b"".join(map(protocol.remove_recipient, dict.fromkeys(transaction.recipients)))
        return gone + protocol.add_recipient(delivery.redirect) + self._copy(delivery.copies)

    def _copy(self, recipients: tuple[str, ...]) -> bytes:
        if not recipients or not self._may(Action.ADD_RECIPIENT, "copy"):
            return b""
        return b"".join(map(protocol.add_recipient, recipients))

    def _tag_subject(self, transaction: Transaction, tag: str) -> bytes:
        """The first Subject with the tag before it; one that bears the tag already stays as it is."""
        if not self._may(Action.CHANGE_FIELDS | Action.ADD_FIELDS, "tag the subject"):
            return b""
        space = b" " if self._steps & Step.LEADING_SPACE else b""
        told = next((field for field in transaction.head if field[:8].lower() in (b"subject:", b"subject ")), None)
        if told is None:
            return protocol.insert_field(0, "Subject", space.decode() + tag)
        name, _, value = told.partition(b":")
        value = value.replace(b"\r\n", b"\n").strip(b" \t\n")
        octets = tag.encode()
        if value.startswith(octets):
            return b""
        return protocol.change_field(1, name, space + octets + b" " + value)

    def _send(self, transaction: Transaction) -> bytes | Sending:
        """A message goes out: remembered first, where it is to be, and under the return path that is signed for it."""
        outgoing = self._rules.outgoing
        if outgoing is None:
            return protocol.CONTINUE
        sender, recipients = transaction.sender.address, transaction.recipients
        if not outgoing.reads_header:
            return self.sent(outgoing.sign(sender, recipients))
        entry = outgoing.entry(sender, recipients, transaction.raw, return_path=None, queue_id=self._queue_id)
        opted_out = self._opted_out(entry)
        if opted_out:
            kept = tuple(who for who in recipients if who not in opted_out)
            if not kept or not self._may(Action.REMOVE_RECIPIENT, "withhold"):
                return self._refused_as_a_whole(transaction, next(iter(opted_out.values())))
            transaction.withheld = tuple(opted_out)
            log.info("withheld", queue_id=self._queue_id, recipients=len(opted_out), passed=len(kept))
            entry = replace(entry, recipients=kept)
        return_path = outgoing.sign(sender, entry.recipients)
        if return_path is not None:
            entry = replace(entry, return_path=return_path.rpartition("@")[0].lower())
        return Sending(entry, return_path)

    def _opted_out(self, entry: JournalEntry) -> dict[str, Answer]:
        """The recipients that want no mail of the list or campaign that a message belongs to, as its header tells."""
        if not (entry.list_id or entry.campaign):
            return {}
        token = self._transaction.token if self._transaction is not None else None
        answers = {
            who: self._rules.check.answer(
                who, sender=entry.envelope_sender, list_id=entry.list_id, campaign=entry.campaign, token=token
            )
            for who in entry.recipients
        }
        # Who only has to wait is not taken off a message that was accepted: nobody would ever send it to him again.
        return {who: answer for who, answer in answers.items() if not answer.allowed and not answer.later}

    def _refused_as_a_whole(self, transaction: Transaction, answer: Answer) -> bytes:
        log.info("refused", recipient=whom(transaction.recipients[0]), sender=whom(transaction.sender.address))
        return _reply(answer.code, answer.enhanced, answer.text)

    def sent(self, return_path: str | None) -> bytes:
        """A message may go, under this return path where it is another than its sender gave."""
        withheld = self._transaction.withheld if self._transaction is not None else ()
        removed = b"".join(map(protocol.remove_recipient, withheld))
        if return_path is None or not self._may(Action.CHANGE_SENDER, "sign the return path"):
            return removed + protocol.CONTINUE
        return removed + protocol.change_sender(return_path) + protocol.CONTINUE

    def _return_to_sender(self, transaction: Transaction, refusal: Answer) -> bytes | None:
        """Mail from sendmail(1) to suppressed recipients: rejected as a whole, it comes back to its sender.

        None where it passes, because others of its recipients are not suppressed.
        """
        if transaction.recipients:
            log.warning("not_refused", queue_id=self._queue_id, passed=len(transaction.recipients))
            return None
        log.info("returned", queue_id=self._queue_id, sender=whom(transaction.sender.address))
        return _reply(refusal.code, refusal.enhanced, refusal.text)

    # -- when we fail -----------------------------------------------------------------------------------------

    def failed(self, command: int, error: BaseException) -> bytes:
        """`error` came out of a step. The failure action, as far as that step allows for it."""
        told = {"step": chr(command), "queue_id": self._queue_id, "failure_action": self._rules.failure_action}
        if isinstance(error, StoreUnavailable):
            log.error("store_unavailable", **told, reason=error.reason, advice=error.advice)
        else:
            log.error("failed", **told, exc_info=error)
        transaction = self._transaction
        if transaction is not None:
            transaction.failed = True
            if command == Command.END_OF_MESSAGE:
                return self._fail(transaction)
            somebody_waits = transaction.direction is Direction.OUTBOUND and command == Command.RECIPIENT
            if somebody_waits and self._rules.failure_action == "tempfail":
                return _reply(451, "4.3.0", unavailable())
        return protocol.SILENCE if self._steps & _QUIET.get(command, 0) else protocol.CONTINUE

    def _fail(self, transaction: Transaction) -> bytes:
        """The failure action at the end of a message, the one step at which each of the three can be taken."""
        if self._rules.failure_action == "tempfail":
            return _reply(451, "4.3.0", unavailable())
        # Whoever reads our tags behind us must be able to trust them, most of all when we could not set any.
        untagged = self._remove(transaction.forged)
        held = self._hold("Mailback could not read this message") if self._rules.failure_action == "quarantine" else b""
        return untagged + held + protocol.CONTINUE

    # -- changes ----------------------------------------------------------------------------------------------

    def _remove(self, fields: list[tuple[int, bytes]]) -> bytes:
        """Remove each of these fields. From the last: removing one renumbers those of its name behind it."""
        if not fields or not self._may(Action.CHANGE_FIELDS, "remove header fields"):
            return b""
        return b"".join(protocol.remove_field(place, name) for place, name in reversed(fields))

    def _add(self, fields: tuple[tuple[str, str], ...]) -> bytes:
        """Put fields on top of the message, in their order: each goes above the one before it."""
        if not fields or not self._may(Action.ADD_FIELDS, "add header fields"):
            return b""
        space = " " if self._steps & Step.LEADING_SPACE else ""
        return b"".join(protocol.insert_field(0, name, space + value) for name, value in reversed(fields))

    def _restore(self, recipients: tuple[tuple[str, str], ...]) -> bytes:
        """Deliver to whom the sender had named as the return path, and not to the signed address."""
        if not recipients or not self._may(_RESTORING, "restore the recipient"):
            return b""
        return b"".join(protocol.replace_recipient(signed, original) for signed, original in recipients)

    def _hold(self, reason: str) -> bytes:
        """Onto Postfix's hold queue; `postsuper -H` lets it go, a milter cannot."""
        if not self._may(Action.QUARANTINE, "hold"):
            return b""
        return protocol.quarantine(clip(printable(reason), _REPLY_TEXT_MAX))

    def _may(self, action: int, words: str) -> bool:
        if self._actions & action == action:
            return True
        log.error("not_allowed", action=words, queue_id=self._queue_id)
        return False


_DISPATCH: dict[int, Callable[[Session, bytes], bytes | Reading | Sending]] = {
    Command.NEGOTIATE: Session._negotiate,
    Command.MACRO: Session._macro,
    Command.CONNECT: Session._connect,
    Command.HELO: Session._hello,
    Command.MAIL: Session._mail,
    Command.RECIPIENT: Session._recipient,
    Command.DATA: Session._data,
    Command.HEADER: Session._header,
    Command.BODY: Session._body,
    Command.END_OF_MESSAGE: Session._end_of_message,
    Command.ABORT: Session._abort,
    Command.QUIT_NEW_CONNECTION: Session._new_client,
    Command.QUIT: Session._silent,
}


def _mailbox(data: bytes) -> str:
    """The address of MAIL or RCPT, before its parameters: smtpd(8) sends it in angle brackets, cleanup(8) without."""
    path = data.partition(b"\0")[0]
    if path[:1] == b"<" and path[-1:] == b">":
        path = path[1:-1]
    return protocol.text(path)


def _reply(code: int, enhanced: str, text: str) -> bytes:
    return protocol.reply(code, enhanced, clip(printable(text), _REPLY_TEXT_MAX))
