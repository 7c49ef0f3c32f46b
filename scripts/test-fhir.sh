#!/usr/bin/env bash
# test-fhir.sh: the FHIR route against a server of somebody else's: Medplum's router and validator, pinned in tests/medplum.
set -euo pipefail
cd "$(dirname "$0")/.."

place="${CARGO_TARGET_DIR:-target}/medplum"
mkdir -p "$place"
cp tests/medplum/package.json tests/medplum/package-lock.json tests/medplum/server.mjs "$place/"
# The versions want a newer Node.js than Debian's; what is used of them runs on it.
(cd "$place" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
BEDRAIL_MEDPLUM="$(realpath "$place")" cargo test --locked --test fhir_medplum -- --nocapture
