//! Time is bound late: a record keeps what was known when it arrived, and an [`Anchors`] table turns that into wall time
//! whenever it is rendered. A clock that is set later fixes earlier readings; nothing stored is ever rewritten.

use std::fmt;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::StreamKey;

/// Wall time, milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// RFC 3339 in UTC with milliseconds; a time jiff cannot hold prints as the nearest it can.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fallback = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        write!(f, "{:.3}", jiff::Timestamp::from_millisecond(self.0).unwrap_or(fallback))
    }
}

/// The kernel's boot id: boot time counts mean something only within one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", uuid::Uuid::from_bytes(self.0))
    }
}

/// `CLOCK_BOOTTIME` in milliseconds: it runs through suspend and no clock step moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootMillis(pub u64);

/// A device's own idea of the time (GSS "Date Time"): local, without a zone, and any part of the date may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceTime {
    pub year: Option<u16>,
    pub month: Option<u8>,
    pub day: Option<u8>,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl DeviceTime {
    fn civil(self) -> Option<jiff::civil::DateTime> {
        let (year, month, day) = (i16::try_from(self.year?).ok()?, self.month? as i8, self.day? as i8);
        jiff::civil::DateTime::new(year, month, day, self.hour as i8, self.minute as i8, self.second as i8, 0).ok()
    }

    /// When a clock in that zone shows this; `None` where the date is not full.
    pub fn in_zone(self, zone: &TimeZone) -> Option<Timestamp> {
        self.civil().and_then(|civil| zone.to_timestamp(civil).ok()).map(|at| Timestamp(at.as_millisecond()))
    }

    /// The same clock that many minutes later; `None` without a full date or past what a clock can show.
    pub fn plus_minutes(self, minutes: i64) -> Option<DeviceTime> {
        if minutes == 0 {
            return Some(self);
        }
        self.plus_seconds(minutes.checked_mul(60)?)
    }

    /// The same clock that many seconds later; `None` without a full date or past what a clock can show.
    pub fn plus_seconds(self, seconds: i64) -> Option<DeviceTime> {
        let civil = self.civil()?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()?;
        Self::of_civil(civil)
    }

    /// What a clock shows that many seconds after midnight of 1 January `year`; `None` past the year 9999.
    pub fn after_year(year: i16, seconds: u64) -> Option<DeviceTime> {
        let start = jiff::civil::DateTime::new(year, 1, 1, 0, 0, 0, 0).ok()?;
        let seconds = jiff::SignedDuration::from_secs(i64::try_from(seconds).ok()?);
        Self::of_civil(start.checked_add(seconds).ok()?)
    }

    fn of_civil(civil: jiff::civil::DateTime) -> Option<DeviceTime> {
        let part = |value: i8| u8::try_from(value).ok();
        Some(DeviceTime {
            year: Some(u16::try_from(civil.year()).ok()?),
            month: Some(part(civil.month())?),
            day: Some(part(civil.day())?),
            hour: part(civil.hour())?,
            minute: part(civil.minute())?,
            second: part(civil.second())?,
        })
    }

    /// Milliseconds from `earlier` to `self` on the device's own clock; `None` where either lacks a full date.
    pub fn since_ms(self, earlier: DeviceTime) -> Option<i64> {
        let (a, b) = (earlier.civil()?, self.civil()?);
        let utc = |civil| TimeZone::UTC.to_timestamp(civil).ok().map(|at| at.as_millisecond());
        Some(utc(b)? - utc(a)?)
    }
}

/// EDTF-like text, unknown parts as `X`: `2026-11-23T10:30:00`, `XXXX-04-17T20:41:59`.
impl fmt::Display for DeviceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.year {
            Some(year) => write!(f, "{year:04}")?,
            None => f.write_str("XXXX")?,
        }
        for part in [self.month, self.day] {
            match part {
                Some(part) => write!(f, "-{part:02}")?,
                None => f.write_str("-XX")?,
            }
        }
        write!(f, "T{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }
}

