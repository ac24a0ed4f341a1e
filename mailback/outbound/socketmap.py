"""Postfix socketmap tables (socketmap_table(5)): netstrings `NAME KEY` in, `OK DATA`, `NOTFOUND `, `TEMP`, `PERM` out.

Two tables, over one list:

`access`     check_recipient_access socketmap:inet:127.0.0.1:8893:access
             answers an access(5) action, `550 5.7.1 <address>: suppressed ...`.
`transport`  transport_maps = socketmap:inet:127.0.0.1:8893:transport
             answers a transport(5) entry, `error:5.7.1 <address>: suppressed ...`. This is the one place in Postfix
             that also sees mail from sendmail(1) and mail that is queued already; smtpd restrictions see neither.
             While a breaker holds the recipient's provider, or one message tries whether he takes mail again, it is
             `retry:4.7.1 ...`, which defers the mail with the reason, or the transport that `breakers.hold_transport`
             or `breakers.slow_transport` names. The table is asked for an address, not for a message: what it is
             asked within some seconds counts as one message (`mailback.policy.passage`).

Only a key with a user and a domain can be on the list; all others (`*`, a domain, `user@`, as other kinds of table are
asked) are `NOTFOUND`. Postfix 3.7 asks a socketmap for the whole address only: a suppressed `user@example.com` does not
stop `user+news@example.com`, whatever recipient_delimiter says, and neither does it at the policy service.

The sender is not in the question, so notices from the null sender are refused here like all else. A store that cannot
be read is `TEMP`: Postfix answers 451 or keeps the mail queued, and tries again. Whoever wants mail to flow in that
case uses the policy service.

Limits: 100,000 octets a question or answer, as in Postfix. What is no netstring is cut off.

Log events: see `mailback.outbound.part`.
"""

from __future__ import annotations

import re
from typing import Final

from mailback.outbound.check import Answer, Check, printable
from mailback.outbound.connection import Connection, Connections, Trouble
from mailback.store.errors import StoreUnavailable

NETSTRING_MAX: Final = 100_000
"""Octets; `socketmap_max_reply_size` of Postfix."""

NOTFOUND: Final = b"NOTFOUND "

_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,5}):")
_LENGTH_BEGUN = re.compile(rb"(0|[1-9][0-9]{0,5})?\Z")

TABLES: Final = frozenset({b"access", b"transport"})


class SocketmapConnection(Connection):
    """One connection of a Postfix process; question after question."""

    front = "socketmap"

    def __init__(self, check: Check, trouble: Trouble, connections: Connections) -> None:
        super().__init__(connections)
        self._check = check
        self._trouble = trouble

    def consume(self, buffer: bytes) -> int:
        """Answer every complete netstring in `buffer`; the number of octets used."""
        start = 0
        answers = []
        wrong = ""
        while start < len(buffer):
            match = _LENGTH.match(buffer, start)
            if match is None:
                wrong = "" if _LENGTH_BEGUN.match(buffer, start) else "no netstring"
                break
            begin, length = match.end(), int(match[1])
            if length > NETSTRING_MAX:
                wrong = f"a netstring of {length} octets"
                break
            end = begin + length
            if len(buffer) <= end:
                break
            if buffer[end] != 0x2C:
                wrong = "a netstring that does not end with a comma"
                break
            answers.append(netstring(self.answer(buffer[begin:end])))
            start = end + 1
        if wrong:
            answers.append(netstring(b"PERM " + wrong.encode("ascii")))
        if answers:
            self.send(b"".join(answers))
        if wrong:
            self.cut_off(wrong)
        return start

    def answer(self, question: bytes) -> bytes:
        """The answer to one question, both without their netstring."""
        name, space, key = question.partition(b" ")
        if name not in TABLES or not space:
            known = ", ".join(sorted(table.decode("ascii") for table in TABLES))
            return f"PERM no such table; there are: {known}".encode("ascii")
        local, _, domain = key.rpartition(b"@")
        if not local or not domain:
            return NOTFOUND
        try:
            answer = self._check.answer(key.decode("utf-8", "replace"), queued=name == b"transport")
        except StoreUnavailable as error:
            self._trouble(self.front, error)
            return f"TEMP {printable(error.reason)}".encode("ascii")
        except Exception as error:  # the answer to the unforeseen is to try again later
            self._trouble(self.front, error)
            return b"TEMP internal error, see the log of mailback"
        if answer.allowed:
            return NOTFOUND
        return f"OK {answer.reply if name == b'access' else self._entry(answer)}".encode("ascii")

    def _entry(self, answer: Answer) -> str:
        """A transport(5) entry: where Postfix sends mail that must not go the usual way."""
        if not answer.later:
            return f"error:{answer.enhanced} {answer.text}"
        elsewhere = self._check.transport(answer.breaker)
        if elsewhere is None:
            return f"retry:{answer.enhanced} {answer.text}"
        return elsewhere if ":" in elsewhere else f"{elsewhere}:"


def netstring(data: bytes) -> bytes:
    return b"%d:%b," % (len(data), data)
