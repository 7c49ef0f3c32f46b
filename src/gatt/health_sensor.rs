//! Generic Health Sensor (1840): observations that say themselves what they are, by nomenclature code. What is not understood
//! (a class, a value's layout) is kept as octets beside what is, and never dropped. Class numbers and layouts are those of
//! published encoders; the service's own text could not be read.

use super::elapsed_time::ElapsedTime;
use super::user_data::known_user;
use super::{Cursor, Decode, DecodeError, Field, Fields, Measured, Number, Numbers, Observed, Records, Status, Warning};
use crate::reading::{Component, Flag, METRICS, Metric, Modality, Unit};

const TYPE_PRESENT: u32 = 1 << 0;
const TIME_PRESENT: u32 = 1 << 1;
const DURATION_PRESENT: u32 = 1 << 2;
const STATUS_PRESENT: u32 = 1 << 3;
const ID_PRESENT: u32 = 1 << 4;
const PATIENT_PRESENT: u32 = 1 << 5;
const SUPPLEMENTAL_PRESENT: u32 = 1 << 6;
const DERIVED_FROM_PRESENT: u32 = 1 << 7;
const HAS_MEMBER_PRESENT: u32 = 1 << 8;
const EXTRA_PRESENT: u32 = 1 << 9;
const KNOWN_FLAGS: u32 = 0x3FF;

const NUMERIC: u8 = 1;
const CODE: u8 = 2;
const SAMPLES: u8 = 4;
const BITS: u8 = 6;
const COMPOUND: u8 = 7;
const BUNDLE: u8 = 0xFF;

/// A bundle holds observations, and nobody has described a bundle of bundles.
const MAX_DEPTH: u8 = 2;
/// Unit codes are those of this partition of the nomenclature.
const DIMENSIONS: u32 = 4 << 16;

/// Live Health Observations (2B8B), put together from their segments: one observation, or a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthObservations(pub Observation);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub class: u8,
    /// What is measured, by MDC code.
    pub kind: Option<u32>,
    pub time: Option<ElapsedTime>,
    duration_s: Option<Number>,
    status: Option<u16>,
    id: Option<u32>,
    pub patient: Option<u8>,
    supplemental: Vec<u32>,
    derived_from: Vec<u32>,
    has_member: Vec<u32>,
    extra: Vec<(u32, Vec<u8>)>,
    pub value: ObservationValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservationValue {
    Numeric {
        unit: u16,
        value: Number,
    },
    Code(u32),
    Samples(SampleArray),
    /// Each octet list as sent: supported, whether a bit is a state or an event, and the bits.
    Bits {
        supported: Vec<u8>,
        state: Vec<u8>,
        bits: Vec<u8>,
    },
    Compound(Vec<(u32, u16, Number)>),
    Bundle(Vec<Observation>),
    Opaque(Vec<u8>),
}

/// value = scale × sample + offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleArray {
    pub unit: u16,
    pub scale: Number,
    pub offset: Number,
    pub scaled_min: i32,
    pub scaled_max: i32,
    pub period_s: Number,
    pub dimensions: u8,
    pub octets_per_sample: u8,
    pub samples: Vec<i32>,
}

impl Decode for HealthObservations {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Observation::decode(cursor, 1).map(Self)
    }

    fn fields(&self) -> Fields {
        self.0.fields()
    }
}

impl Observation {
    fn decode(cursor: &mut Cursor<'_>, depth: u8) -> Result<Self, DecodeError> {
        let class = cursor.u8("class")?;
        let length = cursor.u16("length")?;
        let (observation, unread) =
            cursor.within("observation", length.into(), |cursor| Self::decode_body(cursor, class, depth))?;
        if unread > 0 {
            cursor.warn(Warning::TrailingBytes);
        }
        Ok(observation)
    }

