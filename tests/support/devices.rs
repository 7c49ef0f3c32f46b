//! Medical devices that exist only as octets, made by encoders of their own: a mistake in the daemon's decoders can't
//! cancel itself out here. Value `n` of a device is a pure function of `n`, so a ledger knows what must arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::{Timestamp, tz::TimeZone};
use uuid::Uuid;

use super::bluez::{Behaviour, CharacteristicSpec, DeviceSpec, FakeBluez, ServiceSpec, uuid16};
use super::room::Devices;

pub const HEART_RATE: Uuid = uuid16(0x2a37);
pub const TEMPERATURE: Uuid = uuid16(0x2a1c);
pub const BLOOD_PRESSURE: Uuid = uuid16(0x2a35);
pub const WEIGHT: Uuid = uuid16(0x2a9d);
pub const GLUCOSE: Uuid = uuid16(0x2a18);
pub const SENSOR: Uuid = uuid16(0x2aa7);
pub const SENSOR_FEATURE: Uuid = uuid16(0x2aa8);
pub const SENSOR_STATUS: Uuid = uuid16(0x2aa9);
pub const SESSION_START: Uuid = uuid16(0x2aaa);
pub const BODY_COMPOSITION: Uuid = uuid16(0x2a9c);
pub const USER_CONTROL: Uuid = uuid16(0x2a9f);
pub const GLUCOSE_CONTEXT: Uuid = uuid16(0x2a34);
pub const RECORD_ACCESS: Uuid = uuid16(0x2a52);
pub const SPOT_CHECK: Uuid = uuid16(0x2a5e);
pub const CONTINUOUS: Uuid = uuid16(0x2a5f);
/// Of Nonin's own service, which no standard describes.
pub const NONIN: Uuid = Uuid::from_u128(0x0AAD_7EA0_0D60_11E2_8E3C_0002_A5D5_C51B);
const NONIN_SERVICE: Uuid = Uuid::from_u128(0x46A9_70E0_0D5F_11E2_8B5E_0002_A5D5_C51B);
pub const BATTERY_LEVEL: Uuid = uuid16(0x2a19);
pub const CURRENT_TIME: Uuid = uuid16(0x2a2b);
pub const DATE_TIME: Uuid = uuid16(0x2a08);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    HeartRateStrap,
    Thermometer,
    Cuff,
    OximeterContinuous,
    OximeterSpot,
    /// With a maker's service in place of the standard one.
    OximeterVendor,
    Scale,
    GlucoseMeter,
    /// A continuous glucose sensor, in a session.
    Sensor,
    /// A scale with body composition and users, whose slots are opened by consent.
    BodyScale,
}

/// Where a device lets its clock be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    None,
    /// 2A2B in the Current Time service.
    CurrentTime,
    /// 2A08 inside its own measurement service.
    DateTime,
}

/// What a device asks for before it lets its measurement be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Open,
    JustWorks,
    /// It shows these digits.
    Passkey(u32),
}

#[derive(Clone, Debug)]
pub struct VirtualDevice {
    pub kind: Kind,
    pub address: String,
    pub name: String,
    pub serial: String,
    pub clock: Clock,
    /// How far its clock, which shows UTC, is ahead.
    pub clock_offset_s: i64,
    pub security: Security,
    /// It advertises under private addresses; its own is what who bonded knows it by.
    pub privacy: bool,
    /// Further lines of its section in the config, such as its patient.
    pub config: String,
}

/// What goes over the air once, and the values in it: (metric, text at the device's resolution). A blood pressure is
/// `systolic/diastolic/mean`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    pub characteristic: Uuid,
    pub octets: Vec<u8>,
    pub values: Vec<(&'static str, String)>,
}

impl VirtualDevice {
    pub fn new(kind: Kind, address: &str, name: &str) -> Self {
        let clock = if matches!(kind, Kind::Cuff | Kind::OximeterSpot | Kind::Scale | Kind::BodyScale) {
            Clock::CurrentTime
        } else {
            Clock::None
        };
        let serial = address.replace(':', "");
        Self {
            kind,
            address: address.to_owned(),
            name: name.to_owned(),
            serial,
            clock,
            clock_offset_s: 0,
            security: Security::Open,
            privacy: false,
            config: String::new(),
        }
    }

    pub fn with_config(self, lines: &str) -> Self {
        Self { config: lines.to_owned(), ..self }
    }

