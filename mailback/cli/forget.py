"""`mailback forget`: erase an address that asked for it, and never mail it again. Emits no log events."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import actor, address_key, config_option, open_store
from mailback.cli.out import safe, say


@click.command()
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail, so name nobody in it.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def forget(*, config: Path | None, reason: str, addresses: tuple[str, ...]) -> None:
    """Erase addresses: everything that is known about them is removed, and they are never mailed again.

    What is left of each is a keyed hash that suppresses it; only a new opt-in ends that. Events, journal, score, lists
    and history go, and the audit trail tells the hash in place of the address. The key is a file beside the database:
    back it up with it. Copies elsewhere (backups, logs, exports) are yours to erase.
    """
    from mailback.store.erasure import LOOKED_FOR_S, Erased, key_file, make_key

    if not reason.strip():
        raise CommandError("--reason is empty", "say why: the trail keeps it", exit_code=2)
    keys = [(address, address_key(address)) for address in addresses]
    by = actor()
    with open_store(config) as store:
        if store.key_is_lost():
            what = f"{key_file(store.path)} is gone, the key that addresses were erased with: they are mailed again"
            raise CommandError(what, "bring it back from a backup first; a new one would not know them")
        try:
            if make_key(store.path):
                time.sleep(LOOKED_FOR_S + 0.1)  # until every server knows that hashes have to be looked up
        except OSError as error:
            what = f"the key of erasures cannot be made beside {store.path} ({error.strerror})"
            raise CommandError(what, "run this as the user of the service, or as root") from error
        erased = Erased(store.path)
        for address, key in keys:
            hashed = erased.hashed(key)
            assert hashed is not None
            count = store.submit(
                lambda transaction, key=key, hashed=hashed: transaction.erase(  # type: ignore[misc]
                    key, hashed, actor=by, reason=reason.strip()
                ),
                large=True,
            ).result()
            say(f"{safe(address)}: {count} rows erased; it stays suppressed as {hashed}")
        store.fold()
