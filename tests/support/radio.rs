//! The radio as the daemon runs it, on a fake bluetoothd, with what it told kept for a test to look at. All of it in a process
//! with a bus of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bedrail::radio::{
    Bond, Bonds, Deadlines, Durable, EVENT_QUEUE, Heard, InformationField, Pace, Priority, RadioDevice, RadioError, RadioEvent,
    RadioHealth, RadioSettings, Requests, Sharing, Visits, run,
};
use bedrail::reading::{DeviceId, DeviceTime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bluez::{AdapterSpec, FakeBluez, uuid16};
use super::bus::on_a_bus_of_its_own;
use super::devices::{BATTERY_LEVEL, CURRENT_TIME, DATE_TIME, Kind, VirtualDevice};

/// For a whole test of seconds.
pub const LIMIT: Duration = Duration::from_secs(90);
pub const SOON: Duration = Duration::from_secs(10);
pub const ADAPTER: &str = "00:11:22:33:44:55";
pub const STRAP: &str = "C0:FF:EE:00:00:01";
pub const THERMOMETER: &str = "C0:FF:EE:00:00:02";

pub fn adapter(hci: &str) -> AdapterSpec {
    AdapterSpec::new(hci, ADAPTER)
}

pub fn id(address: &str) -> DeviceId {
    address.parse().expect("a test's own value")
}

pub fn wanted(device: &VirtualDevice) -> RadioDevice {
    let texts = [0x2a29, 0x2a24, 0x2a25, 0x2a26, 0x2a27, 0x2a28].map(uuid16);
    RadioDevice {
        id: id(&device.address),
        name: device.name.clone(),
        adapter: None,
        subscribe: vec![device.characteristic()],
        profile: None,
        read: [&texts[..], &[BATTERY_LEVEL]].concat(),
        clock: vec![CURRENT_TIME, DATE_TIME],
        ask_nameplate: false,
        bond: Bond::None,
        priority: Priority::Normal,
        streams: true,
        visit: Visits::default(),
        adverts: vec![],
        expect_every: None,
    }
}

/// Enough of a Date Time to tell that the clock was handed on.
pub fn clock(_: Uuid, octets: &[u8]) -> Option<DeviceTime> {
    let &[low, high, month, day, hour, minute, second, ..] = octets else { return None };
    let year = Some(u16::from_le_bytes([low, high]));
    Some(DeviceTime { year, month: Some(month), day: Some(day), hour, minute, second })
}

/// Everything the radio is patient about, in milliseconds instead of seconds.
pub fn impatient() -> Deadlines {
    Deadlines {
        connect: Duration::from_millis(1_500),
        resolve: Duration::from_secs(2),
        subscribe: Duration::from_secs(5),
        pair: Duration::from_secs(5),
        disconnect: Duration::from_secs(3),
        retry_first: Duration::from_millis(10),
        retry_most: Duration::from_millis(200),
        retry_suspect: Duration::from_secs(1),
        retry_quick: Duration::from_millis(10),
    }
}

pub fn hasty() -> Pace {
    Pace {
        climb: Duration::from_millis(400),
        between: Duration::from_millis(800),
        ping_every: Duration::from_millis(200),
        ping_limit: Duration::from_millis(200),
        count_rules_every: Duration::from_millis(100),
    }
}

pub fn settings(devices: Vec<RadioDevice>, pace: Pace) -> RadioSettings {
    let adapters = vec![id(ADAPTER)];
    RadioSettings {
        adapters,
        devices,
        sharing: Sharing::default(),
        clock_decoder: clock,
        deadlines: impatient(),
        pace,
        durable: Durable::default(),
        bonds: Bonds::default(),
        requests: Requests::default(),
    }
}

pub struct Radio {
    pub events: mpsc::Receiver<RadioEvent>,
    pub heard: Vec<Heard>,
    pub lost: Vec<(DeviceId, String)>,
    pub information: Vec<(InformationField, String)>,
    pub outages: Vec<String>,
    pub health: RadioHealth,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), RadioError>>,
}

impl Radio {
    pub fn start(devices: Vec<RadioDevice>) -> Self {
        Self::with_queue(devices, EVENT_QUEUE)
    }

    pub fn with_queue(devices: Vec<RadioDevice>, queue: usize) -> Self {
        Self::at_pace(devices, queue, Pace::default())
    }

    pub fn at_pace(devices: Vec<RadioDevice>, queue: usize, pace: Pace) -> Self {
        Self::with(settings(devices, pace), queue)
    }

