"""Random sequences of everything that can happen, after each of which the incremental run equals the full one.

    python -m benchmarks.equivalence                       # 200 sequences; writes benchmarks/equivalence.md
    python -m benchmarks.equivalence --sequences 20 --first 1000 --minutes 30 --out /tmp/page.md
    python -m benchmarks.equivalence --keep FOLDER         # goes on after an end, or shares the work

Belongs here: how many sequences, their seeds, and the page. Does not belong here: what can happen and what is compared
(`tests/end_to_end/changes.py`).

Exit status 1 when a sequence differs; the page names its seed, which draws the same operations again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Compared:
    """One sequence: what happened, what its runs read, and how many rows were compared after it."""

    seed: int
    seconds: float
    operations: dict[str, int] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    differs: str | None = None


def measure(seeds: range, minutes: float, out: Path, keep: Path | None) -> int:
    """Run the sequences, and write the page after each of them. Returns how many differ.

    keep : one file per sequence. Sequences that have one already, or that another process began, are not run again.
    """
    folder = Path(tempfile.mkdtemp(prefix="heed-equivalence-"))
    folder.chmod(0o755)  # the server runs under an account of its own
    results = keep or folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    os.environ.update(HEED_HOME=str(folder), GX_ANALYTICS_ENABLED="false", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
    from tests.end_to_end.changes import Clusters, Differs, happen

    clusters = Clusters(folder / "clusters")
    until = time.monotonic() + 60 * minutes
    try:
        for seed in seeds:
            if time.monotonic() > until:
                break
            result = results / f"{seed}.json"
            try:
                result.touch(exist_ok=False)
            except FileExistsError:
                continue
            started = time.monotonic()
            try:
                sequence, rows = happen(clusters, folder / f"sequence-{seed}", seed)
                compared = Compared(
                    seed, time.monotonic() - started, dict(Counter(sequence.done)), dict(sequence.reads), rows
                )
            except Exception as error:  # a run that stops is a finding too
                how = "" if isinstance(error, Differs) else "stopped: "
                why = how + " ".join(str(error).split())[:600]
                compared = Compared(seed, time.monotonic() - started, differs=f"seed {seed}: {why}")
            except BaseException:
                result.unlink()
                raise
            finally:
                shutil.rmtree(folder / f"sequence-{seed}", ignore_errors=True)
            result.write_text(json.dumps(asdict(compared)), encoding="utf-8")
            print(f"seed {seed}: {compared.seconds:.0f} s, {compared.differs or 'equal'}", file=sys.stderr, flush=True)
            out.write_text(page(read_results(results, seeds), len(seeds)), encoding="utf-8")
        return sum(each.differs is not None for each in read_results(results, seeds))
    finally:
        clusters.stop()
        shutil.rmtree(folder, ignore_errors=True)


def read_results(folder: Path, seeds: range) -> list[Compared]:
    """The results of the sequences that ended, by seed. An empty file is a sequence that still runs."""
    texts = [path.read_text(encoding="utf-8") for seed in seeds if (path := folder / f"{seed}.json").exists()]
    return [Compared(**json.loads(text)) for text in texts if text]


def page(results: list[Compared], wanted: int) -> str:
    """The page: what was compared, and what differed."""
    from tests.end_to_end.changes import COMPARED

    operations, reads = Counter[str](), Counter[str]()
    for each in results:
        operations.update(each.operations)
        reads.update(each.reads)
    rows = sum(each.rows for each in results)
    seconds = [each.seconds for each in results]
    wrong = [each.differs for each in results if each.differs]
    ran = len(results)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    fewer = f" ({wanted} were asked for)" if ran < wanted else ""
    table = "\n".join(f"| {name.replace('_', ' ')} | {number} |" for name, number in operations.most_common())
    differing = "\n## What differed\n\n" + "\n".join(f"- {line}" for line in wrong) + "\n" if wrong else ""
    return f"""# The incremental run equals the full one

After any sequence of loads, corrections, deletions, overrides, restores and files put back, a run that reads only
what is new leaves what `heed run --full` leaves on a copy with an empty home. `make equivalence` writes this page.

**{ran} sequences{fewer}, {operations.total()} operations, {rows:,} rows compared: {len(wrong)} sequences differ.**

Seeds {results[0].seed} to {results[-1].seed}, {datetime.now(UTC).date()}, {os.cpu_count()} cores, {memory:.0f} GB of
memory; {statistics.median(seconds):.0f} s for a sequence (median).

Of the incremental runs, {reads["what is new"]} read what was new and {reads["everything"]} everything, because
something was in doubt: a restore, a rewritten table, other meanings of action types. {reads["training refused"]}
trainings were refused because too many actions had a type that nobody explained.

| operation | times |
|---|---:|
{table}

Compared: {", ".join(f"`{name}`" for name in COMPARED)}, the feature files of the open days, and the history that
flags and features read. Rows are compared whole; only the moment of writing may differ. A company has some tens
of alerts. Every restore goes into a fresh cluster with the same system identifier, where object ids and transaction
numbers repeat. Not run here: dbt's tests, reporting views, the watch over scores; suites only in the last run.
{differing}"""


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--minutes", type=float, default=600, help="no sequence begins after so many")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--keep", type=Path, help="a folder for the results, which several processes can share")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.sequences)
    return 1 if measure(seeds, arguments.minutes, arguments.out, arguments.keep) else 0


if __name__ == "__main__":
    sys.exit(main())
