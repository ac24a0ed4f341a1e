"""`mailback model`: what a candidate may do, what serves, what is told when something is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from mailback import linear
from mailback.bounce import model
from tests.support.command import Run, within


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def told(tmp_path: Path, state: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(f'[service]\nstate_directory = "{state}"\n')

    return within(config, capfd)


@pytest.fixture
def candidate(state: Path) -> Path:
    """A model of the shipped one's making, under a name of its own."""
    directory = model.directory_of(state)
    directory.mkdir(parents=True)
    path = directory / "mine.json"
    document = json.loads(model.shipped_path().read_text("utf-8"))
    path.write_text(json.dumps(document | {"name": "mine"}), "utf-8")
    return path


def lower(path: Path, accuracy: float) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"accuracy": accuracy}), "utf-8")


def seed(directory: Path, held_back: str) -> Path:
    """A small seed set: two causes, six servers."""
    directory.mkdir()
    causes = {"mailbox_full": "quota of the user is reached", "user_unknown": "no such person is known"}
    lines = [
        json.dumps({"text": f"{words} word{chr(97 + n)} on {server}", "says": says, "family": f"f{server}"})
        for says, words in causes.items()
        for n in range(6)
        for server in ("alpha", "beta", "gamma", "delta", "eps", "zeta")
    ]
    (directory / "seed.jsonl").write_text("\n".join(lines))
    (directory / "held_back.jsonl").write_text(
        json.dumps({"text": "the quota is reached now", "says": held_back, "family": "h"})
    )
    return directory


def states(told: Run) -> dict[str, str]:
    return {row["name"]: row["state"] for row in told("model", "list", "--json").lines}


def test_the_shipped_model_serves_until_another_is_promoted(told: Run, candidate: Path) -> None:
    assert states(told) == {"shipped": "serving", "mine": "candidate"}
    assert told("model", "promote", "mine").code == 0
    assert states(told) == {"shipped": "candidate", "mine": "serving"}
    serving = model.load_serving(candidate.parents[1])
    assert serving is not None
    assert serving.name == "mine"
    assert told("model", "promote", "shipped").code == 0
    assert states(told) == {"shipped": "serving", "mine": "candidate"}


def test_what_serves_is_a_copy_that_a_new_training_does_not_change(told: Run, candidate: Path) -> None:
    assert told("model", "promote", "mine").code == 0
    lower(candidate, 0.9)
    assert states(told) == {"shipped": "candidate", "mine": "candidate", "serving": "serving"}


def test_a_file_from_elsewhere_is_not_promoted(told: Run, candidate: Path) -> None:
    answer = told("model", "promote", str(candidate))
    assert answer.code == 2
    assert "mailback model list" in answer.err


def test_a_model_below_the_gate_is_not_promoted(told: Run, candidate: Path, state: Path) -> None:
    lower(candidate, 0.7)
    answer = told("model", "promote", "mine")
    assert answer.code == 2
    assert "does not serve" in answer.err
    assert not (model.directory_of(state) / linear.SERVING).exists()
    assert states(told)["mine"] == "below the gate"


def test_a_damaged_model_is_listed_as_such(told: Run, candidate: Path) -> None:
    candidate.write_text("{")
    assert states(told)["mine"] == "damaged"


def test_evaluate_tells_precision_recall_and_calibration(told: Run) -> None:
    [found] = told("model", "evaluate", "--json").lines
    assert found["accuracy"] >= model.GATE
    assert {"cause", "precision", "recall"} <= set(found["causes"][0])
    assert sum(b["count"] for b in found["calibration"]) == found["voted"]
    page = told("model", "evaluate", "--misses").out
    assert "user_unknown" in page
    assert "expected calibration error" in page
    assert page.count("\n") > len(found["misses"])


def test_a_candidate_below_the_gate_can_be_evaluated(told: Run, candidate: Path) -> None:
    lower(candidate, 0.1)
    assert told("model", "evaluate", "mine").code == 0
    assert told("model", "evaluate", str(candidate)).code == 0


def test_compare_counts_what_each_alone_tells(told: Run, candidate: Path) -> None:
    [found] = told("model", "compare", "shipped", "mine", "--json").lines
    assert (found["only_one"], found["only_other"]) == (0, 0)
    assert "rightly" in told("model", "compare", "shipped", "mine").out


@pytest.mark.parametrize("arguments", [("promote", "nobody"), ("evaluate", "nobody"), ("compare", "shipped", "nobody")])
def test_an_unknown_model_is_told_in_one_line(told: Run, arguments: tuple[str, ...]) -> None:
    answer = told("model", *arguments)
    assert answer.code == 2
    assert "'nobody'" in answer.err
    assert answer.err.endswith("; see: mailback model list\n")


