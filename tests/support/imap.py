"""A private Dovecot: configuration, mail and log below one folder, loopback only, nothing of /etc/dovecot used."""

from __future__ import annotations

import getpass
import imaplib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.support.server import free_port, wait_for

USER, PASSWORD = "bounces", "secret"

_CONFIG = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
listen = 127.0.0.1
protocols = imap
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
ssl = yes
ssl_cert = <{base}/cert.pem
ssl_key = <{base}/key.pem
disable_plaintext_auth = no
mail_location = maildir:{base}/mail
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/mail
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


def unavailable() -> str | None:
    """Why no private Dovecot can be run here; None when one can."""
    return None if shutil.which("dovecot") else "Dovecot is not installed (apt-get install dovecot-imapd)"


class PrivateDovecot:
    """One mailbox behind an IMAP server, in the clear (and STARTTLS) on `imap`, with TLS on `imaps`."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.imap, self.imaps = free_port(), free_port()
        self.ca_file = base / "cert.pem"
        for name in ("run", "state", "mail"):
            (base / name).mkdir(exist_ok=True)
        self._certificate()
        root = os.geteuid() == 0
        owner = pwd.getpwnam("mail") if root else pwd.getpwuid(os.getuid())
        internal = "dovecot" if root else getpass.getuser()
        login = "dovenull" if root else getpass.getuser()
        shutil.chown(base / "mail", owner.pw_uid, owner.pw_gid)
        group = pwd.getpwnam(internal).pw_gid
        import grp

        (base / "dovecot.conf").write_text(
            _CONFIG.format(
                base=base, internal=internal, internal_group=grp.getgrgid(group).gr_name, login=login,
                uid=owner.pw_uid, gid=owner.pw_gid, password=PASSWORD, imap=self.imap, imaps=self.imaps,
            )
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def _certificate(self) -> None:
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(self._base / "key.pem"), "-out", str(self._base / "cert.pem"),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(self._base / "dovecot.conf")], stdin=subprocess.DEVNULL
        )
        wait_for(self._answers, what=self.log())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=30)

    def log(self) -> str:
        path = self._base / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _answers(self) -> bool:
        try:
            with self.session():
                return True
        except (OSError, imaplib.IMAP4.error):
            return False

    @contextmanager
    def session(self) -> Iterator[imaplib.IMAP4]:
        """Somebody else who reads the same mailbox."""
        session = imaplib.IMAP4("127.0.0.1", self.imap, timeout=30)
        try:
            session.login(USER, PASSWORD)
            yield session
        finally:
            session.logout()

    def append(self, raw: bytes, at: datetime | None = None, folder: str = "INBOX", flags: str = "") -> None:
        """Put a message there."""
        with self.session() as session:
            when = imaplib.Time2Internaldate(at or datetime.now(UTC))
            assert session.append(folder, flags, when, raw)[0] == "OK"

    def create(self, folder: str) -> None:
        with self.session() as session:
            assert session.create(folder)[0] == "OK"

    def delete(self, folder: str) -> None:
        with self.session() as session:
            assert session.delete(folder)[0] == "OK"

    def flags(self, folder: str = "INBOX") -> list[str]:
        """The flags of each message, in order of UID."""
        with self.session() as session:
            assert session.select(folder, readonly=True)[0] == "OK"
            _, answer = session.uid("FETCH", "1:*", "(FLAGS)")
            return [
                item.decode().partition("FLAGS (")[2].partition(")")[0].replace(r"\Recent", "").strip()
                for item in answer
                if isinstance(item, bytes)
            ]
