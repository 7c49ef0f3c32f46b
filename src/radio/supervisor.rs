//! The radio as a whole: it starts a task a device, keeps agent and scan alive through restarts of bluetoothd and the
//! comings and goings of the adapter, and ends everything together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::pending;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::agent::{self, Agent, MayPair};
use super::bluez::{self, Bus};
use super::bond::Bond;
use super::central::Central;
use super::device::{Device, Shared};
use super::error::RadioError;
use super::event::RadioEvent;
use super::listen::Listener;
use super::overseer::{self, Overseer};
use super::settings::RadioSettings;
use super::turns::Turns;
use super::watch::{AdapterState, Wanted, World};
use crate::reading::DeviceId;

/// The capacity to give the channel `run` sends into: some seconds of a full ward (twenty devices at up to ten values a
/// second), so that one slow commit of the store does not reach the radio, in well under a megabyte.
pub const EVENT_QUEUE: usize = 1_024;

/// After BlueZ refused to scan or to take the agent.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until `stop`, or until nobody receives `events` any more. It neither needs BlueZ nor an adapter to start: it
/// waits for both.
pub async fn run(settings: RadioSettings, events: mpsc::Sender<RadioEvent>, stop: CancellationToken) -> Result<(), RadioError> {
    let may_pair = MayPair::default();
    let bus = Bus::connect(Agent { may_pair: may_pair.clone() }).await?;
    let central = Central::connect().await;
    let no_bus = |error| RadioError::NoBus { address: bluez::address(), reason: format!("{error}") };
    let central = Arc::new(central.map_err(no_bus)?);
    settings.requests.open(bus.clone());
    let world = World::new(wanted(&settings), may_pair.clone());
    let turns = Turns::new(settings.sharing);
    // A child, so that our own end for another reason stops the devices too.
    let stop = stop.child_token();
    let (inside, from_devices) = mpsc::channel(overseer::INSIDE);
    let (silence, _) = broadcast::channel(settings.devices.len().max(1));
    let overseer = Overseer::new(&settings, &bus, &turns, world.watch_adapter(), silence.clone(), stop.clone());
    let mut overseeing = JoinSet::new();
    overseeing.spawn(overseer.run(from_devices, events.clone()));
    let shared = Shared {
        bus: bus.clone(),
        central: central.clone(),
        turns: turns.clone(),
        may_pair,
        events: inside.clone(),
        clock_decoder: settings.clock_decoder,
        deadlines: settings.deadlines,
        stop: stop.clone(),
        silence,
    };
    let keeper = Keeper {
        bus: bus.clone(),
        central,
        turns,
        events: inside,
        capability: agent::capability(settings.devices.iter().any(|device| matches!(device.bond, Bond::Passkey(_)))),
        wanted: settings.adapter,
        state: world.watch_adapter(),
        reported: None,
        agent_of: 0,
        scan: None,
        ask_again: false,
        asking_since: None,
    };

    let mut devices = JoinSet::new();
    for device in settings.devices {
        let state = world.watch_device(device.id);
        let requests = settings.requests.of(device.id);
        devices.spawn(Device::new(shared.clone(), device, state, requests).run());
    }
    // The overseer ends when nobody has anything to say any more.
    drop(shared);
    let mut keeping = JoinSet::new();
    keeping.spawn(keeper.run());
    let mut listening = JoinSet::new();
    listening.spawn(Listener::new(bus, world).run());

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = events.closed() => Ok(()),
        Some(ended) = listening.join_next() => ended.unwrap_or_else(|error| Err(failed("listener", &error))),
        Some(ended) = overseeing.join_next() => ended.unwrap_or_else(|error| Err(failed("overseer", &error))),
        Some(Err(error)) = devices.join_next() => Err(failed("device task", &error)),
        Some(Err(error)) = keeping.join_next() => Err(failed("scan task", &error)),
    };
    // Devices say farewell while the listener still reads: the connection stands still without it.
    stop.cancel();
    keeping.abort_all();
    while devices.join_next().await.is_some() {}
    while keeping.join_next().await.is_some() {}
    while overseeing.join_next().await.is_some() {}
    outcome
}

fn wanted(settings: &RadioSettings) -> Wanted {
    let pairing: BTreeMap<DeviceId, Bond> = settings.devices.iter().map(|device| (device.id, device.bond)).collect();
    Wanted { adapter: settings.adapter, devices: settings.devices.iter().map(|device| device.id).collect(), pairing }
}

