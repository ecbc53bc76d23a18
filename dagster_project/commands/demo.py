"""A simulated company, from messy export to scores, as `heed demo` shows it.

Belongs here: the newcomer's first three minutes.
Does not belong here: anything that a real company would use.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from dagster_project.commands.run import Say, run_whole_job
from dagster_project.errors import HeedError, one_line
from dagster_project.resources.dbt.prestarted import prepare_dbt
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.reset import holds_nothing, reset_demo, simulated_company
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import heed_home, load_settings

DELIVERY_SECONDS = 5.0  # a message to this machine takes some milliseconds


def run_demo(*, alerts: int, days: int, seed: int, say: Say) -> None:
    """Simulate, load, run the whole job, and show the result. What was done before is not repeated.

    The company's data end at the hour of the first demo, so that its newest alerts are still open.

    Raises HeedError: the warehouse holds rows that were not simulated. These are never mixed with simulated rows, and
        never removed.
    """
    from dagster_project.commands.summary import collect, show
    from dagster_project.loading import load_file
    from dagster_project.simulator import WorldConfig, export_messy, simulate

    started = time.monotonic()
    home = heed_home()
    warehouse = Warehouse(home)
    say(f"starting the warehouse: {warehouse.describe()}")
    prepare(warehouse)
    wanted = {"alerts": alerts, "days": days, "seed": seed}
    company = simulated_company(warehouse)
    if company is None and not holds_nothing(warehouse):
        raise HeedError(
            f"{warehouse.describe()} holds rows of your own",
            "run the demo in another home: HEED_HOME=/tmp/heed-demo make demo",
        )
    if company is not None and {name: company.get(name) for name in wanted} != wanted:
        say("another company was requested: removing the previous one")
        reset_demo(warehouse, say)
        company = None
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    company = company or {**wanted, "end": end.isoformat()}
    end = datetime.fromisoformat(company["end"])
    scored_at = end + timedelta(minutes=1)
    if warehouse.value("SELECT EXISTS (SELECT FROM scoring.publications WHERE as_of >= $1)", (scored_at,)):
        say(f"the company of {company['end'][:16]} exists; `rm -r {home}`, then `make demo` creates a new one")
    else:
        prepare_dbt(warehouse, load_settings())
        say(f"simulating a marketing company: {alerts:,} alerts over {days} days")
        world = simulate(WorldConfig(seed=seed, alerts=alerts, days=days, end=end))
        folder = home / "demo-export"
        folder.mkdir(parents=True, exist_ok=True)
        export_messy(world, folder, seed)
        for kind in ("alerts", "actions", "rules", "action_types"):
            file = next(folder.glob(f"{kind}.csv*"))
            say(load_file(kind, file, warehouse.connect, simulation=company).summary())
        outcome = run_whole_job(scored_at, say=say)
        say(f"the job {outcome.job} took {outcome.seconds:.0f} s")
    click.echo()
    show(collect(warehouse))
    click.echo("\n" + deliver_locally(warehouse))
    click.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. Where to look next:\n"
        "  make up                   the lineage, the checks and every run, in a browser\n"
        "  docs/analysts.md          queries for the tables behind this page\n"
        "  docs/data-engineer.md     your own alerts: `heed load`, then `heed run`\n"
        "  docs/managers.md          what to ask before anybody trusts a score"
    )


def deliver_locally(warehouse: Warehouse) -> str:
    """Deliver the highest score to a receiver on this machine, as to any signed webhook, and say what it got."""
    from dagster_project.delivery.deliver import deliver
    from dagster_project.delivery.webhook import key_of, signature
    from dagster_project.settings import Destination, Settings

    variable, secret = "HEED_DEMO_SECRET", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    key, received = key_of(secret, variable), list[str]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            message_id, sent_at = self.headers["webhook-id"], int(self.headers["webhook-timestamp"])
            is_signed = self.headers["webhook-signature"] == signature(key, message_id, sent_at, body)
            data = json.loads(body)["data"]
            received.append(
                f"  alert {data['alert_id']}, rule {data['rule']}\n  {data['text']}\n"
                f"  webhook-id {message_id}, signature {'valid' if is_signed else 'NOT VALID'}"
            )
            self.send_response(204 if is_signed else 401)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None: ...

    highest = warehouse.value(
        "SELECT max(probability) FROM reporting.alert_scores_latest WHERE is_open AND flag_words IS NULL"
    )
    if highest is None:
        return "There is no open alert whose score could be delivered."
    os.environ[variable] = secret
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rules = Destination(
            kind="webhook", url=f"http://127.0.0.1:{server.server_port}/", secret_from=variable, above=highest - 0.001
        )
        # A name of its own for each demo: what an earlier one delivered is not delivered again.
        name = f"demo-{int(time.time())}"
        result = deliver(warehouse, Settings(destinations={name: rules}), seconds=DELIVERY_SECONDS)[0]
        server.shutdown()
    if not received:
        return one_line(f"No score was delivered: {result.note or 'the receiver got nothing'}.")
    told = "\n".join(map(one_line, received[0].splitlines()))
    return f"Delivered to a receiver on this machine (http://127.0.0.1:{server.server_port}/):\n{told}"
