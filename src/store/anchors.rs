//! Clock anchors: appended when the clock is first known, gets better or is stepped; nothing else is rewritten.

use rusqlite::{Connection, params};

use super::StoreError;
use crate::reading::{Anchor, Anchors, BootId, BootMillis, ClockQuality, Timestamp};

pub(super) fn add(connection: &Connection, anchor: &Anchor) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR REPLACE INTO anchor VALUES(?, ?, ?, ?, ?)",
        params![anchor.boot.0, anchor.at.0 as i64, anchor.wall.0, quality_number(anchor.quality), anchor.uncertainty_ms],
    )?;
    Ok(())
}

pub(super) fn all(connection: &Connection) -> Result<Anchors, StoreError> {
    let mut statement = connection.prepare_cached("SELECT boot, at, wall, quality, uncertainty_ms FROM anchor")?;
    let anchors = statement.query_map([], |row| {
        Ok(Anchor {
            boot: BootId(row.get(0)?),
            at: BootMillis(row.get::<_, i64>(1)? as u64),
            wall: Timestamp(row.get(2)?),
            quality: quality(row.get(3)?),
            uncertainty_ms: row.get(4)?,
        })
    })?;
    Ok(Anchors::new(anchors.collect::<Result<_, _>>()?))
}

const fn quality_number(quality: ClockQuality) -> i64 {
    match quality {
        ClockQuality::Unsynced => 0,
        ClockQuality::Rtc => 1,
        ClockQuality::Ntp => 2,
    }
}

const fn quality(number: i64) -> ClockQuality {
    match number {
        1 => ClockQuality::Rtc,
        2 => ClockQuality::Ntp,
        _ => ClockQuality::Unsynced,
    }
}
