#!/usr/bin/env python3
"""Prints what a chart has to do for each bedrail record, repeats told from news. One JSON message a line on stdin:

mosquitto_sub … -q 1 -t 'bedrail/+/+/+' -F '%p' | python3 consumer.py
"""
import json
import sys
from decimal import Decimal

# (record, placement) -> (version, retracted). Keep it where your values are: a repeat may come after a restart.
filed = {}


def text(message):
    if "components" in message:
        parts = message["components"].values()
        return "/".join(str(part["value"]) if part else "?" for part in parts)
    window = message.get("window", {})
    sample = window.get("median") or window.get("last")
    return str(sample["value"] if sample else message.get("value", message.get("range", "-")))


for line in sys.stdin:
    message = json.loads(line, parse_float=Decimal)  # a float would turn 36.60 into 36.6
    if message["schema"] != "bedrail.record/1" or message["kind"] in ("event", "gap", "waveform"):
        continue
    key = (message["record"], message["placement"])
    retracts = message["op"] == "retract"
    new, old = (message["version"], retracts), filed.get(key)
    if old is not None and new <= old:
        continue  # a repeat, or older than what is filed; at one version a retraction wins
    filed[key] = new
    there = old is not None and not old[1]
    name = message.get("metric", message["kind"])
    if not retracts:
        print("amend" if there else "add", name, text(message), message["unit"], flush=True)
    elif there:
        print("remove", name, flush=True)
