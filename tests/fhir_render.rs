//! Records as Observations: every kind is valid by a table of rules of its own, no digit is lost, and what is wrong is found.

mod facts;
mod items;
#[path = "fhir/rules.rs"]
mod rules;

use std::collections::BTreeSet;

use bedrail::deliver::fhir::{
    ChartMap, Charted, DeviceSaid, NotCharted, References, Rendered, Revision, Shape, chart_row, clock, gateway, render, sensor,
};
use bedrail::deliver::{Choice, Item};
use bedrail::reading::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use facts::SITES;
use items::{NOON, blood_pressure, every_kind, item, reading, stats, stream, window};
use rules::broken;

/// Kinds of the table of facts that make no Observation of a patient.
const NOT_CHARTED: &[(&str, &str)] = &[
    ("pleth_wave", "no device of ours sends one; waveforms are off by default"),
    ("glucose_control_solution", "never a reading"),
    ("steps", "no metric: its code was never checked"),
    ("battery_level", "about the device"),
    ("coincident_timestamp", "about the device: see the comparison of clocks"),
];

#[test]
fn every_kind_of_the_table_of_facts_is_rendered_and_valid() {
    let mut codes = BTreeSet::new();
    for (item, shape, to) in everything() {
        let rendered = render(&item, &shape, &to, Revision::First).unwrap_or_else(|error| panic!("{}: {error}", of(&item)));
        for observation in std::iter::once(&rendered.observation).chain(&rendered.beside) {
            let json = serde_json::to_value(observation).expect("JSON");
            assert_eq!(broken(&json), Vec::<String>::new(), "{}: {json:#}", of(&item));
            let parts = json["component"].as_array().into_iter().flatten().chain([&json]);
            let codings =
                parts.flat_map(|part| part["code"]["coding"].as_array().into_iter().flatten().cloned().collect::<Vec<_>>());
            codes.extend(
                codings
                    .filter(|coding| coding["system"] == "urn:iso:std:iso:11073:10101")
                    .map(|coding| coding["code"].to_string()),
            );
        }
    }
    for fact in facts::table("mapping.csv") {
        let rendered = codes.contains(&format!("\"{}\"", fact["mdc_code"]));
        let not = NOT_CHARTED.iter().find(|(kind, _)| *kind == fact["kind"]);
        assert_ne!(rendered, not.is_some(), "{}", fact["kind"]);
    }
}

