"""The SQL of the hot path: written once in SQLAlchemy Core, compiled at import, run on the bare driver.

Compiling a Core statement costs a hundred times what running it does; the compiled text is the same for every row. Each
constant is a string whose parameters are positional, in the order given in its comment.
"""

from __future__ import annotations

from sqlalchemy import Dialect, bindparam, func, literal_column, select, update
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.sql.expression import ClauseElement

from mailback.store.schema import audit, event, suppression, suppression_change

_DIALECT: Dialect = sqlite_dialect()


def sql(statement: ClauseElement, *parameters: str) -> str:
    """`statement` as text with `?` parameters; `parameters` names them in the order the caller will give them.

    Naming them guards against a silent swap: the compiler decides the order, the caller must know it.
    """
    compiled = statement.compile(dialect=_DIALECT)
    order = tuple(getattr(compiled, "positiontup", None) or ())
    if order != parameters:
        raise AssertionError(f"parameters come as {order}, the caller gives {parameters}")
    return str(compiled)


_EVENT_COLUMNS = tuple(column.name for column in event.columns)
_NEVER_RAISED = ("id", "identity", "at")
RAISED_COLUMNS = tuple(name for name in _EVENT_COLUMNS if name not in _NEVER_RAISED)
_SUPPRESSION_COLUMNS = tuple(column.name for column in suppression.columns)
SET_COLUMNS = tuple(name for name in _SUPPRESSION_COLUMNS if not name.startswith("lifted_"))
_CHANGE_COLUMNS = tuple(column.name for column in suppression_change.columns if column.name != "id")
_AUDIT_COLUMNS = tuple(column.name for column in audit.columns)

# All columns of `event`. Affects no row when the identity is known.
INSERT_EVENT = sql(
    insert(event).values({n: bindparam(n) for n in _EVENT_COLUMNS}).on_conflict_do_nothing(index_elements=["identity"]),
    *_EVENT_COLUMNS,
)
# identity -> id, provenance
FIND_EVENT = sql(select(event.c.id, event.c.provenance).where(event.c.identity == bindparam("known")), "known")
# RAISED_COLUMNS, then the id. What the better report does not tell stays as it was.
RAISE_EVENT = sql(
    update(event)
    .values({n: func.coalesce(bindparam(n), event.c[n]) for n in RAISED_COLUMNS})
    .where(event.c.id == bindparam("known")),
    *RAISED_COLUMNS,
    "known",
)
# recipient_key, since, how many -> all columns of `event`, newest first
HISTORY = sql(
    select(event)
    .where(event.c.recipient_key == bindparam("who"), event.c.at >= bindparam("since"))
    .order_by(event.c.at.desc(), event.c.id.desc())
    .limit(bindparam("most"))
    .offset(literal_column("0")),  # SQLite's compiler always writes an OFFSET, by default as one more parameter
    "who",
    "since",
    "most",
)

# address_key, scope -> all columns of `suppression`
FIND_SUPPRESSION = sql(
    select(suppression).where(
        suppression.c.address_key == bindparam("who"), suppression.c.scope == bindparam("where_")
    ),
    "who",
    "where_",
)
# address_key -> all columns of `suppression`, every scope, active or not
SUPPRESSIONS_OF = sql(
    select(suppression).where(suppression.c.address_key == bindparam("who")).order_by(suppression.c.scope), "who"
)
# SET_COLUMNS; a row that was lifted is no longer
_upsert = insert(suppression).values({n: bindparam(n) for n in SET_COLUMNS})
PUT_SUPPRESSION = sql(
    _upsert.on_conflict_do_update(
        index_elements=["address_key", "scope"],
        set_={n: _upsert.excluded[n] for n in _SUPPRESSION_COLUMNS if n not in ("address_key", "scope")},
    ),
    *SET_COLUMNS,
)
# lifted_at, lifted_by, lifted_reason, address_key, scope
LIFT_SUPPRESSION = sql(
    update(suppression)
    .values({n: bindparam(n) for n in ("lifted_at", "lifted_by", "lifted_reason")})
    .where(suppression.c.address_key == bindparam("who"), suppression.c.scope == bindparam("where_")),
    "lifted_at",
    "lifted_by",
    "lifted_reason",
    "who",
    "where_",
)
# all columns of `suppression_change` but the id
INSERT_CHANGE = sql(insert(suppression_change).values({n: bindparam(n) for n in _CHANGE_COLUMNS}), *_CHANGE_COLUMNS)
# address_key -> all columns of `suppression_change` but the id, oldest first
CHANGES_OF = sql(
    select(*(suppression_change.c[n] for n in _CHANGE_COLUMNS))
    .where(suppression_change.c.address_key == bindparam("who"))
    .order_by(suppression_change.c.id),
    "who",
)

# -> sequence, hash of the last row
AUDIT_TAIL = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1"
# all columns of `audit`
INSERT_AUDIT = sql(insert(audit).values({n: bindparam(n) for n in _AUDIT_COLUMNS}), *_AUDIT_COLUMNS)
