//! The time as a device is told it: what a clock in its zone shows, summer time included.

use jiff::tz::{Dst, TimeZone};

use crate::reading::Timestamp;

/// Seven octets of local time (Date Time), and how that stands to UTC, in quarters of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNow {
    pub date_time: [u8; 7],
    /// Without summer time.
    pub zone_quarters: i8,
    pub dst_quarters: u8,
    /// 1 is Monday, 7 Sunday.
    day_of_week: u8,
    fractions256: u8,
}

/// Current Time, Adjust Reason: from an external reference.
const BY_REFERENCE: u8 = 0b10;

impl LocalNow {
    /// `None` for a time that jiff can't hold.
    pub fn of(at: Timestamp, zone: &TimeZone) -> Option<Self> {
        let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
        let shown = zone.to_datetime(at);
        let info = zone.to_offset_info(at);
        let summer = if info.dst() == Dst::Yes { 4 } else { 0 };
        let quarters = i8::try_from(info.offset().seconds() / 900).ok()?;
        let part = |value: i8| u8::try_from(value).ok();
        let [low, high] = u16::try_from(shown.year()).ok()?.to_le_bytes();
        Some(Self {
            date_time: [
                low,
                high,
                part(shown.month())?,
                part(shown.day())?,
                part(shown.hour())?,
                part(shown.minute())?,
                part(shown.second())?,
            ],
            zone_quarters: quarters - summer,
            dst_quarters: summer.unsigned_abs(),
            day_of_week: part(shown.weekday().to_monday_one_offset())?,
            fractions256: u8::try_from(i32::from(shown.millisecond()) * 256 / 1_000).ok()?,
        })
    }

    /// Ten octets of Current Time.
    pub fn current_time(&self) -> Vec<u8> {
        [&self.date_time[..], &[self.day_of_week, self.fractions256, BY_REFERENCE]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{device_clock, sig_uuid};

    fn now(text: &str, zone: &str) -> LocalNow {
        let at: jiff::Timestamp = text.parse().expect("a time");
        let zone = TimeZone::get(zone).expect("tzdata is installed");
        LocalNow::of(Timestamp(at.as_millisecond()), &zone).expect("a time of our days")
    }

    #[test]
    fn a_device_is_told_local_time_with_summer_time_in_it() {
        let winter = now("2026-11-23T09:30:05.500Z", "Europe/Vienna");
        assert_eq!(winter.current_time(), [0xEA, 0x07, 11, 23, 10, 30, 5, 1, 128, 2]);
        assert_eq!((winter.zone_quarters, winter.dst_quarters), (4, 0));
        let summer = now("2026-07-05T22:30:05Z", "Europe/Vienna");
        assert_eq!(summer.date_time, [0xEA, 0x07, 7, 6, 0, 30, 5]);
        assert_eq!((summer.zone_quarters, summer.dst_quarters), (4, 4));
        assert_eq!(now("2026-07-05T22:30:05Z", "Asia/Kathmandu").zone_quarters, 23);
    }

    #[test]
    fn what_is_told_reads_back() {
        let told = now("2026-11-23T09:30:05Z", "UTC");
        let shown = device_clock(sig_uuid(0x2A2B), &told.current_time()).map(|time| time.to_string());
        assert_eq!(shown.as_deref(), Some("2026-11-23T09:30:05"));
    }
}
