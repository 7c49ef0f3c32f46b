//! What a route sent and the receiving application has not confirmed yet: pure. Time is what has passed since the route
//! began.
//!
//! A broker's acknowledgement settles nothing here: the record stays owed until its receipt, and goes again when that does
//! not come. Where nobody confirms anything, one record goes again and not all: whoever is away would only find repeats.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::reading::{DeliveryId, Seq};

/// Records sent and not confirmed at most; then the route waits. Enough for a receiver that confirms once a second, and for
/// eight batches; after a broken connection all of it goes again.
pub const MAX_UNCONFIRMED: usize = 4_096;

#[derive(Debug)]
pub struct Receipts {
    within: Duration,
    waiting: BTreeMap<Seq, Waiting>,
    by_delivery: HashMap<DeliveryId, Seq>,
    /// The last receipt that settled something.
    heard: Option<Duration>,
}

#[derive(Debug)]
struct Waiting {
    delivery: DeliveryId,
    /// When the broker took it; `None` while it is on its way, again or for the first time.
    taken: Option<Duration>,
}

impl Receipts {
    pub fn new(within: Duration) -> Self {
        Self { within, waiting: BTreeMap::new(), by_delivery: HashMap::new(), heard: None }
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < MAX_UNCONFIRMED
    }

    pub fn sent(&mut self, seq: Seq, delivery: DeliveryId) {
        self.forget(seq);
        self.waiting.insert(seq, Waiting { delivery, taken: None });
        self.by_delivery.insert(delivery, seq);
    }

    /// The broker took it. `false`: its receipt is here already.
    pub fn taken(&mut self, seq: Seq, now: Duration) -> bool {
        self.waiting.get_mut(&seq).is_some_and(|waiting| {
            waiting.taken = Some(now);
            true
        })
    }

    /// A receipt. Answers which record it settles, and whether the broker took that before; `None`: none that waits.
    pub fn received(&mut self, delivery: &DeliveryId, now: Duration) -> Option<(Seq, bool)> {
        let seq = *self.by_delivery.get(delivery)?;
        let taken = self.waiting.get(&seq).is_some_and(|waiting| waiting.taken.is_some());
        self.forget(seq);
        self.heard = Some(now);
        Some((seq, taken))
    }

    /// Nothing more becomes of it here.
    pub fn forget(&mut self, seq: Seq) {
        if let Some(waiting) = self.waiting.remove(&seq) {
            self.by_delivery.remove(&waiting.delivery);
        }
    }

    /// All that was taken and not confirmed, which waits no longer.
    pub fn forget_all(&mut self) -> Vec<Seq> {
        let taken = self.waiting.iter().filter(|(_, waiting)| waiting.taken.is_some()).map(|(seq, _)| *seq).collect();
        self.clear();
        taken
    }

