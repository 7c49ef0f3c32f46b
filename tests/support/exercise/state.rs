//! What a store holds, as it can be asked for, and the plain model of it.

use std::collections::BTreeMap;

use bedrail::reading::*;
use bedrail::store::{
    AuditEntry, BoundRow, Damage, DeadRow, EVICTIONS, Held, Lanes, OPEN, READ_LIMIT, RouteChange, Runs, Store, StoreError,
    WardStore,
};
use bedrail::ward::WardEvent;

use super::values::*;
use super::{Seen, Step};

/// Ids are zeroed: a log draws its own; promises cover them. What the checks themselves appended is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub records: Vec<(Seq, Record)>,
    pub route: Option<String>,
    pub lanes: Lanes,
    pub paused: Option<String>,
    pub held: Vec<Held>,
    pub bound: Vec<BoundRow>,
    pub dead: u64,
    pub tally: BTreeMap<String, u64>,
    pub mark: Option<u64>,
    pub evictions: Option<u64>,
    pub anchors: Vec<Anchor>,
    pub audit: Vec<AuditEntry>,
    /// What was salvaged, without the time.
    pub damage: Vec<Damage>,
    pub events: Vec<WardEvent>,
    pub patients: Vec<(SubjectKey, bool)>,
    pub ward_is_incomplete: bool,
}

/// The state, and all records under their numbers with their ids.
pub fn look(store: &Store, ward: &WardStore) -> Result<Result<Seen, String>, StoreError> {
    let mut records = Vec::new();
    loop {
        let from = records.last().map_or(Seq(1), |(seq, _): &(Seq, Record)| seq.next());
        let more = store.read(from, OPEN, READ_LIMIT)?;
        if more.is_empty() {
            break;
        }
        records.extend(more);
    }
    let Ok(audit) = store.verify_audit()? else { return Ok(Err("the audit chain is broken".into())) };
    let of_script = records.iter().filter(|(_, record)| record.device != PROBE);
    let mut state = State {
        records: of_script.map(|(seq, record)| (*seq, without_id(record))).collect(),
        mark: store.mark(MARK)?,
        evictions: store.mark(EVICTIONS)?,
        anchors: store.anchors()?.iter().copied().collect(),
        audit,
        damage: store.damage()?.into_iter().map(|damage| Damage { at: String::new(), ..damage }).collect(),
        events: ward.events()?,
        patients: ward.patients()?.into_iter().map(|row| (row.key, row.identified)).collect(),
        ward_is_incomplete: ward.is_incomplete()?,
        ..State::default()
    };
    for route in store.routes()? {
        if state.route.replace(route.name).is_some() {
            return Ok(Err("there are two routes".into()));
        }
        state.lanes = store.lanes(route.n)?;
        state.paused = route.paused;
        state.held = store.held(route.n)?;
        state.bound = store.bound(route.n)?;
        state.dead = store.dead_count(route.n)?;
        state.tally = store.tally(route.n)?;
    }
    Ok(Ok((state, records)))
}

impl State {
    pub fn after(&self, steps: &[Step]) -> Self {
        let mut state = self.clone();
        steps.iter().for_each(|step| state.model(*step));
        state
    }

    pub fn holds(&self, seq: Seq) -> bool {
        self.records.iter().any(|(known, _)| *known == seq)
    }

    /// What is different, by name: a whole state does not fit a screen.
    pub fn difference(&self, found: &Self) -> String {
        let mut words = Vec::new();
        let mut compare = |name: &str, want: String, found: String| {
            if want != found {
                words.push(format!("{name} {found} (want {want})"));
            }
        };
        macro_rules! compare {
            ($($field:ident),+) => { $(compare(stringify!($field), format!("{:?}", self.$field), format!("{:?}", found.$field));)+ };
        }
        let numbers = |state: &Self| format!("{:?}", state.records.iter().map(|(seq, _)| (*seq, *seq)).collect::<Runs>());
        compare("record numbers", numbers(self), numbers(found));
        if self.records.len() == found.records.len() {
            let other = self.records.iter().zip(&found.records).find(|(want, found)| want != found);
            compare("a record", format!("{:?}", other.map(|(want, _)| want)), format!("{:?}", other.map(|(_, found)| found)));
        }
        compare!(route, lanes, paused, held, bound, dead, tally, mark, evictions, anchors, damage, patients, ward_is_incomplete);
        compare("audit", self.audit.len().to_string(), found.audit.len().to_string());
        compare("events", self.events.len().to_string(), found.events.len().to_string());
        words.join(", ")
    }

