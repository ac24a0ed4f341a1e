"""What a command of `mailback` told a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailback.cli.main import run


@dataclass(frozen=True)
class Told:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Told]


def within(config: Path, captured: pytest.CaptureFixture[str]) -> Run:
    """Runs commands in this process, with that configuration; what was printed before is not told."""

    def command(*arguments: str) -> Told:
        captured.readouterr()
        code = run(["--config", str(config), *arguments])
        said = captured.readouterr()
        return Told(code, said.out, said.err)

    return command
