//! What a valid Observation is, as a table of its own: what US Core 9, FHIR R4's vital signs and the Personal Health Device guide
//! ask for, read from their profiles and not from the renderer. `tests/facts/fhir_rules.csv` has codes, units and
//! categories, `tests/facts/mapping.csv` the MDC codes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::facts::table;

const LOINC: &str = "http://loinc.org";
const MDC: &str = "urn:iso:std:iso:11073:10101";
const UCUM: &str = "http://unitsofmeasure.org";
const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const PHD_CATEGORY: &str = "http://hl7.org/fhir/uv/phd/CodeSystem/PhdObservationCategories";
const US_CORE: &str = "http://hl7.org/fhir/us/core/StructureDefinition/";
const PHD: &str = "http://hl7.org/fhir/uv/phd/StructureDefinition/";
const STATUS: [&str; 5] = ["final", "preliminary", "amended", "corrected", "entered-in-error"];

/// Everything that is wrong with it; none: it is valid.
pub fn broken(observation: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    whole(observation, &mut wrong);
    codes_and_units(observation, &mut wrong);
    vital_signs(observation, &mut wrong);
    if profiles(observation).any(|profile| profile.starts_with(PHD)) {
        personal_health_device(observation, &mut wrong);
    }
    wrong
}

/// FHIR R4 itself, and what a gateway must never send.
fn whole(observation: &Value, wrong: &mut Vec<String>) {
    let mut say = |bad: bool, what: &str| {
        if bad {
            wrong.push(what.to_owned());
        }
    };
    let text = observation.to_string();
    say(observation["resourceType"] != "Observation", "no Observation");
    say(text.contains("modifierExtension"), "a modifier extension");
    say(text.contains("null") || text.contains("[]") || text.contains("{}"), "an empty element");
    say(!STATUS.iter().any(|status| observation["status"] == *status), "no status");
    let subject = observation["subject"]["reference"].as_str().unwrap_or_default();
    let is_whole = |reference: &str| !reference.contains('?') && !reference.starts_with("urn:") && !reference.ends_with('/');
    say(!subject.contains('/') || !is_whole(subject), "no subject that is resolved");
    for reference in references(observation) {
        say(!is_whole(reference), "a reference that is not resolved");
    }
    let identifier = &observation["identifier"][0];
    say(identifier["value"].as_str().is_none_or(|value| value.len() != 32), "no chart id");
    say(identifier["system"].as_str().is_none_or(|system| !system.contains(':')), "an identifier without a system");
    let (at, period) = (&observation["effectiveDateTime"], &observation["effectivePeriod"]);
    say(at.is_null() == period.is_null(), "no time, or two");
    for time in [at, &period["start"], &period["end"]].into_iter().filter(|time| !time.is_null()) {
        let zoned = time.as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok());
        say(!zoned, "a time without a zone");
    }
    let has = |element: &Value| value(element).is_some() || element["dataAbsentReason"].is_object();
    let components = observation["component"].as_array().map_or(&[][..], Vec::as_slice);
    say(value(observation).is_some() && observation["dataAbsentReason"].is_object(), "a value, and a reason why there is none");
    say(!has(observation) && components.is_empty(), "neither a value nor a reason (vs-2)");
    say(components.iter().any(|component| !has(component)), "a component with neither a value nor a reason (vs-3)");
    for element in std::iter::once(observation).chain(components) {
        let quantity = &element["valueQuantity"];
        let complete = quantity["value"].is_number()
            && quantity["unit"].as_str().is_some_and(|unit| !unit.is_empty())
            && quantity["system"] == UCUM
            && quantity["code"].is_string();
        say(!quantity.is_null() && !complete, "a quantity without value, unit, system or code");
    }
}

