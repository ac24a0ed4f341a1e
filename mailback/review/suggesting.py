"""Suggestions for replies that were read with little confidence, as a part of the service: off unless `llm.url` is set.

It takes what waits in the review, never what is still in an SMTP conversation: by then the message is recorded, tagged
and answered. What comes back is kept as a suggestion with its own source and shown to the person who decides
(`mailback review show`). It changes no event, clears no flag, lifts no verdict and suppresses nobody.

Never asked about: what is not safe, what may speak to a machine (flag `injection_risk`), what is sure enough.

Questions are rationed: `llm.per_minute`, `llm.per_day`; after failures in a row the endpoint is left alone for a while,
longer each time. All of it stands in the store, so that a restart neither forgets a question nor a budget.

Log events, and what to do about each:
`suggestion.made`         the endpoint said what a reply means (`event_id`, `intent`). Nothing.
`suggestion.refused`      its answer was none that may be given (`problem`). Once: nothing. Always: the model does not
                          keep to a schema; name another in `llm.model`.
`suggestion.failed`       it could not be asked (`problem`, `in_a_row`). Look at `llm.url`, the key and the endpoint.
`suggestion.paused`       after failures in a row it is left alone for `rest_s`. The same.
`suggestion.spent`        the day's budget is used up; it goes on at midnight UTC. Raise `llm.per_day` if that is
                          too early.
`suggestion.unavailable`, `suggestion.available`   the store cannot be used (`reason`, `advice`), and can again.
`suggestion.broken`       something unforeseen; its traceback follows, the next look tries again. Report it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mailback.review.endpoint import Endpoint, EndpointError, RefusedError
from mailback.service.log import get_logger
from mailback.service.periodic import PeriodicPart, look_until_stopped
from mailback.store.errors import StoreUnavailable
from mailback.store.suggestions import Turn

if TYPE_CHECKING:
    from mailback.settings import LlmSettings, Settings
    from mailback.store import Store, Transaction
    from mailback.store.records import Suggestion

FAILURES: Final = 3
"""Failures in a row after which the endpoint is left alone."""
REST_S: Final = 60.0
LONGEST_REST_S: Final = 3600.0
_UNTOLD: Final = frozenset({"injection_risk"})
"""Flags of replies that nobody outside is asked about."""

_log = get_logger("suggestions")


class SuggestPart(PeriodicPart):
    """One worker that asks the endpoint, one question a look."""

    name = "suggest"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, ready: Callable[[], None]) -> int:
        settings = self._settings
        with closing(Endpoint.of(settings.llm)) as endpoint:
            return look_until_stopped(settings.store, ready, Asking(endpoint, settings.llm).look)


class Asking:
    """What one look does, and what it says."""

    def __init__(self, endpoint: Endpoint, llm: LlmSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint
        self._llm = llm
        self._clock = clock
        self._failures = 0
        self._rests_until = float("-inf")
        self._rest_s = REST_S
        self._down = False
        self._spent_on: object = None

    def look(self, store: Store, now: datetime) -> bool:
        """Ask one question, if it is somebody's turn; whether another may follow at once. Never raises."""
        if self._clock() < self._rests_until:
            return False
        try:
            went_on = self._one(store, now)
        except StoreUnavailable as trouble:
            if not self._down:
                _log.error("suggestion.unavailable", reason=trouble.reason, advice=trouble.advice)
            self._down = True
            return False
        except Exception:
            _log.exception("suggestion.broken")
            return False
        if self._down:
            _log.info("suggestion.available")
        self._down = False
        return went_on

    def _one(self, store: Store, now: datetime) -> bool:
        asked = store.submit(lambda transaction: self._claimed(transaction, now)).result()
        if isinstance(asked, Turn):
            if asked is Turn.BUDGET and self._spent_on != now.date():
                self._spent_on = now.date()
                _log.warning("suggestion.spent", per_day=self._llm.per_day)
            return False
        event = store.event(asked.event_id)
        item = store.review_of(asked.event_id)
        flags = (event.reply or {}).get("flags") if event is not None else None
        if event is None or item is None or not item.text or (isinstance(flags, list) and _UNTOLD & set(flags)):
            store.submit(lambda transaction: transaction.withhold_suggestion(asked.event_id)).result()
            return True
        said = self._said(asked, event.subject or "", item.text)
        store.submit(lambda transaction: transaction.suggest(said)).result()
        return self._clock() >= self._rests_until

    def _claimed(self, transaction: Transaction, now: datetime) -> Suggestion | Turn:
        llm = self._llm
        return transaction.claim_suggestion(
            self._endpoint.source, below=llm.below, per_minute=llm.per_minute, per_day=llm.per_day, now=now
        )

    def _said(self, asked: Suggestion, subject: str, text: str) -> Suggestion:
        """What comes of one question."""
        try:
            answer = self._endpoint.ask(subject, text)
        except RefusedError as error:
            self._failures = 0
            _log.warning("suggestion.refused", event_id=asked.event_id, problem=str(error))
            return replace(asked, state="refused", because=str(error))
        except EndpointError as error:
            self._failed(str(error))
            return replace(asked, state="failed", because=str(error))
        self._failures, self._rest_s = 0, REST_S
        _log.info("suggestion.made", event_id=asked.event_id, intent=answer.intent.value)
        return replace(
            asked, state="told", intent=answer.intent.value, confidence=answer.confidence, because=answer.because
        )

    def _failed(self, problem: str) -> None:
        self._failures += 1
        _log.warning("suggestion.failed", problem=problem, in_a_row=self._failures)
        if self._failures >= FAILURES:
            self._rests_until = self._clock() + self._rest_s
            _log.error("suggestion.paused", rest_s=self._rest_s)
            self._rest_s = min(LONGEST_REST_S, 2 * self._rest_s)
