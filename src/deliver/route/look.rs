//! The look through the log after a change of the ward's history: what stands in the wrong chart is found, and taken back or
//! held for a person. It goes on page by page; between two pages what is live goes, by what is known now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Route;
use crate::config::Bind;
use crate::deliver::{Correction, Destination, HORIZON_MS, Lane, judge};
use crate::reading::{DeviceId, Record, Seq, Timestamp};
use crate::store::StoreError;
use crate::ward::{HoldReason, Ward};

/// The ward's last event that this route has followed.
pub(super) const WARD: &str = "ward";
/// The last event by which something may have gone before all was looked at: higher than [`WARD`] if a look was broken off.
const WARD_LOOK: &str = "ward_look";
/// The last event of a look that asks a person: what it held before it was broken off counts no more, so it goes on asking.
const WARD_ASKS: &str = "ward_asks";

/// Readings are looked at this far around what changed, beyond the widest guard: the uncertainty of a device's clock.
const CLOCKS_MS: i64 = 15 * 60_000;

/// A look through the log that is under way.
pub(super) struct Look {
    /// By this, or what was known before, all has gone since it began.
    ward: Arc<Ward>,
    /// What changed of each device.
    spans: Spans,
    /// Readings are looked at this far around what changed.
    around: i64,
    /// Nothing measured earlier is looked at.
    earliest: Timestamp,
    first: Seq,
    next: Seq,
    /// What came after it is sent by what is known since.
    until: Seq,
    found: Found,
}

type Spans = BTreeMap<DeviceId, (Timestamp, Timestamp)>;

enum Found {
    /// As long as they are few each is kept here, and the time of the oldest.
    Few(Vec<(Seq, Record)>, Timestamp),
    /// More, or older ones, or any on a route that asks, wait for a person: so many by now.
    ForAPerson(usize),
}

impl Look {
    pub(super) fn until(&self) -> Seq {
        self.until
    }

    /// What a start after a kill must know of it.
    pub(super) fn marks(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let n = self.ward.last_event();
        let asks = matches!(self.found, Found::ForAPerson(_)).then_some((WARD_ASKS, n));
        [(WARD_LOOK, n)].into_iter().chain(asks)
    }

    fn touches(&self, device: DeviceId, at: Timestamp) -> bool {
        let Some((from, to)) = self.spans.get(&device) else { return false };
        at >= self.earliest && from.0.saturating_sub(self.around) <= at.0 && at.0 <= to.0.saturating_add(self.around)
    }
}

fn widen(spans: &mut Spans, before: &Ward, after: &Ward) {
    for affected in Ward::changes(before, after) {
        let span = spans.entry(affected.device).or_insert((affected.from, affected.to));
        *span = (span.0.min(affected.from), span.1.max(affected.to));
    }
}

impl<D: Destination> Route<D> {
    /// Looks at so few records between two turns: one that goes through a short log can be interrupted as well.
    #[must_use]
    pub fn with_page(self, page: usize) -> Self {
        Self { page, ..self }
    }

    /// The ward says something new: what was sent is looked at, and what is held.
    pub(super) fn ward_changed(&mut self) -> Result<(), StoreError> {
        self.ward = self.inputs.ward.borrow_and_update().clone();
        self.look_due = self.settings.rules.bind == Bind::Patient;
        self.shares.clear();
        self.begin_look_if_due()?;
        self.recheck_held()
    }

    /// Nothing goes by what is no longer known. `false`: nothing goes for now.
    pub(super) fn follow_ward(&mut self) -> Result<bool, StoreError> {
        if self.inputs.ward.has_changed().unwrap_or(false) {
            self.ward_changed()?;
        }
        self.begin_look_if_due()?;
        Ok(!self.look_due)
    }

    /// What is under way has an answer first: until then it is not known where it stands. A paused route takes nothing back
    /// either, for the ward may be what is wrong: when it is resumed it looks.
    fn begin_look_if_due(&mut self) -> Result<(), StoreError> {
        if self.look_due && self.planner.in_flight() == 0 && self.row.paused.is_none() {
            self.begin_look()?;
            self.look_due = false;
        }
        Ok(())
    }

    fn begin_look(&mut self) -> Result<(), StoreError> {
        let ward = self.ward.clone();
        let known = *self.followed.get_or_insert(ward.last_event());
        let looks_for = self.look.as_ref().map_or(known, |look| look.ward.last_event());
        if looks_for >= ward.last_event() {
            self.due();
            return Ok(());
        }
        // What waits for a receipt may stand at the wrong place: it is asked for again, and looked at then.
        for seq in self.receipts.iter_mut().flat_map(|receipts| receipts.forget_all()).collect::<Vec<_>>() {
            self.planner.unconfirmed(seq);
        }
        let few = Found::Few(Vec::new(), Timestamp(i64::MAX));
        // One that is under way begins again; what it would have come to is looked at with what changed now.
        let (spans, found) = match &self.look {
            Some(look) => {
                let mut spans = look.spans.clone();
                widen(&mut spans, &look.ward, &ward);
                (spans, if let Found::ForAPerson(count) = look.found { Found::ForAPerson(count) } else { few })
            }
            None => {
                let asked = self.store.route_mark(self.row.n, WARD_ASKS)?.is_some_and(|asked| asked > known);
                (self.changed_since(known, &ward)?, if asked { Found::ForAPerson(0) } else { few })
            }
        };
        let Some(from) = spans.values().map(|(from, _)| from.0).min() else {
            self.has_followed(&ward);
            return Ok(());
        };
        let around = ward.guards().widest_ms() + CLOCKS_MS;
        let horizon = self.now().map_or(i64::MIN, |now| now.0 - HORIZON_MS);
        let earliest = Timestamp(from.saturating_sub(around).max(horizon));
        let is_before = |boot, arrived| self.anchors.wall(boot, arrived).is_some_and(|wall| wall.at < earliest);
        let first = self.store.first_after(is_before)?;
        let found = match found {
            Found::Few(..) if self.is_for_a_person(0, Timestamp(i64::MAX)) => Found::ForAPerson(0),
            found => found,
        };
        self.look = Some(Look { ward, spans, around, earliest, first, next: first, until: self.head, found });
        Ok(())
    }