    fn decode_body(cursor: &mut Cursor<'_>, class: u8, depth: u8) -> Result<Self, DecodeError> {
        let flags: u32 = cursor.u16("flags")?.into();
        let sent = |bit| flags & bit != 0;
        let mut observation = Self {
            class,
            kind: sent(TYPE_PRESENT).then(|| cursor.u32("type")).transpose()?,
            time: sent(TIME_PRESENT).then(|| ElapsedTime::decode(cursor)).transpose()?,
            duration_s: sent(DURATION_PRESENT).then(|| cursor.float("duration")).transpose()?,
            status: sent(STATUS_PRESENT).then(|| cursor.u16("status")).transpose()?,
            id: sent(ID_PRESENT).then(|| cursor.u32("object_id")).transpose()?,
            patient: sent(PATIENT_PRESENT).then(|| cursor.u8("patient")).transpose()?,
            supplemental: codes(cursor, sent(SUPPLEMENTAL_PRESENT))?,
            derived_from: codes(cursor, sent(DERIVED_FROM_PRESENT))?,
            has_member: codes(cursor, sent(HAS_MEMBER_PRESENT))?,
            extra: extras(cursor, sent(EXTRA_PRESENT))?,
            value: ObservationValue::Opaque(Vec::new()),
        };
        // A flag nobody knows may stand for a field before the value: then nobody knows where the value begins.
        let readable = cursor.known_bits(flags, KNOWN_FLAGS) == flags;
        observation.value = if readable { value(cursor, class, depth)? } else { opaque(cursor) };
        Ok(observation)
    }

    fn fields(&self) -> Fields {
        let list = |codes: &[u32]| {
            let item = |code: &u32| Fields::new().with("code", Field::Integer((*code).into()));
            (!codes.is_empty()).then(|| Field::List(codes.iter().map(item).collect()))
        };
        let extra = |(kind, octets): &(u32, Vec<u8>)| {
            Fields::new().with("type", Field::Integer((*kind).into())).with("unparsed", Field::Octets(octets.clone()))
        };
        let fields = Fields::new()
            .with("class", Field::Integer(self.class.into()))
            .with_sent("type", self.kind.map(|kind| Field::Integer(kind.into())))
            .with_sent("time", self.time.map(|time| Field::Group(time.fields())))
            .with_sent("duration_s", self.duration_s.map(Field::Number))
            .with_sent("status", self.status.map(|status| Field::Integer(status.into())))
            .with_sent("object_id", self.id.map(|id| Field::Integer(id.into())))
            .with_sent("patient", self.patient.map(|patient| Field::Integer(patient.into())))
            .with_sent("supplemental", list(&self.supplemental))
            .with_sent("derived_from", list(&self.derived_from))
            .with_sent("has_member", list(&self.has_member))
            .with_sent("extra", (!self.extra.is_empty()).then(|| Field::List(self.extra.iter().map(extra).collect())));
        self.value.add_to(fields)
    }
}

/// A count and so many codes.
fn codes(cursor: &mut Cursor<'_>, sent: bool) -> Result<Vec<u32>, DecodeError> {
    let count = if sent { cursor.u8("count")? } else { 0 };
    (0..count).map(|_| cursor.u32("code")).collect()
}

fn extras(cursor: &mut Cursor<'_>, sent: bool) -> Result<Vec<(u32, Vec<u8>)>, DecodeError> {
    let count = if sent { cursor.u8("count")? } else { 0 };
    let extra = |_| {
        let (kind, length) = (cursor.u32("extra_type")?, cursor.u16("extra_length")?);
        Ok((kind, cursor.octets("extra", length.into())?.to_vec()))
    };
    (0..count).map(extra).collect()
}

fn opaque(cursor: &mut Cursor<'_>) -> ObservationValue {
    ObservationValue::Opaque(cursor.rest().to_vec())
}

