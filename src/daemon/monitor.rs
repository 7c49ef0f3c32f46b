//! Looks at both halves now and then, lets `monitor` say what that means, puts conditions into the log and hands notices to
//! the routes. On a thread of its own, because the log may take seconds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::collect::{CollectStatus, DeviceStatus, NameplateState};
use crate::config::Settings;
use crate::deliver::{RouteState, RouteStatus};
use crate::monitor::machine::{Process, temperature_centi_c};
use crate::monitor::{
    Board, CertificateFacts, CollectFacts, ConditionName, Conditions, DeviceFacts, Key, ListedCondition, Notices, Raised,
    RouteFacts, Snapshot, Thresholds, Topics, Transition, certificate,
};
use crate::procedure::ConsentAnswer;
use crate::radio::{BondState, BootClock};
use crate::reading::{Anchors, Body, BootMillis, ClockQuality, DeviceId, Event, Stamp, Timestamp};
use crate::store::{Draft, Identity, Store, StoreError};

/// How often it looks; what changes meanwhile is told as it is then.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// At the start the collect half is asked this often, and so often before the gateway is shown without it.
const FIRST_LOOKS_EVERY: Duration = Duration::from_millis(500);
const FIRST_LOOKS: u32 = 20;
/// How often the times of last readings are written, for the next run: a row a device, in one commit.
const HEARD_EVERY: Duration = Duration::from_secs(3_600);
const THERMAL: &str = "/sys/class/thermal";

/// Marks in the log: what is raised, and when a device was last heard.
const CONDITION: &str = "condition:";
const HEARD: &str = "heard:";

pub struct Monitor {
    settings: Settings,
    store: Store,
    boot: BootClock,
    started: BootMillis,
    routes: Vec<watch::Receiver<RouteStatus>>,
    conditions: Conditions,
    board: Board,
    certificates: Vec<CertificateFacts>,
    heard_before: BTreeMap<DeviceId, Timestamp>,
    heard_written: BTreeMap<DeviceId, Timestamp>,
    heard_at: BootMillis,
    /// Transitions a disk that takes no writes has not taken: the last of each condition.
    unwritten: BTreeMap<Key, Transition>,
    publish: watch::Sender<Arc<Notices>>,
    raised: watch::Sender<Vec<ListedCondition>>,
}

impl Monitor {
    pub fn new(
        settings: &Settings,
        store: Store,
        boot: BootClock,
        routes: Vec<watch::Receiver<RouteStatus>>,
        publish: watch::Sender<Arc<Notices>>,
        raised: watch::Sender<Vec<ListedCondition>>,
    ) -> Result<Self, StoreError> {
        let thresholds = Thresholds {
            battery_low: settings.monitor.battery_low,
            route_down_after_ms: millis(settings.monitor.route_down_after),
            held_after_ms: millis(settings.monitor.held_after),
        };
        let marks = store.marks(CONDITION)?;
        let left_raised = marks.into_iter().filter_map(|(name, value)| Some((key_of(&name)?, unpack(value)?)));
        let heard = store.marks(HEARD)?.into_iter().filter_map(|(name, at)| {
            let device = name.strip_prefix(HEARD)?.parse().ok()?;
            Some((device, Timestamp(i64::try_from(at).ok()?)))
        });
        let heard: BTreeMap<DeviceId, Timestamp> = heard.collect();
        Ok(Self {
            conditions: Conditions::new(thresholds, left_raised),
            board: Board::new(&settings.gateway.id, Topics::new(&settings.monitor.topic)),
            certificates: certificates(settings),
            heard_written: heard.clone(),
            heard_before: heard,
            settings: settings.clone(),
            store,
            boot,
            started: boot.now(),
            heard_at: boot.now(),
            routes,
            unwritten: BTreeMap::new(),
            publish,
            raised,
        })
    }

