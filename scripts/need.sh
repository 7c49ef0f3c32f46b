#!/usr/bin/env bash
# need.sh PACKAGE...: a Rust toolchain that is new enough, and these Debian packages. Installs what is missing and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'need: %s\n' "$*" >&2; }

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
remedy='install it with https://rustup.rs (curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh), then open a new shell'
if ! command -v cargo >/dev/null; then
    say "cargo is missing: bedrail is built with Rust $wanted or newer; $remedy"
    exit 1
fi
found=$(rustc --version | awk '{ print $2 }')
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    say "rustc $found is too old: $wanted or newer is needed (Debian's own is not); \`rustup update stable\`, or $remedy"
    exit 1
fi

missing=()
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. This is no Debian, so install what corresponds to these by hand"
    exit 1
fi
root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "missing: ${missing[*]}. Without sudo, run as root: apt-get install --no-install-recommends ${missing[*]}"
        exit 1
    fi
    root=(sudo)
fi
say "installing what is missing: ${missing[*]}"
case " ${missing[*]} " in *" mosquitto "*)
    say "mosquitto: the tests start brokers of their own; Debian may also start one on localhost:1883 (systemctl disable --now mosquitto)" ;;
esac
# Only where the lists are older than what the mirror carries, or absent, does the first try fail.
install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
say "${install[*]}"
if ! "${install[@]}" </dev/null; then
    say "that failed; once more after ${root[*]:+${root[*]} }apt-get update"
    "${root[@]}" apt-get update -q
    "${install[@]}" </dev/null
fi
