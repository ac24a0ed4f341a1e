"""Text of strangers at every way out: log, header fields, SMTP replies, tables. And secrets, which have no way out.

What goes in everywhere: line ends, controls, terminal escapes (also as single octets), marks that turn the order of
reading around, other characters that end a line for some reader, and a NUL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from email.header import Header
from pathlib import Path

import pytest

from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.outbound.check import Check
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import JournalEntry, Suppression
from mailback_milter import protocol
from mailback_milter.session import _reply as milter_reply
from tests.support.attacks import complaint, unsubscribe
from tests.support.command import Run, on_terminal, within
from tests.support.mail import dsn, reply
from tests.support.receiver import Client
from tests.support.server import free_port, running, wait_for

EVIL = "x\r\nX-Mailback-Kind: forged\r\n250 ok\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp\u2028\u0085\x00%s{0}"
BARE = "x\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp%s{0}"
"""The same without what ends a line: for places where that would begin another field."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINKS = re.compile(r"\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)")


def encoded(text: str) -> str:
    """As an encoded word (RFC 2047), which may hold anything."""
    return Header(text, "utf-8", maxlinelen=10_000).encode().replace("\n", "")


def hostile_mail() -> Iterator[tuple[str, bytes]]:
    """Mail whose every word is hostile, with its envelope sender."""
    subject, quoted = encoded(EVIL), EVIL.replace("\r\n", "\r\n ")
    bounce = dsn(
        "gone@receiver.test", message_id="<1@sender.test>", diagnostic=f"550 5.1.1 {quoted}",
        extra_headers=f"X-Other: {BARE}\r\n",
    )  # fmt: skip
    bounce = bounce.replace(b"Reporting-MTA: dns; mx.receiver.test", f"Reporting-MTA: dns; mx.{BARE}".encode())
    bounce = bounce.replace(b"Subject: The", f"X-Campaign: {BARE}\r\nList-Id: <{BARE}>\r\nSubject: The".encode())
    yield "", re.sub(rb"\r\nSubject: [^\r]*", f"\r\nSubject: {subject}".encode(), bounce)
    yield "", dsn(f'"{BARE}"@receiver.test', message_id=f"<{BARE}@sender.test>")
    yield "", dsn("rude@receiver.test", message_id="<2@sender.test>", status=f"5.1.1 {BARE}", action=f"failed{BARE}")
    yield "f@provider.test", complaint("angry@receiver.test", f"{BARE}@sender.test", f"<{BARE}@sender.test>")
    yield "u@receiver.test", unsubscribe(f"{BARE}@receiver.test")
    person = reply("ann@receiver.test", message_id=f"<{BARE}@receiver.test>", text=f"Yes please, call me {EVIL}")
    yield "ann@receiver.test", person.replace(b"Subject: Re:", f"Subject: {subject}".encode())
    yield (
        "ann@receiver.test",
        person.replace(b"Ada Example", subject.encode()).replace(b"Yes", b"Please unsubscribe me"),
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mailback.toml"
    file.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/mailback.db"\n[mail]\nsending_domains = ["sender.test"]\n'
        '[trust]\nrequire = "always"\n'
    )
    return file


@pytest.fixture
def store(config: Path) -> Iterator[Store]:
    """A store that has seen it all."""
    settings = Settings.load(config)
    with Store.open(settings.store.url) as opened:
        opened.upgrade()
        entry = JournalEntry(
            Envelope().received_at, f"<{BARE}@sender.test>", f"{BARE}@sender.test", (f"{BARE}@receiver.test",),
            subject=EVIL, campaign=EVIL, list_id=EVIL, subscriber=EVIL, text=EVIL,
        )  # fmt: skip
        opened.submit(lambda transaction: transaction.journal(entry)).result()
        held = Suppression("h@r.test", f"{BARE}@r.test", "all", EVIL, EVIL, EVIL, EVIL, entry.at, None, suggestion=EVIL)
        opened.submit(lambda transaction: transaction.suppress(held, EVIL)).result()
        engine = Engine(settings, opened)
        for sender, raw in hostile_mail():
            engine.inbound(
                Envelope(sender, (f"{BARE}@sender.test",), helo=EVIL, queue_id=EVIL, client_address=EVIL), raw
            )
        yield opened


