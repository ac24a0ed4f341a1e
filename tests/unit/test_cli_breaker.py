"""`mailback breaker`: what a person sees and does about a provider that refuses us."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.store import Store
from tests.support.command import Run, within


@pytest.fixture
def told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/mailback.db"\n')
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        store.upgrade()

    return within(config, capfd)


def test_a_breaker_opened_by_hand_is_listed_until_it_is_closed(told: Run) -> None:
    assert "no breaker holds mail" in told("breaker", "list").out
    assert told("breaker", "open", "google", "--reason", "their outage", "--until", "2h").code == 0
    listed = told("breaker", "list").out
    assert "google" in listed
    assert "their outage" in listed
    [row] = told("breaker", "list", "--json").lines
    assert (row["state"], row["rule"], row["sender"], row["side"]) == ("open", "operator", "*", "ip")
    assert row["next"] == row["until"] is not None
    doctor = told("doctor", "--json").lines
    assert any("breaker google/ip/* is open" in finding["what"] for finding in doctor)
    assert told("breaker", "close", "google", "--reason", "over").code == 0
    assert told("breaker", "list", "--json").lines == []
    assert told("breaker", "list", "--all", "--json").lines[0]["state"] == "closed"


def test_names_are_written_as_the_store_compares_them(told: Run) -> None:
    assert (
        told("breaker", "open", "Example.ORG", "--side", "domain", "--sender", "News.Sender.Test", "--reason", "x").code
        == 0
    )
    [row] = told("breaker", "list", "--json").lines
    assert (row["provider"], row["sender"]) == ("example.org", "sender.test")


def test_what_is_wrong_is_told_with_its_cure(told: Run) -> None:
    wrong = told("breaker", "close", "google", "--reason", "x")
    assert (wrong.code, "mailback breaker list" in wrong.err) == (1, True)
    assert told("breaker", "open", "google", "--sender", "sender.test", "--reason", "x").code == 2
    assert told("breaker", "open", "google", "--until", "2001-01-01", "--reason", "x").code == 2
    assert told("breaker", "open", "google").code == 2
