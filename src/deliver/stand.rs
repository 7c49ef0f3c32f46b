//! What a route does about records its destination did not take and may take later: pure. Time is what has passed since the
//! route began, chance is a number.
//!
//! The route **stands still** after such an answer: nothing goes until a wait is over, then a few records are tried. As soon
//! as one is taken everything goes on, and the sources (streams) refused beside it are **parked**: their records are held,
//! and one of each is sent as a probe now and then. So one topic that nobody hears, or that an access rule forgot, holds up
//! itself and no other; and a destination that takes nothing gets a handful of messages a few minutes, not a storm. Nobody
//! has to come: what is taken again goes again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::retry::Backoff;
use super::{FaultClass, Source};
use crate::reading::Seq;
use crate::ward::HoldReason;

/// Records tried after a wait: enough to meet more than one topic and to get past one record the destination can't bear,
/// few enough for a broker that logs each denial.
const TRIAL: usize = 8;
/// A record refused so often without a reason, while others were taken, is the trouble itself.
const MAX_TRIES: u32 = 5;
/// From parking a source to its first probe.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// Records whose refusals are counted at once; a window of MQTT is smaller.
const MAX_TRIED: usize = 1_024;

/// Why a record was not taken that may be taken later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nobody listens.
    Unheard,
    /// Not allowed to this gateway.
    Forbidden,
    /// More than the destination takes now.
    Quota,
    /// It does not say.
    Refused,
}

impl Why {
    pub fn of_hold(reason: HoldReason) -> Option<Self> {
        [Why::Unheard, Why::Forbidden].into_iter().find(|why| why.hold_reason() == Some(reason))
    }

    pub const fn class(self) -> FaultClass {
        match self {
            Why::Unheard => FaultClass::Unheard,
            Why::Forbidden => FaultClass::NotAuthorized,
            Why::Quota => FaultClass::Quota,
            Why::Refused => FaultClass::Refused,
        }
    }

    /// What a parked source is held for; `None`: it is no matter of a topic.
    pub const fn hold_reason(self) -> Option<HoldReason> {
        match self {
            Why::Unheard => Some(HoldReason::Unheard),
            Why::Forbidden => Some(HoldReason::Forbidden),
            Why::Quota | Why::Refused => None,
        }
    }

