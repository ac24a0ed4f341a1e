"""`mailback stats`: a period in figures. Emits no log events."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import Moment, config_option, json_option, open_store
from mailback.cli.out import Column, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from mailback.store.records import Stats

_COLUMNS = (
    Column("kind", wraps=False), Column("type", wraps=False), Column("cause", wraps=False),
    Column("events", right=True, wraps=False), Column("share", right=True, wraps=False),
    Column("mean conf.", right=True, wraps=False),
)  # fmt: skip

_CORRECTIONS = (
    Column("told as", wraps=False), Column("was", wraps=False), Column("corrections", right=True, wraps=False),
)  # fmt: skip


@click.command()
@config_option
@json_option
@click.option("--since", type=Moment(-1), metavar="TIME", default="30d", show_default=True, help="From then on.")
@click.option("--until", type=Moment(-1), metavar="TIME", help="Before then. Default: now.")
def stats(*, config: Path | None, as_json: bool, since: datetime, until: datetime | None) -> None:
    """Count events by kind, type and cause over a period.

    TIME is a date, a date with time, or a span counted back from now: 2026-11-30, 2026-11-30T12:00, 7d, 12h.
    """
    from mailback.cli.model import states

    with open_store(config) as store:
        found = store.stats(since, until)
    models = list(states(config))
    if as_json:
        told = asdict(found)
        json_line(told | {"since": iso(found.since), "until": iso(found.until), "models": models})
    else:
        _show(found)
        for one in models:
            say(f"model of {one['of']}: {safe(one['name'])}, {one['state']}, {one['accuracy']} of its test right")


def _show(found: Stats) -> None:
    count = f"{found.events} event{'' if found.events == 1 else 's'}"
    say(f"{count} from {when(found.since)} to {when(found.until, never='now')} (UTC)")
    rows = [
        [
            tally.kind, tally.type, tally.subcategory, tally.count, f"{tally.count / found.events:.1%}",
            f"{tally.mean_confidence:.2f}" if tally.mean_confidence is not None else None,
        ]
        for tally in found.tallies
    ]  # fmt: skip
    table(_COLUMNS, rows)
    say(f"suppressed now: {found.suppressions_active}{_counts(found.suppression_changes, '; changes in the period: ')}")
    for title, counts in (
        ("provenance: ", found.by_provenance), ("action: ", found.by_action), ("replies: ", found.by_intent),
        ("route: ", found.by_route),
    ):  # fmt: skip
        if counts:
            say(_counts(counts, title))
    _show_review(found)
    if found.processing_us:
        say(
            "time to record: "
            + ", ".join(f"{name} {value / 1000:.1f} ms" for name, value in found.processing_us.items())
        )


def _show_review(found: Stats) -> None:
    """What waits, what was decided, and what was wrongly told as what."""
    review = found.review
    late = f", {review.overdue} overdue" if review.overdue else ""
    breached = f"; deadlines missed in the period: {review.breached}" if review.breached else ""
    say(f"review: {review.open} open{late}{_counts(review.decided, '; decided in the period: ')}{breached}")
    rows = [[safe(c.told), safe(c.right), c.count] for c in review.corrections]
    if rows:
        table(_CORRECTIONS, rows, title="what was told wrongly")


def _counts(counts: dict[str, int], before: str) -> str:
    return before + ", ".join(f"{name} {count}" for name, count in counts.items()) if counts else ""