/// Code and unit are of one property, as the tables of facts say.
fn codes_and_units(observation: &Value, wrong: &mut Vec<String>) {
    let rules = rules();
    let components = observation["component"].as_array().map_or(&[][..], Vec::as_slice);
    for element in std::iter::once(observation).chain(components) {
        let unit = element["valueQuantity"]["code"].as_str();
        for code in codes(element, LOINC) {
            let Some(rule) = rules.get(code) else {
                wrong.push(format!("LOINC {code} is of no table"));
                continue;
            };
            if let Some(unit) = unit.filter(|unit| !rule.units.iter().any(|known| known == unit)) {
                wrong.push(format!("LOINC {code} with the unit {unit}"));
            }
            if !rule.with.is_empty() && !codes(element, LOINC).any(|other| other == rule.with) {
                wrong.push(format!("LOINC {code} without {}", rule.with));
            }
            if (rule.category == "component") == std::ptr::eq(element, observation) {
                wrong.push(format!("LOINC {code} in the wrong place"));
            }
            let filed = categories(observation).any(|category| category == rule.category);
            if rule.category != "component" && !filed {
                wrong.push(format!("LOINC {code} is not filed under {}", rule.category));
            }
        }
        for code in codes(element, MDC) {
            mdc(element, code, unit, wrong);
        }
    }
    for profile in profiles(observation).filter_map(|profile| profile.strip_prefix(US_CORE)) {
        if !codes(observation, LOINC).any(|code| rules.get(code).is_some_and(|rule| rule.profile == profile)) {
            wrong.push(format!("{profile} is claimed without its code"));
        }
    }
}

/// A kind has rows of its own by site; a code that has none is known to a second source.
fn mdc(element: &Value, code: &str, unit: Option<&str>, wrong: &mut Vec<String>) {
    let facts: Vec<_> = table("mapping.csv").into_iter().filter(|fact| fact["mdc_code"] == code).collect();
    if facts.is_empty() {
        if !table("second_source.csv").iter().any(|fact| fact["system"] == "mdc" && fact["code"] == code) {
            wrong.push(format!("MDC {code} is of no table"));
        }
        return;
    }
    for loinc in codes(element, LOINC) {
        if !facts.iter().any(|fact| fact["loinc"].contains(loinc)) {
            wrong.push(format!("MDC {code} beside LOINC {loinc}"));
        }
    }
    let by_word = |cell: &str, unit: &str| cell.split([' ', '(', ')', ',']).any(|word| word == unit);
    if let Some(unit) =
        unit.filter(|unit| !facts.iter().any(|fact| by_word(&fact["ucum"], unit)) && !same_size(&facts[0]["ucum"], unit))
    {
        wrong.push(format!("MDC {code} with the unit {unit}"));
    }
}

/// Multiples of a unit of the table that have no cell of their own.
fn same_size(cell: &str, unit: &str) -> bool {
    matches!((cell, unit), ("ms", "s") | ("L", "mL") | ("kg or [lb_av]", "g"))
}

/// R4's vital signs and US Core's: by code, whatever profile is claimed.
fn vital_signs(observation: &Value, wrong: &mut Vec<String>) {
    let vital = categories(observation).any(|category| category == "vital-signs");
    let rules = rules();
    let mut say = |bad: bool, what: &str| {
        if bad {
            wrong.push(what.to_owned());
        }
    };
    let is_vital = |code: &str| rules.get(code).is_some_and(|rule| rule.category == "vital-signs");
    let coded = codes(observation, LOINC).any(is_vital);
    say(vital && !coded, "filed as a vital sign without the code of one");
    say(vital && observation["effectiveDateTime"].is_null(), "a vital sign without a dateTime (vs-1)");
    say(vital && observation["valueSampledData"].is_object(), "samples as a vital sign");
    if codes(observation, LOINC).any(|code| code == "85354-9") {
        say(value(observation).is_some(), "a pressure with a value of its own");
        let components = observation["component"].as_array().map_or(&[][..], Vec::as_slice);
        for needed in ["8480-6", "8462-4"] {
            let found = components.iter().filter(|component| codes(component, LOINC).any(|code| code == needed)).count();
            say(found != 1, &format!("a pressure without {needed}"));
        }
    }
}

