"""Generated input for loaders, settings and the service: none ends in a traceback, none is lost in silence.

    python -m benchmarks.fuzz                            # 100,000 inputs for each of the three; about an hour
    python -m benchmarks.fuzz --parts loaders --inputs 2000 --seed 7

Belongs here: what is generated, what counts as a failure, the table `benchmarks/fuzz.md`. Does not belong here:
requests (`tests/serving/test_generated.py`, which sends a few hundred over a socket), inputs found once (they are
tests).

A failure is any of these:

- an error that is not a `HeedError`, or a `HeedError` that is not one printable line with a cause and a remedy;
- loaders: a row in the file that is neither among the rows read nor among those rejected. Each generated row carries a
  word of its own, the file is then damaged at random, and each word that is still in it has to come out;
- settings: a value that is accepted and then is another one, or a name that is accepted and means nothing;
- service: a status of 500 or above; an error without cause and remedy; feedback that was taken and not written, or
  written and not taken.

Hypothesis generates, in batches with a seed each, so that a failure can be had again: it is printed with its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.embedded import stop_server

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("loaders", "settings", "service")
BATCH = 5_000

SPOILT = ["", '"', '""', "\0", "\r", "\n", "\r\n", ",", ";", "\t", "=1+1", "NaN", "{}", '{"a":', "null", "é", "\ufeff"]
CELL = st.one_of(st.text(max_size=12), st.sampled_from(SPOILT))
WORD = re.compile(rb"heed\d{3}word")


def require_clear(error: HeedError) -> None:
    """One printable line that names cause and remedy."""
    text = str(error)
    assert error.cause, "there is no cause"
    assert error.remedy, "there is no remedy"
    assert not [c for c in text if unicodedata.category(c)[0] == "C"], f"not one line: {text[:200]!r}"


# --- Loaders -----------------------------------------------------------------------------------------------------

DAMAGE = st.lists(
    st.tuples(st.sampled_from(["cut", "drop", "put", "twice"]), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    max_size=3,
)


def damaged(content: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    for what, where, some in damage:
        at = int(where * len(content))
        length = 1 + some[0] % 24
        if what == "cut":
            content = content[:at]
        elif what == "drop":
            content = content[:at] + content[at + length :]
        elif what == "put":
            content = content[:at] + some + content[at:]
        else:
            content = content[: at + length] + content[at : at + length] + content[at + length :]
    return content


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """(kind, name, content) of a file of alerts, actions, rules or action types, mostly damaged."""
    from dagster_project.loading.contract import COLUMNS, KINDS, REQUIRED

    kind = draw(st.sampled_from(KINDS))
    names = list(REQUIRED[kind])
    names += draw(st.lists(st.sampled_from([*COLUMNS[kind], "further", "Alert ID", " rule ", "x"]), max_size=3))
    names = list(dict.fromkeys(names))
    rows = draw(st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), max_size=5))
    for number, row in enumerate(rows):
        at = draw(st.integers(0, len(names) - 1))
        row[at] += f"heed{number:03d}word"
    form = draw(st.sampled_from(["csv", "csv", "tsv", "jsonl", "jsonl", "parquet", "csv.gz", "jsonl.gz", "txt"]))
    if form == "parquet":
        sink = io.BytesIO()
        text = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in rows]
        columns = list(zip(*text, strict=True)) or [()] * len(names)
        pq.write_table(pa.table({n: pa.array(c, pa.string()) for n, c in zip(names, columns, strict=True)}), sink)
        content = sink.getvalue()
    elif form.startswith("jsonl"):
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=draw(st.booleans())) for row in rows]
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        out = io.StringIO()
        writer = csv.writer(
            out,
            delimiter="\t" if form == "tsv" else draw(st.sampled_from(",;\t")),
            lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
            quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        )
        writer.writerows([names, *rows])
        content = draw(st.sampled_from(["", "\ufeff"])).encode() + out.getvalue().encode("utf-8", "surrogatepass")
    content = damaged(content, draw(DAMAGE))
    if form.endswith(".gz"):
        content = gzip.compress(content, 1, mtime=0)
        content = damaged(content, draw(DAMAGE)) if draw(st.integers(0, 3)) == 0 else content
    return kind, f"export.{form}", content


def load(folder: Path, kind: Any, name: str, content: bytes) -> str:
    """Read one file as `heed load` does up to the warehouse; says how it ended."""
    from dagster_project.loading.readers import SourceFile, open_reader
    from dagster_project.loading.rows import incoming_batch

    path = folder / name
    path.write_bytes(content)
    try:
        source = SourceFile(path)
        try:
            open_reader(kind, source, None)
            source.sha256(b"", lambda: None)
            reader = open_reader(kind, source, None)
            batches, read = [], 0
            for chunk in reader.chunks():
                batch = incoming_batch(kind, chunk, read)
                batch.validate(full=True)
                read += batch.num_rows
                batches += batch.to_pylist()
        finally:
            source.close()
    except HeedError as error:
        require_clear(error)
        return "refused"
    rejected = sum(row["reason"] is not None for row in batches)
    out = json.dumps(batches, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    plain = gzip.decompress(content) if source.is_gzip else content
    if name != "export.parquet":  # there a flipped bit is another value, and no reader can tell
        header = plain.split(b"\n", 1)[0] if "jsonl" not in name else b""
        # A quote that the damage left open lets a column's name go on over the next line.
        header += repr(getattr(reader, "plan", "")).encode("utf-8", "surrogatepass")
        wanted = set(WORD.findall(plain)) - set(WORD.findall(header))
        lost = wanted - set(WORD.findall(out))
        assert not lost or reader.ignored, f"lost in silence: {lost}"  # columns not loaded are named
    return f"{'some rejected' if rejected else 'read'}" if batches else "no rows"


# --- Settings ----------------------------------------------------------------------------------------------------


def known_settings() -> dict[str, list[str]]:
    from dagster_project.settings import Settings

    return {section: list(values) for section, values in Settings().model_dump().items()}


VALUE = st.one_of(
    st.booleans(),
    st.integers(-5, 4000),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=12),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "raw", "*/15 * * * *", "0 3 * * 1", "{{ 7*7 }}", "a; DROP TABLE x", "../x"]
    ),
    st.lists(st.one_of(st.text(max_size=6), st.sampled_from(["all", "rule", "team"])), max_size=3),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Sections with some known names, some unknown ones, and any values."""
    known = known_settings()
    made: dict[str, dict[str, Any]] = {}
    for section in draw(st.lists(st.sampled_from([*known, *known, "learn"]), max_size=2, unique=True)):
        names = st.sampled_from([*known.get(section, []), "horizon_dys"])
        made[section] = draw(st.dictionaries(names, VALUE, max_size=2))
    return made


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("-" if value < 0 else "") + "inf" if math.isinf(value) else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=True) if isinstance(value, str) else str(value)


