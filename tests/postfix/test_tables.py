"""The exported tables in a real Postfix: `suppress export` writes what `check_recipient_access` reads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.cli.main import run
from tests.postfix.conftest import Scene, scene
from tests.postfix.instance import Smtpd

TABLES = ("cdb", "sqlite")
SQLITE = """\
dbpath = {}
query = SELECT reply FROM suppression WHERE address = '%s'
        AND (until IS NULL OR until > CAST(strftime('%%s', 'now') AS INTEGER))
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The exports of a list of two, made before Postfix starts: it opens a table once."""
    where = Path(tempfile.mkdtemp(prefix="mailback-tables-"))
    config = where / "mailback.toml"
    config.write_text(f"[store]\nurl = 'sqlite:///{where}/mailback.db'\n")
    chosen = ("--config", str(config))
    assert run(["store", "upgrade", *chosen]) == 0
    assert run(["suppress", "add", *chosen, "--reason", "a test", "refused@receiver.test"]) == 0
    assert run(["suppress", "add", *chosen, "--reason", "for now", "--until", "7d", "Held@receiver.test"]) == 0
    for kind, name in (("postfix-cdb", "suppressed.cdb"), ("postfix-sqlite", "suppressed.db")):
        assert run(["suppress", "export", *chosen, "--format", kind, "--output", str(where / name)]) == 0
    (where / "suppressed.cf").write_text(SQLITE.format(where / "suppressed.db"))
    yield where
    shutil.rmtree(where)


@pytest.fixture(scope="module")
def stage(folder: Path) -> Iterator[Scene]:
    tables = {"cdb": f"cdb:{folder}/suppressed", "sqlite": f"sqlite:{folder}/suppressed.cf"}
    asked = {f"via_{name}": f"check_recipient_access {table}, permit_mynetworks" for name, table in tables.items()}
    smtpds = {name: Smtpd({"smtpd_recipient_restrictions": f"$via_{name}"}) for name in tables}
    with scene(smtpds, lambda _ports: asked, started=False) as running:
        yield running


@pytest.mark.parametrize("table", TABLES)
def test_an_exported_table_refuses_with_the_reason_and_nobody_else(stage: Scene, table: str) -> None:
    for who, why in (("refused", "a test"), ("Refused", "a test"), ("held", "for now")):
        code, said = stage.postfix.refusal(table, "news@sender.test", f"{who}@receiver.test")
        assert code == 550, (who, said)
        assert "5.7.1" in said
        assert why in said
    assert stage.postfix.refusal(table, "news@sender.test", "other@receiver.test")[0] == 250
