//! The gateways of a broker, from what they publish: who is in trouble, the worst first, in plain words. Pure and bounded,
//! whatever anybody publishes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::report::{GatewayReport, ListedCondition, RouteReport};
use super::{ConditionName, Subject, Topics};
use crate::reading::Timestamp;

/// Gateways that are kept; a fleet of ten thousand is another tool's.
const MAX_GATEWAYS: usize = 10_000;
/// Routes of one gateway that are kept: a config with more has never been seen.
const MAX_ROUTES: usize = 32;
/// A report of ours is a tenth of it.
const MAX_PAYLOAD: usize = 32 << 10;
/// Three heartbeats.
const SILENT_MS: i64 = 180_000;
/// Two clocks differ by this and are both right enough.
const CLOCK_MS: i64 = 60_000;
/// With fewer gateways nobody can tell whose clock is wrong.
const JURY: usize = 3;

const MINUTE: i64 = 60_000;

/// What is wrong, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It is gone without a word.
    Lost,
    /// It is connected, or says so, and its heartbeat has stopped.
    Silent,
    Damaged,
    /// What is new is not durable.
    DiskFails,
    CollectSilent,
    Stopped,
    RouteDown,
    Paused,
    AdapterUnusable,
    CertificateExpired,
    DiskNearFull,
    ClockWrong,
    ClockUnsynced,
    MatchRulesHigh,
    CertificateExpiring,
    DeadLetters,
    BondLost,
    DeviceMismatch,
    ConsentRefused,
    DeviceSilent,
    RecordsHeld,
    BatteryLow,
    OldVersion,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub trouble: Trouble,
    /// In plain words.
    pub reason: String,
    /// Of two with one trouble the greater is worse.
    #[serde(skip)]
    weight: i64,
}

/// One gateway, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub gateway: String,
    pub state: String,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The worst first; empty: all is well.
    pub troubles: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    pub gateways: Vec<Line>,
    /// About this computer, where it is to be doubted rather than the gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// Messages that were no state of a gateway, or more than are kept.
    pub passed_over: u64,
}

#[derive(Debug)]
pub struct Fleet {
    topics: Topics,
    gateways: BTreeMap<String, Gateway>,
    passed_over: u64,
}

#[derive(Debug, Default)]
struct Gateway {
    report: Option<GatewayReport>,
    /// When its own report came, by this computer's clock, if it was no retained one.
    spoke: Option<Timestamp>,
    routes: BTreeMap<String, Route>,
}

#[derive(Debug)]
struct Route {
    report: RouteReport,
    /// What was unsent in the report before.
    before: Option<u64>,
}

impl Overview {
    pub fn summary(&self) -> String {
        let troubled = self.gateways.iter().filter(|line| !line.troubles.is_empty()).count();
        let doubt = self.doubt.as_ref().map_or_else(String::new, |doubt| format!("; {doubt}"));
        format!("{} gateways, {troubled} in trouble{doubt}", self.gateways.len())
    }

    /// A row a gateway: name, state, version, when it last reported, what troubles it.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |line: &Line| {
            let reasons: Vec<&str> = line.troubles.iter().map(|finding| finding.reason.as_str()).collect();
            let reported = line.updated_at.clone().unwrap_or_else(|| "-".to_owned());
            vec![line.gateway.clone(), line.state.clone(), line.version.clone(), reported, reasons.join("; ")]
        };
        self.gateways.iter().map(row).collect()
    }
}

impl Fleet {
    pub fn new(topics: Topics) -> Self {
        Self { topics, gateways: BTreeMap::new(), passed_over: 0 }
    }

    /// What to subscribe to: gateways and routes; what matters of a device its gateway lists.
    pub fn filters(&self) -> [String; 2] {
        [self.topics.gateway("+"), self.topics.route("+", "+")]
    }

    /// Takes in a message; `now` is this computer's time.
    pub fn hear(&mut self, topic: &str, payload: &[u8], retained: bool, now: Timestamp) {
        if self.take_in(topic, payload, retained, now).is_none() {
            self.passed_over += 1;
        }
    }

