"""Parts of the service that look at the store again and again, and listen nowhere.

Emits no log events: what a look finds, and that the store cannot be used, is for the look to tell.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mailback.settings import StoreSettings
    from mailback.store import Store

EVERY_S: Final = 5.0
"""Seconds between two looks; the shortest deadline that ships is five minutes."""


class PeriodicPart:
    """One worker without a socket; `run` calls `look_until_stopped`. See `mailback.service.supervisor.Part`."""

    workers = 1

    def open(self) -> None:
        """Nothing to open: it listens nowhere."""

    def close(self) -> None:
        """Nothing was opened."""


def look_until_stopped(
    chosen: StoreSettings, ready: Callable[[], None], look: Callable[[Store, datetime], bool | None]
) -> int:
    """Look at the store every `EVERY_S` seconds until SIGTERM, which is taken between two looks and never within one.

    `look` must not raise; where it gives back true, the next look follows at once. The process must not have started
    threads yet. Returns the exit code.
    """
    from mailback.store import Store

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # threads that the store starts inherit the mask
    with Store.open(chosen.url, busy_timeout_s=chosen.busy_timeout_s) as store:
        ready()
        while True:
            went_on = look(store, datetime.now(UTC))
            if signal.sigtimedwait([signal.SIGTERM], 0 if went_on else EVERY_S) is not None:
                return 0
