//! Stands between the devices and whoever receives: hands every event on, and from what passes sees to it that values keep
//! coming. What to do is decided in `liveness`; here it is done, counted and told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::adverts::Missed;
use super::bluez::{Bus, CallError};
use super::error::RadioError;
use super::event::{Advertised, Heard, RadioEvent, RadioHealth};
use super::flood::Flood;
use super::liveness::{Action, Event, Liveness, Rung};
use super::settings::{Pace, RadioDevice, RadioSettings};
use super::turns::Turns;
use super::watch::AdapterState;
use crate::reading::DeviceId;

/// Events on their way from the devices: enough that a burst does not wake everybody for each value.
pub const INSIDE: usize = 64;
/// A root oneshot; see `systemd/`. A polkit rule lets us start it and nothing else.
const RESET_UNIT: &str = "bedrail-radio-reset.service";
/// An adapter that was switched off needs a moment to let go of everything.
const OFF_FOR: Duration = Duration::from_secs(1);
/// Longer than this in handing on one event, and silence is ours.
const STALL: Duration = Duration::from_secs(1);
/// What is still on its way when the radio stops is given this long.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Half of what the bus allows a connection. Ours hold one a device and some more.
pub const MANY_RULES: u32 = 256;
const TICK: Duration = Duration::from_secs(1);

pub struct Overseer {
    bus: Bus,
    turns: Turns,
    adapter: watch::Receiver<AdapterState>,
    silence: broadcast::Sender<DeviceId>,
    stop: CancellationToken,
    pace: Pace,
    liveness: Liveness,
    /// What devices tell by themselves. What is read of them at every connection shows nothing of that.
    told_by_itself: BTreeSet<(DeviceId, Uuid)>,
    flood: Flood,
    missed: Missed,
    health: RadioHealth,
    told: RadioHealth,
    /// Pings, rungs and counts under way; each ends within the limits of its calls.
    work: JoinSet<Done>,
}

enum Done {
    Event(Event),
    Rules(Result<u32, CallError>),
}

impl Overseer {
    pub fn new(
        settings: &RadioSettings,
        bus: &Bus,
        turns: &Turns,
        adapter: watch::Receiver<AdapterState>,
        silence: broadcast::Sender<DeviceId>,
        stop: CancellationToken,
        missed: Missed,
    ) -> Self {
        let unlinked = settings.devices.iter().filter(|device| device.is_read_by_adverts()).map(|device| device.id);
        let expected = settings.devices.iter().filter_map(|device| Some((device.id, device.expect_every?)));
        let of_device = |device: &RadioDevice| device.subscribe.iter().map(|uuid| (device.id, *uuid)).collect::<Vec<_>>();
        Self {
            told_by_itself: settings.devices.iter().flat_map(of_device).collect(),
            bus: bus.clone(),
            turns: turns.clone(),
            adapter,
            silence,
            stop,
            pace: settings.pace,
            liveness: Liveness::new(settings.pace, expected).with_unlinked(unlinked),
            flood: Flood::default(),
            missed,
            health: RadioHealth::default(),
            told: RadioHealth::default(),
            work: JoinSet::new(),
        }
    }

    /// Runs until no device is left to say anything, or until all rungs but the last were in vain.
    pub async fn run(
        mut self,
        mut from_devices: mpsc::Receiver<RadioEvent>,
        mut from_air: mpsc::Receiver<RadioEvent>,
        events: mpsc::Sender<RadioEvent>,
    ) -> Result<(), RadioError> {
        let period = TICK.min(self.pace.climb / 4);
        let (mut tick, mut ticked) = (interval(period), Instant::now());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping = interval(self.pace.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count_rules = interval(self.pace.count_rules_every);
        count_rules.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Not even a flood holds up the clock.
            if ticked.elapsed() >= 2 * period {
                ticked = Instant::now();
                self.look_up(&events);
                self.act(Event::Tick)?;
            }
            let event = tokio::select! {
                // What already came is no silence, so it goes before the clock.
                biased;
                event = either(&mut from_devices, &mut from_air) => {
                    let Some(event) = event else { return Ok(()) };
                    if self.floods(&event) {
                        continue;
                    }
                    let seen = self.seen(&event);
                    let begun = Instant::now();
                    if !self.hand_on(event, &events).await {
                        return Ok(());
                    }
                    if begun.elapsed() >= STALL {
                        self.act(Event::Stalled)?;
                    }
                    let Some(seen) = seen else { continue };
                    seen
                }
                Some(Ok(done)) = self.work.join_next() => match done {
                    Done::Event(event) => self.finished(event),
                    Done::Rules(rules) => {
                        self.counted(rules);
                        continue;
                    }
                },
                _ = ping.tick() => {
                    self.ping();
                    continue;
                }
                _ = count_rules.tick() => {
                    let bus = self.bus.clone();
                    self.work.spawn(async move { Done::Rules(bus.match_rules().await) });
                    continue;
                }
                _ = tick.tick() => {
                    ticked = Instant::now();
                    self.look_up(&events);
                    Event::Tick
                }
            };
            self.act(event)?;
        }
    }

    fn look_up(&mut self, events: &mpsc::Sender<RadioEvent>) {
        self.turns.tick();
        self.health.missed_advertisements = self.missed.by_address();
        self.health.flooded = self.flood.all_dropped().map(|(device, count)| (device.to_string(), count)).collect();
        (self.health.adapters, self.health.made_room) = (self.turns.loads(), self.turns.made_room());
        self.tell(events);
    }

