//! What people do with a route's dead letters: see what would be sent, send again, give up. The route does it itself,
//! because it alone writes what it owes.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::Route;
use crate::deliver::{Decision, Destination, Item, Lane};
use crate::reading::{Placement, Record, Seq, SubjectKey};
use crate::store::{AuditEntry, Runs, StoreError};
use crate::ward::Binding;

/// Dead letters that go again at once: each may be a run of its own, and a route's state stays a few pages.
pub const MAX_RETRIED: usize = 1_024;

/// What is asked of a route about its dead letters.
#[derive(Debug)]
pub enum LetterCommand {
    /// Owe these again, under the same identities. `entry` is completed with what was done, and kept with it.
    Retry { seqs: Vec<Seq>, entry: AuditEntry, done: oneshot::Sender<LettersDone> },
    /// Give these up for good.
    Drop { seqs: Vec<Seq>, entry: AuditEntry, done: oneshot::Sender<LettersDone> },
    /// What would be sent now.
    Preview { seq: Seq, record: Box<Record>, done: oneshot::Sender<Preview> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersDone {
    pub done: u64,
    /// No dead letters, or none any more.
    pub unknown: Vec<Seq>,
    /// Dead letters still: [`MAX_RETRIED`] are on their way already.
    pub waiting: Vec<Seq>,
}

/// A message that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// What would become of the record if it were sent again now.
    pub fate: String,
    /// Topic or address.
    pub to: String,
    pub payload: String,
}

impl<D: Destination> Route<D> {
    pub(super) fn letter_command(&mut self, command: LetterCommand) -> Result<(), StoreError> {
        match command {
            LetterCommand::Retry { seqs, entry, done } => drop(done.send(self.retry(seqs, entry)?)),
            LetterCommand::Drop { seqs, entry, done } => drop(done.send(self.drop_letters(seqs, entry)?)),
            LetterCommand::Preview { seq, record, done } => drop(done.send(self.preview(seq, *record)?)),
        }
        Ok(())
    }

    fn retry(&mut self, seqs: Vec<Seq>, entry: AuditEntry) -> Result<LettersDone, StoreError> {
        let (mut dead, unknown) = self.written_letters(seqs)?;
        let waiting = dead.split_off(dead.len().min(MAX_RETRIED.saturating_sub(self.retried.len())));
        for seq in &dead {
            self.planner.owe(*seq, *seq);
            self.retried.insert(*seq);
        }
        self.change.retry.extend(&dead);
        self.note_letters(&dead, "retried", entry)?;
        Ok(LettersDone { done: dead.len() as u64, unknown, waiting })
    }

    fn drop_letters(&mut self, seqs: Vec<Seq>, entry: AuditEntry) -> Result<LettersDone, StoreError> {
        let (dead, unknown) = self.written_letters(seqs)?;
        self.change.forget.extend(&dead);
        self.note_letters(&dead, "dropped", entry)?;
        Ok(LettersDone { done: dead.len() as u64, unknown, waiting: Vec::new() })
    }

    /// Those of `seqs` that are dead letters and on the card as such, and the others.
    fn written_letters(&mut self, seqs: Vec<Seq>) -> Result<(Vec<Seq>, Vec<Seq>), StoreError> {
        self.write()?;
        let seqs: BTreeSet<Seq> = seqs.into_iter().collect();
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(Default::default()) };
        let mut written = self.store.dead_among(self.row.n, *first, *last)?;
        // A disk that takes no writes may keep back what became of some of them.
        let change = &self.change;
        for seq in change.retry.iter().chain(&change.forget).chain(change.dead.iter().map(|dead| &dead.seq)) {
            written.remove(seq);
        }
        Ok(seqs.into_iter().partition(|seq| written.contains(seq)))
    }

    fn note_letters(&mut self, seqs: &[Seq], what: &str, entry: AuditEntry) -> Result<(), StoreError> {
        if seqs.is_empty() {
            return Ok(());
        }
        self.status.dead -= seqs.len() as u64;
        *self.change.tally.entry(what.to_owned()).or_default() += seqs.len() as u64;
        self.change.audit.push(AuditEntry { detail: format!("{} records: {}", seqs.len(), runs(seqs)), ..entry });
        self.write()
    }

    fn preview(&mut self, seq: Seq, record: Record) -> Result<Preview, StoreError> {
        let decision = self.decide(&record, Lane::Backlog)?;
        let (fate, binding, subject, choice) = match decision {
            Decision::Send { binding, subject } => ("it is sent".to_owned(), binding, subject, None),
            Decision::Choose(binding) => match self.choose(seq, &record, &binding)? {
                Some(choice) => ("it is sent".to_owned(), Some(binding), None, Some(choice)),
                None => ("another stream speaks for the patient".to_owned(), Some(binding), None, None),
            },
            Decision::Hold(reason) => (format!("it is held: {}", reason.name()), None, None, None),
            Decision::Settle(settled) => (format!("it is settled: {}", settled.name()), None, None, None),
            Decision::Cut(_) => ("its sides are sent instead".to_owned(), None, None, None),
            Decision::Backlog => ("it is sent".to_owned(), None, None, None),
        };
        let placement = self.would_place(binding.as_ref());
        let subject: Option<SubjectKey> = binding.map(|binding| binding.subject).or(subject);
        let item: Item = self.item(seq, record, Lane::Backlog, placement, subject, choice);
        let (to, payload) = self.destination.preview(&item);
        Ok(Preview { fate, to, payload })
    }

    fn would_place(&self, binding: Option<&Binding>) -> Placement {
        binding.map_or(self.nowhere, |binding| self.store.site_key().placement(Some(&binding.subject), 0))
    }

    /// Dead letters from `first` to `last`, those not on the card yet among them.
    pub(super) fn dead_among(&self, first: Seq, last: Seq) -> Result<BTreeSet<Seq>, StoreError> {
        let mut dead = self.store.dead_among(self.row.n, first, last)?;
        dead.retain(|seq| !self.retried.contains(seq));
        dead.extend(self.change.dead.iter().map(|dead| dead.seq));
        Ok(dead)
    }

    /// A record of which nothing is left to do here; what its row lent is not wanted any more.
    pub(super) fn not_retried(&mut self, seq: Seq) {
        if self.retried.remove(&seq) {
            self.change.forget.push(seq);
        }
    }

    /// The first record at or after `seq` that is in the log or lent by a dead letter that goes again.
    pub(super) fn next_to_have(&self, seq: Seq) -> Result<Option<Seq>, StoreError> {
        let lent = self.retried.range(seq..).next().copied();
        Ok([self.store.next_present(seq)?, lent].into_iter().flatten().min())
    }
}

/// `3, 5 to 9`
fn runs(seqs: &[Seq]) -> String {
    let runs: Runs = seqs.iter().map(|seq| (*seq, *seq)).collect();
    let text = |(first, last): (Seq, Seq)| if first == last { first.to_string() } else { format!("{first} to {last}") };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}
