"""What a recipient did with earlier mail, as a verdict takes it: asked of the store before a failure is judged.

It is a quarter of a tenth of a verdict at most, so a store that does not answer costs only that; and of a report about
many recipients only the first are asked for, because an event loop waits meanwhile.

Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mailback import address
from mailback.bounce.classify import Engagement
from mailback.reports.report import DeliveryFailure
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.store import Store, records

Known: TypeAlias = "Mapping[str, records.Engagement]"
"""What the store knows of recipients, by their keys."""
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

    def known(self, failures: Iterable[DeliveryFailure]) -> Known:
        """What is known of the recipients of many reports, asked at once. Never raises."""
        keys = {address.key(failure.mailed) for failure in failures}
        try:
            return self._store.engagements(keys) if keys else {}
        except StoreUnavailable:
            return {}

    def of(self, failure: DeliveryFailure, at: datetime, known: Known) -> Reader | None:
        """The recipient that a report speaks of, as it stood then; None where nothing is known, or could be asked."""
        found = known.get(address.key(failure.mailed))
        if found is None:
            return None
        recent = found.is_recent(at, self._recent_days)
        return Reader(Engagement(found.sent, found.opens, found.clicks, recent), found.to_dict())
