//! The table of metrics says what two tables of facts say: `tests/facts/mapping.csv` (kind, MDC, LOINC, UCUM, each with how sure
//! it is: A a standard that was read, B another public table, C to be checked) and `tests/facts/mdc_map.json`. What only C
//! vouches for has to be in `tests/facts/second_source.csv` as well, or is left out.

mod facts;

use std::collections::BTreeSet;

use bedrail::reading::{METRICS, Metric, Site, Unit};
use facts::{Fact, SITES, file, table};

/// Kinds of the table that are no numeric metric, or that nobody could check.
const NO_METRIC: &[(&str, &str)] = &[
    ("bp_status", "bits: flags of the pressure"),
    ("spo2_device_status", "bits: flags of the saturation"),
    ("pleth_wave", "a waveform"),
    ("glucose_control_solution", "never a reading"),
    ("glucose_meal_context", "a code: a flag of the glucose"),
    ("steps", "its MDC code is only C, and no second source was found"),
    ("coincident_timestamp", "the device's clock: beside every reading"),
];

/// LOINC codes that are only C and were found in no second source.
const UNCHECKED_LOINC: &[&str] = &["8637-1", "8889-8", "8328-7", "8331-1", "8332-9", "8333-7", "6301-6"];

/// LOINC codes of another unit than the one that is sent.
const OTHER_UNIT_LOINC: &[&str] = &["41981-2"];

/// Codes that the first table lacks and the other two have.
const NOT_IN_MAPPING: &[u32] = &[150_300, 160_020, 160_220, 8_417_760, 8_417_764, 8_417_796];

#[test]
fn every_code_of_a_metric_is_that_of_the_table_of_facts() {
    let facts = mapping();
    for row in METRICS {
        let of_code: Vec<_> = facts.iter().filter(|fact| fact["mdc_code"] == row.mdc.to_string()).collect();
        if of_code.is_empty() {
            assert!(NOT_IN_MAPPING.contains(&row.mdc), "{} has a code of no table", row.name);
            let second = second_source("mdc", &row.mdc.to_string());
            assert!(second.is_none_or(|name| name == row.refid), "{}: {}", row.name, row.refid);
        }
        for fact in of_code {
            assert_eq!(fact["mdc_refid"], row.refid, "{}", row.name);
            let units: BTreeSet<_> = row.units.iter().map(|unit| unit.ucum()).collect();
            assert!(units.iter().any(|unit| fact["ucum"].contains(unit)), "{}: {units:?}", row.name);
        }
    }
}

#[test]
fn every_kind_of_the_table_of_facts_is_a_metric_or_says_why_not() {
    for fact in mapping() {
        let code: u32 = fact["mdc_code"].parse().expect("a code");
        let kind = fact["kind"].as_str();
        match NO_METRIC.iter().find(|(known, _)| *known == kind) {
            Some((_, why)) => assert!(!codes().contains(&code), "{kind} is a metric, and not: {why}"),
            None => assert!(codes().contains(&code), "{kind} ({code}) is no metric"),
        }
    }
}

#[test]
fn every_loinc_code_is_of_the_table_of_facts_and_none_is_vouched_for_by_memory_alone() {
    let facts = mapping();
    for (metric, site, unit) in everything() {
        let codes = metric.loinc_at(site, Some(unit));
        let mdc = metric.mdc_at(site).to_string();
        let of_code: Vec<_> = facts.iter().filter(|fact| fact["mdc_code"] == mdc).collect();
        for loinc in codes {
            let known = of_code.iter().any(|fact| fact["loinc"].contains(loinc)) || json_codes().contains(*loinc);
            assert!(known, "{metric} at {site:?}: {loinc} is of no table");
            let only_memory = of_code.iter().any(|fact| is_only_c(fact, loinc));
            assert!(!only_memory || second_source("loinc", loinc).is_some(), "{metric}: {loinc} was never checked");
            assert!(!UNCHECKED_LOINC.contains(loinc), "{metric}: {loinc}");
        }
        // Mass and amount of substance have codes of their own: sending one for the other is a wrong result.
        if let Some(fact) = of_code.iter().find(|fact| fact["loinc"].contains("mmol/L:")) {
            let (mass, amount) = fact["loinc"].split_once("mmol/L:").expect("both");
            let side = if unit == Unit::MillimolePerLitre { amount } else { mass };
            assert!(codes.iter().all(|loinc| side.contains(loinc)), "{metric} in {}: {codes:?}", unit.ucum());
            assert!(!codes.is_empty(), "{metric} at {site:?} in {} has a code", unit.ucum());
        }
    }
}

