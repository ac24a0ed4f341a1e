"""The page for maintainers keeps up with the code: rooms and dependencies."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "internals.md").read_text()


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    return {re.split(r"[\[<>=;! ]", line, maxsplit=1)[0].lower() for line in lines}


def test_every_dependency_has_its_reason_on_the_page_and_no_other() -> None:
    section = PAGE.split("## Dependencies", 1)[1].split("\n## ", 1)[0]
    explained = set(re.findall(r"^\| ([a-z][a-z0-9-]+)(?: \(extra `[a-z]+`\))? \|", section, re.MULTILINE)) - {
        "package"
    }
    assert explained == _declared()


def test_every_package_of_the_engine_is_a_room_on_the_page() -> None:
    folders = {f"mailback/{p.name}/" for p in (ROOT / "mailback").iterdir() if (p / "__init__.py").exists()}
    missing = {folder for folder in folders if f"`{folder}`" not in PAGE}
    assert not missing


def test_every_module_beside_the_packages_is_a_room_on_the_page() -> None:
    """A file at the top is what a newcomer sees first: one that nobody placed belongs in a folder."""
    rooms = PAGE.split("## Rooms", 1)[1].split("\nA module imports", 1)[0]
    named = set(re.findall(r"`(?:mailback/)?([a-z_]+)\.py`", rooms))
    modules = {path.stem for path in (ROOT / "mailback").glob("*.py")} - {"__init__"}
    assert named == modules


def test_every_package_says_what_it_is_for() -> None:
    """Whoever opens a folder finds its purpose, and in which order to read it, at its door."""
    doors = [path for root in ("mailback", "milter", "smtpd") for path in (ROOT / root).rglob("__init__.py")]
    assert len(doors) > 15
    assert [path for path in doors if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_the_page_begins_newcomers_at_files_that_are_there() -> None:
    section = PAGE.split("## Where to begin", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`((?:mailback/|config/)?[a-z_/]+\.(?:py|toml))`", section)
    assert len(named) > 10
    for name in named:
        places = (ROOT / name, ROOT / "mailback" / name, ROOT / "config" / "rules" / name)
        assert any(place.exists() for place in places), name
