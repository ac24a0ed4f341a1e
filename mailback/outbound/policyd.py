"""Postfix policy delegation (SMTPD_POLICY_README): `name=value` lines, an empty line, an answer `action=...`.

    smtpd_recipient_restrictions = ...
        check_policy_service { inet:127.0.0.1:8892, timeout=10s, default_action=DUNNO }

Only `protocol_state=RCPT` is looked at, where there is one recipient; everything else is answered `DUNNO`, which
leaves the decision to the restrictions that follow. So is what is no policy request at all: this service refuses
suppressed recipients and never anything else. `policy_context` (`-o smtpd_policy_service_policy_context=` of a
master.cf service, Postfix 3.1) may name the stream or list whose suppressions count too, as `stream:marketing`, or the
address that this service's mail leaves from, as `ip:192.0.2.25`: then breakers of other addresses do not hold it.

When the store cannot be read the answer is `DUNNO` as well: a mail system that stops because its suppression list
cannot be read does more harm than a message that bounces once more. It is said loudly in the log. The socketmap
(`mailback.outbound.socketmap`) is the front for those who want it the other way round.

Limits: a request of `REQUEST_MAX` octets; a peer that sends more without an empty line is cut off.

Log events: see `mailback.outbound.part`.
"""

from __future__ import annotations

from typing import Final, TypedDict, cast

from mailback.outbound.check import Answer, Check
from mailback.outbound.connection import Connection, Connections, Trouble

REQUEST_MAX: Final = 65536
"""Postfix sends well below 4 kB; certificate subjects and SASL names are the longest attributes."""

DUNNO: Final = b"action=DUNNO\n\n"

_CONTEXTS: Final = {"list": "list_id", "campaign": "campaign", "stream": "stream", "ip": "sending_ip"}


class Concerns(TypedDict, total=False):
    """Arguments of `Check.answer` that a policy context may tell."""

    list_id: str
    campaign: str
    stream: str
    sending_ip: str


class PolicyConnection(Connection):
    """One connection of Postfix's smtpd; it sends request after request, and may send several at once."""

    front = "policy"

    def __init__(self, check: Check, trouble: Trouble, connections: Connections) -> None:
        super().__init__(connections)
        self._check = check
        self._trouble = trouble

    def data_received(self, data: bytes) -> None:
        # Postfix never sends CR; a person with a terminal does, and no value may hold one.
        super().data_received(data.replace(b"\r", b"") if b"\r" in data else data)

    def consume(self, buffer: bytes) -> int:
        """Answer every complete request in `buffer`; the number of octets used."""
        start = 0
        answers = []
        while (end := buffer.find(b"\n\n", start)) >= 0:
            answers.append(self.answer(buffer[start:end]))
            start = end + 2
        if answers:
            self.send(b"".join(answers))
        if len(buffer) - start > REQUEST_MAX:
            self.cut_off(f"a request of more than {REQUEST_MAX} octets")
        return start

    def answer(self, request: bytes) -> bytes:
        """The answer to one request, its empty line left out."""
        attributes = read_attributes(request)
        recipient = attributes.get(b"recipient")
        if not recipient or attributes.get(b"protocol_state") != b"RCPT":
            return DUNNO
        sender = attributes.get(b"sender")
        try:
            answer = self._check.answer(
                _text(recipient),
                sender=None if sender is None else _text(sender),
                token=_token(attributes.get(b"instance", b"")),
                **_concerns(_text(attributes.get(b"policy_context", b""))),
            )
        except Exception as error:  # whatever is wrong here, mail goes on
            self._trouble(self.front, error)
            return DUNNO
        return DUNNO if answer.allowed else action(answer)


def read_attributes(request: bytes) -> dict[bytes, bytes]:
    """The attributes of a request; lines without `=` are passed over, the first of two equal names counts."""
    attributes: dict[bytes, bytes] = {}
    for line in request.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            attributes.setdefault(name, value)
    return attributes


def action(answer: Answer) -> bytes:
    """The reply of an answer as an access(5) action."""
    return b"action=%b\n\n" % answer.reply.encode("ascii")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")  # not surrogates: no database takes them


def _token(instance: bytes) -> str | None:
    """What Postfix tells one message by: the same for all its recipients, and for each time that it is asked about."""
    return f"policy:{instance.hex()}" if instance else None


def _concerns(context: str) -> Concerns:
    """The list, campaign or stream that a policy context names, as arguments of `Check.answer`."""
    kind, _, name = context.partition(":")
    return cast("Concerns", {_CONTEXTS[kind]: name} if name and kind in _CONTEXTS else {})
