"""One SMTP or LMTP conversation, on aiosmtpd.

aiosmtpd gives the command methods, HELP, NOOP, RSET, EXPN, and the reader of PROXY headers. What it does otherwise
than a receiver of bounces needs is done here:

- Its constructor inspects two objects member by member on each connection, and `command_size_limits` is one dictionary
  for all connections, growing with each EHLO. Here a connection costs a few attributes, and commands have one limit.
- It takes commands that end in a bare LF, and its own replies repeat what the client sent. Here such a client is
  disconnected (RFC 5321 section 2.3.8), and replies carry printable ASCII of our own.
- It reads addresses with the parser of header fields and takes octets above 127 without SMTPUTF8.
- It answers 500 to lines of more than 1001 octets, which real bounces have. Here a message is bounded as a whole.
- It answers DATA once; LMTP wants an answer for each recipient (RFC 2033 section 4.2).
- It cancels its own work when the client half-closes, and one timer covers a command together with everything that
  handling it takes, so that a slow next hop looks like a slow client. Here the timer runs while we wait for the
  client, and only then.

Log events:
    connection_refused  a connection over a limit (`max_connections*`), or without the PROXY header that is expected
    timeout             a client was silent too long (`command_timeout_s`, `data_timeout_s`) and was disconnected
    too_many_errors     a client got ERROR_LIMIT refusals without a message between them, and was disconnected
    forbidden_command   a client spoke HTTP, or ended a line with a bare LF; disconnected: often an attack
    tls_failed          a TLS handshake failed; `error` says why
    relay_denied        a recipient outside `smtpd.domains`, from a client outside `trusted_clients`
    backscatter         mail from the null sender to an address in the bounce domain was refused: it is not one that we
                        gave out (`standing`: unsigned, wrong, expired), so no mail of ours is answered. Nothing to
                        do; many that are expired or wrong: docs/belief.md
    many_recipients     a message from the null sender to several recipients: allowed, yet a DSN has one as a rule;
                        at level debug, nothing to do
    session_failed      a fault of our own, with its traceback; the client was answered 421. Please report it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from aiosmtpd.proxy_protocol import AF, PROTO, V2_CMD, ProxyData, get_proxy
from aiosmtpd.smtp import SMTP, syntax

from mailback import address
from mailback.envelope import Envelope, Source
from mailback.returnpath import REFUSAL, ReturnPaths
from mailback.service.log import get_logger, whom
from mailback.settings import SmtpdSettings
from mailback_smtpd.intake import Arrival, Intake
from mailback_smtpd.limits import ConnectionLimit, MessageRate, Networks, plain_address
from mailback_smtpd.path import Path, PathSyntax, forward_path, reverse_path
from mailback_smtpd.reply import Reply, combined, with_enhanced

log = get_logger("smtpd")

READ_AHEAD = 64 * 1024
"""Octets the stream holds before it stops reading from the socket (it stops at twice this)."""
MAX_COMMAND = 2048
"""Octets of one command line. RFC 5321 section 4.5.3.1.4 asks for 512, the extensions add to it."""
ERROR_LIMIT = 20
"""Refusals without an accepted message between them after which a client is disconnected, as Postfix does."""
PROXY_TIMEOUT_S = 5.0
TLS_TIMEOUT_S = 30.0

_END_OF_DATA = b"\r\n.\r\n"
_FOREIGN = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS"})

Method = Callable[["Receiver", str | None], Coroutine[Any, Any, None]]


class _Disconnect(Exception):  # noqa: N818 - an order, not an error
    """Say this, and hang up."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


@dataclass(slots=True, eq=False)
class Door:
    """What all conversations of one worker process share."""

    settings: SmtpdSettings
    hostname: str
    domains: frozenset[str]
    """Recipient domains taken from anybody, as `mailback.address.domain` writes them."""
    intake: Intake
    tls: ssl.SSLContext | None = None
    return_paths: ReturnPaths | None = None
    """None where return paths are not signed."""
    sessions: set[Receiver] = field(default_factory=set)
    draining: bool = False
    trusted: Networks = field(init=False)
    proxies: Networks = field(init=False)
    connections: ConnectionLimit = field(init=False)
    rate: MessageRate = field(init=False)

    def __post_init__(self) -> None:
        chosen = self.settings
        self.trusted = Networks(chosen.trusted_clients)
        self.proxies = Networks(chosen.proxy_clients)
        self.connections = ConnectionLimit(chosen.max_connections, chosen.max_connections_per_client)
        self.rate = MessageRate(chosen.max_messages_per_minute_per_client)

    async def drain(self, timeout_s: float) -> int:
        """Let conversations finish the message they are at, for so many seconds; how many had to be cut off."""
        self.draining = True
        for session in list(self.sessions):
            session.begin_drain()
        tasks = [session.task for session in self.sessions if session.task is not None]
        if not tasks:
            return 0
        _, unfinished = await asyncio.wait(tasks, timeout=timeout_s)
        for session in list(self.sessions):
            session.abort()
        return len(unfinished)


