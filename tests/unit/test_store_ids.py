"""Event ids must sort by time, keep their order within one report, and never repeat across a fork."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from mailback.store.ids import new_id


def test_ids_are_26_safe_characters_and_unique() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 26 and i.isalnum() and i.isupper() for i in ids)
    assert not set("".join(ids)) & set("ILOU")


def test_ids_sort_by_the_time_they_are_about() -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    later, earlier = new_id(then + timedelta(milliseconds=1)), new_id(then)
    assert earlier < later


def test_recipients_of_one_report_keep_their_order() -> None:
    now = datetime.now(UTC)
    ids = [new_id(now) for _ in range(1000)]
    assert ids == sorted(ids)


def test_forked_workers_make_different_ids() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    new_id(now)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, new_id(now).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 26).decode() != new_id(now)
    os.close(read)
    os.close(write)
