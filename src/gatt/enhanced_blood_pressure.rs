//! The enhanced characteristics of the Blood Pressure Service 1.1 (1810): seconds instead of a date, and stored values in
//! segments.

use uuid::Uuid;

use super::blood_pressure::{Remarks, TIME_PRESENT, deflating, pressure_and_pulse, unit_of};
use super::segment::{Joined, join};
use super::table::sig_uuid;
use super::{Context, Cursor, Decode, DecodeError, Field, Fields, Measured, Measurement, Number, Observed, Read, characteristic};
use crate::reading::{DeviceTime, Unit};

const USER_FACING_TIME_PRESENT: u32 = 1 << 5;
const EPOCH_IS_2000: u32 = 1 << 6;
const KNOWN_FLAGS: u32 = 0x7F;

/// Enhanced Blood Pressure Measurement (2B34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedBloodPressureMeasurement {
    pub systolic: Number,
    pub diastolic: Number,
    pub mean: Number,
    pub unit: Unit,
    pub about: EnhancedAbout,
}

/// Enhanced Intermediate Cuff Pressure (2B35): one pressure, without unused places for two more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedIntermediateCuffPressure {
    pub cuff_pressure: Number,
    pub unit: Unit,
    pub about: EnhancedAbout,
}

/// What follows the pressures, as far as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedAbout {
    pub time: Option<Seconds>,
    pub remarks: Remarks,
    /// The time the display shows, where the other is one that nobody sets by hand.
    pub user_facing_time: Option<Seconds>,
}

/// Seconds since the start of 1900 or 2000 on the device's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds {
    pub octets: [u8; 4],
    epoch: i16,
}

impl Seconds {
    fn decode(cursor: &mut Cursor<'_>, field: &'static str, flags: u32) -> Result<Self, DecodeError> {
        Ok(Self { octets: cursor.array(field)?, epoch: if flags & EPOCH_IS_2000 == 0 { 1900 } else { 2000 } })
    }

    pub fn time(self) -> Option<DeviceTime> {
        DeviceTime::after_year(self.epoch, u32::from_le_bytes(self.octets).into())
    }

    fn field(self) -> Field {
        Field::Time(self.time())
    }
}

impl Decode for EnhancedBloodPressureMeasurement {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        Ok(Self {
            systolic: cursor.sfloat("systolic")?,
            diastolic: cursor.sfloat("diastolic")?,
            mean: cursor.sfloat("map")?,
            unit: unit_of(flags),
            about: EnhancedAbout::decode(cursor, flags)?,
        })
    }

    fn fields(&self) -> Fields {
        let pressures = Fields::new()
            .with("systolic", Field::quantity(self.systolic, self.unit))
            .with("diastolic", Field::quantity(self.diastolic, self.unit))
            .with("map", Field::quantity(self.mean, self.unit));
        self.about.add_to(pressures)
    }
}

impl Measurement for EnhancedBloodPressureMeasurement {
    fn observed(&self) -> Observed {
        let pressures = [self.systolic, self.diastolic, self.mean];
        self.about.observed(pressure_and_pulse(pressures, self.unit, self.about.remarks.pulse_rate, &self.about.remarks.flags()))
    }
}

impl Decode for EnhancedIntermediateCuffPressure {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), KNOWN_FLAGS);
        let cuff_pressure = cursor.sfloat("cuff_pressure")?;
        Ok(Self { cuff_pressure, unit: unit_of(flags), about: EnhancedAbout::decode(cursor, flags)? })
    }

    fn fields(&self) -> Fields {
        self.about.add_to(Fields::new().with("cuff_pressure", Field::quantity(self.cuff_pressure, self.unit)))
    }
}

impl Measurement for EnhancedIntermediateCuffPressure {
    fn observed(&self) -> Observed {
        self.about.observed(vec![deflating(self.cuff_pressure, self.unit, self.about.remarks.flags())])
    }
}

impl EnhancedAbout {
    fn decode(cursor: &mut Cursor<'_>, flags: u32) -> Result<Self, DecodeError> {
        let sent = |bit| flags & bit != 0;
        Ok(Self {
            time: sent(TIME_PRESENT).then(|| Seconds::decode(cursor, "time", flags)).transpose()?,
            remarks: Remarks::decode(cursor, flags)?,
            user_facing_time: sent(USER_FACING_TIME_PRESENT)
                .then(|| Seconds::decode(cursor, "user_facing_time", flags))
                .transpose()?,
        })
    }

    fn add_to(&self, fields: Fields) -> Fields {
        let before = fields.with_sent("time", self.time.map(Seconds::field));
        self.remarks.add_to(before).with_sent("user_facing_time", self.user_facing_time.map(Seconds::field))
    }

    /// The time is the one on the display, which is the one a clock of the device can be compared with; the identity is that
    /// of the time nobody sets by hand.
    fn observed(&self, values: Vec<Measured>) -> Observed {
        Observed {
            values,
            user: self.remarks.user(),
            device_time: self.user_facing_time.or(self.time).and_then(Seconds::time),
            base_time: self.time.or(self.user_facing_time).map(|seconds| seconds.octets.to_vec()),
            ..Observed::default()
        }
    }
}

/// Sequence number and UUID stand in every segment of a Blood Pressure Record.
pub const RECORD_PREFIX: usize = 4;

/// Blood Pressure Record (2B36): a stored value of another characteristic of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BloodPressureRecord {
    pub sequence: u16,
    uuid16: u16,
    octets: Vec<u8>,
}

