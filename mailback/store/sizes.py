"""How much room each table takes, its indexes included, and what a row of it costs."""

from __future__ import annotations

from dataclasses import dataclass

from mailback.store.errors import StoreUnavailable
from mailback.store.journal import Fetch

# Pages are counted and multiplied here: dbstat's own sum of octets has 32 bits, too few for a table of some gigabytes.
_PAGES = (
    "SELECT coalesce(m.tbl_name, s.name), page_size * sum(CASE WHEN m.type = 'index' THEN 0 ELSE s.pageno END),"
    " page_size * sum(CASE WHEN m.type = 'index' THEN s.pageno ELSE 0 END)"
    " FROM pragma_page_size, dbstat AS s LEFT JOIN sqlite_master AS m ON m.name = s.name WHERE s.aggregate = TRUE"
    " GROUP BY 1"
)


@dataclass(frozen=True, slots=True)
class TableSize:
    """One table in octets, as whole pages of the file."""

    name: str
    rows: int
    octets: int
    index_octets: int

    @property
    def octets_a_row(self) -> float | None:
        """Indexes included; None for an empty table."""
        return (self.octets + self.index_octets) / self.rows if self.rows else None


def sizes(fetch: Fetch) -> list[TableSize]:
    """Every table, the largest first. Reads the whole file. Raises StoreUnavailable."""
    try:
        pages = fetch(_PAGES, ())
    except StoreUnavailable as trouble:
        if "dbstat" in str(trouble):
            raise StoreUnavailable(
                "this SQLite was built without dbstat", "use Python with the SQLite of a Linux distribution"
            ) from trouble
        raise
    tables = {row[0] for row in fetch("SELECT name FROM sqlite_master WHERE type = 'table'", ())}
    found = [
        TableSize(name, fetch(f'SELECT count(*) FROM "{name}"', ())[0][0], octets, index_octets)
        for name, octets, index_octets in pages
        if name in tables
    ]
    return sorted(found, key=lambda table: -(table.octets + table.index_octets))
