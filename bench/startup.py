"""How long the commands take that scripts call in loops, against a bare Python that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 15


def cold_ms(command: list[str], environment: dict[str, str]) -> float:
    """Median wall-clock of a whole process, in milliseconds, after one run to fill the file cache."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


def main() -> int:
    mailback = str(Path(sys.executable).with_name("mailback"))
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"XDG_STATE_HOME": state}
        environment.pop("MAILBACK_CONFIG", None)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
        subprocess.run([mailback, "store", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        message = Path(state, "message.eml")
        message.write_bytes(b"From: a@example.test\r\nSubject: hello\r\n\r\nGood morning\r\n")
        bare = cold_ms([sys.executable, "-c", "pass"], environment)
        check = cold_ms([mailback, "check", "someone@example.test"], environment)
        classify = cold_ms([mailback, "classify", "--json", str(message)], environment)
    print("## Start-up\n")
    print("| command, whole process | ms | over bare Python | goal |")
    print("|---|---:|---:|---|")
    print(f"| `python -c pass` | {bare:.0f} | 1.0 | |")
    print(f"| `mailback check ADDRESS` | {check:.0f} | {check / bare:.1f} | under 300 ms |")
    print(f"| `mailback classify --json FILE` | {classify:.0f} | {classify / bare:.1f} | under 600 ms |")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