class _Reader(asyncio.StreamReader):
    """A stream reader that can take octets back."""

    _buffer: bytearray
    _transport: asyncio.BaseTransport | None

    def unread(self, data: bytes) -> None:
        """Put `data` before what is read next."""
        self._buffer[:0] = data

    def forget(self) -> None:
        """Drop what was read ahead."""
        self._buffer.clear()

    def follow(self, transport: asyncio.BaseTransport) -> None:
        """Pause and resume this transport from now on."""
        self._transport = transport


class Receiver(SMTP):
    """The server's end of one SMTP connection."""

    greeting: ClassVar[str] = "ESMTP Mailback"
    lmtp: ClassVar[bool] = False
    _smtp_methods: dict[str, Any]
    """Command word to unbound method, one table a class; aiosmtpd's HELP reads it too."""

    # What aiosmtpd's constructor would set, and ours does not go through.
    __ident__ = "Mailback"
    event_handler: Any = None
    enable_SMTPUTF8 = True  # noqa: N815 - aiosmtpd's name
    require_starttls = False
    _decode_data = False
    _auth_required = False
    _auth_require_tls = True
    _ehlo_hook_ver = None
    _enforce_call_limit = False
    _proxy_timeout = None
    _authenticator = None
    _auth_callback = None
    _tls_handshake_okay = True
    _tls_protocol = None
    _original_transport = None

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop, *, proxied: bool = False) -> None:
        reader = _Reader(limit=READ_AHEAD, loop=loop)
        # Not SMTP.__init__: see the opening of this module.
        asyncio.StreamReaderProtocol.__init__(self, reader, self._cb_client_connected, loop)
        self.loop = loop
        self.door = door
        self.hostname = door.hostname
        self.data_size_limit = door.settings.max_message_bytes
        self.tls_context = door.tls
        self.transport: asyncio.Transport | None = None
        self.session = None
        self.envelope = None
        self._auth_methods = _NONE
        self._handle_hooks = _NONE
        self._handler_coroutine: asyncio.Task[None] | None = None
        self._proxied = proxied
        self._stream = reader
        self._client: str | None = None
        self._trusted = False
        self._admitted = False
        self._waiting = False
        self._over = False
        self._errors = 0
        self._utf8 = False
        self._timeout_duration = door.settings.command_timeout_s
        self._deadline: float | None = None
        self._timeout_handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What holds the conversation; None before there is a connection."""
        return self._handler_coroutine

    # The connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = cast("asyncio.Transport", transport)
        self._set_rset_state()
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self.door.sessions.add(self)
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def connection_lost(self, error: Exception | None) -> None:
        """The conversation ends by itself: its next read or write fails. A message being committed is not undone."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
            self._timeout_handle = None

    def eof_received(self) -> bool | None:
        """A client that says everything at once and half-closes still gets its answers."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    async def _handle_client(self) -> None:
        try:
            await self._meet()
            await self._converse()
        except (ConnectionError, EOFError, ssl.SSLError):
            log.debug("disconnected", client=self._client)
        except _Disconnect as order:
            await self._last_words(order.reply)
        except Exception:
            log.exception("session_failed", client=self._client)
            await self._last_words(Reply(421, "4.3.0", "internal fault, closing connection"))
        finally:
            self._leave()

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.close()
        if self._admitted:
            self._admitted = False
            self.door.connections.leave(self._client)
        self.door.sessions.discard(self)

    async def _last_words(self, reply: Reply) -> None:
        try:
            await self.answer(reply)
        except (ConnectionError, EOFError, ssl.SSLError):
            return

    async def _meet(self) -> None:
        """Learn who the client is, and whether there is room for it."""
        assert self.session is not None
        peer = self.session.peer
        if isinstance(peer, tuple):
            self._client = plain_address(peer[0])
            self._trusted = self._client in self.door.trusted
            if self._proxied:
                await self._read_proxy_header()
        else:
            self._trusted = True  # a unix socket: its file mode says who may connect
        reason = self.door.connections.enter(self._client)
        if reason is not None:
            log.warning("connection_refused", client=self._client, reason=reason)
            raise _Disconnect(Reply(421, "4.7.0", reason))
        self._admitted = True

    async def _read_proxy_header(self) -> None:
        """The PROXY protocol of HAProxy, version 1 or 2, from listed proxies only: anybody else could lie."""
        proxy = self._client
        assert proxy is not None
        self._reset_timeout(PROXY_TIMEOUT_S)
        told: ProxyData | None = await get_proxy(self._stream) if proxy in self.door.proxies else None
        if told is None or not told.valid:
            log.warning("connection_refused", client=proxy, reason="no valid PROXY header from a listed proxy")
            raise ConnectionAbortedError
        is_local = told.command == V2_CMD.LOCAL or told.protocol == PROTO.UNSPEC
        if is_local or told.family not in (AF.INET, AF.INET6):
            self._trusted = False  # the proxy's own health check: it has no business relaying
            return
        self._client = plain_address(str(told.src_addr))
        self._trusted = self._client in self.door.trusted

    def _set_rset_state(self) -> None:
        """No transaction is under way."""
        self.envelope = self._create_envelope()

    # Time ----------------------------------------------------------------------------------------------------

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Give the client so many seconds from now (its next command, where not told).

        One timer a connection: it is moved when it fires too early, not with each command.
        """
        self._deadline = deadline = self.loop.time() + (duration or self._timeout_duration)
        if self._timeout_handle is None or self._armed_for > deadline:
            self._arm(deadline)

    def _arm(self, when: float) -> None:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._armed_for = when
        self._timeout_handle = self.loop.call_at(when, self._timeout_cb)

    def _stop_timeout(self) -> None:
        """The client waits for us now: our own time limits apply, not its."""
        self._deadline = None

    def _timeout_cb(self) -> None:
        self._timeout_handle = None
        deadline = self._deadline
        if deadline is None:
            return
        if deadline > self.loop.time():
            self._arm(deadline)
            return
        log.info("timeout", client=self._client)
        self._say_and_close(Reply(421, "4.4.2", "timeout, closing connection"))

    def begin_drain(self) -> None:
        """The worker stops: hang up now if no message is under way, else after it."""
        if self._waiting and not self._in_transaction:
            self._say_and_close(_SHUTTING_DOWN)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _say_and_close(self, reply: Reply) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(reply.line + b"\r\n")
            self.transport.close()

    @property
    def _in_transaction(self) -> bool:
        return self.envelope is not None and self.envelope.mail_from is not None

    # Replies -------------------------------------------------------------------------------------------------

    async def answer(self, reply: Reply) -> None:
        if reply.code >= 500:
            self._errors += 1
        self._writer.write(reply.line + b"\r\n")
        await self._writer.drain()

    async def push(self, status: str | bytes) -> None:
        """A reply of one of aiosmtpd's own methods: completed with an enhanced status code."""
        line = with_enhanced(status) if isinstance(status, str) else status
        if line[:1] == b"5":
            self._errors += 1
        self._writer.write(line + b"\r\n")
        await self._writer.drain()

    # Commands ------------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        await self.push(f"220 {self.hostname} {self.greeting}")
        methods = self._smtp_methods
        while not self._over:
            if self._errors >= ERROR_LIMIT:
                log.warning("too_many_errors", client=self._client)
                raise _Disconnect(Reply(421, "4.7.0", "too many errors, closing connection"))
            if self.door.draining and not self._in_transaction:
                raise _Disconnect(_SHUTTING_DOWN)
            verb, argument = await self._next_command()
            method = methods.get(verb)
            if method is not None:
                await method(self, argument)
            elif verb:
                await self.answer(_UNKNOWN)

    async def _next_command(self) -> tuple[str, str | None]:
        """The next command and its argument; an empty verb where the line was answered already."""
        self._reset_timeout()
        self._waiting = True
        line = await self._read_line()
        self._waiting = False
        if len(line) > MAX_COMMAND:
            await self.answer(Reply(500, "5.5.2", "command line too long"))
            return "", None
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            log.warning("forbidden_command", client=self._client, what="a line with a bare CR or LF")
            raise _Disconnect(Reply(521, "5.5.2", "lines end in CRLF: bare CR or LF received, closing connection"))
        word, _, rest = line[:-2].partition(b" ")
        try:
            verb = word.decode("ascii").upper()
            argument = rest.strip(b" ").decode("utf-8") or None
        except UnicodeDecodeError:
            await self.answer(Reply(501, "5.5.2", "neither ASCII nor UTF-8"))
            return "", None
        if verb in _FOREIGN:
            log.warning("forbidden_command", client=self._client, what=verb)
            raise _Disconnect(Reply(521, "5.5.1", "this is no web server, closing connection"))
        return verb or "?", argument

    async def _read_line(self) -> bytes:
        """Up to the next LF; of a line that is longer than the stream holds, only its length still means anything."""
        try:
            return await self._stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            excess = overrun
        while True:
            await self._stream.readexactly(excess.consumed)
            try:
                return bytes(MAX_COMMAND) + await self._stream.readuntil(b"\n")
            except asyncio.LimitOverrunError as overrun:
                excess = overrun

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str | None) -> None:  # noqa: N802 - aiosmtpd's names
        if not hostname:
            return await self.answer(Reply(501, "5.5.4", "HELO needs your host name"))
        self._introduced(hostname, extended=False)
        return await self.push(f"250 {self.hostname}".encode("ascii", "replace"))

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str | None) -> None:  # noqa: N802
        if not hostname:
            return await self.answer(Reply(501, "5.5.4", "EHLO needs your host name"))
        self._introduced(hostname, extended=True)
        lines = [
            self.hostname,
            "PIPELINING",
            f"SIZE {self.data_size_limit}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            *(["STARTTLS"] if self.tls_context and not self._encrypted else []),
        ]
        text = "".join(f"250-{line}\r\n" for line in lines) + "250 HELP"
        return await self.push(text.encode("ascii", "replace"))

    def _introduced(self, hostname: str, *, extended: bool) -> None:
        assert self.session is not None
        self._set_rset_state()
        self.session.host_name = hostname
        self.session.extended_smtp = extended

    @property
    def _encrypted(self) -> bool:
        return self.session is not None and self.session.ssl is not None

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, argument: str | None) -> None:  # noqa: N802
        if self.tls_context is None:
            return await self.answer(Reply(502, "5.5.1", "STARTTLS is not offered here"))
        if self._encrypted:
            return await self.answer(Reply(503, "5.5.1", "TLS is active already"))
        if argument:
            return await self.answer(Reply(501, "5.5.4", "STARTTLS takes no argument"))
        assert self.transport is not None
        assert self.session is not None
        # Stop reading before the go-ahead is out, or the client's hello may land in the plain stream.
        self.transport.pause_reading()
        self._stream.forget()  # RFC 3207 section 4.2: nothing said in the clear may count under TLS
        await self.answer(Reply(220, "2.0.0", "ready to start TLS"))
        try:
            await self._writer.start_tls(self.tls_context, ssl_handshake_timeout=TLS_TIMEOUT_S)
        except OSError as error:  # ssl.SSLError is one
            log.info("tls_failed", client=self._client, error=str(error))
            self._over = True
            return None
        self.transport = cast("asyncio.Transport", self._writer.transport)
        self._stream.follow(self.transport)
        peer = self.session.peer
        self.session = self._create_session()
        self.session.peer = peer
        self.session.ssl = {"cipher": self.transport.get_extra_info("cipher")}
        self._set_rset_state()
        return None

    @syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, argument: str | None) -> None:  # noqa: N802
        refusal = self._not_ready_for_mail()
        if refusal is not None:
            return await self.answer(refusal)
        try:
            path = reverse_path(argument)
        except PathSyntax as wrong:
            return await self.answer(Reply(501, "5.1.7", str(wrong)))
        refusal = self._bad_parameters(path.parameters) or self._not_for_utf8(path, "SMTPUTF8" in path.parameters)
        if refusal is not None:
            return await self.answer(refusal)
        if not self.door.rate.take(self._client, self.loop.time()):
            return await self.answer(Reply(451, "4.7.1", "too many messages from your address, try again later"))
        assert self.envelope is not None
        self.envelope.mail_from = path.address
        self.envelope.smtp_utf8 = "SMTPUTF8" in path.parameters
        return await self.answer(_SENDER_OK)

    def _not_ready_for_mail(self) -> Reply | None:
        assert self.session is not None
        if not self.session.host_name:
            return Reply(503, "5.5.1", f"{'LHLO' if self.lmtp else 'HELO or EHLO'} comes first")
        if self.door.settings.tls_required and not self._encrypted:
            return Reply(530, "5.7.0", "STARTTLS comes first")
        if self._in_transaction:
            return Reply(503, "5.5.1", "nested MAIL command")
        return None

    def _bad_parameters(self, parameters: dict[str, str | None]) -> Reply | None:
        """SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531) are known; all else was never offered."""
        for keyword, value in parameters.items():
            if keyword == "SIZE":
                if value is None or not (value.isascii() and value.isdigit() and len(value) <= 20):
                    return Reply(501, "5.5.4", "SIZE takes a number of octets")
                if int(value) > self.door.settings.max_message_bytes:
                    return _too_large(self.door.settings.max_message_bytes)
            elif keyword == "BODY":
                if (value or "").upper() not in {"7BIT", "8BITMIME"}:
                    return Reply(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
            elif keyword == "SMTPUTF8":
                if value is not None:
                    return Reply(501, "5.5.4", "SMTPUTF8 takes no value")
            else:
                return Reply(555, "5.5.4", "a parameter that was not offered")
        return None

    def _not_for_utf8(self, path: Path, utf8: bool) -> Reply | None:
        if utf8 or path.address.isascii():
            return None
        return Reply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8")

    @syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, argument: str | None) -> None:  # noqa: N802
        envelope = self.envelope
        assert envelope is not None
        if not self._in_transaction:
            return await self.answer(Reply(503, "5.5.1", "MAIL comes first"))
        try:
            path = forward_path(argument)
        except PathSyntax as wrong:
            return await self.answer(Reply(501, "5.1.3", str(wrong)))
        refusal = (
            self._not_for_utf8(path, envelope.smtp_utf8) or self._no_such_recipient(path) or self._backscatter(path)
        )
        if refusal is not None:
            return await self.answer(refusal)
        if len(envelope.rcpt_tos) >= self.door.settings.max_recipients:
            return await self.answer(Reply(452, "4.5.3", "too many recipients"))
        envelope.rcpt_tos.append(path.address)
        return await self.answer(_RECIPIENT_OK)

    def _no_such_recipient(self, path: Path) -> Reply | None:
        if path.parameters:
            return Reply(555, "5.5.4", "a parameter that was not offered")
        if self._trusted or "@" not in path.address or address.domain(path.address) in self.door.domains:
            return None
        log.info("relay_denied", client=self._client, recipient=whom(path.address))
        return Reply(554, "5.7.1", "relay access denied")

    def _backscatter(self, path: Path) -> Reply | None:
        """The refusal of a bounce to an address that we did not give out, before its content is sent."""
        paths, envelope = self.door.return_paths, self.envelope
        if paths is None or envelope is None or envelope.mail_from:
            return None
        standing = paths.refuses(path.address)
        if standing is None:
            return None
        log.info("backscatter", client=self._client, recipient=whom(path.address), standing=standing.value)
        return Reply(550, "5.7.1", REFUSAL)

    @syntax("DATA")
    async def smtp_DATA(self, argument: str | None) -> None:  # noqa: N802
        envelope = self.envelope
        assert envelope is not None
        if not envelope.rcpt_tos:
            return await self.answer(Reply(503, "5.5.1", "RCPT comes first"))
        if argument:
            return await self.answer(Reply(501, "5.5.4", "DATA takes no argument"))
        await self.push(b"354 end data with <CR><LF>.<CR><LF>")
        self._reset_timeout(self.door.settings.data_timeout_s)
        raw = await self._read_message()
        self._stop_timeout()
        if raw is None:
            replies = [_too_large(self.door.settings.max_message_bytes)] * len(envelope.rcpt_tos)
        else:
            replies = await self.door.intake.take(self._arrival(raw))
        self._set_rset_state()
        self._reset_timeout()
        return await self._answer_data(replies)

    async def _answer_data(self, replies: list[Reply]) -> None:
        if not self.lmtp:
            replies = [combined(replies)]
        if any(reply.accepted for reply in replies):
            self._errors = 0
        for reply in replies:
            await self.answer(reply)

    async def _read_message(self) -> bytes | None:
        """The octets up to the end of data, dots unstuffed; None where they were too many, and are not kept.

        Only CRLF.CRLF ends a message (RFC 5321 section 4.1.1.4): every other reading of "a dot on a line" lets a
        sender smuggle a second message past whoever relayed the first. Lines may have any length.
        """
        stream, limit = self._stream, self.door.settings.max_message_bytes
        stream.unread(b"\r\n")  # the end of the DATA line: with it, a first line is like every other one
        most = limit + limit // 3 + len(_END_OF_DATA)  # ".." CRLF for each "." CRLF is the worst that stuffing adds
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                pieces.append(await stream.readuntil(_END_OF_DATA))
                break
            except asyncio.LimitOverrunError as overrun:
                pieces.append(await stream.readexactly(overrun.consumed))
            size += len(pieces[-1])
            if size > most:
                pieces.clear()
        return _unstuffed(b"".join(pieces), limit) if size <= most else None

    def _arrival(self, raw: bytes) -> Arrival:
        envelope, session = self.envelope, self.session
        assert envelope is not None
        assert session is not None
        sender = envelope.mail_from or ""
        if not sender and len(envelope.rcpt_tos) > 1:
            log.debug("many_recipients", client=self._client, recipients=len(envelope.rcpt_tos))
        return Arrival(
            envelope=Envelope(
                sender=sender,
                recipients=tuple(envelope.rcpt_tos),
                client_address=self._client,
                helo=session.host_name,
                source=Source.SMTPD,
            ),
            raw=raw,
            protocol=self._protocol_name(),
            utf8=envelope.smtp_utf8,
        )

    def _protocol_name(self) -> str:
        """The registered "with" protocol (RFC 3848, RFC 6531 section 4.3)."""
        assert self.session is not None
        assert self.envelope is not None
        secure = "S" if self._encrypted else ""
        if self.envelope.smtp_utf8:
            return f"UTF8{'LMTP' if self.lmtp else 'SMTP'}{secure}"
        if self.lmtp:
            return f"LMTP{secure}"
        return f"ESMTP{secure}" if self.session.extended_smtp else "SMTP"

    @syntax("VRFY <address>")
    async def smtp_VRFY(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 section 3.5.3: neither yes nor no, and nothing of what was asked is repeated."""
        if not argument:
            return await self.answer(Reply(501, "5.5.4", "VRFY needs an address"))
        return await self.answer(Reply(252, "2.5.2", "send some mail, I will try my best"))

    @syntax("QUIT")
    async def smtp_QUIT(self, argument: str | None) -> None:  # noqa: N802
        if argument:
            return await self.answer(Reply(501, "5.5.4", "QUIT takes no argument"))
        self._over = True
        return await self.answer(Reply(221, "2.0.0", "bye"))


class LmtpReceiver(Receiver):
    """The server's end of one LMTP connection (RFC 2033): LHLO instead of HELO and EHLO, one answer a recipient."""

    greeting = "LMTP Mailback"
    lmtp = True

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str | None) -> None:  # noqa: N802
        await Receiver.smtp_EHLO(self, hostname)

    async def smtp_HELO(self, hostname: str | None) -> None:  # noqa: ARG002, N802
        await self.answer(Reply(500, "5.5.1", "this is LMTP: say LHLO"))

    async def smtp_EHLO(self, hostname: str | None) -> None:  # noqa: ARG002, N802
        await self.answer(Reply(500, "5.5.1", "this is LMTP: say LHLO"))


