"""Days as an address tells them: numbers of which the higher digits are left out. Emits no log events."""

from __future__ import annotations

from datetime import date

EPOCH = date(1970, 1, 1).toordinal()
CLOCK_SKEW_DAYS = 1  # signed a moment ago by a host on which it is tomorrow already


def days_past(on: date, day: int, modulus: int) -> int:
    """How many days `day`, a day number less its higher digits, lies behind `on`; -1 is tomorrow."""
    today = on.toordinal() - EPOCH
    return (today - day + CLOCK_SKEW_DAYS) % modulus - CLOCK_SKEW_DAYS
