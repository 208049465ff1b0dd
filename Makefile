# What one does with this project, by name. `make` alone lists the targets.

FUZZ_SECONDS ?= 60
KILLS ?= 1000
FUZZ_TARGETS = tape_differs json_differs envelope_round_trip subject_parse config_parse ring_ops frame_unpack server_answers spool_recover spool_life
ARGS ?=
MODEL ?=
SEEDS ?= 20000
FROM ?= 1
SEED ?=
ONLY ?=
ACCEPT ?=
RECORD ?=
DENY_CHECKS ?=
E2E ?=
SPOOL ?= target

.DEFAULT_GOAL := help
.PHONY: help demo test faults bench bench-test guards crash perf perf-quick perf-e2e perf-peers perf-spool perf-test fuzz loom shuttle sim rules schema lint deny ci

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The server comes first and cargo second, so that the very first run also shows that a server can be had.
demo: ## Run the demo against a server of its own; ARGS="--rate 20000 --seconds 5" goes to it
	python3 tools/nats_server.py run -- cargo run --release --features cli -- demo --create-stream $(ARGS)

# `server=$$(...)` is a command of its own: as a mere prefix of cargo its failure would go unseen. Of the real faults a few are
# tried here, on the oldest and the newest server; without these (no pip, say) the other tests still have the server they found.
test: ## Run all tests, against a real nats-server where they need one
	@set -e; server=$$(python3 tools/nats_server.py fetch); export JETRING_NATS_SERVER="$$server"; \
	python3 tools/nats_server.py fetch 2.10.26 2.15.1 >/dev/null || \
		echo "!!!! not all servers of the short matrix of real faults are there: those scenarios are LEFT OUT"; \
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --all-features; \
	else \
		cargo test --all-features --lib --bins --examples --tests; \
	fi; \
	cargo test --doc --all-features

# The table is printed whatever came of the scenarios, and then their failure is this target's. ARGS picks some, by their names
# `fault::engine::version`: make faults ARGS="-E 'test(acks) & test(2.15.1)'". What ran earlier does not stand in the table.
faults: ## Try every real fault on five servers, about an hour; prints what came of each; RECORD=1 writes perf/record/faults.json
	@set -e; python3 tools/nats_server.py fetch pinned; rm -rf target/tmp/faults; export JETRING_FAULTS=all; failed=0; \
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --all-features --test faults $(ARGS) || failed=$$?; \
	else \
		cargo test --all-features --test faults || failed=$$?; \
	fi; \
	cargo test --quiet --all-features --test faults -- report $(if $(RECORD),perf/record/faults.json); \
	exit $$failed

bench: ## Measure with criterion
	cargo bench --all-features

bench-test: ## Run every bench once, without measuring, to see that its result is right
	cargo bench --all-features -- --test

# A run of its own for each plan would be as good; in one, all figures come from the same quarter of an hour.
perf: ## Measure beside the peers: records, plots, and the figures in the README; about ten minutes on a quiet machine
	@set -e; server=$$(python3 tools/nats_server.py fetch); export JETRING_NATS_SERVER="$$server"; \
	cd perf; cargo build --release; \
	cargo run --release -- run; cargo run --release -- plot; cargo run --release -- readme

perf-quick: ## The most telling of these figures in half a minute; nothing is written
	@set -e; server=$$(python3 tools/nats_server.py fetch); export JETRING_NATS_SERVER="$$server"; \
	cd perf; cargo run --release -- run --quick

# E2E="--for 60" ends after a minute, and the next call goes on; see perf/README.md.
perf-e2e: perf-peers ## From publish to stream beside other clients: record, plots, and the tables in perf/README.md; half an hour
	@set -e; server=$$(python3 tools/nats_server.py fetch); export JETRING_NATS_SERVER="$$server"; \
	cd perf; cargo build --release; \
	cargo run --release -- e2e $(E2E); cargo run --release -- plot; cargo run --release -- readme

# A peer that cannot be built is left out, and `perf-e2e` says so loudly.
perf-peers:
	@mkdir -p perf/target/peers
	-cc -O2 -Wall -Wextra -o perf/target/peers/js_publish_async perf/peers/js_publish_async.c -lnats
	-test -x perf/target/peers/python/bin/python || { python3 -m venv perf/target/peers/python && \
		perf/target/peers/python/bin/pip install --quiet -r perf/peers/requirements.txt; } || \
		{ rm -rf perf/target/peers/python; false; }

