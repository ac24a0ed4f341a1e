"""Raw bytes to verdict, one core, one process: Mailback beside flufl.bounce and beside the `email` package's parser.

    python bench/classify.py [FOLDER]       a folder of .eml files; without one, bounces of the project's own writing

Prints the CPU time a message of the median run over all of them, the ratios to the peers, and how the time grows with
hostile sizes. A running server has judged most diagnostics before and keeps what it made of them, as the runs after the
first do; a line of its own tells what one costs whose diagnostic comes for the first time, in runs that forget them.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mailback
from mailback.walk.knowledge import Knowledge

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.mail import dsn, reply

ROUNDS = 9


def own_messages() -> list[bytes]:
    """A hundred reports of common shapes and sizes."""
    causes = (
        ("5.1.1", "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table"),
        ("5.2.2", "552 5.2.2 <{}> mailbox is full: user is over quota"),
        ("5.7.1", "554 5.7.1 Service unavailable; client host [192.0.2.1] blocked using a DNS list"),
        ("4.2.0", "450 4.2.0 <{}>: Recipient address rejected: greylisted, try again in 300 seconds"),
        (
            "5.4.4",
            "Host or domain name not found. Name service error for name=receiver.test type=A: not found",
        ),
    )
    made = []
    for number in range(100):
        status, words = causes[number % len(causes)]
        address = f"person-{number}@receiver.test"
        made.append(
            dsn(
                address,
                message_id=f"<{number}@sender.test>",
                status=status,
                diagnostic=words.format(address),
                padding=number * 60,
            )
        )
    return [*made, *(reply(f"p{n}@receiver.test", message_id=f"<r{n}@receiver.test>") for n in range(20))]


def cpu_us(
    work: Callable[[bytes], object], messages: list[bytes], before: Callable[[], object] = lambda: None
) -> float:
    """Median over the rounds of the mean CPU time a message, in microseconds; `before` each round, not measured."""
    rounds = []
    for _ in range(ROUNDS):
        before()
        start = time.process_time()
        for raw in messages:
            work(raw)
        rounds.append((time.process_time() - start) / len(messages) * 1e6)
    return statistics.median(rounds)


def hostile() -> dict[str, bytes]:
    """Inputs that made published parsers hang or take gigabytes."""
    head = b"From: MAILER-DAEMON@a.test\r\nTo: b@c.test\r\nSubject: Undelivered mail\r\n\r\n"
    many = b"".join(
        b"Final-Recipient: rfc822; r%d@a.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" % n for n in range(10_000)
    )
    report = dsn("x@a.test", message_id="<1@c.test>")
    marker = b"Final-Recipient: rfc822; x@a.test\r\n"
    return {
        "15 MB mail": head + b"Just some words on a line, again and again.\r\n" * 340_000,
        "15 MB DSN": dsn("x@a.test", message_id="<1@c.test>", padding=15_000_000),
        "10,000-recipient DSN": report.replace(marker, many + marker),
        "100 kB of <": head + b"<" * 100_000,
        "a header of 100 kB of <": b"From: " + b"<" * 100_000 + b"\r\n" + head,
        "a 500 kB line": head + b"x" * 500_000,
        "100 kB of spaces": head + b" " * 100_000 + b"550 5.1.1 User unknown",
        "50,000 lines 'On ... wrote:'": head + b"On Monday somebody wrote:\r\n> words\r\n" * 25_000,
        "50,000 addresses in a text": head
        + b"".join(b"someone %d <r%d@a.test> wrote\r\n" % (n, n) for n in range(50_000)),
        "50,000 headed addresses": head + b"".join(b"<r%d@a.test>: 550 no\r\n" % n for n in range(50_000)),
        "100,000 lines 'Final-Recipient'": report.replace(
            marker, b"".join(b"Final-Recipient: rfc822; r%d@a.test\r\n" % n for n in range(100_000))
        ),
        "dialogues quoted 2,000 deep": head
        + b"".join(b">" * n + b" RCPT TO:<x@a.test>\r\n" + b">" * n + b" 550 no\r\n" for n in range(2_000)),
        "10 MB of HTML tables": head.replace(b"\r\n\r\n", b"\r\nContent-Type: text/html\r\n\r\n")
        + b"<table><tr><td><table><tr><td>x@a.test</td><td>550 no</td>" * 170_000,
        "100 kB of 'To: '": head + b"To: " * 25_000,
        "50,000 reply codes": head + b"550-5.1.1 no " * 50_000,
    }


def speed(messages: list[bytes]) -> Iterator[str]:
    """The table of what a message costs, here and with the peers."""
    from flufl.bounce import scan_message  # of the extra `bench`: the accuracy page is tested without it

    ours = cpu_us(mailback.classify, messages)
    first = cpu_us(mailback.classify, messages, Knowledge.load().failures.forget)
    parsing = cpu_us(lambda raw: email.message_from_bytes(raw, policy=email.policy.compat32), messages)
    flufl = cpu_us(lambda raw: scan_message(email.message_from_bytes(raw, policy=email.policy.compat32)), messages)

    yield "| what | CPU a message, µs | against Mailback | goal |"
    yield "|---|---:|---:|---|"
    yield f"| Mailback, bytes to verdict | {ours:.0f} | 1.00 | at most 150 µs |"
    yield f"| the same, every diagnostic for the first time | {first:.0f} | {first / ours:.2f} | |"
    yield f"| `email` compat32, parsing alone | {parsing:.0f} | {parsing / ours:.2f} | |"
    yield f"| flufl.bounce with its parse | {flufl:.0f} | {flufl / ours:.2f} | at least 2.5 |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    messages = [p.read_bytes() for p in sorted(folder.glob("**/*.eml"))] if folder else own_messages()
    where = "messages of the folder given" if folder else "messages of our own writing"

    print(f"## Classification: {len(messages)} {where}\n")
    print("\n".join(speed(messages)))
    print("\n| hostile input | seconds | goal |")
    print("|---|---:|---|")
    for name, raw in hostile().items():
        start = time.process_time()
        mailback.classify(raw)
        print(f"| {name} | {time.process_time() - start:.3f} | under 1 |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory of the whole run, all inputs held at once: {peak:.0f} MB.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