    /// The connection ended: everything unconfirmed goes again.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.by_delivery.clear();
    }

    /// What has waited too long and goes again: all that was passed by, and of a receiver that says nothing the
    /// lowest record alone.
    pub fn overdue(&mut self, now: Duration) -> Vec<Seq> {
        let within = self.within;
        let late = |waiting: &Waiting| waiting.taken.is_some_and(|taken| taken + within <= now);
        let passed_by = |waiting: &Waiting| self.heard > waiting.taken;
        let mut due: Vec<Seq> =
            self.waiting.iter().filter(|(_, waiting)| late(waiting) && passed_by(waiting)).map(|(seq, _)| *seq).collect();
        if due.is_empty() {
            // The first of all that wait: while it is on its way again, no second one goes.
            due.extend(self.waiting.first_key_value().filter(|(_, waiting)| late(waiting)).map(|(seq, _)| *seq));
        }
        for seq in &due {
            self.waiting.get_mut(seq).into_iter().for_each(|waiting| waiting.taken = None);
        }
        due
    }

    /// Records the broker took and nobody confirmed.
    pub fn count(&self) -> usize {
        self.waiting.values().filter(|waiting| waiting.taken.is_some()).count()
    }

    /// Since when the oldest of them waits.
    pub fn since(&self) -> Option<Duration> {
        self.waiting.values().filter_map(|waiting| waiting.taken).min()
    }

    /// Whether one has waited longer than a receipt may take.
    pub fn is_late(&self, now: Duration) -> bool {
        self.since().is_some_and(|since| since + self.within <= now)
    }

    /// When [`Receipts::overdue`] may have something.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let first = self.waiting.first_key_value().and_then(|(_, waiting)| waiting.taken);
        let passed_by =
            self.waiting.values().filter(|waiting| self.heard > waiting.taken).filter_map(|waiting| waiting.taken).min();
        first.into_iter().chain(passed_by).map(|taken| taken + self.within).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Op, Placement, RecordId};

    const S: fn(u64) -> Duration = Duration::from_secs;
    const WITHIN: Duration = Duration::from_secs(60);

    fn delivery(n: u8, version: u32) -> DeliveryId {
        DeliveryId { record: RecordId([n; 16]), placement: Placement([0; 16]), version, op: Op::Put }
    }

    fn sent(numbers: &[u8]) -> Receipts {
        let mut receipts = Receipts::new(WITHIN);
        for n in numbers {
            receipts.sent(Seq((*n).into()), delivery(*n, 1));
            receipts.taken(Seq((*n).into()), S(0));
        }
        receipts
    }

    #[test]
    fn a_receipt_settles_the_delivery_it_names_and_no_other() {
        let mut receipts = sent(&[1, 2]);
        receipts.sent(Seq(3), delivery(1, 2));
        assert_eq!(receipts.received(&delivery(1, 1), S(1)), Some((Seq(1), true)), "an older version leaves the newer waiting");
        assert_eq!(receipts.received(&delivery(1, 1), S(1)), None, "a repeat");
        assert_eq!(receipts.received(&delivery(9, 1), S(1)), None, "somebody else's");
        assert_eq!(receipts.received(&DeliveryId { op: Op::Retract, ..delivery(2, 1) }, S(1)), None);
        assert_eq!(receipts.count(), 1);
        assert_eq!(receipts.received(&delivery(1, 2), S(2)), Some((Seq(3), false)), "before the broker's own word");
        assert!(!receipts.taken(Seq(3), S(3)));
    }

    #[test]
    fn what_a_living_receiver_passed_by_goes_again_and_all_of_it() {
        let mut receipts = sent(&[1, 2, 3]);
        receipts.received(&delivery(2, 1), S(30));
        assert_eq!(receipts.overdue(S(59)), []);
        assert_eq!(receipts.wake(S(0)), Some(WITHIN));
        assert_eq!(receipts.overdue(WITHIN), [Seq(1), Seq(3)]);
        assert_eq!(receipts.wake(WITHIN), None);
        assert_eq!(receipts.received(&delivery(1, 1), WITHIN), Some((Seq(1), false)), "late, and good all the same");
    }

    #[test]
    fn of_a_receiver_that_says_nothing_one_record_goes_again_at_a_time() {
        let mut receipts = sent(&[1, 2, 3]);
        let mut now = WITHIN;
        for _ in 0..10 {
            assert!(receipts.is_late(now));
            assert_eq!(receipts.overdue(now), [Seq(1)]);
            receipts.sent(Seq(1), delivery(1, 1));
            assert_eq!(receipts.overdue(now + WITHIN * 9), []);
            receipts.taken(Seq(1), now);
            now = receipts.wake(now).expect("again later");
        }
        // It comes back and confirms the one: the others were passed by, and go again.
        assert_eq!(receipts.received(&delivery(1, 1), now), Some((Seq(1), true)));
        assert_eq!(receipts.overdue(now), [Seq(2), Seq(3)]);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut receipts = Receipts::new(WITHIN);
        for n in 0..MAX_UNCONFIRMED as u64 {
            assert!(receipts.has_room());
            let record = RecordId((u128::from(n)).to_be_bytes());
            receipts.sent(Seq(n), DeliveryId { record, ..delivery(0, 1) });
        }
        assert!(!receipts.has_room());
        receipts.clear();
        assert!(receipts.has_room() && receipts.since().is_none());
    }
}
