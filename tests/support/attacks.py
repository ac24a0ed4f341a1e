"""Ways to get an innocent address suppressed, and each one's twin by a rightful sender: one table for every door.

The victim and the attacker both subscribe; the attacker has got mail of ours and knows all that stands in it: his own
return path, the Message-ID of mail to the list, our DKIM signature, and the forms of our addresses. He has a host of
his own, an account at the victim's provider, and may write in anybody's name. He has never seen anything that was sent
to the victim alone.

A `World` is where mail goes out and comes back: the engine with a store, a receiver on a socket, a real Postfix. Each
case has a world, and people, of its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import cached_property

from mailback import address
from tests.support.dns import DnsServer, long_txt, txt
from tests.support.mail import dsn, reply
from tests.support.signing import SigningKey, ed25519_key, rsa_key, signed

SENDER, SENDING, DOMAIN = "news@sender.test", "sender.test", "bounce.sender.test"
WRITTEN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
"""When the reports of `tests.support.mail` are written; a world moves all dates to its own time."""
MX, STRANGER = "192.0.2.7", "203.0.113.9"
"""Hosts: the one that delivers for receiver.test, and the attacker's own."""
MX_NAME, EVIL_NAME = "mx.receiver.test", "host.evil.test"

_DATE = re.compile(rb"[A-Z][a-z]{2}, \d{1,2} Nov 2026 \d\d:\d\d:\d\d \+0000")


class World(ABC):
    """A sender with signed return paths, some mail of his, and a way back."""

    def __init__(self, tag: str) -> None:
        """`tag` tells the people of one case from those of the others."""
        self.tag = tag
        self.victim, self.mallory = f"victim{tag}@receiver.test", f"mallory{tag}@evil.test"
        self.neighbour = f"mallory{tag}@receiver.test"
        """The attacker's account at the victim's provider."""
        self.to_victim, self.to_mallory = f"<v{tag}@sender.test>", f"<m{tag}@sender.test>"
        self.to_list, self.to_batch = f"<list{tag}@sender.test>", f"<batch{tag}@sender.test>"
        self.made_up = f"<made.up{tag}@sender.test>"

    @abstractmethod
    def send(self, message_id: str, *recipients: str, days_ago: int = 0) -> str:
        """Let a message go out and be remembered; the return path it left under."""

    @abstractmethod
    def deliver(self, to: str, raw: bytes, *, sender: str, client: str, helo: str) -> bool:
        """Mail comes in from `client`; false where it was refused before its content was sent."""

    @abstractmethod
    def suppressed(self) -> set[str]:
        """The keys of all addresses of this case that are suppressed."""

    @abstractmethod
    def unsubscribe_address(self, recipient: str) -> str: ...

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def receive(
        self,
        to: str,
        raw: bytes,
        *,
        sender: str = "",
        client: str = STRANGER,
        helo: str = EVIL_NAME,
        dated: bool = False,
    ) -> bool:
        """As `deliver`, from the attacker's host unless told otherwise, with all dates moved to the world's time unless
        that was done before it was signed (`dated`)."""
        return self.deliver(to, raw if dated else self.dated(raw), sender=sender, client=client, helo=helo)

    def from_mx(self, to: str, raw: bytes, sender: str = "") -> bool:
        """Mail from the host that delivers for the victim's domain."""
        return self.receive(to, raw, sender=sender, client=MX, helo=MX_NAME)

    def dated(self, raw: bytes) -> bytes:
        moved = self.now - WRITTEN

        def move(found: re.Match[bytes]) -> bytes:
            return format_datetime(parsedate_to_datetime(found[0].decode()) + moved).encode()

        return _DATE.sub(move, raw)

    @cached_property
    def victims_path(self) -> str:
        return self.send(self.to_victim, self.victim)

    @cached_property
    def mallorys_path(self) -> str:
        return self.send(self.to_mallory, self.mallory)

    @cached_property
    def batch_path(self) -> str:
        """To the attacker and another."""
        return self.send(self.to_batch, self.mallory, f"other{self.tag}@receiver.test")

    @cached_property
    def victims_batch_path(self) -> str:
        """To the victim and another."""
        return self.send(self.to_list, self.victim, f"third{self.tag}@receiver.test")

    # -- the reports ------------------------------------------------------------------------------------------

    def gone(self, who: str | None = None, message_id: str | None = None, **more: str) -> bytes:
        """A report that an address does not exist, about the message to the victim unless told otherwise."""
        return dsn(who or self.victim, message_id=message_id or self.to_victim, **more)  # type: ignore[arg-type]

    def about_mallory(self) -> bytes:
        return self.gone(self.mallory, self.to_mallory)

    def each(self, paths: Iterable[str]) -> None:
        """The victim's bounce to one return path after the other."""
        for path in paths:
            self.receive(path, self.gone())


