#!/usr/bin/env bash
# test-vm.sh [ARGUMENT of cargo test]...: boots guests with a real bluetoothd and runs the tests that need one; see
# tests/vm/README.md. What is built for them once stays in target/vm.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tests/vm/prepare "$target/vm"
cat "$target/vm/image/versions"
qemu-system-x86_64 --version | head -n 1
[ $# -gt 0 ] || set -- --test vm --test fake_agrees --
log=$target/vm/test.log
failed=0
BEDRAIL_VM=$target/vm cargo test --locked --no-fail-fast "$@" --nocapture --test-threads=1 2>&1 | tee "$log" || failed=1
scripts/skips.sh "$log" || failed=1
exit $failed