/// Codes a table has and the code lacks are listed above with their reason: the list can't go stale.
#[test]
fn a_loinc_code_that_was_checked_is_not_left_out() {
    let ours: BTreeSet<&str> = everything().flat_map(|(metric, site, unit)| metric.loinc_at(site, Some(unit))).copied().collect();
    let components = METRICS.iter().flat_map(|row| row.components).map(|component| component.loinc);
    let ours: BTreeSet<&str> = ours.into_iter().chain(components).collect();
    for fact in mapping().iter().filter(|fact| !NO_METRIC.iter().any(|(kind, _)| *kind == fact["kind"])) {
        for loinc in fact["loinc"].split([' ', ';', ',', '(', ')']).filter(|word| is_loinc(word)) {
            let left_out = UNCHECKED_LOINC.contains(&loinc) || OTHER_UNIT_LOINC.contains(&loinc);
            assert_ne!(ours.contains(loinc), left_out, "{}: {loinc}", fact["kind"]);
        }
    }
}

#[test]
fn the_map_of_the_decoders_fields_says_the_same() {
    for fact in map() {
        let field = fact["field"].as_str().expect("a field");
        if let Some(code) = fact["mdc"].as_u64().filter(|_| field != "glucose.control_solution") {
            assert!(codes().contains(&u32::try_from(code).expect("a code")), "{field}: {code}");
        }
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            number => number.to_string(),
        };
        let (units, ucum) = (text(&fact["mdc_unit"]), text(&fact["ucum"]));
        for (code, ucum) in units.split('|').zip(ucum.split('|')).filter(|(code, _)| !code.is_empty()) {
            let unit = Unit::from_mdc(code.parse().expect("a code")).map(Unit::ucum);
            assert_eq!(unit, Some(ucum), "{field}");
        }
    }
}

#[test]
fn every_unit_code_is_in_one_of_the_tables() {
    let map = map();
    let of_map = |code: u32, ucum: &str| {
        map.iter().any(|fact| {
            let codes = fact["mdc_unit"].as_str().map_or_else(|| fact["mdc_unit"].to_string(), str::to_owned);
            let units = fact["ucum"].as_str().unwrap_or_default();
            codes.split('|').zip(units.split('|')).any(|pair| pair == (code.to_string().as_str(), ucum))
        })
    };
    for unit in Unit::ALL {
        let Some(code) = unit.mdc() else { continue };
        let second = second_source("unit", &code.to_string());
        assert!(second.as_deref() == Some(unit.ucum()) || of_map(code, unit.ucum()), "{}: {code}", unit.ucum());
        assert!(second.is_none_or(|ucum| ucum == unit.ucum()), "{}: {code}", unit.ucum());
    }
}

/// Every metric at every site it may have, in every unit.
fn everything() -> impl Iterator<Item = (Metric, Option<Site>, Unit)> {
    METRICS.iter().flat_map(|row| {
        let own = |site: &&Site| row.metric.mdc_at(Some(**site)) != row.mdc;
        let sites: Vec<_> = std::iter::once(None).chain(SITES.iter().filter(own).copied().map(Some)).collect();
        sites.into_iter().flat_map(move |site| row.units.iter().map(move |unit| (row.metric, site, *unit)))
    })
}

fn codes() -> BTreeSet<u32> {
    let of_sites = everything().map(|(metric, site, _)| metric.mdc_at(site));
    of_sites.chain(METRICS.iter().flat_map(|row| row.components).map(|component| component.mdc)).collect()
}

/// The confidence beside the code where the cell gives one to each, else that of the whole cell.
fn is_only_c(fact: &Fact, loinc: &str) -> bool {
    let beside = fact["loinc"].split_once(loinc).map(|(_, rest)| rest).unwrap_or_default();
    match beside.find(['(', ';', ',']).map(|at| &beside[at..]) {
        Some(mark) if mark.starts_with("(C)") => true,
        _ => fact["loinc_confidence"] == "C",
    }
}

fn is_loinc(word: &str) -> bool {
    word.split_once('-').is_some_and(|(number, check)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(number) && digits(check) && check.len() == 1
    })
}

fn mapping() -> Vec<Fact> {
    let facts = table("mapping.csv");
    assert_eq!(facts.len(), 56, "the table was not found whole");
    facts
}

fn second_source(system: &str, code: &str) -> Option<String> {
    let found = table("second_source.csv").into_iter().find(|fact| fact["system"] == system && fact["code"] == code);
    found.map(|fact| {
        assert!(!fact["source"].is_empty(), "{code} names no source");
        fact["name"].clone()
    })
}

fn map() -> Vec<serde_json::Value> {
    let facts: Vec<serde_json::Value> = serde_json::from_str(&file("mdc_map.json")).expect("a list");
    assert_eq!(facts.len(), 36, "the table was not found whole");
    facts
}

fn json_codes() -> BTreeSet<String> {
    map().iter().filter_map(|fact| fact["loinc"].as_str().map(str::to_owned)).collect()
}
