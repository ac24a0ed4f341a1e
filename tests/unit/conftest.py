"""What most tests of a part begin with: a store of their own, and a configuration file that names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as opened:
        opened.upgrade()
        yield opened


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    file = tmp_path / "mailback.toml"
    file.write_text(f"[store]\nurl = 'sqlite:///{tmp_path}/mailback.db'\n")
    return ["--config", str(file)]
