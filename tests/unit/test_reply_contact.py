"""A new contact is an address that the writer names, never the writer's own or one of ours."""

from __future__ import annotations

import time

import pytest

from mailback.reply import contact

_SENDER = "lena@kiln.example"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Please ask Tom (tom.bakker@kiln.example), he runs the yard.", "tom.bakker@kiln.example"),
        ("I left. Write to <info@kiln.example>.", "info@kiln.example"),
        ("担当はtom@kiln.exampleです。", "tom@kiln.example"),
        ("Ask mailto:tom@kiln.example; or eva@kiln.example", "tom@kiln.example"),
        ("My address stays LENA@kiln.example, Tom's is tom@kiln.example", "tom@kiln.example"),
        ("You wrote from sales@milltown.example to me.", None),
        ("My colleague deals with that.", None),
        ("a@b, @kiln.example, tom@localhost", None),
    ],
)
def test_the_address_that_is_named_is_told(text: str, told: str | None) -> None:
    assert contact.named(text, _SENDER, ["milltown.example"]) == told


@pytest.mark.parametrize("text", ["a" * 100_000, "a@" * 50_000, "a." * 50_000, "a@b." * 25_000])
def test_hostile_text_costs_linear_time(text: str) -> None:
    began = time.process_time()
    contact.named(text, _SENDER)
    assert time.process_time() - began < 0.3