    pub fn with_security(self, security: Security) -> Self {
        Self { security, ..self }
    }

    /// The device kind as the config names it.
    pub fn config_kind(&self) -> &'static str {
        match self.kind {
            Kind::HeartRateStrap => "heart-rate",
            Kind::Thermometer => "thermometer",
            Kind::Cuff => "blood-pressure",
            Kind::OximeterContinuous | Kind::OximeterSpot | Kind::OximeterVendor => "pulse-oximeter",
            Kind::Scale => "weight-scale",
            Kind::GlucoseMeter => "glucose-meter",
            Kind::Sensor => "glucose-sensor",
            Kind::BodyScale => "body-composition",
        }
    }

    pub fn characteristic(&self) -> Uuid {
        match self.kind {
            Kind::HeartRateStrap => HEART_RATE,
            Kind::Thermometer => TEMPERATURE,
            Kind::Cuff => BLOOD_PRESSURE,
            Kind::OximeterContinuous => CONTINUOUS,
            Kind::OximeterSpot => SPOT_CHECK,
            Kind::OximeterVendor => NONIN,
            Kind::Scale => WEIGHT,
            Kind::GlucoseMeter => GLUCOSE,
            Kind::Sensor => SENSOR,
            Kind::BodyScale => BODY_COMPOSITION,
        }
    }

    /// It keeps what nobody took and sends it on the next subscription; the others stream.
    pub fn keeps(&self) -> bool {
        matches!(self.kind, Kind::Thermometer | Kind::Cuff | Kind::OximeterSpot | Kind::Scale | Kind::BodyScale)
    }

    pub fn spec(&self) -> DeviceSpec {
        let (service, flags): (Uuid, &[&'static str]) = match self.kind {
            Kind::HeartRateStrap => (uuid16(0x180d), &["notify"]),
            Kind::Thermometer => (uuid16(0x1809), &["indicate"]),
            Kind::Cuff => (uuid16(0x1810), &["indicate"]),
            Kind::OximeterContinuous => (uuid16(0x1822), &["notify"]),
            Kind::OximeterSpot => (uuid16(0x1822), &["indicate"]),
            Kind::OximeterVendor => (NONIN_SERVICE, &["notify"]),
            Kind::Scale => (uuid16(0x181d), &["indicate"]),
            Kind::GlucoseMeter => (uuid16(0x1808), &["notify"]),
            Kind::Sensor => (uuid16(0x181f), &["notify"]),
            Kind::BodyScale => (uuid16(0x181b), &["indicate"]),
        };
        let encrypted = self.security != Security::Open;
        let own = CharacteristicSpec { uuid: self.characteristic(), encrypted, ..CharacteristicSpec::new(0, flags, &[]) };
        let passkey = if let Security::Passkey(digits) = self.security { Some(digits) } else { None };
        let text = |short, text: &str| CharacteristicSpec::new(short, &["read"], text.as_bytes());
        let information = vec![
            text(0x2a29, "Example Medical"),
            text(0x2a24, self.config_kind()),
            text(0x2a25, &self.serial),
            text(0x2a26, "1.0.3"),
            text(0x2a27, "A"),
            text(0x2a28, "2.1"),
        ];
        let battery = vec![CharacteristicSpec::new(0x2a19, &["read", "notify"], &[100])];
        let mut services = vec![
            ServiceSpec { uuid: service, characteristics: vec![own] },
            ServiceSpec { uuid: uuid16(0x180f), characteristics: battery },
            ServiceSpec { uuid: uuid16(0x180a), characteristics: information },
        ];
        if self.kind == Kind::GlucoseMeter {
            services[0].characteristics.push(CharacteristicSpec::new(0x2a34, &["notify"], &[]));
            services[0].characteristics.push(CharacteristicSpec::new(0x2a52, &["write", "indicate"], &[]));
        }
        if self.kind == Kind::Sensor {
            for (short, flags) in [(0x2aa8, &["read"][..]), (0x2aa9, &["read"]), (0x2aaa, &["read", "write"])] {
                services[0].characteristics.push(CharacteristicSpec::new(short, flags, &[]));
            }
            services[0].characteristics.push(CharacteristicSpec::new(0x2a52, &["write", "indicate"], &[]));
        }
        if self.kind == Kind::BodyScale {
            let weight = vec![CharacteristicSpec::new(0x2a9d, &["indicate"], &[])];
            services.push(ServiceSpec { uuid: uuid16(0x181d), characteristics: weight });
            let users = vec![CharacteristicSpec::new(0x2a9f, &["write", "indicate"], &[])];
            services.push(ServiceSpec { uuid: uuid16(0x181c), characteristics: users });
        }
        match self.clock {
            Clock::None => {}
            Clock::CurrentTime => {
                let clock = vec![CharacteristicSpec::new(0x2a2b, &["read", "write", "notify"], &[])];
                services.push(ServiceSpec { uuid: uuid16(0x1805), characteristics: clock });
            }
            Clock::DateTime => services[0].characteristics.push(CharacteristicSpec::new(0x2a08, &["read", "write"], &[])),
        }
        DeviceSpec {
            address: self.address.clone(),
            random_address: self.privacy,
            privacy: self.privacy,
            name: self.name.clone(),
            advertised: vec![service],
            services,
            battery: Some(100),
            behaviour: Behaviour { handle_base: 0x10, passkey, ..Default::default() },
        }
    }

    /// Puts it into the fake's room, its clock running.
    pub fn place(&self, bluez: &FakeBluez, hci: &str) {
        bluez.add_device(hci, self.spec());
        let (clock, offset) = (self.clock, self.clock_offset_s);
        let show = move || {
            let now = seconds(SystemTime::now()) + offset;
            match clock {
                Clock::CurrentTime => [&date_time(now)[..], &[0, 0, 0]].concat(),
                _ => date_time(now).to_vec(),
            }
        };
        match self.clock {
            Clock::None => {}
            Clock::CurrentTime => bluez.set_live_value(&self.address, CURRENT_TIME, Arc::new(show)),
            Clock::DateTime => bluez.set_live_value(&self.address, DATE_TIME, Arc::new(show)),
        }
    }

    /// Value `n`, measured at `at` (Unix seconds) by the gateway's clock. Within a period of at least 100 values no two
    /// neighbours of a stream repeat, so what is lost or invented shows.
    pub fn value(&self, n: u64, at: i64) -> Emission {
        let n = i32::try_from(n % 1_000_000).expect("it is small");
        let time = date_time(at + self.clock_offset_s);
        let (octets, values) = match self.kind {
            Kind::HeartRateStrap => heart_rate(n),
            Kind::Thermometer => temperature(n, time),
            Kind::Cuff => blood_pressure(n, time),
            Kind::OximeterContinuous => oximeter(n, None),
            Kind::OximeterSpot => oximeter(n, Some(time)),
            Kind::OximeterVendor => nonin(n),
            Kind::Scale => weighing(n, time),
            Kind::GlucoseMeter => glucose(n, time),
            Kind::Sensor => sensor(n),
            Kind::BodyScale => composition(n, time, 1),
        };
        Emission { characteristic: self.characteristic(), octets, values }
    }

    pub fn battery(&self, n: u64) -> Emission {
        let level = u8::try_from(100 - n % 101).expect("0 to 100");
        Emission { characteristic: BATTERY_LEVEL, octets: vec![level], values: vec![("battery_level", level.to_string())] }
    }
}