/// PHD 2.0.0, its base and the profile that is claimed.
fn personal_health_device(observation: &Value, wrong: &mut Vec<String>) {
    let mut say = |bad: bool, what: &str| {
        if bad {
            wrong.push(format!("PHD: {what}"));
        }
    };
    let extensions = observation["extension"].as_array().map_or(&[][..], Vec::as_slice);
    let gateways = extensions.iter().filter(|extension| {
        extension["url"] == "http://hl7.org/fhir/StructureDefinition/observation-gatewayDevice"
            && extension["valueReference"]["reference"].is_string()
    });
    let of_category = observation["category"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let phd =
        of_category.filter(|category| category["coding"][0]["system"] == PHD_CATEGORY && category["coding"][0]["code"] == "phd");
    say(gateways.count() != 1, "no gateway");
    say(phd.count() != 1, "not filed under phd");
    say(!observation["device"]["reference"].is_string(), "no device by reference");
    say(codes(observation, MDC).count() != 1, "no MDC code, or two (mdc-1)");
    for interpretation in observation["interpretation"].as_array().map_or(&[][..], Vec::as_slice) {
        let coding = interpretation["coding"].as_array().map_or(&[][..], Vec::as_slice);
        let of_status = |coding: &&Value| coding["system"] == "http://hl7.org/fhir/uv/pocd/CodeSystem/measurement-status";
        say(coding.iter().filter(of_status).count() != 1, "an interpretation without one measurement status");
    }
    let kinds: Vec<&str> = profiles(observation).filter_map(|profile| profile.strip_prefix(PHD)).collect();
    say(kinds.len() != 1, "two of its profiles");
    let components = observation["component"].as_array().map_or(&[][..], Vec::as_slice);
    match kinds[0] {
        "PhdNumericObservation" => say(value(observation).is_some_and(|name| name != "valueQuantity"), "a number that is none"),
        "PhdCompoundNumericObservation" => {
            say(value(observation).is_some(), "a compound with a value");
            say(components.iter().any(|part| codes(part, MDC).count() != 1), "a part without an MDC code");
        }
        "PhdBitsEnumerationObservation" => {
            say(value(observation).is_some(), "bits with a value");
            let of_bits = |part: &Value| {
                let code = &part["code"]["coding"][0];
                let field = codes(observation, MDC).next().unwrap_or_default().to_owned();
                let (of, bit) = code["code"].as_str().and_then(|code| code.split_once('.')).unwrap_or_default();
                code["system"] == "http://terminology.hl7.org/CodeSystem/ASN1ToHL7"
                    && of == field
                    && bit.parse::<u8>().is_ok_and(|bit| bit < 32)
            };
            say(components.is_empty() || !components.iter().all(of_bits), "a part that is no bit of its field");
            say(components.iter().any(|part| !part["valueBoolean"].is_boolean()), "a bit that is none");
        }
        "PhdCodedEnumerationObservation" => say(value(observation) != Some("valueCodeableConcept"), "a code that is none"),
        "PhdRtsaObservation" => say(value(observation) != Some("valueSampledData"), "samples that are none"),
        other => say(true, other),
    }
}

fn value(element: &Value) -> Option<&str> {
    element.as_object()?.keys().map(String::as_str).find(|key| key.starts_with("value"))
}

fn codes<'a>(element: &'a Value, system: &'a str) -> impl Iterator<Item = &'a str> {
    let coding = element["code"]["coding"].as_array().map_or(&[][..], Vec::as_slice);
    coding.iter().filter(move |coding| coding["system"] == system).filter_map(|coding| coding["code"].as_str())
}

fn categories(observation: &Value) -> impl Iterator<Item = &str> {
    let categories = observation["category"].as_array().map_or(&[][..], Vec::as_slice);
    let codings = categories.iter().flat_map(|category| category["coding"].as_array().map_or(&[][..], Vec::as_slice));
    codings.filter(|coding| coding["system"] == CATEGORY).filter_map(|coding| coding["code"].as_str())
}

fn profiles(observation: &Value) -> impl Iterator<Item = &str> {
    observation["meta"]["profile"].as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str)
}

fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(map) => {
            let own = map.get("reference").and_then(Value::as_str);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => vec![],
    }
}

struct Rule {
    with: String,
    category: String,
    units: Vec<String>,
    profile: String,
}

fn rules() -> BTreeMap<String, Rule> {
    let rules: BTreeMap<_, _> = table("fhir_rules.csv")
        .into_iter()
        .map(|mut fact| {
            let mut take = |name: &str| fact.remove(name).expect("a column");
            let units = take("units").split(' ').map(str::to_owned).collect();
            (take("loinc"), Rule { with: take("with"), category: take("category"), units, profile: take("profile") })
        })
        .collect();
    assert_eq!(rules.len(), 28, "the table was not found whole");
    rules
}
