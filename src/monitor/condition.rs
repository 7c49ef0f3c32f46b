//! Conditions of the gateway, its devices and its routes: raised and cleared with hysteresis, from snapshots. Pure.
//!
//! They are about equipment. None of them looks at a value of a patient, ranks one or sounds for one.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::{CollectFacts, DeviceFacts, RouteFacts, Snapshot};
use crate::radio::MANY_RULES;
use crate::reading::{BootMillis, Timestamp};

const S: u64 = 1_000;
const MIN: u64 = 60 * S;
const DAY: i64 = 86_400_000;

/// Above `battery_low` by so much before the battery counts as changed or charged: a gauge wavers by a few per cent.
const BATTERY_MARGIN: u8 = 5;
/// Days left at which a certificate is told of, and told of again.
const CERTIFICATE_DAYS: [i64; 3] = [30, 7, 1];

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, raise $raise:expr, clear $clear:expr;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ConditionName { $($(#[$doc])* $variant),+ }

        impl ConditionName {
            pub const ALL: &'static [ConditionName] = &[$(ConditionName::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(ConditionName::$variant => $word),+ }
            }

            /// How long, in milliseconds, it must be so before it is raised, and not so before it is cleared.
            const fn delays(self) -> (u64, u64) {
                match self { $(ConditionName::$variant => ($raise, $clear)),+ }
            }
        }
    };
}

names! {
    StoreDamaged = "store_damaged", raise 0, clear 0;
    DiskReadOnly = "disk_read_only", raise 10 * S, clear MIN;
    /// Below `store.free_floor`, or full. It hovers there while retention works.
    DiskNearFull = "disk_near_full", raise 30 * S, clear 10 * MIN;
    CollectSilent = "collect_silent", raise MIN, clear 30 * S;
    AdapterUnusable = "adapter_unusable", raise MIN, clear MIN;
    /// Something leaks rules on the D-Bus; at twice as many BlueZ falls silent for us.
    MatchRulesHigh = "match_rules_high", raise 0, clear 0;
    /// A boot without a network gets its time within minutes, or not.
    ClockUnsynced = "clock_unsynced", raise 10 * MIN, clear MIN;
    /// The time to raise is `monitor.route_down_after`.
    RouteDown = "route_down", raise 0, clear MIN;
    CertificateExpiring = "certificate_expiring", raise 0, clear 0;
    /// The time to raise is `monitor.held_after`.
    RecordsHeld = "records_held", raise 0, clear 5 * MIN;
    /// The radio has seen enough of it before it says so. It is never ended by itself while the device is away.
    BondLost = "bond_lost", raise 0, clear 0;
    /// It is known when the device has told who it is, at a connection; while it is away nothing changes.
    DeviceMismatch = "device_mismatch", raise 0, clear 0;
    /// A user's code is wrong: known when the device was asked, and until it is asked with another.
    ConsentRefused = "consent_refused", raise 0, clear 0;
    /// Its own time is `silent_after`: one reading ends it.
    DeviceSilent = "device_silent", raise 0, clear 0;
    BatteryLow = "battery_low", raise 0, clear 0;
}

