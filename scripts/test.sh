#!/usr/bin/env bash
# test.sh [ARGUMENT of cargo test]...: `cargo test --locked`, then the skipped tests, and a failure if one of them is not allowed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
log=$target/test.log
failed=0
cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || failed=1

printf '\nSummary:\n'
grep -E '^( +Running | +Doc-tests |test result:|test .* FAILED$)' "$log" || true
scripts/skips.sh "$log" || failed=1
exit $failed
