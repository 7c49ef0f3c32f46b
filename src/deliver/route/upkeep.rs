//! What a route does besides sending: held records, people's commands, the card, its own state.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::look::{Look, WARD};
use super::{BUDGET, Moment, Route, RouteCommand, TURN};
use crate::config::Order;
use crate::deliver::decide::carries;
use crate::deliver::held::Recheck;
use crate::deliver::receipts::Receipts;
use crate::deliver::{Decision, Destination, Lane, Planner, RouteState, Why};
use crate::reading::{DeviceId, Record, Seq, SubjectKey, Timestamp};
use crate::store::{EVICTIONS, READ_LIMIT, StoreError};
use crate::ward::HoldReason;

/// How often the time of the oldest record owed is looked up.
const OLDEST_EVERY: Duration = Duration::from_secs(5);

/// Records looked through for an answer that a person waits for, at most 2 s.
const MAX_COUNTED: usize = 50_000;

/// A write that failed on a full or read-only disk is tried again after this.
const RETRY_WRITE: Duration = Duration::from_secs(5);
/// What is held is looked at again this long after an eviction, which may have taken some of it.
const RECHECK_EVICTED: Duration = Duration::from_secs(60);

impl<D: Destination> Route<D> {
    /// Looks at every held record again; what may go now goes to the backlog lane.
    pub(super) fn recheck_held(&mut self) -> Result<(), StoreError> {
        for run in self.held.due_for_recheck() {
            let source = (run.device, run.stream);
            if self.stand.is_parked(&source) == Some(run.reason) || run.reason == HoldReason::AwaitingDecision {
                continue;
            }
            if self.planner.lanes().backlog.len() >= Planner::MAX_RUNS {
                self.held.postpone();
                break;
            }
            let mut recheck = Recheck::default();
            let mut from = run.first;
            while from <= run.last {
                let records = self.store.read(from, run.last, READ_LIMIT)?;
                let Some((last, _)) = records.last() else { break };
                from = last.next();
                for (seq, record) in records.iter().filter(|(_, r)| (r.device, r.stream) == source) {
                    if self.probed.get(&source) == Some(seq) {
                        self.probed.remove(&source);
                        continue;
                    }
                    match self.decide(record, Lane::Backlog)? {
                        Decision::Hold(reason) => recheck.still_held(*seq, reason),
                        _ => recheck.released(*seq),
                    }
                }
            }
            // Whatever the backlog lane makes of it then: sent, settled as history, or cut.
            recheck.release().for_each(|seq| self.planner.owe(seq, seq));
            self.held.replace(&run, &recheck);
        }
        self.due();
        Ok(())
    }

    pub(super) fn command(&mut self, command: RouteCommand) -> Result<(), StoreError> {
        match command {
            RouteCommand::Pause { reason, done } => {
                self.row.paused = Some(reason);
                let _ = done.send(());
            }
            RouteCommand::Resume { done } => {
                self.row.paused = None;
                // What waited is no news.
                self.planner.turn(self.head);
                self.stand.try_now(self.clock());
                let _ = done.send(());
            }
            RouteCommand::Replay { from, to, done } => {
                let count = self.replay(from, to)?;
                self.under_way_is_attempted();
                self.write()?;
                let _ = done.send(count);
            }
            RouteCommand::Decide { first, last, accept, done } => {
                let count = self.decide_for(first, last, accept)?;
                let _ = done.send(count);
            }
            RouteCommand::Sent { records, done } => {
                let _ = done.send(self.count_sent(&records)?);
            }
            RouteCommand::Trace { seq, record, done } => {
                let _ = done.send(self.trace(seq, &record)?);
            }
            RouteCommand::Unsent { subject, done } => {
                let _ = done.send(self.count_unsent(&subject)?);
            }
            RouteCommand::Letters(command) => self.letter_command(command)?,
        }
        Ok(())
    }

