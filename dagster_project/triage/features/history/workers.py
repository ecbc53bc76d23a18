"""Threads for the history engine.

Belongs here: running tasks on ordinary threads, or on none.
Does not belong here: what the tasks compute (`engine.py`, `streams.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Below this many rows and events a second thread costs more than it saves (a pool starts in about 0.2 ms, and this
# much work takes about 2 ms).
WORTH_A_THREAD = 50_000

T = TypeVar("T")


class Workers:
    """Ordinary threads, or none at all: the loops release the GIL."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, "timeline") if threads > 1 else None
        self.unfinished: list[Future[object]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=error[0] is not None)
        for future in self.unfinished:
            if not future.cancelled():
                future.result()

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of `tasks`, in their order."""
        if self.pool is None:
            return [task() for task in tasks]
        return [future.result() for future in [self.pool.submit(task) for task in tasks]]

    def later(self, task: Callable[[], object]) -> None:
        """Run `task` at some time before the pool closes."""
        if self.pool is None:
            task()
        else:
            self.unfinished.append(self.pool.submit(task))


def available_threads() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
