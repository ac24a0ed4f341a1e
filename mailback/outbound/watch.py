"""The watch: what the other parts of `serve` must not wait for. One process, on as soon as any other part is.

- It asks DNS for the MX records of domains that the others wished for, and of those that the journal shows mail going
  to, so that a recipient's provider is known before it is needed. `providers.look_up` switches that off.
- It looks at waves as well, and says in the log that one waits for a person.
- It looks at the breakers once a second, says in the log what became of them, whoever moved them, and writes down those
  that time has closed.

Log events, and what to do about each:
`watch.serving`     the watch runs (`dns`: whether it asks DNS). Nothing.
`watch.no_dns`      there is no DNS server to ask (`reason`): providers are told by reports and domains only. Name one
                    in /etc/resolv.conf, or set `providers.look_up = false`.
`watch.store_unavailable`   the store cannot be used (`reason`). Do what `advice` says; the watch goes on by itself.
`watch.store_back`  it can again. Nothing.
`breaker.opened`    a provider refuses our mail (`breaker`, `rule`, `reason`); it is held until `until`, where
                    `breakers.act` is on. Mend what the refusals complain of, then `mailback breaker close`.
`breaker.half_open`   the pause is over, single messages try. Nothing.
`breaker.closed`    mail flows again. Nothing.
`wave.opened`       more addresses of a provider fail at once than die (`wave`, `provider`, `cause`, `addresses`): new
                    permanent suppressions there wait. Ask whether it has trouble, then `mailback wave undo`; or
                    `mailback wave confirm` where the addresses are gone.
`wave.closed`       somebody has decided. Nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailback import address
from mailback.auth.domains import is_domain
from mailback.effects.breakers import keep
from mailback.policy import breaker as machine
from mailback.service.log import get_logger
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.auth.resolver import Resolver
    from mailback.bounce.providers import ProviderNames
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import Breaker, MailDomain
    from mailback.store.transaction import Transaction

TICK_S: Final = 0.5
LOOK_UPS: Final = 8
"""Domains that DNS is asked about at the same time."""
ROUND: Final = 64
"""And in one round, after which the breakers are looked at again."""
JOURNAL_ROWS: Final = 2000
"""Recipients of the journal that are looked at in one round."""

_log = get_logger("watch")


class WatchPart:
    """See `mailback.service.supervisor.Part`."""

    name = "watch"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names: ProviderNames | None = None

    def open(self) -> None:
        """Load the table of providers. Raises RulesError with every problem."""
        self._names = provider_names(self._settings)

    def close(self) -> None:
        """Nothing: it listens on nothing."""

    def run(self, ready: Callable[[], None]) -> int:
        from mailback.store import Store

        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        store_settings = self._settings.store
        assert self._names is not None
        with Store.open(store_settings.url, busy_timeout_s=store_settings.busy_timeout_s) as store:
            watch = Watch(store, self._names, self._resolver())
            _log.info("watch.serving", dns=watch.asks_dns)
            ready()
            while not stop.is_set():
                watch.look()
                stop.wait(0.0 if watch.busy else TICK_S)
            watch.close()
        return 0

    def _resolver(self) -> Resolver | None:
        if not self._settings.providers.look_up:
            return None
        try:
            return resolver_of(self._settings)
        except ValueError as error:
            _log.warning("watch.no_dns", reason=str(error))
            return None


def provider_names(settings: Settings) -> ProviderNames:
    """The table of providers, with the operator's own. Raises RulesError."""
    from mailback.bounce import rules
    from mailback.bounce.providers import ProviderNames
    from mailback.resources import rules_dir

    directory = settings.rules.directory
    return ProviderNames(rules.load([rules_dir(), *([Path(directory)] if directory is not None else [])]))


def resolver_of(settings: Settings) -> Resolver:
    """DNS as the settings name it. Raises ValueError where there is none."""
    from mailback.auth.resolver import Resolver

    dns = settings.auth
    return Resolver(dns.nameservers, timeout_s=dns.timeout_s, budget_s=dns.budget_s)


