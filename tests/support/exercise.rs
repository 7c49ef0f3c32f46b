//! A scripted day of the store, for cutting it short anywhere. Each step is one transaction (or none) and has two sides:
//! what it does to a real store, and what it does to a plain model of one. Whatever is left after a kill or a power cut
//! must be the model after the last step that returned `Ok`, or after the one step that was under way: never less, never a
//! mixture.
//!
//! Included by path from the example `exercise_store` and from the tests that cut it.

#![allow(dead_code, reason = "each includer uses a part of it")]

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bedrail::reading::*;
use bedrail::store::key::DataKey;
use bedrail::store::{
    AuditEntry, BoundRow, DeadRow, Draft, Held, Identity, Lanes, OPEN, RouteChange, Runs, Store, StoreError, WardStore, prepare,
};
use bedrail::ward::{Change, EventSource, HoldReason, Phi, WardEvent};
use ring::digest;

const BOOT: BootId = BootId([9; 16]);
const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 1, 2, 3]);
const STRAP: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 4, 5, 6]);
/// What a check appends to see that the store still takes records; a later check does not count it.
const PROBE: DeviceId = DeviceId::new([0xEE; 6]);
const GATEWAY: &str = "gw-1";
const ROUTE: &str = "ward-mqtt";
const MARK: &str = "windows";
const LOG_KEY: [u8; 32] = [7; 32];
const WARD_KEY: [u8; 32] = [8; 32];

fn site_key() -> SiteKey {
    SiteKey::new(&[1; 32])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    Open,
    Register,
    CommitOne,
    CommitBurst,
    CommitAtOnce,
    Anchor,
    Ack,
    Hold,
    Release,
    Bind,
    Refuse,
    Audit,
    Windows,
    Assign,
    Identify,
    Pause,
    Checkpoint,
    CommitOverOldLog,
    AmendWindow,
    Reopen,
    CommitAfterReopen,
    // A step for retention (frames and the runs they trim, with their gap record) and one for a migration belong here.
    Close,
}

pub const STEPS: [Step; 23] = [
    Step::Prepare,
    Step::Open,
    Step::Register,
    Step::CommitOne,
    Step::CommitBurst,
    Step::CommitAtOnce,
    Step::Anchor,
    Step::Ack,
    Step::Hold,
    Step::Release,
    Step::Bind,
    Step::Refuse,
    Step::Audit,
    Step::Windows,
    Step::Assign,
    Step::Identify,
    Step::Pause,
    Step::Checkpoint,
    Step::CommitOverOldLog,
    Step::AmendWindow,
    Step::Reopen,
    Step::CommitAfterReopen,
    Step::Close,
];

/// What a step that returned `Ok` promised: it stands, and so do these records, to the last octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub step: Step,
    first: u64,
    last: u64,
    digest: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DONE {:?} {}..={} {}", self.step, self.first, self.last, self.digest)
    }
}

impl FromStr for Promise {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let bad = || format!("not a promise: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["DONE", step, run, digest] = words.as_slice() else { return Err(bad()) };
        let step = STEPS.into_iter().find(|known| format!("{known:?}") == step).ok_or_else(bad)?;
        let (first, last) = run.split_once("..=").ok_or_else(bad)?;
        let number = |text: &str| text.parse().map_err(|_| bad());
        Ok(Self { step, first: number(first)?, last: number(last)?, digest: digest.to_owned() })
    }
}

/// The promises in what an exerciser printed; a last line that a kill cut short is none.
pub fn promises(output: &str) -> Vec<Promise> {
    output.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(|line| line.parse().ok()).collect()
}

/// Runs the script in an empty directory and tells `done` of each step once it has returned `Ok`.
pub fn run(dir: &Path, mut done: impl FnMut(&Promise)) -> Result<(), (Step, StoreError)> {
    let mut exerciser = Exerciser { dir, open: None, route: 0, model: State::default() };
    for step in STEPS {
        let promise = exerciser.perform(step).map_err(|error| (step, error))?;
        done(&promise);
    }
    Ok(())
}

/// Opens what is left as the daemon would, and holds it against what was promised.
pub fn verify(dir: &Path, promised: &[Promise]) -> Result<(), String> {
    if promised.iter().map(|promise| promise.step).ne(STEPS.into_iter().take(promised.len())) {
        return Err(format!("promises out of order: {promised:?}"));
    }
    let failed = |what: &'static str| move |error: StoreError| format!("{what}: {error}");
    prepare(dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY)).map_err(failed("prepare"))?;
    let (mut store, ward) = open(dir).map_err(failed("open"))?;
    let (found, records) = look(&store, &ward).map_err(failed("read"))??;
    for promise in promised {
        let run = records.iter().filter(|(seq, _)| (promise.first..=promise.last).contains(&seq.0));
        if digest_of(run.map(|(_, record)| record)) != promise.digest {
            return Err(format!("records of {promise} are not there as they were promised"));
        }
    }
    let before = State::after(&STEPS[..promised.len()]);
    let after = State::after(&STEPS[..STEPS.len().min(promised.len() + 1)]);
    if found != before && found != after {
        return Err(format!(
            "neither the state after {:?} nor after the step that followed: {}",
            promised.last().map(|promise| promise.step),
            before.difference(&found)
        ));
    }
    takes_more(&mut store, &found, &records).map_err(failed("append"))?
}

