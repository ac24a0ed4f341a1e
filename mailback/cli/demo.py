"""`mailback demo`: a minute's tour on real-looking mail, with a store of its own that is gone afterwards.

Nothing is shown that is not computed: the mail goes through the same engine and store as a server's, only the pauses
are there for the eye. Emits no log events.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.demo_mail import SENDER, mailbox
from mailback.cli.options import config_option
from mailback.cli.out import Cell, Column, console, is_terminal, rich_table, say, table, when

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mailback.engine import Assessment, Engine, Outcome
    from mailback.store import Store

_PAUSE_S = 0.25  # between two lines of the live table, on a terminal
_WIDTH = 118  # of the picture, in columns
_MAIL_COLUMNS = (
    Column("what came in", wraps=False), Column("told as", wraps=False), Column("about", "cyan", wraps=False),
    Column("cause"), Column("conf.", right=True, wraps=False), Column("so"),
)  # fmt: skip
_SUPPRESSION_COLUMNS = (
    Column("suppressed", "cyan", wraps=False), Column("because", wraps=False), Column("since (UTC)", wraps=False),
    Column("until", wraps=False),
)  # fmt: skip
_GONE = "anna@dept.example"


@click.command()
@config_option
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE", help="Also write it as an SVG picture.")
@click.option("--fast", is_flag=True, help="Without pauses.")
def demo(*, config: Path | None, picture: Path | None, fast: bool) -> None:
    """A minute's tour on real-looking mail; nothing to set up, nothing is kept."""
    del config  # the tour has settings of its own: it must show the same everywhere, and touch nobody's store
    stage = _Stage(picture is not None, pause_s=0.0 if fast or not is_terminal() else _PAUSE_S)
    with tempfile.TemporaryDirectory(prefix="mailback-demo-") as folder:
        _tour(stage, Path(folder))
    if picture is not None:
        stage.save(picture)


def _tour(stage: _Stage, folder: Path) -> None:
    from mailback.engine import Engine
    from mailback.settings import Settings
    from mailback.store import Store

    url = f"sqlite:///{folder / 'demo.db'}"
    settings = Settings.loads(f'[store]\nurl = "{url}"\n[mail]\nsending_domains = ["shop.example"]\n')
    with Store.open(url) as store:
        store.upgrade()
        _inbound(stage, Engine(settings, store))
        _suppressed(stage, store)
        _outbound(stage, store)
        _explained(stage, store)
        _undone(stage, store)
    stage.line("")
    stage.line("Next: mailback config show --template > mailback.toml, then docs/postfix.md or docs/receiver.md.")


def _inbound(stage: _Stage, engine: Engine) -> None:
    from mailback.envelope import Envelope

    stage.heading("1. Mail comes back. Each message is read, judged and recorded before it is acknowledged:")
    columns = [column for column in _MAIL_COLUMNS if stage.wide or column.title != "conf."]
    rows = stage.growing(columns)
    for mail in mailbox():
        assessment = engine.assess(Envelope(recipients=(SENDER,)), mail.raw)
        outcome = engine.commit(assessment).result()
        told = assessment.classification.to_dict()
        bounces = told["bounces"]
        assert isinstance(bounces, list)
        about = bounces[0] if bounces else {}
        reply = told["reply"] or {}
        assert isinstance(reply, dict)
        confidence = (about or reply).get("confidence")
        rows.add([
            mail.what, Cell(outcome.kind, "bold"), about.get("recipient"),
            _words(about.get("subcategory") or reply.get("intent") or ""),
            *([None if confidence is None else f"{confidence:.2f}"] if stage.wide else []),
            _words(_consequence(assessment, outcome)),
        ])  # fmt: skip
    rows.end()


def _words(name: str) -> str:
    """A name of the taxonomy as words, which a narrow terminal can break."""
    return name.replace("_", " ")


def _consequence(assessment: Assessment, outcome: Outcome) -> str:
    """What follows from a message, in a word of the taxonomy where there is one."""
    handling = assessment.handlings[0]
    if handling is None:
        if outcome.machine:
            return "kept from your inbox"
        route = assessment.classification.to_dict()["reply"]
        return str(route["route"]) if isinstance(route, dict) and route.get("route") else "goes to your inbox"
    if handling.scope != "address":
        return "our fault: nobody suppressed"
    return outcome.decisions[0].action


