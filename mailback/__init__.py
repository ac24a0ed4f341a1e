"""Mailback handles everything that comes back when you send mail.

As a library:

    import mailback
    print(mailback.classify(open("bounce.eml", "rb").read()).to_dict())
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailback.engine import Classification
    from mailback.envelope import Envelope

__version__ = "0.1.0"
__all__ = ["__version__", "classify"]


def classify(raw: bytes, envelope: Envelope | None = None, thread: Sequence[str] = ()) -> Classification:
    """Tell what a message is, and for a bounce whom it failed for and why; changes nothing, asks nobody.

    `raw` is the message as it stands on the wire or in a file, `thread` the texts of the earlier messages of its
    thread, oldest first. Never raises on any bytes: what is not mail has the kind `other`.
    """
    from mailback.engine import classify as _classify  # the engine loads the rules: only who asks pays for them

    return _classify(raw, envelope, thread)
