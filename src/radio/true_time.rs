//! What the time truly is, for whoever tells it to devices: known only while our own clock is synchronised.

use std::sync::{Arc, Mutex, MutexGuard};

use super::boot::boot_now;
use crate::reading::{BootMillis, Timestamp};

/// Written by whoever watches our clock, read before a device's is set.
#[derive(Clone, Debug, Default)]
pub struct TrueTime(Arc<Mutex<Option<(BootMillis, Timestamp)>>>);

impl TrueTime {
    /// `None`: nobody vouches for our clock (any more).
    pub fn note(&self, known: Option<(BootMillis, Timestamp)>) {
        *self.known() = known;
    }

    pub fn now(&self) -> Option<Timestamp> {
        let (at, wall) = (*self.known())?;
        let since = boot_now().0.saturating_sub(at.0);
        Some(wall.plus_ms(i64::try_from(since).ok()?))
    }

    fn known(&self) -> MutexGuard<'_, Option<(BootMillis, Timestamp)>> {
        self.0.lock().expect("nobody panics while holding the time")
    }
}