    fn take_in(&mut self, topic: &str, payload: &[u8], retained: bool, now: Timestamp) -> Option<()> {
        let (name, subject) = self.topics.parse(topic)?;
        let full = self.gateways.len() >= MAX_GATEWAYS && !self.gateways.contains_key(name);
        if !is_name(name) || full || payload.len() > MAX_PAYLOAD {
            return None;
        }
        match subject {
            Subject::Gateway if payload.is_empty() => drop(self.gateways.remove(name)),
            Subject::Gateway => {
                let report = trimmed(serde_json::from_slice(payload).ok()?)?;
                let gateway = self.gateways.entry(name.to_owned()).or_default();
                gateway.report = Some(report);
                gateway.spoke = if retained { gateway.spoke } else { Some(now) };
            }
            Subject::Route(route) if payload.is_empty() => drop(self.gateways.get_mut(name)?.routes.remove(route)),
            Subject::Route(route) => {
                let report: RouteReport = serde_json::from_slice(payload).ok()?;
                let routes = &mut self.gateways.entry(name.to_owned()).or_default().routes;
                let is_route = report.schema.starts_with("bedrail.route/") && is_name(route);
                if !is_route || (routes.len() >= MAX_ROUTES && !routes.contains_key(route)) {
                    return None;
                }
                let before = routes.get(route).map(|route| route.report.live.saturating_add(route.report.backlog));
                let report = RouteReport { held: BTreeMap::new(), conditions: Vec::new(), ..report };
                routes.insert(route.to_owned(), Route { report, before });
            }
            Subject::Device(_) => return None,
        }
        Some(())
    }

    /// Everybody, the worst first; of two as bad, by name.
    pub fn overview(&self, now: Timestamp) -> Overview {
        let known: Vec<(&String, &Gateway)> = self.gateways.iter().filter(|(_, gateway)| gateway.report.is_some()).collect();
        let ahead = known.iter().filter(|(_, gateway)| gateway.lead_ms(now).is_some_and(|lead| lead > CLOCK_MS)).count();
        // That most others are wrong alike is less likely than that we are.
        let doubt = (known.len() >= JURY && ahead * 2 > known.len())
            .then(|| format!("{ahead} of {} gateways seem ahead of time: this computer's clock is behind", known.len()));
        let versions = known.iter().filter_map(|(_, gateway)| version(&gateway.report.as_ref()?.version));
        let newest = versions.max();
        let mut lines: Vec<Line> = known
            .iter()
            .filter_map(|(name, gateway)| {
                let report = gateway.report.as_ref()?;
                let mut troubles = gateway.findings(report, now, doubt.is_none(), newest);
                troubles.sort_by_key(|finding| (finding.trouble, Reverse(finding.weight)));
                Some(Line {
                    gateway: (*name).clone(),
                    state: report.state.clone(),
                    version: report.version.clone(),
                    updated_at: report.updated_at.map(|at| at.to_string()),
                    troubles,
                })
            })
            .collect();
        lines.sort_by(|a, b| rank(a).cmp(&rank(b)));
        Overview { gateways: lines, doubt, passed_over: self.passed_over }
    }
}

/// The worst trouble decides, then how bad it is, then what else there is; without any it comes last.
fn rank(line: &Line) -> impl Ord + '_ {
    let worst = line.troubles.first();
    let weight = worst.map_or(0, |finding| finding.weight);
    let rest: Vec<Option<Trouble>> = line.troubles.iter().map(|finding| Some(finding.trouble)).chain([None]).collect();
    // Nothing after something: a gateway with one trouble more is before the one without it.
    let rest: Vec<(bool, Option<Trouble>)> = rest.into_iter().map(|trouble| (trouble.is_none(), trouble)).collect();
    (worst.is_none(), worst.map(|finding| finding.trouble), Reverse(weight), rest, &line.gateway)
}

impl Gateway {
    /// How far its clock, where it says that it has one, is ahead of `now`, at least.
    fn lead_ms(&self, now: Timestamp) -> Option<i64> {
        Some(self.report.as_ref()?.updated_at?.0.saturating_sub(now.0))
    }

