# What a newcomer types. Every target is explained by `make help`; nothing here needs more than Debian 12 or 13 with
# git, curl, make and a Rust toolchain: what else is missing is installed by scripts/need.sh, which says so first.
# Results go to ./target, cargo's own place, unless CARGO_TARGET_DIR says otherwise.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# rustup's place; a shell that was open during its installation does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# To compile and link: SQLCipher, D-Bus.
BUILD_PACKAGES := gcc libc6-dev pkg-config libssl-dev libdbus-1-dev
# To run what the tests and the demo talk to: a bus, a broker and its clients, certificates, the example receiver, system
# calls that fail, time zones.
TEST_PACKAGES := dbus-daemon mosquitto mosquitto-clients openssl python3 strace tzdata
# libFuzzer is C++.
FUZZ_PACKAGES := g++

.PHONY: help need test long-powercut long-kill long-link demo bench fmt-check clippy fuzz-smoke

help: ## This list
	@echo "bedrail: make TARGET"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' | awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'

need: ## Install the Debian packages that are missing to build and test (says which; uses sudo where not root)
	@scripts/need.sh $(BUILD_PACKAGES) $(TEST_PACKAGES)

test: need ## Run all tests; fails on a skipped one that tests/skips.allowed does not name
	@scripts/test.sh

long-powercut: need ## Cut the power at every moment of the store's script and open all it could leave (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test power_cut -- --nocapture

long-kill: need ## Kill the store at every write and sync, and again in its recovery; fail every fsync (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test kill_points -- --nocapture

long-link: need ## Twenty thousand records through kills, resets, black holes, lost acks, a frozen, a killed and a forbidding broker (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test survives_kill -- --nocapture

demo: need ## Run the real binary for a minute against simulated devices and a broker that is cut, and print the ledger
	cargo build --locked --bin bedrail
	cargo run --locked --example demo

bench: need ## Measure ingest, drain, memory and octets written, each beside its bare control (optimised build; takes minutes)
	cargo bench --locked

fmt-check: ## Is the code formatted as rustfmt.toml says?
	cargo fmt --check

clippy: need ## Lints, for library, binary, tests, examples and benches; a warning is an error
	cargo clippy --locked --all-targets -- -D warnings

fuzz-smoke: ## Run each fuzz target for FUZZ_SECONDS (3) on the stable compiler
	@scripts/need.sh $(BUILD_PACKAGES) $(FUZZ_PACKAGES)
	@scripts/fuzz-smoke.sh
