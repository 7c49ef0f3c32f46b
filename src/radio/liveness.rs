//! Whether values come, and what is done when they do not, without I/O and without a clock: events in, actions out.
//!
//! A link that is up proves nothing: controllers wedge and bluetoothd goes mute with everything "connected". So a device that
//! streams is held to its values. The rungs it keeps to: one device alone is reconnected and scanned for; the radio as a
//! whole is touched only when most devices are silent and none is heard, ever more seldom while it does not help.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::settings::Pace;
use crate::reading::DeviceId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything wanted of it is subscribed.
    Ready(DeviceId),
    Lost(DeviceId),
    /// A value of it arrived.
    Value(DeviceId),
    /// Whether there is an adapter that works, as BlueZ says.
    Usable(bool),
    /// Whether bluetoothd answered in time.
    Pinged(bool),
    /// A rung could not be taken: the unit is not installed, the call was refused.
    NotTaken(Rung),
    /// We ourselves were kept from taking values: nobody's silence counts.
    Stalled,
    /// Time passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    Reconnect,
    Rescan,
    /// The adapter off and on.
    PowerCycle,
    /// `bedrail-radio-reset.service`.
    Reset,
    /// The process ends, and systemd starts it again.
    Exit,
}

impl Rung {
    pub const fn name(self) -> &'static str {
        match self {
            Rung::Reconnect => "reconnect",
            Rung::Rescan => "rescan",
            Rung::PowerCycle => "power_cycle",
            Rung::Reset => "reset",
            Rung::Exit => "exit",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    pub rung: Rung,
    /// Whose silence it answers, where it is one device's.
    pub device: Option<DeviceId>,
}

/// Rungs that touch every device.
const WIDE: [Rung; 3] = [Rung::PowerCycle, Rung::Reset, Rung::Exit];
/// A device is suspected of a wedged radio once reconnecting and scanning did not help.
const SUSPECT_AFTER: u32 = 2;
/// bluetoothd may be busy once or twice; three pings in a row and it hangs.
const HUNG_AFTER: u32 = 3;
/// However long nothing helped, a device is tried this often, or as often as a value is expected of it.
const LONGEST_DEVICE: Duration = Duration::from_secs(60 * 60);
/// And the radio this often: somebody may have plugged in what was missing.
const LONGEST_WIDE: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Liveness {
    pace: Pace,
    watched: BTreeMap<DeviceId, Watched>,
    usable: bool,
    last_value: Option<Instant>,
    unanswered: u32,
    /// The next of `WIDE`.
    wide: usize,
    /// How often all of them were taken without a value since.
    rounds: u32,
    wide_not_before: Option<Instant>,
    rescan_not_before: Option<Instant>,
}

struct Watched {
    expect: Duration,
    ready: bool,
    /// It is read by what it advertises: there is no link that could be made anew.
    unlinked: bool,
    /// The last value, connection or rung.
    since: Option<Instant>,
    /// Rungs taken since the last value.
    steps: u32,
}

impl Watched {
    fn is_silent(&self) -> bool {
        self.steps > 0
    }

    fn is_known(&self) -> bool {
        self.ready || self.is_silent() || (self.unlinked && self.since.is_some())
    }

    fn due(&self, pace: &Pace) -> Option<Instant> {
        let since = self.since.filter(|_| self.is_known())?;
        let Some(doublings) = self.steps.checked_sub(1) else { return Some(since + self.expect) };
        let wait = self.expect.max(pace.climb);
        Some(since + wait.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_DEVICE.max(wait)))
    }
}

impl Liveness {
    /// `expected`: the devices that stream, and how long each may be silent while connected.
    pub fn new(pace: Pace, expected: impl IntoIterator<Item = (DeviceId, Duration)>) -> Self {
        let watched = |(id, expect)| (id, Watched { expect, ready: false, unlinked: false, since: None, steps: 0 });
        Self {
            pace,
            watched: expected.into_iter().map(watched).collect(),
            usable: false,
            last_value: None,
            unanswered: 0,
            wide: 0,
            rounds: 0,
            wide_not_before: None,
            rescan_not_before: None,
        }
    }

