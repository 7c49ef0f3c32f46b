//! What a store holds, as it can be asked for, and the plain model of it.

use bedrail::reading::*;
use bedrail::store::{AuditEntry, BoundRow, DeadRow, Held, Lanes, OPEN, RouteChange, Runs, Store, StoreError, WardStore};
use bedrail::ward::WardEvent;

use super::Step;
use super::values::*;

/// All that the script writes, as it can be asked for. Ids are zeroed: a log draws its own; promises cover them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub records: Vec<Record>,
    pub lanes: Option<Lanes>,
    pub paused: Option<String>,
    pub held: Vec<Held>,
    pub bound: Vec<BoundRow>,
    pub dead: u64,
    pub tally: Vec<(String, u64)>,
    pub mark: Option<u64>,
    pub anchors: Vec<Anchor>,
    pub audit: Vec<AuditEntry>,
    pub events: Vec<WardEvent>,
    pub patients: Vec<(SubjectKey, bool)>,
}

/// The state, and the records under their numbers with their ids.
type Seen = (State, Vec<(Seq, Record)>);

pub fn look(store: &Store, ward: &WardStore) -> Result<Result<Seen, String>, StoreError> {
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
    pub fn after(steps: &[Step]) -> Self {
        let mut state = Self::default();
        steps.iter().for_each(|step| state.model(*step));
        state
    }

    /// What is different, by name: a whole state does not fit a screen.
    pub fn difference(&self, found: &Self) -> String {
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

    pub fn model(&mut self, step: Step) {
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
    pub fn change(&self, step: Step) -> Option<RouteChange> {
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

fn without_id(record: &Record) -> Record {
    Record { id: RecordId([0; 16]), ..record.clone() }
}
