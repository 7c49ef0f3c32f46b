//! What a device tells in several values and means as one: a glucose and what it notes of it, a body composition in two
//! indications beside its weight, a stored blood pressure in segments, the minutes of a sensor's session. Of one device, pure,
//! bounded in time and memory: what never gets its other part goes without it.

use uuid::Uuid;

use crate::gatt::{
    BloodPressureFeature, BloodPressureRecord, BodyCompositionMeasurement, BodyCompositionParts, CgmFeature, CgmMeasurement,
    CgmSession, CgmSessionStartTime, Context, DecodeError, GlucoseMeasurement, GlucoseMeasurementContext, GlucosePairs,
    GlucoseRecord, Measurement as _, Observed, RECORD_PREFIX, Records as _, SegmentJoiner, Warning, WeightMeasurement, read,
    read_with, sig_uuid,
};
use crate::radio::Heard;
use crate::reading::{BootMillis, Metric};

const GLUCOSE: Uuid = sig_uuid(0x2A18);
const GLUCOSE_CONTEXT: Uuid = sig_uuid(0x2A34);
const WEIGHT: Uuid = sig_uuid(0x2A9D);
const BODY_COMPOSITION: Uuid = sig_uuid(0x2A9C);
const BLOOD_PRESSURE_RECORD: Uuid = sig_uuid(0x2B36);
const BLOOD_PRESSURE_FEATURE: Uuid = sig_uuid(0x2A49);
const CGM: Uuid = sig_uuid(0x2AA7);
const CGM_FEATURE: Uuid = sig_uuid(0x2AA8);
const CGM_SESSION_START: Uuid = sig_uuid(0x2AAA);
const JOINED: [Uuid; 9] = [
    GLUCOSE,
    GLUCOSE_CONTEXT,
    WEIGHT,
    BODY_COMPOSITION,
    BLOOD_PRESSURE_RECORD,
    BLOOD_PRESSURE_FEATURE,
    CGM,
    CGM_FEATURE,
    CGM_SESSION_START,
];

/// The session's start is read right after connecting, in a second or two.
const SESSION_WAIT_MS: u64 = 10_000;
/// What a sensor can tell before that is what BlueZ still had waiting.
const MAX_WITHOUT_SESSION: usize = 64;
/// A scale weighs first and then measures the rest: both values of one weighing come within this time.
const ONE_WEIGHING_MS: u64 = 60_000;

/// A value that is complete: how it was heard, and what it says.
#[derive(Clone, Debug)]
pub struct Whole {
    pub heard: Heard,
    pub records: Vec<Observed>,
}

/// What came of a value, or of time passing.
#[derive(Debug, Default)]
pub struct Joined {
    /// Complete by now, oldest first.
    pub wholes: Vec<Whole>,
    pub warnings: Vec<Warning>,
    /// Why a value, or one that it should have continued, was not taken.
    pub errors: Vec<DecodeError>,
}

/// What of one device waits for its other part.
#[derive(Debug, Default)]
pub struct Joining {
    glucose: GlucosePairs<Heard>,
    composition: BodyCompositionParts<Heard>,
    record: SegmentJoiner<RECORD_PREFIX>,
    /// Whether a checksum ends each stored blood pressure.
    record_context: Context,
    /// The last weight or body composition.
    weighed: Option<Whole>,
    session: Session,
}

/// The session a glucose sensor is in, as read in this connection.
#[derive(Debug, Default)]
struct Session {
    context: Context,
    /// It was read; `None` in it: the sensor waits to be told the time.
    start: Option<Option<CgmSessionStartTime>>,
    waiting: Vec<Heard>,
}

impl Joining {
    /// Whether a value may be part of another.
    pub fn joins(characteristic: Uuid) -> bool {
        JOINED.contains(&characteristic)
    }

