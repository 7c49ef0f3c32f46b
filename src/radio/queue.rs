//! Who may connect next through one adapter, without I/O and without a clock.
//!
//! The rules it keeps: one connects at a time; there are never more links than the adapter has slots; the more urgent device
//! goes first, but whoever has waited long goes before anybody; and when all slots are taken, whoever has had its turn is
//! asked to make room, so that nobody waits for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::settings::{Priority, Sharing};
use crate::reading::DeviceId;

/// What the queue has to know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub priority: Priority,
    /// It goes on telling values while it is connected.
    pub streams: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The device may connect, and has a slot until it is `free`.
    Grant(DeviceId),
    /// The device should end its link and ask anew.
    MakeRoom(DeviceId),
}

pub struct Queue {
    sharing: Sharing,
    waiting: BTreeMap<DeviceId, Waiting>,
    holding: BTreeMap<DeviceId, Holding>,
    connecting: Option<DeviceId>,
}

struct Waiting {
    standing: Standing,
    since: Instant,
    /// BlueZ made the link by itself: it takes nobody's slot that it does not take already.
    linked: bool,
}

struct Holding {
    standing: Standing,
    since: Instant,
    heard: Instant,
    asked: Option<Instant>,
}

impl Queue {
    pub fn new(sharing: Sharing) -> Self {
        Self { sharing, waiting: BTreeMap::new(), holding: BTreeMap::new(), connecting: None }
    }

    pub fn ask(&mut self, now: Instant, device: DeviceId, standing: Standing, linked: bool) {
        self.waiting.insert(device, Waiting { standing, since: now, linked });
    }

    /// It no longer waits.
    pub fn withdraw(&mut self, device: DeviceId) {
        self.waiting.remove(&device);
    }

    /// It connects no more; the next may. It keeps its slot.
    pub fn connected(&mut self, device: DeviceId) {
        if self.connecting == Some(device) {
            self.connecting = None;
        }
    }

    /// Its link is gone, or never came about.
    pub fn free(&mut self, device: DeviceId) {
        self.connected(device);
        self.holding.remove(&device);
    }

    /// A value of it came.
    pub fn heard(&mut self, now: Instant, device: DeviceId) {
        if let Some(holding) = self.holding.get_mut(&device) {
            holding.heard = now;
        }
    }

    pub fn is_connecting(&self) -> bool {
        self.connecting.is_some()
    }

    pub fn taken(&self) -> usize {
        self.holding.len()
    }

    pub fn waiting(&self) -> impl Iterator<Item = DeviceId> {
        self.waiting.keys().copied()
    }

    pub fn poll(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.connecting.is_none()
            && let Some(device) = self.next(now)
        {
            let Waiting { standing, .. } = self.waiting.remove(&device).expect("it was just found there");
            self.holding.insert(device, Holding { standing, since: now, heard: now, asked: None });
            self.connecting = Some(device);
            effects.push(Effect::Grant(device));
        }
        effects.extend(self.make_room(now).map(Effect::MakeRoom));
        effects
    }

    /// Of those for whom there is a slot.
    fn next(&self, now: Instant) -> Option<DeviceId> {
        let full = self.holding.len() >= self.sharing.slots;
        let fits = self.waiting.iter().filter(|(_, waiting)| waiting.linked || !full);
        fits.min_by_key(|(_, waiting)| waiting.order(now, &self.sharing)).map(|(device, _)| *device)
    }

    /// One at a time, and only for somebody who waits for a slot.
    fn make_room(&mut self, now: Instant) -> Option<DeviceId> {
        let asked =
            |holding: &Holding| holding.asked.is_some_and(|asked| now.saturating_duration_since(asked) < self.sharing.ask_again);
        if self.holding.len() < self.sharing.slots || self.holding.values().any(asked) {
            return None;
        }
        let unlinked = self.waiting.values().filter(|waiting| !waiting.linked);
        let next = unlinked.min_by_key(|waiting| waiting.order(now, &self.sharing))?;
        let (waited, priority) = (now.saturating_duration_since(next.since), next.standing.priority);
        let (connecting, sharing) = (self.connecting, self.sharing);
        let ready = |(device, holding): &(&DeviceId, &mut Holding)| {
            connecting != Some(**device) && holding.makes_room(now, &sharing, waited, priority)
        };
        // The less urgent first, then who has had its link longest.
        let candidates = self.holding.iter_mut().filter(ready);
        let (device, holding) = candidates.min_by_key(|(_, held)| (held.standing.streams, held.standing.priority, held.since))?;
        holding.asked = Some(now);
        Some(*device)
    }
}

