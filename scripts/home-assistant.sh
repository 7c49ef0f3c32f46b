#!/usr/bin/env bash
# home-assistant.sh: the newest Home Assistant that PYTHON (python3) installs, in a directory of its own under target/, and
# our discovery configs held against it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
home=${CARGO_TARGET_DIR:-target}/home-assistant
"$python" -m venv "$home"
"$home/bin/pip" install --quiet --upgrade pip
# paho-mqtt is what Home Assistant would install itself when MQTT is set up.
"$home/bin/pip" install --quiet --upgrade homeassistant paho-mqtt
BEDRAIL_LONG=1 BEDRAIL_HOME_ASSISTANT=$(realpath -s "$home/bin/python") \
    cargo test --locked --test home_assistant -- --nocapture