impl BloodPressureRecord {
    /// Of a value put together. The checksum is there only where the device's features announce it, and is then refused when
    /// wrong.
    pub fn of(joined: &Joined, context: &Context) -> Result<Self, DecodeError> {
        let inner = Context { e2e_crc: false, ..context.clone() };
        let mut cursor = Cursor::new(&joined.octets, &inner);
        let (sequence, uuid16) = (cursor.u16("sequence")?, cursor.u16("uuid")?);
        let checksum = if context.e2e_crc { 2 } else { 0 };
        let Some(value) = cursor.left().checked_sub(checksum) else {
            return Err(DecodeError::Truncated { field: "e2e_crc", needed: checksum, left: cursor.left() });
        };
        let octets = cursor.octets("value", value)?.to_vec();
        if context.e2e_crc {
            let sent = cursor.u16("e2e_crc")?;
            if sent != joined.crc {
                return Err(DecodeError::CrcMismatch { sent, computed: joined.crc });
            }
        }
        Ok(Self { sequence, uuid16, octets })
    }

    pub fn of_segments(segments: &[&[u8]], context: &Context) -> Read<Fields> {
        let record = Self::of(&join::<RECORD_PREFIX>(segments)?, context)?;
        let uuid = sig_uuid(record.uuid16);
        let row = characteristic(uuid).filter(|row| row.is_whole()).ok_or(DecodeError::Unsupported { uuid })?;
        let decoded = row.decoder.decode(&[&record.octets], context, false)?;
        let fields = Fields::new()
            .with("sequence", Field::Integer(record.sequence.into()))
            .with("characteristic", Field::Word(row.name))
            .with("value", Field::Group(decoded.fields));
        Ok((fields, decoded.warnings))
    }

    /// Which characteristic the stored value is of.
    pub const fn characteristic(&self) -> Uuid {
        sig_uuid(self.uuid16)
    }

    /// The value as that characteristic tells it.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// The stored measurement, by the record's own number; `None` where the record holds none.
    pub fn observed(&self) -> Option<Result<Vec<Observed>, DecodeError>> {
        let row = characteristic(sig_uuid(self.uuid16)).filter(|row| row.is_whole())?;
        let observed = row.decoder.observe(&self.octets, &Context::default())?;
        let stored = |observed: Observed| Observed { sequence: Some(self.sequence.into()), stored: true, ..observed };
        Some(observed.map(|(records, _)| records.into_iter().map(stored).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::crc::crc16;
    use crate::gatt::{find, read};
    use crate::reading::Metric;

    const VALUE: [u8; 20] =
        [0x7F, 0x6E, 0xF0, 0x4B, 0xF0, 0x57, 0xF0, 10, 0, 0, 0, 0x3C, 0x00, 0x02, 0x04, 0x00, 0x10, 0x0E, 0, 0];

    /// Sequence 7 of 2B34 in two segments, without and with a checksum.
    fn segments(with_crc: bool) -> [Vec<u8>; 2] {
        let first = [&[0x01, 7, 0, 0x34, 0x2B][..], &VALUE[..9]].concat();
        let mut last = [&[0x06, 7, 0, 0x34, 0x2B][..], &VALUE[9..]].concat();
        if with_crc {
            let crc = crc16(&[&first[..], &last].concat());
            last.extend(crc.to_le_bytes());
        }
        [first, last]
    }

    #[test]
    fn the_display_tells_the_time_and_the_clock_nobody_sets_the_identity() {
        let observed = read::<EnhancedBloodPressureMeasurement>(&VALUE).expect("a blood pressure").0.observed();
        assert_eq!(observed.device_time.map(|time| time.to_string()).as_deref(), Some("2000-01-01T01:00:00"));
        assert_eq!((observed.base_time.as_deref(), observed.user), (Some(&[10, 0, 0, 0][..]), Some(2)));
        let metrics: Vec<_> = observed.values.iter().map(|value| value.metric).collect();
        assert_eq!(metrics, [Metric::BloodPressure, Metric::PulseRateCuff]);
    }

    #[test]
    fn a_stored_value_in_segments_is_that_value_with_the_records_number() {
        for with_crc in [false, true] {
            let context = Context { e2e_crc: with_crc, ..Context::default() };
            let [first, last] = segments(with_crc);
            let joined = join::<RECORD_PREFIX>(&[&first, &last]).expect("a record");
            let record = BloodPressureRecord::of(&joined, &context).expect("a record");
            let observed = record.observed().expect("a measurement").expect("whole");
            assert_eq!((observed[0].sequence, observed[0].stored, observed[0].user), (Some(7), true, Some(2)));
            let shown = find("2B36").expect("a name").decode(&[&first, &last], &context, true).expect("a record");
            let json = serde_json::to_value(&shown.fields).expect("plain data");
            assert_eq!(json["characteristic"], "enhanced_blood_pressure_measurement");
            assert_eq!(json["value"]["systolic"]["v"], "11.0");
        }
    }

    #[test]
    fn a_damaged_record_is_refused_and_a_record_of_records_does_not_exist() {
        let context = Context { e2e_crc: true, ..Context::default() };
        let [first, mut last] = segments(true);
        last[6] ^= 1;
        let error = find("2B36").expect("a name").decode(&[&first, &last], &context, false).expect_err("damaged");
        assert_eq!(error.name(), "crc_mismatch");
        let nested = [0x03, 7, 0, 0x36, 0x2B, 0x03, 7, 0, 0x36, 0x2B];
        let error = find("2B36").expect("a name").decode(&[&nested], &Context::default(), false).expect_err("nested");
        assert_eq!(error.name(), "unsupported");
    }
}