impl ConditionName {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }

    pub const fn is_of_a_device(self) -> bool {
        matches!(self, Self::BondLost | Self::DeviceMismatch | Self::ConsentRefused | Self::DeviceSilent | Self::BatteryLow)
    }

    pub const fn is_of_a_route(self) -> bool {
        matches!(self, Self::RouteDown | Self::CertificateExpiring | Self::RecordsHeld)
    }

    /// What a level of it means, in plain words.
    pub const fn says(self, level: u8) -> &'static str {
        match (self, level) {
            (Self::StoreDamaged, _) => "the store was damaged and salvaged; see `bedrail store stats`",
            (Self::DiskReadOnly, _) => "the disk takes no writes",
            (Self::DiskNearFull, 2) => "the disk is full",
            (Self::DiskNearFull, _) => "the disk is nearly full",
            (Self::CollectSilent, _) => "the collect half does not answer",
            (Self::AdapterUnusable, _) => "there is no Bluetooth adapter to listen with",
            (Self::MatchRulesHigh, _) => "half of the match rules the D-Bus allows are in use; restart bedrail at a quiet hour",
            (Self::ClockUnsynced, _) => "the clock is not synchronised",
            (Self::RouteDown, 2) => "paused",
            (Self::RouteDown, 3) => "connected, and nothing is taken",
            (Self::RouteDown, _) => "not connected",
            (Self::CertificateExpiring, 4) => "a certificate has expired",
            (Self::CertificateExpiring, 3) => "a certificate expires within a day",
            (Self::CertificateExpiring, 2) => "a certificate expires within 7 days",
            (Self::CertificateExpiring, _) => "a certificate expires within 30 days",
            (Self::RecordsHeld, _) => "records wait for something they lack",
            (Self::BondLost, _) => {
                "the bond was lost: the device was reset or paired elsewhere, or another imitates it; see `bedrail status`"
            }
            (Self::DeviceMismatch, _) => {
                "another device than the config names answers under its address, and its readings are held; see `bedrail devices`"
            }
            (Self::ConsentRefused, _) => {
                "a consent code is not that of its user: what waits in the slot stays on the device; correct `consent`"
            }
            (Self::DeviceSilent, _) => "no reading for a long time",
            (Self::BatteryLow, _) => "the battery is low",
        }
    }
}

/// The condition, and the device or route it is of; empty for the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub name: ConditionName,
    pub subject: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// From 1; more is worse.
    pub level: u8,
    /// `None` while the clock is unknown.
    pub since: Option<Timestamp>,
}

/// A condition began, ended (`to` is `None`) or changed its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub key: Key,
    pub to: Option<Raised>,
}

impl Transition {
    /// For the event record: the route it is of, and what it is.
    pub fn detail(&self) -> String {
        let says = match &self.to {
            Some(raised) => self.key.name.says(raised.level),
            None => "over",
        };
        let of_a_route = self.key.name.is_of_a_route();
        if of_a_route { format!("route {}: {says}", self.key.subject) } else { says.to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub battery_low: u8,
    pub route_down_after_ms: u64,
    pub held_after_ms: u64,
}

/// What a snapshot says about one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Bad(u8),
    Good,
    /// Neither: not known now, or between the two thresholds. Things stay as they are.
    Unclear,
}

#[derive(Clone, Debug, Default)]
struct State {
    raised: Option<Raised>,
    /// When it was raised in this run, to tell the time once the clock is known.
    raised_at: Option<BootMillis>,
    /// What it is about to become, and since when that has been seen without a break.
    leaning: Option<(Sign, BootMillis)>,
}

#[derive(Clone, Debug)]
pub struct Conditions {
    thresholds: Thresholds,
    states: BTreeMap<Key, State>,
}

impl Conditions {
    /// `raised` is what an earlier run left raised: it is not raised again.
    pub fn new(thresholds: Thresholds, raised: impl IntoIterator<Item = (Key, Raised)>) -> Self {
        let state = |raised| State { raised: Some(raised), ..State::default() };
        Self { thresholds, states: raised.into_iter().map(|(key, raised)| (key, state(raised))).collect() }
    }

    /// Takes in a snapshot; answers what began, changed or ended with it.
    pub fn look(&mut self, snapshot: &Snapshot) -> Vec<Transition> {
        let signs = signs(snapshot, &self.thresholds);
        let mut transitions = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, sign, delays) in signs {
            let state = self.states.entry(key.clone()).or_default();
            if state.step(sign, delays, snapshot) {
                transitions.push(Transition { key: key.clone(), to: state.raised });
            }
            seen.insert(key);
        }
        // Of a device or route that left the config nothing is known any more, and nothing goes on.
        self.states.retain(|key, state| {
            let stays = seen.contains(key);
            if !stays && state.raised.is_some() {
                transitions.push(Transition { key: key.clone(), to: None });
            }
            stays
        });
        transitions
    }

