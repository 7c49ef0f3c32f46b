//! What is done with a device once it is subscribed to, in this order: users' slots are opened, a sensor's session is looked
//! up, what is stored is fetched, and only then is the clock set, because until then its times are those of the old one.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::boot::boot_now;
use super::central::{CentralError, Found};
use super::event::RadioEvent;
use super::fetch::{self, Durable};
use super::settings::SetsClock;
use super::steps::Link;
use crate::gatt::sig_uuid;
use crate::procedure::{
    CgmSessionSetup, ClockAction, ClockEvent, ClockOutcome, Consent, ConsentAction, ConsentAnswer, ConsentEvent, LocalNow,
    Outcome, SessionAction, SessionEvent, SessionKnown, SetClock,
};
use crate::reading::DeviceTime;

const USER_CONTROL_POINT: Uuid = sig_uuid(0x2A9F);
const SESSION_START: Uuid = sig_uuid(0x2AAA);
/// Values between the stream and whoever waits for an answer: it only looks at them, so none waits long.
const TAPPED: usize = 64;
/// A device that keeps values sends them right after it was subscribed to; this long after the last one it has sent all.
const QUIET: Duration = Duration::from_secs(3);
/// One that never falls silent streams, and its values have no times of its own.
const QUIET_MOST: Duration = Duration::from_secs(30);

impl Link {
    /// Ends when all is done, or with the link, when it is dropped.
    pub async fn visit(&self, durable: &Durable) {
        self.consent().await;
        let session = if self.device.visit.session { Some(self.session().await) } else { None };
        // Without the start of its session a sensor's records can't be told apart.
        let nameless = session.is_some_and(|known| known.start.is_none());
        let fetched = if nameless { None } else { fetch::stored(self, durable, session.and_then(|known| known.start)).await };
        let all_told = matches!(fetched, None | Some(Outcome::Complete(_)));
        if let Some(sets) = self.device.visit.set_clock.clone().filter(|_| all_told) {
            self.set_clock(&sets).await;
        }
    }

    pub fn offered(&self, characteristic: Uuid) -> Option<&Found> {
        self.found.iter().find(|found| found.uuid == characteristic)
    }

    /// From now on values are looked at by whoever holds the receiver.
    pub fn tap(&self) -> mpsc::Receiver<(Uuid, Vec<u8>)> {
        let (tap, tapped) = mpsc::channel(TAPPED);
        self.facts.lock().tap = Some(tap);
        tapped
    }

    pub fn untap(&self) {
        self.facts.lock().tap = None;
    }

    /// `true`: the device took it.
    pub async fn ask(&self, found: &Found, octets: &[u8]) -> bool {
        let written = self.handle.write(found, octets).await;
        self.told(found.uuid, written).is_some()
    }

    async fn look_up(&self, characteristic: Uuid) -> Option<Vec<u8>> {
        let found = self.offered(characteristic).filter(|found| found.readable)?;
        let read = self.handle.read(found).await;
        self.told(characteristic, read)
    }

    fn told<T>(&self, characteristic: Uuid, result: Result<T, CentralError>) -> Option<T> {
        result.inspect_err(|error| debug!(device = %self.device.id, %characteristic, %error, "it does not take it")).ok()
    }

    /// Opens the slots of the users the config names.
    async fn consent(&self) {
        let users = self.device.visit.consents.to_ask();
        let point = self.offered(USER_CONTROL_POINT).filter(|found| found.tells && found.writable);
        let (Some(point), false) = (point, users.is_empty()) else { return };
        let mut tapped = self.tap();
        let mut consent = Consent::new(users);
        let mut actions = match self.told(point.uuid, self.handle.subscribe(point).await) {
            Some(()) => consent.poll(Instant::now(), ConsentEvent::Begin),
            None => vec![],
        };
        while !actions.is_empty() || consent.timeout().is_some() {
            for action in std::mem::take(&mut actions) {
                match action {
                    ConsentAction::Write(octets) => {
                        let written = ConsentEvent::Written(self.ask(point, &octets).await);
                        actions.extend(consent.poll(Instant::now(), written));
                    }
                    ConsentAction::Answered(user, answer) => self.answered(user, answer).await,
                    ConsentAction::Done => {}
                }
            }
            let Some(due) = consent.timeout().filter(|_| actions.is_empty()) else { continue };
            actions = tokio::select! {
                value = tapped.recv() => match value {
                    Some((USER_CONTROL_POINT, octets)) => consent.poll(Instant::now(), ConsentEvent::Answer(&octets)),
                    Some((uuid, _)) if self.device.subscribe.contains(&uuid) => consent.poll(Instant::now(), ConsentEvent::Value),
                    Some(_) => vec![],
                    None => break,
                },
                () = tokio::time::sleep_until(due.into()) => consent.poll(Instant::now(), ConsentEvent::Tick),
            };
        }
        self.untap();
    }