# SPOOL= is where: it should be a disk of the kind that the service has, and not a file system in memory.
perf-spool: ## Measure a spool: 500,000 events a second for 10 s into it, opening it, sending it on; a few minutes, 2 GiB in SPOOL
	@set -e; mkdir -p "$(SPOOL)"; directory=$$(mktemp -d -p "$(SPOOL)"); trap 'rm -rf "$$directory"' EXIT; \
	cargo build --release --example spool_load; \
	python3 tools/nats_server.py run -- target/release/examples/spool_load "$$directory/spool"

perf-test: ## Check and test what measures, and that the README says what the records say
	cd perf && cargo fmt --check && cargo clippy --all-targets -- -D warnings && cargo test && cargo run -- readme --check

# The address sanitizer keeps freed memory for a while, so a run of half an hour needs more than libFuzzer's 2 GB.
# Not a time: the same on a busy machine. `--check` fails if something is worse, `--accept` writes benches/guards.json.
guards: ## Judge instruction counts of the hot path against the committed ones; ACCEPT=1 commits to what is now
	cargo bench --all-features --bench guards -- $(if $(ACCEPT),--accept,--check)

# `make test` kills a few. The seed is printed, and SEED= runs the same moments again, as far as the machine lets it.
crash: ## Kill a process that publishes to a directory KILLS (1000) times, and one with a spool, and count what is there
	@set -e; server=$$(python3 tools/nats_server.py fetch); export JETRING_NATS_SERVER="$$server"; \
	export JETRING_KILLS=$(KILLS) $(if $(SEED),JETRING_SEED=$(SEED)); \
	cargo test --all-features --test crash -- --nocapture what_was_acknowledged; \
	cargo test --all-features --test crash_spool -- --nocapture what_was_safe

# libFuzzer writes what it finds to the first directory and only reads the second, so the committed corpus stays as it is.
fuzz: ## Fuzz each target for FUZZ_SECONDS (60)
	@rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
	@cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/target/corpus/$$target fuzz/corpus/$$target; \
		echo "fuzz: $$target, $(FUZZ_SECONDS) s"; \
		cargo +nightly fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=8192; \
	done

# A directory of its own, because these flags would make cargo build everything anew each time one changes over. Two
# preemptions find nearly all faults of this kind and keep a model at seconds.
loom: ## Check ring and latch under every interleaving of their threads (up to two preemptions)
	RUSTFLAGS="--cfg jetring_loom" LOOM_MAX_PREEMPTIONS=2 \
		cargo test --profile loom --lib --target-dir target/loom -- ring:: latch::

# Loom's models are tiny and complete; these are crowds, and drawn by chance, the same ones in each run. A directory of its own
# as above. MODEL=<its name> runs one; see src/ring/crowds.rs for how to run a schedule again that has failed.
shuttle: ## Check the ring with crowds of producers under schedules drawn by chance
	RUSTFLAGS="--cfg jetring_shuttle" cargo test --lib --target-dir target/shuttle ring::crowds::$(MODEL)

# A profile of its own: optimized, because it runs millions of worlds, and with the core's assertions, which are part of what
# it looks for. A seed that fails says how to see it; its number goes to src/publisher/sim/seeds.txt.
sim: ## Run the delivery core in SEEDS (20000) simulated worlds FROM (1) on; SEED=123 tells one, ONLY=cut,restart with these faults
	JETRING_SIM="$(if $(SEED),$(SEED):$(ONLY),$(FROM)+$(SEEDS))" \
		cargo test --profile sim --lib publisher::sim::sim -- --exact --ignored --nocapture

rules: ## Check and test the rules of Prometheus and the dashboard in ops/, with promtool
	python3 tools/promtool.py check

schema: ## Write the schemas of the wire contract to docs/schema anew
	cargo run --features cli -- schema --out docs/schema

lint: ## Check format, clippy and the documentation; a warning is an error
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# DENY_CHECKS="bans licenses sources" leaves out the advisories, which need a database from the network.
deny: ## Check dependencies for advisories, licences and sources; installs cargo-deny if it is absent
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	cargo deny check $(DENY_CHECKS)

ci: ## Everything that must pass before a change goes in
	.ci/run
