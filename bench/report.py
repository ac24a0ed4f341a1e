"""Run every measurement and write the page of figures: `python bench/report.py docs/performance.md`.

Each script beside this one measures Mailback and a named peer or limit in the same run and prints Markdown; this one
runs them in turn and puts what they print under one heading, with the machine they ran on.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "receiver.py",
    "milter.py",
    "lookup.py",
    "commit.py",
    "events.py",
    "policyd.py",
    "classify.py",
    "replies.py",
    "auth.py",
    "returnpath.py",
    "ingest.py",
    "startup.py",
    "simulate.py",
)

PREFACE = """# Performance

Made by `make bench`, which writes this page anew. Every row was measured beside its peer or limit in the same run, so
the ratios are what to read: absolute rates belong to the machine below, which other work may have shared.
"""


def machine() -> str:
    """One line about what the figures were taken on."""
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"{when}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="where to write the Markdown")
    page = parser.parse_args().page
    sections = [PREFACE, f"Measured: {machine()}.\n"]
    failed = 0
    for script in SCRIPTS:
        print(f"running bench/{script} ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(HERE / script)], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            failed += 1
            print(f"bench/{script} ended with {done.returncode}", file=sys.stderr)
            continue
        print(done.stdout, flush=True)
        sections.append(done.stdout)
    if failed:
        print(f"{failed} of {len(SCRIPTS)} measurements failed: {page} is left as it was", file=sys.stderr)
        return 1
    page.write_text("\n".join(sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
