"""One message to see whether an address takes mail again: what passes once a hold has run out. Pure, no clock.

After a hold that bounces made, one message is let through; the others wait for what becomes of it. If anything shows
that the mailbox lives (a delivery, an open, a click, a reply), all is normal and nobody asks any more. If it bounces,
the score says what follows; where no new hold does, the next message is the next probe. Where nothing is heard within
`wait`, the next message tries, and after `QUIET` of those the silence is taken for an answer: nobody tells deliveries.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from mailback.policy.passage import again
from mailback.store.records import Probe

QUIET: Final = 3
"""Messages of which nothing comes back, each a wait apart, that end it where nobody tells deliveries."""


def claimed(probe: Probe | None, told: Probe, *, bounced: bool, wait: timedelta) -> Probe | None:
    """The probe once a message has passed; None where it has to wait.

    `told` is what the message would be: the hold it comes after, when, and who asks about it (`token`, as
    `mailback.policy.passage` has it; empty where somebody only wants to know). `bounced`: something bounced since
    `probe` passed. The same object comes back where the message has passed before.
    """
    if probe is None or probe.hold_until != told.hold_until:
        return replace(told, tries=1)
    if (tokens := again(probe.token, told.token, told.at - probe.at)) is not None:
        return probe if tokens == probe.token else replace(probe, token=tokens)
    if bounced:
        return replace(told, tries=1)
    if told.at < probe.at + wait:
        return None
    return probe if probe.tries >= QUIET else replace(told, tries=probe.tries + 1)
