"""`mailback rules`: what no rule names, what a file would change, what is wrong with one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.bounce import rules
from mailback.bounce.lint import lint
from mailback.engine import Engine
from mailback.envelope import Envelope
from mailback.resources import rules_dir
from mailback.settings import Settings
from mailback.store import Store
from tests.support.command import Run, within
from tests.support.mail import dsn


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mailback.db"


@pytest.fixture
def told(tmp_path: Path, database: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{database}"\n[service]\nstate_directory = "{tmp_path / "state"}"\n')

    return within(config, capfd)


def filled(_told: object, database: Path, diagnostics: list[str], *, status: str = "5.0.0", each: int = 3) -> None:
    """Put bounces with these diagnostics into the store, each for several recipients (`{}` is the local part)."""
    database.parent.mkdir(exist_ok=True)
    with Store.open(f"sqlite:///{database}") as store:
        store.upgrade()
        engine = Engine(Settings.loads(""), store)
        for kind, words in enumerate(diagnostics):
            for number in range(each):
                name = f"r{kind}x{number}"
                raw = dsn(f"{name}@a.example", message_id=f"<{name}@sender.example>", status=status,
                          diagnostic=words.format(name))  # fmt: skip
                envelope = Envelope("", (f"{name}@a.example",), received_at=datetime(2026, 11, 1, tzinfo=UTC))
                engine.inbound(envelope, raw)


STRANGE = "550 the frobnicator of {}@a.example declines item 4711"
KNOWN = "550 <{}@a.example> User unknown"


class TestUnmatched:
    def test_groups_what_no_rule_names_and_leaves_out_what_one_does(self, told: Run, database: Path) -> None:
        filled(told, database, [STRANGE, KNOWN])
        [found] = told("rules", "unmatched", "--json", "--since", "2026-01-01").lines
        assert found["count"] == 3
        assert found["template"] == "550 the frobnicator of <*> declines item <*>"
        assert sum(found["providers"].values()) == 3
        assert "frobnicator" in told("rules", "unmatched", "--since", "2026-01-01").out

    def test_a_single_word_that_hints_at_a_cause_does_not_hide_a_wording(self, told: Run, database: Path) -> None:
        filled(told, database, ["550 the frobnicator of {}@a.example wants less bulk"])
        [found] = told("rules", "unmatched", "--json", "--since", "2026-01-01").lines
        assert found["told_as"] == {"spam_detected": 3}

    def test_the_most_frequent_leads_and_the_limit_holds(self, told: Run, database: Path) -> None:
        filled(told, database, [STRANGE], each=2)
        filled(told, database, ["unused {}", "550 zorkmids of {}@a.example ran dry"], each=4)
        lines = told("rules", "unmatched", "--json", "--since", "2026-01-01").lines
        assert [line["count"] for line in lines] == sorted((line["count"] for line in lines), reverse=True)
        assert len(told("rules", "unmatched", "--json", "--since", "2026-01-01", "--limit", "1").lines) == 1

    def test_a_period_without_any_says_so(self, told: Run, database: Path) -> None:
        filled(told, database, [STRANGE], each=1)
        answer = told("rules", "unmatched", "--since", "2026-11-20")
        assert answer.out == "every bounce of the period is named by a rule\n"


RULE = """
[[rule]]
id = "own.frobnicator"
says = "mailbox_full"
strength = 0.95
patterns = ['{pattern}']
"""


def rule_file(tmp_path: Path, pattern: str = "frobnicator of @", name: str = "text-own.toml") -> Path:
    path = tmp_path / name
    path.write_text(RULE.replace("{pattern}", pattern))
    return path


class TestTrial:
    def test_shows_which_verdicts_would_change_and_changes_none(
        self, told: Run, database: Path, tmp_path: Path
    ) -> None:
        filled(told, database, [STRANGE, KNOWN])
        before = told("events", "--json").out
        [found] = told("rules", "test", str(rule_file(tmp_path)), "--json").lines
        assert (found["tried"], found["changed"]) == (6, 3)
        [change] = found["changes"]
        assert (change["would_be"], change["rule"]) == ("soft_bounce/mailbox_full", "own.frobnicator")
        assert len(change["events"]) == 3
        assert told("events", "--json").out == before

    def test_tells_the_same_to_a_person(self, told: Run, database: Path, tmp_path: Path) -> None:
        filled(told, database, [STRANGE])
        answer = told("rules", "test", str(rule_file(tmp_path)))
        assert "3 events tried, 3 verdicts would change" in answer.out
        assert "own.frobnicator" in answer.out

    def test_problems_are_told_with_the_files_own_name_and_line(
        self, told: Run, database: Path, tmp_path: Path
    ) -> None:
        filled(told, database, [KNOWN], each=1)
        path = rule_file(tmp_path, "a.*b")
        answer = told("rules", "test", str(path))
        assert answer.code == 2
        assert f"{path}:6: " in answer.err
        assert "mailback-rules-" not in answer.err

    def test_a_name_that_tells_nothing_is_refused(self, told: Run, tmp_path: Path) -> None:
        answer = told("rules", "test", str(rule_file(tmp_path, name="mine.toml")))
        assert answer.code == 2
        assert "text*.toml" in answer.err


class TestLint:
    def problem(self, told: Run, path: Path) -> str:
        answer = told("rules", "lint", "--json", str(path))
        assert answer.code == 1
        [found] = answer.lines
        assert found["rule"] == "own.frobnicator"
        return str(found["what"])

    def test_a_sound_file_is_sound(self, told: Run, tmp_path: Path) -> None:
        answer = told("rules", "lint", str(rule_file(tmp_path)))
        assert (answer.code, answer.out) == (0, "nothing is wrong\n")

    @pytest.mark.parametrize(
        ("pattern", "why"),
        [
            ("frobnicator  declined", "two spaces"),
            ("frobnicator\tdeclined", "tab"),
            ("frobnicator of bo@a\\.example", "address"),
        ],
    )
    def test_a_pattern_that_can_never_match_is_found(self, told: Run, tmp_path: Path, pattern: str, why: str) -> None:
        path = tmp_path / "text-own.toml"
        path.write_text(RULE.replace("'{pattern}'", json.dumps(pattern)))
        assert why in self.problem(told, path)

    @pytest.mark.parametrize(
        "pattern",
        ["FROBNICATOR Declined", "ÉCHEC du FROBNICATOR", "frobnicator of @ ", "from:@ frobnicator", r"\bfrobnicator\b"],
    )
    def test_case_and_masks_are_no_reason(self, told: Run, tmp_path: Path, pattern: str) -> None:
        assert told("rules", "lint", str(rule_file(tmp_path, pattern.strip()))).code == 0

    @pytest.mark.parametrize("pattern", ["(a|b)*c", "user.*unknown", "(user ?){0,90}(mail ?){0,90}", "x", "(ab|)"])
    def test_a_costly_or_empty_pattern_is_refused_with_its_line(self, told: Run, tmp_path: Path, pattern: str) -> None:
        path = rule_file(tmp_path, pattern)
        answer = told("rules", "lint", str(path))
        assert answer.code == 2
        assert f"{path}:6: " in answer.err

    def test_a_rule_that_a_stronger_one_always_outdoes_is_found(self, told: Run, tmp_path: Path) -> None:
        path = rule_file(tmp_path, "the user unknown to the frobnicator")
        path.write_text(path.read_text().replace("0.95", "0.6"))
        assert "shadowed by 'user-unknown.en'" in self.problem(told, path)

    def test_limits_that_contradict_each_other_are_found(self, told: Run, tmp_path: Path) -> None:
        path = rule_file(tmp_path)
        path.write_text(path.read_text() + 'status = ["4.x"]\ncode = ["550"]\n')
        assert "never holds" in self.problem(told, path)

    def test_a_rule_for_one_provider_does_not_shadow_one_for_everybody(self, tmp_path: Path) -> None:
        (tmp_path / "text.toml").write_text(
            '[[rule]]\nid = "weak"\nsays = "mailbox_full"\nstrength = 0.5\npatterns = ["frobnicator"]\n'
            '[[rule]]\nid = "strong"\nsays = "user_unknown"\nstrength = 0.9\nprovider = "google"\n'
            'patterns = ["frobnicator"]\n'
        )
        found = {finding.rule for finding in lint(rules.load([rules_dir(), tmp_path]))}
        assert "weak" not in found

    def test_every_shipped_pattern_can_match(self) -> None:
        assert [f for f in lint(rules.load([rules_dir()])) if f.what.startswith("never")] == []
