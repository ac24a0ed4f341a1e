"""What a command of `mailback` told a test, in this process or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
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


def on_terminal(*arguments: str) -> str:
    """What a command writes to a terminal."""
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "mailback.cli.main", *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "160"},
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    try:
        while chunk := os.read(controller, 65536):
            seen += chunk
    except OSError:  # EIO: the child has closed its side
        pass
    os.close(controller)
    child.wait(timeout=60)
    return seen.decode()
