"""The model at run time: what it refuses to load, when it abstains, how its vote counts, what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailback import linear
from mailback.bounce import model
from mailback.bounce.classify import Classifier
from mailback.bounce.patterns import prepare
from mailback.bounce.rules import CodeRule, Rules, TextRule
from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.bounce.verdict import Verdict
from mailback.linear import MAX_FILE, ModelError
from mailback.reports.report import DeliveryFailure, Report

FULL, GONE, NOTHING = Subcategory.MAILBOX_FULL, Subcategory.USER_UNKNOWN, Subcategory.UNKNOWN


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": model.FORMAT,
        "name": "small",
        "made": "2026-11-01T00:00:00Z",
        "accuracy": 0.9,
        "held_back": 100,
        "trained_on": 1000,
        "scale": 1.0,
        "causes": ["mailbox_full", "user_unknown", "unknown"],
        "biases": [0.0, 0.0, 0.0],
        "features": {"quota": [0, 800], "exceeded": [0, 600, 1, -200], "unknown": [1, 900], "hello": [2, 900],
                     "world": [2, 900], "perhaps": [0, 10], "maybe": [1, 10]},
    } | changes  # fmt: skip


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document(**changes)))
    return path


def small() -> model.Model:
    return model.from_document(document())


class TestLoading:
    def test_a_model_below_the_gate_does_not_serve(self, tmp_path: Path) -> None:
        path = written(tmp_path, accuracy=0.849)
        with pytest.raises(ModelError, match=r"84\.9%"):
            model.load(path)
        assert model.load(path, gate=0).accuracy == 0.849

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": 2},
            {"accuracy": "NaN"},
            {"accuracy": None},
            {"causes": ["mailbox_full", "no_such_cause", "unknown"]},
            {"causes": ["mailbox_full", "mailbox_full", "unknown"]},
            {"biases": [0.0]},
            {"scale": 0},
            {"scale": "Infinity"},
            {"features": {}},
            {"features": {"quota": [3, 100]}},
            {"features": {"quota": [-1, 100]}},
            {"features": {"quota": [0]}},
            {"features": {"quota": [0, "1"]}},
            {"features": {"quota": [0, 1.5]}},
            {"features": {"quota": []}},
            {"features": ["quota"]},
        ],
    )
    def test_a_damaged_file_is_refused_with_its_name(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        path = written(tmp_path, **changes)
        with pytest.raises(ModelError, match=r"not a model|does not serve") as caught:
            model.load(path)
        assert str(path) in caught.value.problems[0]

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"format": 1}'])
    def test_what_is_no_model_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.json"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            model.load(path)

    def test_a_pickle_is_not_run(self, tmp_path: Path) -> None:
        path = tmp_path / "model.json"
        path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
        with pytest.raises(ModelError):
            model.load(path)
        assert not (tmp_path / "run").exists()

    def test_a_huge_file_is_refused_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "model.json"
        with path.open("wb") as file:
            file.truncate(MAX_FILE + 1)
        with pytest.raises(ModelError, match="larger"):
            model.load(path)

    def test_a_promoted_model_serves_instead_of_the_one_that_ships(self, tmp_path: Path) -> None:
        shipped = model.load_serving(tmp_path)
        assert shipped == model.load_shipped()
        directory = model.directory_of(tmp_path)
        directory.mkdir()
        (directory / linear.SERVING).write_text(json.dumps(document()))
        serving = model.load_serving(tmp_path)
        assert serving is not None
        assert serving.name == "small"

    def test_a_promoted_model_that_is_damaged_is_not_passed_over_in_silence(self, tmp_path: Path) -> None:
        directory = model.directory_of(tmp_path)
        directory.mkdir()
        (directory / linear.SERVING).write_text("{")
        with pytest.raises(ModelError):
            model.load_serving(tmp_path)


@pytest.fixture(scope="module")
def shipped() -> model.Model:
    found = model.load_shipped()
    assert found is not None
    return found


class TestShipped:
    def test_is_small_and_past_the_gate(self, shipped: model.Model) -> None:
        assert model.shipped_path().stat().st_size < 500_000
        assert shipped.accuracy >= model.GATE

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("552 5.2.2 the mailbox of <bo@a.example> has used up its storage quota", FULL),
            ("550 we know of no such user here: <bo@a.example>", GONE),
            ("Le quota de la boîte est dépassé", FULL),
            ("550 Der Empfänger ist hier unbekannt", GONE),
            ("用户邮箱已满", FULL),
            ("554 your IP 192.0.2.1 was found on a DNS blacklist", Subcategory.IP_BLOCKED),
            ("451 greylisted, try again in 300 seconds", Subcategory.GREYLISTED),
        ],
    )
    def test_tells_causes(self, shipped: model.Model, text: str, cause: Subcategory) -> None:
        vote = shipped.vote(prepare(text))
        assert vote is not None
        assert vote[0] is cause

    @pytest.mark.parametrize("text", ["", "550", "xyzzy plugh", "Message could not be delivered", "\ud800", "@" * 300])
    def test_abstains_where_nothing_is_said(self, shipped: model.Model, text: str) -> None:
        assert shipped.vote(prepare(text)) is None

    @pytest.mark.timeout(30)
    def test_a_hostile_text_costs_no_more_than_a_long_one(self, shipped: model.Model) -> None:
        for text in ("a-" * 50_000, "1." * 50_000, "收" * 30_000, "<" * 100_000, "a" * 100_000, ".-_" * 30_000):
            shipped.vote(prepare(text))

    def test_runs_without_numpy_and_scikit_learn(self) -> None:
        code = (
            "import sys; from mailback.bounce import model; m = model.load_shipped();"
            "assert m.vote(b'552 mailbox is full, over quota');"
            "print([name for name in ('numpy', 'sklearn') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestFeatures:
    def test_what_names_people_and_machines_is_no_feature(self) -> None:
        text = prepare("550-5.1.1 <bo@a.example> at mx7.a.example[192.0.2.9] id=4XyZ12 said 17 times: [2001:db8::1]")
        assert list(model.tokens(text)) == ["@", "at", "#host", "#host", "id", "said", "times"]

    def test_of_codes_only_that_they_are_transient_is_kept(self) -> None:
        assert list(model.tokens(b"452 4.2.2 full")) == ["#4", "#4", "full"]
        assert list(model.tokens(b"552-5.2.2 full")) == ["full"]
        assert list(model.tokens(b"421-4.7.0 full")) == ["#4", "full"]

    def test_names_of_exceptions_are_words_and_not_hosts(self) -> None:
        told = list(model.tokens(b"550 5.1.10 resolver.adr.recipientnotfound; not found"))
        assert told == ["resolver", "adr", "recipientnotfound", "not", "found"]

    def test_scripts_without_spaces_give_pairs_of_characters(self) -> None:
        assert {"收件", "件人"} <= set(model.features("收件人".encode()))


class TestVote:
    def verdict(self, text: str, *, status: str | None = None, **rule: Any) -> Verdict:
        """A verdict by the small model, one status rule and, where given, one text rule."""
        from mailback.bounce import dialect

        rules = Rules()
        for code, says, strength in (("1.1", GONE, 0.9), ("0.1", GONE, 0.2), ("2.2", FULL, 0.9)):
            rules.statuses[code] = CodeRule(f"x.{code}", "", "", says, says, strength)
        if rule:
            patterns = (dialect.parse(rule["pattern"]),)
            rules.texts["t"] = TextRule("t", rule["says"], rule["says"], rule["strength"], patterns=patterns)
        failure = DeliveryFailure("bo@a.example", diagnostic=text, status=status)
        return Classifier(rules, small(), engine="re").verdict(failure, Report(Kind.BOUNCE, [failure]))

    def test_decides_alone_where_no_rule_speaks(self) -> None:
        verdict = self.verdict("quota exceeded")
        assert verdict.subcategory is FULL
        [vote] = verdict.evidence
        assert (vote.layer, vote.rule) == ("model", "small")
        probability = small().likeliest(b"quota exceeded")[1]
        assert verdict.confidence == pytest.approx(min(probability, 0.99))

    def test_decides_against_a_general_code(self) -> None:
        assert self.verdict("quota exceeded", status="5.0.1").subcategory is FULL

    def test_does_not_overrule_a_specific_code_but_lowers_the_confidence(self) -> None:
        alone = self.verdict("nothing known", status="5.1.1")
        against = self.verdict("quota exceeded", status="5.1.1")
        assert alone.subcategory is against.subcategory is GONE
        assert against.confidence < alone.confidence

    def test_does_not_turn_a_specific_text_by_siding_with_the_code(self) -> None:
        verdict = self.verdict("quota exceeded", status="5.2.2", pattern="exceeded", says=GONE, strength=0.82)
        assert verdict.subcategory is GONE

    def test_is_not_asked_where_code_and_text_agree(self) -> None:
        verdict = self.verdict("quota exceeded", status="5.1.1", pattern="exceeded", says=GONE, strength=0.9)
        assert {vote.layer for vote in verdict.evidence} == {"status", "text"}

    def test_abstains_when_it_is_not_sure(self) -> None:
        assert small().vote(b"perhaps maybe") is None
        assert self.verdict("perhaps maybe").subcategory is NOTHING

    def test_that_nothing_is_said_is_no_vote(self) -> None:
        assert small().likeliest(b"hello world")[0] is NOTHING
        assert small().vote(b"hello world") is None