fn failed(task: &'static str, error: &tokio::task::JoinError) -> RadioError {
    RadioError::Task { task, reason: error.to_string() }
}

/// Keeps agent, scan and the word on the adapter in step with what there is.
struct Keeper {
    bus: Bus,
    central: Arc<Central>,
    turns: Turns,
    events: mpsc::Sender<RadioEvent>,
    capability: &'static str,
    wanted: Option<DeviceId>,
    state: watch::Receiver<AdapterState>,
    reported: Option<(bool, String)>,
    /// The bluetoothd process that has our agent.
    agent_of: u64,
    /// What a running scan belongs to: process, outages and adapter path.
    scan: Option<(u64, u64, String)>,
    ask_again: bool,
    asking_since: Option<Instant>,
}

impl Keeper {
    async fn run(mut self) {
        let mut turns = self.turns.changed();
        loop {
            let state = self.state.borrow_and_update().clone();
            turns.borrow_and_update();
            self.ask_again = false;
            self.keep_agent(&state).await;
            self.say(&state).await;
            self.keep_scan(&state).await;
            let again = async { if self.ask_again { tokio::time::sleep(ASK_AGAIN).await } else { pending().await } };
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() { return },
                changed = turns.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// A new bluetoothd knows no agent.
    async fn keep_agent(&mut self, state: &AdapterState) {
        if !state.running || state.refused.is_some() || self.agent_of == state.process {
            return;
        }
        match self.bus.register_agent(self.capability).await {
            Ok(()) => self.agent_of = state.process,
            Err(error) => {
                warn!(%error, "BlueZ does not take the bonding agent");
                self.ask_again = true;
            }
        }
    }

    async fn say(&mut self, state: &AdapterState) {
        if !state.asking {
            self.asking_since = None;
        } else if self.asking_since.get_or_insert_with(Instant::now).elapsed() < ASK_AGAIN {
            self.ask_again = true;
            return;
        }
        let (usable, detail) = self.judge(state).await;
        if self.reported.as_ref() == Some(&(usable, detail.clone())) {
            return;
        }
        if usable {
            info!(detail, "adapter usable")
        } else {
            warn!(detail, "no usable adapter")
        }
        self.reported = Some((usable, detail.clone()));
        let _ = self.events.send(RadioEvent::Adapter { usable, detail }).await;
    }

    async fn judge(&self, state: &AdapterState) -> (bool, String) {
        if state.asking {
            return (false, "bluetoothd does not answer; `systemctl restart bluetooth`".to_owned());
        }
        if !state.running {
            return (false, "bluetoothd does not run; start bluetooth.service".to_owned());
        }
        if let Some(reason) = &state.refused {
            return (false, format!("BlueZ does not answer us ({reason}); see the D-Bus policy of bluetoothd"));
        }
        let Some(path) = &state.path else {
            let which = self.wanted.map_or("no Bluetooth adapter".to_owned(), |id| format!("adapter {id} is not"));
            return (false, format!("{which} plugged in"));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        if !state.powered {
            return (false, format!("{name} is powered off; `bluetoothctl power on`, and AutoEnable=true in main.conf"));
        }
        if !self.central.sees_adapter(path).await {
            return (false, format!("{name} has no Modalias; remove DeviceID=false from /etc/bluetooth/main.conf"));
        }
        (true, name.to_owned())
    }

    async fn keep_scan(&mut self, state: &AdapterState) {
        let usable = state.running && state.powered;
        let here = state.path.clone().filter(|_| usable).map(|path| (state.process, state.outages, path));
        let on = |turns: &Turns, ask: fn(&Turns, &str) -> bool| here.as_ref().is_some_and(|(.., path)| ask(turns, path));
        let (busy, restart) = (on(&self.turns, Turns::is_connecting), on(&self.turns, Turns::take_rescan));
        if self.scan != here {
            // BlueZ ended it with whatever went away.
            self.scan = None;
        }
        if let Some((_, _, path)) = self.scan.as_ref().filter(|_| busy || restart) {
            self.bus.stop_discovery(path).await;
            self.scan = None;
        }
        if let (None, Some(here), false) = (&self.scan, here, busy) {
            self.turns.set_scanning(&here.2, true);
            match self.bus.start_discovery(&here.2).await {
                Ok(()) => self.scan = Some(here),
                Err(error) => {
                    debug!(%error, "BlueZ does not scan");
                    self.ask_again = true;
                }
            }
        }
        if let Some(path) = &state.path {
            self.turns.set_scanning(path, self.scan.is_some());
        }
    }
}