    fn findings(&self, report: &GatewayReport, now: Timestamp, judge_clocks: bool, newest: Option<[u64; 3]>) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |trouble, weight, reason: String| found.push(Finding { trouble, reason, weight });
        if report.state != "online" {
            match report.reason.as_deref() {
                Some("stopped") => add(Trouble::Stopped, 0, "it was stopped".to_owned()),
                _ => add(Trouble::Lost, 0, "it is gone without a word: no power, no network, or it crashed".to_owned()),
            }
            if is_older(report, newest) {
                add(Trouble::OldVersion, 0, format!("bedrail {} is not the newest here", report.version));
            }
            return found;
        }
        self.time(report, now, judge_clocks, &mut add);
        if report.store.as_deref() == Some("damaged") {
            add(Trouble::Damaged, 0, ConditionName::StoreDamaged.says(1).to_owned());
        }
        if let Some(disk) = &report.disk {
            match disk.state.as_str() {
                "read_only" => add(Trouble::DiskFails, 3, "the disk takes no writes".to_owned()),
                "full" => add(Trouble::DiskFails, 2, "the disk is full".to_owned()),
                _ if disk.degraded => add(Trouble::DiskFails, 1, "new values wait in memory".to_owned()),
                "near_full" => {
                    let mib = disk.free_octets >> 20;
                    add(Trouble::DiskNearFull, -i64::try_from(mib).unwrap_or(i64::MAX), format!("the disk has {mib} MiB left"));
                }
                _ => {}
            }
        }
        self.certificates(report, now, &mut add);
        self.routes(report, now, &mut add);
        listed(report.conditions.as_deref().unwrap_or_default(), &mut add);
        if is_older(report, newest) {
            add(Trouble::OldVersion, 0, format!("bedrail {} is not the newest here", report.version));
        }
        found
    }

    /// A heartbeat that stopped is told from a clock that is wrong: a gateway that speaks now is not silent, whatever time it says.
    fn time(&self, report: &GatewayReport, now: Timestamp, judge_clocks: bool, add: &mut impl FnMut(Trouble, i64, String)) {
        let unspoken = self.spoke.map(|at| now.0.saturating_sub(at.0));
        let clockless = report.updated_at.is_none() || report.clock.as_deref() == Some("unsynced");
        let Some(lead) = self.lead_ms(now) else {
            if unspoken.is_some_and(|ms| ms >= SILENT_MS) {
                add(Trouble::Silent, unspoken.unwrap_or(0), format!("nothing for {}", span(unspoken.unwrap_or(0))));
            }
            return add(Trouble::ClockUnsynced, 0, ConditionName::ClockUnsynced.says(1).to_owned());
        };
        match unspoken {
            Some(ms) if ms >= SILENT_MS => add(Trouble::Silent, ms, format!("nothing for {}", span(ms))),
            // It speaks: its time can be compared with when it came.
            Some(ms) => {
                let off = lead.saturating_add(ms);
                if judge_clocks && off.abs() > CLOCK_MS {
                    let direction = if off > 0 { "ahead" } else { "behind" };
                    add(Trouble::ClockWrong, off.abs(), format!("its clock is {} {direction}", span(off.abs())));
                }
            }
            None if lead > CLOCK_MS && judge_clocks => {
                add(Trouble::ClockWrong, lead, format!("its clock is {} ahead", span(lead)));
            }
            None if lead <= -SILENT_MS => {
                let doubt = if report.clock.as_deref() == Some("ntp") { "" } else { ", unless its clock is behind" };
                add(Trouble::Silent, -lead, format!("nothing for {}{doubt}", span(-lead)));
            }
            None => {}
        }
        if clockless {
            add(Trouble::ClockUnsynced, 0, ConditionName::ClockUnsynced.says(1).to_owned());
        }
    }

    fn certificates(&self, report: &GatewayReport, now: Timestamp, add: &mut impl FnMut(Trouble, i64, String)) {
        const DAY: i64 = 24 * 60 * MINUTE;
        let first = report.certificates.iter().filter_map(|certificate| Some((certificate.not_after?, &certificate.route))).min();
        let Some((ends, route)) = first else { return };
        let left = ends.0.saturating_sub(now.0);
        if left <= 0 {
            add(Trouble::CertificateExpired, -left, format!("route {route}: a certificate expired {} ago", span(-left)));
        } else if left <= 30 * DAY {
            add(Trouble::CertificateExpiring, -left, format!("route {route}: a certificate expires in {}", span(left)));
        }
    }

    fn routes(&self, report: &GatewayReport, now: Timestamp, add: &mut impl FnMut(Trouble, i64, String)) {
        let down = report.conditions.iter().flatten().filter(|condition| condition.name == ConditionName::RouteDown.name());
        let told: BTreeMap<&str, u8> =
            down.filter_map(|condition| Some((condition.route.as_deref()?, condition.level.unwrap_or(1)))).collect();
        for (route, level) in &told {
            let known = self.routes.get(*route);
            let waits = known.map_or_else(String::new, |route| route.waits(now));
            let unsent = known.map_or(0, |route| i64::try_from(route.unsent()).unwrap_or(i64::MAX));
            let error = known.and_then(|route| route.report.error.as_deref());
            let says = match (*level, error) {
                (2, Some(_)) => "paused, because the destination refuses this gateway",
                (2, None) if known.is_some() => "paused, until somebody resumes it",
                (level, _) => ConditionName::RouteDown.says(level),
            };
            let trouble = if *level == 2 { Trouble::Paused } else { Trouble::RouteDown };
            add(trouble, unsent, format!("route {route}: {says}{waits}"));
        }
        let dead: u64 = self.routes.values().map(|route| route.report.dead).fold(0, u64::saturating_add);
        if dead > 0 {
            add(Trouble::DeadLetters, i64::try_from(dead).unwrap_or(i64::MAX), format!("dead letters: {dead}"));
        }
    }
}