    pub fn model(&mut self, step: Step) {
        for draft in drafts(step) {
            let version = if step == Step::AmendWindow { 2 } else { 1 };
            self.append(version, draft.device, draft.stream, draft.stamp, draft.body);
        }
        if let Some((_, value)) = mark(step) {
            self.mark = Some(value);
        }
        match step {
            Step::Register => {
                self.route = Some(ROUTE.into());
                self.lanes = Lanes { live: [(Seq(1), OPEN)].into_iter().collect(), backlog: Runs::default() };
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
            Step::Evict => self.evict(),
            _ => {}
        }
        let Some(change) = self.change(step) else { return };
        self.held.retain(|held| !change.release.contains(held));
        self.held.extend(change.hold);
        self.bound.extend(change.bind);
        self.dead += change.dead.len() as u64;
        for (what, n) in change.tally {
            *self.tally.entry(what).or_default() += n;
        }
        self.lanes = change.lanes;
    }

    /// What a step tells the store about the route, from what the route is now.
    pub fn change(&self, step: Step) -> Option<RouteChange> {
        let mut lanes = self.lanes.clone();
        let tally = |what: &str, n| [(what.to_owned(), n)].into();
        match step {
            Step::Ack => {
                lanes.split_at(Seq(65));
                (1..=20).for_each(|seq| lanes.settle(Seq(seq)));
                Some(RouteChange { lanes, tally: tally("sent", 20), ..RouteChange::default() })
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
                Some(RouteChange { lanes, bind: vec![bound()], tally: tally("sent", 2), ..RouteChange::default() })
            }
            Step::Refuse => {
                lanes.settle(Seq(23));
                let (_, record) = self.records.get(22)?.clone();
                let dead = DeadRow { seq: Seq(23), record, reason: "payload".into(), detail: "refused".into(), since: None };
                Some(RouteChange { lanes, dead: vec![dead], ..RouteChange::default() })
            }
            Step::SettleEvicted => {
                let gone = (1..=EVICTED_TO.0).map(Seq).filter(|seq| lanes.live.contains(*seq) || lanes.backlog.contains(*seq));
                let gone: Vec<Seq> = gone.collect();
                gone.iter().for_each(|seq| lanes.settle(*seq));
                let release: Vec<Held> = self.held.iter().filter(|held| held.last <= EVICTED_TO).copied().collect();
                let count = gone.len() as u64 + release.iter().map(|held| held.count).sum::<u64>();
                Some(RouteChange { lanes, release, tally: tally("evicted", count), ..RouteChange::default() })
            }
            Step::Deliver => {
                for _ in 0..5 {
                    let next = [&lanes.backlog, &lanes.live].into_iter().filter_map(|lane| lane.next_from(Seq(1))).min()?;
                    lanes.settle(next);
                }
                Some(RouteChange { lanes, tally: tally("sent", 5), ..RouteChange::default() })
            }
            _ => None,
        }
    }

    /// What goes is counted for who owed it, by source; of what nobody owed it is said that it can't be corrected any more.
    fn evict(&mut self) {
        let owed = |seq: Seq, record: &Record| {
            let held = |held: &Held| held.first <= seq && seq <= held.last && held.stream == record.stream;
            self.lanes.live.contains(seq) || self.lanes.backlog.contains(seq) || self.held.iter().any(held)
        };
        let mut gaps: BTreeMap<(DeviceId, Option<StreamKey>), Gap> = BTreeMap::new();
        let mut first = Seq(1);
        for frame in [Step::CommitOne, Step::CommitBurst, Step::CommitAtOnce, Step::Windows].map(drafts) {
            let last = Seq(first.0 + frame.len() as u64 - 1);
            let arrived = frame.iter().map(|draft| wall(draft.stamp.arrived)).max();
            let records = || self.records.iter().filter(|(seq, _)| first <= *seq && *seq <= last);
            let unsettled: Vec<_> = records().filter(|(seq, record)| owed(*seq, record)).collect();
            let gap = |reason, seq: (Seq, Seq), count| Gap {
                reason,
                run: Some(seq),
                from: arrived,
                to: arrived,
                count,
                routes: vec![],
            };
            if unsettled.is_empty() {
                gaps.insert((DeviceId::GATEWAY, None), gap(GapReason::CorrectionHorizon, (first, last), frame.len() as u64));
            }
            for (seq, record) in unsettled {
                let new = || Gap { routes: vec![ROUTE.into()], ..gap(GapReason::Evicted, (*seq, *seq), 0) };
                let known = gaps.entry((record.device, record.stream)).or_insert_with(new);
                known.run = known.run.map(|(first, last)| (first.min(*seq), last.max(*seq)));
                (known.from, known.to) = (known.from.min(arrived), known.to.max(arrived));
                known.count += 1;
            }
            first = last.next();
        }
        self.records.retain(|(seq, _)| *seq > EVICTED_TO);
        for ((device, stream), gap) in gaps {
            self.append(1, device, stream, arrival(STRAP, 90).stamp, Body::Gap(gap));
        }
        self.evictions = Some(self.evictions.unwrap_or(0) + 1);
    }

    fn append(&mut self, version: u32, device: DeviceId, stream: Option<StreamKey>, stamp: Stamp, body: Body) {
        let seq = self.records.last().map_or(Seq(1), |(last, _)| last.next());
        self.records.push((seq, Record { id: RecordId([0; 16]), version, device, stream, stamp, body, nameplate: None }));
    }
}

pub fn without_id(record: &Record) -> Record {
    Record { id: RecordId([0; 16]), ..record.clone() }
}
