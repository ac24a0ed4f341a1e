"""A new contact is an address that the writer names, never the writer's own or one of ours."""

from __future__ import annotations

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


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["a" * 100_000, "a@" * 50_000, "a." * 50_000, "a@b." * 25_000])
def test_hostile_text_costs_linear_time(text: str) -> None:
    contact.named(text, _SENDER)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("Ada Example <ada@receiver.test>", ("Ada Example", "ada@receiver.test")),
        ("ada@receiver.test", ("", "ada@receiver.test")),
        ("", ("", "")),
        ("x" * 3000 + " <ada@receiver.test>", ("", "ada@receiver.test")),
        ("(" * 900 + " <ada@receiver.test>", ("", "ada@receiver.test")),
        ("(" * 200_000 + "<ada@receiver.test>", ("", "ada@receiver.test")),
    ],
)
def test_the_author_is_found_in_any_from_field(written: str, told: tuple[str, str]) -> None:
    assert contact.author(written) == told


def test_comments_within_comments_hide_no_verdict() -> None:
    assert contact.addressed("(" * 4000 + "<ada@receiver.test>") == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["(", "<", '"', "a@", "<a@b>", "a b ", "["])
def test_a_from_field_of_any_length_is_read_in_bounded_time(piece: str) -> None:
    contact.author(piece * (2_000_000 // len(piece)))