    pub fn with(settings: RadioSettings, queue: usize) -> Self {
        let (sender, events) = mpsc::channel(queue);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(settings, sender, stop.clone()));
        Self {
            events,
            heard: vec![],
            lost: vec![],
            information: vec![],
            outages: vec![],
            health: RadioHealth::default(),
            stop,
            task,
        }
    }

    /// Takes what comes until an event is the one looked for.
    pub async fn until(&mut self, what: &str, mut is_it: impl FnMut(&RadioEvent) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = timeout(left, self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("no {what} in time; lost: {:?}", self.lost)).expect("the radio runs");
            let found = is_it(&event);
            self.keep(event);
            if found {
                return;
            }
        }
    }

    pub async fn ready(&mut self, device: &str) {
        let wanted = RadioEvent::Ready { device: id(device) };
        self.until("Ready", |event| *event == wanted).await;
    }

    pub async fn lost(&mut self, device: &str) {
        self.until("Lost", |event| matches!(event, RadioEvent::Lost { device: lost, .. } if *lost == id(device))).await;
    }

    pub async fn adapter_usable(&mut self, wanted: bool) -> String {
        let mut said = String::new();
        let is_it = |event: &RadioEvent| match event {
            RadioEvent::Adapter { usable, detail } if *usable == wanted => {
                said = detail.clone();
                true
            }
            _ => false,
        };
        self.until("word on the adapter", is_it).await;
        said
    }

    pub async fn hears(&mut self, octets: &[u8]) -> Heard {
        self.until("value", |event| matches!(event, RadioEvent::Heard(heard) if heard.octets == octets)).await;
        self.heard.last().cloned().expect("it was just heard")
    }

    pub fn keep(&mut self, event: RadioEvent) {
        match event {
            RadioEvent::Heard(heard) => self.heard.push(heard),
            RadioEvent::Lost { device, reason } => self.lost.push((device, reason)),
            RadioEvent::Information { field, text, .. } => self.information.push((field, text)),
            RadioEvent::Adapter { usable: false, detail } => self.outages.push(detail),
            RadioEvent::Health(health) => self.health = *health,
            RadioEvent::Advertised(_)
            | RadioEvent::Ready { .. }
            | RadioEvent::Bond { .. }
            | RadioEvent::Retrieved { .. }
            | RadioEvent::Told { .. }
            | RadioEvent::Consent { .. }
            | RadioEvent::ClockSet { .. }
            | RadioEvent::Adapter { .. } => {}
        }
    }

    /// Takes what is there and comes within `quiet`.
    pub async fn drain(&mut self, quiet: Duration) {
        while let Ok(Some(event)) = timeout(quiet, self.events.recv()).await {
            self.keep(event);
        }
    }

    pub async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.task).await.expect("it stops").expect("it does not panic").expect("it stops in order");
    }
}

pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

pub fn on_a_bus(name: &str, body: impl AsyncFnOnce(String)) {
    on_a_bus_of_its_own(name, LIMIT, |bus| blocking(body(bus)));
}

pub fn blocking(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a test's own value");
    runtime.block_on(body);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

pub fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap")
}

pub fn room(bus: &str, devices: &[&VirtualDevice]) -> FakeBluez {
    let bluez = FakeBluez::start(bus);
    bluez.add_adapter(adapter("hci0"));
    for device in devices {
        device.place(&bluez, "hci0");
        bluez.advertise(&device.address, -60);
    }
    bluez
}

/// Match rules of every connection on the bus but our own.
pub async fn match_rules(bus: &zbus::Connection) -> u32 {
    pub const BUS: &str = "org.freedesktop.DBus";
    let ask = async |interface, method, body: Option<&str>| match body {
        Some(body) => bus.call_method(Some(BUS), "/org/freedesktop/DBus", Some(interface), method, &body).await,
        None => bus.call_method(Some(BUS), "/org/freedesktop/DBus", Some(interface), method, &()).await,
    };
    let names: Vec<String> =
        ask(BUS, "ListNames", None).await.expect("the bus answers").body().deserialize().expect("the bus answers");
    let mut rules = 0;
    for name in names.iter().filter(|name| name.starts_with(':')) {
        let Ok(stats) = ask("org.freedesktop.DBus.Debug.Stats", "GetConnectionStats", Some(name)).await else { continue };
        let stats: HashMap<String, zbus::OwnedVariant> = stats.body().deserialize().expect("the bus answers");
        rules += stats.get("MatchRules").and_then(|value| value.downcast_ref::<u32>().ok()).unwrap_or_default();
    }
    rules
}
