"""An answer to an invitation is told with and without its calendar part, and a person's mail is not taken for one."""

from __future__ import annotations

from email.header import Header
from pathlib import Path

import pytest

import mailback
from mailback.message import parse
from mailback.reply import invitation
from mailback.reply.intent import Intent
from mailback.reply.invitation import Answer

_LINES = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data" / "invitation_answers.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
_HEAD = "From: Jo Ash <jo.ash@elm.example>\nTo: maya@oakswell.example\nDate: Wed, 8 Jul 2026 09:00:00 +0200\n"
_MEANS = {
    Answer.ACCEPTED: Intent.MEETING_BOOKED,
    Answer.TENTATIVE: Intent.MEETING_BOOKED,
    Answer.COUNTER: Intent.MEETING_BOOKED,
    Answer.DECLINED: Intent.NOT_NOW,
    Answer.CANCELLED: Intent.NOT_NOW,
}


def _plain(subject: str, text: str) -> bytes:
    head = f"{_HEAD}Subject: {Header(subject, 'utf-8').encode()}\nMIME-Version: 1.0\n"
    return f"{head}Content-Type: text/plain; charset=utf-8\n\n{text}\n".encode()


def _calendar(method: str, state: str, text: str = "", subject: str = "Rota demo") -> bytes:
    return (
        f"{_HEAD}Subject: {subject}\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=cut\n\n"
        f"--cut\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
        f"--cut\nContent-Type: text/calendar; charset=utf-8; method={method}\n\n"
        f"BEGIN:VCALENDAR\nMETHOD:{method}\nBEGIN:VEVENT\n"
        f"ATTENDEE;CUTYPE=INDIVIDUAL;ROLE=REQ-PARTICIPANT;PAR\n TSTAT={state};CN=Jo:mailto:jo.ash@elm.example\n"
        "SUMMARY:Rota demo\nEND:VEVENT\nEND:VCALENDAR\n--cut--\n"
    ).encode()


@pytest.mark.parametrize(("answer", "language", "subject", "text"), _LINES, ids=[f"{o[0]}-{o[2][:30]}" for o in _LINES])
def test_an_answer_without_a_calendar_part_is_told_in_every_language(
    answer: str, language: str, subject: str, text: str
) -> None:
    raw = _plain(subject, text.replace("\\n", "\n"))
    told = invitation.read(parse(raw), text.replace("\\n", "\n"))
    assert (told.answer.value if told else "person") == answer, language
    if told is not None:
        reply = mailback.classify(raw).reply
        assert reply is not None
        assert reply.intent is _MEANS[told.answer]


@pytest.mark.parametrize(
    ("method", "state", "answer"),
    [
        ("REPLY", "ACCEPTED", Answer.ACCEPTED),
        ("REPLY", "DECLINED", Answer.DECLINED),
        ("REPLY", "TENTATIVE", Answer.TENTATIVE),
        ("COUNTER", "TENTATIVE", Answer.COUNTER),
        ("CANCEL", "ACCEPTED", Answer.CANCELLED),
        ("REPLY", "NEEDS-ACTION", None),
        ("REQUEST", "NEEDS-ACTION", None),
        ("PUBLISH", "ACCEPTED", None),
    ],
)
def test_the_calendar_part_decides_over_lines_that_are_folded(method: str, state: str, answer: Answer | None) -> None:
    told = invitation.read(parse(_calendar(method, state)), "")
    assert (told.answer if told else None) is answer


def test_a_calendar_part_without_a_state_leaves_it_to_the_subject() -> None:
    told = mailback.classify(_calendar("REPLY", "NEEDS-ACTION", "See you there!", "Accepted: Rota demo")).reply
    assert told is not None
    assert told.intent is Intent.MEETING_BOOKED


def test_who_declines_goes_to_a_person_and_who_accepts_to_the_owner() -> None:
    accepted, declined = (mailback.classify(_calendar("REPLY", state)).reply for state in ("ACCEPTED", "DECLINED"))
    assert accepted is not None
    assert declined is not None
    assert (accepted.intent, accepted.route.value) == (Intent.MEETING_BOOKED, "notify_owner")
    assert (declined.intent, declined.route.value) == (Intent.NOT_NOW, "require_approval")
    assert accepted.evidence[0].to_dict()["layer"] == "calendar"


def test_an_opt_out_beside_the_button_is_an_opt_out() -> None:
    told = mailback.classify(_calendar("REPLY", "DECLINED", "Please remove me from your mailing list.")).reply
    assert told is not None
    assert told.intent is Intent.UNSUBSCRIBE


@pytest.mark.parametrize("piece", ["ATTENDEE;PARTSTAT=", "ATTENDEE;", "METHOD;", "\n ", "when: "])
def test_a_hostile_calendar_is_read_to_its_end(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    raw = f"{_HEAD}Subject: Accepted: x\nMIME-Version: 1.0\nContent-Type: text/calendar; method=REPLY\n\n{text}\n"
    invitation.read(parse(raw.encode()), text)
