"""Logs, tables and mailboxes hold what strangers write: no bytes at all may stop their readers."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.ingest import json_events, logfiles, mbox, quoting, syslog, tables
from mailback.ingest.mailbox import envelope_of
from mailback.ingest.postfix_log import DeliveryLog, Rules, delivery
from mailback.observation import Interaction, Observation
from mailback.resources import rules_dir

NOW = datetime(2026, 11, 26, tzinfo=UTC)
WORDS = tables.Words.load([rules_dir()])

# Pieces that log lines are made of, so that what is drawn comes near to one.
PIECES = st.sampled_from(
    [
        "Nov 25 10:00:00 mx postfix/smtp[7]: ", "2026-11-25T10:00:00Z mx postfix/qmgr[7]: ", "<22>1 ", "4YxK1p2Qz3z9rT",
        ": ", "to=<", "from=<", "a@b.example", ">, ", "orig_to=<", "relay=", "mx[192.0.2.9]:25", "none", ", ",
        "delay=1",
        "dsn=5.1.1", "status=", "bounced", "deferred", "sent", "expired, returned to sender", " (", ")", "message-id=<",
        "client=x[192.0.2.1]", "removed", "sender non-delivery notification: ", "uid=0 from=<x>", '"', "\\", "\n", "\0",
        "host mx[192.0.2.9] said: 550 5.1.1 gone", "queued as 4YxK1p2Qz3z9rT", "{", '"MESSAGE":', "é", "\ud800",
    ]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=30).map("".join)


@given(st.lists(TEXTS, max_size=8))
def test_no_line_of_a_log_stops_its_reader_and_every_outcome_can_be_kept(lines: list[str]) -> None:
    log = DeliveryLog(Rules(domains=frozenset({"example.com"})))
    reader = syslog.Lines(syslog.Clock(NOW, UTC))
    for line in lines:
        record = reader.record(line)
        if record is None:
            continue
        assert record.at.tzinfo is not None
        for told in log.read(record):
            assert told.failure.recipient
            assert told.event().at == record.at
    changed, _ = log.changes()
    DeliveryLog(Rules()).restore(changed, NOW)


@given(TEXTS)
def test_the_fields_of_a_delivery_are_never_those_of_a_strangers_words(words: str) -> None:
    """Whatever a remote server says, recipient and status are Postfix's."""
    line = " ".join(words.split())
    told = delivery(
        "to=<real@b.example>, relay=mx.b.example[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent "
        f"(250 {line})"
    )
    assert told is None or (told.recipient, told.status) == ("real@b.example", "sent")


@given(st.binary(max_size=400))
def test_no_bytes_stop_the_reader_of_exported_journals(data: bytes) -> None:
    for entry in syslog.export_records(data):
        syslog.of_journal(entry)


@given(st.binary(max_size=600), st.sampled_from(list(tables.Holds)))
def test_no_bytes_stop_the_reader_of_tables(data: bytes, holds: tables.Holds) -> None:
    facts = tables.Facts(holds, WORDS, tables.Columns(WORDS), tables.Dates())
    for head in (b"", b"email,time,event\n", b'{"email": "a@b.example"}\n'):
        table = tables.Table(io.BytesIO(head + data))
        for row in table.rows():
            told = row.error or facts.of(row.values, NOW)
            assert told is None or isinstance(told, str | Observation | Interaction)
        assert table.position["offset"] <= len(head + data)


_NAMES = st.sampled_from(["email", "a b", "{", '"', "x[]", "é\\"])
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_objects_are_the_same_however_they_are_laid_out(objects: list[dict[str, object]], data: st.DataObject) -> None:
    indents = data.draw(st.lists(st.sampled_from([None, 1, 2, 4]), min_size=len(objects), max_size=len(objects)))
    text = "\n".join(json.dumps(one, indent=indent) for one, indent in zip(objects, indents, strict=True))
    assert [json.loads(piece.text) for piece in json_events.pieces(io.StringIO(text))] == objects
    by_line = "[" + ",\n".join(map(json.dumps, objects)) + "]\n"
    if len(objects) > 1:
        assert [json.loads(piece.text) for piece in json_events.pieces(io.StringIO(by_line))] == objects
    listed = json.dumps(objects, indent=data.draw(st.sampled_from([1, 2, 4])))
    assert [json.loads(piece.text) for piece in json_events.pieces(io.StringIO(listed))] == objects


@pytest.mark.timeout(30)
@pytest.mark.parametrize("hostile", ['"\\"', '{"', '"', "{", "[{", "\\", '{"a":'])
def test_hostile_json_takes_linear_time(hostile: str) -> None:
    line = hostile * (1_000_000 // len(hostile))
    assert list(json_events.pieces([line, line, '{"a": 1}\n']))


@given(st.lists(st.lists(st.text(st.sampled_from('a",\n\r; '), max_size=5), min_size=2, max_size=3), max_size=5))
def test_quotes_that_a_writer_of_csv_closed_are_closed(written: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(written)
    lines = list(io.StringIO(file.getvalue(), newline=""))
    assert "".join(quoting.closed(lines)) == file.getvalue()


@given(st.text(st.sampled_from('a",\n'), max_size=30))
def test_a_quote_is_told_wherever_the_reader_of_csv_would_take_the_rest_along(text: str) -> None:
    lines = text.splitlines(keepends=True)
    found = list(quoting.rows(csv.reader(quoting.closed(lines))))
    told = any(isinstance(row, quoting.Unclosed) for _, row in found)
    last = next(reversed(list(csv.reader([*lines, "\n" if text.endswith("\n") else "", "end\n"]))), [])
    assert told == (last != ["end"]) or not text.endswith("\n")


@given(st.text(max_size=40))
def test_no_text_stops_the_reader_of_times(text: str) -> None:
    for dates in (tables.Dates(), tables.Dates(day_first=True, year=2024)):
        found = dates.read(text, NOW)
        assert found is None or found.tzinfo is not None
    syslog.Clock(NOW, UTC).read(text)


@given(st.binary(max_size=600))
def test_no_bytes_stop_the_reader_of_mailboxes(data: bytes) -> None:
    first = b"From x Fri Nov 20 12:30:00 2026\n"
    whole = first + data
    stream = io.BytesIO(whole)
    ends = [message.end for message in mbox.split(stream, stream.readline())]
    assert ends[-1] is None
    assert all(end is not None and whole[end:].startswith(b"From ") for end in ends[:-1])
    assert envelope_of(data, None).received_at <= datetime.now(UTC)


@given(st.binary(max_size=2000), st.integers(1, 200))
def test_the_pieces_of_a_log_are_its_lines_whatever_their_size(data: bytes, size: int) -> None:
    class Slow(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            return super().read(size)

    pieces = list(logfiles.pieces(Slow(data), to_end=True))
    assert b"".join(piece.data for piece in pieces) == data
    assert all(data[: piece.end].endswith(b"\n") or piece.end == 0 for piece in pieces)
