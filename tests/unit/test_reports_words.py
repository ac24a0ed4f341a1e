"""The data files of the report readers: shipped ones are right, an operator's extend them, wrong ones say why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailback import reports
from mailback.message import parse
from mailback.reports import dialects, vocabulary, words
from mailback.reports.legacy import split_returned
from mailback.resources import rules_dir


def test_the_shipped_files_load() -> None:
    assert vocabulary.shipped().dialects.labels["recipient"] == "recipient"
    assert "automatic reply" in vocabulary.shipped().words.auto_subjects


def test_an_operators_file_extends_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / dialects.FILE).write_text('[labels]\nrecipient = ["Zieladresse XY"]\n', encoding="utf-8")
    (tmp_path / words.FILE).write_text('[auto]\nsubjects = ["Weg:"]\n', encoding="utf-8")
    told = dialects.load([rules_dir(), tmp_path])
    assert told.label("Zieladresse XY") == "recipient"
    assert told.label("Recipient") == "recipient"
    assert "weg:" in words.load([rules_dir(), tmp_path]).auto_subjects


def test_a_bounce_in_an_operators_own_words_is_read(tmp_path: Path) -> None:
    (tmp_path / dialects.FILE).write_text(
        '[failed]\nsubjects = ["itzulita"]\n[labels]\nrecipient = ["hartzailea"]\n', encoding="utf-8"
    )
    raw = b"Return-Path: <>\nFrom: posta@eus.example\nSubject: Mezua itzulita\n\nHartzailea: b@eus.example\n"
    own = vocabulary.load([rules_dir(), tmp_path])
    assert [failure.recipient for failure in reports.read(parse(raw), vocabulary=own).failures] == ["b@eus.example"]
    assert reports.read(parse(raw)).failures == []


@pytest.mark.parametrize(
    "content", ["[labels\n", "[labels]\nrecipient = 7\n", '[returned]\nlines = ["("]\n', '[[server]]\ntext = ["x"]\n']
)
def test_a_wrong_dialects_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / dialects.FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(dialects.FILE)):
        dialects.load([rules_dir(), tmp_path])


@pytest.mark.parametrize("content", ["[auto\n", "[auto]\nsubjects = [1]\n", '[auto]\nunknown = ["x"]\n', "auto = 1\n"])
def test_a_wrong_words_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / words.FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words.FILE)):
        words.load([rules_dir(), tmp_path])


def test_no_file_at_all_is_told(tmp_path: Path) -> None:
    for load in (dialects.load, words.load):
        with pytest.raises(FileNotFoundError):
            load([tmp_path])


def test_no_word_is_empty() -> None:
    """An empty phrase is in every text."""
    told = vocabulary.shipped().words
    known = vocabulary.shipped().dialects
    for record in (told, known):
        for name in record.__slots__:
            value = getattr(record, name)
            if isinstance(value, tuple | frozenset):
                assert "" not in value, name


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit", ["-", " ", "= ", "original ", "message ", "the original mail ", "\n", "-----original "]
)
def test_separators_are_found_in_linear_time(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    split_returned(text, vocabulary.shipped().dialects)
