//! What is published when: the latest notice of every topic, renewed when something worth telling changed and now and then
//! in any case. Pure. The routes send from it what they have not sent; a notice that was replaced meanwhile is never sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::{
    CertificateReport, DEVICE_SCHEMA, DeviceReport, DiskReport, GATEWAY_SCHEMA, GatewayReport, ListedCondition, ROUTE_SCHEMA,
    RouteReport, octets,
};
use super::snapshot::{CollectFacts, DeviceFacts, RouteFacts, Snapshot};
use super::{ConditionName, Key, Raised, Topics};
use crate::reading::BootMillis;

/// The heartbeat.
const GATEWAY_EVERY_MS: u64 = 60_000;
/// A device or route that does not change.
const REST_EVERY_MS: u64 = 15 * 60_000;
/// A route that works off a backlog.
const BUSY_EVERY_MS: u64 = 60_000;
/// A gauge that moves by less has not changed: it wavers.
const BATTERY_STEP: u8 = 5;
/// A device clock that drifts by less has not changed.
const OFFSET_STEP_S: u64 = 30;
/// Conditions listed: a gateway with more has one trouble that is behind them all.
pub(super) const MAX_LISTED: usize = 32;

/// A retained message. Of two with one topic the one with the higher stamp is newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub topic: Arc<str>,
    pub payload: Arc<[u8]>,
    pub stamp: u64,
}

/// The latest of every topic.
pub type Notices = BTreeMap<Arc<str>, Notice>;

#[derive(Debug)]
pub struct Board {
    gateway: String,
    topics: Topics,
    notices: Notices,
    stamp: u64,
    told_gateway: Option<Told<GatewayReport>>,
    told_devices: BTreeMap<String, Told<DeviceReport>>,
    told_routes: BTreeMap<String, Told<RouteReport>>,
}

/// What was last told, when, and the counter its rate is made of.
#[derive(Debug)]
struct Told<R> {
    report: R,
    at: BootMillis,
    counter: u64,
}

impl Board {
    pub fn new(gateway: &str, topics: Topics) -> Self {
        Self {
            gateway: gateway.to_owned(),
            topics,
            notices: Notices::new(),
            stamp: 0,
            told_gateway: None,
            told_devices: BTreeMap::new(),
            told_routes: BTreeMap::new(),
        }
    }

    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Takes in a snapshot and what is raised; `true`: some notice is new.
    pub fn look<'r>(&mut self, snapshot: &Snapshot, raised: impl Iterator<Item = (&'r Key, Raised)>) -> bool {
        let raised: Vec<(&Key, Raised)> = raised.collect();
        let before = self.stamp;
        self.look_at_gateway(snapshot, &raised);
        for device in &snapshot.devices {
            self.look_at_device(device, snapshot, &raised);
        }
        for route in &snapshot.routes {
            self.look_at_route(route, snapshot, &raised);
        }
        self.stamp != before
    }

    fn look_at_gateway(&mut self, snapshot: &Snapshot, raised: &[(&Key, Raised)]) {
        let mut report = gateway_report(&self.gateway, snapshot, raised);
        if let Some(told) = &self.told_gateway {
            let elapsed = elapsed_ms(snapshot, told.at);
            if elapsed < GATEWAY_EVERY_MS && !gateway_changed(&told.report, &report) {
                return;
            }
            let used = snapshot.cpu_ms.saturating_sub(told.counter);
            report.cpu_percent = (elapsed > 0).then(|| tenths(used as f64 * 100.0 / elapsed as f64));
        }
        self.notice(self.topics.gateway(&self.gateway), &report);
        self.told_gateway = Some(Told { report, at: snapshot.at, counter: snapshot.cpu_ms });
    }

    fn look_at_device(&mut self, device: &DeviceFacts, snapshot: &Snapshot, raised: &[(&Key, Raised)]) {
        let report = DeviceReport {
            schema: DEVICE_SCHEMA.to_owned(),
            gateway: self.gateway.clone(),
            device: device.name.clone(),
            kind: device.kind.to_owned(),
            updated_at: snapshot.now,
            state: device.state.unwrap_or("unknown").to_owned(),
            bond: device.bond.map(str::to_owned),
            last_reading_at: device.last_reading_at,
            battery_percent: device.battery_percent,
            clock_offset_s: device.clock_offset_s,
            rejected: device.rejected.clone(),
            conditions: names(raised, &device.name, ConditionName::is_of_a_device),
        };
        if let Some(told) = self.told_devices.get(&device.name)
            && elapsed_ms(snapshot, told.at) < REST_EVERY_MS
            && !device_changed(&told.report, &report)
        {
            return;
        }
        self.notice(self.topics.device(&self.gateway, &device.name), &report);
        self.told_devices.insert(device.name.clone(), Told { report, at: snapshot.at, counter: 0 });
    }

    fn look_at_route(&mut self, route: &RouteFacts, snapshot: &Snapshot, raised: &[(&Key, Raised)]) {
        let mut report = RouteReport {
            schema: ROUTE_SCHEMA.to_owned(),
            gateway: self.gateway.clone(),
            route: route.name.clone(),
            kind: route.kind.to_owned(),
            updated_at: snapshot.now,
            state: route.state.to_owned(),
            error: route.error.clone(),
            live: route.live,
            backlog: route.backlog,
            oldest_unsent_at: route.oldest_unsent_at,
            sent_per_min: None,
            held: route.held.clone(),
            dead: route.dead,
            conditions: names(raised, &route.name, ConditionName::is_of_a_route),
        };
        if let Some(told) = self.told_routes.get(&route.name) {
            let elapsed = elapsed_ms(snapshot, told.at);
            let every = if route.backlog > 0 { BUSY_EVERY_MS } else { REST_EVERY_MS };
            if elapsed < every && !route_changed(&told.report, &report) {
                return;
            }
            let sent = route.sent.saturating_sub(told.counter);
            report.sent_per_min = (elapsed > 0).then(|| (sent * 60_000).div_ceil(elapsed));
        }
        self.notice(self.topics.route(&self.gateway, &route.name), &report);
        self.told_routes.insert(route.name.clone(), Told { report, at: snapshot.at, counter: route.sent });
    }

    fn notice(&mut self, topic: String, report: &impl serde::Serialize) {
        self.stamp += 1;
        let topic: Arc<str> = topic.into();
        self.notices.insert(topic.clone(), Notice { topic, payload: octets(report).into(), stamp: self.stamp });
    }
}

