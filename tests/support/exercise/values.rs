//! The values the script writes: devices, records, holds, bindings, audit rows.

use bedrail::reading::*;
use bedrail::store::retention::Rule;
use bedrail::store::{AuditEntry, BoundRow, Draft, Held, Identity};
use bedrail::ward::{Change, EventSource, HoldReason, WardEvent};

use super::Step;

pub const BOOT: BootId = BootId([9; 16]);
pub const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
pub const STRAP: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 4, 5, 6]);
/// What a check appends to see that the store still takes records; a later check does not count it.
pub const PROBE: DeviceId = DeviceId::new([0xEE; 6]);
pub const GATEWAY: &str = "gw-1";
pub const ROUTE: &str = "ward-mqtt";
pub const MARK: &str = "windows";
pub const LOG_KEY: [u8; 32] = [7; 32];
pub const WARD_KEY: [u8; 32] = [8; 32];

/// When retention runs, and what it goes by: nothing is old.
pub const NOW: Timestamp = Timestamp(1_700_000_100_000);
pub const RULE: Rule = Rule { now: Some(NOW), horizon_ms: i64::MAX, keep_ms: i64::MAX, patience_ms: 0 };
/// It needs the room of what was committed up to here: a settled frame, one of which a part is owed, what a device can send
/// again, and windows.
pub const EVICTED_TO: Seq = Seq(69);

pub fn site_key() -> SiteKey {
    SiteKey::new(&[1; 32])
}

pub fn drafts(step: Step) -> Vec<Draft> {
    match step {
        Step::CommitOne => vec![arrival(STRAP, 1)],
        Step::CommitBurst => (2..66).map(|n| arrival(STRAP, n)).collect(),
        Step::CommitAtOnce => at_once().into_iter().map(|(_, draft)| draft).collect(),
        Step::Windows => vec![window(0), window(60_000)],
        Step::CommitOverOldLog => (100..108).map(|n| arrival(STRAP, n)).collect(),
        Step::AmendWindow => vec![window(0)],
        Step::CommitAfterReopen => vec![arrival(STRAP, 200)],
        _ => Vec::new(),
    }
}

pub const fn mark(step: Step) -> Option<(&'static str, u64)> {
    match step {
        Step::Windows => Some((MARK, 120_000)),
        Step::AmendWindow => Some((MARK, 180_000)),
        _ => None,
    }
}

pub fn arrival(device: DeviceId, n: i64) -> Draft {
    Draft {
        identity: Identity::Arrival,
        device,
        stream: Some(stream(device)),
        stamp: Stamp { boot: BOOT, arrived: BootMillis(n as u64), device_time: None, device_clock: None, stored: false },
        body: Body::Reading(Reading {
            value: Value::Number { value: Decimal::new(n, 0), unit: Unit::PerMinute },
            class: Class::Measured,
            flags: vec![],
            sequence: None,
            part: 0,
            parts: 1,
            security: SecurityLevel::Unknown,
        }),
        nameplate: None,
    }
}

/// Two values a cuff indicates once and may be asked for again, under their ids.
pub fn at_once() -> Vec<(RecordId, Draft)> {
    (1..=2u8)
        .map(|n| {
            let id = site_key().sent_id(CUFF, None, 0x2A35, Some(n.into()), Some(b"base"), Metric::PulseRateCuff, 0);
            let identity = Identity::Sent { id, digest: [n; 8], conflict: site_key().conflict_id(id, &[n]) };
            (id, Draft { identity, ..arrival(CUFF, n.into()) })
        })
        .collect()
}

pub fn window(start: i64) -> Draft {
    let id = site_key().window_id(GATEWAY, &stream(STRAP), 60, Timestamp(start));
    let body = Body::Window(Window {
        start: Timestamp(start),
        length_s: 60,
        from: Timestamp(start),
        to: Timestamp(start + 60_000),
        n: 60,
        unit: Unit::PerMinute,
        summary: None,
        coverage_permille: 1_000,
        excluded: vec![],
        source: (Seq(1), Seq(60)),
    });
    Draft { identity: Identity::Window { id, side: false }, body, ..arrival(STRAP, start) }
}

pub fn stream(device: DeviceId) -> StreamKey {
    StreamKey { device, user: None, metric: Metric::PulseRateCuff, site: None, modality: Modality::Spot }
}

pub fn held(first: u64, count: u64) -> Held {
    let (first, last) = (Seq(first), Seq(first + count - 1));
    Held { device: STRAP, stream: Some(stream(STRAP)), reason: HoldReason::NoAssignment, first, last, count }
}

pub fn bound() -> BoundRow {
    BoundRow {
        stream: stream(STRAP),
        first: Seq(21),
        last: bedrail::store::OPEN,
        subject: Some(subject()),
        rule: "pair".into(),
        evidence: vec![1],
        placement: site_key().placement(Some(&subject()), 0),
        past: vec![],
    }
}

pub fn anchor() -> Anchor {
    Anchor { boot: BOOT, at: BootMillis(70), wall: Timestamp(1_700_000_000_000), quality: ClockQuality::Ntp, uncertainty_ms: 5 }
}

/// By the one anchor there is.
pub fn wall(arrived: BootMillis) -> Timestamp {
    let Anchor { at, wall, .. } = anchor();
    wall.plus_ms(arrived.0 as i64 - at.0 as i64)
}

pub fn entry(action: &str) -> AuditEntry {
    AuditEntry {
        boot: BOOT,
        at: BootMillis(80),
        wall: Some(Timestamp(1_700_000_000_010)),
        actor: "root".into(),
        action: action.into(),
        object: ROUTE.into(),
        detail: String::new(),
    }
}

pub fn ward_event() -> WardEvent {
    WardEvent {
        n: 1,
        at: Timestamp(1_700_000_000_000),
        learned: Timestamp(1_700_000_000_001),
        source: EventSource::Command,
        operator: "root".into(),
        change: Change::Pair { device: STRAP, user: None, subject: subject() },
    }
}

pub fn subject() -> SubjectKey {
    "p-017".parse().expect("a key")
}
