"""Our causes in the words of other schemes (IANA, KumoMTA, Amazon SES, SendGrid, Postmark, SparkPost), and back.

Data of `taxonomy.toml`; an operator's file adds schemes. `python -m mailback.bounce.schemes` prints `docs/taxonomy.md`
from it (a test holds the two together). Emits no log events: loading raises RulesError with every problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailback.bounce import rules
from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.bounce.taxonomy import CAUSES, Subcategory
from mailback.resources import rules_dir

FILE = "taxonomy.toml"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One other vocabulary."""

    id: str
    name: str
    reference: str
    note: str
    ours: dict[Subcategory, str]
    """Complete: their class for each of our causes."""
    theirs: dict[str, Subcategory]
    """Their classes; empty where another file tells (IANA: `status.toml`)."""


def load(directories: Sequence[Path]) -> dict[str, Scheme]:
    """Read `taxonomy.toml` of each directory that has one; a later scheme replaces one of the same id.

    Raises RulesError with every problem found; a cause that a scheme does not name is one.
    """
    schemes: dict[str, Scheme] = {}
    problems: list[str] = []

    def read(top: Table) -> None:
        for table in top.list_of_tables("scheme"):
            scheme = _scheme(table)
            schemes[scheme.id] = scheme
            table.finish()

    for directory in directories:
        if (path := directory / FILE).is_file():
            problems += read_table(path, read)
    if problems:
        raise RulesError(problems)
    return schemes


def _scheme(table: Table) -> Scheme:
    identifier = table.text("id")
    name, reference, note = table.text("name"), table.text("reference"), table.text("note", "")
    mine = table.table("ours")
    ours = {cause: mine.text(cause.value) for cause in Subcategory}
    mine.finish()
    other = table.table("theirs")
    theirs = {word: other.cause(word) for word in other.unread()}
    other.finish()
    for cause, word in ours.items():
        if theirs and word not in theirs:
            mine.wrong(f"{cause.value} is {word!r}, which is not among [scheme.theirs]", cause.value)
    return Scheme(identifier, name, reference, note, ours, theirs)


def markdown(directories: Sequence[Path]) -> str:
    """The page `docs/taxonomy.md`."""
    schemes = list(load(directories).values())
    lines = [
        "# The taxonomy, and the words of others",
        "",
        "Made from `config/rules/taxonomy.toml` and `config/rules/status.toml` by `python -m mailback.bounce.schemes`;",
        "change those files, not this page.",
        "",
        "## Our causes",
        "",
        *_table(["cause", "type", "fault", "permanent", *(scheme.name for scheme in schemes)], _our_rows(schemes)),
    ]
    for scheme in schemes:
        if scheme.theirs:
            lines += ["", f"## {scheme.name}", "", *filter(None, [scheme.note, f"See {scheme.reference}."]), ""]
            lines += _table(["theirs", "ours"], [[f"`{word}`", cause.value] for word, cause in scheme.theirs.items()])
    lines += [
        "",
        "## Enhanced status codes",
        "",
        "Every code of the IANA registry. Strength says how often the code alone tells the truth; below 0.5 a specific",
        "text outranks it.",
        "",
        *_table(["code", "means", "class 5", "class 4", "strength", "reference"], _status_rows(directories)),
    ]
    return "\n".join(lines) + "\n"


def _our_rows(schemes: Sequence[Scheme]) -> list[list[str]]:
    return [
        [
            f"`{cause.value}`",
            implied.type.value,
            implied.fault.value if implied.fault else "-",
            "yes" if implied.permanent else "no",
            *(f"`{scheme.ours[cause]}`" for scheme in schemes),
        ]
        for cause, implied in CAUSES.items()
    ]


def _status_rows(directories: Sequence[Path]) -> list[list[str]]:
    loaded = rules.load(directories)
    return [
        [
            f"`{rule.code}`",
            rule.means,
            rule.permanent.value,
            rule.persistent.value,
            f"{rule.strength:g}",
            rule.reference,
        ]
        for rule in (*loaded.statuses.values(), *loaded.subjects.values())
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    print(markdown([rules_dir()]), end="")