    fn floods(&mut self, event: &RadioEvent) -> bool {
        let (RadioEvent::Heard(Heard { device, .. }) | RadioEvent::Advertised(Advertised { device, .. })) = event else {
            return false;
        };
        let floods = !self.flood.admits(Instant::now(), *device);
        if floods && self.flood.dropped(*device) == 1 {
            warn!(%device, "it floods: what is beyond the limit is not taken, and counted");
        }
        floods
    }

    fn seen(&self, event: &RadioEvent) -> Option<Event> {
        match event {
            RadioEvent::Heard(heard) => {
                self.turns.heard(heard.device);
                let told = self.told_by_itself.contains(&(heard.device, heard.characteristic));
                told.then_some(Event::Value(heard.device))
            }
            RadioEvent::Advertised(advertised) => Some(Event::Value(advertised.device)),
            RadioEvent::Ready { device } => Some(Event::Ready(*device)),
            RadioEvent::Lost { device, .. } => Some(Event::Lost(*device)),
            RadioEvent::Adapter { usable, .. } => Some(Event::Usable(*usable)),
            RadioEvent::Bond { .. }
            | RadioEvent::Retrieved { .. }
            | RadioEvent::Consent { .. }
            | RadioEvent::ClockSet { .. }
            | RadioEvent::Information { .. }
            | RadioEvent::Told { .. }
            | RadioEvent::Health(_) => None,
        }
    }

    /// `false`: nobody receives any more.
    async fn hand_on(&self, event: RadioEvent, events: &mpsc::Sender<RadioEvent>) -> bool {
        let late = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            biased;
            sent = events.send(event) => sent.is_ok(),
            () = late => false,
        }
    }

    fn act(&mut self, event: Event) -> Result<(), RadioError> {
        for action in self.liveness.poll(Instant::now(), event) {
            count(&mut self.health.rungs, action.rung);
            match action.device {
                Some(device) => info!(%device, rung = action.rung.name(), "no value came in time"),
                None => warn!(rung = action.rung.name(), "no device is heard"),
            }
            self.take(action)?;
        }
        self.health.silent = self.liveness.silent().map(|device| device.to_string()).collect();
        Ok(())
    }

    fn take(&mut self, action: Action) -> Result<(), RadioError> {
        let bus = self.bus.clone();
        match (action.rung, action.device) {
            (Rung::Reconnect, Some(device)) => drop(self.silence.send(device)),
            (Rung::Rescan | Rung::Reconnect, _) => self.turns.ask_rescan(),
            (Rung::PowerCycle, _) => {
                let adapters: Vec<String> = self.adapter.borrow().usable().map(|(path, _)| path.clone()).collect();
                drop(self.work.spawn(power_cycle(bus, adapters)));
            }
            (Rung::Reset, _) => drop(self.work.spawn(reset(bus))),
            (Rung::Exit, _) => return Err(RadioError::Silent),
        }
        Ok(())
    }

    fn finished(&mut self, done: Event) -> Event {
        match done {
            Event::NotTaken(rung) => count(&mut self.health.skipped, rung),
            Event::Pinged(false) => {
                warn!("bluetoothd does not answer");
                self.health.unanswered += 1;
            }
            _ => {}
        }
        done
    }

    fn counted(&mut self, rules: Result<u32, CallError>) {
        self.health.match_rules = rules.as_ref().ok().copied();
        match rules {
            Ok(rules) if rules >= MANY_RULES => warn!(rules, "many match rules on the D-Bus: something leaks them"),
            Ok(_) => {}
            Err(error) => {
                if self.health.match_rules_refused == 0 {
                    info!(%error, "the D-Bus does not tell how many match rules we hold; see packaging/bedrail-dbus.conf");
                }
                self.health.match_rules_refused += 1;
            }
        }
    }

    fn ping(&mut self) {
        // Asking for a bluetoothd that does not run could start one.
        if self.adapter.borrow().running {
            let (bus, limit) = (self.bus.clone(), self.pace.ping_limit);
            self.work.spawn(async move { Done::Event(Event::Pinged(bus.ping(limit).await)) });
        }
    }

    /// Never in the way of values: what does not fit now is told with the next tick.
    fn tell(&mut self, events: &mpsc::Sender<RadioEvent>) {
        if self.health != self.told && events.try_send(RadioEvent::Health(Box::new(self.health.clone()))).is_ok() {
            self.told = self.health.clone();
        }
    }
}

/// From devices and from the air, without one of them keeping the other waiting; `None`: no device is left.
async fn either(devices: &mut mpsc::Receiver<RadioEvent>, air: &mut mpsc::Receiver<RadioEvent>) -> Option<RadioEvent> {
    tokio::select! {
        event = devices.recv() => event,
        Some(event) = air.recv() => Some(event),
    }
}

/// One after the other, so that not all are away at once. Taken if it worked for one.
async fn power_cycle(bus: Bus, adapters: Vec<String>) -> Done {
    let mut worked = false;
    for adapter in &adapters {
        let off = bus.set_powered(adapter, false).await;
        tokio::time::sleep(OFF_FOR).await;
        // Also after a refusal: it may have been carried out.
        match off.and(bus.set_powered(adapter, true).await) {
            Ok(()) => worked = true,
            Err(error) => warn!(adapter, %error, "the adapter could not be power cycled"),
        }
    }
    Done::Event(if worked { Event::Tick } else { Event::NotTaken(Rung::PowerCycle) })
}

async fn reset(bus: Bus) -> Done {
    match bus.start_unit(RESET_UNIT).await {
        Ok(()) => Done::Event(Event::Tick),
        Err(error) => {
            warn!(unit = RESET_UNIT, %error, "the radio could not be reset");
            Done::Event(Event::NotTaken(Rung::Reset))
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, rung: Rung) {
    *counts.entry(rung.name().to_owned()).or_default() += 1;
}
