"""Forwarding to a next hop by SMTP (RFC 5321) or LMTP (RFC 2033), while our own peer waits for the answer.

A small client on asyncio: it keeps the null sender, passes BODY=8BITMIME, SIZE and SMTPUTF8 on where they are offered,
stuffs dots, pipelines MAIL and RCPT where that is offered, and keeps a connection that ended cleanly for the next
message. It does not retry, queue or look up MX records: what the next hop says is what the peer is told, and a next
hop that is down or silent is a temporary failure, so the peer keeps the mail. A message whose end was sent and never
answered counts as not delivered; the peer then sends it again, and the recipient may get it twice.

Log events:
    next_hop_failed     no answer from the next hop, or none that makes sense; the peer was answered 451 and keeps the
                        mail. `next_hop` and `error` say what to look at: is that server up, is the address right.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from mailback.service.log import get_logger
from mailback_smtpd.content import header_block, is_8bit
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply

log = get_logger("smtpd")

CONNECT_S = 30.0
TOTAL_S = 300.0
"""For one message, waiting for a free connection included. Our own peer waits 10 minutes for its answer (RFC 5321
section 4.5.3.2.6), so we must have given up before that."""
MAX_CONNECTIONS = 20
"""Conversations at a time with one next hop, in each worker process."""
IDLE_S = 10.0
"""How long a connection is kept for the next message."""
MAX_MESSAGES = 100
"""Messages over one connection."""
MAX_REPLY_LINES = 128
MAX_REPLY_LINE = 4096

_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |\Z)")


class NextHopError(Exception):
    """The next hop does not speak the protocol; the text says in what."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """A server that takes mail over."""

    lmtp: bool
    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket, instead of host and port."""

    def __str__(self) -> str:
        place = f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"
        return f"{'lmtp' if self.lmtp else 'smtp'}:{place}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the next hop."""

    code: int
    text: str
    """All lines, without codes, joined with spaces."""

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    def passed_on(self) -> Reply:
        """What our peer is told: success and refusal as they are, anything temporary as 451."""
        match = _ENHANCED.match(self.text)
        status = match[1] if match and match[1][0] == str(self.code)[0] else f"{self.code // 100}.0.0"
        text = self.text[match.end() :] if match else self.text
        if self.positive:
            return Reply(250, status, text)
        if self.code >= 500:
            return Reply(self.code if self.code // 10 == 55 else 554, status, f"the next hop said: {text}")
        return Reply(451, status, f"the next hop said: {text}")


@dataclass(slots=True, eq=False)
class _Conversation:
    """One connection, greeted and ready for MAIL."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lmtp: bool
    extensions: frozenset[str] = frozenset()
    messages: int = 0
    handed_over: bool = False
    """The end of the current message was sent: from here on a lost connection proves nothing."""
    clean: bool = False
    """The last transaction ended as it should: fit for the next one."""
    expiry: asyncio.TimerHandle | None = field(default=None)

    @property
    def usable(self) -> bool:
        return self.clean and self.messages < MAX_MESSAGES and not self.reader.at_eof() and not self.writer.is_closing()

    async def greet(self, hostname: str) -> None:
        greeting = await self._answer()
        if greeting.code != 220:
            raise NextHopError(f"greeted with {greeting.code} {greeting.text}")
        lines = await self._command_lines(f"{'LHLO' if self.lmtp else 'EHLO'} {hostname}")
        if lines[0].code >= 500 and not self.lmtp:
            lines = await self._command_lines(f"HELO {hostname}")
        if not lines[0].positive:
            raise NextHopError(f"answered our greeting with {lines[0].code} {lines[0].text}")
        self.extensions = frozenset(line.text.partition(" ")[0].upper() for line in lines[1:])

    async def send(self, message: Outgoing) -> list[Reply]:
        """Hand one message over; a reply for each recipient. Raises OSError, EOFError or NextHopError."""
        self.clean, self.handed_over = False, False
        self.messages += 1
        if (refusal := self._unsupported(message)) is not None:
            self.clean = True
            return [refusal] * len(message.recipients)
        mail, rcpts = await self._envelope(message)
        if not mail.positive:
            return [mail.passed_on()] * len(message.recipients)
        replies = [rcpt.passed_on() for rcpt in rcpts]
        taken = [index for index, rcpt in enumerate(rcpts) if rcpt.positive]
        if not taken:
            return replies
        go_ahead = await self._command("DATA")
        if go_ahead.code == 354:
            outcomes = await self._content(message.content, len(taken) if self.lmtp else 1)
            self.clean = True
        elif go_ahead.positive:
            raise NextHopError(f"answered DATA with {go_ahead.code}")
        else:
            outcomes = [go_ahead]
        for position, index in enumerate(taken):
            replies[index] = outcomes[position if len(outcomes) > 1 else 0].passed_on()
        return replies

    def _unsupported(self, message: Outgoing) -> Reply | None:
        """RFC 6531 section 3.2: a message that needs SMTPUTF8 must not go to a server that lacks it."""
        if "SMTPUTF8" in self.extensions or not _needs_utf8(message):
            return None
        return Reply(550, "5.6.7", "the next hop does not take internationalised mail (SMTPUTF8)")

    async def _envelope(self, message: Outgoing) -> tuple[Answer, list[Answer]]:
        mail = f"MAIL FROM:<{message.sender}>{self._parameters(message)}"
        rcpts = [f"RCPT TO:<{recipient}>" for recipient in message.recipients]
        if "PIPELINING" not in self.extensions:
            first = await self._command(mail)
            return first, [await self._command(rcpt) for rcpt in rcpts] if first.positive else []
        self._write("".join(f"{command}\r\n" for command in (mail, *rcpts)).encode())
        first = await self._answer()
        return first, [await self._answer() for _ in rcpts]

    def _parameters(self, message: Outgoing) -> str:
        offered = self.extensions
        size = f" SIZE={len(message.content)}" if "SIZE" in offered else ""
        body = " BODY=8BITMIME" if "8BITMIME" in offered and is_8bit(message.content) else ""
        utf8 = " SMTPUTF8" if "SMTPUTF8" in offered and _needs_utf8(message) else ""
        return size + body + utf8

    async def _content(self, content: bytes, answers: int) -> list[Answer]:
        """RFC 5321 section 4.5.2: a line that begins with a period gets another one."""
        self._write(stuffed(content))
        await self.writer.drain()
        self.handed_over = True
        return [await self._answer() for _ in range(answers)]

    async def quit(self) -> None:
        """Take leave without waiting long for the answer."""
        with contextlib.suppress(OSError, EOFError, NextHopError):
            async with asyncio.timeout(1):
                await self._command("QUIT")
        self.close()

    def close(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self.writer.close()

    def _write(self, data: bytes) -> None:
        self.writer.write(data)

    async def _command(self, command: str) -> Answer:
        lines = await self._command_lines(command)
        return Answer(lines[0].code, " ".join(line.text for line in lines))

    async def _command_lines(self, command: str) -> list[Answer]:
        self._write(f"{command}\r\n".encode())
        return await self._lines()

    async def _answer(self) -> Answer:
        lines = await self._lines()
        return Answer(lines[0].code, " ".join(line.text for line in lines))

    async def _lines(self) -> list[Answer]:
        """The lines of one reply (RFC 5321 section 4.2.1)."""
        lines: list[Answer] = []
        while len(lines) < MAX_REPLY_LINES:
            try:
                raw = await self.reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                raise NextHopError(f"sent a line of more than {MAX_REPLY_LINE} octets") from None
            match = _REPLY_LINE.match(raw.rstrip(b"\r\n"))
            if match is None:
                raise NextHopError("sent a line that is no SMTP reply")
            lines.append(Answer(int(match[1]), (match[3] or b"").decode("utf-8", "replace")))
            if match[2] != b"-":
                return lines
        raise NextHopError(f"sent a reply of more than {MAX_REPLY_LINES} lines")


class Forwarder:
    """Hands messages to one next hop, over at most MAX_CONNECTIONS connections."""

    keeps: ClassVar[bool] = True

    def __init__(self, next_hop: NextHop, hostname: str) -> None:
        self._next_hop = next_hop
        self._hostname = hostname
        self._idle: list[_Conversation] = []
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def deliver(self, message: Outgoing) -> list[Reply]:
        try:
            async with asyncio.timeout(TOTAL_S), self._free:
                replies = await self._deliver(message)
        except TimeoutError:
            replies = self._failed(message, Reply(451, "4.4.2", "the next hop does not answer"), "timeout")
        except (OSError, EOFError) as error:
            replies = self._failed(message, Reply(451, "4.4.1", "the next hop cannot be reached"), str(error))
        except NextHopError as error:
            replies = self._failed(message, Reply(451, "4.5.0", "the next hop does not speak SMTP"), str(error))
        return replies

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(conversation.quit() for conversation in idle))

    async def _deliver(self, message: Outgoing) -> list[Reply]:
        """Over a kept connection first: the next hop may have dropped it meanwhile, then over a new one."""
        while (kept := self._take()) is not None:
            with contextlib.suppress(OSError, EOFError):
                return await self._send(kept, message)
            if kept.handed_over:
                raise EOFError("the next hop hung up on a message that it had in full")
        return await self._send(await self._connect(), message)

    async def _send(self, conversation: _Conversation, message: Outgoing) -> list[Reply]:
        try:
            return await conversation.send(message)
        finally:
            self._put(conversation)

    async def _connect(self) -> _Conversation:
        hop = self._next_hop
        async with asyncio.timeout(CONNECT_S):
            if hop.path:
                streams = await asyncio.open_unix_connection(hop.path, limit=MAX_REPLY_LINE)
            else:
                streams = await asyncio.open_connection(hop.host, hop.port, limit=MAX_REPLY_LINE)
            conversation = _Conversation(*streams, lmtp=hop.lmtp)
            try:
                await conversation.greet(self._hostname)
            except BaseException:
                conversation.close()
                raise
        return conversation

    def _take(self) -> _Conversation | None:
        while self._idle:
            conversation = self._idle.pop()
            if conversation.expiry is not None:
                conversation.expiry.cancel()
            if conversation.usable:
                return conversation
            conversation.close()
        return None

    def _put(self, conversation: _Conversation) -> None:
        if not conversation.usable:
            conversation.close()
            return
        loop = asyncio.get_running_loop()
        conversation.expiry = loop.call_later(IDLE_S, self._expire, conversation)
        self._idle.append(conversation)

    def _expire(self, conversation: _Conversation) -> None:
        if conversation in self._idle:
            self._idle.remove(conversation)
            conversation.close()

    def _failed(self, message: Outgoing, reply: Reply, error: str) -> list[Reply]:
        log.warning("next_hop_failed", next_hop=str(self._next_hop), error=error, id=message.event_id)
        return [reply] * len(message.recipients)


def stuffed(content: bytes) -> bytes:
    """Canonical content as it goes on the wire after DATA, its end included."""
    # A CRLF in front makes the first line like every other one; it is cut off again.
    lines = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")
    end = b".\r\n" if lines.endswith(b"\r\n") else b"\r\n.\r\n"
    return lines[2:] + end


def _needs_utf8(message: Outgoing) -> bool:
    if not _ascii((message.sender, *message.recipients)):
        return True
    return message.utf8 and is_8bit(header_block(message.content))


def _ascii(addresses: Iterable[str]) -> bool:
    return all(address.isascii() for address in addresses)
