"""The SQL of the hot path: written once in SQLAlchemy Core, compiled at import, run on the bare driver.

Compiling a Core statement costs a hundred times what running it does; the compiled text is the same for every row. Each
constant is a string whose parameters are positional, in the order given in its comment.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Dialect, bindparam, delete, func, literal_column, select, update
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.sql.expression import ClauseElement

from mailback.store.schema import audit, event, journal, journal_recipient, suppression, suppression_change

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
# identity -> id, at, provenance, confidence, permanent, subcategory
FIND_EVENT = sql(
    select(
        event.c.id, event.c.at, event.c.provenance, event.c.confidence, event.c.permanent, event.c.subcategory
    ).where(event.c.identity == bindparam("known")),
    "known",
)
# RAISED_COLUMNS, then the id. What the better report does not tell stays as it was.
RAISE_EVENT = sql(
    update(event)
    .values({n: func.coalesce(bindparam(n), event.c[n]) for n in RAISED_COLUMNS})
    .where(event.c.id == bindparam("known")),
    *RAISED_COLUMNS,
    "known",
)
# id -> all columns of `event`
EVENT = sql(select(event).where(event.c.id == bindparam("known")), "known")
_VERDICT = (
    "kind", "recipient", "recipient_key", "domain", "type", "subcategory", "fault", "permanent", "confidence",
    "action", "evidence", "notes", "intent", "route", "due_at",
)  # fmt: skip
# _VERDICT, then the id
RECLASSIFY = sql(
    update(event).values({n: bindparam(n) for n in _VERDICT}).where(event.c.id == bindparam("known")),
    *_VERDICT,
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

_JOURNAL_COLUMNS = tuple(column.name for column in journal.columns if column.name != "id")
_RECIPIENT_COLUMNS = tuple(column.name for column in journal_recipient.columns)

# all columns of `journal` but the id
INSERT_JOURNAL = sql(insert(journal).values({n: bindparam(n) for n in _JOURNAL_COLUMNS}), *_JOURNAL_COLUMNS)
# all columns of `journal_recipient`. The same recipient twice in one transaction is one row.
INSERT_JOURNAL_RECIPIENT = sql(
    insert(journal_recipient).values({n: bindparam(n) for n in _RECIPIENT_COLUMNS}).on_conflict_do_nothing(),
    *_RECIPIENT_COLUMNS,
)
# recipient_key, message_id -> all columns of `journal`, the recipient; the earliest
JOURNAL_TO_RECIPIENT = sql(
    select(journal, journal_recipient.c.recipient)
    .join(journal, journal.c.id == journal_recipient.c.journal_id)
    # Begun at the recipient, who got hundreds of messages, and not at the Message-ID, which a mailing list gives to a
    # million: the trim changes nothing (an identifier has no blanks around it) and keeps that index out of the plan.
    .where(journal_recipient.c.recipient_key == bindparam("who"), func.trim(journal.c.message_id) == bindparam("m"))
    .order_by(journal_recipient.c.at)
    .limit(literal_column("1"))
    .offset(literal_column("0")),
    "who",
    "m",
)


def _journal_by(column: ColumnElement[str]) -> str:
    found = (
        select(journal)
        .where(column == bindparam("sought"))
        .order_by(journal.c.id.desc())
        .limit(bindparam("most"))
        .offset(literal_column("0"))
        .subquery("found")
    )
    return sql(
        select(found, journal_recipient.c.recipient)
        .outerjoin(journal_recipient, journal_recipient.c.journal_id == found.c.id)
        .order_by(found.c.id.desc()),
        "sought",
        "most",
    )


# sought, how many -> all columns of `journal`, a recipient: a row for each, the latest message first
JOURNAL_BY_MESSAGE_ID = _journal_by(journal.c.message_id)
JOURNAL_BY_RETURN_PATH = _journal_by(journal.c.return_path)
# recipient_key, since, until, how many -> the same with that recipient only
JOURNAL_BY_RECIPIENT = sql(
    select(journal, journal_recipient.c.recipient)
    .select_from(journal_recipient)
    .join(journal, journal.c.id == journal_recipient.c.journal_id)
    .where(
        journal_recipient.c.recipient_key == bindparam("who"),
        journal_recipient.c.at >= bindparam("since"),
        journal_recipient.c.at < bindparam("until"),
    )
    .order_by(journal_recipient.c.at.desc(), journal_recipient.c.journal_id.desc())
    .limit(bindparam("most"))
    .offset(literal_column("0")),
    "who",
    "since",
    "until",
    "most",
)
# before, how many -> ids, the oldest first
JOURNAL_BEFORE = sql(
    select(journal.c.id)
    .where(journal.c.at < bindparam("before"))
    .where((journal.c.source != literal_column("'unsubscribe'")) | (journal.c.at < bindparam("long_before")))
    .order_by(journal.c.at)
    .limit(bindparam("most"))
    .offset(literal_column("0")),
    "before",
    "long_before",
    "most",
)
# id
DELETE_JOURNAL_RECIPIENTS = sql(delete(journal_recipient).where(journal_recipient.c.journal_id == bindparam("n")), "n")
DELETE_JOURNAL = sql(delete(journal).where(journal.c.id == bindparam("n")), "n")

# -> sequence, hash of the last row
AUDIT_TAIL = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1"
# all columns of `audit`
INSERT_AUDIT = sql(insert(audit).values({n: bindparam(n) for n in _AUDIT_COLUMNS}), *_AUDIT_COLUMNS)