SETTING = st.one_of(
    tables().map(
        lambda made: "".join(
            f"[{section}]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in values.items())
            for section, values in made.items()
        ).encode("utf-8", "surrogatepass")
    ),
    st.builds(
        lambda text, damage: damaged(text.encode(), damage),
        st.just((ROOT / "heed.toml").read_text(encoding="utf-8")),
        DAMAGE,
    ),
    st.binary(max_size=60),
    st.integers(1, 3000).map(lambda deep: b"x = " + b"[" * deep),
    st.integers(1, 3000).map(lambda deep: b"[" + b"a." * deep + b"a]\nb = 1"),
)
BEGUN = st.sampled_from(["postgresql://", "host=", "2025-05-01", "7", "[alerts]\nrule = "])
OTHER = st.tuples(
    st.sampled_from(["address", "moment", "span", "mapping"]),
    st.one_of(
        st.text(max_size=30),
        st.builds("{}{}".format, BEGUN, CELL),
        st.builds("postgresql://u:{}@{}/{}?{}".format, CELL, CELL, CELL, CELL),
        st.builds(
            "[{}]\n{} = {}".format,
            st.sampled_from(["alerts", "actions", "x"]),
            st.sampled_from(["rule", "ignore"]),
            VALUE.map(lambda value: toml(value)),
        ),
    ),
)


