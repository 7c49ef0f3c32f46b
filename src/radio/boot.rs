//! Time since boot: what every record is stamped with on arrival. It runs through suspend and no clock step moves it.

use std::io;

use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use crate::reading::{BootId, BootMillis};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `CLOCK_BOOTTIME` and the id of the boot it counts from.
pub struct BootClock;

impl BootClock {
    pub fn now() -> BootMillis {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
        BootMillis(seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000)
    }

    pub fn id() -> io::Result<BootId> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let id: Uuid = text.trim().parse().map_err(io::Error::other)?;
        Ok(BootId(id.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_runs_on_and_the_boot_keeps_its_id() {
        let first = BootClock::now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(BootClock::now().0 >= first.0 + 5);
        assert_eq!(BootClock::id().unwrap(), BootClock::id().unwrap());
    }
}