    /// Runs until told to stop. Only a store that fails ends it with an error.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut every = tokio::time::interval(FIRST_LOOKS_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first_looks = FIRST_LOOKS;
        let socket = self.settings.gateway.runtime_dir.join(api::COLLECT_SOCKET);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = every.tick() => {}
            }
            let collect = ask(&socket).await;
            if first_looks > 0 {
                first_looks = if collect.is_some() { 0 } else { first_looks - 1 };
                if first_looks > 0 {
                    continue;
                }
                every = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
                every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            self.look(collect)?;
        }
    }

    fn look(&mut self, collect: Option<CollectStatus>) -> Result<(), StoreError> {
        let anchors = self.store.anchors()?;
        let snapshot = self.snapshot(collect.as_ref(), &anchors);
        for transition in self.conditions.look(&snapshot) {
            let (name, subject) = (transition.key.name.name(), &transition.key.subject);
            match transition.to {
                Some(raised) => tracing::warn!(condition = name, subject, "raised: {}", transition.key.name.says(raised.level)),
                None => tracing::info!(condition = name, subject, "cleared"),
            }
            self.unwritten.insert(transition.key.clone(), transition);
        }
        self.write(&snapshot)?;
        if self.board.look(&snapshot, self.conditions.raised()) {
            self.publish.send_replace(Arc::new(self.board.notices().clone()));
        }
        let listed = self.conditions.raised().map(|(key, raised)| ListedCondition::new(key, raised)).collect();
        self.raised.send_if_modified(|before| {
            let changed = *before != listed;
            *before = listed;
            changed
        });
        Ok(())
    }

    /// Events, and the marks that keep the next run from raising them again, in one commit.
    fn write(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let hour = snapshot.at.0.saturating_sub(self.heard_at.0) >= millis(HEARD_EVERY);
        let mut marks: Vec<(String, u64)> = self.unwritten.values().map(mark).collect();
        if hour {
            let heard = snapshot.devices.iter().filter_map(|device| Some((device.id, device.last_reading_at?)));
            let new = heard.filter(|(id, at)| self.heard_written.get(id) != Some(at));
            marks.extend(new.map(|(id, at)| (format!("{HEARD}{id}"), u64::try_from(at.0).unwrap_or(0))));
        }
        if marks.is_empty() {
            return Ok(());
        }
        let drafts = self.unwritten.values().map(|transition| self.draft(transition, snapshot.at)).collect();
        let marks: Vec<(&str, u64)> = marks.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        match self.store.append_and_mark(drafts, &marks) {
            Ok(_) => {}
            // It is tried again at the next look.
            Err(error) if error.is_passing() => return Ok(()),
            Err(error) => return Err(error),
        }
        self.unwritten.clear();
        if hour {
            self.heard_at = snapshot.at;
            self.heard_written.extend(snapshot.devices.iter().filter_map(|device| Some((device.id, device.last_reading_at?))));
        }
        Ok(())
    }

    fn draft(&self, transition: &Transition, at: BootMillis) -> Draft {
        let of_a_device = transition.key.name.is_of_a_device();
        let device = self.settings.devices.iter().find(|device| of_a_device && device.name == transition.key.subject);
        Draft {
            identity: Identity::Arrival,
            device: device.map_or(DeviceId::GATEWAY, |device| device.id),
            stream: None,
            stamp: Stamp { boot: self.boot.id(), arrived: at, device_time: None, device_clock: None, stored: false },
            body: Body::Event(Event::Condition {
                name: transition.key.name.name().to_owned(),
                raised: transition.to.is_some(),
                detail: transition.detail(),
            }),
            nameplate: None,
        }
    }

    fn snapshot(&self, collect: Option<&CollectStatus>, anchors: &Anchors) -> Snapshot {
        let at = self.boot.now();
        let mut processes = vec![Process::current()];
        // In one process both halves speak of the same one.
        processes.extend(collect.map(|collect| collect.process).filter(|process| process.id != processes[0].id));
        let listened_from = collect.map_or(self.started, |collect| BootMillis(collect.listened_from_ms));
        let devices = self.settings.devices.iter().map(|device| {
            let status = collect.and_then(|collect| collect.devices.iter().find(|status| status.name == device.name));
            DeviceFacts {
                name: device.name.clone(),
                kind: device.kind.name(),
                id: device.id,
                silent_after_ms: millis(device.silent_after),
                listened_from,
                heard_before: self.heard_before.get(&device.id).copied(),
                mismatch: if device.nameplate.is_blank() { Some(false) } else { status.and_then(mismatch) },
                ..device_facts(status)
            }
        });
        let routes = self.settings.routes.iter().filter_map(|route| {
            let status = self.routes.iter().find(|status| status.borrow().name == route.name)?;
            Some(RouteFacts { name: route.name.clone(), kind: route.kind.name(), ..route_facts(&status.borrow()) })
        });
        Snapshot {
            at,
            now: anchors.wall(self.boot.id(), at).map(|wall| wall.at),
            uptime_s: at.0.saturating_sub(self.started.0) / 1_000,
            collect: collect.map(collect_facts),
            rss_octets: processes.iter().map(|process| process.rss_octets).sum(),
            cpu_ms: processes.iter().map(|process| process.cpu_ms).sum(),
            panics: processes.iter().map(|process| process.panics).sum(),
            temperature_centi_c: temperature_centi_c(Path::new(THERMAL)),
            certificates: self.certificates.clone(),
            devices: devices.collect(),
            routes: routes.collect(),
        }
    }
}

