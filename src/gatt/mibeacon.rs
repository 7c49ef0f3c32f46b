//! MiBeacon (service data FE95), as Xiaomi's Body Composition Scale S400 encrypts it: versions 4 and 5, AES-CCM.

use aes::Aes128;
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U4, U12};

use super::scaled::TENTH;
use super::user_data::known_user;
use super::weight_scale::spot;
use super::{Cursor, Decode, DecodeError, Field, Fields, Measurement, Number, Observed, Warning};
use crate::reading::{Metric, Unit};

const ENCRYPTED: u16 = 1 << 3;
const ADDRESS_PRESENT: u16 = 1 << 4;
const CAPABILITY_PRESENT: u16 = 1 << 5;
const OBJECT_PRESENT: u16 = 1 << 6;
const VERSION_SHIFT: u16 = 12;
/// Another octet follows the capability.
const CAPABILITY_IO: u8 = 0x20;
const ASSOCIATED: [u8; 1] = [0x11];
const COUNTER_HIGH: usize = 3;
const MIC: usize = 4;

/// One advertisement of an encrypted MiBeacon device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiBeacon {
    pub product: u16,
    /// The frame counter and its extension: authenticated, so that [`super::ReplayGuard`] can use it.
    pub counter: u32,
    pub scale: Option<ScaleS400>,
    /// Objects nobody here reads.
    others: Vec<(u16, Vec<u8>)>,
}

/// What the S400 says of one person standing on it; a part of it each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleS400 {
    pub profile: u8,
    pub weight: Option<Number>,
    pub heart_rate: Option<Number>,
    /// In tenths of an ohm, at 50 kHz, or at 250 kHz where it comes alone.
    pub impedance: Option<Number>,
    pub impedance_high: Option<Number>,
    time: u32,
}

impl Decode for MiBeacon {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let control = cursor.u16("frame_control")?;
        let version = u8::try_from(control >> VERSION_SHIFT).unwrap_or(u8::MAX);
        if !matches!(version, 4 | 5) || control & ENCRYPTED == 0 {
            return Err(DecodeError::UnknownFormat { given: version, known: "versions 4 and 5, encrypted" });
        }
        let named: [u8; 3] = cursor.array("product and counter")?;
        let address = (control & ADDRESS_PRESENT != 0).then(|| cursor.array::<6>("address")).transpose()?;
        if control & CAPABILITY_PRESENT != 0 && cursor.u8("capability")? & CAPABILITY_IO != 0 {
            cursor.u8("io")?;
        }
        let [low, high, count] = named;
        let product = u16::from_le_bytes([low, high]);
        if control & OBJECT_PRESENT == 0 {
            return Ok(Self { product, counter: count.into(), scale: None, others: Vec::new() });
        }
        let (clear, extension) = decrypt(cursor, named, address)?;
        let counter = u32::from_le_bytes([count, extension[0], extension[1], extension[2]]);
        let mut beacon = Self { product, counter, scale: None, others: Vec::new() };
        let context = super::Context::default();
        let mut inner = Cursor::new(&clear, &context);
        while inner.left() > 0 {
            beacon.object(&mut inner)?;
        }
        inner.finish().into_iter().for_each(|warning| cursor.warn(warning));
        Ok(beacon)
    }

    fn fields(&self) -> Fields {
        let other = |(id, octets): &(u16, Vec<u8>)| {
            Fields::new().with("id", Field::Integer((*id).into())).with("unparsed", Field::Octets(octets.clone()))
        };
        let objects: Vec<_> = self.scale.iter().map(ScaleS400::fields).chain(self.others.iter().map(other)).collect();
        Fields::new()
            .with("product", Field::Integer(self.product.into()))
            .with("counter", Field::Integer(self.counter.into()))
            .with("objects", Field::List(objects))
    }
}

