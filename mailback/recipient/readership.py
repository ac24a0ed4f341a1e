"""What a recipient did with earlier mail, as a verdict takes it: asked of the store before a failure is judged.

It is a quarter of a tenth of a verdict at most, so a store that does not answer costs only that; and of a report about
many recipients only the first are asked for, because an event loop waits meanwhile.

Emits no log events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mailback import address
from mailback.bounce.classify import Engagement
from mailback.reports.report import DeliveryFailure
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.store import Store

ASKED = 100
"""Recipients of one report that are asked for."""


class Reader(NamedTuple):
    """One recipient."""

    engagement: Engagement
    """For the classifier."""
    kept: Mapping[str, object]
    """For the event: how it stood at that time."""


class Readership:
    """The store's table `engagement`, and what counts as recent."""

    def __init__(self, store: Store, recent_days: int) -> None:
        self._store = store
        self._recent_days = recent_days

    def of(self, failure: DeliveryFailure, at: datetime) -> Reader | None:
        """The recipient that a report speaks of; None where nothing is known, or could be asked. Never raises."""
        try:
            found = self._store.engagement(address.key(failure.mailed))
        except StoreUnavailable:
            return None
        if found is None:
            return None
        recent = found.is_recent(at, self._recent_days)
        return Reader(Engagement(found.sent, found.opens, found.clicks, recent), found.to_dict())
