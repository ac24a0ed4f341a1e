"""Mailback handles everything that comes back when you send mail.

As a library:

    import mailback
    print(mailback.classify(open("bounce.eml", "rb").read()).to_dict())
    print(mailback.validate("ann@gmial.com").suggestion)

A program that sends mail asks, signs, remembers and mints what unsubscribes with `mailback.outbox()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from mailback.application import Outbox
    from mailback.envelope import Envelope
    from mailback.recipient.capture import Captured
    from mailback.walk.classification import Classification

__version__ = "0.1.0"
__all__ = ["__version__", "classify", "outbox", "validate"]


def classify(raw: bytes, envelope: Envelope | None = None, thread: Sequence[str] = ()) -> Classification:
    """Tell what a message is, and for a bounce whom it failed for and why; changes nothing, asks nobody.

    `raw` is the message as it stands on the wire or in a file, `thread` the texts of the earlier messages of its
    thread, oldest first. Never raises on any bytes: what is not mail has the kind `other`.
    """
    told: Classification = _knowledge().classify(raw, envelope, thread)
    return told


@cache
def _knowledge() -> ModuleType:
    """It loads the rules: only who asks pays for them."""
    from mailback.walk import knowledge

    return knowledge


def validate(address: str, *, dns: bool = True, nameservers: Sequence[str] = ()) -> Captured:
    """What is to be thought of an address that somebody enters: `ok`, `risky`, `unknown` or `blocked`, and why.

    Keeps nothing and knows no suppressions (`mailback validate` does both). With `dns` it asks whether the domain takes
    mail, those of `/etc/resolv.conf` or these `nameservers` (`address`, `address:port`), for five seconds at most; DNS
    that gives no answer makes `unknown`, never `blocked`. Raises ValueError where there is no DNS server to ask.
    """
    from mailback.recipient.capture import shipped_check

    return shipped_check(dns, tuple(nameservers))(address)


def outbox(config: str | Path | None = None) -> Outbox:
    """For programs that send: check, sign, remember, and mint what unsubscribes; see `mailback.application`.

    By the configuration in force, or the file named. A context manager; the database is made where there is none.
    Raises SettingsError, KeyFileError or StoreUnavailable, each with what to do.
    """
    from mailback.application import Outbox

    return Outbox.open(config)
