//! What is done about records that stand in a chart they do not belong to: pure. A few recent ones are taken back and sent to
//! where they belong; more, or older ones, wait for a person, and so does what can't be taken back.

use crate::reading::{Body, Record, SubjectKey, Timestamp};
use crate::ward::{HoldReason, Ward};

use super::Decision;
use crate::config::Retract;

/// More than this is no slip of one transfer: a person looks before a chart changes so much.
pub const AUTO_RECORDS: usize = 50;
/// What is older may have been acted upon and signed.
pub const AUTO_AGE_MS: i64 = 24 * 3_600_000;
/// How far back a change of history is followed: the log keeps that long what is settled.
pub const HORIZON_MS: i64 = 72 * 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken back at the old place, sent to the new.
    Now,
    /// One entry to decide.
    Ask,
}

/// What is to be done about so many records, the oldest measured then.
pub fn judge(retract: Retract, records: usize, oldest: Timestamp, now: Timestamp) -> Verdict {
    let small = records <= AUTO_RECORDS && now.0 - oldest.0 <= AUTO_AGE_MS;
    if retract == Retract::Auto && small { Verdict::Now } else { Verdict::Ask }
}

/// Whether a record that stands in the chart of `subject` stays there by what is known now. A window that is cut stays where
/// its first side, which has its id, belongs.
pub fn stays(ward: &Ward, record: &Record, subject: &SubjectKey, now: &Decision) -> bool {
    let belongs = match now {
        Decision::Send { binding: Some(binding), .. } | Decision::Choose(binding) => Some(binding.subject.clone()),
        Decision::Cut(edges) => first_side(ward, record, edges),
        // The config says otherwise of its device than when it was sent; of whom it is the ward says nothing new.
        Decision::Hold(HoldReason::DeviceMismatch) => return true,
        // A newer version speaks for it; asked of that one.
        _ => None,
    };
    belongs.is_some_and(|belongs| belongs == *ward.known_as(subject))
}

fn first_side(ward: &Ward, record: &Record, edges: &[Timestamp]) -> Option<SubjectKey> {
    let (Body::Window(window), Some(stream)) = (&record.body, record.stream) else { return None };
    let to = edges.first().copied().unwrap_or_else(|| window.start.plus_ms(i64::from(window.length_s) * 1_000));
    let whole = window.from == window.start;
    whole.then(|| ward.bind_span(stream.device, stream.user, window.start, to).ok())?.map(|binding| binding.subject)
}
