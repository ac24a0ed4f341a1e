"""Which of two reasons to suppress an address stands. Pure; the store calls it before every change.

A person's own word (complaint, unsubscribe) outranks anything a machine reports; between equals the one that lasts
longer stands, and of two that last equally long the one that began first; and whatever happens, the end never moves
nearer: a temporary block does not shorten a permanent one, and a bounce does not take a complaint's place.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mailback.bounce.taxonomy import Type
from mailback.store.records import Suppression


def is_own_word(suppression: Suppression) -> bool:
    """Whether the recipient asked for it (complaint or unsubscribe), which no bounce may overwrite."""
    return suppression.type == Type.COMPLAINT


def lasting(suppression: Suppression) -> Suppression:
    """The same without a date where the recipient asked for it: only the recipient ends that, by opting in anew."""
    return replace(suppression, until=None) if is_own_word(suppression) else suppression


def combine(standing: Suppression, new: Suppression) -> tuple[Suppression, str] | None:
    """What stands when `new` meets a `standing` active suppression, and the verb for the history; None: no change."""
    until = later(standing.until, new.until)
    if _outranks(new, standing):
        return replace(new, until=until, suggestion=new.suggestion or standing.suggestion), "replaced"
    suggestion = standing.suggestion or new.suggestion
    if until == standing.until and suggestion == standing.suggestion:
        return None
    return replace(standing, until=until, suggestion=suggestion), "extended"


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two ends, where None is for ever."""
    return None if one is None or other is None else max(one, other)


def _outranks(new: Suppression, standing: Suppression) -> bool:
    if is_own_word(new) != is_own_word(standing):
        return is_own_word(new)
    if new.until == standing.until:
        return new.since < standing.since
    return standing.until is not None and (new.until is None or new.until > standing.until)
