"""Killed at any instant, started again, in any order: scores, holds and retries of addresses come out the same."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from mailback.engine import Engine
from mailback.settings import Settings
from mailback.store import Store
from tests.support.facts import SETTINGS, digest, facts
from tests.support.feeding import read

COUNT = 3000
KILLS = 4
ROOT = Path(__file__).resolve().parents[2]


def _reader(path: Path, end: datetime, order: int) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "tests.support.feeding", str(path), str(COUNT), "7", end.isoformat(), str(order)
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _read_with_kills(path: Path, end: datetime, order: int) -> int:
    """Kill the reader at random moments, then let it end; how often it was killed in the middle."""
    drawn = random.Random(order)
    killed = 0
    for _ in range(KILLS):
        with _reader(path, end, order) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            time.sleep(drawn.uniform(0.05, 0.6))  # the moment of the crash, not something that is waited for
            killed += reader.poll() is None
            reader.kill()
    with _reader(path, end, order) as reader:
        assert reader.wait(120) == 0
    return killed


def test_no_order_and_no_crash_changes_the_state_of_addresses(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    whole = tmp_path / "whole.db"
    with Store.open(f"sqlite:///{whole}") as store:
        store.upgrade()
        read(Engine(Settings.loads(SETTINGS), store), store, COUNT, 7, now, 0)
        active = [s.source for s in store.suppressions(active_at=now)]
        out_by = [one.out_by for one in store.subscribers()]
    assert "score" in active, "else nothing is tried"
    assert "event" in active
    assert "bounce" in out_by
    broken = tmp_path / "broken.db"
    assert _read_with_kills(broken, now, order=3) > 0
    assert digest(broken, now) == digest(whole, now)
    with Store.open(f"sqlite:///{broken}") as store:
        assert store.verify_audit().holds
        assert sum(1 for _ in store.events()) == len({fact.identity for fact in facts(COUNT, 7, now)})