fn value(cursor: &mut Cursor<'_>, class: u8, depth: u8) -> Result<ObservationValue, DecodeError> {
    Ok(match class {
        NUMERIC => ObservationValue::Numeric { unit: cursor.u16("unit")?, value: cursor.float("value")? },
        CODE => ObservationValue::Code(cursor.u32("code")?),
        SAMPLES => samples(cursor)?,
        BITS => {
            let count = usize::from(cursor.u8("count")?);
            let mut list = |field| cursor.octets(field, count).map(<[u8]>::to_vec);
            ObservationValue::Bits { supported: list("supported")?, state: list("state")?, bits: list("bits")? }
        }
        COMPOUND => compound(cursor)?,
        BUNDLE if depth < MAX_DEPTH => {
            let count = cursor.u8("count")?;
            let members = (0..count).map(|_| Observation::decode(cursor, depth + 1)).collect::<Result<_, _>>()?;
            ObservationValue::Bundle(members)
        }
        _ => opaque(cursor),
    })
}

/// Components that are numbers, up to the first that is not: without its layout there is no way past it.
fn compound(cursor: &mut Cursor<'_>) -> Result<ObservationValue, DecodeError> {
    let whole = cursor.ahead();
    let count = cursor.u8("count")?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let (kind, class) = (cursor.u32("component_type")?, cursor.u8("component_class")?);
        if class != NUMERIC {
            cursor.rest();
            return Ok(ObservationValue::Opaque(whole.to_vec()));
        }
        parts.push((kind, cursor.u16("unit")?, cursor.float("value")?));
    }
    Ok(ObservationValue::Compound(parts))
}

fn samples(cursor: &mut Cursor<'_>) -> Result<ObservationValue, DecodeError> {
    let whole = cursor.ahead();
    let (unit, scale, offset) = (cursor.u16("unit")?, cursor.float("scale")?, cursor.float("offset")?);
    let (scaled_min, scaled_max) = (cursor.i32("scaled_min")?, cursor.i32("scaled_max")?);
    let (period_s, dimensions) = (cursor.float("period")?, cursor.u8("dimensions")?);
    let (octets_per_sample, count) = (cursor.u8("bytes_per_sample")?, usize::from(cursor.u16("samples")?));
    let size = usize::from(octets_per_sample);
    if !matches!(size, 1 | 2 | 4) {
        cursor.rest();
        return Ok(ObservationValue::Opaque(whole.to_vec()));
    }
    let of_all = count * usize::from(dimensions).max(1);
    let count = if cursor.left() >= of_all * size { of_all } else { count };
    let octets = cursor.octets("samples", count * size)?;
    let samples = octets.chunks_exact(size).map(|octets| sample(octets, scaled_min >= 0)).collect();
    Ok(ObservationValue::Samples(SampleArray {
        unit,
        scale,
        offset,
        scaled_min,
        scaled_max,
        period_s,
        dimensions,
        octets_per_sample,
        samples,
    }))
}

/// One, two or four octets, little endian; signed where the range has negative numbers.
fn sample(octets: &[u8], is_unsigned: bool) -> i32 {
    let value = octets.iter().rev().fold(0u32, |value, octet| value << 8 | u32::from(*octet));
    let unused = 32u32.saturating_sub(8 * u32::try_from(octets.len()).unwrap_or(4));
    // The sign is carried by shifting up and down again.
    if is_unsigned { value.cast_signed() } else { (value << unused).cast_signed() >> unused }
}

impl ObservationValue {
    fn add_to(&self, fields: Fields) -> Fields {
        let integer = |value: u32| Field::Integer(value.into());
        match self {
            Self::Numeric { unit, value } => fields.with("unit", integer(u32::from(*unit))).with("value", Field::Number(*value)),
            Self::Code(code) => fields.with("code", integer(*code)),
            Self::Samples(array) => fields
                .with("unit", integer(array.unit.into()))
                .with("scale", Field::Number(array.scale))
                .with("offset", Field::Number(array.offset))
                .with("scaled_min", Field::Signed(array.scaled_min.into()))
                .with("scaled_max", Field::Signed(array.scaled_max.into()))
                .with("period", Field::Number(array.period_s))
                .with("dimensions", integer(array.dimensions.into()))
                .with("bytes_per_sample", integer(array.octets_per_sample.into()))
                .with("samples", Field::Samples(array.samples.clone())),
            Self::Bits { supported, state, bits } => fields
                .with("supported", Field::Octets(supported.clone()))
                .with("state", Field::Octets(state.clone()))
                .with("bits", Field::Octets(bits.clone())),
            Self::Compound(parts) => {
                let part = |(kind, unit, value): &(u32, u16, Number)| {
                    let fields = Fields::new().with("type", integer(*kind)).with("unit", integer(u32::from(*unit)));
                    fields.with("value", Field::Number(*value))
                };
                fields.with("components", Field::List(parts.iter().map(part).collect()))
            }
            Self::Bundle(members) => fields.with("observations", Field::List(members.iter().map(Observation::fields).collect())),
            Self::Opaque(octets) => fields.with("unparsed", Field::Octets(octets.clone())),
        }
    }
}