    pub fn take(&mut self, heard: Heard) -> Joined {
        let taken = match heard.characteristic {
            GLUCOSE => self.glucose(heard),
            GLUCOSE_CONTEXT => self.glucose_context(heard),
            WEIGHT => self.weight(heard),
            BODY_COMPOSITION => self.composition(heard),
            BLOOD_PRESSURE_RECORD => self.blood_pressure_record(heard),
            BLOOD_PRESSURE_FEATURE => self.blood_pressure_feature(&heard),
            _ => self.session.take(heard),
        };
        taken.into()
    }

    /// What has waited too long goes as it is.
    pub fn due(&mut self, now: BootMillis) -> Joined {
        let composition = self.composition.due(now);
        let mut joined = Joined::of(glucose_wholes(self.glucose.due(now)), vec![]);
        joined.wholes.extend(composition.map(|(heard, value)| self.weighed_once(heard, value.observed())));
        joined.errors.extend(self.record.due(now).map(DecodeError::Segment));
        joined.add(self.session.due(now));
        joined
    }

    /// The device has told all it stored: no context will follow.
    pub fn told_all(&mut self) -> Joined {
        Joined::of(glucose_wholes(self.glucose.finish()), vec![])
    }

    /// The link is gone: nothing will follow, and another session may have begun when it comes back.
    pub fn finish(&mut self) -> Joined {
        let mut joined = self.told_all();
        let composition = self.composition.finish();
        joined.wholes.extend(composition.map(|(heard, value)| self.weighed_once(heard, value.observed())));
        joined.errors.extend(self.record.finish().map(DecodeError::Segment));
        joined.add(std::mem::take(&mut self.session).release());
        joined
    }

    fn glucose(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        let (measurement, warnings) = read::<GlucoseMeasurement>(&heard.octets)?;
        Ok(Joined::of(glucose_wholes(self.glucose.measured(heard.arrived, heard, measurement)), warnings))
    }

    fn glucose_context(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        let (context, warnings) = read::<GlucoseMeasurementContext>(&heard.octets)?;
        Ok(Joined::of(glucose_wholes(self.glucose.context(heard.arrived, heard, context)), warnings))
    }

    fn weight(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        let (weight, warnings) = read::<WeightMeasurement>(&heard.octets)?;
        Ok(Joined::of([self.weighed_once(heard, weight.observed())], warnings))
    }

    fn composition(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        let (value, warnings) = read::<BodyCompositionMeasurement>(&heard.octets)?;
        let done = self.composition.push(heard.arrived, heard, value);
        let wholes: Vec<Whole> = done.into_iter().map(|(heard, value)| self.weighed_once(heard, value.observed())).collect();
        Ok(Joined::of(wholes, warnings))
    }

    /// A scale with both services tells the weight of one weighing in both; it weighed once.
    fn weighed_once(&mut self, heard: Heard, mut observed: Observed) -> Whole {
        let told = Whole { heard: heard.clone(), records: vec![observed.clone()] };
        if let Some(other) = self.weighed.replace(told).filter(|other| is_one_weighing(&other.heard, &heard)) {
            let twice = |metric| matches!(metric, Metric::BodyWeight | Metric::BodyHeight);
            let of_same = other.records.iter().filter(|other| is_same_person_and_time(other, &observed));
            let known: Vec<_> = of_same.flat_map(|other| other.values.clone()).filter(|value| twice(value.metric)).collect();
            observed.values.retain(|value| !known.contains(value));
        }
        Whole { heard, records: vec![observed] }
    }

    fn blood_pressure_record(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        let pushed = self.record.push(heard.arrived, &heard.octets);
        let mut joined = Joined { errors: pushed.fault.map(DecodeError::Segment).into_iter().collect(), ..Joined::default() };
        if let Some(value) = pushed.value {
            joined.add(Self::stored_blood_pressure(heard, BloodPressureRecord::of(&value, &self.record_context)?));
        }
        Ok(joined)
    }

    fn blood_pressure_feature(&mut self, heard: &Heard) -> Result<Joined, DecodeError> {
        let (feature, warnings) = read::<BloodPressureFeature>(&heard.octets)?;
        self.record_context.e2e_crc = feature.e2e_crc();
        Ok(Joined::of([], warnings))
    }