pub type Made = (Vec<u8>, Vec<(&'static str, String)>);

/// 2A37: contact detected; none, one or two RR intervals in 1/1024 s.
fn heart_rate(n: i32) -> Made {
    let rate = 50 + n * 77 % 200;
    let intervals: Vec<u16> = (0..n % 3).map(|i| u16::try_from(60 * 1024 / rate + i).expect("below 1229")).collect();
    let flags = 0b110 | if intervals.is_empty() { 0 } else { 0b1_0000 };
    let mut octets = vec![flags, u8::try_from(rate).expect("at most 249")];
    let mut values = vec![("heart_rate", rate.to_string())];
    for interval in intervals {
        octets.extend(interval.to_le_bytes());
        values.push(("rr_interval", fraction(i64::from(interval) * 9_765_625, 7)));
    }
    (octets, values)
}

/// 2A1C: Celsius in hundredths, with time and type "body".
fn temperature(n: i32, time: [u8; 7]) -> Made {
    let hundredths = 3500 + n * 37 % 701;
    let octets = [&[0b110][..], &medfloat32(hundredths, -2), &time, &[2]].concat();
    (octets, vec![("body_temperature", format!("{}.{:02}", hundredths / 100, hundredths % 100))])
}

/// 2A35: mmHg, with time, pulse, user 1 and an empty status.
fn blood_pressure(n: i32, time: [u8; 7]) -> Made {
    let (systolic, diastolic) = (95 + n * 7 % 80, 50 + n * 11 % 41);
    let (mean, pulse) = (diastolic + (systolic - diastolic) / 3, 55 + n * 13 % 90);
    let mut octets = vec![0b1_1110];
    [systolic, diastolic, mean].into_iter().for_each(|pressure| octets.extend(medfloat16(pressure, 0)));
    octets.extend(time);
    octets.extend(medfloat16(pulse, 0));
    octets.extend([1, 0, 0]);
    (octets, vec![("blood_pressure", format!("{systolic}/{diastolic}/{mean}")), ("pulse_rate.cuff", pulse.to_string())])
}

/// 2A5F, or 2A5E where there is a time: tenths of a percent and of a beat.
fn oximeter(n: i32, time: Option<[u8; 7]>) -> Made {
    let (saturation, pulse) = (900 + n * 17 % 100, 500 + n * 137 % 1500);
    let mut octets = vec![u8::from(time.is_some())];
    octets.extend(medfloat16(saturation, -1));
    octets.extend(medfloat16(pulse, -1));
    octets.extend(time.into_iter().flatten());
    let tenths = |value: i32| format!("{}.{}", value / 10, value % 10);
    (octets, vec![("spo2", tenths(saturation)), ("pulse_rate.oximeter", tenths(pulse))])
}

/// 2A18: number, time, kg/L of capillary plasma from a finger. A mg/dL is 10^-5 kg/L.
fn glucose(n: i32, time: [u8; 7]) -> Made {
    let milligrams = 60 + n * 37 % 300;
    let number = u16::try_from(n).expect("it is small").to_le_bytes();
    let octets = [&[0b10][..], &number, &time, &medfloat16(milligrams, -5), &[0x12]].concat();
    (octets, vec![("glucose", milligrams.to_string())])
}

/// 2AA7: one record, `n` minutes after the start of the session.
fn sensor(n: i32) -> Made {
    let milligrams = 60 + n * 37 % 300;
    let minutes = u16::try_from(n).expect("it is small").to_le_bytes();
    let octets = [&[6, 0][..], &medfloat16(milligrams, 0), &minutes].concat();
    (octets, vec![("glucose.interstitial", milligrams.to_string())])
}

/// 2A9C: tenths of a per cent of fat and muscle, with time and user.
pub fn composition(n: i32, time: [u8; 7], user: u8) -> Made {
    let (fat, muscle) = (100 + n * 7 % 300, 300 + n * 11 % 200);
    let field = |value: i32| u16::try_from(value).expect("below 65535").to_le_bytes();
    let octets = [&0b1_0110u16.to_le_bytes()[..], &field(fat), &time, &[user], &field(muscle)].concat();
    let tenths = |value: i32| format!("{}.{}", value / 10, value % 10);
    (octets, vec![("body_fat_percent", tenths(fat)), ("muscle_percent", tenths(muscle))])
}

/// Nonin's ten octets: percent, beats and hundredths of a percent, most significant octet first.
fn nonin(n: i32) -> Made {
    let (saturation, pulse, amplitude) = (80 + n * 7 % 20, 40 + n * 77 % 260, 100 + n * 31 % 900);
    let octet = |value: i32| u8::try_from(value).expect("it fits an octet");
    let mut octets = vec![0x0A, 0x10, 30, octet(amplitude >> 8), octet(amplitude & 0xFF), 0, octet(n & 0xFF), octet(saturation)];
    octets.extend([octet(pulse >> 8), octet(pulse & 0xFF)]);
    let amplitude = format!("{}.{:02}", amplitude / 100, amplitude % 100);
    let values =
        [("spo2", saturation.to_string()), ("pulse_rate.oximeter", pulse.to_string()), ("pulse_amplitude_index", amplitude)];
    (octets, values.to_vec())
}

/// 2A9D: steps of 5 g, with time, user 1, body mass index and height.
fn weighing(n: i32, time: [u8; 7]) -> Made {
    let (steps, bmi, height) = (8_000 + n * 37 % 12_000, 180 + n * 7 % 150, 1_500 + n * 11 % 450);
    let mut octets = vec![0b1110];
    let field = |value: i32| u16::try_from(value).expect("below 65535").to_le_bytes();
    octets.extend(field(steps));
    octets.extend(time);
    octets.push(1);
    octets.extend(field(bmi));
    octets.extend(field(height));
    let thousandths = |value: i32| format!("{}.{:03}", value / 1_000, value % 1_000);
    let values = vec![
        ("body_weight", thousandths(steps * 5)),
        ("bmi", format!("{}.{}", bmi / 10, bmi % 10)),
        ("body_height", thousandths(height)),
    ];
    (octets, values)
}

/// IEEE 11073 SFLOAT: exponent in the upper 4 bits, mantissa in the lower 12, both two's complement.
pub fn medfloat16(mantissa: i32, exponent: i8) -> [u8; 2] {
    assert!((-2045..=2045).contains(&mantissa) && (-8..=7).contains(&exponent), "it does not fit an SFLOAT");
    (((exponent as u16 & 0xf) << 12) | (mantissa as u16 & 0xfff)).to_le_bytes()
}

/// IEEE 11073 FLOAT: exponent in the upper 8 bits, mantissa in the lower 24.
pub fn medfloat32(mantissa: i32, exponent: i8) -> [u8; 4] {
    assert!(mantissa.abs() <= 8_388_605, "it does not fit a FLOAT");
    (((exponent as u32 & 0xff) << 24) | (mantissa as u32 & 0xff_ffff)).to_le_bytes()
}

/// Date Time of 7 octets, showing UTC.
pub fn date_time(unix_seconds: i64) -> [u8; 7] {
    let civil = TimeZone::UTC.to_datetime(Timestamp::from_second(unix_seconds).expect("a time jiff can hold"));
    let [low, high] = civil.year().to_le_bytes();
    [low, high, civil.month() as u8, civil.day() as u8, civil.hour() as u8, civil.minute() as u8, civil.second() as u8]
}

pub fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).expect("not that late"))
}

