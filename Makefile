# Everything a developer runs. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CORACLE := target/debug/coracle
PYTHON := .venv/bin/python
DEMO_DIR := .coracle/demo
export CORACLE_BIN := $(abspath $(CORACLE))

# One build serves everything: libraries, the binary and the tests share their dependencies' features.
BUILD := cargo build --workspace --all-targets
ifdef CI
BUILD += --locked
NEXTEST_PROFILE := --profile ci
endif

.PHONY: help demo build test test-rust test-e2e check format bench bench-peers bench-apiserver bench-lists soak conformance compatibility lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build .venv/.ready ## start a server and run the digits pipeline on it with the kfp SDK
	@$(PYTHON) examples/demo.py --coracle $(CORACLE) --data-dir $(DEMO_DIR)

build: ## build the coracle binary and the tests
	@scripts/prepare rust
	@$(BUILD)

test: test-rust test-e2e ## run every test: Rust, then end to end

test-rust: build ## run the Rust tests
	@if cargo nextest --version > /dev/null 2>&1; then \
	    cargo nextest run --workspace $(NEXTEST_PROFILE); \
	else \
	    echo "cargo-nextest is not installed (cargo install --locked cargo-nextest); using cargo test"; \
	    cargo test --workspace --lib --bins --tests; \
	fi
	@cargo test --workspace --doc --quiet

test-e2e: build .venv/.ready ## run the end-to-end tests (ARGS="-k word" for some of them)
	@$(PYTHON) -m pytest -c e2e/pytest.ini --rootdir=e2e e2e $(ARGS)

check: .venv/.ready ## formatting, lints, docs and licences
	@scripts/prepare rust
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	@if cargo deny --version > /dev/null 2>&1; then cargo deny check; \
	    else echo "cargo-deny is not installed (cargo install --locked cargo-deny): licences not checked"; fi
	@.venv/bin/ruff check e2e examples bench
	@.venv/bin/ruff format --check e2e examples bench

format: .venv/.ready ## format all code
	@cargo fmt --all
	@.venv/bin/ruff check --fix --quiet e2e examples bench
	@.venv/bin/ruff format --quiet e2e examples bench

bench: build .venv/.ready ## measure, and print ratios (ARGS="--quick" for a short run)
	@$(PYTHON) bench/run.py --coracle $(CORACLE) $(ARGS)

bench-peers: build .venv/.ready ## the same workloads on Luigi, Prefect, Dagster, Metaflow, Airflow ... (ARGS="--quick --only luigi")
	@$(PYTHON) bench/peers.py --coracle $(CORACLE) $(ARGS)

bench-apiserver: ## measure the Kubernetes API of a server of its own (ARGS="SECONDS OBJECTS WATCHERS", 3 10000 1000)
	@cargo build --release --quiet -p coracle
	@cargo build --release --quiet -p coracle-apiserver --example load
	@ulimit -Sn "$$(ulimit -Hn)"; target/release/examples/load target/release/coracle $(ARGS)

bench-engine: ## measure tasks a second of the engine alone (ARGS="LARGEST RUNS", 10000 1000)
	@cargo run --release --quiet -p coracle-pipelines --example throughput -- $(ARGS)

soak: build .venv/.ready ## kill the server, launchers and helpers at random while runs go on (ARGS="--kills 200 --seed N")
	@$(PYTHON) e2e/soak.py $(ARGS)

bench-lists: ## measure pages of lists of runs, with 200 000 of them (ARGS="RUNS ROUNDS")
	@cargo run --release --quiet -p coracle-store --example list_runs -- $(ARGS)

conformance: build .venv/.ready ## run a folder of compiled pipelines: DIR=... [ONLY=word] [JOBS=2] [TIMEOUT=180] [HOST=url] [STRICT=1] [NAP=5]
	@test -n "$(DIR)" || { echo "say which folder: make conformance DIR=/path/to/folder" >&2; exit 2; }
	@$(PYTHON) e2e/conformance.py "$(DIR)" --only "$(ONLY)" --jobs $(or $(JOBS),2) \
	    --timeout $(or $(TIMEOUT),180) --host "$(HOST)" $(if $(STRICT),--strict) $(if $(NAP),--nap $(NAP))

compatibility: build .venv/.ready ## run the end-to-end tests, and write docs/kfp-compatibility.md from them
	@$(PYTHON) -m pytest -c e2e/pytest.ini --rootdir=e2e e2e --write-compatibility $(ARGS)

lock: .venv/.ready ## resolve e2e/requirements.in anew into requirements.txt
	@.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-emit-index-url \
	    --custom-compile-command "make lock" e2e/requirements.in --output-file e2e/requirements.txt

clean: ## remove what was built, the Python environment and the demo's server and data
	@if [ -x $(CORACLE) ] && [ -e $(DEMO_DIR)/server.json ]; then \
	    $(CORACLE) down --data-dir $(DEMO_DIR) || true; fi
	@cargo clean
	@rm -rf .venv $(DEMO_DIR) bench/results

.venv/.ready: e2e/requirements.txt scripts/prepare
	@scripts/prepare python
	@touch $@
