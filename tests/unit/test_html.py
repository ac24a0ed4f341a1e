"""What a person would see of an HTML mail, and that no page, however made, takes long to look at."""

from __future__ import annotations

import pytest

from mailback.html import html_to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain  text\n of\tone line", "plain text of one line"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("a<br><br>b", "a\n\nb"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("<div>one</div><div>two<br></div><div>three</div>", "one\ntwo\nthree"),
        ("<ul><li>one<li>two</ul>after", "one\ntwo\n\nafter"),
        ("<b>bo</b>ld", "bold"),
        ("<b>one</b> <i>two</i>", "one two"),
        ("<h1>Failed</h1>text", "Failed\n\ntext"),
        ("a<hr>b", "a\nb"),
        ("<pre>\n550 5.1.1\n  no such user\n</pre>after", "550 5.1.1\n  no such user\n\nafter"),
        ("<pre>a<br>b</pre>", "a\nb"),
    ],
)
def test_layout_becomes_lines(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    "cells",
    [
        "<td>Status</td><td>5.1.1</td>",
        "<td>Status<td>5.1.1",
        "<td><p>Status</p></td><td><div>5.1.1</div></td>",
        "<th>Status<br></th>\n <td>\n <br>5.1.1</td>",
        "<td><b>Status</b></td>\n<td><table><tr><td>5.1.1</td></tr></table></td>",
    ],
)
def test_a_label_and_its_value_stay_on_one_line(cells: str) -> None:
    table = f"<table><tr>{cells}</tr><tr><td>Action</td><td>failed</td></tr></table>"
    assert html_to_text(table) == "Status\t5.1.1\nAction\tfailed"


def test_text_before_and_after_a_table_has_lines_of_its_own() -> None:
    assert html_to_text("before<table><tr><td>x</td></tr></table>after") == "before\nx\nafter"


@pytest.mark.parametrize(
    "unseen",
    [
        "<script>alert('<p>no')</script>",
        "<STYLE type='text/css'>p > b { color: red }</STYLE >",
        "<title>no</title>",
        "<!-- <p>no</p> -->",
        "<!--[if mso]><p>no</p><![endif]-->",
        "<!DOCTYPE html PUBLIC 'no'>",
        "<?xml version='1.0'?>",
        "<svg><text>no</text></svg>",
        "<div hidden>no</div>",
        "<div HIDDEN=''>no<div>no</div></div>",
        "<span style='display : none'>no</span>",
        '<span style="DISPLAY:NONE !important">no</span>',
        "<div style='max-height:0; overflow:hidden'>no</div>",
        "<td style='visibility:hidden'>no</td>",
        "<p style='mso-hide:all'>no<br>no</p>",
    ],
)
def test_what_a_person_cannot_see_is_left_out(unseen: str) -> None:
    assert html_to_text(f"seen {unseen} also").split() == ["seen", "also"]


@pytest.mark.parametrize(
    "seen",
    [
        "<div style='overflow: hidden'>yes</div>",
        "<div aria-hidden='true'>yes</div>",
        "<div class='hidden'>yes</div>",
        "<div style='max-height:0.5em'>yes</div>",
        "<input type=hidden hidden>yes",
        "<title>yes",
        "<script src='x'/>yes",
    ],
)
def test_what_only_resembles_hiding_is_seen(seen: str) -> None:
    assert html_to_text(seen) == "yes"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("&lt;a@b.test&gt; &amp; &quot;x&quot;", '<a@b.test> & "x"'),
        ("f&uuml;r &#252; &#xFC;", "für ü ü"),
        ("no&nbsp;break&nbsp;", "no break"),
        ("AT&T &unknown; &", "AT&T &unknown; &"),
        ("&#55296;&#0;&#99999999999;", "\ufffd\ufffd\ufffd9999;"),
        ("soft&shy;hyphen zero&#8203;width", "softhyphen zerowidth"),
    ],
)
def test_entities(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<user@b.test>: host said 550", "<user@b.test>: host said 550"),
        ("1 < 2 and 2 > 1", "1 < 2 and 2 > 1"),
        ("a <b", "a"),
        ('<a href="x>y">link</a>', "link"),
        ('<a href="x>link</a> rest', "link rest"),
        ("<p <b>text</b>", "text"),
        ("text<!-- never closed", "text"),
        ("text<style>p{", "text"),
        ("</div></td></tr>text", "text"),
        ("", ""),
    ],
)
def test_broken_html_keeps_its_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        '<a "',
        "<a '\"",
        "<a href=",
        "</",
        "<!",
        "<!--",
        "<script>",
        "<title>",
        "<div hidden>",
        "<td><p>",
        "<p style='display",
        "<pre> ",
        "&",
        "&#1",
        "&a",
        " ",
        "\r",
        "\u200b",
        "x",
    ],
)
def test_repetition_costs_linear_time(piece: str) -> None:
    """A tenth of a second; a quadratic scan of 100 kB takes a minute or more."""
    page = piece * (100_000 // len(piece))
    html_to_text(page)
    html_to_text("<p>" + page + ">")
