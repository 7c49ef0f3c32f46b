//! The clock everything is stamped with: it counts from boot, through suspend, and no time setting moves it.

use std::io;

use rustix::time::{ClockId, clock_gettime};

use crate::reading::{BootId, BootMillis};

#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    boot: BootId,
}

impl BootClock {
    /// Reads the kernel's boot id; it stays the same for the life of the process.
    pub fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let id = uuid::Uuid::parse_str(text.trim()).map_err(io::Error::other)?;
        Ok(Self { boot: BootId(id.into_bytes()) })
    }

    pub const fn id(self) -> BootId {
        self.boot
    }

    pub fn now(self) -> BootMillis {
        boot_now()
    }
}

/// Time since boot, for who has no use for the boot's id.
pub fn boot_now() -> BootMillis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("boot time counts up from zero");
    BootMillis(seconds * 1000 + u64::try_from(time.tv_nsec).expect("nanoseconds are not negative") / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_runs_on_and_the_boot_keeps_its_id() {
        let clock = BootClock::read().unwrap();
        let first = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(clock.now().0 >= first.0 + 5);
        assert_eq!(clock.id(), BootClock::read().unwrap().id());
    }
}
