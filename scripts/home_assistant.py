"""Holds discovery configs against Home Assistant's own code. Standard input: {"configs": [{"topic", "config"}], "states":
{topic: [payload, ...]}}. Every config must pass the schema of its component whole (what a schema does not know it drops
silently), and every template must make of every state something the entity can be."""

import asyncio
import datetime
import json
import sys
import tempfile

import homeassistant.const
from homeassistant.components.mqtt import binary_sensor, sensor
from homeassistant.components.mqtt.discovery import TOPIC_MATCHER
from homeassistant.core import HomeAssistant
from homeassistant.helpers import frame
from homeassistant.helpers.template import TemplateEnvironment

SCHEMAS = {"binary_sensor": binary_sensor.DISCOVERY_SCHEMA, "sensor": sensor.DISCOVERY_SCHEMA}


def dropped(given, kept, at=""):
    """Keys of `given` that a schema did not keep."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{at}{key}"
            else:
                yield from dropped(value, kept[key], f"{at}{key}.")
    elif isinstance(given, list):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from dropped(one, other, f"{at}{index}.")


def fits(component, config, text):
    if component == "binary_sensor":
        return text in ("ON", "OFF")
    if text == "None":
        return True
    if config["device_class"] == "timestamp":
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    return 0 <= float(text) <= 100


async def main():
    given = json.load(sys.stdin)
    # Newer schemas want to know whose templates they check.
    with tempfile.TemporaryDirectory() as directory:
        hass = HomeAssistant(directory)
        if hasattr(frame, "async_setup"):
            frame.async_setup(hass)
        return check(given)


def check(given):
    environment = TemplateEnvironment(None)
    render = lambda template, state: environment.from_string(template).render(value_json=state, value=json.dumps(state))
    faults, rendered = [], 0
    for item in given["configs"]:
        topic, config = item["topic"], item["config"]
        matched = TOPIC_MATCHER.match(topic.split("/", 1)[1])
        component = matched and matched.group("component")
        if component not in SCHEMAS:
            faults.append(f"{topic}: no discovery topic")
            continue
        try:
            kept = SCHEMAS[component](config)
        except Exception as error:  # voluptuous says what and where
            faults.append(f"{topic}: {error}")
            continue
        faults.extend(f"{topic}: {key} is not known" for key in dropped(config, kept))
        for state in given["states"][config["state_topic"]]:
            text = render(config["value_template"], state)
            rendered += 1
            if not fits(component, config, text):
                faults.append(f"{topic}: {text!r} of {state}")
            if "json_attributes_template" in config:
                json.loads(render(config["json_attributes_template"], state))
        for availability in config.get("availability", []):
            for state in given["states"][availability["topic"]]:
                text = render(availability["value_template"], state)
                if text not in (availability["payload_available"], availability["payload_not_available"]):
                    faults.append(f"{topic}: availability {text!r}")
    print(f"homeassistant {homeassistant.const.__version__}, python {sys.version.split()[0]}: {len(given['configs'])} configs, {rendered} states, {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults or not given["configs"] else 0


sys.exit(asyncio.run(main()))
