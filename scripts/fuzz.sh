#!/usr/bin/env bash
# fuzz.sh: runs the targets of fuzz/, each for FUZZ_SECONDS.
#
#   fuzz.sh smoke   every target once (3 s): `decoder` picks one of all decoders with every input
#   fuzz.sh long    `decoder` once for each decoder (60 s), then the other targets; FUZZ_JOBS at a time (all cores)
#
# All decoders are one target because a program for each would take longer to link than to run.
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

mode=${1:?smoke or long}
host=$(rustc -vV | sed -n 's/^host: //p')
[ -f Cargo.lock ] && [ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS=$(echo $RUSTFLAGS)
# With --target, build scripts and macros stay as they are.
cargo build --bins --target "$host" --target-dir "$target"
bin=$target/$host/debug
FUZZ_SEEDS=corpus/vectors "$bin/decoder" >/dev/null 2>&1

# run TARGET SECONDS [DECODER]
run() {
    local name=$1 seconds=$2 decoder=${3:-} what=${3:-$1}
    mkdir -p "corpus/$what" "artifacts/$what"
    local log=$target/$what.log seeds=() longest=512
    [ "$name" = decoder ] && seeds=(corpus/vectors)
    # Texts, of which the longest bedrail brings has 3 KB.
    [ "$name" = profile ] && seeds=(../config/profiles) longest=4096
    [ -z "$decoder" ] || export FUZZ_DECODER=$decoder
    if ! "$bin/$name" "corpus/$what" "${seeds[@]}" -artifact_prefix="artifacts/$what/" \
        -max_total_time="$seconds" -max_len="$longest" -timeout=10 -rss_limit_mb=2048 >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "fuzz: $what FAILED; the input is in fuzz/artifacts/$what/"
        exit 1
    fi
    echo "fuzz: $what: $(tail -n 1 "$log")"
}

targets=$(sed -n '/^\[\[bin\]\]/,/^$/ s/^name = "\(.*\)"$/\1/p' Cargo.toml)
if [ "$mode" = smoke ]; then
    for name in $targets; do
        run "$name" "${FUZZ_SECONDS:-3}"
    done
    exit 0
fi

# The strings of Device Information have one decoder, and so have the names that share a characteristic.
decoders=$(FUZZ_LIST=1 "$bin/decoder" 2>/dev/null | grep -v '_string$\|^polar_pmd_ecg$\|^polar_pmd_ppi$\|^stored_health' ; echo dis_string)
export -f run
export bin target
{
    for decoder in $decoders; do echo "decoder ${FUZZ_SECONDS:-60} $decoder"; done
    for name in $targets; do echo "$name ${FUZZ_SECONDS:-60}"; done
} | xargs -P "${FUZZ_JOBS:-$(nproc)}" -I{} bash -euc 'run {}'
echo "fuzz: $(echo "$decoders" | wc -w) decoders and $(echo "$targets" | wc -w) targets, clean"
