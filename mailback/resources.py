"""Where the files that ship with Mailback lie: `config/` beside the packages in a checkout, inside the wheel else."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The folder that holds `mailback.toml`, `rules/` and the Postfix tables."""
    packaged = _PACKAGE / "config"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "config"


def rules_dir() -> Path:
    """The folder of the rule files that ship; an operator's own files are named in `[rules]`."""
    return config_dir() / "rules"
