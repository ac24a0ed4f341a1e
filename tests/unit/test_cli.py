"""The command line: exit codes, one-line errors, what pipes and terminals see."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click
import pytest

from mailback.cli import out
from mailback.cli.main import COMMANDS, mailback, run
from mailback.cli.options import Moment
from mailback.envelope import Envelope
from mailback.store import Store
from mailback.store.records import Suppression
from tests.support.command import Run, Told, on_terminal, within
from tests.support.mail import dsn, reply


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mailback.db"


@pytest.fixture
def config(tmp_path: Path, database: Path) -> Path:
    file = tmp_path / "mailback.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{database}"\n[mail]\nsending_domains = ["sender.test"]\n')
    return file


@pytest.fixture
def told(config: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the configuration of the test."""

    return within(config, capfd)


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    database.parent.mkdir()
    with Store.open(f"sqlite:///{database}") as opened:
        opened.upgrade()
        yield opened


def process(*arguments: str, stdin: bytes = b"", environ: dict[str, str] | None = None, **more: str) -> Told:
    """Runs the command as a person's shell would."""
    done = subprocess.run(
        [sys.executable, "-m", "mailback.cli.main", *arguments],
        input=stdin, capture_output=True, env=os.environ | (environ or {}) | more, timeout=60, check=False,
    )  # fmt: skip
    return Told(done.returncode, done.stdout.decode(), done.stderr.decode())


def hold(store: Store, key: str, **fields: Any) -> None:
    known: dict[str, Any] = {
        "address_key": key, "address": key, "scope": "all", "reason": "hard_bounce/user_unknown",
        "type": "hard_bounce", "subcategory": "user_unknown", "source": "event", "since": datetime.now(UTC),
        "until": None,
    }  # fmt: skip
    store.submit(lambda t: t.suppress(Suppression(**(known | fields)), actor="test")).result()


# ---- the frame --------------------------------------------------------------------------------------------------


def test_every_command_says_of_itself_what_the_overview_says() -> None:
    context = click.Context(mailback)
    for name, place in COMMANDS.items():
        command = mailback.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert " ".join((command.help or "").split()).startswith(place.help), name


def test_every_command_takes_config_and_help() -> None:
    from mailback.cli.reference import every_command

    for path, command in every_command():
        if not isinstance(command, click.Group):
            assert "config" in {parameter.name for parameter in command.params}, path
        assert command.help, path


def test_an_error_is_one_line_that_says_what_to_do() -> None:
    for arguments, code in (
        (["nonsense"], 2), (["check"], 2), (["suppress", "add", "a@b.test"], 2), (["milter"], 2), (["serve"], 2),
        (["--config", "/nonexistent", "events"], 2), (["classify"], 2), (["events", "--kind", "bonce"], 2),
        (["suppress", "list", "--scope", "lists"], 2), (["store", "check"], 1), (["completion"], 2),
        (["events", "--limit", "9" * 30], 2), (["retry", "done", "9" * 30], 2), (["wave", "undo", "9" * 30], 2),
        (["events", "--since", "0001-01-01T00:00+14:00"], 2), (["events", "--limit", "x"], 2),
        (["suppress", "list", "--type", "hard"], 2), (["journal", "nonsense"], 2), (["classify", ""], 1),
        (["completion", "a\tb"], 2),
    ):  # fmt: skip
        told = process(*arguments, XDG_STATE_HOME="/nonexistent")
        assert (told.code, told.out) == (code, ""), arguments
        assert re.fullmatch(r"mailback: [^\n\t]+[;:] [^\n\t]+\n", told.err), (arguments, told.err)


def test_a_wrong_configuration_is_told_whole_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[smtpd]\nlisten = 'x'\nworkers = 'y'\n[nope]\n")
    for command in (["serve"], ["config", "check"], ["events"]):
        told = process(*command, "--config", str(file))
        assert told.code == 2
        for line in (2, 3, 4):
            assert f"mailback: {file}:{line}: " in told.err, command


def test_a_misspelt_command_is_suggested() -> None:
    assert "did you mean suppress?" in process("supress").err


def test_config_may_stand_before_or_after_the_command_or_in_the_environment(config: Path, store: Store) -> None:
    hold(store, "gone@receiver.test")
    cases: list[tuple[list[str], dict[str, str]]] = [
        (["--config", str(config), "check", "gone@receiver.test"], {}),
        (["check", "gone@receiver.test", "--config", str(config)], {}),
        (["check", "gone@receiver.test"], {"MAILBACK_CONFIG": str(config)}),
    ]
    for arguments, environ in cases:
        assert process(*arguments, environ=environ).code == 1