/// What a record knows about time, all of it raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub boot: BootId,
    pub arrived: BootMillis,
    /// The time the device put on the value.
    pub device_time: Option<DeviceTime>,
    /// The device's clock as it was read in the same connection, and when: the coincident time stamp.
    pub device_clock: Option<(DeviceTime, BootMillis)>,
    /// The device had kept the value in its memory; it was not heard live.
    pub stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Nobody vouches for it (a Pi without RTC after boot, fake-hwclock included).
    Unsynced,
    /// Set from a battery-backed clock.
    Rtc,
    /// Synchronised by NTP, as systemd-timedated reports it.
    Ntp,
}

impl ClockQuality {
    pub const fn name(self) -> &'static str {
        match self {
            ClockQuality::Unsynced => "unsynced",
            ClockQuality::Rtc => "rtc",
            ClockQuality::Ntp => "ntp",
        }
    }

    /// A word nobody knows vouches for nothing.
    pub fn from_name(name: &str) -> Self {
        [Self::Ntp, Self::Rtc].into_iter().find(|quality| quality.name() == name).unwrap_or(Self::Unsynced)
    }
}

/// One observation that this boot time was that wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub boot: BootId,
    pub at: BootMillis,
    pub wall: Timestamp,
    pub quality: ClockQuality,
    pub uncertainty_ms: u32,
}

/// A wall time and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    pub at: Timestamp,
    pub quality: ClockQuality,
    pub uncertainty_ms: u32,
}

/// When a value was measured, and by whose clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    /// It carries no usable device time and was heard live: the time of arrival.
    Arrival(WallTime),
    /// Device time, moved by the offset measured in the same connection.
    DeviceClock(WallTime),
    /// Device time in the device's zone, of a clock nobody compared, close to arrival.
    DeviceZone(WallTime),
    /// Device time that no measured offset explains; arrival says otherwise. Never charted without a person.
    Ambiguous(WallTime),
    /// The boot never had a clock.
    Unknown,
}

/// A device clock that was not compared is believed when it lies this near to arrival: a measurement is sent within
/// seconds, and people set clocks to the minute.
const BELIEVED_WITHIN_MS: i64 = 120_000;
/// A device time has a resolution of a second, and so has the comparison of the two clocks.
const DEVICE_CLOCK_UNCERTAINTY_MS: u32 = 2_000;

/// And of a minute where a sensor counts those of its session.
const MINUTES_UNCERTAINTY_MS: u32 = 60_000;

/// All anchors of the boots the log still speaks of.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    anchors: Vec<Anchor>,
}

impl Anchors {
    pub fn new(anchors: Vec<Anchor>) -> Self {
        let mut all = Self { anchors };
        all.anchors.sort_by_key(|a| (a.boot, a.at));
        all
    }

