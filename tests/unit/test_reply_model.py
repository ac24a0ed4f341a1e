"""The model of intents: it reads plain data, refuses what cannot serve, and is no surer than it was right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailback import linear
from mailback.bounce.rulefile import RulesError
from mailback.linear import ModelError
from mailback.reply import concepts, intent, meaning, model
from mailback.reply.intent import Intent
from mailback.reply.words import fold
from mailback.resources import rules_dir


def document(**changed: Any) -> dict[str, Any]:
    """Two intents: `stop` in any set tells the second."""
    return {
        "format": 1, "task": "replies", "name": "small", "made": "2026-11-25T00:00:00Z", "accuracy": 0.9,
        "held_back": 10, "trained_on": 90, "intents": ["interested", "unsubscribe"], "biases": [0.0, 0.0],
        "scale": 1.0, "units": {"words": 0.1, "letters": 0.1, "concepts": 0.1}, "words": {"stop": "Fd"},
        "letters": {"st": "PQ"}, "concepts": {"stop": "Fd"}, "signs": {"cries": [0, 100]},
        "correction": {"unsubscribe": [1.0, 0.0]}, "doubt": 0.0,
    } | changed  # fmt: skip


def seen(text: str, thread: tuple[str, ...] = ()) -> model.Features:
    return model.features(text, thread, intent.shipped(), concepts.shipped())


def write(tmp_path: Path, told: object) -> Path:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(told), "utf-8")
    return path


@pytest.fixture(scope="module")
def shipped() -> model.Model:
    found = model.load_serving()
    assert found is not None
    return found


class TestFiles:
    def test_a_model_below_the_gate_does_not_serve(self, tmp_path: Path) -> None:
        path = write(tmp_path, document(accuracy=0.3))
        with pytest.raises(ModelError, match="held-back replies"):
            model.load(path)
        assert model.load(path, gate=0).accuracy == 0.3

    @pytest.mark.parametrize(
        "changed",
        [
            {"format": 2}, {"task": "diagnostics"},
            {"intents": ["interested"]}, {"intents": ["interested", "nonsense"]},
            {"biases": [0.0]}, {"biases": [0.0, float("nan")]}, {"scale": 0}, {"words": {"stop": "F"}}, {"words": {}},
            {"words": {"stop": "F\u00e9"}}, {"words": {"stop": "F\n"}}, {"units": {}}, {"signs": {"cries": [1]}},
            {"signs": {"cries": [1, 2.5]}}, {"correction": {"unsubscribe": [1.0]}}, {"correction": {"x": [1.0, 1.0]}},
        ],
    )  # fmt: skip
    def test_what_is_no_model_is_refused(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        with pytest.raises(ModelError, match="not a model of format 1"):
            model.load(write(tmp_path, document(**changed)))

    def test_a_promoted_model_serves_in_place_of_the_shipped_one(self, tmp_path: Path) -> None:
        directory = model.directory_of(tmp_path)
        directory.mkdir(parents=True)
        (directory / linear.SERVING).write_text(json.dumps(document()), "utf-8")
        found = model.load_serving(tmp_path)
        assert found is not None
        assert found.name == "small"


class TestReading:
    def test_weights_of_all_sets_and_signs_add_up(self) -> None:
        small = model.from_document(document())
        calm, _ = small.weighed(seen("stop"))
        # words and concepts: 20 steps against 10 back; letters: one step; each of one known feature
        assert calm[1] - calm[0] == pytest.approx((30 + 30 + 1) * 0.1)
        loud, _ = small.weighed(seen("stop!"))
        assert loud[1] - loud[0] == pytest.approx((30 + 30 + 1) * 0.1 + 1.0)

    def test_a_repeated_word_counts_once(self) -> None:
        small = model.from_document(document())
        assert small.weighed(seen("stop"))[0] == small.weighed(seen("stop stop stop"))[0]

    def test_the_correction_makes_the_confidence(self) -> None:
        doubted = model.from_document(document(correction={"unsubscribe": [1.0, -3.0]}))
        plain = model.from_document(document())
        assert doubted.read(seen("stop")).confidence < plain.read(seen("stop")).confidence <= 0.98

    def test_what_is_mostly_new_is_told_with_less_confidence(self) -> None:
        doubting = model.from_document(document(doubt=-2.0, scale=0.1))
        assert doubting.read(seen("stop")).confidence > doubting.read(seen("stop zebra quagga okapi")).confidence
        plain = model.from_document(document())
        assert plain.weighed(seen("stop"))[1] < plain.weighed(seen("stop zebra quagga okapi"))[1] < 1

    def test_a_short_answer_is_seen_with_its_question(self) -> None:
        asked = ("Hello Tom. Shall we meet on Tuesday? Best, Ada",)
        assert any(sign.startswith("asked:meet") for sign in seen("works for me", asked).signs)
        long = "it works for me as long as nobody else has anything against it that day"
        assert not any(sign.startswith("asked:") for sign in seen(long, asked).signs)

    @pytest.mark.parametrize("text", ["", " ", "\n\n", "?", "😀", "\x00", "ﷺ" * 50])
    def test_any_text_is_read(self, shipped: model.Model, text: str) -> None:
        assert 0 < shipped.read(seen(text)).confidence < 1

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize("text", ["stop? " * 200_000, "x" * 1_000_000, "不" * 1_000_000], ids=range(3))
    def test_a_hostile_text_is_read_to_its_bound(self, shipped: model.Model, text: str) -> None:
        assert 0 < shipped.read(seen(text)).confidence < 1


class TestMeaning:
    @staticmethod
    def read(text: str, thread: tuple[str, ...] = (), served: model.Model | None = None) -> intent.Reading:
        known = meaning.Knowledge(intent.shipped(), concepts.shipped(), served)
        return meaning.read(text, "Re: Our offer", thread, known)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("Bitte nehmen Sie mich aus dem Verteiler.", Intent.UNSUBSCRIBE),
            ("Le bouton d'export ne marche plus depuis hier.", Intent.SUPPORT),
            ("We were charged twice for October, please refund one of them.", Intent.BILLING),
            ("Vuelvo el 14 de agosto, estaré fuera de la oficina hasta entonces.", Intent.OUT_OF_OFFICE),
            ("Mój prawnik skontaktuje się z wami w sprawie danych osobowych.", Intent.LEGAL),
        ],
    )
    def test_the_shipped_model_reads_many_languages(self, shipped: model.Model, text: str, told: Intent) -> None:
        reading = self.read(text, served=shipped)
        assert reading.intent is told
        assert any(one.layer == "model" for one in reading.evidence)

    def test_without_a_model_the_phrases_decide(self) -> None:
        reading = self.read("Please unsubscribe me")
        assert reading.intent is Intent.UNSUBSCRIBE
        assert all(one.layer == "phrases" for one in reading.evidence)

    def test_an_unsure_model_does_not_outrank_an_explicit_opt_out(self) -> None:
        unsure = model.from_document(document(words={"zebra": "QP"}, letters={"zz": "QP"}, concepts={"zz": "QP"}))
        assert self.read("unsubscribe me", served=unsure).intent is Intent.UNSUBSCRIBE

    def test_a_bare_answer_is_read_by_its_question_alone(self, shipped: model.Model) -> None:
        ending = ("We have not heard from you. Shall I close your file?",)
        assert self.read("Yes.", ending, shipped).intent is Intent.OBJECTION
        assert self.read("Yes.", ("Would you like a demo?",), shipped).intent is Intent.INTERESTED


class TestConcepts:
    def test_the_same_is_meant_in_many_languages(self) -> None:
        known = concepts.shipped()
        for text in ("please stop sending mails", "bitte keine mails schicken", "もうメールを送らないで"):
            folded = fold(text)
            assert {"send", "mail"} <= set(concepts.sequence(folded, intent.tokens(folded), known)), text

    def test_sentences_keep_their_concepts_apart(self) -> None:
        told = ["neg", "want", concepts.END, "send", "mail"]
        found = concepts.features(told)
        assert "send mail" in found
        assert not any(feature.startswith("neg_send") for feature in found)

    def test_an_operator_adds_words_and_no_concepts(self, tmp_path: Path) -> None:
        path = tmp_path / concepts.FILE
        path.write_text('[concepts]\nstop = ["kyllin"]\n', "utf-8")
        assert concepts.ConceptRules.load([rules_dir(), tmp_path]).of("kyllin") == "stop"
        path.write_text('[concepts]\nhalting = ["kyllin"]\n', "utf-8")
        with pytest.raises(RulesError, match="halting"):
            concepts.ConceptRules.load([rules_dir(), tmp_path])


def test_the_shipped_model_is_small_past_the_gate_and_loads_without_numpy(shipped: model.Model) -> None:
    assert model.shipped_path().stat().st_size < 1_500_000
    assert shipped.accuracy >= model.GATE
    code = (
        "import sys; from mailback.reply import model; assert model.load_serving() is not None;"
        "sys.exit(sum(name in sys.modules for name in ('numpy', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
