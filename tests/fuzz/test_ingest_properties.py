"""Logs, tables and mailboxes hold what strangers write: no bytes at all may stop their readers."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mailback.ingest import logfiles, mbox, syslog, tables
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