/// The objects in the clear and the upper part of the counter. The nonce is the device's address in the order of the air, the
/// product, the frame counter and its extension.
fn decrypt(
    cursor: &mut Cursor<'_>,
    named: [u8; 3],
    address: Option<[u8; 6]>,
) -> Result<(Vec<u8>, [u8; COUNTER_HIGH]), DecodeError> {
    let Some(sealed) = cursor.left().checked_sub(COUNTER_HIGH + MIC) else {
        return Err(DecodeError::Truncated { field: "counter and checksum", needed: COUNTER_HIGH + MIC, left: cursor.left() });
    };
    let mut clear = cursor.octets("objects", sealed)?.to_vec();
    let extension: [u8; COUNTER_HIGH] = cursor.array("counter")?;
    let mic: [u8; MIC] = cursor.array("checksum")?;
    let reversed = cursor.context().mac.map(|[a, b, c, d, e, f]| [f, e, d, c, b, a]);
    let (Some(key), Some(address)) = (cursor.context().key, address.or(reversed)) else {
        return Err(DecodeError::KeyRequired);
    };
    let mut nonce = [0; 12];
    nonce[..6].copy_from_slice(&address);
    nonce[6..9].copy_from_slice(&named);
    nonce[9..].copy_from_slice(&extension);
    Ccm::<Aes128, U4, U12>::new(&key.into())
        .decrypt_inout_detached(&nonce.into(), &ASSOCIATED, clear.as_mut_slice().into(), &mic.into())
        .map_err(|_| DecodeError::DecryptFailed)?;
    Ok((clear, extension))
}

const SCALE_S400: u16 = 0x6E16;
/// Of the word: eleven bits of weight, seven of heart rate, the rest impedance.
const WEIGHT: u32 = 0x7FF;
const HEART_RATE: u32 = 0x7F;
const HEART_RATE_OFFSET: u32 = 50;
/// All bits of the weight: none was taken.
const NO_WEIGHT: u32 = WEIGHT;

impl MiBeacon {
    fn object(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let (id, length) = (cursor.u16("object")?, cursor.u8("length")?);
        if id != SCALE_S400 {
            cursor.warn(Warning::UnknownObjectId);
            self.others.push((id, cursor.octets("object", length.into())?.to_vec()));
            return Ok(());
        }
        let (scale, unread) = cursor.within("object", length.into(), ScaleS400::decode)?;
        if unread > 0 {
            cursor.warn(Warning::TrailingBytes);
        }
        self.scale = Some(scale);
        Ok(())
    }
}