    pub fn push(&mut self, anchor: Anchor) {
        let place = self.anchors.partition_point(|a| (a.boot, a.at) <= (anchor.boot, anchor.at));
        self.anchors.insert(place, anchor);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Anchor> {
        self.anchors.iter()
    }

    /// The wall time of a boot time: by the best quality the boot ever had, then by the latest anchor before it, else the
    /// first after it. `None` while the boot has no anchor better than unsynced.
    pub fn wall(&self, boot: BootId, at: BootMillis) -> Option<WallTime> {
        let of_boot = || self.anchors.iter().filter(move |a| a.boot == boot && a.quality > ClockQuality::Unsynced);
        let best = of_boot().map(|a| a.quality).max()?;
        let of_best = || of_boot().filter(move |a| a.quality == best);
        let anchor = of_best().rfind(|a| a.at <= at).or_else(|| of_best().next())?;
        let offset = i64::try_from(at.0).ok()? - i64::try_from(anchor.at.0).ok()?;
        Some(WallTime { at: anchor.wall.plus_ms(offset), quality: anchor.quality, uncertainty_ms: anchor.uncertainty_ms })
    }

    /// When a value of a stream was measured; `zone` is the device's.
    pub fn of(&self, stamp: &Stamp, stream: Option<StreamKey>, zone: &TimeZone) -> Instant {
        let instant = self.measured(stamp, zone);
        if !stream.is_some_and(StreamKey::counts_minutes) {
            return instant;
        }
        let to_the_minute = |time: WallTime| WallTime { uncertainty_ms: time.uncertainty_ms.max(MINUTES_UNCERTAINTY_MS), ..time };
        match instant {
            Instant::DeviceClock(time) => Instant::DeviceClock(to_the_minute(time)),
            Instant::DeviceZone(time) => Instant::DeviceZone(to_the_minute(time)),
            other => other,
        }
    }

    /// When the value under `stamp` was measured by a clock of seconds; `zone` is the device's.
    fn measured(&self, stamp: &Stamp, zone: &TimeZone) -> Instant {
        let Some(arrival) = self.wall(stamp.boot, stamp.arrived) else { return Instant::Unknown };
        let Some(device_time) = stamp.device_time else {
            return if stamp.stored { Instant::Ambiguous(arrival) } else { Instant::Arrival(arrival) };
        };
        if let Some((clock, read_at)) = stamp.device_clock
            && let (Some(since), Some(read_at)) = (device_time.since_ms(clock), self.wall(stamp.boot, read_at))
        {
            let uncertainty_ms = arrival.uncertainty_ms.saturating_add(DEVICE_CLOCK_UNCERTAINTY_MS);
            return Instant::DeviceClock(WallTime { at: read_at.at.plus_ms(since), uncertainty_ms, ..read_at });
        }
        let Some(at) = device_time.in_zone(zone) else {
            return if stamp.stored { Instant::Ambiguous(arrival) } else { Instant::Arrival(arrival) };
        };
        let apart = at.0.abs_diff(arrival.at.0);
        let uncertainty_ms = u32::try_from(apart).unwrap_or(u32::MAX).max(DEVICE_CLOCK_UNCERTAINTY_MS);
        let time = WallTime { at, uncertainty_ms, ..arrival };
        if apart <= BELIEVED_WITHIN_MS.unsigned_abs() { Instant::DeviceZone(time) } else { Instant::Ambiguous(time) }
    }
}

impl Instant {
    pub fn wall(self) -> Option<WallTime> {
        match self {
            Instant::Arrival(time) | Instant::DeviceClock(time) | Instant::DeviceZone(time) | Instant::Ambiguous(time) => {
                Some(time)
            }
            Instant::Unknown => None,
        }
    }

    /// The word a payload carries beside `measured_at`.
    pub const fn source(self) -> &'static str {
        match self {
            Instant::Arrival(_) => "arrival",
            Instant::DeviceClock(_) => "device_clock",
            Instant::DeviceZone(_) => "device_zone",
            Instant::Ambiguous(_) => "ambiguous",
            Instant::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{DeviceId, Metric, Modality};

    const BOOT: BootId = BootId([1; 16]);

    fn anchor(at: u64, wall: i64, quality: ClockQuality) -> Anchor {
        Anchor { boot: BOOT, at: BootMillis(at), wall: Timestamp(wall), quality, uncertainty_ms: 10 }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond())
    }

    fn device(hour: u8, minute: u8) -> DeviceTime {
        DeviceTime { year: Some(2026), month: Some(11), day: Some(23), hour, minute, second: 0 }
    }

    fn stamp(arrived: u64) -> Stamp {
        Stamp { boot: BOOT, arrived: BootMillis(arrived), device_time: None, device_clock: None, stored: false }
    }

    #[test]
    fn a_clock_set_later_fixes_earlier_readings() {
        let mut anchors = Anchors::default();
        anchors.push(anchor(0, 0, ClockQuality::Unsynced));
        assert_eq!(anchors.wall(BOOT, BootMillis(5_000)), None);
        anchors.push(anchor(60_000, 1_000_000, ClockQuality::Ntp));
        assert_eq!(anchors.wall(BOOT, BootMillis(5_000)).map(|w| w.at), Some(Timestamp(945_000)));
        assert_eq!(anchors.wall(BootId([2; 16]), BootMillis(5_000)), None, "another boot's clock says nothing about this one");
    }

