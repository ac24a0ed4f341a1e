"""The `mailback` command: finds the command asked for, runs it, and tells every failure in one line.

A command's module is imported only when the command is used: `mailback check` must answer within 300 ms, and SQLAlchemy
alone takes half a second to import. Hence the table below, with each command's one-line help beside its place; a test
holds it equal to what the commands say themselves.

Exit codes: 0 done; 1 a negative answer, a failed item, a store that cannot be used; 2 a call or a configuration that is
wrong; 130 interrupted; 141 the reader of a pipe has gone. Emits no log events of its own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from mailback import __version__
from mailback.cli.errors import CommandError
from mailback.cli.options import config_option
from mailback.cli.out import complain, safe

TRACEBACK_VARIABLE = "MAILBACK_TRACEBACK"


class Place(NamedTuple):
    """Where a command lies, and what it is for."""

    module: str
    attribute: str
    help: str


COMMANDS: dict[str, Place] = {
    "serve": Place("serve", "serve", "Run every door and server that the configuration switches on."),
    "milter": Place("serve", "milter", "Run the milter alone."),
    "smtpd": Place("serve", "smtpd", "Run the receiver alone."),
    "web": Place("serve", "web", "Run the HTTP interface alone."),
    "policyd": Place("serve", "policyd", "Run the policy service and the socketmap alone."),
    "follow": Place("serve", "follow", "Follow Postfix's log as it is written, alone."),
    "watch": Place("serve", "watch", "Watch breakers and ask DNS who runs the mail of recipients' domains, alone."),
    "classify": Place("classify", "classify", "Tell what messages are, whom a delivery failed for and why."),
    "check": Place("check", "check", "May I mail this address? Exit code 0 yes, 1 no."),
    "validate": Place(
        "validate", "validate", "Check addresses as somebody enters them. Exit code 0 all may be taken, 1 some not."
    ),
    "hygiene": Place(
        "hygiene", "hygiene", "Sort a list into keep, verify and drop, each address with its reasons; changes nothing."
    ),
    "explain": Place(
        "explain", "explain", "Tell every event, verdict and decision behind an address's state, oldest first."
    ),
    "suppress": Place("suppress", "suppress", "The suppression list: add, remove, list, import, export."),
    "forget": Place(
        "forget",
        "forget",
        "Erase addresses: everything that is known about them is removed, and they are never mailed again.",
    ),
    "events": Place("events", "events", "Tell what happened, the latest first."),
    "journal": Place("journal", "journal", "What went out: add, find, list, unsubscribe."),
    "ingest": Place(
        "ingest", "ingest", "Other ways in: Postfix's log, mailboxes, tables of deliveries, opens and clicks."
    ),
    "next": Place("next", "next_", "Tell the next best action for a contact: stop, escalate, reply, wait or nudge."),
    "stats": Place("stats", "stats", "Count events by kind, type and cause over a period."),
    "rules": Place("rules", "rules", "The rules of bounces: what they do not name yet, a trial of new ones, a lint."),
    "model": Place("model", "model", "The learnt classifiers: train, evaluate, list, promote, compare."),
    "config": Place("config", "config", "Check and show the configuration."),
    "review": Place("review", "review", "What waits for a person: list, show, approve, correct."),
    "wave": Place("wave", "waves", "Bursts that were frozen: list, undo, confirm, reopen."),
    "breaker": Place("breaker", "breakers", "Providers that refuse your mail: list, open, close."),
    "signing": Place("signing", "signing", "The keys of signed return paths: keygen, rotate, show."),
    "subscriber": Place("subscriber", "subscriber", "Who is on a list: import, export, show, list, opt-in, opt-out."),
    "retry": Place("retry", "retry", "Messages worth sending again: due, list, watch, done, skip."),
    "store": Place("store", "store", "The database: upgrade, check, maintain, backup, size, message."),
    "doctor": Place("doctor", "doctor", "Check the live system: settings, store, sockets, DNS, Postfix."),
    "demo": Place("demo", "demo", "A minute's tour on real-looking mail; nothing to set up, nothing is kept."),
    "completion": Place("completion", "completion", "Print the completion script of a shell."),
}


class PipeClosed(Exception):  # noqa: N818 - a condition, not a fault
    """The reader of our output has gone. Not an OSError: click would end the process with exit code 1 by itself."""


class LazyCommands(click.Group):
    """A group that knows its commands by name and imports one when it is used."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeClosed from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(import_module(f"mailback.cli.{place.module}"), place.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            told = f"no such command: {safe(args[0])}" + (f", did you mean {close[0]}?" if close else "")
            raise click.UsageError(told, ctx) from error


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=False,
)
@config_option
@click.version_option(__version__, "-V", "--version", prog_name="mailback", message="%(prog)s %(version)s")
def mailback(config: object) -> None:
    """Handle everything that comes back when you send mail: bounces, complaints, auto-replies.

    Start with `mailback demo`, then `mailback config check` and `mailback doctor`.
    """
    del config  # read by the commands, through the context


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a C locale must not end a listing half way
    try:
        code = mailback.main(args=arguments, prog_name="mailback", standalone_mode=False)
        sys.stdout.flush()
    except (PipeClosed, BrokenPipeError):
        # Python flushes standard output once more at exit; a closed pipe would then print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return 130
    except Exception as error:
        return _told(error)
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        return _usage_told(error)
    if isinstance(error, CommandError):
        complain("; ".join(filter(None, (error.what, error.advice))))
        return error.exit_code
    problems: Any = getattr(error, "problems", None)
    if problems:  # SettingsError, RulesError: everything that is wrong, a line each
        for problem in problems:
            complain(safe(problem))
        return 2
    if advice := getattr(error, "advice", None):  # StoreUnavailable, which this module must not import to catch
        complain(safe(f"{getattr(error, 'reason', error)}; {advice}"))
        return 1
    if isinstance(error, OSError):
        told = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        complain(f"{safe(told)}; check that it exists and that the user {_user()} may use it")
        return 1
    complain(f"{type(error).__name__}: {safe(error)}; this is a fault in Mailback, report it with the output of the "
             f"same command under {TRACEBACK_VARIABLE}=1")  # fmt: skip
    return 1


def _usage_told(error: click.ClickException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help is what is wanted
        sys.stderr.write(error.format_message() + "\n")
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "mailback"
    message = " ".join(error.format_message().split()).rstrip(".")  # click lists choices on lines of their own
    complain(f"{safe(message)}; see: {path} --help")
    return error.exit_code


def _user() -> str:
    from mailback.cli.options import actor

    return actor().removeprefix("operator:")


if __name__ == "__main__":
    main()
