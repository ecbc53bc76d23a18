# Needs Python 3.11 or newer and make. Everything else is installed into .venv, and all state stands in .heed.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export GX_ANALYTICS_ENABLED := false
export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := yes

.PHONY: help setup demo test test-slow test-postgres faults equivalence soak benchmark-autoclose benchmark-connect benchmark-engine benchmark-families benchmark-flags benchmark-history benchmark-influence benchmark-influenced benchmark-job benchmark-learning benchmark-learning-curve benchmark-load benchmark-monitoring benchmark-peers benchmark-reading benchmark-refresh benchmark-scoring benchmark-service benchmark-trust benchmark-webhooks benchmark-wolfi fuzz up lock lint types clean

help: ## what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## the environment only
	@:

.venv/.installed: requirements.lock pyproject.toml scripts/install.sh
	@PYTHON="$(PYTHON)" sh scripts/install.sh
	@touch $@

demo: setup ## a simulated company, from raw alerts to scores, with a summary
	@$(BIN)/heed demo

PYTEST_ON_TWO := $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test: setup lint types ## formatting, lint, types and the fast tests; about 9 minutes on 2 cores
	@$(PYTEST_ON_TWO) --ignore tests/faults -m "not slow"

test-slow: setup ## the other tests: whole jobs and dbt projects, run again and again; about 15 minutes on 2 cores
	@$(PYTEST_ON_TWO) --ignore tests/faults -m slow

faults: setup ## killed processes, servers, disks and files, for real; prints what was lost; about 10 minutes
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/faults

soak: setup ## random faults against running schedules and service, for MINUTES=60 with SEED=11; writes benchmarks/soak.md
	@$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60) --seed $(or $(SEED),11)

equivalence: setup ## 200 random sequences: does the incremental run equal the full one? about 3 hours; writes benchmarks/equivalence.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.equivalence --sequences $(or $(SEQUENCES),200)

test-postgres: setup ## the tests that touch a warehouse, on the system's PostgreSQL instead of the embedded one
	@$(BIN)/python -m pytest --postgres system tests/dbt tests/loading tests/end_to_end/test_whole_job.py

benchmark-trust: setup ## do the audits keep their word? about 20 minutes on 2 cores; writes benchmarks/trust.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.trust

lint: setup ## formatting and lint
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted: run .venv/bin/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .

types: setup ## types
	@$(BIN)/mypy --no-error-summary

benchmark-engine: .venv-peers/.installed ## history features against what people use instead; about half an hour
	@.venv-peers/bin/python -m benchmarks.engine

benchmark-peers: .venv-peers/.installed ## heed and its peers on real alerts; about half an hour; writes benchmarks/peers.md
	@OMP_NUM_THREADS=1 .venv-peers/bin/python -m benchmarks.peers

# An environment of its own for peers or a tool: it sees all that is in .venv, and adds nothing to it.
.venv-%/.installed: .venv/.installed benchmarks/requirements-%.txt
	@rm -rf .venv-$*
	@$(BIN)/python -m venv .venv-$*
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > .venv-$*/heed.pth
	@mv .venv-$*/heed.pth "$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements-$*.txt
	@touch $@

benchmark-autoclose: setup ## does closing keep its word? about 17 minutes of one core; writes benchmarks/autoclose.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.autoclose

benchmark-connect: setup ## minutes from an export to scores, for each preset; about an hour; writes benchmarks/connect.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.connect

benchmark-families: setup ## families of alerts with known truth that the simulator does not know; about an hour; writes benchmarks/families.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.families

benchmark-flags: setup ## flags against known truth, in simulated companies; about 30 minutes
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.flags

benchmark-history: setup ## history features of 1,000 new alerts on 1 and 10 million past ones; about half an hour
	@$(BIN)/python -m benchmarks.history

benchmark-influence: setup ## what showing a score does, against known truth; about 20 minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.influence

benchmark-influenced: setup ## is learning misled by its own influence? about a quarter of an hour; writes benchmarks/influenced.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.influenced

benchmark-job: setup ## the whole job on a million simulated alerts: seconds and memory of each stage; about 20 minutes
	@$(BIN)/python -m benchmarks.job

benchmark-learning: setup ## learning against known truth, in simulated companies; about 40 minutes
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.learning

benchmark-learning-curve: setup ## heed after 50 to 20,000 outcomes, compared with its contenders; about 20 minutes; writes benchmarks/learning_curve.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.learning_curve

benchmark-load: setup ## a thousand readers, a year backfilled, and a day of ten million alerts; about an hour
	@$(BIN)/python -m benchmarks.load

benchmark-monitoring: setup ## do the monitors warn in time, and not for nothing? about 25 minutes; writes benchmarks/monitoring.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.monitoring

benchmark-reading: setup ## is the number true when it is read? simulated companies, real alerts, the cost; hours, COMPANIES=30, resumable; writes benchmarks/reading.md
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.reading --companies $(or $(COMPANIES),30)

benchmark-refresh: setup ## a refresh after 1,000 new alerts on a million simulated ones; about 25 minutes
	@$(BIN)/python -m benchmarks.refresh

benchmark-scoring: setup ## alerts scored a second, with and without exact contributions, and a million scores published; about 2 minutes
	@$(BIN)/python -m benchmarks.scoring

benchmark-service: .venv-service/.installed ## the service with 100,000 open alerts, and 100,000 generated requests; about an hour
	@.venv-service/bin/python -m benchmarks.service

benchmark-webhooks: setup ## 10,000 webhooks at 200 a second through faults and kill -9: lost, wrong, doubled; about 3 minutes; writes benchmarks/webhooks.md
	@$(BIN)/python -m benchmarks.webhooks

benchmark-wolfi: setup ## real alerts, replayed beside every baseline; about 3 minutes, with the data beside the project
	@$(BIN)/python -m benchmarks.wolfi

fuzz: setup ## 100,000 generated inputs each for loaders, settings and service; about an hour
	@$(BIN)/python -m benchmarks.fuzz

up: setup ## the Dagster UI with its daemon, on http://127.0.0.1:3000
	@$(BIN)/heed up

lock: setup ## resolve the dependencies anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    --extra dev pyproject.toml -o requirements.lock

clean: ## remove the environment and what tools left behind; state in .heed stays
	rm -rf .venv .venv-peers .venv-service dbt_project/target dbt_project/logs .pytest_cache .mypy_cache .ruff_cache .hypothesis
