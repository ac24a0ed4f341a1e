"""Refusals of our own that come back: they say nothing of the recipient, nor of the server that takes his mail.

What the fronts answer (`mailback.outbound.check`; a test holds these words to its) ends up in Postfix's log and in the
bounces of whoever wanted to send: Postfix for mail from sendmail(1) or out of its queue, another relay of ours. Such a
bounce quotes the cause of the hold, and would be read as that cause once more: a hold would make itself longer, a
breaker would keep itself open.
"""

from __future__ import annotations

import re

_WORDS = re.compile(
    r"suppressed since \d{4}-\d\d-\d\d.{0,400}?\(mailback explain "
    r"|held until .{1,400}?\(mailback (?:explain|breaker) ",
    re.DOTALL,
)


def refused(diagnostic: str) -> bool:
    """Whether a diagnostic, white space collapsed, has the words by which we refuse or put off a recipient."""
    return "(mailback " in diagnostic and _WORDS.search(diagnostic) is not None
