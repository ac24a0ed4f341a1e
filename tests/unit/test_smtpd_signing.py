"""The receiver with signed return paths: backscatter is refused before DATA, the rest goes to whom it is for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date
from email.utils import formatdate
from pathlib import Path
from typing import ClassVar

import pytest

from mailback.bounce.taxonomy import Provenance
from mailback.engine import Engine, Knowledge
from mailback.envelope import Envelope, Source
from mailback.returnpath import Key, Keys, ReturnPaths
from mailback.settings import Settings
from mailback.store import Store
from mailback_smtpd.destination import Destination
from mailback_smtpd.intake import Arrival, Intake
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply
from tests.support.mail import dsn, reply
from tests.support.receiver import receiving

PATHS = ReturnPaths(Keys((Key(1, date(2026, 1, 1), b"k" * 32),)), "bounce.sender.test", 365)


def signed(*recipients: str) -> str:
    path = PATHS.sign("news@sender.test", recipients)
    assert path is not None
    return path


@pytest.mark.parametrize("lmtp", [False, True])
def test_a_bounce_to_an_address_that_we_did_not_give_out_is_refused_before_data(tmp_path: Path, lmtp: bool) -> None:
    with receiving(tmp_path, lmtp=lmtp, return_paths=PATHS) as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        for local in ("news", "v1" + "0" * 40, "prvs=1234abcdef=news=sender.test"):
            assert client.say(f"RCPT TO:<{local}@bounce.sender.test>").startswith("550 5.7.1 ")
        assert client.say("DATA").startswith("503")
        assert list(receiver.store.events()) == []


def test_what_may_be_an_answer_is_taken(tmp_path: Path) -> None:
    with receiving(tmp_path, return_paths=PATHS) as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        for recipient in (signed("ada@r.test"), signed("a@r.test", "b@r.test"), "postmaster@bounce.sender.test"):
            assert client.say(f"RCPT TO:<{recipient}>").startswith("250")
        client.say("RSET")
        client.say("MAIL FROM:<ada@r.test>")
        assert client.say("RCPT TO:<news@bounce.sender.test>").startswith("250")


def test_a_signed_bounce_suppresses_whom_it_was_given_out_for(tmp_path: Path) -> None:
    with receiving(tmp_path, return_paths=PATHS) as receiver:
        client = receiver.connect()
        for who, number in (("ada@r.test", 1), ("eve@r.test", 2)):
            client.message(
                written_now(dsn(who, message_id=f"<{number}@sender.test>")), recipients=(signed("ada@r.test"),)
            )
        grades = [event.provenance for event in receiver.store.events()]
        assert grades == [Provenance.SIGNED, Provenance.FORGED]
        assert [s.address for s in receiver.store.suppressions()] == ["ada@r.test"]


def written_now(raw: bytes) -> bytes:
    """The report with today's date: one from before its message was sent would be forged."""
    return raw.replace(b"Date: Fri, 20 Nov 2026 09:30:00 +0000", f"Date: {formatdate()}".encode())


class Kept(Destination):
    """Takes what it is given."""

    keeps: ClassVar[bool] = True

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []

    async def deliver(self, message: Outgoing) -> list[Reply]:
        self.messages.append(message)
        return [Reply(250, "2.0.0", "kept")] * len(message.recipients)

    async def close(self) -> None:
        pass


def test_mail_to_a_signed_address_goes_on_to_whom_the_sender_had_named(tmp_path: Path) -> None:
    knowledge = replace(Knowledge.load(), return_paths=PATHS)
    people, machines = Kept(), Kept()
    path = signed("ada@r.test", "bob@r.test")
    envelope = Envelope(sender="ada@r.test", recipients=(path, "ann@sender.test"), source=Source.SMTPD)
    raw = reply("ada@r.test", message_id="<r@r.test>")
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        store.upgrade()
        engine = Engine(Settings(), store, knowledge)
        intake = Intake(engine, next_hop=people, bounces_to=machines, quarantine=Kept(), hostname="mx.test")
        replies = asyncio.run(intake.take(Arrival(envelope, raw, "ESMTP", utf8=False)))
    assert [said.code for said in replies] == [250, 250]
    assert [message.recipients for message in people.messages] == [("news@sender.test", "ann@sender.test")]
    assert machines.messages == []
