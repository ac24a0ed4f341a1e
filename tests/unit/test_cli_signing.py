"""`mailback signing`: key files that are never overwritten, never readable by others, and never shown."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from mailback.cli.main import run
from mailback.returnpath import Keys


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    file = tmp_path / "mailback.toml"
    key = tmp_path / "return-path.key"
    file.write_text(f"[mail]\nbounce_domain = 'bounce.sender.test'\n[signing]\nsecret_file = '{key}'\n")
    return ["--config", str(file)]


@pytest.fixture
def key(tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["signing", "keygen", *config]) == 0
    capsys.readouterr()
    return tmp_path / "return-path.key"


def test_a_new_key_file_is_for_its_owner_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(Keys.load(key).keys) == 1


def test_a_key_file_is_never_overwritten(key: Path, config: list[str]) -> None:
    before = key.read_text()
    assert run(["signing", "keygen", *config]) == 1
    assert key.read_text() == before


def test_rotating_adds_a_key_that_begins_tomorrow_and_keeps_owner_and_mode(key: Path, config: list[str]) -> None:
    key.chmod(0o640)
    [old] = Keys.load(key).keys
    assert run(["signing", "rotate", *config]) == 0
    first, second = Keys.load(key).keys
    assert first == old
    assert (second.start - first.start).days == 1
    assert second.secret != first.secret
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    assert [path.name for path in key.parent.iterdir() if "new" in path.name] == []


def test_rotating_twice_a_day_is_refused(key: Path, config: list[str]) -> None:
    assert run(["signing", "rotate", *config]) == 0
    before = key.read_text()
    assert run(["signing", "rotate", *config]) == 1
    assert key.read_text() == before


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["rotate"]])
def test_no_command_shows_a_secret(
    key: Path, config: list[str], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["signing", *arguments, *config]) == 0
    told = "".join(capsys.readouterr())
    assert told
    assert not re.search("[0-9a-f]{16}", told.replace(str(key), ""))


def test_show_tells_what_each_key_is_for(key: Path, config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["signing", "rotate", *config])
    capsys.readouterr()
    assert run(["signing", "show", *config]) == 0
    _, signs, coming = capsys.readouterr().out.splitlines()
    assert signs.endswith("signs")
    assert coming.endswith("to come")


def test_without_a_file_the_setting_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["signing", "show"]) == 2
    assert "signing.secret_file" in capsys.readouterr().err


def test_a_broken_key_file_is_told_with_its_lines(
    key: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    key.write_text("nonsense\n")
    assert run(["signing", "show", *config]) == 2
    assert f"{key}:1" in capsys.readouterr().err
