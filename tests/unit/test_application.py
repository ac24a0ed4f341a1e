"""What a program that sends mail asks of us: check, sign, remember, and the ways to unsubscribe that it gives out."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

import mailback
from mailback.application import NotSigningError, Outbox
from mailback.bounce.taxonomy import Provenance
from mailback.engine import Engine
from mailback.envelope import Envelope
from mailback.settings import Settings, SettingsError
from mailback.store import Store
from tests.support.mail import dsn

ADA, LONG = "ada@receiver.test", "a.rather.long.name@department.receiver.test"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    from mailback.cli.main import run

    file, key = tmp_path / "mailback.toml", tmp_path / "keys"
    file.write_text(
        f"store.url = 'sqlite:///{tmp_path}/state/mailback.db'\nmail.sending_domains = ['sender.test']\n"
        f"mail.bounce_domain = 'bounce.sender.test'\nsigning.secret_file = '{key}'\n"
    )
    assert run(["signing", "keygen", "--file", str(key)]) == 0
    return file


@pytest.fixture
def outbox(config: Path) -> Iterator[Outbox]:
    with mailback.outbox(config) as opened:
        yield opened


def store_of(config: Path) -> Store:
    return Store.open(Settings.load(config).store.url)


def test_what_was_signed_and_remembered_proves_its_bounce(outbox: Outbox, config: Path) -> None:
    path = outbox.sign("news@sender.test", [ADA])
    assert path is not None
    outbox.remember(message_id="<1@sender.test>", sender="news@sender.test", recipients=[ADA], return_path=path)
    with store_of(config) as store:
        bounce = dsn(ADA, message_id="<1@sender.test>").replace(b"20 Nov 2026", b"31 Dec 2030")
        Engine(Settings.load(config), store).inbound(Envelope("", (path,)), bounce)
        assert next(iter(store.events())).provenance is Provenance.SIGNED
    answer = outbox.check(ADA)
    assert not answer.allowed
    assert "hard_bounce/user_unknown" in answer.text


@pytest.mark.parametrize("who", [ADA, LONG])
def test_a_one_click_token_unsubscribes_its_recipient_and_nobody_else(outbox: Outbox, config: Path, who: str) -> None:
    minted = outbox.unsubscribe(who)
    assert outbox.check(who).allowed
    assert outbox.unsubscribed(minted.token) == who
    assert outbox.unsubscribed(minted.token.upper()) == who
    assert not outbox.check(who).allowed
    with store_of(config) as store:
        [event] = store.events()
        assert (event.type, event.subcategory, event.provenance) == (
            "complaint", "unsubscribe_request", Provenance.SIGNED,
        )  # fmt: skip
        assert [s.address_key for s in store.suppressions()] == [who]


def test_what_is_no_unsubscribe_token_does_nothing(outbox: Outbox, config: Path) -> None:
    token = outbox.unsubscribe(ADA).token
    path = outbox.sign("news@sender.test", [ADA])
    assert path is not None
    wrong = [
        "", "unsubscribe-", token[:-1], f"{token[:20]}0000{token[24:]}", path.partition("@")[0],
        f"unsubscribe-{path.partition('@')[0]}", f"{token}@evil.test", "x" * 10_000, "\0\r\n", "ünsubscribe",
    ]  # fmt: skip
    assert [outbox.unsubscribed(one) for one in wrong] == [None] * len(wrong)
    with store_of(config) as store:
        assert list(store.suppressions()) == []


def test_the_header_fields_are_those_of_rfc_8058(outbox: Outbox) -> None:
    minted = outbox.unsubscribe(ADA)
    message = EmailMessage()
    for name, value in minted.fields("https://sender.test/u/").items():
        message[name] = value
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"<mailto:{minted.mailto}>" in message["List-Unsubscribe"]
    assert f"<https://sender.test/u/{minted.token}>" in message["List-Unsubscribe"]
    assert minted.fields(None) == {"List-Unsubscribe": f"<mailto:{minted.mailto}>"}


def test_without_signed_return_paths_nothing_can_be_minted(tmp_path: Path) -> None:
    file = tmp_path / "mailback.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/mailback.db'\n")
    with mailback.outbox(file) as outbox:
        assert outbox.sign("news@sender.test", [ADA]) is None
        with pytest.raises(NotSigningError, match=r"signing\.secret_file"):
            outbox.unsubscribe(ADA)
        with pytest.raises(NotSigningError):
            outbox.unsubscribed("unsubscribe-u1")


def test_a_wrong_configuration_is_told_whole(tmp_path: Path) -> None:
    file = tmp_path / "mailback.toml"
    file.write_text("[auth]\nnameservers = ['ns.example.org']\ntimeout_s = 0\n")
    with pytest.raises(SettingsError) as wrong:
        mailback.outbox(file)
    assert len(wrong.value.problems) == 2