    pub fn raised(&self) -> impl Iterator<Item = (&Key, Raised)> {
        self.states.iter().filter_map(|(key, state)| Some((key, state.raised?)))
    }
}

impl State {
    /// `true`: it began, changed or ended.
    fn step(&mut self, sign: Sign, (raise_after, clear_after): (u64, u64), snapshot: &Snapshot) -> bool {
        self.date(snapshot);
        let is_so = match (sign, self.raised) {
            (Sign::Bad(level), Some(raised)) if raised.level == level => true,
            (Sign::Good, None) | (Sign::Unclear, _) => true,
            _ => false,
        };
        if is_so {
            self.leaning = None;
            return false;
        }
        let from = match self.leaning {
            // Full or nearly full, it has been bad all the time.
            Some((leaning, from)) if (leaning == Sign::Good) == (sign == Sign::Good) => from,
            _ => snapshot.at,
        };
        self.leaning = Some((sign, from));
        let after = if sign == Sign::Good { clear_after } else { raise_after };
        if snapshot.at.0.saturating_sub(from.0) < after {
            return false;
        }
        self.leaning = None;
        match sign {
            Sign::Bad(level) => {
                let since = self.raised.map_or(snapshot.now, |raised| raised.since);
                self.raised = Some(Raised { level, since });
                self.raised_at.get_or_insert(snapshot.at);
            }
            Sign::Good | Sign::Unclear => (self.raised, self.raised_at) = (None, None),
        }
        true
    }

    /// A clock that is set later tells when it began.
    fn date(&mut self, snapshot: &Snapshot) {
        if let (Some(raised), Some(at), Some(now)) = (&mut self.raised, self.raised_at, snapshot.now)
            && raised.since.is_none()
        {
            raised.since = Some(now.plus_ms(-i64::try_from(snapshot.at.0.saturating_sub(at.0)).unwrap_or(0)));
        }
    }
}

/// One sign for every condition there can be.
fn signs(snapshot: &Snapshot, thresholds: &Thresholds) -> Vec<(Key, Sign, (u64, u64))> {
    use ConditionName as Name;
    let mut signs = Vec::new();
    let mut add = |name: Name, subject: &str, sign: Sign| {
        let (raise, clear) = name.delays();
        let raise = match name {
            Name::RouteDown => thresholds.route_down_after_ms,
            Name::RecordsHeld => thresholds.held_after_ms,
            _ => raise,
        };
        signs.push((Key { name, subject: subject.to_owned() }, sign, (raise, clear)));
    };
    let collect = snapshot.collect.as_ref();
    add(Name::CollectSilent, "", bad_if(collect.is_none()));
    let of_collect = |sign: fn(&CollectFacts) -> Sign| collect.map_or(Sign::Unclear, sign);
    add(Name::StoreDamaged, "", of_collect(|collect| bad_if(collect.store_damaged)));
    add(Name::DiskReadOnly, "", of_collect(|collect| bad_if(collect.disk == "read_only")));
    add(Name::DiskNearFull, "", of_collect(near_full));
    add(Name::AdapterUnusable, "", of_collect(|collect| bad_if(!collect.adapter_usable)));
    add(Name::MatchRulesHigh, "", of_collect(match_rules));
    add(Name::ClockUnsynced, "", of_collect(|collect| bad_if(collect.clock == crate::reading::ClockQuality::Unsynced)));
    for device in &snapshot.devices {
        add(Name::BondLost, &device.name, bond_lost(device));
        add(Name::DeviceMismatch, &device.name, device.mismatch.map_or(Sign::Unclear, bad_if));
        add(Name::ConsentRefused, &device.name, device.consent_refused.map_or(Sign::Unclear, bad_if));
        add(Name::DeviceSilent, &device.name, silent(device, snapshot));
        add(Name::BatteryLow, &device.name, battery(device, thresholds.battery_low));
    }
    for route in &snapshot.routes {
        add(Name::RouteDown, &route.name, down(route));
        add(Name::RecordsHeld, &route.name, bad_if(route.held.values().any(|count| *count > 0)));
        add(Name::CertificateExpiring, &route.name, expiring(route, snapshot));
    }
    signs
}