class Watch:
    """One look after the other at what waits; raises nothing."""

    def __init__(
        self,
        store: Store,
        names: ProviderNames,
        resolver: Resolver | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._names = names
        self._resolver = resolver
        self._clock = clock
        self._pool = ThreadPoolExecutor(LOOK_UPS, "mailback-dns") if resolver is not None else None
        self._seen: dict[str, str] = {}
        """State of each breaker as it was told last."""
        self._waves: set[int] = set()
        """The open ones that were told."""
        self._journalled: int | None = None
        self._asked: dict[str, float] = {}
        """Domains of the journal that were wished for, and when."""
        self._down = False
        self.busy = False
        """More waits than the last look could take."""

    @property
    def asks_dns(self) -> bool:
        return self._resolver is not None

    def look(self) -> None:
        """Look at everything once."""
        self.busy = False
        try:
            self._look_at_breakers()
            self._look_at_waves()
            if self._resolver is not None:
                self._read_journal()
                self._look_up(self._resolver)
        except StoreUnavailable as error:
            if not self._down:
                _log.error("watch.store_unavailable", reason=error.reason, advice=error.advice)
            self._down, self.busy = True, False
        else:
            if self._down:
                _log.info("watch.store_back")
            self._down = False

    def close(self) -> None:
        """Give up what has not been asked yet; what was asked ends within its budget."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    # -- breakers ---------------------------------------------------------------------------------------------

    def _look_at_breakers(self) -> None:
        now = self._clock()
        for written in self._store.breakers():
            breaker = machine.at(written, now)
            if breaker.state == machine.CLOSED != written.state:
                self._store.submit(partial(_settle, written=written, now=now)).result()
            before = self._seen.get(breaker.name, machine.CLOSED)
            if breaker.state != before:
                self._seen[breaker.name] = breaker.state
                _tell(breaker)

    # -- waves ------------------------------------------------------------------------------------------------

    def _look_at_waves(self) -> None:
        standing = {wave.id: wave for wave in self._store.waves(only_open=True)}
        for number in standing.keys() - self._waves:
            wave = standing[number]
            _log.warning(
                "wave.opened", wave=wave.id, provider=wave.provider, cause=wave.subcategory, addresses=wave.members,
                advice="mailback wave list",
            )  # fmt: skip
        for number in self._waves - standing.keys():
            _log.info("wave.closed", wave=number)
        self._waves = set(standing)

    # -- domains ----------------------------------------------------------------------------------------------

    def _read_journal(self) -> None:
        """Wish for the domains that mail goes to."""
        if self._journalled is None:
            self._journalled = self._store.last_journalled()
        rows = self._store.recipients_after(self._journalled, JOURNAL_ROWS)
        if not rows:
            return
        self._journalled = rows[-1][0]
        now = time.monotonic()
        if len(self._asked) > 100_000:
            self._asked.clear()
        names = {address.domain(key) for _, key in rows}
        new = [name for name in names if is_domain(name) and now - self._asked.get(name, -3600.0) >= 3600.0]
        self._asked.update(dict.fromkeys(new, now))
        if new:
            self._store.submit(lambda transaction: transaction.wish_domains(new)).result()
        self.busy = len(rows) == JOURNAL_ROWS

    def _look_up(self, resolver: Resolver) -> None:
        from mailback.recipient.mailhosts import look_up

        assert self._pool is not None
        wished = self._store.wished_domains(ROUND)
        if not wished:
            return
        found = list(self._pool.map(lambda name: look_up(resolver.lookups(), name), wished))
        self._store.submit(lambda transaction: self._put(transaction, found)).result()
        self.busy = self.busy or len(wished) == ROUND

    def _put(self, transaction: Transaction, found: Iterable[MailDomain]) -> None:
        for domain in found:
            transaction.put_domain(replace(domain, provider=self._names.of_mx(domain.hosts)))


def _settle(transaction: Transaction, *, written: Breaker, now: datetime) -> None:
    """Write a breaker as closed that time has closed, unless somebody moved it meanwhile."""
    latest = transaction.breaker(written.provider, written.side, written.sender)
    if latest is None:
        return
    after = machine.at(latest, now)
    if after.state == machine.CLOSED != latest.state:
        keep(transaction, after, "mailback")


def _tell(breaker: Breaker) -> None:
    if breaker.state == machine.OPEN:
        until = breaker.until.isoformat(timespec="seconds") if breaker.until else "closed by hand"
        _log.warning(
            "breaker.opened", breaker=breaker.name, rule=breaker.rule, reason=breaker.reason, until=until,
            pace_s=breaker.pace_s or None, trips=breaker.trips, advice="mailback breaker list",
        )  # fmt: skip
    elif breaker.state == machine.HALF_OPEN:
        _log.info("breaker.half_open", breaker=breaker.name, rule=breaker.rule)
    else:
        _log.info("breaker.closed", breaker=breaker.name, rule=breaker.rule)