def same(given_value: Any, taken: Any) -> bool:
    """Whether a setting is what was written: a number is a number, however it is spelt, and nothing else is."""
    if isinstance(given_value, list):
        return isinstance(taken, (list, tuple)) and [*given_value] == [*taken]
    number = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)  # noqa: E731
    if number(given_value):
        return number(taken) and float(given_value) == float(taken)
    return type(given_value) is type(taken) and given_value == taken


def set_up(folder: Path, content: bytes) -> str:
    from dagster_project.settings import load_settings

    path = folder / "heed.toml"
    path.write_bytes(content)
    try:
        taken = load_settings(path).model_dump()
    except HeedError as error:
        require_clear(error)
        return "refused"
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    for section, values in written.items():
        for name, value in values.items():
            assert name in taken[section], f"{section}.{name} means nothing"
            assert same(value, taken[section][name]), f"{section}.{name} = {value!r} became {taken[section][name]!r}"
    return "taken"


def other_input(folder: Path, what: str, text: str) -> str:
    """What comes from the environment, an option or a mapping file."""
    from dagster_project.cli.group import Span
    from dagster_project.loading import read_mapping
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse

    path = folder / "mapping.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    attempts: dict[str, Callable[[], object]] = {
        "address": lambda: Warehouse(folder, text or None).describe(),
        "moment": lambda: parse_moment(text),
        "span": lambda: Span().convert(text, None, None),
        "mapping": lambda: read_mapping(path),
    }
    try:
        taken = attempts[what]()
    except HeedError as error:
        require_clear(error)
        return "refused"
    if what == "address":
        assert not [c for c in str(taken) if unicodedata.category(c)[0] == "C"]
        secret = re.match(r"postgresql://u:(\w{6,})@", text)
        # A host or a database may have the same name as the password.
        assert not secret or text.count(secret[1]) > 1 or secret[1] not in str(taken)
    return "taken"


# --- Service -----------------------------------------------------------------------------------------------------


class Asked:
    """The service in this process, without sockets, on a warehouse of a company whose whole job ran."""

    def __init__(self) -> None:
        from dagster_project.resources.warehouse.connection import Warehouse
        from dagster_project.serving.app import create_app
        from dagster_project.serving.pool import Pool
        from dagster_project.settings import heed_home

        self.warehouse = Warehouse(heed_home())
        self.app = create_app(Pool(self.warehouse), "*/15 * * * *", hosts=["localhost"])
        self.known = list(self.warehouse.read("SELECT alert_id FROM scoring.alert_scores LIMIT 200")["alert_id"])
        self.loop = asyncio.new_event_loop()
        self.taken = 0

    def feedback(self) -> int:
        return int(self.warehouse.value("SELECT count(*) FROM scoring.feedback"))

    def __call__(
        self, method: str, path: str, query: dict[str, str], body: bytes, kind: str
    ) -> tuple[int, dict, bytes]:
        encoded = "&".join(f"{name}={quote(text.encode('utf-8', 'surrogatepass'))}" for name, text in query.items())
        from urllib.parse import unquote

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": encoded.encode(),
            "headers": [(b"host", b"localhost"), (b"content-type", kind.encode())],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return sent.pop() if sent else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))  # type: ignore[arg-type]
        head = {name.decode().lower(): value.decode("latin-1") for name, value in said[0]["headers"]}
        return said[0]["status"], head, b"".join(part.get("body", b"") for part in said[1:])


# Otherwise hardly any generated request would get as far as the warehouse.
SENSIBLE = st.tuples(
    st.sampled_from(["score", "badge.svg", "scores", "feedback", "form"]),
    st.integers(0, 199),
    st.fixed_dictionaries(
        {"verdict": st.sampled_from(["useful", "useful", "wrong", "maybe"])},
        optional={"given_by": st.text(max_size=210), "model_version": st.one_of(st.none(), CELL)},
    ),
)


def sensible(asked: Asked, what: str, at: int, more: dict[str, Any]) -> tuple[str, str, dict[str, str], bytes, str]:
    """A request about an alert that is there."""
    alert_id = asked.known[at % len(asked.known)]
    text = "application/json"
    if what in ("score", "badge.svg"):
        return "GET", f"/alerts/{quote(alert_id, safe='')}/{what}", {}, b"", text
    if what == "form":
        pairs = {"quoted_id": quote(alert_id), **{name: value for name, value in more.items() if value}}
        form = "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs.items())
        return "POST", "/feedback", {}, form.encode(), "application/x-www-form-urlencoded"
    body = {"alert_ids": [alert_id, str(more)]} if what == "scores" else {"alert_id": alert_id, **more}
    return "POST", f"/{what}", {}, json.dumps(body).encode(), text