/// A store that opened also goes on: new numbers, and what a device sends again is known.
fn takes_more(store: &mut Store, found: &State, records: &[(Seq, Record)]) -> Result<Result<(), String>, StoreError> {
    let head = store.head()?;
    let appended = store.append(vec![Draft { device: PROBE, stream: None, ..arrival(STRAP, 0) }])?;
    let Some(Some((seq, id))) = appended.records.first().copied() else { return Ok(Err("a new record was refused".into())) };
    if seq <= head || records.iter().any(|(known, record)| *known >= seq || record.id == id) {
        return Ok(Err(format!("number {seq} was given twice")));
    }
    if found.records.iter().any(|record| record.device == CUFF) {
        let again = store.append(at_once())?;
        if again.duplicates as usize != at_once().len() {
            return Ok(Err("what the cuff sends again is taken for new".into()));
        }
    }
    Ok(Ok(()))
}

fn open(dir: &Path) -> Result<(Store, WardStore), StoreError> {
    Ok((
        Store::open(dir, &DataKey::new(LOG_KEY), site_key(), GATEWAY)?,
        WardStore::open(&dir.join(bedrail::store::WARD_FILE), &DataKey::new(WARD_KEY))?,
    ))
}

/// All that the script writes, as it can be asked for. Ids are zeroed: a log draws its own; promises cover them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    records: Vec<Record>,
    lanes: Option<Lanes>,
    paused: Option<String>,
    held: Vec<Held>,
    bound: Vec<BoundRow>,
    dead: u64,
    tally: Vec<(String, u64)>,
    mark: Option<u64>,
    anchors: Vec<Anchor>,
    audit: Vec<AuditEntry>,
    events: Vec<WardEvent>,
    patients: Vec<(SubjectKey, bool)>,
}

/// The state, and the records under their numbers with their ids.
type Seen = (State, Vec<(Seq, Record)>);

fn look(store: &Store, ward: &WardStore) -> Result<Result<Seen, String>, StoreError> {
    let mut records = Vec::new();
    loop {
        let from = records.last().map_or(Seq(1), |(seq, _): &(Seq, Record)| seq.next());
        let more = store.read(from, OPEN, bedrail::store::READ_LIMIT)?;
        if more.is_empty() {
            break;
        }
        records.extend(more);
    }
    let Ok(audit) = store.verify_audit()? else { return Ok(Err("the audit chain is broken".into())) };
    let route = store.route(ROUTE)?;
    let mut state = State {
        records: records.iter().filter(|(_, record)| record.device != PROBE).map(|(_, record)| without_id(record)).collect(),
        mark: store.mark(MARK)?,
        anchors: store.anchors()?.iter().copied().collect(),
        audit,
        events: ward.events()?,
        patients: ward.patients()?.into_iter().map(|row| (row.key, row.identified)).collect(),
        ..State::default()
    };
    if let Some(route) = route {
        state.lanes = Some(store.lanes(route.n)?);
        state.paused = route.paused;
        state.held = store.held(route.n)?;
        state.bound = store.bound_now(route.n)?;
        state.dead = store.dead_count(route.n)?;
        state.tally = store.tally(route.n)?.into_iter().collect();
    }
    Ok(Ok((state, records)))
}

impl State {
    fn after(steps: &[Step]) -> Self {
        let mut state = Self::default();
        steps.iter().for_each(|step| state.model(*step));
        state
    }

    /// What is different, by name: a whole state does not fit a screen.
    fn difference(&self, found: &Self) -> String {
        format!(
            "records {} (want {}), lanes {:?} (want {:?}), paused {:?} (want {:?}), held {} (want {}), bound {} (want {}), \
             dead {} (want {}), tally {:?} (want {:?}), mark {:?} (want {:?}), anchors {} (want {}), audit {} (want {}), \
             events {} (want {}), patients {:?} (want {:?})",
            found.records.len(),
            self.records.len(),
            found.lanes,
            self.lanes,
            found.paused,
            self.paused,
            found.held.len(),
            self.held.len(),
            found.bound.len(),
            self.bound.len(),
            found.dead,
            self.dead,
            found.tally,
            self.tally,
            found.mark,
            self.mark,
            found.anchors.len(),
            self.anchors.len(),
            found.audit.len(),
            self.audit.len(),
            found.events.len(),
            self.events.len(),
            found.patients,
            self.patients,
        )
    }