    fn count_unsent(&mut self, subject: &SubjectKey) -> Result<u64, StoreError> {
        let lanes = self.planner.lanes();
        let runs: Vec<(Seq, Seq)> = lanes.live.iter().chain(lanes.backlog.iter()).collect();
        let (mut count, mut looked_at) = (0, 0);
        for (first, last) in runs {
            let mut next = first;
            while looked_at < MAX_COUNTED && next <= last.min(self.head) {
                let records = self.store.read(next, last.min(self.head), READ_LIMIT)?;
                let Some((end, _)) = records.last() else { break };
                next = end.next();
                looked_at += records.len();
                for (_, record) in &records {
                    let decision = self.decide(record, Lane::Backlog)?;
                    let (Decision::Send { binding: Some(binding), .. } | Decision::Choose(binding)) = decision else { continue };
                    count += u64::from(binding.subject == *subject);
                }
            }
        }
        Ok(count)
    }

    fn count_sent(&self, records: &[(Seq, Record)]) -> Result<u64, StoreError> {
        let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) else { return Ok(0) };
        let dead = self.dead_among(*first, *last)?;
        Ok(records.iter().filter(|(seq, record)| !dead.contains(seq) && self.was_sent(*seq, record)).count() as u64)
    }

    /// Sent, or on its way and not known to have failed.
    fn was_sent(&self, seq: Seq, record: &Record) -> bool {
        let lanes = self.planner.lanes();
        let owed = lanes.live.contains(seq) || lanes.backlog.contains(seq);
        let ever = self.stands_with(seq, record).is_some();
        self.planner.is_in_flight(seq)
            || (ever && carries(record, &self.settings.rules) && !owed && !self.held.covers(seq, record))
    }

    /// Owes again what arrived in a span of time; what is held stays held, and a dead letter one.
    fn replay(&mut self, from: Timestamp, to: Timestamp) -> Result<u64, StoreError> {
        let before = |boot, arrived| self.anchors.wall(boot, arrived).is_some_and(|wall| wall.at < from);
        let (mut next, mut count) = (self.store.first_after(before)?, 0);
        loop {
            let records = self.store.read(next, self.head, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { return Ok(count) };
            let dead = self.dead_among(next, *last)?;
            next = last.next();
            for (seq, record) in &records {
                let arrived = self.anchors.wall(record.stamp.boot, record.stamp.arrived).map(|wall| wall.at);
                let kept_back = self.held.covers(*seq, record) || dead.contains(seq);
                if arrived.is_some_and(|at| from <= at && at < to) && !kept_back {
                    if self.was_sent(*seq, record) {
                        self.attempted.insert(*seq, *seq);
                    }
                    self.planner.owe(*seq, *seq);
                    count += 1;
                }
            }
        }
    }

    /// Sees what others have written.
    pub(super) fn look_at_log(&mut self) -> Result<(), StoreError> {
        self.head = self.store.head()?;
        let version = self.store.data_version()?;
        if version != self.data_version {
            self.data_version = version;
            let anchors = self.store.anchors()?;
            let clock_came = anchors.iter().count() != self.anchors.iter().count();
            self.anchors = anchors;
            if clock_came {
                self.shares.clear();
                self.recheck_held()?;
            }
            self.see_evictions()?;
        }
        if self.recheck_due.is_some_and(|due| due <= Moment::now()) {
            self.recheck_due = None;
            self.recheck_held()?;
        }
        if self.held.is_postponed() && self.planner.lanes().backlog.is_empty() {
            self.recheck_held()?;
        }
        self.look_for_oldest()?;
        self.report();
        Ok(())
    }

    /// Puts everything found out since the last time on the card, in one commit.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        self.write_due = None;
        let (release, hold) = self.held.take_changes();
        self.change.hold_on(release, hold);
        let (unbind, bind) = self.placements.take_changes();
        self.change.unbind.extend(unbind);
        self.change.bind.extend(bind);
        let turn = self.schedule.mark().and_then(|at| u64::try_from(at.0).ok()).map(|ms| (TURN, ms));
        let marks = turn.into_iter().chain(self.budget.as_ref().map(|budget| (BUDGET, budget.mark())));
        let marks = marks.chain(self.followed.map(|n| (WARD, n))).chain(self.look.iter().flat_map(Look::marks));
        self.change.marks = marks.filter(|(name, value)| self.marked.get(name) != Some(value)).collect();
        if self.planner.is_dirty() || !self.change.is_empty() {
            self.change.lanes = self.planner.lanes().clone();
            if let Err(error) = self.store.apply(self.row.n, &self.change) {
                return self.not_written(error);
            }
            if std::mem::take(&mut self.unwritable) {
                tracing::info!(route = %self.settings.name, "the disk takes writes again");
            }
            for (what, n) in &self.change.tally {
                *self.status.tally.entry(what.clone()).or_default() += n;
            }
            self.marked.extend(std::mem::take(&mut self.change).marks);
            self.planner.written();
        }
        self.report();
        Ok(())
    }

    /// What was found out stays in memory and is written later; after a crash meanwhile it is found out again, and what was
    /// acknowledged is sent again under the same identity.
    pub(super) fn not_written(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !error.is_passing() {
            return Err(error);
        }
        if !std::mem::replace(&mut self.unwritable, true) {
            tracing::warn!(route = %self.settings.name, %error, "what was acknowledged can't be written now");
        }
        self.write_due = Some(Moment::now() + RETRY_WRITE);
        Ok(())
    }

    /// What retention took from the low end needs no link to be settled.
    fn see_evictions(&mut self) -> Result<(), StoreError> {
        let evictions = self.store.mark(EVICTIONS)?.unwrap_or(0);
        if evictions == self.evictions {
            return Ok(());
        }
        self.evictions = evictions;
        self.recheck_due.get_or_insert(Moment::now() + RECHECK_EVICTED);
        self.forget_bindings()?;
        for first in self.planner.lowest().into_iter().flatten() {
            if first <= self.head && self.next_to_have(first)? != Some(first) {
                self.settle_evicted(first)?;
            }
        }
        Ok(())
    }

    /// Where a record stands is known as long as the log, or a dead letter, has it.
    pub(super) fn forget_bindings(&mut self) -> Result<(), StoreError> {
        let kept = self.store.next_present(Seq(0))?.unwrap_or(Seq(0));
        let dead = self.store.dead_letters(self.row.n, Seq(0), 1)?.first().map(|dead| dead.seq);
        let lent = [dead, self.retried.first().copied()].into_iter().flatten().min().unwrap_or(kept);
        self.placements.forget_below(kept.min(lent));
        if self.placements.is_changed() {
            self.due();
        }
        Ok(())
    }

    /// Publishes the next notice of the gateway's state that this connection has not published.
    pub(super) fn announce(&mut self) {
        let Some(announce) = &mut self.inputs.announce else { return };
        if announce.notices.has_changed().unwrap_or(false) {
            self.outbox.wake();
        }
        if self.destination.room() == 0 {
            return;
        }
        let notices = announce.notices.borrow_and_update().clone();
        let owed = self.planner.next(self.head).is_some();
        let Some(notice) = self.outbox.next(&notices, &announce.standing, owed) else { return };
        if self.destination.announce(notice) {
            self.outbox.sending(notice);
        }
    }

    pub(super) fn announced(&mut self, answer: Result<(), String>) {
        self.outbox.answered();
        let refused = answer.err();
        if let Some(reason) = &refused
            && self.status.monitoring_refused.is_none()
        {
            tracing::warn!(route = %self.settings.name, %reason, "the state of the gateway is not published");
        }
        self.status.monitoring_refused = refused;
    }

    /// When the oldest record owed arrived. It costs a look into the log, so it is asked for now and then.
    fn look_for_oldest(&mut self) -> Result<(), StoreError> {
        let oldest = self.planner.lowest().into_iter().flatten().min().filter(|seq| *seq <= self.head);
        let (known, at) = self.oldest;
        if oldest == known && (oldest.is_none() || self.status.oldest_unsent_at.is_some()) || at.elapsed() < OLDEST_EVERY {
            return Ok(());
        }
        self.oldest = (oldest, Moment::now());
        let record = oldest.map(|seq| self.store.read(seq, seq, 1)).transpose()?.and_then(|mut read| read.pop());
        let arrived = record.and_then(|(_, record)| self.anchors.wall(record.stamp.boot, record.stamp.arrived));
        self.status.oldest_unsent_at = arrived.map(|wall| wall.at.to_string());
        Ok(())
    }

    /// What a link that stands is good for now.
    pub(super) fn show(&mut self) {
        if let Some(paused) = self.row.paused.clone() {
            return self.state(RouteState::Paused, Some(paused));
        }
        let (state, detail) = match self.stand.standing() {
            Some((Why::Forbidden, detail)) => (RouteState::Paused, Some(detail.to_owned())),
            Some((_, detail)) => (RouteState::Waiting, Some(detail.to_owned())),
            None => self.show_pace(),
        };
        self.state(state, detail);
    }

    /// Nothing is wrong with the link; what is to be said of when and how much goes.
    fn show_pace(&self) -> (RouteState, Option<String>) {
        if self.is_looking() {
            let detail = "the ward has changed: what was sent is looked through, and the backlog rests until that is done";
            return (RouteState::Up, Some(detail.to_owned()));
        }
        if self.schedule.limit(self.head).is_none() {
            let next = self.schedule.next(self.clock(), self.now());
            return (RouteState::Waiting, Some(format!("sends again {next} (when)")));
        }
        if let Some(budget) = self.budget.as_ref().filter(|budget| !budget.allows(Lane::Backlog)) {
            let spent = format!("{} of {} octets of today are sent (daily_bytes)", budget.spent(), budget.limit());
            return match budget.allows(Lane::Live) {
                false => (RouteState::Waiting, Some(format!("{spent}; goes on at midnight"))),
                true if self.settings.order == Order::Strict => (RouteState::Up, None),
                true => (RouteState::Up, Some(format!("{spent}; the rest is for live values, the backlog goes on at midnight"))),
            };
        }
        match self.unconfirmed() {
            Some(detail) if self.receipts.as_ref().is_some_and(|receipts| !receipts.has_room()) => {
                (RouteState::Waiting, Some(detail))
            }
            detail => (RouteState::Up, detail),
        }
    }

    /// What is to be said of receipts that don't come.
    fn unconfirmed(&self) -> Option<String> {
        let now = self.clock();
        let receipts = self.receipts.as_ref().filter(|receipts| receipts.is_late(now) || !receipts.has_room())?;
        let count = receipts.count();
        let waited = now.saturating_sub(receipts.since()?);
        let since = self.now().map(|now| now.plus_ms(-i64::try_from(waited.as_millis() / 1_000 * 1_000).unwrap_or(0)));
        let since = since.map_or_else(|| format!("for {} s", waited.as_secs()), |since| format!("since {since}"));
        let why = self.status.receipts.as_deref().unwrap_or("look whether the receiver runs and publishes them");
        Some(format!("waiting {since} for receipts of {count} records: {why}"))
    }

    /// When something may go that may not go now.
    pub(super) fn wake(&self) -> Option<Moment> {
        let now = self.clock();
        let owes = self.planner.next(self.head).is_some();
        let rate = self.rate.open_at(now).filter(|_| owes);
        let receipts = self.receipts.as_ref().and_then(|receipts| receipts.wake(now));
        if self.row.paused.is_some() {
            return None;
        }
        [self.stand.wake(now), rate, receipts].into_iter().flatten().filter(|at| *at > now).min().map(|at| self.started + at)
    }

    /// The time of the pure parts.
    pub(super) fn clock(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn state(&mut self, state: RouteState, detail: Option<String>) {
        if self.row.paused.is_some() {
            // Whoever stopped it is why it sends nothing, not what was wrong before.
            self.status.last_fault = None;
        }
        if self.status.state == state && self.status.detail == detail {
            return;
        }
        (self.status.state, self.status.detail) = (state, detail);
        self.report();
    }

    fn report(&mut self) {
        let lanes = self.planner.lanes();
        self.status.live = lanes.live.count_to(self.head);
        self.status.backlog = lanes.backlog.count_to(self.head);
        self.status.in_flight = self.planner.in_flight() as u64;
        self.status.held = self.held.counts();
        self.status.unconfirmed = self.receipts.as_ref().map_or(0, Receipts::count) as u64;
        self.inputs.publish.send_if_modified(|published| {
            let changed = *published != self.status;
            published.clone_from(&self.status);
            changed
        });
    }

    pub(super) fn tally(&mut self, what: &str) {
        *self.change.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// Something is to be written within the interval.
    pub(super) fn due(&mut self) {
        self.write_due.get_or_insert(Moment::now() + self.settings.ack_interval);
    }

    pub(super) fn zone(&self, device: DeviceId) -> &TimeZone {
        self.settings.devices.get(&device).map_or(&self.settings.default_zone, |device| &device.zone)
    }

    pub(super) fn now(&self) -> Option<Timestamp> {
        self.anchors.wall(self.boot.id(), self.boot.now()).map(|wall| wall.at)
    }
}
