//! What goes on the card: drafts in group commits, oldest first, windows and bonds, and the log kept within its limits; and
//! what is done when the disk does not take it.

use tokio::time::Instant;

use super::{CollectError, Collector};
use crate::collect::numbers::numbered;
use crate::collect::trouble::{Reaction, Trouble, decide};
use crate::collect::{DiskState, bonds};
use crate::reading::DeviceTime;
use crate::store::{Draft, MAX_RECORDS, StoreError};

/// Retention is looked at this often, in ticks; while it has more to do, at every one.
const RETAIN_EVERY: u32 = 10;
/// Drafts in one commit at most, gaps not counted.
pub(super) const COMMIT: usize = MAX_RECORDS / 2;
/// Twice what the write-ahead log may hold before SQLite writes it back by itself.
const WRITE_BACK_BELOW: u64 = 8 << 20;
/// Written after trouble.
const PROBE: &str = "writable";

impl Collector {
    /// Puts everything that waits on the card, oldest first.
    pub(super) fn commit(&mut self) -> Result<(), CollectError> {
        (self.due, self.written_back) = (None, false);
        while !self.ring.is_empty() || self.trouble.is_some() {
            if !self.commit_some()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `false`: the disk does not take it now; it is tried again later.
    fn commit_some(&mut self) -> Result<bool, CollectError> {
        let now = self.stamp();
        let mut drafts = self.ring.front(COMMIT);
        let taken = drafts.len();
        let sources: Vec<_> = drafts.iter().map(|draft| (draft.device, self.numbered(draft))).collect();
        if let Some(trouble) = &self.trouble {
            drafts.extend(self.ring.gaps(trouble.gap_reason(), now, &self.anchors));
        }
        // With nothing to append, a mark shows whether the disk takes writes again.
        // A counter is durable with the values it stands for, and not before; only what is all of it makes true that all was told.
        let all = taken == self.ring.len();
        let counters = if all { self.adverts.moved() } else { vec![] };
        let numbers = if all { self.numbers.marks(drafts.iter().filter(|draft| self.is_admitted(draft))) } else { vec![] };
        let marked = !numbers.is_empty();
        let probe = self.trouble.is_some().then(|| (PROBE.to_owned(), now.arrived.0));
        let marks: Vec<(String, u64)> = self.clocks.marks().chain(counters).chain(numbers).chain(probe).collect();
        let marks: Vec<(&str, u64)> = marks.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let appended = match self.store.append_and_mark(drafts, &marks) {
            Ok(appended) => appended,
            Err(error) => return self.failed(error),
        };
        self.ring.written(taken);
        if self.ring.is_empty() {
            self.adverts.kept();
        }
        self.clocks.written();
        let numbered =
            sources.iter().filter_map(|(device, numbered)| numbered.map(|(session, number)| (*device, session, number)));
        self.numbers.written(numbered, marked);
        self.recovered()?;
        self.write_back_while_there_is_room()?;
        self.status.commits += 1;
        for (record, (source, _)) in appended.records.iter().zip(sources) {
            match record {
                Some(_) => self.status.durable += 1,
                None => self.device(source).into_iter().for_each(|device| device.duplicates += 1),
            }
        }
        if appended.records.iter().any(Option::is_some) {
            (self.bell)();
        }
        Ok(true)
    }

    /// The number the device gave it. Those of another device under its address say nothing of what it has told.
    fn numbered(&self, draft: &Draft) -> Option<(Option<DeviceTime>, u32)> {
        numbered(draft).filter(|_| self.is_admitted(draft))
    }

    fn is_admitted(&self, draft: &Draft) -> bool {
        let place = self.places.get(&draft.device);
        place.is_some_and(|place| self.settings.devices[*place].nameplate.admits(draft.nameplate.as_ref()))
    }

    /// On the last of a disk the write-ahead log is not let grow: one that can't be written back for want of room leaves none
    /// to delete in either.
    fn write_back_while_there_is_room(&mut self) -> Result<(), CollectError> {
        if self.retain.disk().free >= WRITE_BACK_BELOW {
            return Ok(());
        }
        match self.store.checkpoint() {
            Err(error) if decide(&error) == Reaction::End => Err(error.into()),
            // What is committed is durable where it is.
            _ => Ok(()),
        }
    }

    /// A write failed: what it means is decided in [`decide`]. `true`: there may be room now.
    fn failed(&mut self, error: StoreError) -> Result<bool, CollectError> {
        let reaction = decide(&error);
        if reaction == Reaction::End {
            return Err(error.into());
        }
        if reaction == Reaction::MakeRoom && self.ballast.free() {
            tracing::warn!("the disk is full: the ballast is given away");
            return Ok(true);
        }
        if reaction == Reaction::MakeRoom
            && !std::mem::replace(&mut self.written_back, true)
            && self.store.checkpoint().unwrap_or(false)
        {
            return Ok(true);
        }
        let first = self.trouble.is_none();
        let mut trouble = self.trouble.filter(|trouble| trouble.reaction == reaction).unwrap_or_else(|| Trouble::new(reaction));
        let wait = trouble.next_wait();
        (self.trouble, self.due) = (Some(trouble), Some(Instant::now() + wait));
        if first {
            tracing::error!(%error, "degraded: what is new waits in memory until the disk takes it");
        }
        let state_dir = &self.settings.retain.state_dir;
        let told = error.disk_fault().map_or_else(|| error.to_string(), |fault| error.of_disk(fault, state_dir));
        let disk = &mut self.status.disk;
        disk.degraded = Some(told);
        disk.state = match reaction {
            Reaction::MakeRoom => DiskState::Full,
            Reaction::Hold => DiskState::ReadOnly,
            Reaction::Wait | Reaction::End => disk.state,
        };
        // Room may have been made in the file itself, which needs none on the disk.
        self.rest = 0;
        Ok(false)
    }

    fn recovered(&mut self) -> Result<(), CollectError> {
        if self.trouble.take().is_some() {
            tracing::info!("the disk takes writes again");
            self.status.disk.degraded = None;
            self.rest = 0;
            self.windows.reset(&self.store)?;
        }
        self.write_anchors()
    }

    /// An anchor that can't be written now holds in memory and is written after the next commit that succeeds.
    pub(super) fn write_anchors(&mut self) -> Result<(), CollectError> {
        while let Some(anchor) = self.unwritten_anchors.first() {
            match self.store.add_anchor(anchor) {
                Ok(()) => drop(self.unwritten_anchors.remove(0)),
                Err(error) if decide(&error) == Reaction::End => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(())
    }

    pub(super) fn make_windows(&mut self) -> Result<(), CollectError> {
        match self.windows.advance(&mut self.store, &self.anchors, self.boot.id(), self.boot.now()) {
            Ok(0) => Ok(()),
            Ok(_) => {
                (self.bell)();
                Ok(())
            }
            Err(error) => {
                self.failed(error)?;
                Ok(self.windows.reset(&self.store)?)
            }
        }
    }

    pub(super) fn keep_bonds(&mut self) -> Result<(), CollectError> {
        let bonds = self.settings.bonds.all();
        if bonds == self.bonds_kept {
            return Ok(());
        }
        match bonds::keep(&mut self.store, &self.bonds_kept, &bonds) {
            Ok(()) => self.bonds_kept = bonds,
            Err(error) if decide(&error) == Reaction::End => return Err(error.into()),
            // It is tried again at the next tick.
            Err(_) => {}
        }
        Ok(())
    }

    /// Keeps the log within its limits, and the ballast where there is room for it.
    pub(super) fn retain(&mut self) -> Result<(), CollectError> {
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(());
        }
        self.rest = RETAIN_EVERY - 1;
        if self.ballast.is_needed(self.retain.disk()) && self.ballast.free() {
            tracing::warn!("the disk is all but full: the ballast is given away");
        }
        let pass = match self.retain.pass(&mut self.store, &self.anchors, self.boot.id(), self.boot.now()) {
            Ok(pass) => pass,
            // Deleting needs room too; it is tried again at the next tick.
            Err(error) if decide(&error) != Reaction::End => {
                self.rest = 0;
                self.status.disk.free_octets = self.retain.disk().free;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.ballast.restore(pass.disk) {
            tracing::info!("the ballast is in place");
        }
        if pass.evicted.unsettled > 0 {
            tracing::warn!(records = pass.evicted.unsettled, "records that were still owed made room for new ones");
            (self.bell)();
        }
        let floor = self.settings.retain.free_floor;
        let disk = &mut self.status.disk;
        disk.evicted += pass.evicted.records;
        disk.evicted_unsettled += pass.evicted.unsettled;
        (disk.free_octets, disk.live_octets, disk.limit_octets) = (pass.disk.free, pass.room.live(), pass.limit);
        if self.trouble.is_none() {
            disk.state = match pass.disk {
                disk if disk.read_only => DiskState::ReadOnly,
                _ if !self.ballast.is_kept() => DiskState::Full,
                disk if disk.free < floor => DiskState::NearFull,
                _ => DiskState::Ok,
            };
        }
        if pass.unfinished {
            self.rest = 0;
        }
        if self.trouble.is_some_and(|trouble| trouble.reaction == Reaction::MakeRoom) && pass.evicted.frames > 0 {
            self.due = Some(Instant::now());
        }
        Ok(())
    }
}