def _suppressed(stage: _Stage, store: Store) -> None:
    stage.heading("2. Only what is the recipient's own fault, or wish, is held against an address:")
    stage.table(
        _SUPPRESSION_COLUMNS,
        [[s.address, s.reason, when(s.since), when(s.until, never="for ever")] for s in store.suppressions()],
    )


def _outbound(stage: _Stage, store: Store) -> None:
    from mailback.cli.check import spoken
    from mailback.outbound.check import Check

    stage.heading("3. The next message to a dead address is refused, with the reason, before it leaves:")
    stage.command(f"mailback check {_GONE}")
    stage.line(spoken(_GONE, Check(store).answer(_GONE)), "red")


def _explained(stage: _Stage, store: Store) -> None:
    from mailback.address import key
    from mailback.cli.explain import EVIDENCE_COLUMNS, evidence_rows, states

    stage.heading("4. Every decision can be explained, by its evidence:")
    stage.command(f"mailback explain {_GONE}")
    explanation = store.explain(key(_GONE))
    for line in states(_GONE, explanation):
        stage.line(line, "red")
    stage.table(EVIDENCE_COLUMNS, evidence_rows(explanation))
    stage.line("... and what happened, what was done about it, and how to undo it", "dim")


def _undone(stage: _Stage, store: Store) -> None:
    from mailback.address import key
    from mailback.cli.check import spoken
    from mailback.cli.suppress import lifted
    from mailback.outbound.check import Check

    stage.heading("5. And undone, with who and why in the audit trail:")
    reason = "she called: the mailbox is back"
    stage.command(f'mailback suppress remove {_GONE} --reason "{reason}"')
    store.submit(lambda t: t.lift(key(_GONE), actor="operator:you", reason=reason)).result()
    stage.line(lifted(_GONE))
    stage.command(f"mailback check {_GONE}")
    stage.line(spoken(_GONE, Check(store).answer(_GONE)), "green")
    trail = store.verify_audit()
    state = "whole" if trail.holds else "broken"
    stage.line(f"the audit trail is {state}: {trail.rows} entries, each carrying the hash of the one before", "dim")


class _Stage:
    """Where the tour is shown: a terminal, a picture, or a pipe."""

    def __init__(self, picture: bool, pause_s: float) -> None:
        self._pause_s = pause_s
        self._console: Console | None = None
        if picture:
            from rich.console import Console

            self._console = Console(
                file=sys.stdout, record=True, force_terminal=True, width=_WIDTH, markup=False, highlight=False
            )
        elif is_terminal():
            self._console = console()

    @property
    def wide(self) -> bool:
        """Room for every column; a pipe has no edge."""
        return self._console is None or self._console.width >= 100

    def line(self, text: str, style: str = "") -> None:
        if self._console is None:
            say(text)
        else:
            self._console.print(text, style=style or None, soft_wrap=False)

    def heading(self, text: str) -> None:
        self.line("")
        self.line(text, "bold")
        time.sleep(self._pause_s)

    def command(self, text: str) -> None:
        self.line(f"$ {text}", "cyan")
        time.sleep(self._pause_s)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        if self._console is None:
            table(columns, rows)
        else:
            self._console.print(rich_table(columns, rows))

    def growing(self, columns: Sequence[Column]) -> _Growing:
        return _Growing(self, columns, self._console if self._pause_s else None, self._pause_s)

    def save(self, picture: Path) -> None:
        assert self._console is not None
        drawn = self._console.export_svg(title="mailback demo")
        # The reader's own monospaced font will do: a picture should fetch nothing from other people's servers.
        picture.write_text(_FONT_FACE.sub("", drawn), encoding="utf-8")


_FONT_FACE = re.compile(r"\s*@font-face \{[^}]*\}")


class _Growing:
    """A table that grows line by line on a terminal, and is printed whole elsewhere."""

    def __init__(self, stage: _Stage, columns: Sequence[Column], live: Console | None, pause_s: float) -> None:
        self._stage = stage
        self._columns = columns
        self._rows: list[Sequence[object]] = []
        self._pause_s = pause_s
        self._live = None
        if live is not None:
            from rich.live import Live

            self._live = Live(console=live, auto_refresh=False)
            self._live.start()

    def add(self, row: Sequence[object]) -> None:
        self._rows.append(row)
        if self._live is not None:
            self._live.update(self._shown(), refresh=True)
            time.sleep(self._pause_s)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._stage.table(self._columns, self._rows)

    def _shown(self) -> Table:
        return rich_table(self._columns, self._rows)
