"""A property worked out once: `functools.cached_property` without its lock, which costs more than most of the work.

Emits no log events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Once(Generic[S, T]):
    """Decorates a method of a class whose instances have a `__dict__`; two threads may at worst both do the work."""

    def __init__(self, work: Callable[[S], T]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type[S], name: str) -> None:
        self._name = name

    def __get__(self, instance: S, owner: type[S]) -> T:
        value = instance.__dict__[self._name] = self._work(instance)
        return value