    /// Of a look that was broken off by a kill it is not known by which of its events something went: by each of them.
    fn changed_since(&self, known: u64, ward: &Ward) -> Result<Spans, StoreError> {
        let (mut spans, mut before) = (Spans::new(), ward.known_at(known));
        let looked_for = self.store.route_mark(self.row.n, WARD_LOOK)?.unwrap_or(known);
        for n in known + 1..=looked_for {
            let after = ward.known_at(n);
            widen(&mut spans, &before, &after);
            before = after;
        }
        widen(&mut spans, &before, ward);
        Ok(spans)
    }

    pub(super) fn is_looking(&self) -> bool {
        self.look.is_some() && !self.look_due && self.row.paused.is_none()
    }

    /// Looks at the next page, if a look is under way.
    pub(super) fn look_on(&mut self) -> Result<(), StoreError> {
        if self.is_looking()
            && let Err(error) = self.look_at_next()
        {
            self.not_written(error)?;
        }
        Ok(())
    }

    fn look_at_next(&mut self) -> Result<(), StoreError> {
        let Some(mut look) = self.look.take() else { return Ok(()) };
        let at_end = self.look_at_page(&mut look);
        let look = self.look.insert(look);
        if !at_end? {
            return Ok(());
        }
        let ward = look.ward.clone();
        let (count, what) = match &look.found {
            Found::ForAPerson(count) => (*count, "they wait for a decision"),
            Found::Few(records, _) => {
                let records = records.clone();
                (self.take_all_back(&records)?, "they are taken back")
            }
        };
        self.has_followed(&ward);
        if count == 0 {
            return Ok(());
        }
        tracing::warn!(route = %self.settings.name, count, "records stand in a chart they do not belong to: {what}");
        self.write()
    }

    fn has_followed(&mut self, ward: &Ward) {
        self.look = None;
        self.followed = Some(ward.last_event());
        self.due();
    }

    /// Answers whether that was all.
    fn look_at_page(&mut self, look: &mut Look) -> Result<bool, StoreError> {
        let records = self.store.read(look.next, look.until, self.page)?;
        let Some((last, _)) = records.last() else { return Ok(true) };
        let dead = self.dead_among(look.next, *last)?;
        for (seq, record) in &records {
            if look.spans.contains_key(&record.device) {
                let at = self.time_of(record).filter(|at| look.touches(record.device, *at) && !dead.contains(seq));
                self.look_at_record(look, *seq, record, at)?;
            }
            look.next = seq.next();
            if let Found::Few(few, oldest) = &look.found
                && self.is_for_a_person(few.len(), *oldest)
            {
                (look.found, look.next) = (Found::ForAPerson(0), look.first);
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// `at`: when it was measured, if that is within what changed.
    fn look_at_record(&mut self, look: &mut Look, seq: Seq, record: &Record, at: Option<Timestamp>) -> Result<(), StoreError> {
        if at.is_some() && self.was_passed_over(seq, record) {
            self.planner.owe(seq, seq);
        }
        let wrong = match at {
            Some(at) => self.stands_wrongly(seq, record)?.then_some(at),
            None => None,
        };
        match (wrong, &mut look.found) {
            (Some(at), Found::Few(few, oldest)) => {
                few.push((seq, record.clone()));
                *oldest = at.min(*oldest);
            }
            (Some(_), Found::ForAPerson(count)) => {
                *count += 1;
                self.held.hold(Lane::Backlog, seq, record, HoldReason::AwaitingDecision);
                self.due();
            }
            (None, _) => {
                self.held.passed(Lane::Backlog, record);
                self.cut_anew(seq, record)?;
            }
        }
        Ok(())
    }

    fn is_for_a_person(&self, count: usize, oldest: Timestamp) -> bool {
        let now = self.now().unwrap_or(oldest);
        judge(self.settings.retract, count, oldest, now) == Correction::Ask
    }

    /// Those that still stand where they were found: a person may have sent some of them again meanwhile.
    fn take_all_back(&mut self, records: &[(Seq, Record)]) -> Result<usize, StoreError> {
        let mut count = 0;
        for (seq, record) in records {
            if self.stands_wrongly(*seq, record)? {
                self.take_back(*seq, record)?;
                self.planner.owe(*seq, *seq);
                count += 1;
            }
        }
        Ok(count)
    }
}