_NONE: dict[str, Any] = {}
_UNKNOWN = Reply(500, "5.5.1", "command not recognized")
_SENDER_OK = Reply(250, "2.1.0", "sender ok")
_RECIPIENT_OK = Reply(250, "2.1.5", "recipient ok")
_SHUTTING_DOWN = Reply(421, "4.3.2", "shutting down, please try again")


def _too_large(limit: int) -> Reply:
    return Reply(552, "5.3.4", f"message exceeds {limit} octets")


def _unstuffed(data: bytes, limit: int) -> bytes | None:
    """The message out of CRLF, its lines and the end of data (RFC 5321 section 4.5.2); None where it is too large."""
    text = data[: -len(b".\r\n")].replace(b"\r\n.", b"\r\n")[len(b"\r\n") :]
    return text if len(text) <= limit else None


def _commands(cls: type[Receiver]) -> dict[str, Method]:
    """Command word to method; AUTH is aiosmtpd's and not offered: nobody logs in to send bounces."""
    names = (name for name in dir(cls) if name.startswith("smtp_"))
    return {name.removeprefix("smtp_"): getattr(cls, name) for name in names if name != "smtp_AUTH"}


for _kind in (Receiver, LmtpReceiver):
    _kind._smtp_methods = _commands(_kind)
