#!/usr/bin/env python3
"""Check the reply records and print their counts by language and intent.

    python3 data/replies/count.py            the table
    python3 data/replies/count.py --split    the same for the part to learn from and the part held back

Exit 1 if a record is damaged: the complaints are on standard error.
"""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INTENTS = (
    "interested", "question", "support", "not_now", "objection", "out_of_office", "unsubscribe",
    "billing", "legal", "security", "referral", "meeting_booked", "unclassified",
)  # fmt: skip
STYLES = {"short", "fragment", "polite", "angry", "typo", "long", "mixed", "formal", "slang"}
NEEDED = {"id", "language", "intent", "acceptable", "subject", "text"}
JUDGED = {"style", "keyword"}
"""Of the records that were written one by one; those of a family have neither."""

Record = dict[str, Any]


def held_back(record: Record) -> bool:
    """True for the records that no model may learn from."""
    return bool(record.get("family", record["id"]).endswith("7"))


def complaints(record: Record, stem: str) -> Iterator[str]:
    """What is wrong with one record by itself; `stem` is the name of its file."""
    if missing := NEEDED - record.keys():
        yield f"missing {sorted(missing)}"
        return
    alone = "family" not in record
    checks = (
        (record.keys() <= NEEDED | JUDGED | {"thread", "family"}, "unknown keys"),
        (alone is (record.keys() >= JUDGED), "either a family, or style and keyword"),
        (record["language"] == stem.rstrip("0123456789"), f"language {record['language']}"),  # en2.jsonl is English too
        ({record["intent"], *record["acceptable"]} <= set(INTENTS), "unknown intent"),
        (record["intent"] in record["acceptable"], "the intent is not among the acceptable ones"),
        (not alone or record.get("style") in STYLES, f"unknown style {record.get('style')}"),
        (not alone or isinstance(record.get("keyword"), bool), "keyword is not true or false"),
        (bool(record["text"].strip() and record["subject"].strip()), "empty"),
    )
    yield from (told for right, told in checks if not right)


def read(folder: Path) -> tuple[list[Record], list[str]]:
    """Every record of the folder, with the complaints about them."""
    records: list[Record] = []
    wrong: list[str] = []
    seen: dict[object, str] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            record = json.loads(line)
            told = list(complaints(record, path.stem))
            text = re.sub(r"\W+", " ", record["text"].casefold()).strip() or record["text"]
            for key in (("id", record["id"]), (path.name, text, record.get("thread", ""))):
                if key in seen:
                    told.append(f"stands in {seen[key]} already")
                seen[key] = record["id"]
            wrong += [f"{path.name}:{number}: {complaint}" for complaint in told]
            records.append(record)
    return records, wrong


def table(records: list[Record]) -> None:
    """Print the counts as Markdown."""
    languages = sorted({record["language"] for record in records})
    counts = collections.Counter((record["intent"], record["language"]) for record in records)
    print("| intent |", " | ".join(languages), "| all |")
    print("|---|" + "---:|" * (len(languages) + 1))
    for intent in INTENTS:
        row = [counts[intent, language] for language in languages]
        print(f"| {intent} |", " | ".join(map(str, row)), f"| {sum(row)} |")
    row = [sum(counts[intent, language] for intent in INTENTS) for language in languages]
    print("| **all** |", " | ".join(map(str, row)), f"| {sum(row)} |")


def main() -> int:
    records, wrong = read(Path(__file__).resolve().parent)
    if "--split" in sys.argv[1:]:
        print("to learn from:\n")
        table([record for record in records if not held_back(record)])
        print("\nheld back:\n")
        table([record for record in records if held_back(record)])
    else:
        table(records)
    several = sum(len(record["acceptable"]) > 1 for record in records)
    print(
        f"\n{len(records)} records; {sum(map(held_back, records))} held back; "
        f"{sum(record.get('keyword', False) for record in records)} with a keyword; "
        f"{sum('thread' in record for record in records)} with a thread; {several} with more than one acceptable intent"
    )
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