/// A decimal without needless zeros.
fn fraction(mantissa: i64, places: u32) -> String {
    let scale = 10i64.pow(places);
    let text = format!("{}.{:0width$}", mantissa / scale, mantissa % scale, width = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One value a device made, for the ledger.
#[derive(Clone, Debug)]
pub struct MadeValue {
    pub device: String,
    pub metric: &'static str,
    pub value: String,
    /// Which emission of the device it was in.
    pub sequence: u64,
    pub at: SystemTime,
    /// BlueZ had a listener for it when it went over the air.
    pub sent: bool,
}

/// A device at work: it measures, streams or keeps, and remembers all it made.
pub struct Worker {
    pub device: VirtualDevice,
    next: u64,
    last_at: i64,
    waiting: VecDeque<(usize, Emission)>,
    made: Vec<MadeValue>,
}

impl Worker {
    pub fn new(device: VirtualDevice) -> Self {
        Self { device, next: 0, last_at: 0, waiting: VecDeque::new(), made: Vec::new() }
    }

    /// Makes the next value. A stream's is gone when nobody listens; another device keeps it for `send_waiting`.
    /// The time on it is at least a second after the one before, as a person with a cuff can't be faster.
    pub fn measure(&mut self, room: &dyn Devices) {
        let now = SystemTime::now();
        self.last_at = seconds(now).max(self.last_at + 1);
        let emission = self.device.value(self.next, self.last_at);
        let first = self.made.len();
        for (metric, value) in &emission.values {
            let (device, value) = (self.device.address.clone(), value.clone());
            self.made.push(MadeValue { device, metric, value, sequence: self.next, at: now, sent: false });
        }
        self.next += 1;
        self.waiting.push_back((first, emission));
        self.send_waiting(room);
        if !self.device.keeps() {
            self.waiting.clear();
        }
    }

    /// Sends what it kept, oldest first; says how many are still waiting.
    pub fn send_waiting(&mut self, room: &dyn Devices) -> usize {
        while let Some((first, emission)) = self.waiting.front() {
            if !room.notify(&self.device.address, emission.characteristic, &emission.octets) {
                break;
            }
            let values = emission.values.len();
            self.made[*first..first + values].iter_mut().for_each(|made| made.sent = true);
            self.waiting.pop_front();
        }
        self.waiting.len()
    }

    pub fn made(&self) -> &[MadeValue] {
        &self.made
    }

    /// Ready for the next value to be heard.
    pub fn is_heard(&self, room: &dyn Devices) -> bool {
        room.is_listening(&self.device.address, self.device.characteristic())
    }
}
