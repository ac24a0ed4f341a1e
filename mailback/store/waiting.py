"""How a coroutine waits for a commit."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

COMMIT_S = 120.0
"""How long a door waits for a commit; the store itself gives up much earlier."""


async def committed(future: Future[T], timeout_s: float = COMMIT_S) -> T:
    """What a unit of work returned, once it is durable. Raises TimeoutError, or what the store says.

    The future is never cancelled: a unit of work that the store has begun ends as the store says. asyncio's own bridge
    (wrap_future under wait_for) would cancel it, and costs three times as much.
    """
    if future.done():
        return future.result()
    loop, on_loop = asyncio.get_running_loop(), threading.get_ident()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def resolved(_: Future[T]) -> None:
        if threading.get_ident() == on_loop:
            wake()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(resolved)
    timer = loop.call_later(timeout_s, wake)
    try:
        await woken
    finally:
        timer.cancel()
    if not future.done():
        raise TimeoutError
    return future.result()
