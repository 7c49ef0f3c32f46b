//! What the kernel says of this process and this machine. What it does not say is absent.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Sensors that are asked: a board has one or a few.
const MAX_SENSORS: usize = 16;

/// One process of the gateway; both halves are one or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub id: u32,
    pub rss_octets: u64,
    /// Processor time since it began.
    pub cpu_ms: u64,
    /// Since it began.
    #[serde(default)]
    pub panics: u64,
}

/// As much the process's own as its memory: a hook, too, is of the whole process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// From now on panics are counted and logged. Of what one says only fixed texts are: a formatted one may hold a value.
pub fn watch_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let (thread, text) = (thread.name().unwrap_or("?"), info.payload().downcast_ref::<&str>().copied().unwrap_or_default());
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(thread, at, text, "panic: a mistake in bedrail, please report it");
    }));
}

impl Process {
    pub fn current() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_ms = cpu.tv_sec.unsigned_abs() * 1_000 + cpu.tv_nsec.unsigned_abs() / 1_000_000;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            id: std::process::id(),
            rss_octets: resident_octets(&status).unwrap_or(0),
            cpu_ms,
            panics: PANICS.load(Ordering::Relaxed),
        }
    }
}

fn resident_octets(status: &str) -> Option<u64> {
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Hundredths of a degree Celsius of the hottest sensor below `thermal`, which is `/sys/class/thermal`.
pub fn temperature_centi_c(thermal: &Path) -> Option<i32> {
    let zones = std::fs::read_dir(thermal).ok()?.filter_map(Result::ok);
    let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone")).take(MAX_SENSORS);
    // A sensor that is off answers with an error or with nonsense below absolute zero.
    let milli = zones.filter_map(|zone| std::fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<i32>().ok());
    milli.filter(|milli| (-100_000..300_000).contains(milli)).max().map(|milli| milli / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_time() {
        let before = Process::current();
        let mut memory = vec![1_u8; 8 << 20];
        (0..memory.len()).for_each(|n| memory[n] = memory[n].wrapping_mul(3));
        let after = Process::current();
        assert!(before.rss_octets > 1 << 20 && after.rss_octets >= before.rss_octets + (6 << 20), "{before:?} {after:?}");
        assert!(after.cpu_ms >= before.cpu_ms && std::hint::black_box(&memory)[0] == 3);
        assert_eq!(resident_octets("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12_288));
    }

    #[test]
    fn a_panic_is_caught_and_counted() {
        let usual = std::panic::take_hook();
        let before = Process::current().panics;
        watch_panics();
        let ended = std::thread::spawn(|| panic!("on purpose")).join();
        std::panic::set_hook(usual);
        assert!(ended.is_err() && Process::current().panics > before);
    }

    #[test]
    fn the_hottest_sensor_speaks_and_a_board_without_one_says_nothing() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(temperature_centi_c(&sys.path().join("none")), None);
        assert_eq!(temperature_centi_c(sys.path()), None);
        for (zone, text) in
            [("thermal_zone0", "51540\n"), ("thermal_zone1", "48000\n"), ("thermal_zone2", "-273200\n"), ("cooling0", "99000")]
        {
            std::fs::create_dir(sys.path().join(zone)).unwrap();
            std::fs::write(sys.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(temperature_centi_c(sys.path()), Some(5_154));
    }
}