fn gateway_report(gateway: &str, snapshot: &Snapshot, raised: &[(&Key, Raised)]) -> GatewayReport {
    let collect = snapshot.collect.as_ref();
    let certificates = snapshot.certificates.iter().map(|certificate| CertificateReport {
        route: certificate.route.clone(),
        of: certificate.of.to_owned(),
        not_after: Some(certificate.not_after),
    });
    GatewayReport {
        schema: GATEWAY_SCHEMA.to_owned(),
        gateway: gateway.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: "online".to_owned(),
        reason: None,
        updated_at: snapshot.now,
        uptime_s: Some(snapshot.uptime_s),
        clock: collect.map(|collect| collect.clock.name().to_owned()),
        adapter: collect.map(|collect| if collect.adapter_usable { "usable" } else { "unusable" }.to_owned()),
        store: collect.map(|collect| if collect.store_damaged { "damaged" } else { "ok" }.to_owned()),
        head: collect.map(|collect| collect.head),
        disk: collect.map(disk_report),
        wal_octets: collect.map(|collect| collect.wal_octets),
        rss_octets: Some(snapshot.rss_octets),
        cpu_percent: None,
        temperature_c: snapshot.temperature_centi_c.map(|centi| tenths(f64::from(centi) / 100.0)),
        match_rules: collect.and_then(|collect| collect.match_rules),
        panics: snapshot.panics,
        certificates: certificates.collect(),
        conditions: Some(raised.iter().take(MAX_LISTED).map(|(key, raised)| ListedCondition::new(key, *raised)).collect()),
        more_conditions: raised.len().saturating_sub(MAX_LISTED) as u64,
    }
}

fn disk_report(collect: &CollectFacts) -> DiskReport {
    DiskReport {
        state: collect.disk.to_owned(),
        degraded: collect.degraded,
        free_octets: collect.free_octets,
        log_octets: collect.log_octets,
        log_limit_octets: collect.log_limit_octets,
    }
}

fn names(raised: &[(&Key, Raised)], subject: &str, of: fn(ConditionName) -> bool) -> Vec<String> {
    let mine = raised.iter().filter(|(key, _)| of(key.name) && key.subject == subject);
    mine.map(|(key, _)| key.name.name().to_owned()).collect()
}

fn gateway_changed(told: &GatewayReport, new: &GatewayReport) -> bool {
    let disk = |report: &GatewayReport| report.disk.as_ref().map(|disk| (disk.state.clone(), disk.degraded));
    // The clock's first word makes times appear everywhere; later it is a condition's matter.
    (&told.clock, &told.adapter, &told.store, told.updated_at.is_some(), told.more_conditions, disk(told))
        != (&new.clock, &new.adapter, &new.store, new.updated_at.is_some(), new.more_conditions, disk(new))
        || told.conditions != new.conditions
}

/// A reading after a pause is told at once, one of many when the topic is due.
fn device_changed(told: &DeviceReport, new: &DeviceReport) -> bool {
    let spoke = match (told.last_reading_at, new.last_reading_at) {
        (Some(told), Some(new)) => new.0.saturating_sub(told.0) >= REST_EVERY_MS as i64,
        (told, new) => told.is_some() != new.is_some(),
    };
    let battery = match (told.battery_percent, new.battery_percent) {
        (Some(told), Some(new)) => told.abs_diff(new) >= BATTERY_STEP,
        (told, new) => told.is_some() != new.is_some(),
    };
    let clock = match (told.clock_offset_s, new.clock_offset_s) {
        (Some(told), Some(new)) => told.abs_diff(new) >= OFFSET_STEP_S,
        (told, new) => told.is_some() != new.is_some(),
    };
    let reasons = |report: &DeviceReport| report.rejected.keys().cloned().collect::<Vec<_>>();
    let link = (&told.state, &told.bond) != (&new.state, &new.bond);
    spoke || battery || clock || link || told.conditions != new.conditions || reasons(told) != reasons(new)
}

fn route_changed(told: &RouteReport, new: &RouteReport) -> bool {
    let reasons = |report: &RouteReport| report.held.keys().cloned().collect::<Vec<_>>();
    (&told.state, &told.error, told.dead, &told.conditions, told.backlog > 0)
        != (&new.state, &new.error, new.dead, &new.conditions, new.backlog > 0)
        || reasons(told) != reasons(new)
}

const fn elapsed_ms(snapshot: &Snapshot, at: BootMillis) -> u64 {
    snapshot.at.0.saturating_sub(at.0)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