    #[must_use]
    pub fn with_unlinked(mut self, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        for device in devices {
            self.watched.entry(device).and_modify(|watched| watched.unlinked = true);
        }
        self
    }

    pub fn poll(&mut self, now: Instant, event: Event) -> Vec<Action> {
        self.note(now, event);
        // Without an adapter there is nothing to climb; a hung bluetoothd may never say that there is one.
        if !self.usable && !self.hangs() {
            return vec![];
        }
        let mut actions = self.narrow(now);
        actions.extend(self.wide(now));
        actions
    }

    /// Devices of which a value is overdue.
    pub fn silent(&self) -> impl Iterator<Item = DeviceId> {
        self.watched.iter().filter(|(_, watched)| watched.is_silent()).map(|(id, _)| *id)
    }

    fn note(&mut self, now: Instant, event: Event) {
        match event {
            Event::Ready(device) => {
                if let Some(watched) = self.watched.get_mut(&device) {
                    (watched.ready, watched.since) = (true, Some(now));
                }
            }
            Event::Lost(device) => {
                if let Some(watched) = self.watched.get_mut(&device) {
                    watched.ready = false;
                }
            }
            Event::Value(device) => {
                (self.last_value, self.wide, self.rounds, self.unanswered) = (Some(now), 0, 0, 0);
                if let Some(watched) = self.watched.get_mut(&device) {
                    (watched.since, watched.steps) = (Some(now), 0);
                }
            }
            Event::Usable(usable) => {
                self.usable = usable;
                self.grace(now);
            }
            Event::Pinged(true) => self.unanswered = 0,
            Event::Pinged(false) => self.unanswered = self.unanswered.saturating_add(1),
            Event::NotTaken(rung) if WIDE.contains(&rung) => self.wide_not_before = Some(now),
            Event::NotTaken(_) | Event::Tick => {}
            Event::Stalled => self.grace(now),
        }
    }

    /// Every device gets its whole time again.
    fn grace(&mut self, now: Instant) {
        self.watched.values_mut().filter(|watched| watched.since.is_some()).for_each(|watched| watched.since = Some(now));
    }

    fn narrow(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = vec![];
        for (id, watched) in &mut self.watched {
            if watched.due(&self.pace).is_none_or(|due| now < due) {
                continue;
            }
            (watched.steps, watched.since) = (watched.steps.saturating_add(1), Some(now));
            if watched.ready && watched.steps != SUSPECT_AFTER {
                actions.push(Action { rung: Rung::Reconnect, device: Some(*id) });
            } else if self.rescan_not_before.is_none_or(|at| now >= at) {
                self.rescan_not_before = Some(now + self.pace.climb);
                actions.push(Action { rung: Rung::Rescan, device: Some(*id) });
            }
        }
        actions
    }

    fn wide(&mut self, now: Instant) -> Option<Action> {
        let heard = self.last_value.is_some_and(|at| now.saturating_duration_since(at) < self.pace.climb);
        let early = self.wide_not_before.is_some_and(|at| now < at);
        if heard || early || !(self.hangs() || self.most_are_suspect()) {
            return None;
        }
        let mut next = self.wide;
        // A bluetoothd that does not answer switches no adapter.
        if self.hangs() && WIDE[next] == Rung::PowerCycle {
            next += 1;
        }
        // A process that never heard a value is as good as the one that would follow it.
        if WIDE[next] == Rung::Exit && self.last_value.is_none() {
            self.rounds = self.rounds.saturating_add(1);
            next = usize::from(self.hangs());
        }
        self.wide = (next + 1).min(WIDE.len() - 1);
        let wait = self.pace.between.saturating_mul(2u32.saturating_pow(self.rounds)).min(LONGEST_WIDE);
        self.wide_not_before = Some(now + wait);
        self.grace(now);
        Some(Action { rung: WIDE[next], device: None })
    }

    fn hangs(&self) -> bool {
        self.unanswered >= HUNG_AFTER
    }