    /// A person has to change access rules: that takes minutes. The rest may pass at any moment.
    const fn backoff(self) -> Backoff {
        match self {
            Why::Forbidden => Backoff::between(Duration::from_secs(5), Duration::from_secs(300)),
            Why::Quota => Backoff::between(Duration::from_secs(2), Duration::from_secs(60)),
            Why::Unheard | Why::Refused => Backoff::between(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

/// What to do with a record that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It stays owed.
    Owed,
    /// It was a probe of a parked source: held as before.
    Parked,
    /// It will never be taken.
    Dead,
}

#[derive(Debug, Default)]
pub struct Stand {
    standing: Option<Standing>,
    parked: BTreeMap<Source, Parked>,
    tries: BTreeMap<Seq, Tries>,
    /// Records taken so far.
    taken: u64,
    /// Records that go one at a time: after the destination hung up over a message and did not say which.
    singly: usize,
}

#[derive(Debug)]
struct Standing {
    why: Why,
    detail: String,
    until: Duration,
    backoff: Backoff,
    /// Records still to be tried; `None` while it waits.
    trial: Option<usize>,
    /// Refused since the last trial began.
    refused: BTreeMap<Source, Why>,
}

#[derive(Debug)]
struct Parked {
    why: Why,
    next: Duration,
    backoff: Backoff,
    probing: bool,
}

#[derive(Debug)]
struct Tries {
    count: u32,
    taken_before: u64,
}

impl Stand {
    /// How many records may go now, with so many in flight.
    pub fn room(&mut self, now: Duration, in_flight: usize) -> usize {
        if self.singly > 0 {
            return usize::from(in_flight == 0 && self.standing_room(now, in_flight) > 0);
        }
        self.standing_room(now, in_flight)
    }

    fn standing_room(&mut self, now: Duration, in_flight: usize) -> usize {
        let Some(standing) = &mut self.standing else { return usize::MAX };
        if standing.trial.is_none() && standing.until <= now && in_flight == 0 {
            standing.trial = Some(TRIAL);
            standing.refused.clear();
        }
        standing.trial.unwrap_or(0)
    }

    /// A record went out.
    pub fn sent(&mut self) {
        if let Some(Standing { trial: Some(left), .. }) = &mut self.standing {
            *left = left.saturating_sub(1);
        }
    }

    /// A record was taken. Answers which sources are parked from now on.
    pub fn taken(&mut self, source: &Source, seq: Seq, now: Duration) -> Vec<Source> {
        self.taken += 1;
        self.tries.remove(&seq);
        self.answered();
        // What was under way with a refused one says something of topics, nothing of whether more may follow.
        let ends = |standing: &mut Standing| standing.trial.is_some() || standing.why.hold_reason().is_some();
        let Some(mut standing) = self.standing.take_if(ends) else { return Vec::new() };
        standing.refused.remove(source);
        let parked: Vec<Source> =
            standing.refused.iter().filter(|(_, why)| why.hold_reason().is_some()).map(|(source, _)| *source).collect();
        for (source, why) in standing.refused {
            self.park(source, why, now + FIRST_PROBE);
        }
        parked
    }

    /// A record was not taken.
    pub fn refused(&mut self, source: &Source, seq: Seq, why: Why, detail: &str, now: Duration, chance: u32) -> Refused {
        self.answered();
        if let Some(parked) = self.parked.get_mut(source)
            && parked.probing
        {
            parked.probing = false;
            parked.next = now + parked.backoff.next(chance);
            return Refused::Parked;
        }
        if why == Why::Refused && self.is_hopeless(seq) {
            return Refused::Dead;
        }
        let standing = self.standing.get_or_insert_with(|| {
            let mut backoff = why.backoff();
            Standing {
                why,
                detail: String::new(),
                until: now + backoff.next(chance),
                backoff,
                trial: None,
                refused: BTreeMap::new(),
            }
        });
        if standing.trial.take().is_some() {
            standing.until = now + standing.backoff.next(chance);
        }
        if standing.why != why {
            (standing.why, standing.backoff) = (why, why.backoff());
        }
        detail.clone_into(&mut standing.detail);
        standing.refused.insert(*source, why);
        Refused::Owed
    }

    /// The record is gone: sent in vain, or no longer there.
    pub fn gone(&mut self, seq: Seq) {
        self.tries.remove(&seq);
        self.answered();
    }

    /// The connection ended; a trial and the probes on it came to nothing.
    pub fn link_down(&mut self, now: Duration, chance: u32) {
        if let Some(standing) = &mut self.standing
            && standing.trial.take().is_some()
        {
            standing.until = now + standing.backoff.next(chance);
        }
        for parked in self.parked.values_mut().filter(|parked| parked.probing) {
            parked.probing = false;
            parked.next = now + parked.backoff.next(chance);
        }
    }

    /// The next so many records go one at a time.
    pub fn one_at_a_time(&mut self, records: usize) {
        self.singly = records;
    }

    /// Somebody says that it may go again: everything is tried at once.
    pub fn try_now(&mut self, now: Duration) {
        if let Some(standing) = &mut self.standing {
            standing.until = standing.until.min(now);
        }
        for parked in self.parked.values_mut() {
            parked.next = parked.next.min(now);
        }
    }

    /// Why nothing goes, for people.
    pub fn standing(&self) -> Option<(Why, &str)> {
        self.standing.as_ref().map(|standing| (standing.why, standing.detail.as_str()))
    }

    /// Holds back a source from now on; the first probe is due at `next`.
    pub fn park(&mut self, source: Source, why: Why, next: Duration) {
        if why.hold_reason().is_some() {
            self.parked.entry(source).or_insert(Parked { why, next, backoff: why.backoff(), probing: false });
        }
    }

    pub fn is_parked(&self, source: &Source) -> Option<HoldReason> {
        self.parked.get(source).and_then(|parked| parked.why.hold_reason())
    }

    /// A parked source of which one record may be sent now; not while the route stands still.
    pub fn probe_due(&self, now: Duration) -> Option<Source> {
        let due = |parked: &Parked| !parked.probing && parked.next <= now;
        self.parked.iter().find(|(_, parked)| self.standing.is_none() && due(parked)).map(|(source, _)| *source)
    }

    pub fn probing(&mut self, source: &Source) {
        if let Some(parked) = self.parked.get_mut(source) {
            parked.probing = true;
        }
    }

    /// Its records go again. `true` if it was parked.
    pub fn unpark(&mut self, source: &Source) -> bool {
        self.parked.remove(source).is_some()
    }

    /// When [`Stand::room`] or [`Stand::probe_due`] may say something else without anything happening.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let standing = self.standing.as_ref().filter(|standing| standing.trial.is_none()).map(|standing| standing.until);
        let probes = self.parked.values().filter(|parked| !parked.probing && self.standing.is_none()).map(|parked| parked.next);
        standing.into_iter().chain(probes).filter(|at| *at > now).min()
    }

    fn answered(&mut self) {
        self.singly = self.singly.saturating_sub(1);
    }

    fn is_hopeless(&mut self, seq: Seq) -> bool {
        let taken = self.taken;
        let tries = self.tries.entry(seq).or_insert(Tries { count: 0, taken_before: taken });
        tries.count += 1;
        let hopeless = tries.count >= MAX_TRIES && taken > tries.taken_before;
        if hopeless {
            self.tries.remove(&seq);
        } else if self.tries.len() > MAX_TRIED {
            self.tries.pop_last();
        }
        hopeless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{DeviceId, Metric, Modality, StreamKey};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn source(n: u8) -> Source {
        let device = DeviceId::new([n; 6]);
        (device, Some(StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Continuous }))
    }

    fn refuse(stand: &mut Stand, n: u8, seq: u64, why: Why, now: Duration) -> Refused {
        stand.refused(&source(n), Seq(seq), why, "why", now, u32::MAX / 2)
    }

    /// Waits until a trial may begin; answers when that was.
    fn trial(stand: &mut Stand, now: Duration) -> Duration {
        assert_eq!(stand.room(now, 0), 0, "it stands still");
        let at = stand.wake(now).expect("it goes on by itself");
        assert_eq!(stand.room(at, 1), 0, "not before everything is answered");
        assert_eq!(stand.room(at, 0), TRIAL);
        at
    }

    #[test]
    fn while_everything_is_refused_a_handful_is_tried_every_few_minutes() {
        let mut stand = Stand::default();
        assert_eq!(stand.room(S(0), 0), usize::MAX);
        (0..20).for_each(|n| assert_eq!(refuse(&mut stand, n, n.into(), Why::Forbidden, S(0)), Refused::Owed));
        assert_eq!(stand.standing(), Some((Why::Forbidden, "why")));
        let (mut now, mut tried) = (S(0), 0);
        while now < S(3_600) {
            now = trial(&mut stand, now);
            for n in 0..TRIAL {
                stand.sent();
                refuse(&mut stand, n as u8, n as u64, Why::Forbidden, now);
                tried += 1;
            }
        }
        assert!((60..=800).contains(&tried), "{tried} messages in an hour");
        now = trial(&mut stand, now);
        assert_eq!(stand.taken(&source(1), Seq(1), now), [], "allowed again, and nothing refused beside it");
        assert_eq!(stand.room(now, 0), usize::MAX);
    }

    #[test]
    fn what_is_refused_beside_something_taken_is_parked_and_the_rest_goes_on() {
        let mut stand = Stand::default();
        refuse(&mut stand, 1, 1, Why::Unheard, S(0));
        assert_eq!(stand.room(S(0), 3), 0);
        assert_eq!(stand.taken(&source(2), Seq(2), S(0)), [source(1)]);
        assert_eq!(stand.room(S(0), 3), usize::MAX);
        assert_eq!((stand.is_parked(&source(1)), stand.is_parked(&source(2))), (Some(HoldReason::Unheard), None));

        // Probed more and more rarely, and once a minute in the end.
        let (mut now, mut probes) = (FIRST_PROBE, 0);
        while now < S(3_600) {
            let due = stand.probe_due(now).expect("due");
            stand.probing(&due);
            assert_eq!(stand.probe_due(now), None, "one at a time");
            assert_eq!(refuse(&mut stand, 1, 1, Why::Unheard, now), Refused::Parked);
            now = stand.wake(now).expect("again later");
            probes += 1;
        }
        assert!((50..=120).contains(&probes), "{probes} in an hour");
        assert!(stand.unpark(&source(1)) && !stand.unpark(&source(1)));
        assert_eq!((stand.probe_due(now), stand.wake(now)), (None, None));
    }

    #[test]
    fn a_source_refused_and_then_taken_in_one_flight_is_not_parked() {
        let mut stand = Stand::default();
        refuse(&mut stand, 1, 1, Why::Forbidden, S(0));
        assert_eq!(stand.taken(&source(1), Seq(2), S(0)), []);
    }

    #[test]
    fn a_record_refused_without_a_reason_dies_only_where_others_are_taken() {
        let mut stand = Stand::default();
        let mut now = S(0);
        for _ in 0..50 {
            assert_eq!(refuse(&mut stand, 1, 1, Why::Refused, now), Refused::Owed, "a broker that takes nothing kills nothing");
            now = trial(&mut stand, now);
        }
        stand.taken(&source(2), Seq(2), now);
        assert_eq!(refuse(&mut stand, 1, 1, Why::Refused, now), Refused::Dead);

        let mut stand = Stand::default();
        let (mut now, mut outcomes) = (S(0), Vec::new());
        for n in 0..MAX_TRIES {
            outcomes.push(refuse(&mut stand, 1, 1, Why::Refused, now));
            stand.taken(&source(2), Seq(10 + u64::from(n)), now);
            if n + 1 < MAX_TRIES {
                now = trial(&mut stand, now);
                stand.taken(&source(2), Seq(20 + u64::from(n)), now);
            }
        }
        assert_eq!(outcomes, [Refused::Owed, Refused::Owed, Refused::Owed, Refused::Owed, Refused::Dead]);
        assert_eq!(stand.is_parked(&source(1)), None, "it is the record, not its topic");
        assert!(now >= S(u64::from(MAX_TRIES) - 1), "with pauses between: {now:?}");
    }

    #[test]
    fn too_much_is_not_over_because_something_under_way_was_taken() {
        let mut stand = Stand::default();
        refuse(&mut stand, 1, 1, Why::Quota, S(0));
        stand.taken(&source(2), Seq(2), S(0));
        let at = trial(&mut stand, S(0));
        stand.taken(&source(1), Seq(1), at);
        assert_eq!(stand.room(at, 0), usize::MAX);
    }

    #[test]
    fn a_broker_that_hangs_up_over_a_trial_is_not_stormed() {
        let mut stand = Stand::default();
        refuse(&mut stand, 1, 1, Why::Forbidden, S(0));
        let at = trial(&mut stand, S(0));
        stand.link_down(at, u32::MAX / 2);
        assert_eq!(stand.room(at, 0), 0, "the next connection waits too");
        stand.try_now(at);
        assert_eq!(stand.room(at, 0), TRIAL, "unless a person says so");
    }

    #[test]
    fn records_go_one_at_a_time_until_the_suspects_are_through() {
        let mut stand = Stand::default();
        stand.one_at_a_time(2);
        for n in 0..2 {
            assert_eq!((stand.room(S(0), 0), stand.room(S(0), 1)), (1, 0));
            stand.taken(&source(1), Seq(n), S(0));
        }
        assert_eq!(stand.room(S(0), 5), usize::MAX);
    }
}