@pytest.fixture
def told(config: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    return within(config, capfd)


def harmless(text: str) -> bool:
    """Printable lines and nothing else."""
    return all(line.isprintable() for line in text.split("\n"))


# -- tables ---------------------------------------------------------------------------------------------------

_HIS = f"{BARE}@receiver.test"
COMMANDS = [
    ["events"], ["events", "--address", _HIS], ["explain", "gone@receiver.test"], ["explain", "h@r.test"],
    ["check", _HIS],
    ["suppress", "list"], ["suppress", "add", _HIS, "--reason", EVIL], ["suppress", "remove", _HIS, "--reason", EVIL],
    ["journal", "list"], ["journal", "find", "--recipient", _HIS], ["review", "list"], ["review", "show", "1"],
    ["review", "show", "2"], ["stats"], ["wave", "list"], ["breaker", "list"], ["retry", "list"], ["retry", "due"],
    ["next", "ann@receiver.test"], ["rules", "unmatched"], ["store", "check"], ["events", "--type", EVIL],
    ["events", "--since", EVIL], ["wave", "undo", EVIL], ["classify", EVIL], [EVIL],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: "-".join(words[:2]) if words[0] != EVIL else "evil")
@pytest.mark.usefixtures("store")
def test_nothing_in_a_table_or_an_error_drives_a_terminal(told: Run, arguments: list[str]) -> None:
    said = told(*[word.replace("\x00", "") for word in arguments])
    assert harmless(said.out)
    assert harmless(said.err)
    assert said.out or said.err


@pytest.mark.parametrize(
    "arguments", [["events"], ["explain", "gone@receiver.test"], ["review", "list"], ["journal", "list"]]
)
@pytest.mark.usefixtures("store")
def test_on_a_terminal_there_are_colours_and_no_other_escapes(config: Path, arguments: list[str]) -> None:
    seen = on_terminal(*arguments, "--config", str(config))
    text = _COLOURS.sub("", _LINKS.sub("", seen)).replace("\r\n", "\n")
    assert "\x1b[" in seen
    assert harmless(text)


def test_classify_prints_nothing_of_a_message_as_it_stands(told: Run, tmp_path: Path) -> None:
    for number, (_, raw) in enumerate(hostile_mail()):
        (tmp_path / f"{number}\x1b[2J.eml").write_bytes(raw)
    said = told("classify", *[str(path) for path in tmp_path.glob("*.eml")])
    assert harmless(said.out)
    assert harmless(said.err)
    as_json = told("classify", "--json", *[str(path) for path in tmp_path.glob("*.eml")])
    assert as_json.out.isascii()
    assert harmless(as_json.out)
    assert len(as_json.lines) == len(list(hostile_mail()))


# -- header fields and replies --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(list(hostile_mail()))))
def test_a_tagged_message_carries_nothing_that_its_sender_chose(tmp_path: Path, number: int) -> None:
    sender, raw = list(hostile_mail())[number]
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        store.upgrade()
        outcome = Engine(Settings.loads(""), store).inbound(Envelope(sender, (EVIL,), source=Source.MILTER), raw)
    for name, value in outcome.add_headers:
        assert re.fullmatch(r"[A-Za-z-]+", name)
        assert value.isascii()
        assert value.isprintable()
    assert outcome.text.isascii()
    assert outcome.text.isprintable()


@pytest.mark.parametrize("text", [EVIL, EVIL * 100, "%" * 600, "\\x{" * 300])
def test_a_reply_is_one_line_of_printable_ascii_however_it_was_asked_for(tmp_path: Path, text: str) -> None:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        store.upgrade()
        who = f'"{text}"@receiver.test'
        run(
            [
                "suppress",
                "add",
                "--config",
                _config_of(tmp_path),
                "gone@receiver.test",
                "--reason",
                text.replace("\0", ""),
            ]
        )
        for asked in (who, text, "gone@receiver.test"):
            answer = Check(store).answer(asked)
            packet = milter_reply(550, "5.7.1", answer.text or text)
            [(command, data, _)] = protocol.packets(packet)
            line = data.removesuffix(b"\0").decode("ascii")
            assert command == ord("y")
            assert line.isprintable()
            assert "%" not in line
            assert len(line) <= 510


def _config_of(folder: Path) -> str:
    file = folder / "reply.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{folder}/mailback.db"\n')
    return str(file)


# -- the log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_is_a_line_whoever_writes_the_mail(tmp_path: Path, form: str) -> None:
    import socket

    port = free_port()
    config = tmp_path / "mailback.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/mailback.db"\n[mail]\nsending_domains = ["sender.test"]\n'
        f'[smtpd]\nlisten = "127.0.0.1:{port}"\nnext_hop = "maildir:{tmp_path}/inbox"\n'
        f'[log]\naddresses = true\nlevel = "debug"\nformat = "{form}"\n'
    )
    with running(config) as server:
        client = Client(socket.create_connection(("127.0.0.1", port), timeout=30))
        client.reply()
        hostile = BARE.encode()
        assert client.say(b"EHLO " + hostile).startswith("250")
        for command in (b"MAIL FROM:<" + hostile + b"@x.test> SMTPUTF8", b"VRFY " + hostile, hostile):
            assert harmless(client.say(command))
        count = 0
        for sender, raw in hostile_mail():
            said = client.message(raw, sender)
            assert harmless(said[0])
            count += 1
        wait_for(lambda: server.log().count("kind") >= count, what="the messages are logged")
        client.close()
    for line in server.log().splitlines():
        assert line.isprintable()
        assert re.match(r"\{" if form == "json" else r"\d{4}-\d\d-\d\dT", line), line
    for path in (tmp_path / "inbox" / "new").iterdir():
        head = path.read_bytes().partition(b"\r\n\r\n")[0]
        ours = head[: head.find(b"From:")]
        assert ours.count(b"X-Mailback-Kind:") == 1
        assert b"\x1b" not in ours


# -- secrets --------------------------------------------------------------------------------------------------


def test_no_command_tells_a_secret(told: Run, config: Path, tmp_path: Path) -> None:
    key = tmp_path / "keys"
    config.write_text(
        f"{config.read_text()}[signing]\nsecret_file = '{key}'\n".replace(
            "[mail]\n", "[mail]\nbounce_domain = 'bounce.sender.test'\n"
        )
    )
    assert told("signing", "keygen", "--file", str(key)).code == 0
    assert key.stat().st_mode & 0o077 == 0
    told("store", "upgrade")
    secrets = [word for line in key.read_text().splitlines() for word in line.split() if len(word) > 20]
    assert secrets
    outputs = [
        told(*words)
        for words in (
            ["signing", "show"], ["config", "show"], ["config", "check"], ["doctor"], ["signing", "rotate"],
            ["journal", "unsubscribe", "ann@receiver.test"],
        )
    ]  # fmt: skip
    key.write_text(key.read_text() + "nonsense " + secrets[0] + "\n")
    outputs += [told("config", "check"), told("signing", "show")]
    assert outputs[-1].code != 0
    for said in outputs:
        for secret in secrets:
            assert secret not in said.out + said.err
            assert base64.b64encode(secret.encode()).decode() not in said.out