impl ScaleS400 {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let (profile, word, time) = (cursor.u8("profile")?, cursor.u32("values")?, cursor.u32("time")?);
        let weight = Some(word & WEIGHT).filter(|weight| !matches!(*weight, 0 | NO_WEIGHT));
        let rate = Some(word >> 11 & HEART_RATE).filter(|rate| !matches!(*rate, 0 | HEART_RATE));
        let impedance = Some(word >> 18).filter(|impedance| *impedance != 0).map(|tenths| TENTH.of(tenths));
        let alone = weight.is_none() && word >> 11 & HEART_RATE == 0;
        Ok(Self {
            profile,
            weight: weight.map(|tenths| TENTH.of(tenths)),
            heart_rate: rate.map(|rate| Number::whole(rate + HEART_RATE_OFFSET)),
            impedance: impedance.filter(|_| !alone),
            impedance_high: impedance.filter(|_| alone),
            time,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("profile", Field::Integer(self.profile.into()))
            .with_sent("weight", self.weight.map(|weight| Field::quantity(weight, Unit::Kilogram)))
            .with_sent("heart_rate", self.heart_rate.map(|rate| Field::quantity(rate, Unit::PerMinute)))
            .with_sent("impedance", self.impedance.map(|ohm| Field::quantity(ohm, Unit::Ohm)))
            .with_sent("impedance_high", self.impedance_high.map(|ohm| Field::quantity(ohm, Unit::Ohm)))
            .with("time", Field::Integer(self.time.into()))
    }
}

impl Measurement for MiBeacon {
    /// Without the impedance at 250 kHz: one stream is of one frequency.
    fn observed(&self) -> Observed {
        let Some(scale) = self.scale else { return Observed::default() };
        let weight = scale.weight.map(|weight| spot(Metric::BodyWeight, weight, Unit::Kilogram));
        let heart_rate = scale.heart_rate.map(|rate| spot(Metric::HeartRate, rate, Unit::PerMinute));
        let impedance = scale.impedance.map(|ohm| spot(Metric::BodyImpedance, ohm, Unit::Ohm));
        Observed {
            values: [weight, heart_rate, impedance].into_iter().flatten().collect(),
            user: known_user(scale.profile),
            sequence: Some(self.counter),
            ..Observed::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{Context, read_with};

    /// Encrypted by pycryptodome for a made-up scale and read by xiaomi-ble 1.21.2, with these values.
    const MEASURED: &str = "4859d53b31bb0d9437411dd6edabfc66e8010000a14d313e";
    const HIGH_FREQUENCY: &str = "4859d53b31bb0d943795af1ae5abfc66e80100002e387127";

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect()
    }

    fn context() -> Context {
        let mut context = Context::default();
        context.set("key", "58305740b64e4b425e518aa1f4e51339").expect("a key");
        context.set("mac", "84:46:93:64:A5:E6").expect("an address");
        context
    }

    fn read(hex: &str) -> MiBeacon {
        let (beacon, warnings) = read_with::<MiBeacon>(&octets(hex), &context()).expect("it decrypts");
        assert_eq!(warnings, []);
        beacon
    }

    #[test]
    fn a_weighing_reads_as_another_program_reads_it() {
        let beacon = read(MEASURED);
        let scale = beacon.scale.expect("a scale");
        assert_eq!((beacon.product, beacon.counter, scale.profile), (0x3BD5, 0x131, 1));
        assert_eq!(scale.weight, Some(TENTH.of(724)));
        assert_eq!((scale.heart_rate, scale.impedance), (Some(Number::whole(72)), Some(TENTH.of(5031))));
        let metrics: Vec<_> = beacon.observed().values.iter().map(|value| value.metric).collect();
        assert_eq!(metrics, [Metric::BodyWeight, Metric::HeartRate, Metric::BodyImpedance]);
        assert_eq!(beacon.observed().user, Some(1));
    }

    #[test]
    fn impedance_at_another_frequency_is_not_of_the_same_stream() {
        let beacon = read(HIGH_FREQUENCY);
        assert_eq!(beacon.scale.and_then(|scale| scale.impedance_high), Some(TENTH.of(4500)));
        assert_eq!(beacon.observed().values, []);
    }

    #[test]
    fn what_was_altered_or_has_no_key_is_refused() {
        let error = |octets: &[u8], context: &Context| {
            read_with::<MiBeacon>(octets, context).map_err(|error| error.name()).expect_err("refused")
        };
        let whole = octets(MEASURED);
        assert_eq!(error(&whole, &Context::default()), "key_required");
        for at in 2..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert_eq!(error(&altered, &context()), "decrypt_failed", "octet {at}");
        }
        assert_eq!(error(&[0x40, 0x30, 0, 0, 0], &context()), "unsupported");
    }

    proptest::proptest! {
        /// What was decrypted is as little to be trusted as what is in the clear: whoever has the key can seal anything.
        #[test]
        fn no_object_of_a_scale_makes_it_panic(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            for octets in [octets.clone(), [&[0x16, 0x6E, 9][..], &octets].concat()] {
                let context = Context::default();
                let mut cursor = Cursor::new(&octets, &context);
                let mut beacon = MiBeacon { product: 0, counter: 0, scale: None, others: Vec::new() };
                while cursor.left() > 0 && beacon.object(&mut cursor).is_ok() {}
                proptest::prop_assert!(beacon.others.len() <= octets.len());
                beacon.observed();
            }
        }
    }
}