def records(server: DnsServer) -> None:
    """What DNS says about everybody; `receiver.test` is the provider of the victim, and of the attacker as well."""
    for name in ("receiver.test", MX_NAME):
        server.add(name, "TXT", txt(f"v=spf1 ip4:{MX} -all"))
    for name in ("evil.test", EVIL_NAME):
        server.add(name, "TXT", txt(f"v=spf1 ip4:{STRANGER} -all"))
    server.add("receiver.test", "MX", f"10 {MX_NAME}.")
    server.add("_dmarc.receiver.test", "TXT", txt("v=DMARC1; p=reject"))
    server.add("s1._domainkey.receiver.test", "TXT", long_txt(rsa_key().record))
    server.add("s1._domainkey.sender.test", "TXT", long_txt(rsa_key().record))
    server.add("s2._domainkey.sender.test", "TXT", txt(ed25519_key().record))
    server.add("s1._domainkey.evil.test", "TXT", long_txt(rsa_key().record))


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
        f"Message-ID: <text-{recipient}>\r\n\r\nThis is the mail system at host mx.receiver.test.\r\n\r\n"
        f"I'm sorry to have to inform you that your message could not be delivered.\r\n\r\n"
        f"<{recipient}>: host mx.receiver.test[192.0.2.7] said: 550 5.1.1 User unknown\r\n"
        "    (in reply to RCPT TO command)\r\n"
    ).encode()


def complaint(recipient: str, return_path: str, message_id: str, author: str = "fbl@provider.test") -> bytes:
    return (
        f"From: Feedback <{author}>\r\nTo: fbl@sender.test\r\nSubject: FW: The November issue\r\n"
        f"Date: Fri, 20 Nov 2026 09:30:00 +0000\r\nMessage-ID: <arf-{message_id[1:]}\r\nMIME-Version: 1.0\r\n"
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
        f"From: <{who}>\r\nTo: unsubscribe@{DOMAIN}\r\nSubject: unsubscribe\r\nMessage-ID: <u-{who}>\r\n"
        "Date: Fri, 20 Nov 2026 09:30:00 +0000\r\n\r\nunsubscribe\r\n"
    ).encode()


def leave_me(w: World, answers: str | None = None) -> bytes:
    """A person's reply in the victim's name, perhaps to a message of ours."""
    raw = reply(
        w.victim, message_id=f"<r{w.tag}@receiver.test>", text="Please unsubscribe me, I do not want these mails."
    )
    return raw if answers is None else f"In-Reply-To: {answers}\r\nReferences: {answers}\r\n".encode() + raw


def letter(to: str, message_id: str, key: SigningKey, selector: str = "s1") -> bytes:
    """The header block of a message of ours, signed by us, as a report returns it: its body is missing."""
    raw = (
        f"From: News <{SENDER}>\r\nTo: {to}\r\nSubject: The November issue\r\nMessage-ID: {message_id}\r\n"
        "Date: Fri, 20 Nov 2026 09:00:00 +0000\r\n\r\nGood morning\r\n"
    ).encode()
    whole = signed(raw, key, domain=SENDING, selector=selector, headers=("From", "To", "Subject", "Message-ID"))
    return whole.partition(b"\r\n\r\n")[0] + b"\r\n"


def returning(report: bytes, block: bytes) -> bytes:
    """The report with this header block in the place of what it returns."""
    head, _, _ = report.rpartition(b"Content-Type: message/rfc822\r\n\r\n")
    return head + b"Content-Type: text/rfc822-headers\r\n\r\n" + block + b"\r\n--=_report_7b1f--\r\n"


def written_by(author: str, raw: bytes) -> bytes:
    return raw.replace(b"Mail Delivery System <MAILER-DAEMON@mx.receiver.test>", author.encode())


def day_of(path: str, days: int) -> str:
    """The return path with the day moved, as if it had been signed later."""
    digits = "0123456789abcdefghijklmnopqrstuv"
    moved = (int(path[2:4], 32) + days) % 1024
    return f"{path[:2]}{digits[moved >> 5]}{digits[moved & 31]}{path[4:]}"


