//! A fake systemd-timedated: who vouches for the clock. Like the real one it announces no change of `NTPSynchronized` or
//! the times (timedated.c marks them as emitting no signal), so a client has to ask.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use zbus::interface;

#[derive(Clone, Debug)]
pub struct Clock {
    pub ntp: bool,
    pub synchronized: bool,
    /// `None`: no battery-backed clock; timedated then gives 0.
    pub rtc_offset_us: Option<i64>,
    pub time_offset_us: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { ntp: true, synchronized: true, rtc_offset_us: Some(0), time_offset_us: 0 }
    }
}

pub struct FakeTimedate {
    clock: Arc<Mutex<Clock>>,
    // Serves until dropped.
    _runtime: tokio::runtime::Runtime,
    _connection: zbus::Connection,
}

impl FakeTimedate {
    /// Owns `org.freedesktop.timedate1` on `bus`, synchronised by NTP.
    pub fn start(bus: &str) -> Self {
        let clock = Arc::new(Mutex::new(Clock::default()));
        let served = Timedate(clock.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let bus = bus.to_owned();
        let connect = async move {
            let builder = zbus::connection::Builder::address(bus.as_str()).serve_at("/org/freedesktop/timedate1", served);
            builder.name("org.freedesktop.timedate1").build().await
        };
        // A thread of its own, so that it can also be started from inside another runtime.
        let (runtime, connection) = std::thread::spawn(move || {
            let connection = runtime.block_on(connect).expect("timedate1 on the private bus");
            (runtime, connection)
        })
        .join()
        .expect("the fake timedated starts");
        Self { clock, _runtime: runtime, _connection: connection }
    }

    pub fn change(&self, change: impl FnOnce(&mut Clock)) {
        change(&mut lock(&self.clock));
    }
}

fn lock(clock: &Mutex<Clock>) -> MutexGuard<'_, Clock> {
    clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

struct Timedate(Arc<Mutex<Clock>>);

fn now_us(offset: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_micros()).expect("and long before the year 500000").saturating_add_signed(offset)
}

#[interface(name = "org.freedesktop.timedate1")]
impl Timedate {
    #[zbus(property, name = "NTP")]
    fn ntp(&self) -> bool {
        lock(&self.0).ntp
    }

    #[zbus(property, name = "CanNTP")]
    fn can_ntp(&self) -> bool {
        true
    }

    #[zbus(property(emits_changed_signal = "false"), name = "NTPSynchronized")]
    fn ntp_synchronized(&self) -> bool {
        lock(&self.0).synchronized
    }

    #[zbus(property(emits_changed_signal = "false"), name = "TimeUSec")]
    fn time_usec(&self) -> u64 {
        now_us(lock(&self.0).time_offset_us)
    }

    #[zbus(property(emits_changed_signal = "false"), name = "RTCTimeUSec")]
    fn rtc_time_usec(&self) -> u64 {
        lock(&self.0).rtc_offset_us.map_or(0, now_us)
    }

    #[zbus(property, name = "LocalRTC")]
    fn local_rtc(&self) -> bool {
        false
    }

    #[zbus(property)]
    fn timezone(&self) -> String {
        "Etc/UTC".to_owned()
    }
}