    fn model(&mut self, step: Step) {
        self.records.extend(drafts(step).iter().map(|draft| Record {
            id: RecordId([0; 16]),
            version: if step == Step::AmendWindow { 2 } else { 1 },
            device: draft.device,
            stream: draft.stream,
            stamp: draft.stamp,
            body: draft.body.clone(),
        }));
        if let Some((_, value)) = mark(step) {
            self.mark = Some(value);
        }
        match step {
            Step::Register => {
                self.lanes = Some(Lanes { live: [(Seq(1), OPEN)].into_iter().collect(), backlog: Runs::default() });
            }
            Step::Anchor => self.anchors.push(anchor()),
            Step::Audit => self.audit.push(entry("assign")),
            Step::Pause => {
                self.audit.push(entry("route pause"));
                self.paused = Some("by hand".into());
            }
            Step::Assign => {
                self.events.push(ward_event());
                self.patients.push((subject(), false));
            }
            Step::Identify => self.patients = vec![(subject(), true)],
            _ => {}
        }
        let Some(change) = self.change(step) else { return };
        self.held.retain(|held| !change.release.contains(held));
        self.held.extend(change.hold);
        self.bound.extend(change.bind);
        self.dead += change.dead.len() as u64;
        for (what, n) in change.tally {
            match self.tally.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += n,
                None => self.tally.push((what, n)),
            }
        }
        self.tally.sort();
        self.lanes = Some(change.lanes);
    }

    /// What a step tells the store about the route, from what the route is now.
    fn change(&self, step: Step) -> Option<RouteChange> {
        let mut lanes = self.lanes.clone().unwrap_or_default();
        let sent = |n| [("sent".to_owned(), n)].into();
        match step {
            Step::Ack => {
                lanes.split_at(Seq(65));
                (1..=20).for_each(|seq| lanes.settle(Seq(seq)));
                Some(RouteChange { lanes, tally: sent(20), ..RouteChange::default() })
            }
            Step::Hold => {
                (21..=30).for_each(|seq| lanes.settle(Seq(seq)));
                Some(RouteChange { lanes, hold: vec![held(21, 10)], ..RouteChange::default() })
            }
            Step::Release => {
                lanes.backlog.insert(Seq(21), Seq(25));
                Some(RouteChange { lanes, release: vec![held(21, 10)], hold: vec![held(26, 5)], ..RouteChange::default() })
            }
            Step::Bind => {
                (21..=22).for_each(|seq| lanes.settle(Seq(seq)));
                Some(RouteChange { lanes, bind: vec![bound()], tally: sent(2), ..RouteChange::default() })
            }
            Step::Refuse => {
                lanes.settle(Seq(23));
                let dead = DeadRow {
                    seq: Seq(23),
                    record: self.records.get(22)?.clone(),
                    reason: "payload".into(),
                    detail: "refused".into(),
                };
                Some(RouteChange { lanes, dead: vec![dead], ..RouteChange::default() })
            }
            _ => None,
        }
    }
}

struct Exerciser<'a> {
    dir: &'a Path,
    open: Option<(Store, WardStore)>,
    route: i64,
    model: State,
}

impl Exerciser<'_> {
    fn perform(&mut self, step: Step) -> Result<Promise, StoreError> {
        let change = self.model.change(step);
        let drafts = drafts(step);
        let mut minted = Vec::new();
        match step {
            Step::Prepare => drop(prepare(self.dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY))?),
            Step::Open => self.open = Some(open(self.dir)?),
            Step::Reopen => {
                self.open = None;
                prepare(self.dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY))?;
                self.open = Some(open(self.dir)?);
            }
            Step::Close => self.open = None,
            Step::Checkpoint => checkpoint(self.dir)?,
            _ => {
                let (store, ward) = self.open.as_mut().expect("the script opens first");
                match step {
                    Step::Register => self.route = store.register_routes(&[(ROUTE, "mqtt", true)], 0)?[0].n,
                    Step::Anchor => store.add_anchor(&anchor())?,
                    Step::Audit => store.audit(&entry("assign"))?,
                    Step::Pause => store.set_paused(self.route, Some("by hand"), &entry("route pause"))?,
                    Step::Assign => {
                        let WardEvent { at, learned, source, operator, change, .. } = ward_event();
                        ward.append(vec![(at, learned, source, operator, change)])?;
                    }
                    Step::Identify => ward.set_identity(&subject(), &Phi::new(b"a name".to_vec()))?,
                    _ => {
                        if let Some(change) = &change {
                            store.apply(self.route, change)?;
                        }
                        if !drafts.is_empty() {
                            let marks: Vec<(&str, u64)> = mark(step).into_iter().collect();
                            minted = store.append_and_mark(drafts.clone(), &marks)?.records;
                        }
                    }
                }
            }
        }
        let known = self.model.records.len();
        self.model.model(step);
        let minted: Vec<(Seq, RecordId)> = minted.into_iter().flatten().collect();
        let records = self.model.records[known..].iter().zip(&minted);
        let records: Vec<Record> = records.map(|(record, (_, id))| Record { id: *id, ..record.clone() }).collect();
        Ok(Promise {
            step,
            first: minted.first().map_or(1, |(seq, _)| seq.0),
            last: minted.last().map_or(0, |(seq, _)| seq.0),
            digest: digest_of(records.iter()),
        })
    }
}