@dataclass(frozen=True)
class Attack:
    """What is tried against the victim, and what a rightful sender does in its place."""

    name: str
    forged: Callable[[World], object]
    rightful: Callable[[World], object]
    holds: str = "victim"
    """Whom the rightful one suppresses."""

    @property
    def tag(self) -> str:
        """A part of an address that no other case has."""
        return str(ATTACKS.index(self))


def rightful(w: World) -> None:
    w.receive(w.victims_path, w.gone())


def provider_signed(w: World, raw: bytes) -> bytes:
    """By the victim's provider, dates set before it is signed."""
    return signed(w.dated(raw), rsa_key(), domain="receiver.test")


def _signed_report(w: World, author: str) -> bytes:
    return provider_signed(w, written_by(author, w.gone(message_id=w.made_up)))


def _returned(w: World, recipient: str, to: str, *, change: tuple[str, str] = ("", ""), kind: str = "rsa") -> bytes:
    """A report by a stranger about `recipient` that returns a message which we signed for `to`."""
    key, selector = (rsa_key(), "s1") if kind == "rsa" else (ed25519_key(), "s2")
    block = letter(to, w.made_up, key, selector)
    changed = block.replace(change[0].encode(), change[1].encode(), 1) if change[0] else block
    return returning(w.gone(recipient, w.made_up), changed)