    /// It may have been told as it was measured, without its number: by its time it is the same value, under one name.
    fn stored_blood_pressure(heard: Heard, record: BloodPressureRecord) -> Result<Joined, DecodeError> {
        let uuid = record.characteristic();
        let records = record.observed().unwrap_or(Err(DecodeError::Unsupported { uuid }))?;
        let heard = Heard { characteristic: uuid, octets: record.into_octets(), ..heard };
        Ok(Joined::of([Whole { heard, records }], vec![]))
    }
}

impl Session {
    fn take(&mut self, heard: Heard) -> Result<Joined, DecodeError> {
        match heard.characteristic {
            CGM_FEATURE => {
                let (feature, warnings) = read::<CgmFeature>(&heard.octets)?;
                self.context.e2e_crc = feature.e2e_crc();
                Ok(Joined::of([], warnings))
            }
            CGM_SESSION_START => {
                let (start, warnings) = read_with::<CgmSessionStartTime>(&heard.octets, &self.context)?;
                self.start = Some(Some(start).filter(|start| !start.is_unset()));
                let mut joined = self.release();
                joined.warnings.extend(warnings);
                Ok(joined)
            }
            _ if self.start.is_none() && self.waiting.len() < MAX_WITHOUT_SESSION => {
                self.waiting.push(heard);
                Ok(Joined::default())
            }
            _ => self.measured(heard),
        }
    }

    /// Minutes of a session nobody knows are no time: such a record is never taken for one of now.
    fn measured(&self, heard: Heard) -> Result<Joined, DecodeError> {
        let (value, warnings) = read_with::<CgmMeasurement>(&heard.octets, &self.context)?;
        let records = match self.start.flatten() {
            Some(start) => CgmSession(start).records(&value),
            None => value.records().into_iter().map(|observed| Observed { stored: true, ..observed }).collect(),
        };
        Ok(Joined::of([Whole { heard, records }], warnings))
    }

    fn due(&mut self, now: BootMillis) -> Joined {
        let late = self.waiting.first().is_some_and(|heard| now.0.saturating_sub(heard.arrived.0) > SESSION_WAIT_MS);
        if late { self.release() } else { Joined::default() }
    }

    fn release(&mut self) -> Joined {
        let mut joined = Joined::default();
        for heard in std::mem::take(&mut self.waiting) {
            joined.add(self.measured(heard));
        }
        joined
    }
}

impl Joined {
    fn of(wholes: impl IntoIterator<Item = Whole>, warnings: Vec<Warning>) -> Self {
        Self { wholes: wholes.into_iter().collect(), warnings, errors: vec![] }
    }

    fn add(&mut self, other: impl Into<Joined>) {
        let other = other.into();
        self.wholes.extend(other.wholes);
        self.warnings.extend(other.warnings);
        self.errors.extend(other.errors);
    }
}

impl From<Result<Joined, DecodeError>> for Joined {
    fn from(result: Result<Joined, DecodeError>) -> Self {
        result.unwrap_or_else(|error| Self { errors: vec![error], ..Self::default() })
    }
}

fn glucose_wholes(done: Vec<(Heard, GlucoseRecord)>) -> impl Iterator<Item = Whole> {
    done.into_iter().map(|(heard, record)| Whole { heard, records: vec![record.observed()] })
}

fn is_one_weighing(first: &Heard, second: &Heard) -> bool {
    first.characteristic != second.characteristic && second.arrived.0.saturating_sub(first.arrived.0) <= ONE_WEIGHING_MS
}

/// What one of them leaves out contradicts nothing.
fn is_same_person_and_time(a: &Observed, b: &Observed) -> bool {
    let users = a.user.is_none() || b.user.is_none() || a.user == b.user;
    users && (a.base_time.is_none() || b.base_time.is_none() || a.base_time == b.base_time)
}

#[cfg(test)]
mod tests;