/// What SQLite does by itself every thousand pages, made to happen here: the log is written back while the store is open,
/// and the next commit begins it anew over the old frames.
fn checkpoint(dir: &Path) -> Result<(), StoreError> {
    let connection = rusqlite::Connection::open(dir.join(bedrail::store::LOG_FILE))?;
    connection.pragma_update(None, "key", format!("x'{}'", bedrail::store::key::hex(&LOG_KEY)))?;
    connection.pragma_update(None, "cipher_page_size", 1_024)?;
    let (busy, all, done): (i64, i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    assert!(busy == 0 && all == done && all > 0, "the checkpoint left something: {busy} {all} {done}");
    Ok(())
}

fn drafts(step: Step) -> Vec<Draft> {
    match step {
        Step::CommitOne => vec![arrival(STRAP, 1)],
        Step::CommitBurst => (2..66).map(|n| arrival(STRAP, n)).collect(),
        Step::CommitAtOnce => at_once(),
        Step::Windows => vec![window(0), window(60_000)],
        Step::CommitOverOldLog => (100..108).map(|n| arrival(STRAP, n)).collect(),
        Step::AmendWindow => vec![window(0)],
        Step::CommitAfterReopen => vec![arrival(STRAP, 200)],
        _ => Vec::new(),
    }
}

const fn mark(step: Step) -> Option<(&'static str, u64)> {
    match step {
        Step::Windows => Some((MARK, 120_000)),
        Step::AmendWindow => Some((MARK, 180_000)),
        _ => None,
    }
}

fn arrival(device: DeviceId, n: i64) -> Draft {
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
    }
}

/// Two values a cuff indicates once and may be asked for again.
fn at_once() -> Vec<Draft> {
    (1..=2u8)
        .map(|n| {
            let id = site_key().sent_id(CUFF, None, 0x2A35, Some(n.into()), Some(b"base"), Metric::PulseRateCuff, 0);
            let identity = Identity::Sent { id, digest: [n; 8], conflict: site_key().conflict_id(id, &[n]) };
            Draft { identity, ..arrival(CUFF, n.into()) }
        })
        .collect()
}

fn window(start: i64) -> Draft {
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

fn stream(device: DeviceId) -> StreamKey {
    StreamKey { device, user: None, metric: Metric::PulseRateCuff, site: None, modality: Modality::Spot }
}

fn held(first: u64, count: u64) -> Held {
    let (first, last) = (Seq(first), Seq(first + count - 1));
    Held { device: STRAP, stream: Some(stream(STRAP)), reason: HoldReason::NoAssignment, first, last, count }
}

fn bound() -> BoundRow {
    BoundRow {
        stream: stream(STRAP),
        first: Seq(21),
        subject: Some(subject()),
        rule: "pair".into(),
        evidence: vec![1],
        placement: site_key().placement(Some(&subject()), 0),
    }
}

fn anchor() -> Anchor {
    Anchor { boot: BOOT, at: BootMillis(70), wall: Timestamp(1_700_000_000_000), quality: ClockQuality::Ntp, uncertainty_ms: 5 }
}

fn entry(action: &str) -> AuditEntry {
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

fn ward_event() -> WardEvent {
    WardEvent {
        n: 1,
        at: Timestamp(1_700_000_000_000),
        learned: Timestamp(1_700_000_000_001),
        source: EventSource::Command,
        operator: "root".into(),
        change: Change::Pair { device: STRAP, user: None, subject: subject() },
    }
}

fn subject() -> SubjectKey {
    "p-017".parse().expect("a key")
}

fn without_id(record: &Record) -> Record {
    Record { id: RecordId([0; 16]), ..record.clone() }
}

fn digest_of<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    records.for_each(|record| context.update(&postcard::to_stdvec(record).expect("a record is plain data")));
    bedrail::store::key::hex(&context.finish().as_ref()[..16])
}
