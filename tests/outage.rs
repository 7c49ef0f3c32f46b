//! Seventy-two hours without a link, in simulated time: the planner and the retry alone, driven by one seed, with a log that
//! is numbers. Everything owed arrives, live values first, in order, and no state of a route grows with the outage.

#![allow(clippy::unwrap_used)]

#[path = "outage/link.rs"]
mod link;
#[path = "outage/log.rs"]
mod log;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedrail::config::Order;
use bedrail::deliver::{Backoff, Carry, FaultClass, Lane, Planner};
use bedrail::reading::Seq;
use bedrail::store::{Lanes, OPEN, Runs};
use link::{Connection, Weather};
use log::{Kind, Log, sent};

const HOURS: u64 = 72;
const OUTAGE_MS: u64 = HOURS * 3_600_000;
const WINDOW: usize = 64;
/// Of it for the backlog at most.
const SHARE: usize = WINDOW * 3 / 4;
/// The simulation's step while a link is up, in ms.
const STEP: u64 = 5;
/// After everything has arrived it goes on for so long, so that live values are seen alone too.
const AFTERWARDS_MS: u64 = 60_000;
/// Every wait of the retry; the constant of `deliver/retry.rs` is a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A full ward where it may take minutes (`make long-outage`), a quarter of it otherwise: what a test build does in seconds.
fn ward() -> Log {
    Log { devices: if std::env::var_os("BEDRAIL_LONG").is_some() { 64 } else { 16 } }
}

fn readings() -> Carry {
    Carry { readings: true, ..Carry::default() }
}

fn quarters() -> Carry {
    Carry { windows: [900].into(), ..Carry::default() }
}

#[test]
fn three_days_of_readings_arrive_after_an_outage_live_ones_first() {
    let figures = Sim::new(ward(), readings(), 1).run(&Weather::outage(OUTAGE_MS));
    figures.print("72 h outage, readings");
    assert_eq!(figures.repeats, 0);
    assert!(figures.tries >= OUTAGE_MS / 60_000, "a link that comes back is found within a minute");
}

#[test]
fn three_days_of_a_link_that_comes_for_moments_lose_nothing() {
    let mut random = Random(2);
    let weather = Weather::flapping(OUTAGE_MS, 700, 5_000, || random.next());
    let figures = Sim::new(ward(), readings(), 3).run(&weather);
    figures.print("72 h flapping, readings");
    assert!(figures.connections > 1_000 && figures.repeats > 1_000, "the link did not break in mid-flight: {figures:?}");
    assert!(figures.most_runs > Planner::MAX_RUNS, "the limit of the runs was never met: {}", figures.most_runs);
}

#[test]
fn a_route_of_windows_passes_by_three_days_of_readings() {
    let figures = Sim::new(ward(), quarters(), 5).run(&Weather::outage(OUTAGE_MS));
    figures.print("72 h outage, windows of 15 min");
    assert_eq!(figures.arrived, ward().devices * HOURS * 4);
}

#[derive(Debug, Default)]
struct Figures {
    arrived: u64,
    repeats: u64,
    tries: u64,
    connections: u64,
    longest_wait: Duration,
    most_runs: usize,
    most_in_flight: usize,
    drained_ms: u64,
    /// From a live value's being in the log to its arrival, while the backlog drains and afterwards: how many, by ms.
    live: [BTreeMap<u64, u64>; 2],
    took: Duration,
}

impl Figures {
    fn print(&self, what: &str) {
        let [during, afterwards] = [0, 1].map(|phase| percentile(&self.live[phase], 99));
        println!(
            "{what}: {} arrived, {} repeats, {} tries, {} connections, longest wait {:.1} s, most runs {}, most in flight {}, \
             drained in {} min, live p99 {during} ms then {afterwards} ms (simulated); took {:.1} s",
            self.arrived,
            self.repeats,
            self.tries,
            self.connections,
            self.longest_wait.as_secs_f64(),
            self.most_runs,
            self.most_in_flight,
            self.drained_ms / 60_000,
            self.took.as_secs_f64()
        );
    }
}

fn percentile(counts: &BTreeMap<u64, u64>, per_cent: u64) -> u64 {
    let (all, mut below) = (counts.values().sum::<u64>(), 0);
    let reached = counts.iter().find(|(_, count)| {
        below += **count;
        below * 100 >= all * per_cent
    });
    reached.map_or(0, |(ms, _)| *ms)
}

/// One route and its ward. What it is held against is a bit for each record, and the last record of each stream and lane.
struct Sim {
    log: Log,
    sends: Box<dyn Fn(Kind) -> bool>,
    planner: Planner,
    backoff: Backoff,
    random: Random,
    arrived: Bits,
    settled: Bits,
    last: Vec<u64>,
    /// The next of the live lane that has not been met on this connection.
    next_live: u64,
    figures: Figures,
}

impl Sim {
    fn new(log: Log, carry: Carry, seed: u64) -> Self {
        let lanes = Lanes { live: [(Seq(1), OPEN)].into_iter().collect(), backlog: Runs::default() };
        Self {
            log,
            sends: Box::new(sent(carry)),
            planner: Planner::new(Order::LiveFirst, WINDOW, lanes),
            backoff: Backoff::default(),
            random: Random(seed),
            arrived: Bits::default(),
            settled: Bits::default(),
            last: vec![0; log.devices as usize * 6],
            next_live: 0,
            figures: Figures::default(),
        }
    }