class TestTrain:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("sklearn", reason="training needs the extra `learn`")

    def test_writes_a_candidate_that_serves_only_when_promoted(self, told: Run, tmp_path: Path, state: Path) -> None:
        answer = told(
            "model", "train", "--seed", str(seed(tmp_path / "s", "mailbox_full")), "--seed-only", "--name", "n"
        )
        assert answer.code == 0
        assert "mailback model promote n" in answer.out
        assert states(told) == {"shipped": "serving", "n": "candidate"}
        assert told("model", "promote", "n").code == 0
        serving = model.load_serving(state)
        assert serving is not None
        assert serving.name == "n"

    def test_below_the_gate_it_is_written_and_says_that_it_does_not_serve(self, told: Run, tmp_path: Path) -> None:
        answer = told(
            "model", "train", "--seed", str(seed(tmp_path / "s", "user_unknown")), "--seed-only", "--name", "n"
        )
        assert answer.code == 1
        assert "does not serve" in answer.out
        assert states(told)["n"] == "below the gate"

    def test_learns_from_the_store_beside_the_seed(self, told: Run, tmp_path: Path) -> None:
        from tests.unit.test_cli_rules import filled

        filled(
            told,
            tmp_path / "state" / "mailback.db",
            ["552 5.2.2 <{}@a.example> mailbox is full, over quota"],
            status="5.2.2",
        )
        directory = seed(tmp_path / "s", "mailbox_full")
        [alone] = told("model", "train", "--seed", str(directory), "--seed-only", "--name", "a", "--json").lines
        [more] = told("model", "train", "--seed", str(directory), "--name", "b", "--json").lines
        assert more["trained_on"] == alone["trained_on"] + 1

    @pytest.mark.parametrize("name", ["shipped", "serving", "../x", "A b", ""])
    def test_a_name_that_would_hide_something_is_refused(self, told: Run, name: str) -> None:
        assert told("model", "train", "--seed-only", "--name", name).code == 2

    def test_too_few_servers_are_told(self, told: Run, tmp_path: Path) -> None:
        directory = seed(tmp_path / "s", "mailbox_full")
        kept = [line for line in (directory / "seed.jsonl").read_text().splitlines() if '"falpha"' in line]
        (directory / "seed.jsonl").write_text("\n".join(kept))
        answer = told("model", "train", "--seed", str(directory), "--seed-only")
        assert answer.code == 1
        assert "families" in answer.err


def test_without_scikit_learn_the_extra_is_named(told: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    answer = told("model", "train", "--seed", str(seed(tmp_path / "s", "mailbox_full")), "--seed-only")
    assert answer.code == 1
    assert "mailback[learn]" in answer.err


def test_a_folder_without_labelled_diagnostics_is_told(told: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = told("model", "evaluate", "--seed", str(tmp_path / "empty"))
    assert answer.code == 1
    assert "--seed" in answer.err


def test_wrong_lines_of_the_seed_are_told_all(told: Run, tmp_path: Path) -> None:
    directory = seed(tmp_path / "s", "mailbox_full")
    shutil.copy(directory / "held_back.jsonl", directory / "seed.jsonl")
    with (directory / "held_back.jsonl").open("a") as file:
        file.write("\n{\n{}\n")
    answer = told("model", "evaluate", "--seed", str(directory))
    assert answer.code == 2
    assert answer.err.count("held_back.jsonl:") == 2


class TestReplies:
    """The same commands about the model of intents."""

    @pytest.fixture
    def intents(self, state: Path) -> Path:
        from mailback.reply import model as replies

        directory = replies.directory_of(state)
        directory.mkdir(parents=True)
        path = directory / "mine.json"
        document = json.loads(replies.shipped_path().read_text("utf-8"))
        path.write_text(json.dumps(document | {"name": "mine"}), "utf-8")
        return path

    def test_a_promoted_model_serves_and_is_not_that_of_diagnostics(self, told: Run, intents: Path) -> None:
        assert told("model", "promote", "--replies", "mine").code == 0
        listed = [json.loads(line) for line in told("model", "list", "--replies", "--json").out.splitlines()]
        assert {row["name"]: row["state"] for row in listed} == {"shipped": "candidate", "mine": "serving"}
        diagnostics = [json.loads(line) for line in told("model", "list", "--json").out.splitlines()]
        assert [(row["name"], row["state"]) for row in diagnostics] == [("shipped", "serving")]

    def test_one_below_the_gate_is_not_promoted(self, told: Run, intents: Path) -> None:
        lower(intents, 0.2)
        refused = told("model", "promote", "--replies", "mine")
        assert refused.code != 0
        assert "held-back replies" in refused.err

    def test_evaluation_tells_shares_by_intent_and_language(self, told: Run) -> None:
        measured = json.loads(told("model", "evaluate", "--replies", "--json").out)
        assert {row["intent"] for row in measured["intents"]} >= {"interested", "unsubscribe", "legal"}
        assert len(measured["languages"]) >= 10
        assert "held back are read acceptably" in told("model", "evaluate", "--replies").out

    def test_training_writes_a_candidate(self, told: Run, tmp_path: Path, state: Path) -> None:
        pytest.importorskip("sklearn")
        words = {"interested": "tell me more about it", "unsubscribe": "take my name off that list"}
        folder = tmp_path / "labelled"
        folder.mkdir()
        rows = [
            {"id": f"{says}-{n}", "text": f"{text} {chr(97 + n) * 3}", "intent": says, "language": "en"}
            for says, text in words.items()
            for n in range(9)
        ]
        (folder / "en.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        done = told("model", "train", "--replies", "--seed-only", "--seed", str(folder), "--name", "new", "--json")
        assert done.code == 0, done.err
        assert (json.loads(done.out)["held_back"], json.loads(done.out)["may_serve"]) == (2, True)
        assert (state / "models" / "replies" / "new.json").is_file()
