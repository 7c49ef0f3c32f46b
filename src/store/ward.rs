//! `ward.db`: the ward's events and who the patients are. Only the deliver half opens it, under its own key.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::key::DataKey;
use super::lock::{self, StoreLock};
use super::{StoreError, WARD_FILE, damage, db, schema};
use crate::reading::{SubjectKey, Timestamp};
use crate::ward::{Change, EventSource, Phi, WardEvent};

pub struct WardStore {
    connection: Connection,
    /// As in [`super::Store`].
    _shared: StoreLock,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientRow {
    pub key: SubjectKey,
    pub test: bool,
    /// Identifiers are on file.
    pub identified: bool,
    pub forgotten: bool,
}

impl WardStore {
    pub fn open(path: &Path, key: &DataKey) -> Result<Self, StoreError> {
        let _shared = lock::shared_of(path)?;
        let connection = db::open(path, key)?;
        schema::check(&connection, path)?;
        // What identified somebody is overwritten where it is replaced or deleted, not only unlinked.
        connection.pragma_update(None, "secure_delete", "ON")?;
        Ok(Self { connection, _shared })
    }

    /// As [`super::Store::begin_log_anew`].
    pub fn begin_log_anew(&self) -> Result<(), StoreError> {
        db::begin_log_anew(&self.connection, Path::new(WARD_FILE))
    }

    /// Events were lost to damage, and no route has been paused for it yet.
    pub fn is_incomplete(&self) -> Result<bool, StoreError> {
        damage::ward_is_incomplete(&self.connection)
    }

    /// The routes that bind to patients are paused; a person resumes them.
    pub fn is_seen_to(&mut self) -> Result<(), StoreError> {
        damage::ward_is_seen_to(&self.connection)
    }

    pub fn events(&self) -> Result<Vec<WardEvent>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT n, at, learned, source, operator, change FROM event ORDER BY n")?;
        let mut rows = statement.query([])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let n: i64 = row.get(0)?;
            let bad = |_| StoreError::Refused(format!("ward event {n} does not decode"));
            let (source, change): (String, String) = (row.get(3)?, row.get(5)?);
            events.push(WardEvent {
                n: n as u64,
                at: Timestamp(row.get(1)?),
                learned: Timestamp(row.get(2)?),
                source: serde_json::from_value::<EventSource>(source.into()).map_err(bad)?,
                operator: row.get(4)?,
                change: serde_json::from_str::<Change>(&change).map_err(bad)?,
            });
        }
        Ok(events)
    }

    /// Appends events in one transaction and returns them with their numbers. A patient first named here is known from now on.
    pub fn append(
        &mut self,
        events: Vec<(Timestamp, Timestamp, EventSource, String, Change)>,
    ) -> Result<Vec<WardEvent>, StoreError> {
        let tx = db::begin(&mut self.connection)?;
        let mut numbered = Vec::with_capacity(events.len());
        for (at, learned, source, operator, change) in events {
            for subject in change.subjects() {
                tx.execute("INSERT OR IGNORE INTO patient VALUES(?, 0, 0)", [subject.as_str()])?;
            }
            let source_name = serde_json::to_value(source).expect("a source is a word");
            tx.execute(
                "INSERT INTO event(at, learned, source, operator, change) VALUES(?, ?, ?, ?, ?)",
                params![
                    at.0,
                    learned.0,
                    source_name.as_str(),
                    operator,
                    serde_json::to_string(&change).expect("a change is plain data")
                ],
            )?;
            numbered.push(WardEvent { n: tx.last_insert_rowid() as u64, at, learned, source, operator, change });
        }
        tx.commit()?;
        Ok(numbered)
    }

    /// When a list of the whole ward was last read.
    pub fn last_census(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE name = 'census'")?;
        let value: Option<[u8; 8]> = statement.query_row([], |row| row.get(0)).optional()?;
        Ok(value.map(|octets| Timestamp(i64::from_be_bytes(octets))))
    }

    pub fn census_was_read(&mut self, at: Timestamp) -> Result<(), StoreError> {
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES('census', ?)", [at.0.to_be_bytes()])?;
        Ok(())
    }

    pub fn patients(&self) -> Result<Vec<PatientRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT patient.key, test, identity.key IS NOT NULL, forgotten FROM patient LEFT JOIN identity USING(key) ORDER BY 1",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.map(|row| {
            let (key, test, identified, forgotten) = row?;
            let key = key.parse().map_err(|_| StoreError::Refused("a patient key on file is not one".into()))?;
            Ok(PatientRow { key, test, identified, forgotten })
        })
        .collect()
    }

    pub fn know_patient(&mut self, key: &SubjectKey, test: bool) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO patient VALUES(?, ?, 0) ON CONFLICT DO UPDATE SET test = excluded.test",
            params![key.as_str(), test],
        )?;
        Ok(())
    }

    /// Keeps a patient's identifiers, replacing what was there.
    pub fn set_identity(&mut self, key: &SubjectKey, document: &Phi<Vec<u8>>) -> Result<(), StoreError> {
        let tx = db::begin(&mut self.connection)?;
        tx.execute("INSERT INTO patient VALUES(?, 0, 0) ON CONFLICT DO UPDATE SET forgotten = 0", [key.as_str()])?;
        tx.execute("INSERT OR REPLACE INTO identity VALUES(?, ?)", params![key.as_str(), document.expose()])?;
        tx.commit()?;
        Ok(())
    }

    pub fn identity(&self, key: &SubjectKey) -> Result<Option<Phi<Vec<u8>>>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT document FROM identity WHERE key = ?")?;
        Ok(statement.query_row([key.as_str()], |row| row.get(0)).optional()?.map(Phi::new))
    }

    /// Deletes the identifiers and marks the key; the log of writes does not keep them either. `false`: nobody of that key.
    pub fn forget(&mut self, key: &SubjectKey) -> Result<bool, StoreError> {
        let tx = db::begin(&mut self.connection)?;
        let known = tx.execute("UPDATE patient SET forgotten = 1 WHERE key = ?", [key.as_str()])? > 0;
        tx.execute("DELETE FROM identity WHERE key = ?", [key.as_str()])?;
        tx.commit()?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(known)
    }
}
