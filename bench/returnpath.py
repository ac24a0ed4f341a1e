"""Signing and checking a return path, beside the one HMAC that any signed address costs at least.

    python bench/returnpath.py [--rounds 20000]

The goal is 20 µs each. Recipients differ from call to call, so nothing is answered from a cache.
"""

from __future__ import annotations

import argparse
import hmac
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.returnpath import Key, Keys, sign, verify

GOAL_US = 20.0
_REPEATS = 7
_ON = date(2026, 11, 20)
_KEYS = Keys((Key(1, date(2026, 1, 1), bytes(range(32))),))


def signed(recipients: Sequence[str]) -> str:
    path = sign("news@example.com", recipients, _KEYS, domain="bounce.example.com", on=_ON, max_age_days=14)
    assert path is not None
    return path


def checked(path: str) -> None:
    assert verify(path, _KEYS, on=_ON, max_age_days=14).signed


def bare(recipients: Sequence[str]) -> None:
    hmac.digest(b"k" * 32, recipients[0].encode(), "sha256").hex()


def microseconds(call: Callable[[object], object], arguments: Sequence[object]) -> float:
    """The best of several rounds over all arguments, a call."""
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for argument in arguments:
            call(argument)
        best = min(best, time.perf_counter() - started)
    return best / len(arguments) * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=20_000)
    rounds = options.parse_args().rounds
    one = [(f"user{number}.name@department.example.org",) for number in range(rounds)]
    long = [(f"user{number}.with.a.long.name@a.long.department.example.org",) for number in range(rounds)]
    two = [(f"user{number}@example.org", "other@example.org") for number in range(rounds)]
    rows: list[tuple[str, Callable[[object], object], Sequence[object]]] = []
    for name, recipients in (("VERP", one), ("VERP, by the journal's reference", long), ("BATV", two)):
        rows.append((f"sign, {name}", signed, recipients))  # type: ignore[arg-type]
        rows.append((f"check, {name}", checked, [signed(each) for each in recipients]))  # type: ignore[arg-type]
    peer = microseconds(bare, one)  # type: ignore[arg-type]
    print("## Return paths\n\n| | µs | bare HMAC, µs | goal |\n|---|---:|---:|---|")
    for name, call, arguments in rows:
        ours = microseconds(call, arguments)
        print(f"| {name} | {ours:.1f} | {peer:.1f} | {GOAL_US:.0f}: {'met' if ours <= GOAL_US else '**missed**'} |")
    print()


if __name__ == "__main__":
    main()
