//! Polar Measurement Data: the ECG of a chest strap and the pulse intervals of an arm band, as the vendor's own library reads
//! them. The time is that of the last sample, in nanoseconds since 2000-01-01 on the device's clock.

use super::{Cursor, Decode, DecodeError, Field, Fields};

const ECG: u8 = 0;
const PPI: u8 = 3;
/// Octets of one sample.
const ECG_SAMPLE: usize = 3;
const PPI_SAMPLE: usize = 6;

const BLOCKER: u8 = 1 << 0;
const CONTACT: u8 = 1 << 1;
const CONTACT_SUPPORTED: u8 = 1 << 2;

/// PMD Data (FB005C82-…).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmdData {
    pub timestamp_ns: u64,
    pub samples: PmdSamples,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PmdSamples {
    /// Microvolt, 130 a second.
    Ecg(Vec<i32>),
    Ppi(Vec<PulseInterval>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulseInterval {
    pub heart_rate: u8,
    pub milliseconds: u16,
    pub error_ms: u16,
    /// The band moved: the interval is not to be used.
    pub blocker: bool,
    pub contact: bool,
    pub contact_supported: bool,
}

impl Decode for PmdData {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let kind = cursor.u8("type")?;
        let timestamp_ns = cursor.u64("timestamp")?;
        let frame = cursor.u8("frame_type")?;
        let samples = match (kind, frame) {
            (ECG, 0) => PmdSamples::Ecg(samples(cursor, ECG_SAMPLE, ecg_sample)?),
            (PPI, 0) => PmdSamples::Ppi(samples(cursor, PPI_SAMPLE, pulse_interval)?),
            (ECG | PPI, given) => return Err(DecodeError::UnknownFormat { given, known: "frame type 0" }),
            (given, _) => return Err(DecodeError::UnknownFormat { given, known: "ECG (0) and PPI (3)" }),
        };
        Ok(Self { timestamp_ns, samples })
    }

    fn fields(&self) -> Fields {
        let fields = Fields::new().with("timestamp_ns_2000", Field::Integer(self.timestamp_ns));
        match &self.samples {
            PmdSamples::Ecg(samples) => fields.with("ecg_uV", Field::Samples(samples.clone())),
            PmdSamples::Ppi(samples) => {
                fields.with("samples", Field::List(samples.iter().copied().map(PulseInterval::fields).collect()))
            }
        }
    }
}

/// As many as fill the value, and nothing beside them.
fn samples<T>(
    cursor: &mut Cursor<'_>,
    size: usize,
    sample: impl Fn(&mut Cursor<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let octets = cursor.left();
    if !octets.is_multiple_of(size) {
        return Err(DecodeError::InvalidLength { field: "samples", octets });
    }
    (0..octets / size).map(|_| sample(cursor)).collect()
}

fn ecg_sample(cursor: &mut Cursor<'_>) -> Result<i32, DecodeError> {
    let [a, b, c] = cursor.array("ecg")?;
    // The sign of 24 bits is carried by shifting up and down again.
    Ok(i32::from_le_bytes([0, a, b, c]) >> 8)
}

fn pulse_interval(cursor: &mut Cursor<'_>) -> Result<PulseInterval, DecodeError> {
    let (heart_rate, milliseconds) = (cursor.u8("hr")?, cursor.u16("pp")?);
    let (error_ms, flags) = (cursor.u16("error")?, cursor.u8("flags")?);
    Ok(PulseInterval {
        heart_rate,
        milliseconds,
        error_ms,
        blocker: flags & BLOCKER != 0,
        contact: flags & CONTACT != 0,
        contact_supported: flags & CONTACT_SUPPORTED != 0,
    })
}

impl PulseInterval {
    fn fields(self) -> Fields {
        Fields::new()
            .with("hr", Field::Integer(self.heart_rate.into()))
            .with("pp_ms", Field::Integer(self.milliseconds.into()))
            .with("error_ms", Field::Integer(self.error_ms.into()))
            .with("blocker", Field::Bool(self.blocker))
            .with("skin_contact", Field::Bool(self.contact))
            .with("skin_contact_supported", Field::Bool(self.contact_supported))
    }
}
