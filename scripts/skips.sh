#!/usr/bin/env bash
# skips.sh LOG: prints the tests that a run of `cargo test` skipped, and fails if tests/skips.allowed does not name one.
#
# A test that cannot do its work here says `SKIPPED <test name>: <reason>` and returns. libtest hides what a passing test
# prints with println! and eprintln!, so it is written past them: `writeln!(std::io::stderr(), …)`. A test marked
# #[ignore] counts as skipped too.
set -euo pipefail
log=$1
allowed=$(dirname "$0")/../tests/skips.allowed

skipped=$(sed -nE \
    -e 's/.*SKIPPED ([A-Za-z0-9_:]+): *(.*)/\1: \2/p' \
    -e 's/^test ([A-Za-z0-9_:]+) \.\.\. ignored(, )?(.*)/\1: ignored \3/p' "$log" | sort -u)
if [ -z "$skipped" ]; then
    echo 'Skipped tests: none'
    exit 0
fi
echo 'Skipped tests:'
bad=0
while IFS= read -r line; do
    name=${line%%: *}
    if grep -qxF -- "${name##*::}" <(sed -E 's/[[:space:]]*#.*//' "$allowed"); then
        echo "  $line (allowed)"
    else
        echo "  $line (NOT ALLOWED: make it run, or add it to tests/skips.allowed with the reason)"
        bad=1
    fi
done <<<"$skipped"
exit $bad