    fn most_are_suspect(&self) -> bool {
        let known = self.watched.values().filter(|watched| watched.is_known()).count();
        let suspect = self.watched.values().filter(|watched| watched.steps >= SUSPECT_AFTER).count();
        suspect * 2 > known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EXPECT: Duration = Duration::from_secs(30);

    fn id(n: u8) -> DeviceId {
        DeviceId::new([0xC0, 0, 0, 0, 0, n])
    }

    fn liveness(devices: u8) -> Liveness {
        Liveness::new(Pace::default(), (0..devices).map(|n| (id(n), EXPECT)))
    }

    fn connected(devices: u8, now: Instant) -> Liveness {
        let mut liveness = liveness(devices);
        liveness.poll(now, Event::Usable(true));
        (0..devices).for_each(|n| drop(liveness.poll(now, Event::Ready(id(n)))));
        liveness
    }

    /// One second after the other, `each` first; every rung that is taken, and after how many seconds. Who is reconnected
    /// comes back the next second.
    fn climb(liveness: &mut Liveness, from: Instant, seconds: u64, each: impl Fn(u64) -> Vec<Event>) -> Vec<(Rung, u64)> {
        let mut taken = vec![];
        for second in 1..=seconds {
            let now = from + SECOND * u32::try_from(second).unwrap();
            let events = each(second).into_iter().chain([Event::Tick]);
            let actions: Vec<Action> = events.flat_map(|event| liveness.poll(now, event)).collect();
            for action in actions {
                taken.push((action.rung, second));
                if let (Rung::Reconnect, Some(device)) = (action.rung, action.device) {
                    liveness.poll(now, Event::Lost(device));
                    liveness.poll(now + SECOND, Event::Ready(device));
                }
            }
        }
        taken
    }

    fn first(taken: &[(Rung, u64)], rung: Rung) -> Option<u64> {
        taken.iter().find(|(taken, _)| *taken == rung).map(|(_, second)| *second)
    }

    #[test]
    fn silence_of_all_climbs_every_rung_in_order_and_ends_the_process() {
        let now = Instant::now();
        let mut liveness = connected(3, now);
        liveness.poll(now, Event::Value(id(0)));
        let taken = climb(&mut liveness, now, 3_600, |_| vec![]);
        let firsts: Vec<u64> = [Rung::Reconnect, Rung::Rescan, Rung::PowerCycle, Rung::Reset, Rung::Exit]
            .map(|rung| first(&taken, rung).unwrap())
            .into();
        assert_eq!(firsts[0], 30);
        assert!(firsts.is_sorted(), "{firsts:?}");
    }

    #[test]
    fn a_process_that_never_heard_anything_does_not_end_for_it_and_tries_ever_more_seldom() {
        let now = Instant::now();
        let taken = climb(&mut connected(1, now), now, 86_400, |_| vec![]);
        assert_eq!(first(&taken, Rung::Exit), None);
        let cycles: Vec<u64> = taken.iter().filter(|(rung, _)| *rung == Rung::PowerCycle).map(|(_, at)| *at).collect();
        let gaps: Vec<u64> = cycles.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() >= 3 && gaps.is_sorted() && gaps[2] >= 2 * gaps[0], "{gaps:?}");
    }

    #[test]
    fn one_silent_device_never_costs_the_others_their_radio() {
        let now = Instant::now();
        let others = |_| vec![Event::Value(id(1)), Event::Value(id(2))];
        let taken = climb(&mut connected(3, now), now, 7_200, others);
        assert!(first(&taken, Rung::Reconnect).is_some() && first(&taken, Rung::Rescan).is_some());
        assert!(taken.iter().all(|(rung, _)| *rung < Rung::PowerCycle), "{taken:?}");
        assert!(taken.len() < 20, "it is tried ever more seldom: {}", taken.len());
    }

    #[test]
    fn a_device_that_was_switched_off_or_is_episodic_is_never_silent() {
        let now = Instant::now();
        let mut liveness = connected(2, now);
        liveness.poll(now, Event::Lost(id(0)));
        liveness.poll(now, Event::Lost(id(1)));
        let episodic = id(9);
        liveness.poll(now, Event::Ready(episodic));
        assert_eq!(climb(&mut liveness, now, 7_200, |_| vec![]), []);
    }

