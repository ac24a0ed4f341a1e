"""Reading a mailbox of a real IMAP server: nothing is lost, read twice, or changed unless asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailback.cli import main
from tests.support.command import Told
from tests.support.imap import PASSWORD, USER, PrivateDovecot, unavailable
from tests.support.mail import dsn

if reason := unavailable():
    pytest.skip(reason, allow_module_level=True)

WHEN = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[PrivateDovecot]:
    # Not pytest's own folder: Dovecot's users cannot pass through that.
    with tempfile.TemporaryDirectory(prefix="mailback-imap-") as folder:
        Path(folder).chmod(0o755)
        server = PrivateDovecot(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


Read = Callable[..., Told]


@pytest.fixture
def folder(dovecot: PrivateDovecot, request: pytest.FixtureRequest) -> str:
    """A folder of its own for each test."""
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    dovecot.create(name)
    return name


@pytest.fixture
def read(
    dovecot: PrivateDovecot, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> Read:
    monkeypatch.setenv("MAILBACK_STORE_URL", f"sqlite:///{tmp_path}/mailback.db")
    monkeypatch.setenv("MAILBACK_AUTH_ENABLED", "false")
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")

    def call(*arguments: str, tls: str = "none", host: str = "127.0.0.1") -> Told:
        port = dovecot.imaps if tls == "implicit" else dovecot.imap
        given = ["--user", USER, "--password-file", str(password), "--port", str(port), "--tls", tls, "--json"]
        capsys.readouterr()
        code = main.run(["ingest", "imap", *given, "--folder", folder, *arguments, host])
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return call


@pytest.fixture
def events(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    def call() -> list[dict[str, Any]]:
        capsys.readouterr()
        main.run(["events", "--json"])
        out, err = capsys.readouterr()
        return Told(0, out, err).lines

    return call


def bounce(number: int) -> bytes:
    return dsn(f"gone{number}@receiver.test", message_id=f"<{number}@sender.test>")


def test_bounces_become_events_and_the_server_is_left_as_it_was(
    dovecot: PrivateDovecot, folder: str, read: Read, events: Callable[[], list[dict[str, Any]]]
) -> None:
    for number in (1, 2):
        dovecot.append(bounce(number), WHEN, folder)
    told = read()
    assert told.code == 0, told.err
    assert told.lines == [{"messages": 2, "kinds": {"bounce": 2}, "failed": 0}]
    assert {(event["recipient"], event["at"], event["source"]) for event in events()} == {
        ("gone1@receiver.test", "2026-11-20T12:30:00Z", "mailbox"),
        ("gone2@receiver.test", "2026-11-20T12:30:00Z", "mailbox"),
    }
    assert dovecot.flags(folder) == ["", ""]
    assert main.run(["check", "gone1@receiver.test"]) == 1


def test_it_is_read_on_from_the_last_message(dovecot: PrivateDovecot, folder: str, read: Read) -> None:
    for number in range(45):
        dovecot.append(bounce(number), WHEN, folder)
    assert read().lines[0]["messages"] == 45
    assert read().lines[0]["messages"] == 0
    dovecot.append(bounce(99), WHEN, folder)
    assert read().lines[0]["messages"] == 1
    assert read("--again").lines[0]["messages"] == 46


def test_a_folder_with_another_uidvalidity_is_read_whole(
    dovecot: PrivateDovecot, folder: str, read: Read, events: Callable[[], list[dict[str, Any]]]
) -> None:
    for number in (1, 2, 3):
        dovecot.append(bounce(number), WHEN, folder)
    read()
    dovecot.delete(folder)
    dovecot.create(folder)
    for number in (1, 4):
        dovecot.append(bounce(number), WHEN, folder)
    assert read().lines[0]["messages"] == 2
    assert len(events()) == 4


def test_messages_are_flagged_only_where_asked_and_nothing_of_others_is_expunged(
    dovecot: PrivateDovecot, folder: str, read: Read
) -> None:
    dovecot.append(bounce(1), WHEN, folder)
    dovecot.append(bounce(2), WHEN, folder, r"(\Deleted)")
    assert read("--seen").code == 0
    assert sorted(dovecot.flags(folder)) == [r"\Deleted \Seen", r"\Seen"]


@pytest.mark.parametrize("target", ["done", "Erledigt/Ünzustellbar"])
def test_messages_are_filed_into_a_folder(dovecot: PrivateDovecot, folder: str, read: Read, target: str) -> None:
    from imap_tools.utils import encode_folder

    name = f"{folder}-{target}".replace("/", ".")
    with dovecot.session() as session:
        assert session._simple_command("CREATE", encode_folder(name))[0] == "OK"
    dovecot.append(bounce(1), WHEN, folder)
    dovecot.append(bounce(2), WHEN, folder, r"(\Deleted)")
    told = read("--move-to", name)
    assert told.code == 0, told.err
    assert dovecot.flags(folder) == []
    with dovecot.session() as session:
        assert session.select(encode_folder(name).decode(), readonly=True)[1] == [b"2"]


def test_a_folder_to_file_into_that_there_is_not_is_told_before_anything_is_read(
    dovecot: PrivateDovecot, folder: str, read: Read
) -> None:
    dovecot.append(bounce(1), WHEN, folder)
    told = read("--move-to", "nowhere")
    assert told.code == 1
    assert "nowhere" in told.err
    assert dovecot.flags(folder) == [""]
    assert told.lines[0]["messages"] == 0


def test_messages_are_removed_only_where_told_and_no_others(dovecot: PrivateDovecot, folder: str, read: Read) -> None:
    dovecot.append(bounce(1), WHEN, folder)
    read()
    dovecot.append(bounce(2), WHEN, folder)
    with dovecot.session() as session:  # somebody else marks the first, and may still change their mind
        session.select(folder)
        session.uid("STORE", "1", "+FLAGS", r"(\Deleted)")
        session.unselect()
    assert read("--delete").lines[0]["messages"] == 1
    assert dovecot.flags(folder) == [r"\Deleted"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_the_connection_is_secured_and_the_certificate_checked(
    dovecot: PrivateDovecot, folder: str, read: Read, tls: str
) -> None:
    dovecot.append(bounce(1), WHEN, folder)
    refused = read(tls=tls, host="localhost")
    assert refused.code == 1
    assert "certificate" in refused.err.lower()
    told = read("--ca-file", str(dovecot.ca_file), tls=tls, host="localhost")
    assert told.lines[0]["messages"] == 1, told.err


def test_wrong_calls_and_servers_say_what_to_do(
    dovecot: PrivateDovecot, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wrong = tmp_path / "wrong"
    wrong.write_text("not it\n")
    told = read("--password-file", str(wrong))
    assert told.code == 1
    assert "refuses the login" in told.err
    assert "not it" not in told.err
    assert read("--folder", "no such folder").code == 1
    assert read("--seen", "--move-to", "x").code == 2
    assert read("--port", "1").code == 1
    monkeypatch.delenv("MAILBACK_IMAP_PASSWORD", raising=False)
    capsys.readouterr()
    assert main.run(["ingest", "imap", "--user", "x", "127.0.0.1"]) == 2
    assert "MAILBACK_IMAP_PASSWORD" in capsys.readouterr().err