/// The other half is asked over its socket, wherever it runs.
async fn ask(socket: &Path) -> Option<CollectStatus> {
    let answer = api::call(socket, "GET", "/v1/status", Vec::new()).await.ok()?;
    serde_json::from_value(answer).ok()
}

fn collect_facts(collect: &CollectStatus) -> CollectFacts {
    CollectFacts {
        clock: ClockQuality::from_name(&collect.clock),
        adapter_usable: collect.adapter.usable,
        match_rules: collect.radio.match_rules,
        store_damaged: collect.store.state != "ok",
        disk: collect.disk.state.name(),
        degraded: collect.disk.degraded.is_some(),
        free_octets: collect.disk.free_octets,
        log_octets: collect.disk.live_octets,
        log_limit_octets: collect.disk.limit_octets,
        wal_octets: collect.wal_octets,
        head: collect.head,
    }
}

/// What the collect half knows of a device; the rest is the config's.
fn device_facts(status: Option<&DeviceStatus>) -> DeviceFacts {
    let time = |text: &String| text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()));
    DeviceFacts {
        name: String::new(),
        kind: "",
        id: DeviceId::GATEWAY,
        state: status.map(|status| status.state.name()),
        bond: status.and_then(|status| BondState::known(&status.bond)),
        mismatch: None,
        consent_refused: status
            .filter(|status| !status.consent.is_empty())
            .map(|status| status.consent.values().any(|answer| answer == ConsentAnswer::Refused.name())),
        silent_after_ms: 0,
        listened_from: BootMillis(0),
        heard: status.and_then(|status| status.heard_ms).map(BootMillis),
        heard_before: None,
        last_reading_at: status.and_then(|status| status.last_reading_at.as_ref().and_then(time)),
        battery_percent: status.and_then(|status| status.battery_percent),
        clock_offset_s: status.and_then(|status| status.clock_offset_s),
        rejected: status.map(|status| status.rejected.clone()).unwrap_or_default(),
    }
}

/// Nothing is known of it until it was connected.
fn mismatch(status: &DeviceStatus) -> Option<bool> {
    Some(status.nameplate? == NameplateState::Differs)
}

fn route_facts(status: &RouteStatus) -> RouteFacts {
    let oldest = status.oldest_unsent_at.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    RouteFacts {
        name: String::new(),
        kind: "",
        state: status.state.name(),
        error: status.last_fault.filter(|_| status.state != RouteState::Up).map(|class| class.name().to_owned()),
        live: status.live,
        backlog: status.backlog,
        oldest_unsent_at: oldest.map(|at| Timestamp(at.as_millisecond())),
        sent: status.tally.get("sent").copied().unwrap_or(0),
        held: status.held.clone(),
        dead: status.dead,
    }
}

/// Of what the routes' connections were set up with at the start.
fn certificates(settings: &Settings) -> Vec<CertificateFacts> {
    let mut facts = Vec::new();
    for route in &settings.routes {
        let Some(tls) = route.mqtt().and_then(|mqtt| mqtt.tls.as_ref()) else { continue };
        let mut add = |of, not_after: Option<Timestamp>| {
            facts.extend(not_after.map(|not_after| CertificateFacts { route: route.name.clone(), of, not_after }));
        };
        add("own", tls.client.as_ref().and_then(|client| certificate::chain_ends(&client.cert)));
        add("authority", certificate::authorities_end(&tls.ca));
    }
    facts
}

/// The mark of a condition: 0 when it is over, else since when and how bad.
fn mark(transition: &Transition) -> (String, u64) {
    let since = |raised: &Raised| raised.since.map_or(0, |at| u64::try_from(at.0).unwrap_or(0));
    let value = transition.to.as_ref().map_or(0, |raised| since(raised) << 3 | u64::from(raised.level & 7));
    (format!("{CONDITION}{}:{}", transition.key.name.name(), transition.key.subject), value)
}

fn unpack(value: u64) -> Option<Raised> {
    let (since, level) = (value >> 3, u8::try_from(value & 7).ok()?);
    let since = (since > 0).then(|| i64::try_from(since).ok().map(Timestamp)).flatten();
    (level > 0).then_some(Raised { level, since })
}

fn key_of(mark: &str) -> Option<Key> {
    let (name, subject) = mark.strip_prefix(CONDITION)?.split_once(':')?;
    Some(Key { name: ConditionName::from_name(name)?, subject: subject.to_owned() })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