impl Waiting {
    /// Smallest first.
    fn order(&self, now: Instant, sharing: &Sharing) -> (bool, std::cmp::Reverse<Priority>, Instant) {
        let long = now.saturating_duration_since(self.since) >= sharing.patience;
        let priority = if long { Priority::High } else { self.standing.priority };
        (!long, std::cmp::Reverse(priority), self.since)
    }
}

impl Holding {
    fn makes_room(&self, now: Instant, sharing: &Sharing, waited: Duration, for_whom: Priority) -> bool {
        let done = !self.standing.streams && now.saturating_duration_since(self.heard) >= sharing.done;
        let patience = if for_whom < self.standing.priority { sharing.patience_below } else { sharing.patience };
        done || (now.saturating_duration_since(self.since) >= sharing.tenure && waited >= patience)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: Sharing = Sharing::DEFAULT;

    const MONITOR: Standing = Standing { priority: Priority::High, streams: true };
    const SPOT: Standing = Standing { priority: Priority::Normal, streams: false };

    fn device(n: usize) -> DeviceId {
        DeviceId::new([0xC0, 0, 0, 0, 0, u8::try_from(n).unwrap()])
    }

    fn queue(slots: usize) -> Queue {
        Queue::new(Sharing { slots, ..TIMES })
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn monitors_go_before_spot_devices_and_who_has_waited_long_before_all() {
        let (mut queue, now) = (queue(9), Instant::now());
        queue.ask(now, device(0), SPOT, false);
        assert_eq!(queue.poll(now), [Effect::Grant(device(0))]);
        queue.ask(now, device(1), SPOT, false);
        queue.ask(now + seconds(1), device(2), MONITOR, false);
        assert_eq!(queue.poll(now + seconds(2)), [], "one at a time");
        queue.connected(device(0));
        assert_eq!(queue.poll(now + seconds(2)), [Effect::Grant(device(2))]);
        queue.ask(now + seconds(3), device(3), MONITOR, false);
        queue.connected(device(2));
        assert_eq!(queue.poll(now + TIMES.patience), [Effect::Grant(device(1))]);
    }

    #[test]
    fn a_spot_device_that_is_done_makes_room_and_one_that_still_tells_does_not() {
        let (mut queue, now) = (queue(2), Instant::now());
        for n in 0..2 {
            queue.ask(now, device(n), SPOT, false);
            queue.poll(now);
            queue.connected(device(n));
        }
        queue.ask(now, device(2), SPOT, false);
        queue.heard(now + seconds(10), device(0));
        assert_eq!(queue.poll(now + TIMES.done - seconds(1)), []);
        assert_eq!(queue.poll(now + TIMES.done), [Effect::MakeRoom(device(1))]);
        assert_eq!(queue.poll(now + TIMES.done + seconds(12)), [], "one is enough for one who waits");
        queue.free(device(1));
        assert_eq!(queue.poll(now + TIMES.done + seconds(12)), [Effect::Grant(device(2))]);
    }

    #[test]
    fn a_device_that_is_done_keeps_its_link_while_nobody_waits() {
        let (mut queue, now) = (queue(1), Instant::now());
        queue.ask(now, device(0), SPOT, false);
        queue.poll(now);
        queue.connected(device(0));
        assert_eq!(queue.poll(now + TIMES.done * 100), []);
    }

    #[test]
    fn a_monitor_keeps_its_link_for_its_tenure_and_longer_from_who_is_less_urgent() {
        let (mut queue, now) = (queue(1), Instant::now());
        queue.ask(now, device(0), MONITOR, false);
        queue.poll(now);
        queue.connected(device(0));
        let asked = now + TIMES.tenure;
        queue.ask(asked, device(1), SPOT, false);
        assert_eq!(queue.poll(asked + TIMES.patience), []);
        assert_eq!(queue.poll(asked + TIMES.patience_below), [Effect::MakeRoom(device(0))]);
        assert_eq!(queue.poll(asked + TIMES.patience_below + TIMES.ask_again), [Effect::MakeRoom(device(0))], "it did not hear");
    }

    #[test]
    fn a_link_that_is_there_already_needs_no_slot_but_its_turn() {
        let (mut queue, now) = (queue(1), Instant::now());
        queue.ask(now, device(0), MONITOR, false);
        queue.poll(now);
        queue.ask(now, device(1), SPOT, true);
        assert_eq!(queue.poll(now), []);
        queue.connected(device(0));
        assert_eq!(queue.poll(now), [Effect::Grant(device(1))]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Life {
        Idle { until: u64 },
        Waiting { since: u64 },
        Connecting { until: u64, works: bool },
        Linked { until: u64, value_every: u64 },
        Leaving { until: u64 },
    }

    /// The longest an attempt may take, its end included, and the longest a device takes to leave.
    const ATTEMPT: u64 = 45;
    const LEAVING: u64 = 12;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Devices that connect, fail, stream, fall silent and come back at random, for four hours in steps of a second.
        #[test]
        fn no_device_starves_no_slot_is_given_twice_and_one_connects_at_a_time(
            slots in 1usize..6,
            kinds in proptest::collection::vec((0u8..3, any::<bool>()), 1..12),
            seed in any::<u64>(),
        ) {
            let priorities = [Priority::Low, Priority::Normal, Priority::High];
            let standing: Vec<Standing> = kinds
                .iter()
                .map(|(rank, streams)| Standing { priority: priorities[usize::from(*rank)], streams: *streams })
                .collect();
            let (mut queue, start, mut dice) = (queue(slots), Instant::now(), seed);
            let mut roll = |below: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % below
            };
            let mut lives = vec![Life::Idle { until: 0 }; standing.len()];
            let turn = TIMES.tenure.as_secs().max(TIMES.patience_below.as_secs()) + TIMES.ask_again.as_secs() + ATTEMPT + LEAVING;
            // Everybody else twice: those who stood before it, and those who made room for them.
            let longest = TIMES.patience.as_secs() + 2 * standing.len() as u64 * turn;
            for second in 0..4 * 3600u64 {
                let now = start + seconds(second);
                for (n, life) in lives.iter_mut().enumerate() {
                    *life = match *life {
                        Life::Idle { until } if second >= until => {
                            queue.ask(now, device(n), standing[n], false);
                            Life::Waiting { since: second }
                        }
                        Life::Waiting { since } => {
                            prop_assert!(second - since <= longest, "device {n} of {kinds:?} on {slots} slots starves");
                            *life
                        }
                        Life::Connecting { until, works } if second >= until => {
                            if works {
                                queue.connected(device(n));
                                let until = if roll(4) == 0 { second + roll(600) } else { u64::MAX };
                                Life::Linked { until, value_every: 1 + roll(40) }
                            } else {
                                queue.free(device(n));
                                Life::Idle { until: second + 1 + roll(60) }
                            }
                        }
                        Life::Linked { until, value_every } => {
                            // Some never fall silent.
                            if second % value_every == 0 && (value_every < 8 || second % 900 < 600) {
                                queue.heard(now, device(n));
                            }
                            if second >= until {
                                queue.free(device(n));
                                Life::Idle { until: second + 1 + roll(60) }
                            } else {
                                *life
                            }
                        }
                        Life::Leaving { until } if second >= until => {
                            queue.free(device(n));
                            Life::Idle { until: second + 1 + roll(60) }
                        }
                        other => other,
                    };
                }
                for effect in queue.poll(now) {
                    match effect {
                        Effect::Grant(granted) => {
                            let n = usize::from(granted.octets()[5]);
                            let connecting = lives.iter().filter(|life| matches!(life, Life::Connecting { .. })).count();
                            prop_assert_eq!(connecting, 0, "two connect at once");
                            prop_assert!(matches!(lives[n], Life::Waiting { .. }), "it did not ask");
                            lives[n] = Life::Connecting { until: second + 1 + roll(ATTEMPT - 1), works: roll(5) > 0 };
                        }
                        Effect::MakeRoom(asked) => {
                            let n = usize::from(asked.octets()[5]);
                            prop_assert!(matches!(lives[n], Life::Linked { .. } | Life::Leaving { .. }), "it has no link");
                            // Now and then it does not listen.
                            if roll(4) > 0 && matches!(lives[n], Life::Linked { .. }) {
                                lives[n] = Life::Leaving { until: second + 1 + roll(LEAVING - 1) };
                            }
                        }
                    }
                }
                let taken = lives.iter().filter(|life| !matches!(life, Life::Idle { .. } | Life::Waiting { .. })).count();
                prop_assert!(taken <= slots && queue.taken() == taken, "{taken} links on {slots} slots");
            }
        }
    }
}
