//! Asks systemd-timedated how good the clock is. A sandboxed process may not ask the kernel, and a clock that merely shows
//! a date (fake-hwclock) is not one that knows the time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::radio::BootClock;
use crate::reading::{BootMillis, ClockQuality, Timestamp};

/// A clock that was just synchronised is noticed within this.
const EVERY: Duration = Duration::from_secs(5);
/// timedated is started on demand and answers in milliseconds once it runs.
const ANSWER: Duration = Duration::from_secs(10);
/// A synchronised clock of a small computer on a normal network.
const NTP_UNCERTAINTY_MS: u32 = 50;
/// A battery-backed clock may have drifted for weeks.
const RTC_UNCERTAINTY_MS: u32 = 5_000;
/// The system clock was set from the battery-backed one if they still agree to this.
const RTC_AGREES: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReport {
    pub at: BootMillis,
    pub wall: Timestamp,
    pub quality: ClockQuality,
    pub uncertainty_ms: u32,
}

#[zbus::proxy(
    interface = "org.freedesktop.timedate1",
    default_service = "org.freedesktop.timedate1",
    default_path = "/org/freedesktop/timedate1"
)]
trait TimeDate {
    #[zbus(property(emits_changed_signal = "false"), name = "NTPSynchronized")]
    fn ntp_synchronized(&self) -> zbus::Result<bool>;
    #[zbus(property(emits_changed_signal = "false"), name = "RTCTimeUSec")]
    fn rtc_time_usec(&self) -> zbus::Result<u64>;
}

/// Reports the clock now and then until told to stop. Without timedated it says "unsynced", and why once.
pub async fn watch_clock(boot: BootClock, reports: mpsc::Sender<ClockReport>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut complained, mut bus) = (false, None);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let (quality, uncertainty_ms) = match tokio::time::timeout(ANSWER, quality(&mut bus)).await {
            Ok(Ok(answer)) => {
                complained = false;
                answer
            }
            Ok(Err(_)) | Err(_) => {
                if !complained {
                    tracing::warn!(
                        "systemd-timedated does not answer: the clock counts as unsynced, and readings carry no time until it does"
                    );
                }
                (complained, bus) = (true, None);
                (ClockQuality::Unsynced, 0)
            }
        };
        let report = ClockReport { at: boot.now(), wall: wall_now(), quality, uncertainty_ms };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// Asks over one connection, made anew after it failed.
async fn quality(bus: &mut Option<zbus::Connection>) -> zbus::Result<(ClockQuality, u32)> {
    let connection = match bus {
        Some(connection) => connection,
        None => bus.insert(zbus::Connection::system().await?),
    };
    let timedate = TimeDateProxy::builder(connection).cache_properties(zbus::proxy::CacheProperties::No).build().await?;
    if timedate.ntp_synchronized().await? {
        return Ok((ClockQuality::Ntp, NTP_UNCERTAINTY_MS));
    }
    let rtc = Duration::from_micros(timedate.rtc_time_usec().await.unwrap_or(0));
    let apart = rtc.as_millis().abs_diff(u128::try_from(wall_now().0).unwrap_or(0));
    if !rtc.is_zero() && apart <= RTC_AGREES.as_millis() {
        return Ok((ClockQuality::Rtc, RTC_UNCERTAINTY_MS));
    }
    Ok((ClockQuality::Unsynced, 0))
}

fn wall_now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