ATTACKS = [
    # -- the return path
    Attack("a DSN from nowhere to the bounce domain", lambda w: w.receive(f"news@{DOMAIN}", w.gone()), rightful),
    Attack(
        "a DSN from nowhere to the sender himself with a Message-ID made up",
        lambda w: w.receive(SENDER, w.gone(message_id=w.made_up)),
        lambda w: (w.victims_path, w.receive(SENDER, w.gone())),
    ),
    Attack(
        "a free-text bounce from nowhere",
        lambda w: w.receive(SENDER, text_bounce(w.victim)),
        lambda w: w.receive(w.victims_path, text_bounce(w.victim)),
    ),
    Attack("ones own DSN replayed with the victim in it", lambda w: w.receive(w.mallorys_path, w.gone()), rightful),
    Attack(
        "ones own return path with the Message-ID of a list",
        lambda w: (w.victims_batch_path, w.receive(w.mallorys_path, w.gone(message_id=w.to_list))),
        lambda w: w.receive(w.victims_batch_path, w.gone(message_id=w.to_list)),
    ),
    Attack(
        "a victim added to a true DSN",
        lambda w: w.receive(w.mallorys_path, one_more(w.about_mallory(), w.victim)),
        lambda w: w.receive(w.victims_path, one_more(w.gone(), w.mallory)),
    ),
    Attack(
        "the victim as the original recipient of ones own bounce",
        lambda w: w.receive(w.mallorys_path, original_too(w.about_mallory(), w.victim)),
        lambda w: w.receive(w.victims_path, original_too(w.gone("forwarded@other.test"), w.victim)),
    ),
    Attack(
        "two Final-Recipient fields for one failure",
        lambda w: w.receive(w.mallorys_path, twice(w.about_mallory(), w.victim)),
        rightful,
    ),
    Attack(
        "a recipient of another message under the tag to several",
        lambda w: w.receive(w.batch_path, w.gone(message_id=w.to_batch)),
        lambda w: w.receive(w.victims_batch_path, w.gone(message_id=w.to_list)),
    ),
    Attack(
        "the tag to several with a Message-ID made up",
        lambda w: w.receive(w.batch_path, w.gone(message_id=w.made_up)),
        lambda w: w.receive(w.victims_batch_path, w.gone(message_id=w.to_list)),
    ),
    Attack(
        "a return path of another day",
        lambda w: w.receive(day_of(w.send(w.to_victim, w.victim, days_ago=3), 3), w.gone()),
        lambda w: w.receive(w.send(w.to_victim, w.victim, days_ago=3), w.gone()),
    ),
    Attack(
        "a return path that has run out",
        lambda w: w.receive(w.send(w.to_victim, w.victim, days_ago=30), w.gone(message_id=w.made_up)),
        lambda w: w.receive(w.send(w.to_victim, w.victim, days_ago=13), w.gone(message_id=w.made_up)),
    ),
    Attack("a MAC cut to nothing", lambda w: w.receive(f"{w.victims_path[:4]}@{DOMAIN}", w.gone()), rightful),
    Attack(
        "ones own MAC before the victim's ciphertext",
        lambda w: w.receive(w.mallorys_path[:16] + w.victims_path[16:], w.gone()),
        lambda w: w.receive(w.victims_path.upper(), w.gone()),
    ),
    Attack(
        "a BATV tag by trial",
        lambda w: w.each(f"prvs=1782{n:06x}=news=sender.test@{DOMAIN}" for n in range(30)),
        lambda w: w.receive(w.victims_batch_path, w.gone(message_id=w.to_list)),
    ),
    Attack(
        "a wrong tag wrapped in SRS and BATV",
        lambda w: w.receive(f"prvs=0123abcdef=SRS0=x=y={DOMAIN}=v1{'0' * 24}@{DOMAIN}", w.gone()),
        lambda w: w.receive(f"prvs=0123abcdef={w.victims_path}", w.gone()),
    ),
    # -- the name of the victim
    Attack(
        "the victim in capitals under ones own return path",
        lambda w: w.receive(w.mallorys_path, w.gone(w.victim.upper())),
        lambda w: w.receive(w.victims_path, w.gone(w.victim.upper())),
    ),
    Attack(
        "the victim with a quoted local part",
        lambda w: w.receive(w.mallorys_path, w.gone('"{}"@{}'.format(*w.victim.split("@")))),
        lambda w: w.receive(w.victims_path, w.gone('"{}"@{}'.format(*w.victim.split("@")))),
    ),
    Attack(
        "the victim with a comment",
        lambda w: w.receive(w.mallorys_path, w.gone(w.victim.replace("@", "(it's me)@"))),
        rightful,
    ),
    Attack(
        "a homograph of the attacker's own address",
        lambda w: w.receive(w.mallorys_path, w.gone(w.mallory.replace("a", "а"))),  # a Cyrillic letter
        lambda w: w.receive(w.mallorys_path, w.about_mallory()),
        holds="mallory",
    ),
    # -- what stands in a report
    Attack(
        "header fields injected through the diagnostic",
        lambda w: w.receive(
            w.mallorys_path,
            w.gone(
                w.mallory,
                w.to_mallory,
                diagnostic=f"550 no\r\n\r\nFinal-Recipient: rfc822; {w.victim}\r\nAction: failed",
            ),
        ),
        rightful,
    ),
    Attack(
        "a failure from before the message was sent",
        lambda w: w.receive(w.victims_path, re.sub(rb"Date: Fri, 20 Nov", b"Date: Sun, 15 Nov", w.gone())),
        rightful,
    ),
    # -- complaints and unsubscribes
    Attack(
        "a forged complaint",
        lambda w: w.receive(
            "fbl@sender.test", complaint(w.victim, w.mallorys_path, w.to_mallory), sender="f@evil.test"
        ),
        lambda w: w.receive("fbl@sender.test", complaint(w.victim, w.victims_path, w.to_victim), sender="f@prov.test"),
    ),
    Attack(
        "a complaint with a Message-ID made up",
        lambda w: w.receive("fbl@sender.test", complaint(w.victim, SENDER, w.made_up), sender="x@evil.test"),
        lambda w: (
            w.victims_path,
            w.receive("fbl@sender.test", complaint(w.victim, SENDER, w.to_victim), sender="f@prov.test"),
        ),
    ),
    Attack(
        "a complaint that a neighbour at the victim's provider wrote and the provider signed",
        lambda w: w.receive(
            "fbl@sender.test",
            provider_signed(w, complaint(w.victim, SENDER, w.made_up, w.neighbour)),
            sender=w.neighbour,
            dated=True,
        ),
        lambda w: w.receive(
            "fbl@sender.test",
            provider_signed(w, complaint(w.victim, SENDER, w.made_up, "abuse@receiver.test")),
            sender="loop@elsewhere.test",
            dated=True,
        ),
    ),
    Attack(
        "an unsubscribe with a forged From",
        lambda w: w.receive(f"unsubscribe@{DOMAIN}", unsubscribe(w.victim), sender=w.victim),
        lambda w: w.receive(
            w.unsubscribe_address(w.victim), unsubscribe("other@address.test"), sender="o@address.test"
        ),
    ),
    Attack(
        "an unsubscribe under ones own address",
        lambda w: w.receive(w.unsubscribe_address(w.mallory), unsubscribe(w.victim), sender=w.mallory),
        lambda w: w.receive(w.unsubscribe_address(w.victim), unsubscribe(w.victim), sender=w.victim),
    ),
    Attack(
        "the victim's return path in the place of its unsubscribe address",
        lambda w: w.receive(f"unsubscribe-{w.victims_path}", unsubscribe(w.victim), sender=w.mallory),
        lambda w: w.receive(w.unsubscribe_address(w.victim), unsubscribe(w.victim), sender=w.victim),
    ),
    Attack(
        "a reply in the victim's name that asks to be left alone",
        lambda w: w.receive(SENDER, leave_me(w), sender=w.victim),
        lambda w: w.from_mx(SENDER, leave_me(w), sender=w.victim),
    ),
    Attack(
        "a reply in the victim's name to mail of the list",
        lambda w: (w.victims_batch_path, w.receive(SENDER, leave_me(w, answers=w.to_list), sender=w.victim)),
        lambda w: (w.victims_batch_path, w.from_mx(SENDER, leave_me(w, answers=w.to_list), sender=w.victim)),
    ),
    # -- who brings it
    Attack(
        "the name of the victim's server from another host",
        lambda w: w.receive(SENDER, w.gone(message_id=w.made_up), helo=MX_NAME),
        lambda w: w.from_mx(SENDER, w.gone(message_id=w.made_up)),
    ),
    Attack(
        "ones own authenticated server",
        lambda w: w.receive(SENDER, w.gone(message_id=w.made_up)),
        lambda w: w.from_mx(SENDER, w.gone(message_id=w.made_up)),
    ),
    Attack(
        "a report that a neighbour wrote and the provider of both signed",
        lambda w: w.receive(SENDER, _signed_report(w, w.neighbour), dated=True),
        lambda w: w.receive(SENDER, _signed_report(w, "postmaster@receiver.test"), dated=True),
    ),
    Attack(
        "a neighbour's report through the provider's own server",
        lambda w: w.from_mx(SENDER, written_by(w.neighbour, w.gone(message_id=w.made_up)), sender=w.neighbour),
        lambda w: w.from_mx(SENDER, w.gone(message_id=w.made_up)),
    ),
    Attack(
        "results of authentication brought along under our own name",
        lambda w: w.receive(
            SENDER,
            b"Authentication-Results: mx.sender.test; spf=pass smtp.helo=mx.receiver.test; dkim=pass\r\n"
            b" header.d=receiver.test; dmarc=pass header.from=receiver.test\r\n" + w.gone(message_id=w.made_up),
        ),
        lambda w: w.from_mx(SENDER, w.gone(message_id=w.made_up)),
    ),
    # -- what it returns
    Attack(
        "a message that we signed for the attacker",
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.mallory)),
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.victim)),
    ),
    Attack(
        "a message that we signed for the attacker, the victim written over it",
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.mallory, change=(w.mallory, w.victim), kind="ed25519")),
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.victim, kind="ed25519")),
    ),
    Attack(
        "a message that we signed for the attacker, a second To above it",
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.mallory, change=("To:", f"To: {w.victim}\r\nTo:"))),
        lambda w: w.receive(SENDER, _returned(w, w.victim, w.victim)),
    ),
    Attack(
        "a message that we signed for both",
        lambda w: w.receive(SENDER, _returned(w, w.victim, f"{w.mallory}, {w.victim}")),
        lambda w: w.receive(SENDER, _returned(w, w.victim, f"The victim <{w.victim}>")),
    ),
    Attack(
        "the victim as the display name that the attacker subscribed with",
        lambda w: w.receive(SENDER, _returned(w, w.victim, f'"{w.victim}" <{w.mallory}>')),
        lambda w: w.receive(SENDER, _returned(w, w.victim, f'"{w.mallory}" <{w.victim}>')),
    ),
]


def names(attack: Attack) -> str:
    """The id of a case."""
    return re.sub(r"[^A-Za-z0-9]+", "-", attack.name)


def the_innocent_stay(world: World, attack: Attack) -> None:
    """Try the attack; whoever attacks may switch himself off, and nobody else."""
    attack.forged(world)
    assert world.suppressed() <= {address.key(world.mallory)}, attack.name


def the_rightful_is_believed(world: World, attack: Attack) -> None:
    attack.rightful(world)
    assert address.key(getattr(world, attack.holds)) in world.suppressed(), attack.name
