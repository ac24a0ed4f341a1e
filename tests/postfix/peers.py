"""What stands around Postfix in the tests: where mail goes, and who knows the passwords."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import socketserver
import threading
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.postfix.instance import PASSWORD
from tests.support.server import free_port


class Destination:
    """The rest of the world: takes all mail, but has no mailbox whose name starts with `dead`, and none of those that
    start with `full` has room. The servers of a domain that is `broken` know nobody any more; those of one that is
    `blocking` take nothing from us."""

    def __init__(self) -> None:
        self.port = free_port()
        self.broken: set[str] = set()
        self.blocking: set[str] = set()
        self._lock = threading.Lock()
        self._messages: list[tuple[str, tuple[str, ...], bytes]] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("dead") or address.rpartition("@")[2] in self.broken:
            return "550 5.1.1 No such mailbox here"
        if address.rpartition("@")[2] in self.blocking:
            return "554 5.7.1 Service unavailable; Client host [192.0.2.25] blocked using zen.spamhaus.org"
        if address.startswith("full"):
            return "452 4.2.2 Mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        with self._lock:
            self._messages.append((envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 Ok"

    def to(self, recipient: str) -> list[bytes]:
        """The messages that one recipient got."""
        with self._lock:
            return [content for _, recipients, content in self._messages if recipient in recipients]

    def return_paths(self, recipient: str) -> list[str]:
        """The envelope senders of the messages that one recipient got."""
        with self._lock:
            return [sender for sender, recipients, _ in self._messages if recipient in recipients]


class Filter:
    """A content filter as amavis is one: takes mail, gives it back to Postfix, and answers as Postfix did."""

    def __init__(self, back_to: int) -> None:
        self.port = free_port()
        self._back_to = back_to
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = await asyncio.to_thread(self._give_back, envelope)
        return f"250 2.0.0 from MTA(smtp:[127.0.0.1]:{self._back_to}): {answer}"

    def _give_back(self, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        with smtplib.SMTP("127.0.0.1", self._back_to, timeout=30) as session:
            session.ehlo()
            session.mail(envelope.mail_from or "")
            for recipient in envelope.rcpt_tos:
                session.rcpt(recipient)
            code, said = session.data(envelope.content)
            return f"{code} {said.decode()}"


class _Login(socketserver.StreamRequestHandler):
    """The server's half of Dovecot's authentication protocol, version 1.1: PLAIN with one password for everybody."""

    def handle(self) -> None:
        self.wfile.write(
            b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n"
        )
        for line in self.rfile:
            words = line.rstrip(b"\n").split(b"\t")
            if words[0] != b"AUTH":
                continue
            answer = next(word.removeprefix(b"resp=") for word in words if word.startswith(b"resp="))
            _, user, password = base64.b64decode(answer).split(b"\0")
            verdict = b"OK" if password == PASSWORD.encode() else b"FAIL"
            self.wfile.write(b"\t".join([verdict, words[1], b"user=" + user]) + b"\n")


class Logins:
    """A Dovecot authentication server on a unix socket, as `smtpd_sasl_path` wants it."""

    def __init__(self, path: Path) -> None:
        self._server = socketserver.ThreadingUnixStreamServer(str(path), _Login)
        self._server.daemon_threads = True
        path.chmod(0o666)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
