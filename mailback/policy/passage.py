"""The message that was let through alone, and who asks about it again. Pure, no clock.

Postfix asks about one recipient several times: at RCPT, by whichever fronts are set up, and when the queue manager
looks for the way; all answers must agree, or the message that tries would be stopped half-way. Milter and policy
service can tell messages from each other; the table of transports cannot, it is asked for an address alone.

A message is known by tokens: the front's name, a colon, and what the front tells it by.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

SOON: Final = timedelta(seconds=10)
"""Within which another front is taken to ask about the message that has just passed."""
_QUEUE: Final = "queue"
_QUESTIONS: Final = {_QUEUE: 4}
"""How often a front asks about one message that it cannot tell from others. The table of transports: for smtpd(8) and
for the queue manager, and for both again where a content filter gives the message back."""


def nameless(*, queued: bool) -> str:
    """The token of a question that does not tell which message it is about; `queued`: of the table of transports."""
    return f"{_QUEUE if queued else 'once'}:{time.monotonic_ns()}"


def again(passed: str, token: str, since: timedelta) -> str | None:
    """The tokens of the message that passed, where `token` asks about it again, so long after it passed; None where it
    asks about another one."""
    known = passed.split()
    if token in known:
        return passed
    front = token.partition(":")[0]
    asked = sum(one.partition(":")[0] == front for one in known)
    if front and since <= SOON and asked < _QUESTIONS.get(front, 1):
        return f"{passed} {token}".lstrip()
    return None
