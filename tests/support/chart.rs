//! A ward with a chart in it: two routes, one to a chart, two patients, and what stands where in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::devices::{Kind, VirtualDevice};
use super::ledger::Arrived;
use super::rig::Rig;
use super::subscriber::Message;

pub const SOON: Duration = Duration::from_secs(30);
/// A clock synchronised by NTP may be off by 50 ms, and a value that near to a change of patient is held.
pub const CLEAR_OF_THE_EDGE: Duration = Duration::from_millis(400);
/// A device's own clock shows seconds, and so does the comparison with ours.
pub const CLEAR_OF_THE_EDGE_BY_DEVICE_CLOCK: Duration = Duration::from_millis(4_000);
/// What begins this near to now begins now, and needs no confirmation.
pub const NEARLY_NOW: Duration = Duration::from_secs(5);

pub const LIVE: &str = "bedrail/gw-test/";
pub const CHART: &str = "bedrail/chart/";
pub const CHART_KEYS: &str = "bind = \"patient\"\ntopic = \"bedrail/chart/{device}/{metric}\"";
pub const PATIENTS: &str = "[[patient]]\nkey = \"p-anna\"\n[[patient]]\nkey = \"p-bert\"\n";

pub fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, "A4:C1:38:00:00:01", "strap")
}

pub fn cuff() -> VirtualDevice {
    VirtualDevice::new(Kind::Cuff, "A4:C1:38:00:00:04", "cuff")
}

/// A gateway whose values go live to whoever listens, and to a chart under their patient.
pub fn with_a_chart(binary: &str, devices: &[VirtualDevice], rest: &str) -> Rig {
    let rig = Rig::new(binary, devices, "", rest);
    rig.configure(&both_routes(&rig), rest);
    rig
}

pub fn both_routes(rig: &Rig) -> String {
    rig.route("live", "") + &rig.route("chart", CHART_KEYS)
}

/// A time as the command line takes it, `ago` before now.
pub fn time(ago: Duration) -> String {
    jiff::Timestamp::try_from(SystemTime::now() - ago).expect("a time of now").to_string()
}

pub fn held(rig: &Rig, reason: &str) -> u64 {
    rig.route_status("chart")["held"][reason].as_u64().unwrap_or(0)
}

pub fn wait_until_held(rig: &Rig, held: Value) {
    // Where nothing is held there is no such field.
    let is_it = |route: &Value| route.get("held").cloned().unwrap_or_else(|| json!({})) == held;
    rig.wait_for_route("chart", SOON, |route| is_it(route) && route["backlog"] == 0 && route["live"] == 0);
}

/// Subjects of what arrived, batteries left out: they are nobody's.
pub fn subjects(messages: &[Message]) -> BTreeSet<Option<String>> {
    let arrived = messages.iter().filter_map(|message| Arrived::parse(&message.raw));
    arrived.filter(|record| record.metric.as_deref() != Some("battery_level")).map(|record| record.subject).collect()
}

pub fn only(subject: &str) -> BTreeSet<Option<String>> {
    BTreeSet::from([Some(subject.to_owned())])
}

/// Readings under a prefix that the devices made, batteries left out.
pub fn readings(messages: &[Message]) -> usize {
    let parsed = messages.iter().filter_map(|message| Arrived::parse(&message.raw));
    parsed.filter(|record| record.kind == "reading" && record.metric.as_deref() != Some("battery_level")).count()
}

pub fn measure(rig: &mut Rig, device: &str, times: usize) -> usize {
    let before = rig.made().len();
    for _ in 0..times {
        rig.measure(|it| it.name == device);
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.made().len() - before
}

/// Of each record in a chart, the subjects under which it stands, by the rule a receiver files by.
pub fn standing(chart: &[Message]) -> BTreeMap<String, BTreeSet<String>> {
    let text = |message: &Message, field: &str| message.payload[field].as_str().unwrap_or("-").to_owned();
    let mut filed: BTreeMap<(String, String), (u64, bool, String)> = BTreeMap::new();
    for message in chart {
        let at = (text(message, "record"), text(message, "placement"));
        let (version, retract) = (message.payload["version"].as_u64().expect("a version"), message.payload["op"] == "retract");
        let known = filed.get(&at).map(|(version, retract, _)| (*version, *retract));
        if known.is_none_or(|known| known < (version, retract)) {
            filed.insert(at, (version, retract, text(message, "subject")));
        }
    }
    let mut standing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((record, _), (_, retracted, subject)) in filed {
        let of = standing.entry(record).or_default();
        if !retracted {
            of.insert(subject);
        }
    }
    standing
}

pub fn everything_stands_with(chart: &[Message], count: usize, subject: &str) -> bool {
    let standing = standing(chart);
    standing.len() == count && standing.values().all(|of| *of == BTreeSet::from([subject.to_owned()]))
}