impl Records for HealthObservations {
    /// The observations whose kind and unit are in the table of metrics. Members of a bundle have its time and its patient.
    fn records(&self) -> Vec<Observed> {
        let whole = &self.0;
        match &whole.value {
            ObservationValue::Bundle(members) => {
                members.iter().filter_map(|member| member.observed(whole.time, whole.patient)).collect()
            }
            _ => whole.observed(None, None).into_iter().collect(),
        }
    }
}

/// Stored Health Observations (2BDD): the same, out of the device's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHealthObservations(pub HealthObservations);

impl Decode for StoredHealthObservations {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        HealthObservations::decode(cursor).map(Self)
    }

    fn fields(&self) -> Fields {
        self.0.fields()
    }
}

impl Records for StoredHealthObservations {
    fn records(&self) -> Vec<Observed> {
        self.0.records().into_iter().map(|observed| Observed { stored: true, ..observed }).collect()
    }
}

impl Observation {
    fn observed(&self, time: Option<ElapsedTime>, patient: Option<u8>) -> Option<Observed> {
        let (metric, value) = match &self.value {
            ObservationValue::Numeric { unit, value } => {
                let (metric, unit) = known(self.kind?, *unit)?;
                (metric, Numbers::Single(*value, unit))
            }
            ObservationValue::Compound(parts) => blood_pressure(self.kind?, parts)?,
            _ => return None,
        };
        // No source was found for what the bits of the status mean, so that any of them casts doubt.
        let doubtful = self.status.is_some_and(|status| status != 0);
        let status = if doubtful { vec![Status::Flag(Flag::QuestionableMeasurement)] } else { Vec::new() };
        let time = self.time.or(time);
        Some(Observed {
            values: vec![Measured { metric, site: None, modality: Modality::Spot, value, status }],
            user: self.patient.or(patient).and_then(known_user),
            device_time: time.and_then(|time| time.device_time()),
            base_time: time.map(|time| time.octets.to_vec()),
            sequence: self.id,
            ..Observed::default()
        })
    }
}

/// A metric by its code, in a unit it may have.
fn known(kind: u32, unit: u16) -> Option<(Metric, Unit)> {
    let row = METRICS.iter().find(|row| row.mdc == kind)?;
    let unit = Unit::from_mdc(DIMENSIONS | u32::from(unit))?;
    row.units.contains(&unit).then_some((row.metric, unit))
}

