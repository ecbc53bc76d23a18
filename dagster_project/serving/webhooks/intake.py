"""Write the rows of webhooks into `raw`, through the same loading contract as `heed load`, before they are answered.

Belongs here: collecting what arrives while a load runs, and loading it in one go.
Does not belong here: what a row is (`rows.py`), loading (`loading/`).

Most of what a load costs does not depend on its number of rows. So there is one writer; whatever arrives while it
works goes into its next load together, and each request waits for the commit of its own. A process that is killed has
answered nothing that is not committed. Rows that are there already are recognised, so a sender may repeat anything.
"""

from __future__ import annotations

import json
import queue
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.serving.problem import Problem
from dagster_project.serving.webhooks.rows import Rows

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

# Rows in one load: enough for thousands of webhooks a second, few enough to answer within a second.
MOST_ROWS = 2_000
# Requests that wait. More means that the warehouse is slower than the senders: they are asked to come back.
MOST_WAITING = 2_000
WAIT_SECONDS = 30.0


class Intake:
    """The one writer of a service."""

    def __init__(self, connect: Callable[[], Connection], time_zone: str) -> None:
        self._connect, self._time_zone = connect, time_zone
        self._queue: queue.Queue[tuple[Rows, Future[None]]] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None

    def write(self, rows: Rows) -> Future[None]:
        """Write rows; the result is there once they are committed.

        Raises
        ------
        Problem
            503: too many webhooks wait already, or, in the result, the warehouse did not take them.
        """
        done: Future[None] = Future()
        if not rows.alerts and not rows.actions:
            done.set_result(None)
            return done
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._work, name="webhooks", daemon=True)
                self._writer.start()
        try:
            self._queue.put_nowait((rows, done))
        except queue.Full as error:
            raise Problem(503, "more webhooks wait than can be written", "send it again in a minute") from error
        return done

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            number = 0
            while number < MOST_ROWS:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
                number += len(batch[-1][0].alerts) + len(batch[-1][0].actions)
            self._load(batch)

    def _load(self, batch: list[tuple[Rows, Future[None]]]) -> None:
        try:
            self._load_rows([rows for rows, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one webhook must not take the others with it
                for one in batch:
                    self._load([one])
                return
            cause = error.cause if isinstance(error, HeedError) else type(error).__name__
            remedy = error.remedy if isinstance(error, HeedError) else "send it again; `heed doctor` tells more"
            batch[0][1].set_exception(Problem(503, f"the webhook was not written: {cause}", remedy))
            return
        for _, done in batch:
            done.set_result(None)

    def _load_rows(self, batch: list[Rows]) -> None:
        from dagster_project.loading import Kind, load_file

        kinds: tuple[tuple[Kind, list[dict[str, Any]]], ...] = (
            ("alerts", [row for rows in batch for row in rows.alerts]),
            ("actions", [row for rows in batch for row in rows.actions]),
        )
        with tempfile.TemporaryDirectory(prefix="heed-webhooks-") as folder:
            for kind, rows in kinds:
                if not rows:
                    continue
                file = Path(folder) / f"webhooks-{kind}.jsonl"
                # A load keeps each line of its file. A webhook that came twice meanwhile is one line.
                lines = dict.fromkeys(json.dumps(row, sort_keys=True) for row in rows)
                file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
                load_file(kind, file, self._connect, time_zone=self._time_zone)
