"""A process that reads `tests.support.facts` into a store and may be killed at any instant: python -m ... PATH N SEED.

Facts are handed over in batches, each with the place behind it, as `mailback ingest` does; started again, it goes on
there.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import deque
from concurrent.futures import Future
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter

from mailback.effects.scoring import Scoring
from mailback.engine import Engine
from mailback.observation import Observed
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Subscriber
from tests.support.facts import SETTINGS, addresses, facts

BATCH = 500
_UNDER_WAY = 2


def read(engine: Engine, store: Store, count: int, seed: int, end: datetime, order: int, batch: int = BATCH) -> float:
    """Read what is not read yet, in the order drawn from `order` (0: that of their time); seconds of processor time."""
    place = store.place("facts")
    done = int(place.position["done"]) if place else 0
    if not done:
        _subscribe(store, count, end)
    wanted = list(facts(count, seed, end))
    if order:
        random.Random(order).shuffle(wanted)
    else:
        wanted.sort(key=attrgetter("at"))
    gc.collect()
    gc.freeze()  # what reads a log holds a batch of it at a time; these are all made beforehand
    began = time.process_time()
    waiting: deque[Future[list[Observed]]] = deque()
    for at in range(done, count, batch):
        piece = wanted[at : at + batch]
        behind = at + len(piece)
        waiting.append(engine.observe(piece, lambda tx, to=behind: tx.put_place("facts", {"done": to})))  # type: ignore[misc]
        if len(waiting) > _UNDER_WAY:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    return time.process_time() - began


def _subscribe(store: Store, count: int, end: datetime) -> None:
    """Put a part of the addresses on a list; as often as it is asked for."""
    scoring = Scoring.of(Settings())
    people = [
        Subscriber(who, "", who, opt_in_at=end - timedelta(days=90)) for who in islice(addresses(count), 0, None, 3)
    ]
    for start in range(0, len(people), BATCH):
        some = people[start : start + BATCH]
        store.submit(
            lambda tx, some=some: [scoring.opted_in(tx, one, actor="test", reason="import") for one in some]  # type: ignore[misc]
        ).result()


def main() -> None:
    path, count, seed, end, order = sys.argv[1:]
    with Store.open(f"sqlite:///{path}") as store:
        store.upgrade()
        print("ready", flush=True)
        engine = Engine(Settings.loads(SETTINGS), store)
        read(engine, store, int(count), int(seed), datetime.fromisoformat(end), int(order), batch=50)


if __name__ == "__main__":
    main()
