//! What is done to the gateway, the link and the broker, each so that it is known to have hit something.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::support::broker::BrokerOptions;
use super::support::process::wait_until;
use super::support::rig::Rig;

/// Whatever has to come back is back within this, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The smallest the config takes. A dead path is noticed by two of them.
pub const KEEP_ALIVE: &str = "keep_alive = \"5 s\"";
/// The commit interval, and what a route takes to look.
const COMMITTED: Duration = Duration::from_millis(1_500);
/// Between two rounds: several times a full ward's rate, and not more than a test build of the gateway takes in. What waits
/// behind it at a kill would be lost, and is no fault of the link.
const PACE: Duration = Duration::from_millis(50);
/// How long a path is dead, or a broker frozen, where nobody waits until the gateway has noticed.
const A_MOMENT: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of the gateway's processes in turn.
    Kill,
    /// RST on both sides.
    Reset,
    /// Nothing passes either way, and nobody is told.
    BlackHole,
    /// What was published arrives, its acknowledgements do not.
    LostAcks,
    /// The broker hangs: connections stand, nothing is read.
    StopsReading,
    /// kill -9 of the broker with messages under way, and a start without a memory: no sessions, no subscriptions.
    BrokerKilled,
    /// Its access rules refuse the gateway for a while.
    Denied,
}

/// So many of each fault.
pub struct Faults {
    pub counts: Vec<(Fault, usize)>,
    /// Whether dead paths stay dead until the gateway gives them up by itself, which takes ten seconds each.
    pub until_noticed: bool,
}

impl Faults {
    /// Mixed, the rarest kinds spread evenly over the whole time.
    pub fn schedule(&self) -> Vec<Fault> {
        let place = |(fault, count): (Fault, usize)| (0..count).map(move |n| ((2 * n + 1) * 1_000 / (2 * count), fault));
        let mut all: Vec<(usize, Fault)> = self.counts.iter().copied().flat_map(place).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// A round of the streams; devices that keep what they measured take part now and then.
fn stream(rig: &mut Rig) {
    rig.measure(|device| !device.keeps());
    std::thread::sleep(PACE);
}

/// Streams until something new has arrived: the link is up and carries.
pub fn until_it_carries(rig: &mut Rig) {
    let (before, end) = (rig.subscriber.count(), Instant::now() + PATIENCE);
    while rig.subscriber.count() == before {
        assert!(Instant::now() < end, "nothing arrives any more:\n{}", rig.logs());
        stream(rig);
    }
}

pub fn reset(rig: &mut Rig) {
    until_it_carries(rig);
    assert!(rig.proxy.reset_all() > 0, "there was no connection");
}

pub fn black_hole(rig: &mut Rig, until_noticed: bool) {
    until_it_carries(rig);
    rig.proxy.black_hole(true);
    hang(rig, until_noticed);
    // What the proxy and the sockets still hold is gone with the connection.
    rig.proxy.reset_all();
    rig.proxy.pass();
}

pub fn stop_reading(rig: &mut Rig, until_noticed: bool) {
    until_it_carries(rig);
    rig.broker.freeze();
    hang(rig, until_noticed);
    rig.broker.thaw();
}

/// Streams on while nothing is answered, until the gateway has made a new connection or for a moment.
fn hang(rig: &mut Rig, until_noticed: bool) {
    let (accepted, began) = (rig.proxy.counters().accepted, Instant::now());
    let enough = |rig: &Rig| if until_noticed { rig.proxy.counters().accepted > accepted } else { began.elapsed() > A_MOMENT };
    while !enough(rig) {
        assert!(began.elapsed() < PATIENCE, "a dead path was never given up:\n{}", rig.logs());
        stream(rig);
    }
}

pub fn lose_acks(rig: &mut Rig) {
    until_it_carries(rig);
    let dropped = rig.proxy.counters().bytes_dropped;
    rig.proxy.drop_replies(true);
    // It arrives, and what says so is thrown away.
    until_it_carries(rig);
    assert!(wait_until(PATIENCE, || rig.proxy.counters().bytes_dropped > dropped), "no reply was lost:\n{}", rig.logs());
    rig.proxy.reset_all();
    rig.proxy.pass();
}

/// What the broker acknowledged has reached the receiver before: what it had still to deliver would die with it, and is
/// another test's matter. What is under way and not acknowledged dies with it here.
pub fn kill_broker(rig: &mut Rig) {
    until_it_carries(rig);
    settled(rig);
    rig.subscriber.drain(PATIENCE);
    rig.broker.freeze();
    let before = rig.proxy.counters().bytes_up;
    while rig.proxy.counters().bytes_up == before {
        stream(rig);
    }
    rig.broker.kill9();
    stream(rig);
    // A broker of MQTT 3.1.1 acknowledges what nobody hears: the receiver is there first.
    rig.proxy.refuse(true);
    rig.broker.resume();
    rig.subscriber.resume();
    rig.proxy.refuse(false);
}

/// The receiver is away, the broker takes everything for it and is killed, without having written anything down. Answers the
/// record numbers between which the gateway was told that all is well.
pub fn let_the_broker_forget(rig: &mut Rig) -> RangeInclusive<u64> {
    until_it_carries(rig);
    settled(rig);
    rig.subscriber.drain(PATIENCE);
    let first = rig.head() + 1;
    rig.subscriber.stop();
    (0..20).for_each(|_| stream(rig));
    settled(rig);
    let last = rig.head();
    rig.broker.kill9();
    rig.broker.resume();
    rig.subscriber.resume();
    all_over(rig);
    first..=last
}

/// Its access rules refuse the gateway for a while. Answers between which record numbers that was.
pub fn let_the_broker_forbid(rig: &mut Rig) -> RangeInclusive<u64> {
    until_it_carries(rig);
    settled(rig);
    let first = rig.head() + 1;
    deny(rig);
    std::thread::sleep(COMMITTED);
    let last = rig.head();
    all_over(rig);
    first..=last
}

/// The link carries again, the route owes nothing, and the receiver has what the broker has for it.
fn all_over(rig: &mut Rig) {
    until_it_carries(rig);
    std::thread::sleep(COMMITTED);
    rig.wait_for_route("live", PATIENCE, |route| route["live"] == 0 && route["backlog"] == 0);
    rig.subscriber.drain(PATIENCE);
}

/// Waits until all that was measured is durable, and the broker has acknowledged it.
fn settled(rig: &Rig) {
    std::thread::sleep(COMMITTED);
    rig.wait_for_route("live", PATIENCE, |route| {
        let count = |name: &str| route[name].as_u64().unwrap_or(0);
        count("live") + count("backlog") == count("unconfirmed")
    });
}

pub fn deny(rig: &mut Rig) {
    until_it_carries(rig);
    let rules = |gateway: &str| BrokerOptions {
        acl: Some(format!("user reader\ntopic readwrite #\nuser gateway\ntopic {gateway}\n")),
        ..BrokerOptions::mutual_tls(&rig.pki)
    };
    let (denying, allowing) = (rules("read nothing"), rules("readwrite bedrail/#"));
    rig.broker.reload(&denying);
    let (began, denied) = (Instant::now(), "Denied PUBLISH");
    let before = rig.broker.log().matches(denied).count();
    while rig.broker.log().matches(denied).count() == before {
        assert!(began.elapsed() < PATIENCE, "nothing was denied:\n{}", rig.logs());
        stream(rig);
    }
    rig.broker.reload(&allowing);
}
