#!/usr/bin/env bash
# fuzz-smoke.sh: runs each target of fuzz/ for FUZZ_SECONDS (3).
#
# `cargo install cargo-fuzz` takes minutes, and cargo-fuzz wants a nightly compiler for its address sanitizer. There is no
# unsafe code here for a sanitizer to watch: a fault is a panic. Coverage, which is what guides the fuzzer, the stable
# compiler can do: the flags below are what `cargo fuzz --sanitizer none` passes. The targets take the dependencies of
# Cargo.lock, so what is fuzzed is what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}/fuzz"
target=$(realpath "${CARGO_TARGET_DIR:-target}")/fuzz
cd fuzz

seconds=${FUZZ_SECONDS:-3}
host=$(rustc -vV | sed -n 's/^host: //p')
[ -f Cargo.lock ] && [ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS=$(echo $RUSTFLAGS)
# With --target, build scripts and macros stay as they are.
cargo build --bins --target "$host" --target-dir "$target"

for name in $(sed -n '/^\[\[bin\]\]/,/^$/ s/^name = "\(.*\)"$/\1/p' Cargo.toml); do
    mkdir -p "corpus/$name" "artifacts/$name"
    echo "fuzz-smoke: $name for $seconds s"
    log=$target/$name.log
    if ! "$target/$host/debug/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" \
        -max_total_time="$seconds" -max_len=512 -timeout=10 -rss_limit_mb=2048 >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "fuzz-smoke: $name FAILED; the input is in fuzz/artifacts/$name/"
        exit 1
    fi
    tail -n 1 "$log"
done
