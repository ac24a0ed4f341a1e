"""Dates as mail writes them (RFC 5322 section 3.3). Log events: none; nothing here raises on any text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_DATE = re.compile(
    r"(\d{1,2})\s+([A-Za-z]{3})[a-z]*\.?\s+(\d{4}|\d{2})\s+(\d{1,2}):(\d{2})(?::(\d{2}))?"
    r"(?:\s*([+-])(\d{2})(\d{2}))?"
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}


def date(value: str | None) -> datetime | None:
    """An RFC 5322 section 3.3 date in UTC; None when it is not one. A missing or unknown zone counts as UTC."""
    found = _DATE.search(value[:200]) if value else None
    if found is None:
        return None
    day, month_name, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    month = _MONTHS.get(month_name.lower())
    if month is None:
        return None
    full_year = int(year) + (0 if len(year) == 4 else 2000 if int(year) < 70 else 1900)
    try:
        at = datetime(full_year, month, int(day), int(hour), int(minute), min(int(second or 0), 59), tzinfo=UTC)
        if sign is None:
            return at
        offset = _offset(zone_hours, zone_minutes)
        return at - offset if sign == "+" else at + offset
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _offset(hours: str, minutes: str) -> timedelta:
    return timedelta(hours=int(hours), minutes=int(minutes))