    fn run(mut self, weather: &Weather) -> Figures {
        let started = Instant::now();
        let mut now = 0;
        loop {
            self.figures.tries += 1;
            if let Some(until) = weather.up_until(now) {
                now = self.connected(now, until);
                if until == u64::MAX {
                    break;
                }
            }
            let wait = self.backoff.after(FaultClass::Unreachable, self.random.next() as u32);
            assert!(wait <= LONGEST_WAIT, "a wait of {wait:?}");
            self.figures.longest_wait = self.figures.longest_wait.max(wait);
            now += u64::try_from(wait.as_millis()).unwrap();
        }
        self.everything_arrived(now);
        self.figures.took = started.elapsed();
        self.figures
    }

    /// One connection, until the link breaks, or until all has arrived where it does not. Answers when that was.
    fn connected(&mut self, from: u64, until: u64) -> u64 {
        self.figures.connections += 1;
        let (mut now, mut connection, mut drained) = (from, Connection::default(), None);
        let split = self.log.head(now);
        self.planner.link_up(Seq(split));
        self.next_live = split + 1;
        while now < until {
            while let Some(flying) = connection.arrived(now) {
                self.has_arrived(flying.lane, flying.seq, now, drained.is_some());
            }
            while let Some(flying) = connection.acknowledged(now) {
                assert_eq!(self.planner.acknowledged(flying.token), Some(Seq(flying.seq)));
                self.settled.set(flying.seq);
                self.backoff.reset();
            }
            self.fill(now, &mut connection);
            self.bounded(&connection);
            if drained.is_none() && self.planner.lanes().backlog.is_empty() {
                drained = Some(now);
                self.figures.drained_ms = now - from;
            }
            if until == u64::MAX && drained.is_some_and(|at| at + AFTERWARDS_MS <= now) {
                break;
            }
            now += STEP;
        }
        self.planner.link_down();
        now
    }

    fn fill(&mut self, now: u64, connection: &mut Connection) {
        let head = self.log.head(now);
        while let Some((lane, seq)) = self.planner.next(Seq(head)) {
            assert!(!self.settled.get(seq.0), "{seq} was settled and is sent again");
            let live_first = self.planner.lanes().backlog.len() <= Planner::MAX_RUNS;
            assert!(
                lane == Lane::Live || !live_first || self.next_live > head,
                "{seq} of the backlog before live {}",
                self.next_live
            );
            if lane == Lane::Live {
                assert_eq!(seq.0, self.next_live, "the live lane goes on without a hole");
                self.next_live = seq.0 + 1;
            }
            let (kind, _, _) = self.log.at(seq.0);
            if (self.sends)(kind) {
                let token = self.planner.sending(lane, seq);
                connection.send(now, token, lane, seq.0);
            } else {
                self.planner.settled(lane, seq);
                self.settled.set(seq.0);
            }
        }
    }

    /// First arrivals are in order in each stream and lane, whatever was sent again.
    fn has_arrived(&mut self, lane: Lane, seq: u64, now: u64, drained: bool) {
        if self.arrived.set(seq) {
            self.figures.repeats += 1;
            return;
        }
        self.figures.arrived += 1;
        let (kind, device, at) = self.log.at(seq);
        let stream_and_lane = (device as usize * 3 + kind as usize) * 2 + usize::from(lane == Lane::Live);
        let before = std::mem::replace(&mut self.last[stream_and_lane], seq);
        assert!(before < seq, "{seq} after {before} in the {} lane of device {device}", lane.name());
        if lane == Lane::Live {
            *self.figures.live[usize::from(drained)].entry(now - at).or_default() += 1;
        }
    }

    /// Nothing a route keeps grows with what it owes.
    fn bounded(&mut self, connection: &Connection) {
        let lanes = self.planner.lanes();
        let runs = lanes.live.len() + lanes.backlog.len();
        // What is in flight when the limit is reached makes a few more.
        assert!(runs <= Planner::MAX_RUNS + WINDOW, "{runs} runs");
        assert!(connection.backlog() <= SHARE, "the backlog has {}", connection.backlog());
        assert_eq!(self.planner.in_flight(), connection.len());
        assert!(connection.len() <= WINDOW);
        self.figures.most_runs = self.figures.most_runs.max(runs);
        self.figures.most_in_flight = self.figures.most_in_flight.max(connection.len());
    }

    fn everything_arrived(&self, now: u64) {
        // What was sent within the last moments of the simulation is on its way.
        let head = self.log.head(now - 1_000);
        for seq in 1..=head {
            let (kind, _, _) = self.log.at(seq);
            let owed = (self.sends)(kind);
            assert_eq!(self.arrived.get(seq), owed, "{seq}, a {kind:?}");
        }
        assert_eq!(self.planner.lanes().backlog.count_to(Seq(head)), 0);
    }
}

/// A bit a record.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Whether it was set before.
    fn set(&mut self, seq: u64) -> bool {
        let (word, bit) = (seq as usize / 64, 1 << (seq % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word] & bit != 0;
        self.0[word] |= bit;
        before
    }

    fn get(&self, seq: u64) -> bool {
        self.0.get(seq as usize / 64).is_some_and(|word| word >> (seq % 64) & 1 == 1)
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn the_log_of_numbers_agrees_with_itself() {
    let log = Log { devices: 3 };
    let mut last = 0;
    for seq in 1..=log.head(2 * 900_000) {
        let (_, device, at) = log.at(seq);
        assert!(device < 3 && at >= last, "{seq}");
        assert!(log.head(at) >= seq && log.head(at.saturating_sub(1)) < seq, "{seq} came at {at}");
        last = at;
    }
    assert_eq!(log.at(log.head(900_000)).0, Kind::Quarter);
}
