//! What a device said beside a value, as Observations of their own: the bits of its measurement status, the meal of a glucose. They
//! have identities of their own, made of the value's, so that sending twice makes none twice.

use super::render::mdc;
use super::resource::{
    CodeableConcept, Coding, Identifier, Meta, Observation, ObservationComponent, PHD, PHD_CATEGORY, Reference, STATUS_BITS,
    Value,
};
use crate::deliver::Item;
use crate::reading::{Body, Flag, Metric, Reading};

/// Bits are named by the MDC code of their field and their place in it (ASN1ToHL7).
struct Bits {
    metric: Metric,
    name: &'static str,
    mdc: u32,
    refid: &'static str,
    bits: &'static [(u8, Flag, &'static str)],
}

const BITS: &[Bits] = &[
    Bits {
        metric: Metric::BloodPressure,
        name: "status",
        mdc: 8_410_608,
        refid: "MDC_BLOOD_PRESSURE_MEASUREMENT_STATUS",
        bits: &[
            (0, Flag::BodyMovement, "body-movement"),
            (1, Flag::CuffTooLoose, "cuff-too-loose"),
            (2, Flag::IrregularPulse, "irregular-pulse"),
            (3, Flag::PulseRateAboveRange, "pulse-over-range-limit"),
            (4, Flag::PulseRateBelowRange, "pulse-under-range-limit"),
            (5, Flag::ImproperPosition, "improper-body-position"),
        ],
    },
    Bits {
        metric: Metric::Spo2,
        name: "status",
        mdc: 150_604,
        refid: "MDC_PULS_OXIM_DEV_STATUS",
        bits: &[
            (2, Flag::SensorDisplaced, "sensor-displaced"),
            (5, Flag::ExternalInterference, "sensor-interference"),
            (7, Flag::QuestionablePulse, "signal-pulse-questionable"),
            (8, Flag::NonpulsatileSignal, "signal-non-pulsatile"),
            (9, Flag::ErraticPulse, "signal-erratic"),
            (10, Flag::LowPerfusion, "signal-low-perfusion"),
            (11, Flag::PoorSignal, "signal-poor"),
            (12, Flag::InadequateSignal, "signal-inadequate"),
            (13, Flag::SignalProcessingIrregular, "signal-processing-irregularity"),
            (14, Flag::EquipmentMalfunction, "device-equipment-malfunction"),
        ],
    },
];

const MEAL: (u32, &str) = (8_417_864, "MDC_CTXT_GLU_MEAL");

/// IEEE 11073-10417; bedtime has no code that two sources agree on.
const MEALS: &[(Flag, u32, &str)] = &[
    (Flag::Preprandial, 8_417_868, "MDC_CTXT_GLU_MEAL_PREPRANDIAL"),
    (Flag::Postprandial, 8_417_872, "MDC_CTXT_GLU_MEAL_POSTPRANDIAL"),
    (Flag::Fasting, 8_417_876, "MDC_CTXT_GLU_MEAL_FASTING"),
    (Flag::Casual, 8_417_880, "MDC_CTXT_GLU_MEAL_CASUAL"),
];

pub(super) fn beside(item: &Item, of: &Observation) -> Vec<Observation> {
    let (Body::Reading(reading), Some(stream)) = (&item.record.body, item.record.stream) else { return vec![] };
    let bits = BITS.iter().filter(|bits| bits.metric == stream.metric).filter_map(|bits| status(item, of, reading, bits));
    let meal = (stream.metric == Metric::Glucose).then(|| meal(item, of, reading)).flatten();
    bits.chain(meal).collect()
}

/// Only what is set: a device does not say which of the others it could tell.
fn status(item: &Item, of: &Observation, reading: &Reading, row: &Bits) -> Option<Observation> {
    let set = row.bits.iter().filter(|(_, flag, _)| reading.flags.contains(flag));
    let component: Vec<_> = set
        .map(|(bit, _, display)| ObservationComponent {
            code: CodeableConcept::of(STATUS_BITS, format!("{}.{bit}", row.mdc), Some(*display)),
            value: Some(Value::Boolean(true)),
            data_absent_reason: None,
        })
        .collect();
    let found = !component.is_empty();
    found
        .then(|| Observation { component, ..plain(item, of, row.name, mdc(row.mdc, row.refid), "PhdBitsEnumerationObservation") })
}

fn meal(item: &Item, of: &Observation, reading: &Reading) -> Option<Observation> {
    let (_, code, refid) = MEALS.iter().find(|(flag, ..)| reading.flags.contains(flag))?;
    let value = CodeableConcept { coding: vec![mdc(*code, refid)], text: None };
    Some(Observation {
        value: Some(Value::Concept(value)),
        ..plain(item, of, "meal", mdc(MEAL.0, MEAL.1), "PhdCodedEnumerationObservation")
    })
}

fn plain(item: &Item, of: &Observation, name: &str, code: Coding, phd: &str) -> Observation {
    let id = item.chart.beside(name).to_string();
    let is_phd = of.category.iter().any(|category| category.coding.iter().any(|coding| coding.system == PHD_CATEGORY));
    let main = of.id.as_ref().map(|id| Reference::to(&format!("Observation/{id}")));
    Observation {
        id: of.id.as_ref().map(|_| id.clone()),
        meta: Meta { profile: if is_phd { vec![format!("{PHD}{phd}")] } else { vec![] }, ..of.meta.clone() },
        identifier: vec![Identifier { value: id, ..of.identifier[0].clone() }],
        category: of.category.iter().filter(|category| category.coding[0].system == PHD_CATEGORY).cloned().collect(),
        code: CodeableConcept { coding: vec![code], text: None },
        value: None,
        data_absent_reason: None,
        interpretation: vec![],
        note: vec![],
        derived_from: main.into_iter().collect(),
        component: vec![],
        ..of.clone()
    }
}
