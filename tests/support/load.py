"""Many sessions at once that keep bringing bounces while the server under them is killed."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod

from tests.support.server import RunningMailback, kill_quietly, wait_for

SENDERS = 4
WORKER_KILLS = 3
"""In each round, before the whole service is killed; the supervisor's back-off grows with each death in a row."""


class Load(ABC):
    """Sessions that bring bounces, each about an address of its own, and remember which were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(1_000_000))
        self._threads = [threading.Thread(target=self._bring_all, daemon=True) for _ in range(SENDERS)]

    @abstractmethod
    def session(self) -> None:
        """Connect, and call `bring_next` while `goes_on`; any of `broken` may end it."""

    @abstractmethod
    def broken(self) -> tuple[type[Exception], ...]:
        """What a killed server makes of a session."""

    @property
    def goes_on(self) -> bool:
        return not self._stop.is_set()

    def next_address(self) -> tuple[str, int]:
        """An address that no bounce was about yet, and its number."""
        with self._lock:
            number = next(self._numbers)
        return f"gone-{number}@receiver.test", number

    def acknowledge(self, address: str) -> None:
        """The server took the bounce about this address."""
        with self._lock:
            self.acknowledged.append(address)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_until_it_flows(self) -> None:
        """Bounces are taken again, whatever was killed before."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + SENDERS, 60, "mail flows again")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _bring_all(self) -> None:
        while self.goes_on:
            try:
                self.session()
            except self.broken():
                time.sleep(0.02)  # killed under our hands: nothing was promised


def kill_in_rounds(server: RunningMailback, load: Load, rounds: int, seed: int) -> None:
    """Kill workers, then everything, at random moments, and see mail flow again each time; then stop both."""
    dice = random.Random(seed)
    server.start()
    load.start()
    try:
        for _ in range(rounds):
            for _ in range(WORKER_KILLS):
                load.wait_until_it_flows()
                time.sleep(dice.uniform(0.0, 0.15))
                kill_quietly(dice.choice(server.workers()))
            load.wait_until_it_flows()
            time.sleep(dice.uniform(0.0, 0.15))
            server.kill_everything()
            server.start()
        load.wait_until_it_flows()
        load.stop()
    finally:
        server.stop()
