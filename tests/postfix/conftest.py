"""The scene of all these tests: Postfix, Mailback, the rest of the world. Built once for each module."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailback import address
from mailback.store import SuppressionLookup
from mailback.store.records import Suppression
from tests.postfix.instance import PrivatePostfix, Smtpd, unavailable
from tests.postfix.peers import Destination, Logins
from tests.support.server import RunningMailback, free_port

MILTER = "unix:mailback/milter.sock"  # below the queue folder, so that a chrooted smtpd finds it as well


@dataclass
class Scene:
    """Everything that a test talks to."""

    postfix: PrivatePostfix
    mailback: RunningMailback
    world: Destination
    config: Path
    receiver_port: int
    store_url: str

    def suppression(self, recipient: str) -> Suppression | None:
        with SuppressionLookup(self.store_url) as lookup:
            return lookup.lookup(address.key(recipient))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A `mailback` command on the same configuration."""
        line = [sys.executable, "-m", "mailback.cli.main", *words, "--config", str(self.config)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def events(self) -> list[dict[str, Any]]:
        done = self.command("events", "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def suppress(self, recipient: str) -> None:
        done = self.command("suppress", "add", recipient, "--reason", "asked by telephone")
        assert done.returncode == 0, done.stderr


CONFIG = """\
[store]
url = "{store}"
[mail]
hostname = "mx.sender.test"
sending_domains = ["sender.test"]
bounce_domain = "bounce.sender.test"
[smtpd]
listen = "127.0.0.1:{receiver}"
next_hop = "smtp:127.0.0.1:{world}"
bounces_to = "discard"
[milter]
listen = "unix:{milter}"
socket_group = "postfix"
workers = 2
[policyd]
listen = "127.0.0.1:{policy}"
socketmap = "127.0.0.1:{socketmap}"
"""


@contextmanager
def scene(
    smtpds: dict[str, Smtpd],
    parameters: Callable[[dict[str, int]], dict[str, str]],
    *,
    started: bool = True,
    more: str = "",
    services: str = "",
) -> Iterator[Scene]:
    """Build and start everything; `parameters` are given the ports. `more` is added to Mailback's configuration, with
    `{maillog}` for the path of Postfix's log."""
    with ExitStack() as stack:
        # Not pytest's own folder: the user `postfix` cannot pass through that.
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailback-postfix-")))
        base.chmod(0o755)
        world = Destination()
        ports = {name: free_port() for name in ("receiver", "policy", "socketmap")} | {"world": world.port}
        postfix = PrivatePostfix(base, smtpds, _parameters(ports) | parameters(ports), services)
        door = postfix.queue / "mailback"
        door.mkdir(mode=0o750)
        shutil.chown(door, "root", "postfix")
        logins = Logins(postfix.queue / "logins")
        (base / "state").mkdir(mode=0o700)
        store_url = f"sqlite:///{base / 'state' / 'mailback.db'}"
        config = base / "mailback.toml"
        written = CONFIG.format(store=store_url, milter=door / "milter.sock", **ports)
        config.write_text(written + more.format(maillog=postfix.maillog))
        mailback = RunningMailback(config)
        world.start()
        stack.callback(world.stop)
        logins.start()
        stack.callback(logins.stop)
        postfix.start()
        stack.callback(postfix.stop)
        if started:
            mailback.start()
            stack.callback(mailback.stop)
        yield Scene(postfix, mailback, world, config, ports["receiver"], store_url)


def _parameters(ports: dict[str, int]) -> dict[str, str]:
    return {
        "default_transport": f"smtp:[127.0.0.1]:{ports['world']}",
        "relay_transport": f"smtp:[127.0.0.1]:{ports['world']}",
        "relay_domains": "sender.test, bounce.sender.test",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": "logins",
        "via_policy": (
            f"check_policy_service {{ inet:127.0.0.1:{ports['policy']}, timeout=10s, default_action=DUNNO }}, "
            "permit_mynetworks, reject_unauth_destination"
        ),
        "via_socketmap": (
            f"check_recipient_access socketmap:inet:127.0.0.1:{ports['socketmap']}:access, "
            "permit_mynetworks, reject_unauth_destination"
        ),
    }


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    if reason := unavailable():
        pytest.skip(reason)
