#!/usr/bin/env python3
"""Check the reply records and print their counts by language and intent.

    python3 data/replies/count.py            the table
    python3 data/replies/count.py --split    the same for the part to learn from and the part held back

Exit 1 if a record is damaged: the complaints are on standard error.
"""
import collections
import json
import pathlib
import re
import sys

INTENTS = ("interested", "question", "support", "not_now", "objection", "out_of_office", "unsubscribe",
           "billing", "legal", "security", "referral", "meeting_booked", "unclassified")
STYLES = {"short", "fragment", "polite", "angry", "typo", "long", "mixed", "formal", "slang"}
NEEDED = {"id", "language", "intent", "acceptable", "subject", "text", "style", "keyword"}


def held_back(record):
    """True for the records that no model may learn from."""
    return record["id"].endswith("7")


def read(folder):
    """Every record of the folder, with the complaints about them."""
    records, wrong, ids, texts = [], [], set(), {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.name}:{number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                wrong.append(f"{where}: not JSON: {error}")
                continue
            missing, extra = NEEDED - record.keys(), record.keys() - NEEDED - {"thread"}
            if missing or extra:
                wrong.append(f"{where}: missing {sorted(missing)}, unknown {sorted(extra)}")
                continue
            if record["id"] in ids:
                wrong.append(f"{where}: id {record['id']} twice")
            ids.add(record["id"])
            if record["language"] != path.stem.rstrip("0123456789"):  # en2.jsonl is English too
                wrong.append(f"{where}: language {record['language']} in {path.name}")
            if record["intent"] not in INTENTS or set(record["acceptable"]) - set(INTENTS):
                wrong.append(f"{where}: unknown intent")
            if record["intent"] not in record["acceptable"]:
                wrong.append(f"{where}: the intent is not among the acceptable ones")
            if record["style"] not in STYLES:
                wrong.append(f"{where}: unknown style {record['style']}")
            if not isinstance(record["keyword"], bool):
                wrong.append(f"{where}: keyword is not true or false")
            if not record["text"].strip() or not record["subject"].strip():
                wrong.append(f"{where}: empty")
            text = re.sub(r"\W+", " ", record["text"].casefold()).strip() or record["text"]
            key = (path.name, text, record.get("thread", ""))
            if key in texts:
                wrong.append(f"{where}: same text as {texts[key]}")
            texts[key] = record["id"]
            records.append(record)
    return records, wrong


def table(records):
    languages = sorted({record["language"] for record in records})
    counts = collections.Counter((record["intent"], record["language"]) for record in records)
    print("| intent |", " | ".join(languages), "| all |")
    print("|---|" + "---:|" * (len(languages) + 1))
    for intent in INTENTS:
        row = [counts[intent, language] for language in languages]
        print(f"| {intent} |", " | ".join(map(str, row)), f"| {sum(row)} |")
    row = [sum(counts[intent, language] for intent in INTENTS) for language in languages]
    print("| **all** |", " | ".join(map(str, row)), f"| {sum(row)} |")


def main():
    records, wrong = read(pathlib.Path(__file__).resolve().parent)
    if "--split" in sys.argv[1:]:
        print("to learn from:\n")
        table([record for record in records if not held_back(record)])
        print("\nheld back:\n")
        table([record for record in records if held_back(record)])
    else:
        table(records)
    print("\n%d records; %d held back; %d with a keyword; %d with a thread; %d with more than one acceptable intent" % (
        len(records), sum(map(held_back, records)), sum(record["keyword"] for record in records),
        sum("thread" in record for record in records), sum(len(record["acceptable"]) > 1 for record in records)))
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
