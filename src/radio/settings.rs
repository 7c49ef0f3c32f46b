//! What the radio is told: which devices, which of their characteristics, and how long to wait for what.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::bond::Bond;
use super::fetch::Durable;
use super::place::Bonds;
use super::requests::Requests;
use super::true_time::TrueTime;
use crate::gatt::{ConsentCode, Memory, Source};
use crate::profile::Profile;
use crate::reading::{DeviceId, DeviceTime, UserIndex};

/// Turns the value of a clock characteristic into a time; `None` when it says none.
pub type ClockDecoder = fn(Uuid, &[u8]) -> Option<DeviceTime>;

#[derive(Clone, Debug)]
pub struct RadioSettings {
    /// By their addresses: names like hci0 move when adapters are plugged. None: all there are.
    pub adapters: Vec<DeviceId>,
    pub devices: Vec<RadioDevice>,
    pub sharing: Sharing,
    pub clock_decoder: ClockDecoder,
    pub deadlines: Deadlines,
    pub pace: Pace,
    /// What is durable of what devices number.
    pub durable: Durable,
    /// With which adapter devices are bonded.
    pub bonds: Bonds,
    /// What people ask of it comes through here.
    pub requests: Requests,
}

#[derive(Clone, Debug)]
pub struct RadioDevice {
    pub id: DeviceId,
    pub name: String,
    /// The one adapter through which it is reached; `None`: any.
    pub adapter: Option<DeviceId>,
    /// Their values are handed on as they come.
    pub subscribe: Vec<Uuid>,
    /// What else is done with it on a connection, where no standard says it.
    pub profile: Option<Arc<Profile>>,
    /// Read once a connection: Device Information strings become `Information`, anything else is `Heard`.
    pub read: Vec<Uuid>,
    /// Where its clock may be; the first that can be read is, before anything is subscribed.
    pub clock: Vec<Uuid>,
    /// What is taken of its advertisements. One that is read by them is never connected to.
    pub adverts: Vec<Source>,
    /// It is asked who it is before anything is subscribed, and every value says what it told.
    pub ask_nameplate: bool,
    pub bond: Bond,
    pub priority: Priority,
    /// It goes on telling values while it is connected; others are done once they have told what was measured.
    pub streams: bool,
    /// What is done with it once it is subscribed to.
    pub visit: Visits,
    /// While it is connected, or read by its advertisements, a value comes at least this often; `None` for a device that tells
    /// only what was measured.
    pub expect_every: Option<Duration>,
}

impl RadioDevice {
    pub const fn is_read_by_adverts(&self) -> bool {
        !self.adverts.is_empty()
    }
}

/// What is done with a device beside listening.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// Users' slots that are opened.
    pub consents: Consents,
    /// It is worn for a session, whose start tells the times of its values.
    pub session: bool,
    /// It keeps records that are asked for.
    pub memory: Option<Memory>,
    /// Its clock may be set.
    pub set_clock: Option<SetsClock>,
}

#[derive(Clone, Debug)]
pub struct SetsClock {
    /// The zone its clock is to show.
    pub zone: TimeZone,
    pub time: TrueTime,
}

/// Users of a device and the codes that open their slots, and who of them was refused: for the life of the process, because
/// a device may lock a slot whose code is tried again and again.
#[derive(Clone, Default)]
pub struct Consents {
    users: Vec<(UserIndex, ConsentCode)>,
    refused: Arc<Mutex<BTreeSet<UserIndex>>>,
}

impl Consents {
    pub fn new(users: Vec<(UserIndex, ConsentCode)>) -> Self {
        Self { users, refused: Arc::default() }
    }

    pub fn to_ask(&self) -> Vec<(UserIndex, ConsentCode)> {
        let refused = self.known();
        self.users.iter().filter(|(user, _)| !refused.contains(user)).copied().collect()
    }

    pub fn refused(&self, user: UserIndex) {
        self.known().insert(user);
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<UserIndex>> {
        self.refused.lock().expect("nobody panics while holding the refused")
    }
}

impl fmt::Debug for Consents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.users.iter().map(|(user, _)| (user, "<code>"))).finish()
    }
}

/// Who connects first when several want to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Low,
    Normal,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The kernel gives up an LE connection attempt after 20 s itself.
    pub connect: Duration,
    /// From the link being up to BlueZ knowing the services; seconds at most on a healthy link.
    pub resolve: Duration,
    /// Finding the characteristics, reading the clock and subscribing; bonding happens in here.
    pub subscribe: Duration,
    /// From the question to pair to the bond; 1 to 2 s. Within `subscribe`.
    pub pair: Duration,
    /// BlueZ takes about 2 s for an orderly disconnect.
    pub disconnect: Duration,
    /// Before the first retry of a connection that did not come about.
    pub retry_first: Duration,
    /// No device waits longer than this between two tries, but one whose tries BlueZ did not live through.
    pub retry_most: Duration,
    /// And such a one no longer than this: by then somebody has been told, and may have mended it.
    pub retry_suspect: Duration,
    /// After a failure that the next try usually does not see.
    pub retry_quick: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            resolve: Duration::from_secs(15),
            subscribe: Duration::from_secs(30),
            pair: Duration::from_secs(25),
            disconnect: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
            retry_suspect: Duration::from_secs(15 * 60),
            retry_quick: Duration::from_millis(300),
        }
    }
}

/// How fast the ladder of `liveness` is climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one rung of a device to the next: time to disconnect, be heard, connect and subscribe.
    pub climb: Duration,
    /// From one rung that touches all devices to the next.
    pub between: Duration,
    /// How often bluetoothd is asked whether it is there.
    pub ping_every: Duration,
    /// It answers that in milliseconds, whatever else it does.
    pub ping_limit: Duration,
    /// How often our match rules are counted. What leaks, leaks over days.
    pub count_rules_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            climb: Duration::from_secs(60),
            between: Duration::from_secs(10 * 60),
            ping_every: Duration::from_secs(30),
            ping_limit: Duration::from_secs(5),
            count_rules_every: Duration::from_secs(60),
        }
    }
}

/// How the devices share an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Links an adapter holds at once, at least one.
    pub slots: usize,
    /// Who has waited for so long goes before those who are more urgent and came later.
    pub patience: Duration,
    /// And so much longer before a device that is more urgent makes room for it: a gap in what streams costs more than a
    /// delay of what the device keeps.
    pub patience_below: Duration,
    /// A device that tells only what was measured, and has said nothing for so long, is done: stored records come within
    /// seconds of each other.
    pub done: Duration,
    /// A device that goes on telling keeps its link for at least so long, whoever waits.
    pub tenure: Duration,
    /// Who was asked to make room and did not is asked again after this long: it may not have been able to.
    pub ask_again: Duration,
}

impl Sharing {
    pub const DEFAULT: Self = Self {
        slots: 10,
        patience: Duration::from_secs(60),
        patience_below: Duration::from_secs(5 * 60),
        done: Duration::from_secs(15),
        tenure: Duration::from_secs(5 * 60),
        ask_again: Duration::from_secs(30),
    };
}

impl Default for Sharing {
    fn default() -> Self {
        Self::DEFAULT
    }
}
