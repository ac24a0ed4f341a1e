"""Coverage-guided fuzzing of the message reader.

    pip install atheris
    python tests/fuzz/fuzz_message.py [options of libFuzzer] [folder of starting inputs ...]

Every input is parsed and everything on the result is asked for; an exception or a broken promise of the reader stops
the run and leaves the input in `crash-*`. Useful options: `-max_total_time=600`, `-max_len=20000`, `-timeout=5` (an
input that takes longer counts as a crash: the reader promises linear time). Without a folder of starting inputs a few
are made up; mail of your own does better.

`exercise` is also what the property tests beside this file run, so the two cannot drift apart.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

# Without this, running the file as a script would find the standard library's `html` and `email`, yet not `mailback`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mailback.message import LIMITS, Headers, Limits, Message, Part, decode_words, fields, html_to_text, parse

SEEDS = (
    b"From: a@sender.test\r\nSubject: =?utf-8?Q?=C3=BC?=\r\n\r\nbody\r\n",
    (
        b'Content-Type: multipart/report; boundary="b"\n\n--b\n\ntext\n--b\nContent-Type: message/delivery-status\n\n'
        b"Reporting-MTA: dns; mx.test\n\nFinal-Recipient: rfc822; a@b.test\nStatus: 5.1.1\n--b\n"
        b"Content-Type: message/rfc822\n\nFrom: x\n\nreturned\n--b--\n"
    ),
    b"Content-Type: text/html; charset=iso-2022-jp\nContent-Transfer-Encoding: base64\n\nPGI+GyRCRnwbKEI8L2I+\n",
    (
        b"Content-Type: multipart/alternative; boundary*0*=us-ascii''%62; boundary*1=c\n"
        b"Content-Transfer-Encoding: quoted-printable\n\n--bc\n\n=41=\n=\xff\n--bc--\n"
    ),
    b"From x Sat Jan  1 00:00:00 2022\rSubject: cr\r only\r\r<p hidden>no</p>yes\r",
)


def exercise(raw: bytes, limits: Limits = LIMITS) -> Message:
    """Ask a message for everything it can tell, and hold it to its promises; returns it."""
    message = parse(raw, limits)
    _walk(message, limits)
    for group in fields(raw, limits):
        assert len(group)
        _headers(group)
    _presentable(html_to_text(raw.decode("latin-1")))
    _one_line(decode_words(raw))
    return message


def _walk(message: Message, limits: Limits) -> None:
    ahead = [message]
    seen = 0
    while ahead:
        message = ahead.pop()
        _presentable(message.text)
        _one_line(message.header("subject"))
        assert message.raw.endswith(message.root.body)
        assert message.parts[0] is message.root
        for part in message.parts:
            seen += part.depth > 0
            _part(part, limits)
            if part.message is not None:
                ahead.append(part.message)
        assert all(isinstance(note, str) for note in message.notes)
        assert message.truncated or not any("left out" in note for note in message.notes)
        assert repr(message)
    # Each attached message has a root of its own, which is not one of the parts that are counted.
    assert seen <= limits.max_parts * 2


def _part(part: Part, limits: Limits) -> None:
    assert part.depth <= limits.max_depth
    assert "/" in part.type
    assert part.type == part.type.lower()
    assert isinstance(part.content, bytes)
    assert len(part.text.encode("utf-16-le")) // 2 <= 2 * limits.max_text_bytes
    for told in (
        part.type,
        part.text,
        part.charset,
        part.disposition,
        part.filename,
        *part.params,
        *part.params.values(),
    ):
        _presentable(told)
    assert part.children == () or part.type.startswith("multipart/")
    assert repr(part)
    _headers(part.headers)


def _headers(headers: Headers) -> None:
    assert isinstance(headers.block, bytes)
    for name, value in headers.items():
        assert name in headers
        assert name.upper() in headers
        _one_line(value)
        assert headers.get(name) == headers.get_all(name)[0]
        assert headers.raw(name) == headers.raw_all(name)[0]
    assert headers.get("x-no-such-field") is None
    assert repr(headers)


def _presentable(text: str) -> None:
    """Text that a log, a terminal and a database take: no half characters, no NUL."""
    text.encode("utf-8")
    assert "\0" not in text


def _one_line(text: str) -> None:
    _presentable(text)
    assert len(text.splitlines()) <= 1


def main() -> int:
    try:
        import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        print("fuzz_message.py: atheris is not installed; pip install atheris", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mailback-fuzz-") as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        arguments = sys.argv if any(not a.startswith("-") for a in sys.argv[1:]) else [*sys.argv, folder]
        atheris.instrument_all()
        atheris.Setup(arguments, exercise)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
