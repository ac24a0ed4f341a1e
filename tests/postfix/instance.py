"""A private Postfix: configuration, queue and log below one folder, loopback only, nothing of /etc/postfix used.

Its daemons change to the user `postfix`, so it needs root. Mail goes to one destination (`Destination`), which refuses
some recipients; there is no name service and no local delivery.
"""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.server import free_port, wait_for

# name, type, private, unprivileged, chroot, wake-up, process limit, command (master(5)); what a private instance needs.
_SERVICES = """\
pickup    unix       n - n 1 1   pickup
cleanup   unix       n - n - 0   cleanup
qmgr      unix       n - n 300 1 qmgr
rewrite   unix       - - n - -   trivial-rewrite
bounce    unix       - - n - 0   bounce
defer     unix       - - n - 0   bounce
trace     unix       - - n - 0   bounce
verify    unix       - - n - 1   verify
flush     unix       n - n 1000? 0 flush
proxymap  unix       - - n - -   proxymap
smtp      unix       - - n - -   smtp
error     unix       - - n - -   error
retry     unix       - - n - -   error
discard   unix       - - n - -   discard
anvil     unix       - - n - 1   anvil
postlog   unix-dgram n - n - 1   postlogd
showq     unix       n - n - -   showq
"""


@dataclass
class Smtpd:
    """One smtpd(8) service: main.cf parameters that it has for itself."""

    options: Mapping[str, str] = field(default_factory=dict)
    chroot: bool = False
    port: int = field(default_factory=free_port)

    def line(self) -> str:
        options = "".join(f"  -o {name}={value}\n" for name, value in self.options.items())
        return f"127.0.0.1:{self.port} inet n - {'y' if self.chroot else 'n'} - - smtpd\n{options}"


class PrivatePostfix:
    """Started by `start`, gone after `stop`; `base` must be a folder that the user `postfix` can reach."""

    def __init__(
        self, base: Path, smtpds: Mapping[str, Smtpd], parameters: Mapping[str, str], services: str = ""
    ) -> None:
        """`services`: more lines of master.cf."""
        self.base = base
        self.queue = base / "queue"
        self._etc = base / "etc"
        self._smtpds = smtpds
        for folder in (self._etc, self.queue, base / "data", base / "log"):
            folder.mkdir(exist_ok=True)
        shutil.chown(base / "data", "postfix", "root")
        (base / "data").chmod(0o700)
        settings = self._defaults() | dict(parameters)
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self._etc / "master.cf").write_text("".join(smtpd.line() for smtpd in smtpds.values()) + _SERVICES + services)

    def _defaults(self) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.base / "data"),
            "maillog_file": str(self.base / "log" / "maillog"),
            "maillog_file_prefixes": str(self.base),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "mx.sender.test",
            "myorigin": "sender.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "local_header_rewrite_clients": "",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtpd_client_connection_count_limit": "0",
            "minimal_backoff_time": "1s",
            "queue_run_delay": "2s",
        }

    def start(self) -> None:
        """Start and wait for every banner."""
        self._command("start")
        for smtpd in self._smtpds.values():
            wait_for(lambda port=smtpd.port: self._greets(port), what=f"a banner on port {smtpd.port}")  # type: ignore[misc]

    def stop(self) -> None:
        self._command("stop")

    def _command(self, verb: str) -> None:
        command = ["postfix", "-c", str(self._etc), verb]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr + self.log()

    def _greets(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as peer:
                peer.settimeout(5)
                return peer.recv(3) == b"220"
        except OSError:
            return False

    def port(self, name: str) -> int:
        return self._smtpds[name].port

    def client(self, name: str) -> smtplib.SMTP:
        """An SMTP session with one of the smtpd services."""
        return smtplib.SMTP("127.0.0.1", self.port(name), local_hostname="client.far.test", timeout=30)

    def send(self, name: str, sender: str, recipient: str, message: bytes) -> None:
        """One message; raises what smtplib raises when Postfix refuses it."""
        with self.client(name) as session:
            session.sendmail(sender, [recipient], message)

    def refusal(self, name: str, sender: str, recipient: str, login: str | None = None) -> tuple[int, str]:
        """What RCPT is answered."""
        with self.client(name) as session:
            session.ehlo()
            if login:
                session.login(login, PASSWORD)
            code, said = session.mail(sender)
            assert code == 250, said
            code, said = session.rcpt(recipient)
            return code, said.decode()

    def sendmail(self, sender: str, recipients: list[str], message: bytes) -> None:
        """Hand a message in with sendmail(1)."""
        command = ["sendmail", "-C", str(self._etc), "-i", "-f", sender, *recipients]
        subprocess.run(command, input=message.replace(b"\r\n", b"\n"), check=True, timeout=30)

    @property
    def maillog(self) -> Path:
        return self.base / "log" / "maillog"

    def rotate_log(self) -> None:
        """What `postfix logrotate` does: rename, compress, have a new one begun."""
        self._command("logrotate")

    def log(self) -> str:
        path = self.maillog
        return path.read_text(errors="replace") if path.exists() else ""

    def idle(self) -> bool:
        """Whether no message is in the queue."""
        return not any(self._queued(name) for name in ("maildrop", "incoming", "active", "deferred"))

    def _queued(self, name: str) -> bool:
        return any(path.is_file() for path in (self.queue / name).rglob("*"))

    def dropped(self) -> int:
        """Messages of sendmail(1) that pickup(8) has not taken yet, or could not."""
        return sum(1 for _ in (self.queue / "maildrop").iterdir())


PASSWORD = "secret"


def unavailable() -> str | None:
    """Why no private Postfix can be run here; None when one can."""
    if os.geteuid() != 0:
        return "a private Postfix needs root: its daemons change their user (sudo .venv/bin/pytest tests/postfix)"
    if shutil.which("postfix") is None:
        return "Postfix is not installed (apt-get install postfix)"
    return None


def fields_of(message: bytes, prefix: str) -> list[tuple[str, str]]:
    """The header fields of a delivered message whose names start so, as they stand."""
    head = re.split(rb"\r?\n\r?\n", message, maxsplit=1)[0].decode(errors="replace")
    lines = re.sub(r"\r?\n[ \t]+", " ", head).splitlines()
    named = (line.partition(":") for line in lines)
    return [(name, value.strip()) for name, _, value in named if name.lower().startswith(prefix.lower())]