#[test]
fn loinc_comes_first_and_the_device_code_is_always_there() {
    let rendered = json(&blood());
    let systems: Vec<_> =
        rendered["code"]["coding"].as_array().unwrap().iter().map(|coding| coding["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["http://loinc.org", "urn:iso:std:iso:11073:10101"]);
    assert_eq!(rendered["code"]["coding"][1]["display"], "MDC_PRESS_BLD_NONINV");
    assert_eq!(rendered["component"][0]["code"]["coding"][1]["display"], "MDC_PRESS_BLD_NONINV_SYS");
}

#[test]
fn digits_are_written_as_the_device_sent_them() {
    let text = text(&items::temperature(), &shape(), &references());
    assert!(text.contains(r#""valueQuantity":{"value":36.60,"unit":"°C","#), "{text}");
    let odd = item(Some(stream(Metric::BodyWeight, Modality::Spot)), number(Decimal::new(700, -1), Unit::Kilogram));
    assert!(self::text(&odd, &shape(), &references()).contains(r#""value":70.0,"#));
    // As binary floats these have other digits.
    for (mantissa, exponent, written) in [(1, -1, "0.1"), (100_000_000_000_000_001, -16, "10.0000000000000001"), (30, -2, "0.30")]
    {
        let item =
            item(Some(stream(Metric::BodyWeight, Modality::Spot)), number(Decimal::new(mantissa, exponent), Unit::Kilogram));
        let text = self::text(&item, &shape(), &references());
        assert!(text.contains(&format!(r#""value":{written},"#)), "{text}");
    }
}

#[test]
fn the_four_classes_of_a_value_are_told_apart() {
    let glucose = |class, value| {
        let mut item = item(
            Some(StreamKey { site: Some(Site::CapillaryWholeBlood), ..stream(Metric::Glucose, Modality::Spot) }),
            Body::Reading(reading(value, class)),
        );
        item.subject = Some("p-017".parse().unwrap());
        json(&item)
    };
    let (value, unit) = (Decimal::new(99, 0), Unit::MilligramPerDecilitre);
    let measured = glucose(Class::Measured, Value::Number { value, unit });
    assert!(
        measured["valueQuantity"].is_object() && measured["interpretation"].is_null() && measured["dataAbsentReason"].is_null()
    );
    for (range, code) in [(OutOfRange::Low, "negative-infinity"), (OutOfRange::High, "positive-infinity")] {
        let out = glucose(Class::OutOfRange(range), Value::NoNumber { unit });
        assert!(out["valueQuantity"].is_null());
        assert_eq!((out["dataAbsentReason"]["coding"][0]["code"].as_str(), out["status"].as_str()), (Some(code), Some("final")));
        assert!(out["interpretation"].is_null(), "a limit of the device is no low or high result");
        assert_eq!(out["code"]["coding"][0]["code"], "32016-8", "mass, though there is no number");
    }
    let doubted = glucose(Class::Questionable, Value::Number { value, unit });
    assert_eq!(doubted["interpretation"][0]["coding"][0]["code"], "questionable");
    let no_value = Body::Event(Event::NoValue(NoValue::SensorOff));
    let nothing = render(&item(Some(stream(Metric::Spo2, Modality::Spot)), no_value), &shape(), &references(), Revision::First);
    assert!(matches!(nothing, Err(error) if error.is_nothing()));
}

#[test]
fn a_pressure_has_both_parts_or_says_why_not() {
    let parts = |systolic, diastolic, mean| {
        let parts = vec![(Component::Systolic, systolic), (Component::Diastolic, diastolic), (Component::Mean, mean)];
        Value::Compound { parts, unit: Unit::MillimetreOfMercury }
    };
    let number = |n| Some(Decimal::new(n, 0));
    let of =
        |value, class| json(&item(Some(stream(Metric::BloodPressure, Modality::Spot)), Body::Reading(reading(value, class))));
    let codes = |json: &Json| -> Vec<String> {
        let reason = |part: &Json| part["dataAbsentReason"]["coding"][0]["code"].as_str().unwrap_or("value").to_owned();
        json["component"].as_array().unwrap().iter().map(reason).collect()
    };
    let all = of(parts(number(120), number(80), number(93)), Class::Measured);
    assert_eq!(codes(&all), ["value", "value", "value"]);
    let no_mean = of(parts(number(120), number(80), None), Class::Measured);
    assert_eq!(codes(&no_mean), ["value", "value"], "most cuffs never tell a mean");
    let no_diastolic = of(parts(number(120), None, number(93)), Class::Measured);
    assert_eq!(codes(&no_diastolic), ["value", "error", "value"]);
    let too_high = of(parts(None, number(80), number(93)), Class::OutOfRange(OutOfRange::High));
    assert_eq!(codes(&too_high), ["positive-infinity", "value", "value"]);
    // Which of the two it was is not known.
    let one_of_two = of(parts(None, number(80), None), Class::OutOfRange(OutOfRange::High));
    assert_eq!(codes(&one_of_two), ["error", "value"]);
    for json in [all, no_mean, no_diastolic, too_high, one_of_two] {
        assert_eq!(broken(&json), Vec::<String>::new());
    }
}

#[test]
fn a_window_is_one_observation_with_an_actual_sample_at_its_own_time() {
    let summary = WindowSummary::Stats {
        median: Sample { at: NOON.plus_ms(17_000), value: Decimal::new(970, -1) },
        min: Sample { at: NOON.plus_ms(3_000), value: Decimal::new(940, -1) },
        max: Sample { at: NOON.plus_ms(4_000), value: Decimal::new(990, -1) },
        mean: Decimal::new(9685, -2),
    };
    let mut window = item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(window(Some(summary))));
    window.choice = Some(Choice { others: vec![DeviceId::new([1; 6])], sources_disagree: true });
    let text = text(&window, &shape(), &references());
    assert!(text.contains(r#""effectiveDateTime":"2026-11-23T12:00:17.000Z","valueQuantity":{"value":97.0,"#), "{text}");
    let json: Json = serde_json::from_str(&text).unwrap();
    let parts: Vec<_> =
        json["component"].as_array().unwrap().iter().map(|part| part["code"]["coding"][0]["code"].as_str().unwrap()).collect();
    assert_eq!(parts, ["minimum", "maximum", "count"]);
    assert_eq!(
        (json["component"][2]["valueInteger"].as_u64(), json["note"][0]["text"].as_str()),
        (Some(58), Some("measured by other devices as well: 01:01:01:01:01:01, which say something else"))
    );
    assert_eq!(broken(&json), Vec::<String>::new());
    // Nothing took part: there is nothing to chart.
    let empty = item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(items::window(None)));
    assert_eq!(render(&empty, &shape(), &references(), Revision::First).err(), Some(NotCharted::Empty));
}

#[test]
fn a_status_says_how_final_it_is() {
    let status =
        |item: &Item, shape: &Shape, revision| render(item, shape, &references(), revision).ok().unwrap().observation.status;
    let whole = item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(stats()));
    assert_eq!(status(&whole, &shape(), Revision::First), "final");
    assert_eq!(status(&whole, &Shape { preliminary: true, ..shape() }, Revision::First), "preliminary");
    assert_eq!(status(&whole, &shape(), Revision::Later), "amended");
    let side =
        item(Some(stream(Metric::Spo2, Modality::Continuous)), Body::Window(Window { to: NOON.plus_ms(20_000), ..stats() }));
    assert_eq!(status(&side, &shape(), Revision::Later), "corrected", "part of it was another person's");
    let early = Reading {
        flags: vec![Flag::EarlyEstimate],
        ..reading(Value::Number { value: Decimal::new(97, 0), unit: Unit::Percent }, Class::Questionable)
    };
    assert_eq!(
        status(&item(Some(stream(Metric::Spo2, Modality::Spot)), Body::Reading(early)), &shape(), Revision::First),
        "preliminary"
    );
}

#[test]
fn what_has_no_place_in_a_chart_says_why() {
    let refuse = |item: &Item, shape: &Shape| {
        render(item, shape, &references(), Revision::First).err().map(|error| (error.is_nothing(), error.to_string()))
    };
    for item in every_kind() {
        let nothing = matches!(item.record.body, Body::Event(_) | Body::Gap(_) | Body::Retraction(_) | Body::Waveform(_));
        let said = refuse(&item, &shape());
        if nothing {
            assert_eq!(said.map(|(nothing, _)| nothing), Some(true), "{}", of(&item));
        }
    }
    let battery = item(Some(stream(Metric::BatteryLevel, Modality::Spot)), number(Decimal::new(80, 0), Unit::Percent));
    assert_eq!(
        refuse(&battery, &shape()),
        Some((false, "battery_level is never charted; leave it out by filter.metrics".to_owned()))
    );
    let unmapped = Shape { map: ChartMap::new(), ..shape() };
    let said = refuse(&blood(), &unmapped);
    assert_eq!(
        said,
        Some((false, "blood_pressure has no row in route.map; add one, then `bedrail dead-letters retry`".to_owned()))
    );
    let wrong =
        Shape { map: [(Metric::BodyWeight, Charted { unit: Some(Unit::Percent), ..Charted::default() })].into(), ..shape() };
    let weight = item(Some(stream(Metric::BodyWeight, Modality::Spot)), number(Decimal::new(70, 0), Unit::Kilogram));
    assert!(
        refuse(&weight, &wrong).is_some_and(|(nothing, text)| !nothing && text.contains("body_weight in kg can't be told in %"))
    );
    let mut no_time = blood();
    no_time.measured = Instant::Unknown;
    assert_eq!(render(&no_time, &shape(), &references(), Revision::First).err(), Some(NotCharted::NoTime));
}

#[test]
fn the_device_is_said_as_the_route_wants_it() {
    let of = |device| {
        let json: Json = serde_json::from_str(&text(&blood(), &shape(), &References { device, ..references() })).unwrap();
        assert_eq!(broken(&json), Vec::<String>::new());
        json
    };
    assert!(of(DeviceSaid::Omitted)["device"].is_null());
    assert_eq!(of(DeviceSaid::Display)["device"].to_string(), r#"{"display":"oxi-07"}"#);
    let contained = of(DeviceSaid::Contained);
    assert_eq!(
        (contained["contained"][0]["id"].as_str(), contained["device"]["reference"].as_str()),
        (Some("device"), Some("#device"))
    );
    assert_eq!(contained["contained"][0]["identifier"][0]["value"], "00-1C-05-AB-CD-EF");
    let resource = of(DeviceSaid::Resource("Device/oxi".to_owned()));
    let profiles = |json: &Json| json["meta"]["profile"].to_string();
    assert!(profiles(&resource).contains("PhdCompoundNumericObservation"), "{}", profiles(&resource));
    assert!(!profiles(&of(DeviceSaid::Display)).contains("Phd"), "the guide wants the device by reference");
}

#[test]
fn a_site_changes_the_text_beside_a_number_and_nothing_else() {
    let charted = Charted { label: Some("Torr".to_owned()), ..Charted::default() };
    let shape = Shape { map: [(Metric::BloodPressure, charted)].into(), ..shape() };
    let json: Json = serde_json::from_str(&text(&blood(), &shape, &references())).unwrap();
    let quantity = &json["component"][0]["valueQuantity"];
    assert_eq!((quantity["unit"].as_str(), quantity["code"].as_str()), (Some("Torr"), Some("mm[Hg]")));
}

#[test]
fn what_is_not_for_care_is_marked_as_test_data() {
    let marked = |test| text(&blood(), &Shape { test, ..shape() }, &references()).contains("HTEST");
    assert!(marked(true) && !marked(false));
}

#[test]
fn devices_are_named_by_what_no_other_device_has() {
    let sensor = serde_json::to_value(sensor(&blood(), None)).unwrap();
    assert_eq!(sensor["identifier"][0]["system"], "http://hl7.org/fhir/sid/eui-48/bluetooth");
    assert_eq!(sensor["identifier"][0]["value"], "00-1C-05-AB-CD-EF");
    assert_eq!(sensor["type"]["coding"][0]["code"], "65573");
    assert_eq!(sensor["specialization"][0]["systemType"]["coding"][0]["code"], "528392");
    assert!(sensor["meta"].is_null(), "PhdDevice wants a manufacturer and a model, which are not known");
    let gateway = serde_json::to_value(gateway("3w-gw-01", &shape())).unwrap();
    assert_eq!(
        (gateway["identifier"][0]["value"].as_str(), gateway["type"]["coding"][0]["code"].as_str()),
        (Some("3w-gw-01"), Some("531981"))
    );
}

#[test]
fn the_comparison_of_clocks_is_about_the_device_and_one_a_connection() {
    let mut item = items::temperature();
    let shown = DeviceTime { year: Some(2026), month: Some(11), day: Some(23), hour: 12, minute: 58, second: 30 };
    item.record.stamp.device_clock = Some((shown, BootMillis(4_000)));
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
    let of = |item: &Item| serde_json::to_value(clock(item, &shape(), &zone, NOON, "Device/oxi", "Device/gw")).unwrap();
    let first = of(&item);
    assert_eq!(
        (first["subject"]["reference"].as_str(), first["device"]["reference"].as_str()),
        (Some("Device/oxi"), Some("Device/gw"))
    );
    assert_eq!(
        (first["effectiveDateTime"].as_str(), first["valueDateTime"].as_str()),
        (Some("2026-11-23T12:00:00.000Z"), Some("2026-11-23T11:58:30.000Z"))
    );
    assert!(!first.to_string().contains("Patient"), "it is no patient's");
    let mut other = item.clone();
    other.record.id = RecordId([9; 16]);
    assert_eq!(of(&other), first, "values of one connection share it");
    other.record.stamp.device_clock = Some((shown, BootMillis(9_000)));
    assert_ne!(of(&other)["identifier"], first["identifier"]);
}

/// What the rules are worth: each of these is wrong in one way, and is found.
#[test]
fn what_is_wrong_is_refused_by_the_rules() {
    let bad = |name: &str, observation: &Json, change: &dyn Fn(&mut Json)| {
        assert_eq!(broken(observation), Vec::<String>::new());
        let mut changed = observation.clone();
        change(&mut changed);
        assert!(!broken(&changed).is_empty(), "{name} was not found");
    };
    let to = References { device: DeviceSaid::Resource("Device/oxi".to_owned()), ..references() };
    let of = |item: &Item| serde_json::from_str::<Json>(&text(item, &shape(), &to)).unwrap();
    let pressure = of(&blood());
    let pulse = of(&item(Some(stream(Metric::HeartRate, Modality::Spot)), number(Decimal::new(72, 0), Unit::PerMinute)));
    let oximetry = of(&item(Some(stream(Metric::Spo2, Modality::Spot)), number(Decimal::new(97, 0), Unit::Percent)));
    let glucose = StreamKey { site: Some(Site::CapillaryWholeBlood), ..stream(Metric::Glucose, Modality::Spot) };
    let glucose = of(&item(Some(glucose), number(Decimal::new(99, 0), Unit::MilligramPerDecilitre)));

    bad("a wrong unit", &pulse, &|json| json["valueQuantity"]["code"] = "{beats}/min".into());
    bad("a unit without its system", &pulse, &|json| json["valueQuantity"]["system"] = "http://example.org".into());
    bad("a pressure without its diastolic part", &pressure, &|json| {
        json["component"].as_array_mut().unwrap().remove(1);
    });
    bad("a part coded as something else", &pressure, &|json| json["component"][1]["code"]["coding"][0]["code"] = "8867-4".into());
    bad("an amount under the code of a mass", &glucose, &|json| json["valueQuantity"]["code"] = "mmol/L".into());
    bad("a mass under the code of an amount", &glucose, &|json| json["code"]["coding"][0]["code"] = "14743-9".into());
    bad("a saturation without its second code", &oximetry, &|json| {
        json["code"]["coding"].as_array_mut().unwrap().remove(1);
    });
    bad("a vital sign filed as something else", &pulse, &|json| json["category"][0]["coding"][0]["code"] = "exam".into());
    bad("a vital sign over a span", &pulse, &|json| {
        let at = json.as_object_mut().unwrap().remove("effectiveDateTime").unwrap();
        json["effectivePeriod"] = serde_json::json!({ "start": at });
    });
    bad("a time without a zone", &pulse, &|json| json["effectiveDateTime"] = "2026-11-23T12:00:00".into());
    bad("no value and no reason", &pulse, &|json| {
        json.as_object_mut().unwrap().remove("valueQuantity");
    });
    bad("a patient that is a search", &pulse, &|json| json["subject"]["reference"] = "Patient?identifier=x|1".into());
    bad("a device that is a search", &pulse, &|json| json["device"]["reference"] = "Device?identifier=x|1".into());
    bad("a modifier extension", &pulse, &|json| json["modifierExtension"] = serde_json::json!([{ "url": "x" }]));
    bad("no gateway", &pulse, &|json| {
        json.as_object_mut().unwrap().remove("extension");
    });
    bad("a device only by name", &pulse, &|json| json["device"] = serde_json::json!({ "display": "oxi-07" }));
    bad("no device code", &pulse, &|json| {
        json["code"]["coding"].as_array_mut().unwrap().pop();
    });
    bad("the device code of something else", &pulse, &|json| json["code"]["coding"][1]["code"] = "150456".into());
    bad("a profile of something else", &pulse, &|json| {
        json["meta"]["profile"][0] = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-bmi".into()
    });
    bad("a code of no table", &pulse, &|json| json["code"]["coding"][0]["code"] = "8888-8".into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What the log has is what a reader of the Observation works out, by arithmetic of its own, in whatever unit the route asks.
    #[test]
    fn what_was_sent_converted_back_is_what_was_measured(mantissa in 1i64..1_000_000, exponent in -3i8..=1) {
        let value = Decimal::new(mantissa, exponent);
        for row in METRICS.iter().filter(|row| row.components.is_empty()) {
            let Some(chart) = chart_row(row.metric) else { continue };
            for (measured, asked) in row.units.iter().flat_map(|unit| chart.units.iter().map(move |asked| (*unit, *asked))) {
                let charted = Charted { unit: Some(asked), ..Charted::default() };
                let shape = Shape { map: [(row.metric, charted)].into(), ..shape() };
                let sent = text(&item(Some(stream(row.metric, Modality::Spot)), number(value, measured)), &shape, &references());
                let sent: Sent = serde_json::from_str(&sent).unwrap();
                prop_assert_eq!(sent.value.code, asked.ucum());
                let number: Decimal = sent.value.value.get().parse().unwrap();
                prop_assert!(is_same(number, asked, value, measured), "{}: {value} {} -> {number} {}", row.name, measured.ucum(), asked.ucum());
            }
        }
    }

    #[test]
    fn a_pressure_told_in_kilopascal_is_charted_in_millimetres_and_back(systolic in 10i64..400, diastolic in 10i64..400) {
        let parts = [(Component::Systolic, systolic), (Component::Diastolic, diastolic)];
        let value = Value::Compound { parts: parts.map(|(part, n)| (part, Some(Decimal::new(n, -1)))).to_vec(), unit: Unit::Kilopascal };
        let item = item(Some(stream(Metric::BloodPressure, Modality::Spot)), Body::Reading(reading(value, Class::Measured)));
        let sent: Compound = serde_json::from_str(&text(&item, &shape(), &references())).unwrap();
        for (part, (_, n)) in sent.component.iter().zip(parts) {
            prop_assert_eq!(&part.value.code, "mm[Hg]");
            let number: Decimal = part.value.value.get().parse().unwrap();
            prop_assert!(is_same(number, Unit::MillimetreOfMercury, Decimal::new(n, -1), Unit::Kilopascal));
        }
    }
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "valueQuantity")]
    value: Quantity,
}

#[derive(Deserialize)]
struct Compound {
    component: Vec<Sent>,
}

#[derive(Deserialize)]
struct Quantity {
    value: Box<RawValue>,
    code: String,
}

/// Whether `sent`, converted back, rounds to `measured` at the resolution of that: |back - measured| is not more than half a step.
/// Ratios are those of the textbooks; a difference of ratios of whole numbers decides, so that nothing is rounded here.
fn is_same(sent: Decimal, asked: Unit, measured: Decimal, unit: Unit) -> bool {
    let (numerator, denominator, offset) = textbook(asked, unit);
    // All × denominator × 10^12.
    let whole =
        |value: Decimal| i128::from(value.mantissa()) * 10i128.pow(u32::try_from(12 + i32::from(value.exponent())).unwrap());
    let back = whole(sent) * numerator + offset * 10i128.pow(12);
    let off = (back - whole(measured) * denominator).abs();
    off * 2 <= whole(Decimal::new(1, measured.exponent())) * denominator
}

/// measured = (sent × numerator + offset) / denominator
fn textbook(sent: Unit, measured: Unit) -> (i128, i128, i128) {
    use Unit::*;
    match (sent, measured) {
        (a, b) if a == b => (1, 1, 0),
        (Kilogram, Pound) => (100_000_000, 45_359_237, 0),
        (Pound, Kilogram) => (45_359_237, 100_000_000, 0),
        (Gram, Kilogram) | (Millilitre, Litre) => (1, 1_000, 0),
        (Gram, Pound) => (100_000, 45_359_237, 0),
        (Second, Millisecond) => (1_000, 1, 0),
        (Centimetre, Metre) => (1, 100, 0),
        (Inch, Metre) => (254, 10_000, 0),
        (Inch, Centimetre) => (254, 100, 0),
        (Centimetre, Inch) => (100, 254, 0),
        (MilligramPerDecilitre, MillimolePerLitre) => (10_000, 180_156, 0),
        (MillimolePerLitre, MilligramPerDecilitre) => (180_156, 10_000, 0),
        (MillimetreOfMercury, Kilopascal) => (133_322_387_415, 1_000_000_000_000, 0),
        (DegreeCelsius, DegreeFahrenheit) => (9, 5, 160),
        (DegreeFahrenheit, DegreeCelsius) => (5, 9, -160),
        (One, InternationalNormalizedRatio) => (1, 1, 0),
        (sent, measured) => panic!("{} for {} is of no textbook", sent.ucum(), measured.ucum()),
    }
}

/// Every record of every kind that a chart takes, in every unit a route may ask for, at every site it may have.
fn everything() -> impl Iterator<Item = (Item, Shape, References)> {
    let to = References { device: DeviceSaid::Resource("Device/oxi".to_owned()), ..references() };
    let charted = METRICS.iter().filter_map(|row| Some((row, chart_row(row.metric)?)));
    charted.flat_map(move |(row, chart)| {
        let own = |site: &&Site| row.metric.mdc_at(Some(**site)) != row.mdc || row.metric.refid_at(Some(**site)) != row.refid;
        let sites: Vec<_> = std::iter::once(None).chain(SITES.iter().filter(own).copied().map(Some)).collect();
        let to = to.clone();
        let mut all = Vec::new();
        for (site, measured) in sites.into_iter().flat_map(|site| row.units.iter().map(move |unit| (site, *unit))) {
            for asked in chart.units.iter().copied().map(Some).chain([None]) {
                let charted = Charted { unit: asked, ..Charted::default() };
                let shape = Shape { map: [(row.metric, charted)].into(), waveforms: true, ..shape() };
                for (modality, body) in bodies(row, measured) {
                    let key = StreamKey { site, ..stream(row.metric, modality) };
                    all.push((item(Some(key), body), shape.clone(), to.clone()));
                }
            }
        }
        all
    })
}

fn bodies(row: &MetricRow, unit: Unit) -> Vec<(Modality, Body)> {
    let value = Decimal::new(971, -1);
    if !row.components.is_empty() {
        let parts = |mean| {
            row.components
                .iter()
                .map(|part| (part.component, (part.component != Component::Mean || mean).then_some(value)))
                .collect()
        };
        let flags = vec![Flag::BodyMovement, Flag::CuffTooLoose];
        let doubted = Reading { flags, ..reading(Value::Compound { parts: parts(true), unit }, Class::Questionable) };
        let plain = reading(Value::Compound { parts: parts(false), unit }, Class::Measured);
        return [doubted, plain].map(|reading| (Modality::Spot, Body::Reading(reading))).to_vec();
    }
    let number = Value::Number { value, unit };
    let flags = vec![Flag::PoorSignal, Flag::EarlyEstimate, Flag::Postprandial];
    let mut bodies = vec![
        (Modality::Spot, reading(number.clone(), Class::Measured)),
        (Modality::Spot, Reading { flags, ..reading(number, Class::Questionable) }),
        (Modality::Spot, reading(Value::NoNumber { unit }, Class::OutOfRange(OutOfRange::High))),
    ]
    .into_iter()
    .map(|(modality, reading)| (modality, Body::Reading(reading)))
    .collect::<Vec<_>>();
    let sample = Sample { at: NOON, value };
    let summary = match row.summary {
        Summary::None => return bodies,
        Summary::Stats => WindowSummary::Stats { median: sample, min: sample, max: sample, mean: value },
        Summary::Last => WindowSummary::Last { last: sample },
        Summary::Counter => WindowSummary::Counter { increase: value, resets: 0, last: sample },
    };
    bodies.push((Modality::Continuous, Body::Window(Window { unit, ..window(Some(summary)) })));
    let waveform = Waveform { origin: value, scale: Decimal::new(5, -3), unit, period_us: 13_333, samples: vec![0, -7] };
    bodies.push((Modality::Continuous, Body::Waveform(waveform)));
    bodies
}

fn number(value: Decimal, unit: Unit) -> Body {
    Body::Reading(reading(Value::Number { value, unit }, Class::Measured))
}

fn blood() -> Item {
    item(Some(stream(Metric::BloodPressure, Modality::Spot)), blood_pressure())
}

fn of(item: &Item) -> String {
    format!("{:?} {}", item.record.stream, item.record.body.kind())
}

fn json(item: &Item) -> Json {
    let json: Json = serde_json::from_str(&text(item, &shape(), &references())).unwrap();
    assert_eq!(broken(&json), Vec::<String>::new());
    json
}

fn text(item: &Item, shape: &Shape, to: &References) -> String {
    let Rendered { observation, .. } =
        render(item, shape, to, Revision::First).unwrap_or_else(|error| panic!("{}: {error}", of(item)));
    serde_json::to_string(&observation).unwrap()
}

fn shape() -> Shape {
    let map = METRICS.iter().filter(|row| chart_row(row.metric).is_some()).map(|row| (row.metric, Charted::default()));
    Shape {
        identifier_system: "urn:oid:2.999.9.1".to_owned(),
        preliminary: false,
        map: map.collect(),
        us_core: true,
        phd: true,
        periods: false,
        test: false,
        waveforms: false,
        beside: true,
        own_ids: true,
    }
}

fn references() -> References {
    References {
        patient: "Patient/17".to_owned(),
        device: DeviceSaid::Omitted,
        gateway: Some("Device/gw".to_owned()),
        ..References::default()
    }
}