    async fn answered(&self, user: u8, answer: ConsentAnswer) {
        if answer == ConsentAnswer::Refused {
            self.device.visit.consents.refused(user);
        }
        let _ = self.events.send(RadioEvent::Consent { device: self.device.id, user, answer }).await;
    }

    async fn session(&self) -> SessionKnown {
        let now = self.device.visit.set_clock.as_ref().and_then(|sets| LocalNow::of(sets.time.now()?, &sets.zone));
        let mut setup = CgmSessionSetup::new(now);
        let mut action = setup.poll(SessionEvent::Begin);
        loop {
            action = match action {
                Some(SessionAction::Read(characteristic)) => {
                    let octets = self.look_up(characteristic).await;
                    setup.poll(SessionEvent::Read(octets.as_deref()))
                }
                Some(SessionAction::Write(octets)) => {
                    let written = match self.offered(SESSION_START).filter(|found| found.writable) {
                        Some(start) => self.ask(start, &octets).await,
                        None => false,
                    };
                    setup.poll(SessionEvent::Written(written))
                }
                Some(SessionAction::Done(known)) => {
                    self.session_known(&known).await;
                    return known;
                }
                None => return SessionKnown::default(),
            };
        }
    }

    async fn session_known(&self, known: &SessionKnown) {
        if let Some(clock) = known.clock {
            self.facts.lock().clock.get_or_insert((clock, boot_now()));
        }
        if known.set
            && let Some(octets) = self.look_up(SESSION_START).await
        {
            info!(device = %self.device.id, "the sensor was told the time");
            let _ = self.events.send(RadioEvent::Heard(self.facts.heard(self.device.id, SESSION_START, octets))).await;
        }
        if known.start.is_none() {
            warn!(device = %self.device.id, "the sensor has no time: its values are held until it is told one (set_clock)");
        }
    }

    async fn set_clock(&self, sets: &SetsClock) {
        let clock = self.device.clock.iter().find_map(|uuid| self.offered(*uuid).filter(|found| found.writable));
        let Some(clock) = clock else { return };
        if sets.time.now().is_none() {
            debug!(device = %self.device.id, "its clock is not set: ours is not synchronised");
            return;
        }
        self.until_quiet().await;
        let mut procedure = SetClock::new(clock.uuid, sets.zone.clone());
        let mut event = None;
        // Ours may have lost its reference meanwhile.
        while let Some(now) = sets.time.now() {
            let octets: Option<Vec<u8>>;
            let action = match event.take() {
                None => procedure.poll(now, ClockEvent::Begin),
                Some(Heard::Read(read)) => {
                    octets = read;
                    procedure.poll(now, ClockEvent::Read(octets.as_deref()))
                }
                Some(Heard::Written) => procedure.poll(now, ClockEvent::Written),
            };
            match action {
                Some(ClockAction::Read) => event = Some(Heard::Read(self.look_up(clock.uuid).await)),
                Some(ClockAction::Write(octets)) => {
                    // What comes from here on may be of either.
                    self.facts.lock().clock = None;
                    self.ask(clock, &octets).await;
                    event = Some(Heard::Written);
                }
                Some(ClockAction::Done(outcome)) => return self.clock_told(outcome).await,
                None => return,
            }
        }
    }

    async fn clock_told(&self, outcome: ClockOutcome) {
        // First it is told that the clock was moved, and then values come with the new one.
        let _ = self.events.send(RadioEvent::ClockSet { device: self.device.id, outcome }).await;
        if let ClockOutcome::Set { after, .. } = outcome {
            info!(device = %self.device.id, "its clock was set");
            self.clock_is(after.0);
        }
    }

    fn clock_is(&self, shown: DeviceTime) {
        self.facts.lock().clock = Some((shown, boot_now()));
    }

    /// Waits until the device has sent what it kept.
    async fn until_quiet(&self) {
        let mut tapped = self.tap();
        let end = tokio::time::Instant::now() + QUIET_MOST;
        loop {
            let quiet = (tokio::time::Instant::now() + QUIET).min(end);
            match tokio::time::timeout_at(quiet, tapped.recv()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.untap();
    }
}

enum Heard {
    Read(Option<Vec<u8>>),
    Written,
}