const fn bad_if(bad: bool) -> Sign {
    if bad { Sign::Bad(1) } else { Sign::Good }
}

fn near_full(collect: &CollectFacts) -> Sign {
    match collect.disk {
        "ok" => Sign::Good,
        "near_full" => Sign::Bad(1),
        "full" => Sign::Bad(2),
        _ => Sign::Unclear,
    }
}

fn match_rules(collect: &CollectFacts) -> Sign {
    match collect.match_rules {
        Some(rules) => bad_if(rules >= MANY_RULES),
        None => Sign::Unclear,
    }
}

fn down(route: &RouteFacts) -> Sign {
    match route.state {
        "up" => Sign::Good,
        "paused" => Sign::Bad(2),
        "waiting" => Sign::Bad(3),
        _ => Sign::Bad(1),
    }
}

fn silent(device: &DeviceFacts, snapshot: &Snapshot) -> Sign {
    if device.state.is_none() {
        return Sign::Unclear;
    }
    let since = |at: BootMillis| snapshot.at.0.saturating_sub(at.0);
    let quiet_ms = match (device.heard, device.heard_before, snapshot.now) {
        (Some(heard), ..) => since(heard),
        (None, Some(before), Some(now)) => u64::try_from(now.0 - before.0).unwrap_or(0).max(since(device.listened_from)),
        _ => since(device.listened_from),
    };
    match device.heard {
        _ if quiet_ms >= device.silent_after_ms => Sign::Bad(1),
        // That it was not listened to for a while does not mean that it speaks.
        None => Sign::Unclear,
        Some(_) => Sign::Good,
    }
}

/// BlueZ goes on having the bond over a restart, so that it says `bonded` is no sign that the device has it too.
fn bond_lost(device: &DeviceFacts) -> Sign {
    match (device.bond, device.state) {
        (Some("lost"), _) => Sign::Bad(1),
        (_, Some("connected")) => Sign::Good,
        // Somebody pairs it anew.
        (Some("bonding" | "refused"), _) => Sign::Good,
        // Forgotten. At the start of a run it is `waiting`, and nothing is known yet.
        (Some("none"), Some("lost")) => Sign::Good,
        _ => Sign::Unclear,
    }
}

fn battery(device: &DeviceFacts, low: u8) -> Sign {
    match device.battery_percent {
        Some(percent) if percent <= low => Sign::Bad(1),
        Some(percent) if percent >= low.saturating_add(BATTERY_MARGIN).min(100) => Sign::Good,
        _ => Sign::Unclear,
    }
}

fn expiring(route: &RouteFacts, snapshot: &Snapshot) -> Sign {
    let first = snapshot.certificates.iter().filter(|certificate| certificate.route == route.name).map(|c| c.not_after).min();
    let Some(first) = first else { return Sign::Good };
    let Some(now) = snapshot.now else { return Sign::Unclear };
    let left = first.0 - now.0;
    let [month, week, day] = CERTIFICATE_DAYS.map(|days| days * DAY);
    match left {
        ..=0 => Sign::Bad(4),
        left if left <= day => Sign::Bad(3),
        left if left <= week => Sign::Bad(2),
        left if left <= month => Sign::Bad(1),
        // A clock that is moved by hours must not end and begin it again.
        left if left <= month + DAY => Sign::Unclear,
        _ => Sign::Good,
    }
}
