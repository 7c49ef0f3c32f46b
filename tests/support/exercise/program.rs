//! What each step does to a real store.

use std::path::Path;

use bedrail::reading::{Record, RecordId, Seq};
use bedrail::store::key::DataKey;
use bedrail::store::retention::{Candidate, plan};
use bedrail::store::{Store, StoreError, WardStore, prepare};
use bedrail::ward::{Phi, WardEvent};

use super::promise::digest_of;
use super::state::{State, look};
use super::values::*;
use super::{Promise, Step, open};

pub struct Exerciser<'a> {
    dir: &'a Path,
    open: Option<(Store, WardStore)>,
    route: i64,
    model: State,
}

impl<'a> Exerciser<'a> {
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, open: None, route: 0, model: State::default() }
    }

    pub fn perform(&mut self, step: Step) -> Result<Promise, StoreError> {
        let change = self.model.change(step);
        let drafts = drafts(step);
        let mut minted = Vec::new();
        match step {
            Step::Prepare => drop(prepare(self.dir, &DataKey::new(LOG_KEY), &DataKey::new(WARD_KEY))?),
            Step::Open => self.open()?,
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
                    Step::Evict => evict(store)?,
                    _ => {
                        if let Some(change) = &change {
                            store.apply(self.route, change)?;
                        }
                        if !drafts.is_empty() {
                            let marks: Vec<(&str, u64)> = mark(step).into_iter().collect();
                            minted = store.append_and_mark(drafts, &marks)?.records;
                        }
                    }
                }
            }
        }
        self.model.model(step);
        Ok(self.promise(step, &minted.into_iter().flatten().collect::<Vec<_>>()))
    }

    /// A program knows what it reads when it opens, and no more.
    fn open(&mut self) -> Result<(), StoreError> {
        let (store, ward) = self.open.insert(open(self.dir)?);
        self.route = store.routes()?.first().map_or(0, |route| route.n);
        (self.model, _) = look(store, ward)?.expect("it holds together when the script begins");
        Ok(())
    }

    fn promise(&self, step: Step, minted: &[(Seq, RecordId)]) -> Promise {
        let record = |(seq, id): &(Seq, RecordId)| {
            let (_, record) =
                self.model.records.iter().find(|(known, _)| known == seq).expect("the model gives the same numbers");
            Record { id: *id, ..record.clone() }
        };
        let records: Vec<Record> = minted.iter().map(record).collect();
        Promise {
            step,
            first: minted.first().map_or(Seq(1), |(seq, _)| *seq),
            last: minted.last().map_or(Seq(0), |(seq, _)| *seq),
            digest: digest_of(records.iter()),
        }
    }
}

/// What SQLite does by itself every thousand pages, made to happen here: the log is written back while the store is open,
/// and the next commit begins it anew over the old frames.
fn checkpoint(dir: &Path) -> Result<(), StoreError> {
    let connection = rusqlite::Connection::open(dir.join(bedrail::store::LOG_FILE))?;
    connection.pragma_update(None, "key", format!("x'{}'", bedrail::hex::encode(&LOG_KEY)))?;
    connection.pragma_update(None, "cipher_page_size", 1_024)?;
    let (busy, all, done): (i64, i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    assert!(busy == 0 && all == done && all > 0, "the checkpoint left something: {busy} {all} {done}");
    Ok(())
}

/// One round of retention that needs as much room as the frames up to [`EVICTED_TO`] take.
fn evict(store: &mut Store) -> Result<(), StoreError> {
    let (anchors, now) = (store.anchors()?, Some(NOW));
    let (head, open) = (store.head()?, store.open_runs(now)?);
    let frames = store.frames(&anchors, Seq(1), usize::MAX >> 1)?;
    let need = frames.iter().filter(|frame| frame.last() <= EVICTED_TO).map(|frame| frame.octets).sum();
    let candidate = |frame| -> Result<Candidate, StoreError> {
        let frame: bedrail::store::retention::Frame = frame;
        Ok(Candidate { worth: store.worth(frame.first, |_| false)?, frame })
    };
    let candidates: Vec<Candidate> = frames.into_iter().map(candidate).collect::<Result<_, _>>()?;
    store.evict(&plan(&candidates, head, &open, &RULE, need), now, arrival(STRAP, 90).stamp)?;
    Ok(())
}
