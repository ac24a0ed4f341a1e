"""Where mail goes on to: `discard`, `maildir:/PATH`, `smtp:HOST:PORT`, `lmtp:HOST:PORT`, `lmtp:unix:/PATH`.

A destination answers each recipient with the reply that the peer gets: accepted means it is safe there (synced to
disk, or taken over by a server that said so). It never raises. Emits no log events of its own; the modules do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from mailback_smtpd.forward import Forwarder, NextHop
from mailback_smtpd.maildir import Maildir
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply


class Destination(Protocol):
    """Takes messages over."""

    keeps: ClassVar[bool]
    """False where the message itself is not wanted, so that it need not be written anew."""

    async def deliver(self, message: Outgoing) -> list[Reply]:
        """One reply a recipient, in their order."""

    async def close(self) -> None:
        """Give up connections that are kept open."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Nowhere: the event was recorded, the message itself is not kept."""

    keeps: ClassVar[bool] = False

    async def deliver(self, message: Outgoing) -> list[Reply]:
        return [Reply(250, "2.0.0", "recorded")] * len(message.recipients)

    async def close(self) -> None:
        return


def destination(route: str, hostname: str) -> Destination:
    """The destination that a setting names; `hostname` introduces us to a next hop.

    Raises ValueError for a route that names none.
    """
    scheme, _, rest = route.partition(":")
    if route == "discard":
        return Discard()
    if scheme == "maildir" and rest:
        return Maildir(Path(rest))
    if scheme == "lmtp" and rest.startswith(("unix:", "/")):
        return Forwarder(NextHop(lmtp=True, path=rest.removeprefix("unix:")), hostname)
    host, _, port = rest.rpartition(":")
    if scheme in {"smtp", "lmtp"} and host and port.isdigit():
        return Forwarder(NextHop(lmtp=scheme == "lmtp", host=host.strip("[]"), port=int(port)), hostname)
    raise ValueError(f"{route!r} is no place to send mail on to")