impl Route {
    fn unsent(&self) -> u64 {
        self.report.live.saturating_add(self.report.backlog)
    }

    fn waits(&self, now: Timestamp) -> String {
        if self.unsent() == 0 {
            return String::new();
        }
        let more = if self.before.is_some_and(|before| self.unsent() > before) { " and more come" } else { "" };
        let oldest = self
            .report
            .oldest_unsent_at
            .map_or_else(String::new, |at| format!(", the oldest for {}", span(now.0.saturating_sub(at.0).max(0))));
        format!(", {} records wait{more}{oldest}", self.unsent())
    }
}

/// What only the gateway knows of itself and its devices.
fn listed(conditions: &[ListedCondition], add: &mut impl FnMut(Trouble, i64, String)) {
    let of = |name: ConditionName| conditions.iter().filter(move |condition| condition.name == name.name());
    for (name, trouble) in [
        (ConditionName::CollectSilent, Trouble::CollectSilent),
        (ConditionName::AdapterUnusable, Trouble::AdapterUnusable),
        (ConditionName::MatchRulesHigh, Trouble::MatchRulesHigh),
    ] {
        if of(name).next().is_some() {
            add(trouble, 0, name.says(1).to_owned());
        }
    }
    for (name, trouble, what) in [
        (ConditionName::BondLost, Trouble::BondLost, "bond lost"),
        (ConditionName::DeviceMismatch, Trouble::DeviceMismatch, "another device"),
        (ConditionName::ConsentRefused, Trouble::ConsentRefused, "consent refused"),
        (ConditionName::DeviceSilent, Trouble::DeviceSilent, "silent"),
        (ConditionName::BatteryLow, Trouble::BatteryLow, "battery low"),
        (ConditionName::RecordsHeld, Trouble::RecordsHeld, "records held"),
    ] {
        let subjects: Vec<&str> = of(name).filter_map(|c| c.device.as_deref().or(c.route.as_deref())).collect();
        let Some((first, more)) = subjects.split_first() else { continue };
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        add(trouble, i64::try_from(subjects.len()).unwrap_or(i64::MAX), format!("{what}: {first}{more}"));
    }
}

/// A report with nothing in it that is not ours; `None` for one of something else.
fn trimmed(mut report: GatewayReport) -> Option<GatewayReport> {
    let clean = |text: &String| text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic());
    if !report.schema.starts_with("bedrail.gateway/") || !clean(&report.state) || !clean(&report.version) {
        return None;
    }
    report.certificates.retain(|certificate| is_name(&certificate.route));
    report.certificates.truncate(2 * MAX_ROUTES);
    let conditions = report.conditions.get_or_insert_default();
    let subject = |condition: &ListedCondition| condition.device.iter().chain(&condition.route).all(|name| is_name(name));
    conditions.retain(|condition| ConditionName::from_name(&condition.name).is_some() && subject(condition));
    conditions.truncate(super::board::MAX_LISTED);
    Some(report)
}

/// As the config allows names: what is shown on a terminal holds nothing else.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_older(report: &GatewayReport, newest: Option<[u64; 3]>) -> bool {
    version(&report.version).is_some_and(|version| Some(version) < newest)
}

/// Major, minor, patch; a development build is its release.
fn version(text: &str) -> Option<[u64; 3]> {
    let release = text.split(['-', '+']).next().unwrap_or(text);
    let mut parts = release.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// `42 s`, `12 min`, `3 h`, `25 d`: nobody needs more of it.
fn span(ms: i64) -> String {
    match ms {
        ..MINUTE => format!("{} s", ms / 1_000),
        ms if ms < 120 * MINUTE => format!("{} min", ms / MINUTE),
        ms if ms < 48 * 60 * MINUTE => format!("{} h", ms / (60 * MINUTE)),
        ms => format!("{} d", ms / (24 * 60 * MINUTE)),
    }
}
