#!/usr/bin/env python3
"""Prints what a chart has to do for each bedrail record, repeats told from news, and confirms what it has filed.

mosquitto_sub … -q 1 -t 'bedrail/+/+/+' -t 'bedrail/+/batch' -F '%x' | python3 consumer.py

One message a line on stdin, as JSON or as hexadecimal digits; batches come as the latter and need the command `zstd`.
--filed FILE      keep what is filed there, over restarts
--receipts FILE   confirm to a pipe that publishes each line; only together with --filed
"""
import argparse
import hashlib
import json
import os
import subprocess
from datetime import datetime, timedelta
from decimal import Decimal

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--filed")
arguments.add_argument("--receipts")
options = arguments.parse_args()
if options.receipts and not options.filed:
    arguments.error("confirm only what outlives a restart: --receipts needs --filed")

# (record, placement) -> (version, retracted). Keep it where your values are: a repeat may come after a restart.
filed = {}
file = open(options.filed, "a+") if options.filed else None
if file:
    file.seek(0)
    kept = file.read()
    kept = kept[: kept.rfind("\n") + 1]  # a line cut by a power failure was never confirmed
    file.truncate(len(kept))
    for line in kept.splitlines():
        *key, version, retracted = json.loads(line)
        filed[tuple(key)] = (version, retracted)
receipts = open(options.receipts, "w") if options.receipts else None


def parse(text):
    return json.loads(text, parse_float=Decimal)  # a float would turn 36.60 into 36.6


def messages(line):
    """The JSON of a line; hexadecimal digits may be a zstd frame, which begins with 28b52ffd."""
    if line.startswith(b"{"):
        return parse(line)
    octets = bytes.fromhex(line.decode())
    if octets.startswith(b"\x28\xb5\x2f\xfd"):
        octets = subprocess.run(["zstd", "-dcq"], input=octets, stdout=subprocess.PIPE, check=True).stdout
    return parse(octets)


def time(text, ms):
    if text is None or ms is None:
        return None
    at = datetime.fromisoformat(text.replace("Z", "+00:00")) + timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def expand(batch):
    """The records of a batch, as single messages would have brought them."""
    seq, before = batch["seq"], batch["received_at"]
    for common, record, steps, received, measured, *more in batch["rows"]:
        seq += steps
        received_at = time(before, received)
        before = received_at or before
        shared = batch["common"][common]
        chart = hashlib.sha256(b"bedrail chart" + bytes.fromhex(record) + bytes.fromhex(shared["placement"])).hexdigest()[:32]
        message = {"schema": "bedrail.record/1", "record": record, "chart": chart, "lane": batch["lane"], "seq": seq}
        message |= {"gateway": batch["gateway"], "sent_at": batch["sent_at"], "received_at": received_at}
        message |= {"measured_at": time(received_at, measured)} | shared
        if more and more[0] is not None:
            message["value"] = more[0]
        yield message | (more[1] if len(more) > 1 else {})


def text(message):
    if "components" in message:
        parts = message["components"].values()
        return "/".join(str(part["value"]) if part else "?" for part in parts)
    window = message.get("window", {})
    sample = window.get("median") or window.get("last")
    return str(sample["value"] if sample else message.get("value", message.get("range", "-")))


def take(message):
    """Files one record; `None` if nothing changes."""
    if message["kind"] in ("event", "gap", "waveform"):
        return None
    key = (message["record"], message["placement"])
    retracts = message["op"] == "retract"
    new, old = (message["version"], retracts), filed.get(key)
    if old is not None and new <= old:
        return None  # a repeat, or older than what is filed; at one version a retraction wins
    filed[key] = new
    if file:
        file.write(json.dumps([*key, *new]) + "\n")
    there = old is not None and not old[1]
    name = message.get("metric", message["kind"])
    if not retracts:
        return f"{'amend' if there else 'add'} {name} {text(message)} {message['unit']}"
    return f"remove {name}" if there else None


rest = b""
while chunk := os.read(0, 1 << 20):
    *lines, rest = (rest + chunk).split(b"\n")
    received = []
    for line in lines:
        message = messages(line)
        records = expand(message) if message["schema"] == "bedrail.batch/1" else [message]
        for record in (record for record in records if record["schema"] == "bedrail.record/1"):
            if change := take(record):
                print(change, flush=True)
            received.append(".".join(str(record[name]) for name in ("record", "placement", "version", "op")))
    if file:
        file.flush()
        os.fsync(file.fileno())  # before it is confirmed, not after
    if receipts and received:
        print(json.dumps({"schema": "bedrail.receipt/1", "received": received}), file=receipts, flush=True)
