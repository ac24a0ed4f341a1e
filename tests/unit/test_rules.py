"""Rule files: every mistake is told at once with its line, and an operator's file lies over ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.bounce import rules
from mailback.bounce.rules import RulesError
from mailback.bounce.taxonomy import Subcategory
from mailback.resources import rules_dir


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def problems(*folders: Path) -> list[str]:
    with pytest.raises(RulesError) as caught:
        rules.load(folders)
    return caught.value.problems


RULE = """
[[rule]]
id = "own.rule"
says = "mailbox_full"
strength = 0.9
patterns = ['the cupboard is full']
"""


class TestShipped:
    shipped = rules.load([rules_dir()])

    def test_names_every_code_of_the_registry(self) -> None:
        details = {"0": 0, "1": 10, "2": 4, "3": 6, "4": 7, "5": 6, "6": 10, "7": 30}
        wanted = {f"{subject}.{n}" for subject, last in details.items() for n in range(last + 1)}
        assert set(self.shipped.statuses) == wanted
        assert set(self.shipped.subjects) == set(details)

    @pytest.mark.parametrize(
        ("code", "permanent", "persistent"),
        [
            ("1.1", "user_unknown", "user_unknown"),
            ("1.10", "domain_invalid", "domain_invalid"),
            ("2.1", "mailbox_disabled", "server_temporarily_unavailable"),
            ("2.2", "mailbox_full", "mailbox_temporarily_full"),
            ("7.20", "dkim_fail", "dkim_fail"),
            ("7.22", "dkim_fail", "dkim_fail"),
            ("7.23", "spf_fail", "spf_fail"),
            ("7.24", "spf_fail", "spf_fail"),
            ("7.25", "reverse_dns_missing", "reverse_dns_missing"),
            ("7.26", "auth_fail", "auth_fail"),
        ],
    )
    def test_codes_that_are_often_told_wrongly(self, code: str, permanent: str, persistent: str) -> None:
        rule = self.shipped.statuses[code]
        assert (rule.permanent, rule.persistent) == (permanent, persistent)

    def test_a_general_policy_code_never_speaks_of_a_dead_address(self) -> None:
        dead = {"user_unknown", "domain_invalid", "mailbox_disabled", "address_moved"}
        assert self.shipped.statuses["7.1"].permanent not in dead

    def test_no_class_4_code_disables_a_mailbox_by_its_subject_alone(self) -> None:
        assert all(rule.persistent is not Subcategory.USER_UNKNOWN for rule in self.shipped.subjects.values())

    def test_every_rule_of_a_provider_names_one_that_is_defined(self) -> None:
        named = {rule.provider for rule in self.shipped.texts.values() if rule.provider}
        assert named <= set(self.shipped.providers)

    def test_no_host_belongs_to_two_providers(self) -> None:
        hosts = [host for provider in self.shipped.providers.values() for host in provider.hosts]
        assert sorted(hosts) == sorted(set(hosts))


def test_mistakes_are_told_all_at_once_with_file_and_line(tmp_path: Path) -> None:
    text = write(
        tmp_path,
        "text.toml",
        """
[[rule]]
id = "one"
says = "mailbox_ful"
strength = 1.4
patterns = [
  'fine words',
  'a*b',
]

[[rule]]
id = "Bad Id"
says = "mailbox_full"
strength = 0.5
patterns = ['words']
colour = "red"
""",
    )
    status = write(tmp_path, "status.toml", '[code]\n"5.1.1" = { means = "x" }\n')
    told = problems(tmp_path)
    for place in (f"{text}:4: ", f"{text}:5: ", f"{text}:8: ", f"{text}:12: ", f"{status}:2: "):
        assert any(problem.startswith(place) for problem in told), (place, told)
    assert any("expected one of" in problem for problem in told)


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "text.toml", '[[rule]]\nid = "x"\nsays = \n')
    assert problems(tmp_path)[0].startswith(f"{path}:3: ")


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.toml").write_bytes(b'[[rule]]\nid = "\xe9"\n')
    assert "not UTF-8" in problems(tmp_path)[0]


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    assert "no such directory" in problems(tmp_path / "nowhere")[0]


def test_a_directory_without_rule_files_is_fine(tmp_path: Path) -> None:
    assert rules.load([tmp_path]).texts == {}


def test_an_operators_rule_replaces_ours_by_id(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    write(ours, "text.toml", RULE)
    write(theirs, "text-own.toml", RULE.replace("mailbox_full", "user_unknown"))
    assert rules.load([ours, theirs]).texts["own.rule"].says is Subcategory.USER_UNKNOWN


def test_an_operator_switches_a_rule_off(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    write(ours, "text.toml", RULE)
    write(theirs, "text.toml", '[[rule]]\nid = "own.rule"\nenabled = false\n')
    assert rules.load([ours, theirs]).texts == {}


def test_an_operator_replaces_a_single_code(tmp_path: Path) -> None:
    write(
        tmp_path,
        "status.toml",
        '[code]\n"x.1.1" = { means = "m", permanent = "unknown", persistent = "unknown", strength = 0.1 }\n',
    )
    loaded = rules.load([rules_dir(), tmp_path])
    assert loaded.statuses["1.1"].permanent is Subcategory.UNKNOWN
    assert loaded.statuses["2.2"].permanent is Subcategory.MAILBOX_FULL


def test_an_id_twice_in_one_file_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, "text.toml", RULE + RULE)
    assert "stands twice" in problems(tmp_path)[0]


def test_a_rule_for_an_unknown_provider_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, "text.toml", RULE + 'provider = "nobody"\n')
    assert "'nobody' is not defined" in problems(tmp_path)[0]


def test_a_rule_without_patterns_needs_a_providers_code(tmp_path: Path) -> None:
    write(tmp_path, "text.toml", '[[rule]]\nid = "x"\nsays = "unknown"\nstrength = 0.5\nstatus = ["5.1.1"]\n')
    assert "needs patterns" in problems(tmp_path)[0]


def test_a_status_range_covers_its_ends(tmp_path: Path) -> None:
    write(tmp_path, "text.toml", RULE + 'status = ["5.7.606-649", "x.2.2", "4.x"]\n')
    first, second, third = rules.load([tmp_path]).texts["own.rule"].statuses
    assert [first.holds(("5", "7", n)) for n in (605, 606, 649, 650)] == [False, True, True, False]
    assert second.holds(("4", "2", 2))
    assert third.holds(("4", "9", 9))
    assert not third.holds(("5", "9", 9))
