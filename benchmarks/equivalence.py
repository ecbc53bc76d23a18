"""Random sequences of everything that can happen, after each of which the incremental run equals the full one.

    python -m benchmarks.equivalence                       # 200 sequences; writes benchmarks/equivalence.md
    python -m benchmarks.equivalence --sequences 20 --first 1000 --minutes 30 --out /tmp/page.md

Belongs here: how many sequences, their seeds, and the page. Does not belong here: what can happen and what is compared
(`tests/end_to_end/changes.py`).

Exit status 1 when a sequence differs; the page names its seed, which draws the same operations again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")


def measure(sequences: int, first: int, minutes: float, out: Path) -> int:
    """Run the sequences, and write the page after each of them. Returns how many differed."""
    folder = Path(tempfile.mkdtemp(prefix="heed-equivalence-"))
    folder.chmod(0o755)  # the server runs under an account of its own
    os.environ.update(HEED_HOME=str(folder), GX_ANALYTICS_ENABLED="false", DBT_SEND_ANONYMOUS_USAGE_STATS="false")
    from tests.end_to_end.changes import Clusters, Differs, happen

    clusters = Clusters(folder / "clusters")
    operations, reads, seconds = Counter[str](), Counter[str](), list[float]()
    rows, wrong = 0, list[str]()
    until = time.monotonic() + 60 * minutes
    try:
        for seed in range(first, first + sequences):
            if time.monotonic() > until:
                break
            started = time.monotonic()
            try:
                sequence, compared = happen(clusters, folder / f"sequence-{seed}", seed)
                operations.update(sequence.done)
                reads.update(sequence.reads)
                rows += compared
            except Differs as error:
                wrong.append(f"seed {seed}: {' '.join(str(error).split())[:600]}")
            finally:
                shutil.rmtree(folder / f"sequence-{seed}", ignore_errors=True)
            seconds.append(time.monotonic() - started)
            print(f"seed {seed}: {seconds[-1]:.0f} s, {len(wrong)} differ so far", file=sys.stderr, flush=True)
            out.write_text(page(first, sequences, operations, reads, rows, wrong, seconds), encoding="utf-8")
    finally:
        clusters.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return len(wrong)


def page(
    first: int,
    wanted: int,
    operations: Counter[str],
    reads: Counter[str],
    rows: int,
    wrong: list[str],
    seconds: list[float],
) -> str:
    """The page: what was compared, and what differed."""
    from tests.end_to_end.changes import COMPARED

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    ran = len(seconds)
    fewer = f" ({wanted} were asked for)" if ran < wanted else ""
    table = "\n".join(f"| {name.replace('_', ' ')} | {number} |" for name, number in operations.most_common())
    differing = "\n## What differed\n\n" + "\n".join(f"- {line}" for line in wrong) + "\n" if wrong else ""
    return f"""# The incremental run equals the full one

After any sequence of loads, corrections, deletions, overrides, restores and files put back, a run that reads only
what is new leaves what `heed run --full` leaves on a copy with an empty home. `make equivalence` writes this page.

**{ran} sequences{fewer}, {operations.total()} operations, {rows:,} rows compared: {len(wrong)} sequences differ.**

Seeds {first} to {first + max(ran, 1) - 1}, {datetime.now(UTC).date()}, {os.cpu_count()} cores, {memory:.0f} GB of
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
    given = parser.parse_args()
    return 1 if measure(given.sequences, given.first, given.minutes, given.out) else 0


if __name__ == "__main__":
    sys.exit(main())
