"""Ways to get an innocent address suppressed, each shown to fail, and each one's twin by a rightful sender, to succeed.

Everything goes through the one walk (engine and store) with signed return paths. The victim and the attacker both
subscribe; the attacker has got mail of ours and knows all that stands in it: his own return path, the Message-ID of
mail to the list, and the forms of our addresses. He has never seen anything that was sent to the victim alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from mailback import address
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.returnpath import Key, Keys, ReturnPaths
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import JournalEntry
from tests.support.mail import dsn

SENT = datetime(2026, 11, 20, 9, tzinfo=UTC)  # the reports of tests.support.mail are written at 9:30 that day
WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
SENDER, DOMAIN = "news@sender.test", "bounce.sender.test"
VICTIM, MALLORY = "victim@receiver.test", "mallory@evil.test"
KEYS = Keys((Key(1, date(2026, 1, 1), b"k" * 32),))
PATHS = ReturnPaths(KEYS, DOMAIN, 14)
TO_VICTIM, TO_MALLORY, TO_LIST = "<v@sender.test>", "<m@sender.test>", "<list@sender.test>"


class World:
    """A sender with signed return paths, and what was sent: one message each, one to both, one to others only."""

    def __init__(self, folder: Path) -> None:
        key = folder / "keys"
        key.write_text(KEYS.text())
        settings = Settings.loads(f"mail.bounce_domain = '{DOMAIN}'\nsigning.secret_file = '{key}'\n")
        self.store = Store.open(f"sqlite:///{folder}/mailback.db")
        self.store.upgrade()
        self.engine = Engine(settings, self.store)
        self.victims_path = self.send(TO_VICTIM, VICTIM)
        self.mallorys_path = self.send(TO_MALLORY, MALLORY)
        self.batch_path = self.send("<batch@sender.test>", MALLORY, "other@receiver.test")
        self.victims_batch_path = self.send(TO_LIST, VICTIM, "third@receiver.test")

    def send(self, message_id: str, *recipients: str) -> str:
        path = PATHS.sign(SENDER, recipients, SENT)
        assert path is not None
        entry = JournalEntry(SENT, message_id, SENDER, recipients, return_path=path.partition("@")[0])
        self.store.submit(lambda transaction: transaction.journal(entry)).result()
        return path

    def receive(self, to: str, raw: bytes, *, sender: str = "", after_days: float = 0) -> None:
        """As both doors do: what is no answer to mail of ours is refused before DATA."""
        at = WHEN + timedelta(days=after_days)
        if not sender and PATHS.refuses(to, at) is not None:
            return
        self.engine.inbound(
            Envelope(sender, (to,), source=Source.SMTPD, received_at=at, client_address="203.0.113.9"), raw
        )

    def each(self, paths: Iterable[str]) -> None:
        """The victim's bounce to one return path after the other."""
        for path in paths:
            self.receive(path, gone())

    def suppressed(self) -> set[str]:
        return {suppression.address_key for suppression in self.store.suppressions()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def original_too(raw: bytes, original: str) -> bytes:
    """The report with an Original-Recipient before its Final-Recipient (RFC 3464 section 2.3.1)."""
    return raw.replace(b"Final-Recipient:", f"Original-Recipient: rfc822; {original}\r\nFinal-Recipient:".encode(), 1)


def one_more(raw: bytes, recipient: str) -> bytes:
    """The report with one more recipient that failed."""
    group = f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\nFinal-Recipient:"
    return raw.replace(b"Final-Recipient:", group.encode(), 1)


def twice(raw: bytes, recipient: str) -> bytes:
    """The report with two Final-Recipient fields for one failure."""
    return raw.replace(b"Final-Recipient:", f"Final-Recipient: rfc822; {recipient}\r\nFinal-Recipient:".encode(), 1)


def text_bounce(recipient: str) -> bytes:
    return (
        f"From: Mail Delivery System <MAILER-DAEMON@mx.receiver.test>\r\nTo: {SENDER}\r\n"
        "Subject: Undelivered Mail Returned to Sender\r\nDate: Fri, 20 Nov 2026 09:30:00 +0000\r\n"
        "Message-ID: <text@mx.receiver.test>\r\n\r\nThis is the mail system at host mx.receiver.test.\r\n\r\n"
        f"I'm sorry to have to inform you that your message could not be delivered.\r\n\r\n"
        f"<{recipient}>: host mx.receiver.test[192.0.2.7] said: 550 5.1.1 User unknown\r\n"
        "    (in reply to RCPT TO command)\r\n"
    ).encode()


def complaint(recipient: str, return_path: str, message_id: str) -> bytes:
    return (
        "From: Feedback <fbl@provider.test>\r\nTo: fbl@sender.test\r\nSubject: FW: The November issue\r\n"
        "Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <arf@provider.test>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nThis is an email abuse report.\r\n"
        "--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        f"Feedback-Type: abuse\r\nUser-Agent: Test/1\r\nVersion: 1\r\nOriginal-Mail-From: <{return_path}>\r\n"
        f"Original-Rcpt-To: <{recipient}>\r\n\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\n"
        f"Return-Path: <{return_path}>\r\nFrom: News <news@sender.test>\r\nTo: {recipient}\r\n"
        f"Subject: The November issue\r\nMessage-ID: {message_id}\r\n\r\nGood morning\r\n--b--\r\n"
    ).encode()


def unsubscribe(who: str) -> bytes:
    return (
        f"From: <{who}>\r\nTo: unsubscribe@{DOMAIN}\r\nSubject: unsubscribe\r\nMessage-ID: <u@receiver.test>\r\n"
        "Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\nunsubscribe\r\n"
    ).encode()


def day_of(path: str, days: int) -> str:
    """The return path with the day moved, as if it had been signed later."""
    digits = "0123456789abcdefghijklmnopqrstuv"
    moved = (int(path[2:4], 32) + days) % 1024
    return f"{path[:2]}{digits[moved >> 5]}{digits[moved & 31]}{path[4:]}"


@dataclass(frozen=True)
class Attack:
    """What is tried against the victim, and what a rightful sender does in its place."""

    name: str
    forged: Callable[[World], None]
    rightful: Callable[[World], None]
    held: str = VICTIM
    """Whom the rightful one suppresses."""


def gone(who: str = VICTIM, message_id: str = TO_VICTIM, **more: str) -> bytes:
    return dsn(who, message_id=message_id, **more)  # type: ignore[arg-type]


def rightful(world: World) -> None:
    world.receive(world.victims_path, gone())


ATTACKS = [
    Attack("a DSN from nowhere to the bounce domain", lambda w: w.receive(f"news@{DOMAIN}", gone()), rightful),
    Attack(
        "a DSN from nowhere to the sender himself, with a Message-ID made up",
        lambda w: w.receive(SENDER, gone(message_id="<made.up@sender.test>")),
        lambda w: w.receive(SENDER, gone()),
    ),
    Attack("a free-text bounce from nowhere", lambda w: w.receive(SENDER, text_bounce(VICTIM)),
           lambda w: w.receive(w.victims_path, text_bounce(VICTIM))),
    Attack("ones own DSN replayed with the victim in it", lambda w: w.receive(w.mallorys_path, gone()), rightful),
    Attack(
        "ones own return path with the Message-ID of a list",
        lambda w: w.receive(w.mallorys_path, gone(message_id=TO_LIST)),
        lambda w: w.receive(w.victims_batch_path, gone(message_id=TO_LIST)),
    ),
    Attack(
        "a victim added to a true DSN",
        lambda w: w.receive(w.mallorys_path, one_more(gone(MALLORY, TO_MALLORY), VICTIM)),
        lambda w: w.receive(w.victims_path, one_more(gone(), MALLORY)),
    ),
    Attack(
        "the victim as the original recipient of ones own bounce",
        lambda w: w.receive(w.mallorys_path, original_too(gone(MALLORY, TO_MALLORY), VICTIM)),
        lambda w: w.receive(w.victims_path, original_too(gone("forwarded@other.test"), VICTIM)),
    ),
    Attack(
        "two Final-Recipient fields for one failure",
        lambda w: w.receive(w.mallorys_path, twice(gone(MALLORY, TO_MALLORY), VICTIM)),
        rightful,
    ),
    Attack(
        "a recipient of another message under the tag to several",
        lambda w: w.receive(w.batch_path, gone(message_id="<batch@sender.test>")),
        lambda w: w.receive(w.victims_batch_path, gone(message_id=TO_LIST)),
    ),
    Attack(
        "the tag to several with a Message-ID made up",
        lambda w: w.receive(w.batch_path, gone(message_id="<made.up@sender.test>")),
        lambda w: w.receive(w.victims_batch_path, gone(message_id=TO_LIST)),
    ),
    Attack(
        "a return path of another day",
        lambda w: w.receive(day_of(w.victims_path, 3), gone(), after_days=3),
        lambda w: w.receive(w.victims_path, gone(), after_days=3),
    ),
    Attack(
        "a return path that has run out",
        lambda w: w.receive(w.victims_path, gone(message_id="<made.up@sender.test>"), after_days=30),
        lambda w: w.receive(w.victims_path, gone(message_id="<made.up@sender.test>"), after_days=13),
    ),
    Attack(
        "a MAC cut to nothing",
        lambda w: w.receive(f"{w.victims_path[:4]}@{DOMAIN}", gone()),
        rightful,
    ),
    Attack(
        "ones own MAC before the victim's ciphertext",
        lambda w: w.receive(w.mallorys_path[:16] + w.victims_path[16:], gone()),
        lambda w: w.receive(w.victims_path.upper(), gone()),
    ),
    Attack(
        "a BATV tag by trial",
        lambda w: w.each(f"prvs=1782{n:06x}=news=sender.test@{DOMAIN}" for n in range(300)),
        lambda w: w.receive(w.victims_batch_path, gone(message_id=TO_LIST)),
    ),
    Attack(
        "a wrong tag wrapped in SRS and BATV",
        lambda w: w.receive(f"prvs=0123abcdef=SRS0=x=y={DOMAIN}=v1{'0' * 40}@{DOMAIN}", gone()),
        lambda w: w.receive(f"prvs=0123abcdef={w.victims_path}", gone()),
    ),
    Attack(
        "the victim in capitals under ones own return path",
        lambda w: w.receive(w.mallorys_path, gone(VICTIM.upper())),
        lambda w: w.receive(w.victims_path, gone(VICTIM.upper())),
    ),
    Attack(
        "the victim with a quoted local part",
        lambda w: w.receive(w.mallorys_path, gone('"victim"@receiver.test')),
        lambda w: w.receive(w.victims_path, gone('"victim"@receiver.test')),
    ),
    Attack(
        "the victim with a comment",
        lambda w: w.receive(w.mallorys_path, gone("victim(it's me)@receiver.test")),
        lambda w: w.receive(w.victims_path, gone()),
    ),
    Attack(
        "a homograph of the attacker's own address",
        lambda w: w.receive(w.mallorys_path, gone("mаllory@evil.test")),  # a Cyrillic letter
        lambda w: w.receive(w.mallorys_path, gone(MALLORY, TO_MALLORY)),
        held=MALLORY,
    ),
    Attack(
        "header fields injected through the diagnostic",
        lambda w: w.receive(
            w.mallorys_path,
            gone(MALLORY, TO_MALLORY, diagnostic=f"550 no\r\n\r\nFinal-Recipient: rfc822; {VICTIM}\r\nAction: failed"),
        ),
        rightful,
    ),
    Attack(
        "a failure from before the message was sent",
        lambda w: w.receive(w.victims_path, re.sub(rb"Date: Fri, 20 Nov", b"Date: Sun, 15 Nov", gone())),
        rightful,
    ),
    Attack(
        "a forged complaint",
        lambda w: w.receive("fbl@sender.test", complaint(VICTIM, w.mallorys_path, TO_MALLORY), sender="fbl@evil.test"),
        lambda w: w.receive("fbl@sender.test", complaint(VICTIM, w.victims_path, TO_VICTIM), sender="f@provider.test"),
    ),
    Attack(
        "a complaint with a Message-ID made up",
        lambda w: w.receive("fbl@sender.test", complaint(VICTIM, SENDER, "<made.up@sender.test>"), sender="x@e.test"),
        lambda w: w.receive("fbl@sender.test", complaint(VICTIM, SENDER, TO_VICTIM), sender="fbl@provider.test"),
    ),
    Attack(
        "an unsubscribe with a forged From",
        lambda w: w.receive(f"unsubscribe@{DOMAIN}", unsubscribe(VICTIM), sender=VICTIM),
        lambda w: w.receive(PATHS.unsubscribe_address(VICTIM, SENT), unsubscribe("other@address.test"), sender=VICTIM),
    ),
    Attack(
        "an unsubscribe under ones own address",
        lambda w: w.receive(PATHS.unsubscribe_address(MALLORY, SENT), unsubscribe(VICTIM), sender=MALLORY),
        lambda w: w.receive(PATHS.unsubscribe_address(VICTIM, SENT), unsubscribe(VICTIM), sender=VICTIM),
    ),
    Attack(
        "the victim's return path in the place of its unsubscribe address",
        lambda w: w.receive(f"unsubscribe-{w.victims_path}", unsubscribe(VICTIM), sender=MALLORY),
        lambda w: w.receive(PATHS.unsubscribe_address(VICTIM, SENT), unsubscribe(VICTIM), sender=VICTIM),
    ),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_the_innocent_stay(world: World, attack: Attack) -> None:
    attack.forged(world)
    assert world.suppressed() <= {address.key(MALLORY)}, "whoever attacks may switch himself off, and nobody else"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_the_rightful_twin_is_believed(world: World, attack: Attack) -> None:
    attack.rightful(world)
    assert address.key(attack.held) in world.suppressed()
