"""`mailback journal`: fed by hand or by the thousand, found by whatever is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailback.cli.main import run


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    run([*arguments, "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_is_added_is_found_by_each_of_its_names(config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["journal", "add", *config, "--message-id", "1@sender.test", "--sender", "news@sender.test",
                "--recipient", "ada@receiver.test", "--recipient", "bob@receiver.test", "--subject", "Hello",
                "--at", "2026-11-20T12:00"]) == 0  # fmt: skip
    [by_id] = told(capsys, "journal", "find", *config, "--message-id", "<1@sender.test>")
    assert by_id["recipients"] == ["ada@receiver.test", "bob@receiver.test"]
    assert (by_id["at"], by_id["subject"], by_id["source"]) == ("2026-11-20T12:00:00Z", "Hello", "operator")
    [by_recipient] = told(capsys, "journal", "find", *config, "--recipient", "Bob@Receiver.test")
    assert by_recipient["recipients"] == ["bob@receiver.test"]
    assert told(capsys, "journal", *config) == told(capsys, "journal", "list", *config)
    assert len(told(capsys, "journal", "list", *config)) == 1


def test_a_negative_answer_is_exit_code_one(config: list[str]) -> None:
    run(["journal", "add", *config, "--message-id", "<1@s.test>", "--recipient", "ada@receiver.test"])
    assert run(["journal", "find", *config, "--message-id", "<1@s.test>", "--recipient", "ada@receiver.test"]) == 0
    assert run(["journal", "find", *config, "--message-id", "<1@s.test>", "--recipient", "eve@receiver.test"]) == 1
    assert run(["journal", "find", *config]) == 2
    assert run(["journal", "find", *config, "--message-id", "no-identifier"]) == 2


def test_what_list_writes_add_reads(config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"message_id": f"<{n}@s.test>", "sender": "news@s.test", "recipients": [f"u{n}@r.test"], "text": "Hello",
         "campaign": "nov", "at": "2026-11-20T12:00:00Z"} for n in range(450)
    ]  # fmt: skip
    file = tmp_path / "sent.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["journal", "add", *config, "--json", str(file)]) == 0
    listed = told(capsys, "journal", "list", *config)
    assert len(listed) == 450
    again = tmp_path / "again.jsonl"
    again.write_text("".join(json.dumps(line) + "\n" for line in listed))
    assert run(["journal", "add", *config, "--json", str(again)]) == 0
    assert len(told(capsys, "journal", "list", *config)) == 900


def test_lines_that_cannot_be_read_are_told_with_their_numbers(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sent.jsonl"
    good = {"message_id": "<1@s.test>", "recipients": ["u@r.test"]}
    bad = [{}, {"recipients": ["nobody"]}, good | {"at": "noon"}, good | {"message_id": "a b"}, []]
    file.write_text("".join(json.dumps(line) + "\n" for line in [good, *bad, good]) + "{\n")
    assert run(["journal", "add", *config, "--json", str(file)]) == 1
    captured = capsys.readouterr()
    assert [line.split(":")[1] for line in captured.err.splitlines()] == [f" line {n}" for n in (2, 3, 4, 5, 6, 8)]
    assert "2 messages added, 6 not understood" in captured.out


def test_maintenance_forgets_what_is_past_the_retention(config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["journal", "add", *config, "--recipient", "old@r.test", "--at", "2020-01-01"])
    run(["journal", "add", *config, "--recipient", "new@r.test"])
    assert run(["store", "maintain", *config]) == 0
    [left] = told(capsys, "journal", "list", *config)
    assert left["recipients"] == ["new@r.test"]


def test_an_unsubscribe_address_is_minted_for_those_who_sign_only(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["journal", "unsubscribe", "ada@r.test", *config]) == 2
    file, key = tmp_path / "signed.toml", tmp_path / "keys"
    file.write_text(
        f"store.url = 'sqlite:///{tmp_path}/mailback.db'\n"
        f"mail.bounce_domain = 'b.test'\nsigning.secret_file = '{key}'\n"
    )
    chosen = ["--config", str(file)]
    assert run(["signing", "keygen", *chosen]) == 0
    long = "a.rather.long.name@department.receiver.test"
    short_one, long_one = told(capsys, "journal", "unsubscribe", "ada@r.test", long, *chosen)
    assert str(short_one["mailto"]).startswith("unsubscribe-u1")
    token = str(long_one["token"]).removeprefix("unsubscribe-")
    [entry] = told(capsys, "journal", "find", "--return-path", token, *chosen)
    assert entry["recipients"] == [long]


def test_control_characters_of_a_subject_do_not_reach_the_terminal(
    config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["journal", "add", *config, "--recipient", "a@r.test", "--subject", "\x1b]0;title\x07"])
    run(["journal", "list", *config])
    assert "\x1b" not in capsys.readouterr().out