    #[test]
    fn the_better_clock_wins_and_a_step_moves_only_what_follows() {
        let anchors = Anchors::new(vec![
            anchor(0, 500, ClockQuality::Rtc),
            anchor(10_000, 1_000_000, ClockQuality::Ntp),
            anchor(20_000, 2_000_000, ClockQuality::Ntp),
        ]);
        assert_eq!(anchors.wall(BOOT, BootMillis(1_000)).map(|w| w.at), Some(Timestamp(991_000)));
        assert_eq!(anchors.wall(BOOT, BootMillis(15_000)).map(|w| w.at), Some(Timestamp(1_005_000)));
        assert_eq!(anchors.wall(BOOT, BootMillis(21_000)).map(|w| w.at), Some(Timestamp(2_001_000)));
    }

    #[test]
    fn a_compared_device_clock_gives_the_time_whatever_it_shows() {
        let wall = at("2026-11-23T10:00:00Z");
        let anchors = Anchors::new(vec![anchor(0, wall.0, ClockQuality::Ntp)]);
        let wrong_by_years = DeviceTime { year: Some(2011), ..device(3, 0) };
        let measured = DeviceTime { minute: 20, hour: 2, ..wrong_by_years };
        let stamp =
            Stamp { device_time: Some(measured), device_clock: Some((wrong_by_years, BootMillis(60_000))), ..stamp(61_000) };
        let Instant::DeviceClock(time) = anchors.measured(&stamp, &TimeZone::UTC) else { panic!("not by the device's clock") };
        assert_eq!(time.at, at("2026-11-23T09:21:00Z"));
    }

    #[test]
    fn a_clock_that_counts_minutes_is_not_trusted_to_the_second() {
        let anchors = Anchors::new(vec![anchor(0, at("2026-11-23T10:00:00Z").0, ClockQuality::Ntp)]);
        let uncertainty = |metric, modality| {
            let stamp = Stamp {
                device_time: Some(device(9, 0)),
                device_clock: Some((device(10, 0), BootMillis(0))),
                stored: true,
                ..stamp(0)
            };
            let stream = StreamKey { device: DeviceId::GATEWAY, user: None, metric, site: None, modality };
            anchors.of(&stamp, Some(stream), &TimeZone::UTC).wall().map(|wall| wall.uncertainty_ms)
        };
        assert_eq!(uncertainty(Metric::GlucoseInterstitial, Modality::Continuous), Some(60_000));
        assert_eq!(uncertainty(Metric::GlucoseInterstitial, Modality::Spot), Some(2_010), "a meter has a clock");
    }

    #[test]
    fn a_device_time_nobody_compared_is_believed_only_near_arrival() {
        let anchors = Anchors::new(vec![anchor(0, at("2026-11-23T10:00:00Z").0, ClockQuality::Ntp)]);
        let near = Stamp { device_time: Some(device(10, 1)), ..stamp(0) };
        let far = Stamp { device_time: Some(device(9, 0)), ..stamp(0) };
        assert!(matches!(anchors.measured(&near, &TimeZone::UTC), Instant::DeviceZone(_)));
        assert!(matches!(anchors.measured(&far, &TimeZone::UTC), Instant::Ambiguous(_)));
        assert!(matches!(anchors.measured(&stamp(5), &TimeZone::UTC), Instant::Arrival(_)));
        let stored = Stamp { stored: true, ..stamp(5) };
        assert!(matches!(anchors.measured(&stored, &TimeZone::UTC), Instant::Ambiguous(_)));
    }

    #[test]
    fn times_print_as_utc_with_milliseconds() {
        assert_eq!(Timestamp(1_774_000_000_005).to_string(), "2026-03-20T09:46:40.005Z");
        assert_eq!(DeviceTime { year: None, ..device(20, 41) }.to_string(), "XXXX-11-23T20:41:00");
        let _ = (Timestamp(i64::MIN).to_string(), Timestamp(i64::MAX).to_string());
    }
}