def ask(asked: Asked, request: Any) -> str:
    method, path, query, body, kind = request if len(request) == 5 else sensible(asked, *request)
    sent = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    status, head, answer = asked(method, path, query, sent, kind)
    assert status < 500, f"{status}: {answer[:300]!r}"
    assert "x-injected" not in head
    asked.taken += path == "/feedback" and status in (201, 303)
    if head.get("content-type", "").startswith("text/html"):
        assert b"<script>alert" not in answer
    if status >= 400 and method != "HEAD" and not path.endswith("badge.svg"):
        assert set(json.loads(answer)) == {"error", "remedy"}
    return f"{status // 100}xx"


# --- Running -----------------------------------------------------------------------------------------------------


def run(part: str, inputs: int, first_seed: int, folder: Path) -> tuple[Counter[str], int]:
    """Generate and try; returns how inputs ended and how many seeds were used. The first failure raises."""
    ended: Counter[str] = Counter()
    if part == "loaders":
        strategy: Any = files()
        attempt: Callable[[Any], str] = lambda made: load(folder, *made)  # noqa: E731
    elif part == "settings":
        strategy = st.one_of(SETTING, SETTING, OTHER)
        attempt = lambda made: set_up(folder, made) if isinstance(made, bytes) else other_input(folder, *made)  # noqa: E731
    else:
        from tests.serving.test_generated import REQUEST

        asked = Asked()
        before = asked.feedback()
        strategy, attempt = st.one_of(REQUEST, SENSIBLE), lambda made: ask(asked, made)
    batches = 0
    while ended.total() < inputs:
        size = min(BATCH, inputs - ended.total())

        @seed(first_seed + batches)
        @settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(strategy)
        def each(made: Any) -> None:
            ended[attempt(made)] += 1

        each()
        batches += 1
        print(f"  {part}: {ended.total():,} inputs, {dict(ended)}", file=sys.stderr, flush=True)
    if part == "service":
        written = asked.feedback() - before
        assert written > 0, "no feedback was ever taken: the requests are not what they should be"
        assert written == asked.taken, f"{asked.taken} times feedback was taken, {written} rows were written"
        ended["feedback written"] = written
    return ended, batches


def measured(parts: list[str], inputs: int, first_seed: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="heed-fuzz-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the embedded server may run under another account
        for part in parts:
            if part == "service":
                os.environ["HEED_HOME"] = str(folder / "home")
                heed = Path(sys.executable).with_name("heed")
                subprocess.run(
                    [str(heed), "demo", "--alerts", "6000", "--days", "120"], check=True, capture_output=True
                )
            started = time.perf_counter()
            try:
                ended, batches = run(part, inputs, first_seed, folder)
            finally:
                stop_server(folder / "home")
            written = ended.pop("feedback written", None)
            how = ", ".join(f"{count:,} {word}" for word, count in ended.most_common())
            more = f"; {written:,} rows of feedback" if written is not None else ""
            seconds = time.perf_counter() - started
            last = first_seed + batches - 1
            yield f"| {part} | {ended.total():,} | {first_seed} to {last} | 0 | {how}{more} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    lines = []
    for line in measured(arguments.parts, arguments.inputs, arguments.seed):
        print(line, flush=True)
        lines.append(line)
    if set(arguments.parts) == set(PARTS):
        rows = "\n".join(lines)
        (ROOT / "benchmarks" / "fuzz.md").write_text(
            "# Generated input\n\nWhat counts as a failure stands in `benchmarks/fuzz.py`. Python "
            f"{platform.python_version()}, {os.cpu_count()} CPUs, {datetime.now(UTC):%Y-%m-%d}. `make fuzz` makes this "
            "page again, and stops at the first failure.\n\n"
            "| part | inputs | seeds | failures | how they ended | seconds |\n|---|---:|---|---:|---|---:|\n"
            f"{rows}\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
