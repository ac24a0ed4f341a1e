"""Raw bytes of a reply to its reading, one core, one process: Mailback beside a parse by `email`.

    python bench/replies.py

Prints the median CPU time a reply, model included, the share of the model, the time of `email`'s own parse for scale,
and how the time grows with hostile sizes.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import statistics
import sys
import time
from collections.abc import Callable

import mailback
from mailback.learn import reply_samples
from mailback.reply import concepts, intent, model

ROUNDS = 5
REPLIES = 300

Mail = tuple[bytes, tuple[str, ...]]

_OURS = (
    "Hi Helen,\n\nI noticed your team still takes bookings by phone. "
    "Would you be interested in a short demo next week? "
    'I can walk you through pricing and the free trial.\n\nBest,\nMaya\n\nIf this is not relevant, reply "unsubscribe".'
)


def replies() -> list[Mail]:
    """Replies of the project's own writing, with what they answer quoted below."""
    samples = [sample for sample in reply_samples.read(reply_samples.seed_directory()) if sample.held_back]
    step = max(1, len(samples) // REPLIES)
    return [(_mail(sample.text), sample.thread or (_OURS,)) for sample in samples[::step]]


def _mail(text: str) -> bytes:
    quoted = "\n".join(f"> {line}" for line in _OURS.split("\n"))
    return (
        "From: Helen Prosser <helen@receiver.test>\r\nTo: Maya <maya@sender.test>\r\nSubject: Re: Quick question\r\n"
        "Date: Mon, 12 Jan 2026 08:00:00 +0000\r\nMessage-ID: <1@receiver.test>\r\nIn-Reply-To: <2@sender.test>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        f"{text}\n\nOn Sun, Jan 11, 2026 at 9:14 AM Maya <maya@sender.test> wrote:\n\n{quoted}\n"
    ).encode()


def hostile() -> dict[str, bytes]:
    """100 kB of what makes readers of replies slow."""
    return {
        "spaces": _mail(" " * 100_000),
        "lines 'On ... wrote:'": _mail("On Monday somebody wrote:\n" * 4_000),
        "quotes nested deeper and deeper": _mail("\n".join(">" * n + " words" for n in range(440))),
        "one line": _mail("x" * 100_000),
        "one line of words": _mail("please stop sending " * 5_000),
        "question marks": _mail("? " * 50_000),
        "dates": _mail("back on Monday 18th May " * 4_200),
        "Chinese without spaces": _mail("请不要再发邮件" * 14_000),
    }


def cpu_us(work: Callable[[Mail], object], mails: list[Mail]) -> float:
    """Median over the replies of the best of some rounds, in microseconds of CPU."""
    best = [float("inf")] * len(mails)
    for _ in range(ROUNDS):
        for at, mail in enumerate(mails):
            start = time.process_time_ns()
            work(mail)
            best[at] = min(best[at], (time.process_time_ns() - start) / 1000)
    return statistics.median(best)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    mails = replies()
    served = model.load_serving()
    assert served is not None, "the checkout has no model"
    phrases, known = intent.shipped(), concepts.shipped()

    def modelled(mail: Mail) -> object:
        text = mail[0].partition(b"\r\n\r\n")[2].partition(b"\n\nOn Sun")[0].decode()
        return served.read(model.features(text, mail[1], phrases, known))

    ours = cpu_us(lambda mail: mailback.classify(mail[0], thread=mail[1]), mails)
    parsing = cpu_us(lambda mail: email.message_from_bytes(mail[0], policy=email.policy.default).get_content(), mails)
    print(f"## Replies: {len(mails)} of our own writing, with the mail they answer\n")
    print("| what | median CPU a reply, µs | goal |")
    print("|---|---:|---|")
    print(f"| Mailback, bytes to reading | {ours:.0f} | at most 1000 µs |")
    print(f"| of it phrases, features and model | {cpu_us(modelled, mails):.0f} | |")
    print(f"| `email`, parsing and decoding alone | {parsing:.0f} | |")
    print("\n| hostile input, 100 kB of | seconds of CPU | goal |")
    print("|---|---:|---|")
    for name, raw in hostile().items():
        start = time.process_time()
        mailback.classify(raw, thread=(_OURS,))
        print(f"| {name} | {time.process_time() - start:.3f} | under 0.3 |")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