/// The one compound metric there is: all its parts in one unit.
fn blood_pressure(kind: u32, parts: &[(u32, u16, Number)]) -> Option<(Metric, Numbers)> {
    let row = METRICS.iter().find(|row| row.mdc == kind && !row.components.is_empty())?;
    let (_, unit) = known(kind, parts.first()?.1)?;
    let part = |(kind, of, number): &(u32, u16, Number)| {
        let component = row.components.iter().find(|component| component.mdc == *kind)?;
        (*of == parts[0].1).then_some((component.component, *number))
    };
    let parts: Vec<(Component, Number)> = parts.iter().map(part).collect::<Option<_>>()?;
    Some((row.metric, Numbers::Compound(parts, unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Context, find, read};

    const TIME: [u8; 9] = [0x32, 0xC0, 0x31, 0x7C, 0x32, 0, 0, 1, 4];

    fn observation(class: u8, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(2 + body.len()).expect("short").to_le_bytes();
        [&[class][..], &length, &flags.to_le_bytes(), body].concat()
    }

    fn numeric(kind: u32, unit: u16, value: u32) -> Vec<u8> {
        let body = [&kind.to_le_bytes()[..], &unit.to_le_bytes(), &value.to_le_bytes()].concat();
        observation(NUMERIC, 1, &body)
    }

    #[test]
    fn members_of_a_bundle_have_its_time_and_its_patient() {
        let members = [numeric(150_456, 544, 97), numeric(149_530, 2720, 63), numeric(4711, 544, 1)];
        let body = [&TIME[..], &[2, 3], &members.concat()].concat();
        let value = read::<HealthObservations>(&observation(BUNDLE, 0x22, &body)).expect("a bundle").0;
        let records = value.records();
        let metrics: Vec<_> = records.iter().map(|record| record.values[0].metric).collect();
        assert_eq!(metrics, [Metric::Spo2, Metric::PulseRateOximeter], "4711 is in no table");
        assert!(StoredHealthObservations(value).records().iter().all(|record| record.stored));
        for record in records {
            assert_eq!((record.user, record.base_time.as_deref()), (Some(2), Some(&TIME[..])));
            assert_eq!(record.device_time.map(|time| time.to_string()).as_deref(), Some("2026-11-03T06:46:40"));
        }
    }

    #[test]
    fn a_blood_pressure_is_one_value_of_three_parts() {
        let part =
            |kind: u32, value: u32| [&kind.to_le_bytes()[..], &[NUMERIC], &3872u16.to_le_bytes(), &value.to_le_bytes()].concat();
        let parts = [part(150_021, 120), part(150_022, 80), part(150_023, 93)].concat();
        let body = [&150_020u32.to_le_bytes()[..], &[3], &parts].concat();
        let value = read::<HealthObservations>(&observation(COMPOUND, 1, &body)).expect("a compound").0;
        let records = value.records();
        let Numbers::Compound(parts, unit) = &records[0].values[0].value else { panic!("no compound") };
        assert_eq!((parts.len(), *unit), (3, Unit::MillimetreOfMercury));
    }

    #[test]
    fn a_status_whose_bits_nobody_checked_casts_doubt() {
        let body = [&150_456u32.to_le_bytes()[..], &[0x00, 0x01], &544u16.to_le_bytes(), &97u32.to_le_bytes()].concat();
        let value = read::<HealthObservations>(&observation(NUMERIC, 0x09, &body)).expect("an observation").0;
        assert_eq!(value.records()[0].values[0].status, [Status::Flag(Flag::QuestionableMeasurement)]);
    }

    #[test]
    fn what_nobody_understands_is_kept_as_octets() {
        let shown = |octets: &[u8]| {
            let segment = [&[0x03][..], octets].concat();
            let decoded = find("2B8B").expect("a name").decode(&[&segment], &Context::default(), false).expect("readable");
            serde_json::to_string(&decoded).expect("plain data")
        };
        let text = observation(5, 1, &[1, 0, 0, 0, b'h', b'i']);
        assert_eq!(shown(&text), r#"{"fields":{"class":5,"type":1,"unparsed":"6869"},"warnings":[]}"#);
        let later = observation(NUMERIC, 0x8001, &[1, 0, 0, 0, 9, 9]);
        assert_eq!(shown(&later), r#"{"fields":{"class":1,"type":1,"unparsed":"0909"},"warnings":["reserved_bits"]}"#);
        let nested = observation(BUNDLE, 0, &[&[1][..], &observation(BUNDLE, 0, &[0])].concat());
        let nested_shown = r#"{"class":255,"observations":[{"class":255,"unparsed":"00"}]}"#;
        assert_eq!(shown(&nested), format!(r#"{{"fields":{nested_shown},"warnings":[]}}"#));
    }
}
