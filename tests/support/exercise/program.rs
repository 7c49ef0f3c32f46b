//! What each step does to a real store.

use std::path::Path;

use bedrail::reading::{Record, RecordId, Seq};
use bedrail::store::key::DataKey;
use bedrail::store::{Store, StoreError, WardStore, prepare};
use bedrail::ward::{Phi, WardEvent};

use super::state::State;
use super::values::*;
use super::{Promise, Step, digest_of, open};

pub struct Exerciser<'a> {
    pub dir: &'a Path,
    pub open: Option<(Store, WardStore)>,
    pub route: i64,
    pub model: State,
}

impl Exerciser<'_> {
    pub fn perform(&mut self, step: Step) -> Result<Promise, StoreError> {
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
    let (busy, all, done): (i64, i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    assert!(busy == 0 && all == done && all > 0, "the checkpoint left something: {busy} {all} {done}");
    Ok(())
}
