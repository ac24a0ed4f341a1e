"""Batches of observations on their way to the engine: one under way while the next is read, each with its place.

A batch is one unit of work and durable as a whole. Should it fail for another reason than the store (a fault of ours in
one observation), its observations are handed in one by one, so that one costs only itself; the place goes on.

Emits no log events; `Feed.failed` counts what could not be recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from mailback.observation import Interaction, Observation, Observed
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.engine import Engine
    from mailback.store import Transaction

Fact = Observation | Interaction
Then = Callable[["Transaction"], None]


class Feed:
    """Hands batches to an engine and counts what became of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: tuple[Sequence[Fact], Then, Future[list[Observed]]] | None = None
        self.told: Counter[str] = Counter()
        """Outcomes by kind, opens and clicks."""
        self.new: Counter[str] = Counter()
        """Those of them that were not known yet."""
        self.not_ours = 0
        self.failed = 0
        self.notes: Counter[str] = Counter()
        """What the operator should hear: alerts, suppressions held back."""

    def send(self, observations: Sequence[Fact], then: Then) -> None:
        """Hand a batch over and return when the one before is durable. Raises StoreUnavailable for that one."""
        try:
            future = self._engine.observe(observations, then)
        except Exception:  # a fault in a reader; each by itself then
            self.finish()
            self._singly(observations, then)
            return
        before, self._under_way = self._under_way, (observations, then, future)
        if before is not None:
            self._settle(*before)

    def finish(self) -> None:
        """Return when everything handed over is durable. Raises StoreUnavailable."""
        before, self._under_way = self._under_way, None
        if before is not None:
            self._settle(*before)

    def _settle(self, observations: Sequence[Fact], then: Then, future: Future[list[Observed]]) -> None:
        try:
            answers = future.result()
        except StoreUnavailable:
            raise
        except Exception:
            self._singly(observations, then)
        else:
            self._count(observations, answers)

    def _singly(self, observations: Sequence[Fact], then: Then) -> None:
        for observation in observations:
            try:
                answers = self._engine.observe([observation]).result()
            except StoreUnavailable:
                raise
            except Exception:
                self.failed += 1
            else:
                self._count([observation], answers)
        self._engine.observe([], then).result()

    def _count(self, observations: Sequence[Fact], answers: Sequence[Observed]) -> None:
        for observation, answer in zip(observations, answers, strict=True):
            if isinstance(observation, Interaction):
                name = observation.what.value
            elif answer.event_id is None:
                self.not_ours += 1
                continue
            else:
                name = observation.kind.value
            self.told[name] += 1
            self.new[name] += answer.new
            if answer.notes:
                self.notes.update(answer.notes)
