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
# calls that fail, file systems, wrong clocks, time zones.
TEST_PACKAGES := dbus-daemon e2fsprogs faketime mosquitto mosquitto-clients openssl python3 strace tzdata zstd
# To install a Home Assistant beside the system's Python.
HA_PACKAGES := python3-venv
# libFuzzer is C++.
FUZZ_PACKAGES := g++
# A guest with a real bluetoothd: the machine, what unpacks and packs its image, and the Python of the devices around it.
VM_PACKAGES := qemu-system-x86 binutils kmod cpio e2fsprogs xz-utils python3 python3-venv
# Another's FHIR server and validator.
FHIR_PACKAGES := nodejs npm

.PHONY: help need test test-fhir test-vm test-vm-smoke vm-need long-powercut long-kill long-damage long-ha long-backlog long-link long-outage long-radio long-ward long-fuzz demo bench fmt-check clippy fuzz-smoke

help: ## This list
	@echo "bedrail: make TARGET"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' | awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'

need: ## Install the Debian packages that are missing to build and test (says which; uses sudo where not root)
	@scripts/need.sh $(BUILD_PACKAGES) $(TEST_PACKAGES)

test: need ## Run all tests; fails on a skipped one that tests/skips.allowed does not name
	@scripts/test.sh

test-fhir: need ## The FHIR route against another's server and validator, which npm fetches (a minute)
	@scripts/need.sh $(FHIR_PACKAGES)
	@scripts/test-fhir.sh

vm-need: need
	@scripts/need.sh $(VM_PACKAGES)

test-vm: vm-need ## The gateway beside a real bluetoothd in a virtual machine, with virtual devices (amd64; a quarter of an hour)
	@scripts/test-vm.sh

test-vm-smoke: vm-need ## The first of these alone: values of four kinds from the air to a broker (a minute)
	@scripts/test-vm.sh --test vm -- values_of_four_kinds_reach_the_broker_as_they_were_sent

long-powercut: need ## Cut the power at every moment of the store's script and open all it could leave (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test power_cut -- --nocapture

long-kill: need ## Kill the store at every write and sync, and again in its recovery; fail every fsync (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test kill_points -- --nocapture

long-damage: need ## Flip, zero and cut off every page of a store and of its write-ahead log, and salvage it each time (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test damage -- --nocapture

long-ha: need ## Hold the discovery configs against the newest Home Assistant that PYTHON (python3) installs from PyPI (a minute)
	@scripts/need.sh $(HA_PACKAGES)
	@scripts/home-assistant.sh

long-link: need ## Twenty thousand records through kills, resets, black holes, lost acks, a frozen, a killed and a forbidding broker (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test survives_kill -- --nocapture

long-outage: need ## Three days without a link in simulated time, for a full ward of 64 devices (two minutes)
	BEDRAIL_LONG=1 cargo test --locked --test outage -- --nocapture

long-ward: need ## Twenty thousand random histories of a ward against a second implementation, four thousand on a real route with kills and lost answers, and a million readings corrected at once (minutes)
	BEDRAIL_LONG=1 cargo test --locked --test ward_histories --test ward_route --test ward_correction -- --nocapture

long-radio: need ## Fifteen hundred reconnects, every trouble ten times, 64 devices on ten links, and 64 devices for ten minutes (a quarter of an hour)
	BEDRAIL_LONG=1 cargo test --locked --test radio_years -- --nocapture

demo: need ## Run the real binary for a minute against simulated devices and a broker that is cut, and print the ledger
	cargo build --locked --bin bedrail
	cargo run --locked --example demo

bench: need ## Measure ingest, drain, memory and octets written, each beside its bare control (optimised build; takes minutes)
	cargo bench --locked

long-backlog: need ## Measure memory and the way through a backlog of ten million records (optimised build; minutes, 1 GB of disk)
	BEDRAIL_LONG=1 cargo bench --locked -- machine backlog

fmt-check: ## Is the code formatted as rustfmt.toml says?
	cargo fmt --check

clippy: need ## Lints, for library, binary, tests, examples and benches; a warning is an error
	cargo clippy --locked --all-targets -- -D warnings

fuzz-smoke: ## Run each fuzz target for FUZZ_SECONDS (3) on the stable compiler
	@scripts/need.sh $(BUILD_PACKAGES) $(FUZZ_PACKAGES)
	@scripts/fuzz.sh smoke

long-fuzz: ## Run each decoder under the fuzzer for FUZZ_SECONDS (60), FUZZ_JOBS at a time (forty minutes on two cores)
	@scripts/need.sh $(BUILD_PACKAGES) $(FUZZ_PACKAGES)
	@scripts/fuzz.sh long
