"""An existing Dask cluster that computes history features and trees if `[compute] dask` names it.

Belongs here: connecting, refusing a cluster that would give other results, sending parts and collecting results, and
LightGBM's Dask interface.
Does not belong here: what a part is (`triage/features/history/parts.py`), which trees are wanted
(`triage/learning/training.py`), starting a cluster.

Dask is an optional dependency (the extra `cluster`), imported only when a cluster is named.
"""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from dagster_project.triage.features.history import HistoryFeature
    from dagster_project.triage.features.history.parts import Part
    from dagster_project.triage.learning.boosting import Fit

SECONDS_TO_CONNECT = 10
# With fewer rows and events together, this machine computes features itself, in well under a second: connecting to the
# cluster and checking it takes as long.
WORTH_A_CLUSTER = 500_000
# Parts of a key per thread of the cluster: with one, all wait for the largest; with many, messages cost more.
PARTS_PER_THREAD = 2
# Packages that compute or transfer frames. For equal results they must be the same here and on every worker.
PACKAGES = ("dask", "distributed", "lightgbm", "numba", "numpy", "pandas")

# LightGBM's names and those of its scikit-learn interface, which would set its own defaults otherwise.
_PARAMETERS = {
    "min_data_in_leaf": "min_child_samples",
    "lambda_l2": "reg_lambda",
    "feature_fraction": "colsample_bytree",
    "seed": "random_state",
}


class Cluster:
    """The cluster at `address`, like "tcp://scheduler:8786"; if empty, this machine, and the object is false.

    Nothing is contacted before it is used. Each use connects again: a scheduler may be replaced between steps.
    """

    def __init__(self, address: str = "", worth: int = WORTH_A_CLUSTER) -> None:
        self.address = address
        self.worth = worth

    def __bool__(self) -> bool:
        return bool(self.address)

    def history_features(
        self, events: pd.DataFrame, at: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta
    ) -> pd.DataFrame:
        """`timeline.history_features`, computed by key partitions on the cluster: the same bytes."""
        from dagster_project.triage.features.history import history_features
        from dagster_project.triage.features.history.parts import in_parts

        if not self or len(events) + len(at) < self.worth:
            return history_features(events, at, features, lookback)
        with self._connected() as client:
            threads = sum(client.nthreads().values())
            return in_parts(
                events,
                at,
                features,
                lookback,
                lambda parts: _results(client, parts, 2 * threads),
                PARTS_PER_THREAD * threads,
                min(self.worth, 200_000) // 2,
            )

    def fit(self, asked: Fit) -> str:
        """Train trees with LightGBM on all workers together; returns their text. Parameters are those of a local fit.

        Bins and sums come from the rows of each worker, so the trees are not the same as on one machine, but as good.
        A cluster of one worker trains the same trees.
        """
        with self._connected() as client:
            import dask.array as da
            import lightgbm.dask

            workers = _workers(client)
            shares = min(len(workers), max(1, len(asked.acted)))

            def dealt(array: np.ndarray) -> Any:
                # Every n-th alert: a worker derives bins from its own rows, and a contiguous period would show it
                # one season only.
                pieces = [np.ascontiguousarray(array[i::shares]) for i in range(shares)]
                placed = [client.scatter(p, workers=[w]) for p, w in zip(pieces, workers, strict=False)]
                shapes = [p.shape for p in pieces]
                return da.concatenate(
                    [da.from_delayed(f, shape=s, dtype=array.dtype) for f, s in zip(placed, shapes, strict=True)]
                )

            # Not the classifier: each worker would encode the outcomes that it sees, and might see only one.
            model = lightgbm.dask.DaskLGBMRegressor(
                client=client,
                n_estimators=asked.trees,
                **{_PARAMETERS.get(name, name): value for name, value in asked.parameters.items()},
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Parameter n_jobs will be ignored")
                model.fit(
                    dealt(asked.matrix),
                    dealt(asked.acted.astype(np.float32)),
                    sample_weight=dealt(asked.weight.astype(np.float32)),
                    feature_name=list(asked.names),
                    categorical_feature=[asked.names[i] for i in asked.categorical],
                )
            return model.booster_.model_to_string()

    def check(self) -> str:
        """The cluster in a few words; `HeedError` if it cannot be used."""
        with self._connected() as client:
            threads = client.nthreads()
            return f"{self.address}: {len(threads)} workers, {sum(threads.values())} threads"

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        try:
            import dask
            from distributed import Client
        except ImportError as error:
            raise HeedError(
                f"the setting compute.dask names {self.address}, but Dask is not installed here ({error})",
                'install heed with its extra: pip install "heed[cluster]"; or empty the setting',
            ) from error
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            client = Client(self.address, timeout=SECONDS_TO_CONNECT, name="heed")
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise HeedError(
                f"no Dask scheduler answers at {self.address} ({_first_line(error)})",
                "start it, or correct or empty compute.dask in heed.toml",
            ) from error
        try:
            _require_equal_workers(client, self.address)
            # dask would otherwise warn about the size of parts, which is intended, and spill them.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
                yield client
        except (KilledWorker, CommClosedError, OSError, TimeoutError) as error:
            raise HeedError(
                f"the Dask cluster at {self.address} was lost ({_first_line(error)})",
                "look at its workers' logs (usually they ran out of memory), then run again",
            ) from error
        finally:
            client.close(timeout=SECONDS_TO_CONNECT)


def _results(client: Client, parts: Iterable[Part], at_once: int) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its result. At most `at_once` parts are submitted at a time, since they are copies."""
    from distributed import as_completed

    from dagster_project.triage.features.history.parts import compute_part

    submitted: dict[Any, Part] = {}
    waiting = as_completed(loop=client.loop)
    for part in parts:
        future = client.submit(compute_part, client.scatter(part, hash=False), pure=False)
        submitted[future.key] = part
        waiting.add(future)
        if len(submitted) >= at_once:
            done = next(waiting)
            yield submitted.pop(done.key), done.result()
    for done in waiting:
        yield submitted.pop(done.key), done.result()


def _workers(client: Client) -> list[str]:
    return sorted(client.nthreads())


def versions_here() -> dict[str, str]:
    """The versions that determine results in this process: Python, packages, and heed's own domain code."""
    import dagster_project

    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    digest = hashlib.sha256()
    domain = Path(dagster_project.__file__).parent / "triage"
    for path in sorted(domain.rglob("*.py")):
        digest.update(path.relative_to(domain).as_posix().encode() + b"\0" + path.read_bytes())
    versions["heed"] = digest.hexdigest()[:12]
    return versions


def _require_equal_workers(client: Client, address: str) -> None:
    """Raise `HeedError` if there are no workers, or one of them would compute with other code."""
    if not client.nthreads():
        raise HeedError(f"the Dask scheduler at {address} has no workers", "start at least one, then run again")
    here = versions_here()
    answers: dict[str, Any] = client.run(versions_here, on_error="return")
    for worker, there in sorted(answers.items()):
        if isinstance(there, Exception):
            raise HeedError(
                f"the Dask worker {worker} cannot load heed ({_first_line(there)})",
                "start the workers in heed's own environment, for example from its image",
            )
        for name, wanted in here.items():
            if there.get(name) != wanted:
                raise HeedError(
                    f"the Dask worker {worker} has {name} {there.get(name)}, where this machine has {wanted}",
                    "give both the same environment (requirements.lock) and the same version of heed",
                )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