    #[test]
    fn a_bluetoothd_that_hangs_is_reset_without_a_power_cycle_it_would_not_carry_out() {
        let now = Instant::now();
        let mut liveness = liveness(1);
        let ping = |second| if second % 30 == 0 { vec![Event::Pinged(false)] } else { vec![] };
        let taken = climb(&mut liveness, now, 300, ping);
        assert_eq!(taken, [(Rung::Reset, 90)]);
    }

    #[test]
    fn a_rung_that_is_not_there_is_passed_over() {
        let now = Instant::now();
        let mut liveness = connected(1, now);
        liveness.poll(now, Event::Value(id(0)));
        let taken = climb(&mut liveness, now, 900, |_| vec![]);
        let reset = first(&taken, Rung::Reset).unwrap();
        let at = now + SECOND * 900;
        assert_eq!(first(&taken, Rung::Exit), None, "not before its time: {reset}");
        let actions = liveness.poll(at, Event::NotTaken(Rung::Reset));
        assert_eq!(actions, [Action { rung: Rung::Exit, device: None }]);
    }

    #[test]
    fn a_device_that_is_read_by_its_advertisements_is_scanned_for_once_it_was_heard() {
        let now = Instant::now();
        let mut liveness = liveness(2).with_unlinked([id(0)]);
        liveness.poll(now, Event::Usable(true));
        assert_eq!(climb(&mut liveness, now, 3_600, |_| vec![]), [], "it may not be there yet");
        let now = now + SECOND * 3_600;
        liveness.poll(now, Event::Ready(id(1)));
        liveness.poll(now, Event::Value(id(0)));
        let other = |_| vec![Event::Value(id(1))];
        let taken = climb(&mut liveness, now, 3_600, other);
        assert!(!taken.is_empty() && taken.iter().all(|(rung, _)| *rung == Rung::Rescan), "{taken:?}");
        assert!(liveness.silent().eq([id(0)]));
    }

    #[test]
    fn our_own_standstill_is_nobodys_silence() {
        let now = Instant::now();
        let mut liveness = connected(2, now);
        assert_eq!(liveness.poll(now + EXPECT * 10, Event::Stalled), []);
        assert_eq!(liveness.poll(now + EXPECT * 11, Event::Tick).len(), 2);
    }

    proptest! {
        #[test]
        fn any_history_spaces_the_rungs_and_touches_nobody_who_is_heard(
            history in proptest::collection::vec((0u8..8, 0u8..5, 0u64..120), 0..400),
        ) {
            let (mut liveness, mut now) = (liveness(4), Instant::now());
            let (mut heard, mut passed_over) = (None, false);
            let mut last: BTreeMap<Rung, Instant> = BTreeMap::new();
            let mut values: BTreeMap<DeviceId, Instant> = BTreeMap::new();
            for (what, which, wait) in history {
                now += SECOND * u32::try_from(wait).unwrap();
                let device = id(which);
                let event = match what {
                    0 => Event::Ready(device),
                    1 => Event::Lost(device),
                    2 => Event::Value(device),
                    3 => Event::Usable(which > 0),
                    4 => Event::Pinged(which > 2),
                    5 if which == 0 => Event::NotTaken(Rung::Reset),
                    _ => Event::Tick,
                };
                if event == Event::Value(device) {
                    heard = Some(now);
                    values.insert(device, now);
                }
                passed_over |= event == Event::NotTaken(Rung::Reset);
                for action in liveness.poll(now, event) {
                    let pace = Pace::default();
                    if action.rung >= Rung::PowerCycle {
                        prop_assert!(heard.is_none_or(|at| now - at >= pace.climb), "{:?} while values come", action.rung);
                        let space = last.get(&action.rung).map(|at| now - *at);
                        prop_assert!(passed_over || space.is_none_or(|space| space >= pace.between), "{:?} too soon", action.rung);
                        prop_assert!(action.rung != Rung::Exit || heard.is_some());
                        last.insert(action.rung, now);
                    }
                    if let Some(device) = action.device {
                        prop_assert!(device < id(4), "nothing is expected of it");
                        prop_assert!(values.get(&device).is_none_or(|at| now - *at >= EXPECT), "it was just heard");
                    }
                }
            }
        }
    }
}