def test_a_reader_that_leaves_early_is_no_error(config: Path, store: Store) -> None:
    hold(store, "gone@receiver.test")
    listing = (
        f"for n in $(seq 20000); do echo user$n@b.test; done | {sys.executable} -m mailback.cli.main check - --json"
    )
    done = subprocess.run(
        ["bash", "-c", f"{listing} --config {config} | head -1 > /dev/null; echo ${{PIPESTATUS[1]}}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    told = process("completion", shell)
    assert told.code == 0
    assert "_MAILBACK_COMPLETE" in told.out


def test_a_shell_completes_commands_and_options() -> None:
    told = process(_MAILBACK_COMPLETE="bash_complete", COMP_WORDS="mailback suppress ex", COMP_CWORD="2")
    assert told.out.split() == ["plain,export"]


# ---- what a terminal sees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("right\u202eleft", "right\\u202eleft"),
        ("two\nlines", "two\\nlines"),
        ("\x9b31m", "\\x9b31m"),
        ("lone \udcff", "lone \\udcff"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("päron@bücher.test 东", "päron@bücher.test 东"),
        (None, "-"),
    ],
)
def test_nothing_from_a_mail_drives_a_terminal(text: str | None, shown: str) -> None:
    assert out.safe(text) == shown


def test_json_is_ascii_whatever_a_mail_holds(capfd: pytest.CaptureFixture[str]) -> None:
    out.json_line({"a": "\x1b\u202e\x9b\x7f\udcff东"})
    written = capfd.readouterr().out
    assert written.isascii()
    assert written.strip().isprintable()
    assert json.loads(written) == {"a": "\x1b\u202e\x9b\x7f\udcff东"}


def test_plain_tables_are_aligned_and_cut_nothing_off(capfd: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    out.table((out.Column("a"), out.Column("n", right=True)), [[long, 1], ["东京", 20]])
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == f"{long}   1"
    assert lines[2].startswith("东京" + " " * 296)


def test_colours_are_for_terminals_only(config: Path, store: Store) -> None:
    hold(store, "gone@receiver.test", reason="\x1b[2Jgone")
    arguments = ["suppress", "list", "--config", str(config)]
    assert "\x1b[" in on_terminal(*arguments)
    assert "\x1b[2J" not in on_terminal(*arguments)
    assert "\x1b" not in process(*arguments).out


# ---- check ------------------------------------------------------------------------------------------------------


def test_check_answers_by_its_exit_code(told: Run, store: Store) -> None:
    hold(store, "gone@receiver.test", since=datetime(2026, 1, 31, tzinfo=UTC))
    assert told("check", "Gone@RECEIVER.test").out == (
        "550 5.7.1 <Gone@RECEIVER.test>: suppressed since 2026-01-31, hard_bounce/user_unknown"
        " (mailback explain Gone@RECEIVER.test)\n"
    )
    assert told("check", "gone@receiver.test").code == 1
    assert told("check", "alive@receiver.test").code == 0
    assert told("check", "alive@receiver.test", "gone@receiver.test").code == 1


def test_check_never_says_yes_to_what_it_cannot_answer(told: Run) -> None:
    assert told("check", "a@b.test").code == 1  # there is no store


@pytest.mark.parametrize(
    "command", [["check", "a@b.test"], ["events"], ["stats"], ["explain", "a@b.test"], ["suppress", "list"],
                ["suppress", "export"], ["store", "check"]], ids=" ".join,
)  # fmt: skip
def test_a_new_host_is_told_how_to_begin(told: Run, database: Path, command: list[str]) -> None:
    answer = told(*command)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(
        f"mailback: nothing is recorded yet, there is no database at {database}; start mailback serve, or run"
        " mailback store upgrade; where there was one, restore"
    )
    assert not database.exists()


def test_check_tells_what_is_no_address_and_answers_the_rest(told: Run, store: Store) -> None:
    assert store.path.exists()
    answer = told("check", "nonsense", "a@b.test")
    assert (answer.code, answer.out) == (1, "a@b.test: may be mailed\n")
    assert "nonsense is no mail address" in answer.err


def test_check_reads_addresses_from_a_pipe_and_speaks_json(config: Path, store: Store) -> None:
    hold(store, "gone@receiver.test", scope="list:news")
    arguments = ["check", "-", "--json", "--config", str(config)]
    assert process(*arguments, stdin=b"gone@receiver.test\n\n").code == 0  # another list's suppression
    answer = process(*arguments, "--list", "news", stdin=b"gone@receiver.test\nok@receiver.test\n")
    assert answer.code == 1
    assert [(line["address"], line["allowed"]) for line in answer.lines] == [
        ("gone@receiver.test", False), ("ok@receiver.test", True),
    ]  # fmt: skip
    assert answer.lines[0]["scope"] == "list:news"


def test_check_starts_without_the_heavy_imports(config: Path, store: Store) -> None:
    assert store.path.exists()
    code = (
        "import sys; from mailback.cli.main import run; code = run(['check', 'a@b.test', '--config', sys.argv[1]]);"
        "print(code, *sorted({m.partition('.')[0] for m in sys.modules} & set(sys.argv[2:])))"
    )
    heavy = ["sqlalchemy", "alembic", "pydantic", "rich", "structlog", "hyperscan", "dns", "asyncio"]
    done = subprocess.run([sys.executable, "-c", code, str(config), *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    started = time.monotonic()
    process("check", "a@b.test", "--config", str(config))
    print(f"mailback check, cold: {(time.monotonic() - started) * 1000:.0f} ms")


# ---- classify ---------------------------------------------------------------------------------------------------


def test_classify_names_each_message_and_goes_on_after_one_that_cannot_be_read(told: Run, tmp_path: Path) -> None:
    bounce = dsn("gone@receiver.test", message_id="<1@sender.test>")
    (tmp_path / "one.eml").write_bytes(bounce)
    (tmp_path / "box").write_bytes(
        b"From MAILER-DAEMON Mon Nov 16 10:00:00 2026\n" + bounce.replace(b"\r\n", b"\n") + b"\n"
        b"From a@b.test Mon Nov 16 10:00:00 2026\nSubject: hello\n\n>From here on\nFrom not after a blank line\n\n"
    )
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "maildir" / folder).mkdir(parents=True)
    (tmp_path / "maildir" / "cur" / "1:2,S").write_bytes(b"Subject: x\n\nx\n")
    (tmp_path / "maildir" / "new" / "2").write_bytes(bounce)
    (tmp_path / "maildir" / "tmp" / "3").write_bytes(b"not yet")
    paths = [str(tmp_path / name) for name in ("one.eml", "none", "box", "maildir")]
    answer = told("classify", "--json", *paths)
    assert answer.code == 1
    assert [line["source"] for line in answer.lines] == [
        paths[0], paths[1], f"{paths[2]}#1", f"{paths[2]}#2", f"{paths[3]}/new/2", f"{paths[3]}/cur/1:2,S",
    ]  # fmt: skip
    assert answer.lines[1] == {"source": paths[1], "error": "No such file or directory"}
    assert answer.lines[0]["bounces"][0]["recipient"] == "gone@receiver.test"
    assert answer.lines[2]["bounces"] == answer.lines[0]["bounces"]


def test_the_same_reply_is_answered_alike_by_every_process_and_without_the_rules_of_bounces() -> None:
    """Evidence comes in one order, whatever the process hashes by; what only failures need costs a reply no time."""
    code = (
        "from mailback import classify\nfrom mailback.walk import knowledge\n"
        "raw = 'From: a@b.test\\nIn-Reply-To: <1@s.test>\\nContent-Type: text/plain; charset=utf-8\\n\\n'\n"
        "raw += '今後の配信は不要です。停止をお願いします。 please send me more, tell me more'\n"
        "told = classify(raw.encode(), thread=['Shall I send you the offer?']).to_dict()\n"
        "assert len(told['reply']['evidence']) > 3 and not knowledge._shipped_classifier.cache_info().currsize\n"
        "print(ascii(told))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(answers) == 1


def test_classify_says_that_a_folder_is_empty(told: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = told("classify", str(tmp_path / "empty"))
    assert (done.code, done.out) == (0, "")
    assert done.err == f"mailback: {tmp_path}/empty: holds no messages\n"


def test_classify_waits_for_no_named_pipe(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / "bounce.eml").write_bytes(dsn("gone@receiver.test", message_id="<1@sender.test>"))
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to(folder / "missing")
    told = process("classify", "--json", "--config", str(config), str(folder))
    sources = {line["source"]: line.get("error") for line in told.lines}
    assert sources == {f"{folder}/bounce.eml": None, f"{folder}/nowhere": "No such file or directory"}
    told = process("classify", "--json", "--config", str(config), str(folder / "pipe"))
    [line] = told.lines
    assert (told.code, line["error"]) == (1, "no file but a named pipe, a socket or a device")


def test_classify_reads_what_a_shell_substitutes(tmp_path: Path) -> None:
    (tmp_path / "bounce.eml").write_bytes(dsn("gone@receiver.test", message_id="<1@sender.test>"))
    command = f"{sys.executable} -m mailback.cli.main classify --json <(cat {tmp_path}/bounce.eml)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["kind"] == "bounce"


def test_classify_reads_standard_input_and_anything_at_all() -> None:
    answer = process("classify", "--json", "-", stdin=b"\x00\xff\xfe nothing")
    assert answer.code == 0
    assert (answer.lines[0]["source"], answer.lines[0]["kind"]) == ("-", "other")


def test_classify_shows_a_table_to_people(told: Run, tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(dsn("gone@receiver.test", message_id="<1@sender.test>"))
    answer = told("classify", str(tmp_path / "one.eml"))
    assert "gone@receiver.test" in answer.out
    assert "user_unknown" in answer.out


def test_messages_of_an_mbox_are_what_was_put_into_it(tmp_path: Path) -> None:
    import mailbox

    from mailback.cli.mailboxes import read_all

    texts = [b"Subject: 1\n\nFrom the start\n\n>From once\n\n", b"Subject: 2\n\n", b"Subject: 3\n\nno end of line\n"]
    box = mailbox.mbox(tmp_path / "box")
    for text in texts:
        box.add(text)
    box.close()
    found = [found.raw for found in read_all([str(tmp_path / "box")])]
    assert [raw.strip() for raw in found] == [
        text.replace(b"\n>From once", b"\nFrom once").strip() for text in texts
    ]  # mboxo does not quote what is quoted already, so the second level is lost on its side


def test_classify_takes_the_rules_of_the_configuration(config: Path, tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(dsn("gone@receiver.test", message_id="<1@sender.test>"))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "text.toml").write_text("nonsense = 1\n")
    config.write_text(f"[rules]\ndirectory = '{tmp_path}/rules'\n")
    assert process("classify", str(tmp_path / "one.eml"), "--config", str(config)).code == 2


# ---- suppress ---------------------------------------------------------------------------------------------------


def test_a_suppression_by_hand_needs_a_reason_and_is_undone_with_one(told: Run) -> None:
    assert told("suppress", "add", "a@b.test").code == 2
    assert told("suppress", "add", "a@b.test", "--reason", " ").code == 2
    assert told("suppress", "add", "a@b.test", "--reason", "asked on the phone").code == 0  # and makes the store
    assert told("check", "a@b.test").code == 1
    assert told("suppress", "remove", "a@b.test").code == 2
    assert told("suppress", "remove", "A@B.test", "--reason", "asked again").code == 0
    assert told("check", "a@b.test").code == 0
    assert told("suppress", "remove", "a@b.test", "--reason", "once more").code == 1
    explained = told("explain", "a@b.test").out
    assert "asked on the phone" in explained
    assert "asked again" in explained


def test_a_suppression_may_end_and_may_concern_one_list(told: Run) -> None:
    assert told("suppress", "add", "a@b.test", "--reason", "x", "--until", "7d", "--scope", "list:news").code == 0
    assert told("check", "a@b.test").code == 0
    assert told("check", "a@b.test", "--list", "news").code == 1
    [line] = told("suppress", "list", "--json").lines
    assert line["scope"] == "list:news"
    assert timedelta(days=6) < datetime.fromisoformat(line["until"]) - datetime.now(UTC) < timedelta(days=7)
    assert told("suppress", "add", "a@b.test", "--reason", "x", "--until", "2001-01-01").code == 2
    assert told("suppress", "add", "a@b.test", "--reason", "x", "--scope", "news").code == 2


def test_a_complaint_is_lifted_by_the_persons_own_word_only(told: Run, store: Store) -> None:
    hold(store, "a@b.test", type="complaint", subcategory="spam_complaint")
    assert told("suppress", "remove", "a@b.test", "--reason", "we want to").code == 1
    assert told("check", "a@b.test").code == 1
    assert told("suppress", "remove", "a@b.test", "--reason", "signed up again", "--opt-in").code == 0
    assert told("check", "a@b.test").code == 0


def test_an_export_imports_as_it_was(told: Run, store: Store, tmp_path: Path, config: Path) -> None:
    hold(store, "a@b.test", suggestion="new@b.test", until=datetime.now(UTC) + timedelta(days=3))
    hold(store, 'c,d"@b.test', address='"c,d\\""@b.test', scope="campaign:x, y", reason="line\nend")
    hold(store, "ünï@b.test", type="complaint", subcategory="unsubscribe_request")
    for name in ("csv", "json"):
        file = tmp_path / f"out.{name}"
        assert told("suppress", "export", "--format", name, "-o", str(file)).code == 0
        before = {(line["address"], line["scope"]): line for line in told("suppress", "list", "--json").lines}
        other = tmp_path / f"other-{name}.toml"
        other.write_text(f"[store]\nurl = 'sqlite:///{tmp_path}/other-{name}.db'\n")
        answer = process("suppress", "import", str(file), "--config", str(other))
        assert answer.out.startswith("3 added, 0 were"), answer.err
        after = process("suppress", "list", "--json", "--config", str(other)).lines
        for line in after:
            was = before[line["address"], line["scope"]]
            for key in ("reason", "type", "subcategory", "until", "since", "suggestion"):
                assert line[key] == was[key]
        assert process("suppress", "import", str(file), "--config", str(other)).out.startswith("0 added, 3 were")


def test_an_import_tells_each_bad_line_and_takes_the_others(told: Run, tmp_path: Path) -> None:
    text = tmp_path / "list.txt"
    text.write_bytes(
        b"\xef\xbb\xbf# exported elsewhere\r\na@b.test # moved\r\n\r\nno address\r\na#b@b.test\r\n<c@b.test>\r\n"
    )
    answer = told("suppress", "import", str(text), "--reason", "from the old system")
    assert answer.code == 1
    assert answer.out == "3 added, 0 were suppressed already, 1 not understood\n"
    assert "line 4: 'no address' is no mail address" in answer.err
    assert {line["address"] for line in told("suppress", "list", "--json").lines} == {
        "a@b.test",
        "a#b@b.test",
        "c@b.test",
    }
    table = tmp_path / "list.csv"
    table.write_text("Email,Type\nd@b.test,hard_bounce\ne@b.test,no_such_type\n")
    answer = told("suppress", "import", str(table))
    assert (answer.code, answer.out[:7]) == (1, "1 added")
    assert "line 3" in answer.err
    table.write_text("name\nx\n")
    assert told("suppress", "import", str(table)).code == 2
    table.write_text('address,reason\nf@b.test,x\ng@b.test,"x\nh@b.test,x\n')
    answer = told("suppress", "import", str(table))
    assert (answer.code, answer.out[:7]) == (1, "1 added")
    assert "line 3: a quote is opened here that nothing closes" in answer.err
    answer = told("suppress", "import", "--format", "ses", "--kind", "bounce", str(table))
    assert answer.code == 2
    assert "no list of ses: line 3: a quote is opened here" in answer.err


@pytest.mark.parametrize(
    ("format_", "file"),
    [
        ("text", b"a@b.test\nm\xfcller@b.test # moved\nc@b.test # m\xfcller\n"),
        ("csv", b"address,reason,note\na@b.test,x,m\xfcller\nb@b.test,m\xfcller,\nc@b.test,x,\n"),
        ("json", b'{"address": "a@b.test"}\n{"address": "m\xfcller@b.test"}\n{"address": "c@b.test"}\n'),
    ],
)
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_an_import_of_another_charset_names_the_line(
    config: Path, tmp_path: Path, format_: str, file: bytes, piped: bool
) -> None:
    (tmp_path / "list").write_bytes(file)
    path = "-" if piped else str(tmp_path / "list")
    answer = process("suppress", "import", path, "--format", format_, "--config", str(config), stdin=file)
    wrong = 3 if format_ == "csv" else 2
    assert answer.err == f"mailback: line {wrong}: not UTF-8; correct it and import again\n"
    assert (answer.code, answer.out) == (1, "2 added, 0 were suppressed already, 1 not understood\n")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("subscriber", "import"), 0, "2 added or changed, 0 known as they are, 0 not understood"),
        (("suppress", "import", "--format", "csv"), 0, "2 added, 0 were suppressed already, 0 not understood"),
        (("hygiene",), 1, "standard input: not UTF-8; convert the list: iconv -t UTF-8"),
    ],
)
def test_a_list_that_is_piped_is_read_as_from_a_file_whatever_the_locale(
    config: Path, command: tuple[str, ...], code: int, said: str
) -> None:
    """A byte order mark is no part of the first column's name, and a letter of another charset ends no import."""
    piped = b"\xef\xbb\xbfemail,name\r\na@b.test,M\xfcller\r\nc@b.test,Zo\xc3\xab\r\n"
    process("store", "upgrade", "--config", str(config))
    answer = process(*command, "-", "--config", str(config), stdin=piped, LC_ALL="C", PYTHONUTF8="0")
    assert (answer.code, said in answer.out + answer.err) == (code, True), answer


def test_a_large_import_is_written_in_shared_commits(told: Run, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("".join(f"user{n}@receiver.test\n" for n in range(5000)))
    started = time.monotonic()
    assert told("suppress", "import", str(file)).out.startswith("5000 added")
    print(f"import: {5000 / (time.monotonic() - started):.0f} addresses a second")


def test_a_text_export_has_one_line_an_address(told: Run, store: Store) -> None:
    hold(store, "a@b.test")
    hold(store, "a@b.test", scope="list:x")
    hold(store, "evil@b.test", address="evil\nother@b.test")
    assert told("suppress", "export", "--format", "text").out == "a@b.test\nevil?other@b.test\n"


def test_an_export_of_a_damaged_store_prints_nothing(told: Run, database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"no database at all" * 100)
    exported = told("suppress", "export")
    assert (exported.code, exported.out) == (1, "")
    assert "is not a database" in exported.err


def test_a_sqlite_table_is_brought_up_to_date_in_place(told: Run, store: Store, tmp_path: Path) -> None:
    table = tmp_path / "table.sqlite"
    arguments = ("suppress", "export", "--format", "postfix-sqlite", "-o", str(table))
    hold(store, "a@b.test")
    hold(store, "b@b.test", scope="list:x")
    assert told(*arguments).code == 0
    before = table.stat()
    hold(store, "c@b.test", until=datetime.now(UTC) + timedelta(days=1))
    assert told("suppress", "remove", "a@b.test", "--reason", "x").code == 0
    assert told(*arguments).code == 0
    assert table.stat().st_ino == before.st_ino
    with closing(sqlite3.connect(table)) as database:
        rows = database.execute("SELECT address, reply, until IS NULL FROM suppression").fetchall()
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert [(address, forever) for address, _, forever in rows] == [("c@b.test", 0)]
    assert rows[0][1].startswith("550 5.7.1 <c@b.test>: suppressed since ")


def test_an_export_never_writes_into_another_database(told: Run, store: Store, database: Path, tmp_path: Path) -> None:
    hold(store, "a@b.test")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for path, code in ((database, 2), (other, 1), (tmp_path / "mailback.toml", 1)):
        before = path.read_bytes()
        assert told("suppress", "export", "--format", "postfix-sqlite", "-o", str(path)).code == code
        assert path.read_bytes() == before
    assert told("suppress", "export", "--format", "postfix-sqlite").code == 2


def test_a_cdb_table_is_read_back_by_its_format(told: Run, store: Store, tmp_path: Path) -> None:
    for number in range(1000):
        hold(store, f"user{number}@b.test")
    assert told("suppress", "export", "--format", "postfix-cdb", "-o", str(tmp_path / "table")).code == 0
    data = (tmp_path / "table.cdb").read_bytes()
    for number in range(1000):
        found = cdb_lookup(data, f"user{number}@b.test".encode())
        assert found is not None
        assert found.startswith(b"550 5.7.1 <user%d@b.test>" % number)
    assert cdb_lookup(data, b"nobody@b.test") is None


def cdb_lookup(data: bytes, key: bytes) -> bytes | None:
    """A reader written from the format's description, apart from the writer."""

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little")

    told = 5381
    for octet in key:
        told = (told * 33 & 0xFFFFFFFF) ^ octet
    table, slots = number(told % 256 * 8), number(told % 256 * 8 + 4)
    for step in range(slots):
        slot = table + ((told >> 8) + step) % slots * 8
        place = number(slot + 4)
        if place == 0:
            return None
        if number(slot) == told:
            key_size, value_size = number(place), number(place + 4)
            if data[place + 8 : place + 8 + key_size] == key:
                return data[place + 8 + key_size : place + 8 + key_size + value_size]
    return None


def _write_half(file: BinaryIO) -> None:
    file.write(b"half")
    raise OSError("disk full")


def test_a_replaced_file_keeps_mode_and_survives_a_failure(tmp_path: Path) -> None:
    from mailback.cli.files import replacing

    file = tmp_path / "x"
    file.write_text("old")
    file.chmod(0o604)
    with pytest.raises(OSError, match="disk full"), replacing(file) as fresh:
        _write_half(fresh)
    assert file.read_text() == "old"
    with replacing(file) as fresh:
        fresh.write(b"new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o604)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_file_that_cannot_be_written_is_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    from mailback.cli.files import replacing

    for name in ("", "none/list.csv"):  # a folder, and one in a folder that is not there
        path = tmp_path / name
        with pytest.raises(OSError, match=r".") as caught, replacing(path):
            pass
        assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


# ---- events, explain, stats -------------------------------------------------------------------------------------


@pytest.fixture
def recorded(store: Store) -> Store:
    """Two bounces and a reply, through the engine."""
    from mailback.engine import Engine
    from mailback.settings import Settings

    engine = Engine(Settings.loads(""), store)
    for number, raw in enumerate((
        dsn("gone@receiver.test", message_id="<1@sender.test>"),
        dsn("gone-too@receiver.test", message_id="<2@sender.test>"),
        reply("person@receiver.test", message_id="<3@receiver.test>"),
    )):  # fmt: skip
        received = datetime(2026, 11, 20, 10, number, tzinfo=UTC)
        engine.inbound(Envelope(recipients=("news@sender.test",), received_at=received), raw)
    return store


def test_events_have_the_keys_that_scripts_rely_on(told: Run, recorded: Store) -> None:
    assert recorded.path.exists()
    lines = told("events", "--json").lines
    keys = ["id", "at", "kind", "recipient", "type", "subcategory", "provenance", "action", "source", "message_id"]
    assert [list(line) for line in lines] == [[*keys, "reply"], keys, keys]
    assert [line["message_id"] for line in lines] == ["<3@receiver.test>", "<2@sender.test>", "<1@sender.test>"]
    assert lines[1] == {
        "id": lines[1]["id"], "at": "2026-11-20T10:01:00Z", "kind": "bounce", "recipient": "gone-too@receiver.test",
        "type": "hard_bounce", "subcategory": "user_unknown", "provenance": "unproven",
        "action": "suppress_permanently", "source": "import", "message_id": "<2@sender.test>",
    }  # fmt: skip
    assert told("events", "--json", "--limit", "1").lines == lines[:1]
    assert told("events", "--json", "--oldest-first").lines == lines[::-1]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--kind", "bounce"], 2), (["--type", "hard_bounce"], 2), (["--cause", "mailbox_full"], 0),
        (["--address", "GONE@receiver.test"], 1), (["--since", "2026-11-20T10:01"], 2), (["--until", "2026-11-20"], 0),
    ],
)  # fmt: skip
def test_events_are_filtered(told: Run, recorded: Store, options: list[str], count: int) -> None:
    assert recorded.path.exists()
    assert len(told("events", "--json", *options).lines) == count


def test_explain_replays_the_evidence(told: Run, recorded: Store) -> None:
    assert recorded.path.exists()
    explained = told("explain", "gone@receiver.test")
    for text in ("suppressed since", "5.1.1", "user_unknown", "to undo: mailback suppress remove gone@receiver.test"):
        assert text in explained.out
    [document] = told("explain", "gone@receiver.test", "--json").lines
    assert document["suppressed"] is True
    assert document["events"][0]["evidence"]
    assert "may be mailed\nnothing is known about it\n" in told("explain", "nobody@receiver.test").out
    assert told("explain", "nonsense").code == 2


@pytest.mark.parametrize(
    ("smtp_code", "status", "diagnostic", "said"),
    [
        ("550", "5.1.1", "550 5.1.1 no such user", "550 5.1.1 no such user"),
        ("550", None, "550-5.1.1 no such user", "550-5.1.1 no such user"),
        ("550", "5.1.1", "no such user", "550 no such user"),
        (None, "5.1.1", "550 5.1.1 no such user", "550 5.1.1 no such user"),
        (None, "5.1.1", "5.1.10 no such domain", "5.1.1 5.1.10 no such domain"),
        ("550", None, "5501 rules broken", "550 5501 rules broken"),
        ("550", "5.1.1", None, "550"),
        (None, None, "mailbox is gone", "mailbox is gone"),
    ],
)
def test_explain_tells_the_code_once(
    smtp_code: str | None, status: str | None, diagnostic: str | None, said: str
) -> None:
    from mailback.cli import explain
    from tests.support.records import an_event

    assert explain._said(an_event(smtp_code=smtp_code, status=status, diagnostic=diagnostic)) == said


def test_stats_count_by_kind_type_and_cause(told: Run, recorded: Store) -> None:
    assert recorded.path.exists()
    [figures] = told("stats", "--json", "--since", "2026-11-01").lines
    assert figures["events"] == 3
    assert {(model["of"], model["state"]) for model in figures["models"]} == {
        ("failures", "serving"),
        ("replies", "serving"),
    }
    assert "model of failures: shipped, serving" in told("stats").out
    assert [t["count"] for t in figures["tallies"] if t["subcategory"] == "user_unknown"] == [2]
    assert "3 events" in told("stats", "--since", "2026-11-01").out
    assert "0 events" in told("stats", "--since", "2026-11-01", "--until", "2026-11-02").out


@pytest.mark.parametrize("text", ["tomorrow", "7", "d", "2026-13-01", "99999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment(1).convert(text, None, None)


def test_who_may_be_tried_again_is_over_unheld_and_unseen_since(told: Run, store: Store, database: Path) -> None:
    now = datetime.now(UTC)
    soft = {"type": "soft_bounce", "subcategory": "mailbox_full", "source": "score", "until": now + timedelta(days=1)}
    for name in ("over", "standing", "arrived", "read", "lifted", "held", "other-list"):
        hold(store, f"{name}@b.test", **soft)
    hold(store, "complained@b.test", type="complaint", until=now + timedelta(days=1))
    hold(store, "hard@b.test")
    hold(store, "held@b.test", scope="list:l.test")
    store.submit(lambda t: t.lift("lifted@b.test", actor="me", reason="well")).result()
    for who in ("over", "arrived", "read", "held", "other-list", "complained"):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(
                "UPDATE suppression SET since = 1, until = 2 WHERE address_key = ? AND scope = 'all'",
                (f"{who}@b.test",),
            )
    hold(store, "other-list@b.test", scope="list:l.test")
    hold(store, "twice@b.test", **soft, scope="list:l.test")
    hold(store, "twice@b.test")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE suppression SET until = 2 WHERE address_key = 'twice@b.test' AND scope <> 'all'")
        connection.executemany(
            "INSERT INTO engagement (address_key, sent, opens, clicks, last_sent, last_click) VALUES (?, 1, 0, 0, ?,?)",
            [("arrived@b.test", 3, None), ("read@b.test", 1, 3), ("over@b.test", 1, 1)],
        )
    names = [line["address"].partition("@")[0] for line in told("suppress", "list", "--over", "--json").lines]
    assert names == ["held", "other-list", "over"], "what one list holds does not hold the rest"
    assert told("suppress", "list", "--over", "--all").code == 2


# ---- store ------------------------------------------------------------------------------------------------------


def test_the_store_is_made_checked_maintained_and_copied(told: Run, database: Path, tmp_path: Path) -> None:
    assert told("store", "check").code == 1
    assert told("store", "upgrade").out == f"{database}: upgraded\n"
    assert told("store", "upgrade").out == f"{database}: is up to date\n"
    assert told("suppress", "add", "a@b.test", "--reason", "x").code == 0
    assert told("store", "check").code == 0
    assert told("store", "maintain").code == 0
    assert told("store", "backup", str(tmp_path / "copy.db")).code == 0
    assert told("store", "backup", str(tmp_path / "copy.db")).code == 2
    assert {entry.name for entry in tmp_path.iterdir()} == {"copy.db", "mailback.toml", "state"}
    copy = {"MAILBACK_STORE_URL": f"sqlite:///{tmp_path}/copy.db"}
    assert process("check", "a@b.test", environ=copy).code == 1
    assert process("store", "check", environ=copy).code == 0


def test_little_space_does_not_hide_whether_the_data_is_whole(
    told: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailback.store import checking

    monkeypatch.setattr(checking, "LOW_DISK_BYTES", 1 << 62)
    checked = told("store", "check")
    assert checked.code == 1
    assert checked.out == f"{store.path}: schema, integrity and audit trail are whole\n"
    assert re.fullmatch(r"mailback: \d+ MB free at [^\n]+: free space: [^\n]+\n", checked.err)
    [document] = told("store", "check", "--json").lines
    assert (document["whole"], len(document["problems"])) == (True, 1)


def test_a_file_that_cannot_be_made_is_told_by_its_own_name(told: Run, store: Store, tmp_path: Path) -> None:
    wanted = tmp_path / "none" / "copy.db"
    done = told("store", "backup", str(wanted))
    assert done.code == 1
    assert done.err.startswith(f"mailback: {wanted}: No such file or directory; ")


def test_a_backup_holds_what_was_committed_while_it_ran(told: Run, store: Store, tmp_path: Path) -> None:
    hold(store, "a@b.test")  # lies in the write-ahead log, which a plain copy of the file would miss
    assert told("store", "backup", str(tmp_path / "copy.db")).code == 0
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT address FROM suppression").fetchall() == [("a@b.test",)]


def test_a_changed_audit_trail_is_told(told: Run, store: Store, database: Path) -> None:
    hold(store, "a@b.test")
    store.close()
    with closing(sqlite3.connect(database)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE audit SET actor = 'somebody else'")
        connection.commit()
    assert told("store", "check").code == 1
    maintained = told("store", "maintain")
    assert maintained.code == 1
    assert "audit row" in maintained.err


def test_the_problems_of_all_rule_files_are_told_at_once_and_what_nobody_reads(
    told: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "text.toml").write_text("[[rule]]\nbogus = 1\n")
    (rules / "speakers.toml").write_text("[[feedback]]\nname = 1\n")
    (rules / "speaker.toml").write_text("[mail_system]\n")
    monkeypatch.setenv("MAILBACK_RULES_DIRECTORY", str(rules))
    done = told("config", "check")
    assert done.code == 2
    assert f"{rules}/text.toml:2: unknown key 'bogus'" in done.err
    assert f"{rules}/speakers.toml:2: name is 1" in done.err
    assert "warning: rules.directory: speaker.toml is not read" in done.err


# ---- config -----------------------------------------------------------------------------------------------------


def test_show_tells_what_differs_and_what_is_in_force(told: Run, database: Path) -> None:
    shown = told("config", "show")
    assert shown.out == f'[store]\nurl = "sqlite:///{database}"\n\n[mail]\nsending_domains = ["sender.test"]\n'
    assert "\nworkers = 1\n" in told("config", "show", "--all").out
    assert told("config", "show", "--json").lines == [
        {"store": {"url": f"sqlite:///{database}"}, "mail": {"sending_domains": ["sender.test"]}}
    ]


def test_show_never_prints_a_password(config: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    config.write_text(f"[store]\nurl = 'postgresql://mb@h/d'\npassword_file = '{tmp_path}/password'\n")
    for options in ([], ["--all"], ["--json"]):
        told = process("config", "show", *options, "--config", str(config))
        assert told.code == 2  # this version has no such store
        assert "store.url" in told.err
        assert "s3cret" not in told.out + told.err


def test_what_show_prints_is_a_configuration(told: Run, config: Path) -> None:
    for options in ([], ["--all"]):
        shown = told("config", "show", *options).out
        before = told("config", "show", "--all", "--json").lines
        config.write_text(shown)
        assert told("config", "show", "--all", "--json").lines == before


def test_config_check_speaks_json(config: Path) -> None:
    config.write_text("[smtpd]\nworkers = 'x'\n[web]\nlisten = '127.0.0.1:1'\n")
    told = process("config", "check", "--json", "--config", str(config))
    assert told.code == 2
    [problem] = told.lines[0]["problems"]
    assert (problem["line"], problem["key"]) == (2, "smtpd.workers")


def test_config_check_tells_wrong_rules_too(config: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "text.toml").write_text("nonsense = 1\n")
    config.write_text(f"[rules]\ndirectory = '{tmp_path}/rules'\n")
    told = process("config", "check", "--config", str(config))
    assert told.code == 2
    assert f"{tmp_path}/rules/text.toml:" in told.err


# ---- demo -------------------------------------------------------------------------------------------------------


def test_the_demo_runs_without_a_terminal_and_leaves_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    told = process("demo", TMPDIR=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME="/tmp")
    print(f"demo, piped: {time.monotonic() - started:.1f} s")
    assert told.code == 0, told.err
    assert "\x1b" not in told.out
    for text in ("550 5.7.1 <anna@dept.example>: suppressed since", "anna@dept.example: may be mailed", "is whole"):
        assert text in told.out
    assert list(tmp_path.iterdir()) == []


def test_the_demo_shows_what_the_commands_print(
    monkeypatch: pytest.MonkeyPatch, told: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    from mailback.cli import demo

    undone = demo._undone
    printed: list[Told] = []

    def commands_in_between(stage: Any, store: Store) -> None:
        shown.append(capfd.readouterr().out)
        monkeypatch.setenv("MAILBACK_STORE_URL", f"sqlite:///{store.path}")
        printed.extend(told(*command, "anna@dept.example") for command in (["check"], ["explain"]))
        undone(stage, store)
        shown.append(capfd.readouterr().out)

    shown: list[str] = []
    monkeypatch.setattr(demo, "_undone", commands_in_between)
    assert run(["demo", "--fast"]) == 0
    before, after = shown
    check, explain = printed
    assert check.out in before
    told_twice = [line for line in before.split("$ mailback explain")[1].splitlines()[1:-1] if line]
    assert len(told_twice) > 3
    assert all(line in explain.out.splitlines() for line in told_twice)
    assert "anna@dept.example: may be mailed again\n" in after
    assert "anna@dept.example: may be mailed\n" in after


def test_the_demo_tells_each_kind_of_mail_rightly() -> None:
    import mailback as library
    from mailback.cli.demo_mail import mailbox

    told = [library.classify(mail.raw).to_dict() for mail in mailbox()]
    assert [(t["kind"], *((b["subcategory"], b["recipient"]) for b in t["bounces"])) for t in told] == [  # type: ignore[attr-defined]
        ("bounce", ("user_unknown", "anna@dept.example")),
        ("bounce", ("mailbox_full", "ben@home.example")),
        ("bounce", ("ip_blocked", "cara@firm.example")),
        ("delay", ("server_temporarily_unavailable", "dan@slow.example")),
        ("complaint", ("spam_complaint", "emma@isp.example")),
        ("auto_reply",),
        ("bounce", ("user_unknown", "gerd@post.example")),
        ("reply",),
    ]
    replies = [(t["reply"]["intent"], t["reply"]["route"]) for t in told if t["reply"]]  # type: ignore[index]
    assert replies == [("out_of_office", "auto_archive"), ("question", "notify_owner")]


def test_the_picture_of_the_demo_is_an_svg(tmp_path: Path) -> None:
    assert process("demo", "--picture", str(tmp_path / "demo.svg")).code == 0
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")
