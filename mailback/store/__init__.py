"""What is remembered: events, the suppression list with its history, and the audit trail.

Reading order: `records` (what a row is), `schema` (the tables), `database.Store` (the front), `writer` (group commit),
`transaction` (what one unit of work may do), `lookup` (the read behind every outgoing message).

`Store` pulls in SQLAlchemy and Alembic, half a second of imports; `SuppressionLookup` and `StoreUnavailable` need the
standard library only. So the names are resolved when first asked for, and `mailback check` starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailback.store.database import Store
    from mailback.store.errors import StoreUnavailable
    from mailback.store.ids import new_id
    from mailback.store.lookup import SuppressionLookup
    from mailback.store.transaction import Recorded, Transaction

__all__ = ["Recorded", "Store", "StoreUnavailable", "SuppressionLookup", "Transaction", "new_id"]

_HOME = {
    "Recorded": "transaction",
    "Store": "database",
    "StoreUnavailable": "errors",
    "SuppressionLookup": "lookup",
    "Transaction": "transaction",
    "new_id": "ids",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
