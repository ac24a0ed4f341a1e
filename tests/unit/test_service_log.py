"""The log: nothing that came out of mail may forge a line or reach a terminal raw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.service import log

EVIL = "x\r\n2026-01-01T00:00:00.000Z info forged\x1b[2J\x9b31m\u202egnp\u2028\udcff\x00\\n"


def logged(code: str, *, style: str = "text", level: str = "info", addresses: bool = False,
           env: dict[str, str] | None = None) -> str:  # fmt: skip
    """Standard error of a process that logs; its standard error is no terminal."""
    prelude = (
        "from types import SimpleNamespace\nfrom mailback.service import log\nfrom mailback.service.log import whom\n"
        f"log.configure(SimpleNamespace(level={level!r}, format={style!r}, addresses={addresses!r}))\n"
        f"EVIL = {EVIL!r}\nl = log.get_logger('test')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, timeout=30, check=True,
        env={k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"} | (env or {}),
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr


def test_text_line_is_time_level_event_and_values() -> None:
    line = logged("l.info('message.accepted', id=1, size=None, ok=True, names=['a', 'b'], why='two words', e='')")
    stamp, rest = line.rstrip("\n").split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == 'info message.accepted part=test id=1 size=- ok=true names=a,b why="two words" e=""'


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_value_event_or_key_of_a_mapping_leaves_its_line_or_stays_raw(style: str) -> None:
    out = logged("l.info(EVIL, a=EVIL, b=[EVIL], c={EVIL: EVIL}, d=EVIL.encode('utf-8', 'replace'))", style=style)
    assert out.count("\n") == 1
    assert out.rstrip("\n").isprintable()


def test_traceback_lines_cannot_pass_for_events() -> None:
    out = logged("try:\n  raise ValueError(EVIL)\nexcept ValueError:\n  l.exception('part.failed')")
    lines = out.rstrip("\n").split("\n")
    assert lines[0].endswith("error part.failed part=test")
    assert len(lines) > 3
    assert all(line.startswith("  | ") and line.isprintable() for line in lines[1:])
    assert any("forged" in line for line in lines[1:])


def test_json_is_one_object_a_line_with_the_traceback_in_it() -> None:
    out = logged("try:\n  1/0\nexcept ZeroDivisionError:\n  l.exception('part.failed', n=1)", style="json")
    told = json.loads(out)
    assert (told["event"], told["level"], told["part"], told["n"]) == ("part.failed", "error", "test", 1)
    assert told["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_under_systemd_a_line_has_its_priority_and_no_time() -> None:
    code = (
        "import os\ns = os.fstat(2)\nos.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n"
        "log.configure(SimpleNamespace(level='info', format='text', addresses=False))\n"
        "l.info('one')\nl.error('two')\n"
    )
    assert logged(code) == "<6>info one part=test\n<3>error two part=test\n"


def test_journal_stream_of_another_descriptor_is_not_believed() -> None:
    assert not logged("l.info('one')", env={"JOURNAL_STREAM": "1:2"}).startswith("<")


def test_level_is_kept() -> None:
    code = "l.debug('no'); l.info('no'); l.warning('yes'); l.critical('yes')"
    assert logged(code, level="warning").count("yes") == 2
    assert "no " not in logged(code, level="warning")
    assert logged(code, level="debug").count(" no ") == 2


def test_values_are_capped() -> None:
    assert len(logged("l.info('x', text='a' * 1_000_000)")) < 3000


def test_addresses_are_shown_by_domain_unless_asked_for() -> None:
    code = "l.info('x', a=whom('ann@example.com'), b=whom(''), c=whom('root'), d=whom('\"a@b\"@c.example'))"
    assert "a=*@example.com b=<> c=* d=*@c.example" in logged(code)
    assert "a=ann@example.com" in logged(code, addresses=True)


def test_libraries_warnings_come_out_escaped_too_and_their_mistakes_do_no_harm() -> None:
    code = (
        "import logging\nlogging.getLogger('mail.log').warning('got %s', EVIL)\n"
        "logging.getLogger('mail.log').info('quiet')\nlogging.getLogger('x').error('%d', 'y')\n"
    )
    lines = logged(code).rstrip("\n").split("\n")
    assert len(lines) == 2
    assert 'warning library part=library logger=mail.log message="got x' in lines[0]
    assert all(line.isprintable() for line in lines)


def test_reader_that_has_gone_away_does_not_stop_the_service() -> None:
    code = (
        "import os, sys\nfrom mailback.service import log\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 2)\n"
        "log.get_logger('x').info('into the void', text='a' * 100)\nsys.stdout.write('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "alive"


def test_structlog_is_imported_with_the_first_line_only() -> None:
    code = (
        "import sys\nfrom mailback.service import log\nl = log.get_logger('x').bind(a=1)\n"
        "l.debug('nothing')\nassert 'structlog' not in sys.modules\nassert 'logging' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_logger_made_before_the_settings_follows_them() -> None:
    code = "log.configure(SimpleNamespace(level='error', format='text', addresses=False))\nl.warning('quiet')"
    assert logged("l.info('first')\n" + code).count("\n") == 1


@given(st.text())
def test_escaped_text_is_printable_and_tells_what_it_was(text: str) -> None:
    escaped = log.escape(text)
    assert escaped.isprintable()
    assert escaped.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


def test_settings_need_only_their_three_attributes() -> None:
    settings = SimpleNamespace(level="info", format="auto", addresses=False)
    assert {name for name in dir(log.LogSettings) if not name.startswith("_")} == set(vars(settings))
