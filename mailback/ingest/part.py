"""The follower of Postfix's log as a part of the service: one worker, no socket.

When the store cannot commit, nothing is lost: the log is still there. The follower then begins anew at the places that
the store remembers, as after a restart.

Log events, and what to do about each:
`follow.started`       the logs are followed. Nothing.
`follow.note`          what an outcome asks of the operator (`note`): something on our own side has to be mended, or
                       suppressions were held back.
`follow.failed_to_record`   `count` outcomes could not be recorded for a fault in Mailback. Report it.
`follow.store_unavailable`     nothing can be recorded (`reason`); it is tried again. `advice` says what to do.
`follow.store_recovered`       it works again. Nothing.
`follow.stopped`       SIGTERM was taken. Nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mailback.service.log import get_logger
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.engine import Engine, Knowledge
    from mailback.ingest.feed import Feed
    from mailback.ingest.follow import FileFollower, JournalFollower
    from mailback.settings import Settings
    from mailback.store import Store

POLL_S: Final = 0.5
"""How often a log that is quiet is looked at."""
RETRY_S: Final = 5.0
"""How long to wait before a store that could not commit is tried again."""

_log = get_logger("follow")


class FollowPart:
    """The follower; see `mailback.service.supervisor.Part`."""

    name = "follow"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._knowledge: Knowledge | None = None
        self._unavailable = False

    def open(self) -> None:
        """Compile the rules. Raises RulesError."""
        from mailback.engine import Knowledge

        self._knowledge = Knowledge.load(self._settings)

    def close(self) -> None:
        pass

    def run(self, ready: Callable[[], None]) -> int:
        """Follow until SIGTERM."""
        from mailback.engine import Engine
        from mailback.store import Store

        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        store = Store.open(self._settings.store.url, busy_timeout_s=self._settings.store.busy_timeout_s)
        try:
            store.upgrade()
            engine = Engine(self._settings, store, self._knowledge)
            _log.info("follow.started")
            ready()
            while not stop.is_set():
                try:
                    follow(self._settings, store, engine, stop, self._committed)
                except StoreUnavailable as error:
                    self._failed(error)
                    stop.wait(RETRY_S)
        finally:
            store.close()
        _log.info("follow.stopped")
        return 0

    def _failed(self, error: StoreUnavailable) -> None:
        if not self._unavailable:
            _log.error("follow.store_unavailable", reason=error.reason, advice=error.advice)
        self._unavailable = True

    def _committed(self) -> None:
        if self._unavailable:
            _log.info("follow.store_recovered")
        self._unavailable = False


def follow(
    settings: Settings, store: Store, engine: Engine, stop: threading.Event, committed: Callable[[], None]
) -> None:
    """Follow all logs of the settings until `stop`; `committed` is called once, after the first commit.

    Raises StoreUnavailable; whoever calls again goes on where the store's places are.
    """
    from mailback.ingest import rules_of, zone_of
    from mailback.ingest.feed import Feed
    from mailback.ingest.follow import FileFollower, JournalFollower
    from mailback.ingest.log_import import LogReader
    from mailback.ingest.postfix_log import DeliveryLog

    feed = Feed(engine)
    reader = LogReader(store, feed, DeliveryLog(rules_of(settings)))
    chosen = settings.follow
    followers: list[FileFollower | JournalFollower] = [
        FileFollower(path, store, reader, zone_of(settings)) for path in chosen.files
    ]
    if chosen.journal:
        followers.append(JournalFollower(chosen.journal_matches, store, reader))
    first = True
    try:
        while not stop.is_set():
            busy = sum(follower.poll() for follower in followers) > 0
            feed.finish()
            _tell(feed)
            if first:
                first = False
                committed()
            if not busy:
                stop.wait(POLL_S)
    finally:
        for follower in followers:
            follower.close()


def _tell(feed: Feed) -> None:
    for note, count in feed.notes.items():
        _log.warning("follow.note", note=note, count=count)
    feed.notes.clear()
    if feed.failed:
        _log.error("follow.failed_to_record", count=feed.failed)
        feed.failed = 0
