"""`mailback serve` before and around the supervisor: the store is made ready, warnings are said, a reload is honest."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mailback.cli import serve
from mailback.cli.errors import CommandError
from mailback.cli.serve import make_folder, prepare_store
from mailback.service import privileges
from mailback.settings import Settings
from tests.support.server import free_port, running, wait_for


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mailback.toml"
    file.write_text(
        f"[store]\nurl = 'sqlite:///{tmp_path}/state/mailback.db'\n[policyd]\nlisten = '127.0.0.1:{free_port()}'\n"
    )
    return file


def test_the_store_is_made_before_anything_listens_and_closed_again(tmp_path: Path) -> None:
    settings = Settings.loads(f"[store]\nurl = 'sqlite:///{tmp_path}/state/deeper/mailback.db'\n")
    before = set(sys.modules)
    prepare_store(settings)
    with closing(sqlite3.connect(tmp_path / "state" / "deeper" / "mailback.db")) as connection:
        assert connection.execute("SELECT count(*) FROM suppression").fetchone() == (0,)
    assert (tmp_path / "state" / "deeper").stat().st_mode & 0o777 == 0o700
    assert "alembic" not in set(sys.modules) - before, "the parent that forks workers holds no migration machinery"


def test_a_store_that_cannot_be_made_ready_is_told_in_the_parents_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError) as caught:
        prepare_store(Settings.loads(f"[store]\nurl = 'sqlite:///{tmp_path}/file/mailback.db'\n"))
    assert "File exists" in caught.value.what
    assert caught.value.advice
    (tmp_path / "damaged.db").write_bytes(b"not a database, at all\n" * 300)
    with pytest.raises(CommandError, match="not a database"):
        prepare_store(Settings.loads(f"[store]\nurl = 'sqlite:///{tmp_path}/damaged.db'\n"))


def test_a_user_that_does_not_exist_starts_nothing(tmp_path: Path) -> None:
    text = f"[store]\nurl = 'sqlite:///{tmp_path}/state/m.db'\n[service]\nuser = 'no-such-user-here'\n"
    with pytest.raises((CommandError, RuntimeError), match="no user"):
        prepare_store(Settings.loads(text, files=False))
    assert not (tmp_path / "state" / "m.db").exists()


def test_a_wrong_account_ends_with_2_before_a_store_is_made(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + "socket_group = 'no-such-group'\n[service]\nuser = 'no-such-user'\n")
    done = subprocess.run(
        [sys.executable, "-m", "mailback.cli.main", "serve", "--config", str(config)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "policyd.socket_group" in done.stderr
    assert "service.user" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.root
def test_the_store_belongs_to_the_user_that_the_service_becomes(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    text = f"[store]\nurl = 'sqlite:///{tmp_path}/state/m.db'\n[service]\nuser = 'nobody'\n"
    prepare_store(Settings.loads(text))
    assert (tmp_path / "state").stat().st_uid == (tmp_path / "state" / "m.db").stat().st_uid == 65534


@pytest.mark.root
def test_an_installation_that_the_user_cannot_read_is_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    library = tmp_path / "home" / "python" / "lib"
    library.mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    monkeypatch.setattr(serve, "_INSTALLATION", (library,))
    monkeypatch.setattr(serve, "_upgrade", upgrade_that_cannot_import)
    with pytest.raises(CommandError) as caught:
        prepare_store(Settings.loads("[service]\nuser = 'nobody'\n"))
    assert f"cannot read the installation at {library}: {tmp_path}/home is closed" in caught.value.what
    assert "service.user" in caught.value.advice
    (tmp_path / "home").chmod(0o755)
    with pytest.raises(CommandError, match="No module named") as caught:
        prepare_store(Settings.loads("[service]\nuser = 'nobody'\n"))
    assert "fault in Mailback" in caught.value.advice


def upgrade_that_cannot_import(settings: Settings) -> None:
    privileges.drop(settings.service.user)
    raise ModuleNotFoundError("No module named 'argparse'")


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_part_that_is_off_is_not_started_alone(config: Path) -> None:
    for part in ("smtpd", "milter"):
        done = subprocess.run(
            [sys.executable, "-m", "mailback.cli.main", part, "--config", str(config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"[{part}] has no `listen`" in done.stderr


def test_an_address_that_is_taken_is_one_line(config: Path) -> None:
    with running(config):
        done = subprocess.run(
            [sys.executable, "-m", "mailback.cli.main", "policyd", "--config", str(config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("mailback: ")]
    assert "127.0.0.1:" in line


def test_a_reload_says_what_only_a_restart_changes_and_refuses_what_is_wrong(config: Path) -> None:
    good = config.read_text()
    with running(config) as server:
        config.write_text(good + "workers = 'two'\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_for(lambda: "reload.failed" in server.log(), what="the refusal of the new settings")
        assert f"{config}:5: policyd.workers: " in server.log()
        config.write_text(good + f"socketmap = '127.0.0.1:{free_port()}'\n[trust]\nrequire = 'always'\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_for(lambda: "reloaded" in server.log(), what="the new settings in force")
        assert "config.warning" in server.log()
        assert server.stop() == 0


def test_a_reload_never_moves_to_another_store(config: Path, tmp_path: Path) -> None:
    with running(config) as server:
        config.write_text(config.read_text().replace("/state/", "/tsate/"))
        os.kill(server.pid, signal.SIGHUP)
        wait_for(lambda: "reloaded" in server.log(), what="the new settings in force")
        fixed = next(line for line in server.log().splitlines() if "reload.fixed" in line)
        assert "store.url" in fixed
        assert not (tmp_path / "tsate").exists(), "an empty store would lift every suppression"
        assert server.stop() == 0
