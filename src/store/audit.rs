//! The audit trail: append-only rows, each chained to the one before by a keyed hash, so that a changed, removed or
//! re-ordered row is named by [`verify`].

use rusqlite::{Connection, OptionalExtension as _, params};

use super::StoreError;
use crate::reading::{BootId, BootMillis, SiteKey, Timestamp};

/// Who did what to which thing. Patients appear by their opaque key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub boot: BootId,
    pub at: BootMillis,
    pub wall: Option<Timestamp>,
    /// A local user, or "bedrail".
    pub actor: String,
    /// A verb of the command line: `assign`, `route pause`, …
    pub action: String,
    pub object: String,
    pub detail: String,
}

/// Appends within the caller's transaction: what is audited and its trace stand or fall together.
pub(super) fn audit(connection: &Connection, key: &SiteKey, entry: &AuditEntry) -> Result<(), StoreError> {
    let last: Option<(i64, [u8; 32])> = connection
        .query_row("SELECT n, link FROM audit ORDER BY n DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (n, previous) = last.unwrap_or((0, [0; 32]));
    let link = key.audit_link(&previous, &canonical(n + 1, entry));
    connection.execute(
        "INSERT INTO audit VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            n + 1,
            entry.boot.0,
            entry.at.0 as i64,
            entry.wall.map(|wall| wall.0),
            entry.actor,
            entry.action,
            entry.object,
            entry.detail,
            link
        ],
    )?;
    Ok(())
}

/// The rows in order, up to the first that does not continue the chain, whose number is the error.
pub(super) fn verify(connection: &Connection, key: &SiteKey) -> Result<Result<Vec<AuditEntry>, i64>, StoreError> {
    let mut statement =
        connection.prepare("SELECT n, link, boot, at, wall, actor, action, object, detail FROM audit ORDER BY n")?;
    let mut rows = statement.query([])?;
    let (mut entries, mut previous, mut expected) = (Vec::new(), [0; 32], 1);
    while let Some(row) = rows.next()? {
        let (n, link): (i64, [u8; 32]) = (row.get(0)?, row.get(1)?);
        let entry = AuditEntry {
            boot: BootId(row.get(2)?),
            at: BootMillis(row.get::<_, i64>(3)? as u64),
            wall: row.get::<_, Option<i64>>(4)?.map(Timestamp),
            actor: row.get(5)?,
            action: row.get(6)?,
            object: row.get(7)?,
            detail: row.get(8)?,
        };
        if n != expected || link != key.audit_link(&previous, &canonical(n, &entry)) {
            return Ok(Err(expected));
        }
        entries.push(entry);
        (previous, expected) = (link, n + 1);
    }
    Ok(Ok(entries))
}

fn canonical(n: i64, entry: &AuditEntry) -> Vec<u8> {
    let fields = (
        n,
        entry.boot,
        entry.at,
        entry.wall,
        entry.actor.as_str(),
        entry.action.as_str(),
        entry.object.as_str(),
        entry.detail.as_str(),
    );
    postcard::to_stdvec(&fields).expect("an audit row is plain data")
}
