"""Learning intents: the same samples give the same file, families are held back whole, people's word counts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.learn import reply_evaluation, reply_samples, reply_training
from mailback.learn.reply_samples import ReplySample
from mailback.learn.samples import SamplesError
from mailback.reply import model
from mailback.reply.intent import Intent
from mailback.store.records import Review

_WORDS = {
    Intent.INTERESTED: "tell me more about it",
    Intent.UNSUBSCRIBE: "take my name off that list",
    Intent.BILLING: "the invoice is wrong, pay it back",
}


def samples(families: int = 8) -> list[ReplySample]:
    return [
        ReplySample(f"{says}-{n}", f"{words} {'abcdefghij'[n] * 3}", says, frozenset({says}), "en", f"f{n}")
        for says, words in _WORDS.items()
        for n in range(families)
    ]


class TestSeed:
    def test_every_intent_and_ten_languages_are_there_on_both_sides(self) -> None:
        every = reply_samples.read(reply_samples.seed_directory())
        assert len(every) >= 4000
        assert len({sample.language for sample in every}) >= 10
        for held in (True, False):
            assert {sample.says for sample in every if sample.held_back is held} == set(Intent)

    def test_no_family_stands_on_both_sides(self) -> None:
        every = reply_samples.read(reply_samples.seed_directory())
        held = {sample.family for sample in every if sample.held_back}
        assert held.isdisjoint(sample.family for sample in every if not sample.held_back)

    def test_a_wrong_line_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "en.jsonl").write_text('{"id": "1", "text": "a", "intent": "nonsense"}\n{"id": "2"}\n', "utf-8")
        with pytest.raises(SamplesError) as caught:
            reply_samples.read(tmp_path)
        assert [":1:" in caught.value.problems[0], ":2:" in caught.value.problems[1]] == [True, True]


class TestFrames:
    def test_a_frame_is_put_around_and_keeps_the_meaning(self, tmp_path: Path) -> None:
        (tmp_path / reply_samples.FRAMES).write_text('[en]\nbefore = ["Hi,\\n"]\nafter = ["\\nBest"]\n', "utf-8")
        framed = list(reply_samples.framed(samples(), tmp_path))
        assert len(framed) == len(samples())
        assert all(one.text in other.text for one, other in zip(samples(), framed, strict=True))
        assert {other.text.startswith("Hi,") for other in framed} == {True, False}

    def test_a_language_without_frames_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / reply_samples.FRAMES).write_text('[de]\nbefore = ["Hallo, "]\nafter = [" MfG"]\n', "utf-8")
        assert list(reply_samples.framed(samples(), tmp_path)) == []


class TestTraining:
    def test_the_same_samples_give_the_same_model_and_it_reads_them(self, tmp_path: Path) -> None:
        pytest.importorskip("sklearn")
        made = datetime(2026, 11, 25, tzinfo=UTC)
        documents = [reply_training.train(samples(), samples(2), tmp_path, name="one", made=made) for _ in range(2)]
        assert json.dumps(documents[0]) == json.dumps(documents[1])
        assert documents[0]["accuracy"] == 1.0
        trained = model.from_document(documents[0])
        measured = reply_evaluation.evaluate(trained, samples())
        assert (measured.acceptable, measured.strict, measured.macro_f1) == (24, 24, 1.0)
        assert reply_evaluation.to_dict(trained, measured)["misses"] == []

    def test_one_intent_alone_teaches_nothing(self, tmp_path: Path) -> None:
        alone = [sample for sample in samples() if sample.says is Intent.BILLING]
        with pytest.raises(ValueError, match="two intents"):
            reply_training.train(alone, [], tmp_path, name="one")

    def test_a_model_that_errs_on_what_was_held_back_is_less_sure(self, tmp_path: Path) -> None:
        pytest.importorskip("sklearn")
        mislabelled = [
            replace(sample, id=f"{sample.id}-{n}", says=Intent.LEGAL, acceptable=frozenset({Intent.LEGAL}))
            if n % 2
            else replace(sample, id=f"{sample.id}-{n}")
            for n in range(6)
            for sample in samples()
        ]
        honest = model.from_document(reply_training.train(samples(), mislabelled, tmp_path, name="one"))
        proud = model.from_document(reply_training.train(samples(), samples(), tmp_path, name="two"))
        seen = samples()[0].features
        assert honest.read(seen).confidence < 0.7 < proud.read(seen).confidence


def test_of_two_corrections_the_later_counts() -> None:
    first = Review(
        id=1, event_id="e1", at=datetime(2026, 11, 1, tzinfo=UTC), kind=Kind.REPLY, recipient="a@receiver.test",
        recipient_key=None, domain=None, type=None, subcategory=None, intent="question", confidence=0.4,
        route="require_approval", reason="", alone=False, text="maybe", wanted=None, due=None, state="corrected",
        closed_at=datetime(2026, 11, 3, tzinfo=UTC), right_intent="not_now",
    )  # fmt: skip
    later = replace(first, id=2, closed_at=datetime(2026, 11, 4, tzinfo=UTC), right_intent="objection")
    unread = replace(first, id=3, text=None)
    [learnt] = reply_samples.of_corrections([later, first, unread])
    assert (learnt.text, learnt.says, learnt.held_back) == ("maybe", Intent.OBJECTION, False)


@pytest.mark.parametrize(
    ("text", "thread", "left_out"),
    [
        ("Go ahead", ("Shall I close your file?",), True),
        ("Yes", ("Can I send you the price list?",), True),
        ("Yes", (), False),
        ("In about eleven pieces.", ("Did the parcel arrive?",), False),
    ],
)
def test_an_answer_that_only_its_question_explains_teaches_nothing(
    text: str, thread: tuple[str, ...], left_out: bool
) -> None:
    sample = replace(samples()[0], text=text, thread=thread)
    assert sample.told_by_question is left_out
