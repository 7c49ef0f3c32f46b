//! What a route sends next, and what it still owes: pure. The shell reads, renders and sends what [`Planner::next`] names
//! and tells it what became of it; nothing leaves a lane before it is settled, held or refused.
//!
//! Order is promised per stream within a lane, and kept by taking each lane strictly in log order.

use std::collections::{BTreeMap, BTreeSet};

use super::Lane;
use crate::config::Order;
use crate::reading::Seq;
use crate::store::Lanes;

/// Names one message of this connection.
pub type Token = u64;

#[derive(Debug)]
pub struct Planner {
    order: Order,
    window: usize,
    lanes: Lanes,
    /// Where each lane goes on reading; everything below is settled or in flight.
    cursor: [Seq; 2],
    in_flight: BTreeMap<Token, (Lane, Seq)>,
    flying: BTreeSet<Seq>,
    backlog_in_flight: usize,
    next_token: Token,
    dirty: bool,
}

impl Planner {
    /// Runs the backlog may be in: a route's state stays a few pages. Live values that go ahead leave a hole wherever a link
    /// breaks before the backlog is drained, and released records may each be a run. Above this the lowest goes first, live or
    /// not, and nothing more is released.
    pub const MAX_RUNS: usize = 1_024;

    pub fn new(order: Order, window: usize, lanes: Lanes) -> Self {
        Self {
            order,
            window: window.max(1),
            lanes,
            cursor: [Seq(0); 2],
            in_flight: BTreeMap::new(),
            flying: BTreeSet::new(),
            backlog_in_flight: 0,
            next_token: 0,
            dirty: false,
        }
    }

    /// The link is up: the lanes are split at the log's head, and each is taken from its lowest unsettled record again.
    pub fn link_up(&mut self, head: Seq) {
        self.link_down();
        if self.order == Order::LiveFirst {
            self.lanes.split_at(head);
            self.dirty = true;
        }
    }

    /// A turn begins: what has waited for it is backlog.
    pub fn turn(&mut self, head: Seq) {
        if self.order == Order::LiveFirst {
            self.lanes.split_at(head);
            self.cursor[index(Lane::Backlog)] = Seq(0);
            self.dirty = true;
        }
    }

    /// What was in flight may or may not have arrived: it stays owed and goes again under the same identity.
    pub fn link_down(&mut self) {
        self.cursor = [Seq(0); 2];
        self.in_flight.clear();
        self.flying.clear();
        self.backlog_in_flight = 0;
    }

    /// The next record to consider, up to and including `head`; `None` when the window is full or nothing is owed.
    pub fn next(&self, head: Seq) -> Option<(Lane, Seq)> {
        if self.in_flight.len() >= self.window {
            return None;
        }
        let live = self.next_of(Lane::Live, head).map(|seq| (Lane::Live, seq));
        let backlog = self.next_of(Lane::Backlog, head).map(|seq| (Lane::Backlog, seq));
        let lowest = || [live, backlog].into_iter().flatten().min_by_key(|(_, seq)| *seq);
        let has_share = |(lane, _): &(Lane, Seq)| *lane == Lane::Live || self.backlog_in_flight < self.backlog_share();
        match self.order {
            Order::LiveFirst if self.lanes.backlog.len() > Self::MAX_RUNS => lowest().filter(has_share),
            Order::LiveFirst => live.or(backlog).filter(has_share),
            Order::Strict => lowest(),
        }
    }

    /// The same while the backlog up to `until` rests: what is live; in strict order only behind all of that.
    pub fn next_live(&self, head: Seq, until: Seq) -> Option<(Lane, Seq)> {
        let live = self.next_of(Lane::Live, head).filter(|_| self.in_flight.len() < self.window)?;
        let is_next = match self.order {
            Order::LiveFirst => true,
            Order::Strict => live > until && self.lanes.backlog.is_empty(),
        };
        is_next.then_some((Lane::Live, live))
    }

    /// How far a lane goes on without a hole from `seq`: what one read may fetch ahead.
    pub fn run_end(&self, lane: Lane, seq: Seq) -> Seq {
        self.runs(lane).iter().find(|(first, last)| *first <= seq && seq <= *last).map_or(seq, |(_, last)| last)
    }

    /// The record goes out now, under the token returned.
    pub fn sending(&mut self, lane: Lane, seq: Seq) -> Token {
        let token = self.fly(lane, seq);
        self.pass(lane, seq);
        token
    }

    /// There is nothing (more) to do for this record on this route.
    pub fn settled(&mut self, lane: Lane, seq: Seq) {
        self.lanes.settle(seq);
        self.dirty = true;
        self.pass(lane, seq);
    }

    /// Nothing from `first` to `last` is in the log any more; answers how many of them were owed.
    pub fn gone(&mut self, first: Seq, last: Seq) -> u64 {
        let owed =
            |lanes: &Lanes| [&lanes.live, &lanes.backlog].map(|runs| runs.count_to(last) - runs.count_to(Seq(first.0 - 1)));
        let count = owed(&self.lanes).iter().sum();
        self.lanes.live.remove(first, last);
        self.lanes.backlog.remove(first, last);
        self.dirty |= count > 0;
        count
    }

    /// The first record still owed in each lane.
    pub fn lowest(&self) -> [Option<Seq>; 2] {
        [&self.lanes.live, &self.lanes.backlog].map(|runs| runs.next_from(Seq(0)))
    }

    /// It waits in the backlog although it was met in the live lane: what a device had stored is never live.
    pub fn to_backlog(&mut self, seq: Seq) {
        self.lanes.live.remove(seq, seq);
        self.lanes.backlog.insert(seq, seq);
        self.dirty = true;
        self.pass(Lane::Live, seq);
        self.cursor[index(Lane::Backlog)] = self.cursor[index(Lane::Backlog)].min(seq);
    }

    /// A released or replayed record is owed again, behind everything live.
    pub fn owe(&mut self, first: Seq, last: Seq) {
        self.lanes.backlog.insert(first, last);
        self.lanes.live.remove(first, last);
        self.dirty = true;
        self.cursor[index(Lane::Backlog)] = self.cursor[index(Lane::Backlog)].min(first);
    }

    /// The link did not take it after all: it is the next of its lane again.
    pub fn not_sent(&mut self, token: Token) {
        if let Some((lane, seq)) = self.land(token) {
            self.cursor[index(lane)] = self.cursor[index(lane)].min(seq);
        }
    }

    /// The destination did not take it: it stays owed, behind everything live, and is the next of its lane again.
    pub fn again(&mut self, token: Token) -> Option<Seq> {
        let (lane, seq) = self.land(token)?;
        self.back_to(lane, seq);
        Some(seq)
    }

    /// Sends a record that is not owed, to hear whether it would be taken: what becomes of it is settled elsewhere.
    pub fn probing(&mut self, seq: Seq) -> Token {
        self.fly(Lane::Backlog, seq)
    }

    /// The destination took it.
    pub fn acknowledged(&mut self, token: Token) -> Option<Seq> {
        let (_, seq) = self.land(token)?;
        self.lanes.settle(seq);
        self.dirty = true;
        Some(seq)
    }

    /// The broker took it and the receiver has not confirmed it: it leaves the window, stays owed, and is not sent meanwhile.
    pub fn taken(&mut self, token: Token) -> Option<Seq> {
        let (lane, seq) = self.in_flight.remove(&token)?;
        self.backlog_in_flight -= usize::from(lane == Lane::Backlog);
        Some(seq)
    }

    /// The receiver has it; `taken` if the broker said so before.
    pub fn confirmed(&mut self, seq: Seq, taken: bool) {
        self.lanes.settle(seq);
        self.dirty = true;
        if taken {
            self.flying.remove(&seq);
        }
    }

    /// It was taken and not confirmed: it goes again, behind everything live.
    pub fn unconfirmed(&mut self, seq: Seq) {
        self.flying.remove(&seq);
        let lane = if self.lanes.live.contains(seq) { Lane::Live } else { Lane::Backlog };
        self.back_to(lane, seq);
    }

    /// The destination refused it; it is settled here and kept by the caller as a dead letter.
    pub fn refused(&mut self, token: Token) -> Option<Seq> {
        self.acknowledged(token)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn is_in_flight(&self, seq: Seq) -> bool {
        self.flying.contains(&seq)
    }

    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Whether the lanes changed since the last [`Planner::written`].
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub fn written(&mut self) {
        self.dirty = false;
    }

    fn backlog_share(&self) -> usize {
        (self.window * 3 / 4).max(1)
    }

    fn next_of(&self, lane: Lane, head: Seq) -> Option<Seq> {
        let mut from = self.cursor[index(lane)];
        loop {
            let seq = self.runs(lane).next_from(from).filter(|seq| *seq <= head)?;
            if !self.flying.contains(&seq) {
                return Some(seq);
            }
            // A release moved the cursor back below what is in flight.
            from = seq.next();
        }
    }

    fn runs(&self, lane: Lane) -> &crate::store::Runs {
        match lane {
            Lane::Live => &self.lanes.live,
            Lane::Backlog => &self.lanes.backlog,
        }
    }

    fn pass(&mut self, lane: Lane, seq: Seq) {
        self.cursor[index(lane)] = seq.next();
    }

    fn fly(&mut self, lane: Lane, seq: Seq) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.in_flight.insert(token, (lane, seq));
        self.flying.insert(seq);
        self.backlog_in_flight += usize::from(lane == Lane::Backlog);
        token
    }

    /// What was refused or lost once is no longer live: later ones of its stream may have gone meanwhile.
    fn back_to(&mut self, lane: Lane, seq: Seq) {
        if self.order == Order::LiveFirst && lane == Lane::Live && self.lanes.live.contains(seq) {
            return self.owe(seq, seq);
        }
        self.cursor[index(lane)] = self.cursor[index(lane)].min(seq);
    }

    fn land(&mut self, token: Token) -> Option<(Lane, Seq)> {
        let (lane, seq) = self.in_flight.remove(&token)?;
        self.flying.remove(&seq);
        self.backlog_in_flight -= usize::from(lane == Lane::Backlog);
        Some((lane, seq))
    }
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Backlog => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{OPEN, Runs};
    use proptest::prelude::*;

    fn lanes(live_from: u64) -> Lanes {
        Lanes { live: [(Seq(live_from), OPEN)].into_iter().collect(), backlog: Runs::default() }
    }

    fn send_all(planner: &mut Planner, head: Seq) -> Vec<(Lane, u64, Token)> {
        let mut sent = Vec::new();
        while let Some((lane, seq)) = planner.next(head) {
            sent.push((lane, seq.0, planner.sending(lane, seq)));
        }
        sent
    }

    #[test]
    fn a_backlog_in_too_many_runs_goes_from_its_lowest_before_anything_live() {
        let pieces = Planner::MAX_RUNS as u64 + 1;
        let backlog = (1..=pieces).map(|n| (Seq(2 * n), Seq(2 * n))).collect();
        let live = [(Seq(2 * pieces + 2), OPEN)].into_iter().collect();
        let head = Seq(2 * pieces + 9);
        let mut planner = Planner::new(Order::LiveFirst, 8, Lanes { live, backlog });
        let first = send_all(&mut planner, head);
        assert_eq!(
            first.iter().map(|(lane, seq, _)| (*lane, *seq)).collect::<Vec<_>>(),
            [2, 4, 6, 8, 10, 12].map(|seq| (Lane::Backlog, seq))
        );
        planner.acknowledged(first[0].2);
        assert_eq!(planner.next(head), Some((Lane::Live, Seq(2 * pieces + 2))), "one less, and what is live goes first again");
    }

    #[test]
    fn while_the_backlog_rests_what_is_live_goes_and_in_strict_order_only_behind_it() {
        let owed = || Lanes { live: [(Seq(20), OPEN)].into_iter().collect(), backlog: [(Seq(3), Seq(5))].into_iter().collect() };
        let mut planner = Planner::new(Order::LiveFirst, 2, owed());
        for seq in [20, 21] {
            assert_eq!(planner.next_live(Seq(30), Seq(10)), Some((Lane::Live, Seq(seq))));
            planner.sending(Lane::Live, Seq(seq));
        }
        assert_eq!(planner.next_live(Seq(30), Seq(10)), None, "the window is full");

        let mut planner = Planner::new(Order::Strict, 2, owed());
        assert_eq!(planner.next_live(Seq(30), Seq(10)), None, "3 to 5 are owed");
        planner.gone(Seq(3), Seq(5));
        assert_eq!(planner.next_live(Seq(30), Seq(10)), Some((Lane::Live, Seq(20))));
        assert_eq!(planner.next_live(Seq(30), Seq(20)), None, "20 is one of those that are looked at");
    }

    #[test]
    fn what_comes_after_link_up_is_live_and_goes_before_the_backlog() {
        let mut planner = Planner::new(Order::LiveFirst, 8, lanes(1));
        planner.link_up(Seq(100));
        let first = send_all(&mut planner, Seq(100));
        assert_eq!(
            first.iter().map(|(lane, seq, _)| (*lane, *seq)).collect::<Vec<_>>(),
            (1..=6).map(|n| (Lane::Backlog, n)).collect::<Vec<_>>()
        );
        let live = send_all(&mut planner, Seq(101));
        assert_eq!(
            live.iter().map(|(lane, seq, _)| (*lane, *seq)).collect::<Vec<_>>(),
            [(Lane::Live, 101)],
            "a quarter is kept free for it"
        );
    }

    #[test]
    fn strict_order_is_log_order_whatever_was_released_late() {
        let mut planner = Planner::new(Order::Strict, 100, lanes(5));
        planner.link_up(Seq(8));
        planner.owe(Seq(2), Seq(3));
        let sent: Vec<u64> = send_all(&mut planner, Seq(8)).into_iter().map(|(_, seq, _)| seq).collect();
        assert_eq!(sent, [2, 3, 5, 6, 7, 8]);
    }

    #[test]
    fn what_was_in_flight_when_the_link_fell_goes_again() {
        let mut planner = Planner::new(Order::LiveFirst, 4, lanes(1));
        planner.link_up(Seq(0));
        let sent = send_all(&mut planner, Seq(3));
        assert_eq!(planner.acknowledged(sent[1].2), Some(Seq(2)));
        planner.link_down();
        planner.link_up(Seq(3));
        let again: Vec<_> = send_all(&mut planner, Seq(3)).into_iter().map(|(lane, seq, _)| (lane, seq)).collect();
        assert_eq!(again, [(Lane::Backlog, 1), (Lane::Backlog, 3)]);
        assert_eq!(planner.acknowledged(sent[0].2), None, "a token of the connection before means nothing");
    }

    /// What the planner is held against: plain sets of record numbers.
    #[derive(Default)]
    struct Model {
        head: u64,
        owed: BTreeSet<u64>,
        /// Messages under way, each of one or more records.
        flying: Vec<Vec<(Token, u64)>>,
        /// Taken by the broker, not confirmed by the receiver.
        waiting: BTreeSet<u64>,
        held: BTreeSet<u64>,
        probes: Vec<(Token, u64)>,
        /// The last record sent in each lane since something came back.
        last: BTreeMap<Lane, u64>,
    }

    impl Model {
        /// Sends the next few as one message, with all that must be true of them.
        fn send(&mut self, planner: &mut Planner, most: usize, window: usize) -> Result<(), TestCaseError> {
            let mut message = Vec::new();
            while message.len() < most
                && let Some((lane, seq)) = planner.next(Seq(self.head))
            {
                prop_assert!(self.owed.contains(&seq.0), "sent what is not owed: {}", seq);
                prop_assert!(!planner.is_in_flight(seq) && !self.waiting.contains(&seq.0), "{} is on its way already", seq);
                prop_assert!(self.last.insert(lane, seq.0).is_none_or(|before| before < seq.0), "{} overtaken", seq);
                message.push((planner.sending(lane, seq), seq.0));
                prop_assert!(planner.in_flight() <= window + self.probes.len());
                let free_for_live = planner.backlog_in_flight <= planner.backlog_share() + self.probes.len();
                prop_assert!(planner.order == Order::Strict || free_for_live);
            }
            self.flying.extend(Some(message).filter(|message| !message.is_empty()));
            Ok(())
        }

        fn settle(&mut self, seq: u64) {
            self.owed.remove(&seq);
            self.waiting.remove(&seq);
        }

        /// Something goes again, behind everything live: what was sent before says nothing of what comes next there.
        fn back(&mut self, order: Order) {
            self.last.remove(&Lane::Backlog);
            if order == Order::Strict {
                self.last.clear();
            }
        }
    }

    proptest! {
        /// Whatever happens, in single messages and batches, with and without receipts: nothing owed is forgotten, nothing
        /// settled is sent again, nothing is under way twice, each lane goes in order until something comes back, and the
        /// window and the live values' share of it hold.
        #[test]
        fn nothing_is_lost_or_overtaken_whatever_the_link_does(
            strict in any::<bool>(), window in 1usize..12, ops in proptest::collection::vec(0u8..18, 1..300)
        ) {
            let order = if strict { Order::Strict } else { Order::LiveFirst };
            let mut planner = Planner::new(order, window, lanes(1));
            let mut model = Model::default();
            planner.link_up(Seq(0));
            for op in ops {
                match op {
                    0..=2 => { model.head += 1; model.owed.insert(model.head); }
                    3 | 4 => model.send(&mut planner, 1, window)?,
                    5 => model.send(&mut planner, 4, window)?,
                    // The broker takes a message: done, or waiting for its receipts.
                    6 | 7 => if !model.flying.is_empty() {
                        for (token, seq) in model.flying.remove(0) {
                            prop_assert_eq!(planner.acknowledged(token), Some(Seq(seq)));
                            model.settle(seq);
                        }
                    },
                    8 => if !model.flying.is_empty() {
                        for (token, seq) in model.flying.remove(0) {
                            prop_assert_eq!(planner.taken(token), Some(Seq(seq)));
                            model.waiting.extend(model.owed.contains(&seq).then_some(seq));
                        }
                    },
                    // A receipt, after the broker's word or before it.
                    9 => if let Some(seq) = model.waiting.pop_last() {
                        planner.confirmed(Seq(seq), true);
                        model.settle(seq);
                    },
                    10 => if let Some(message) = model.flying.pop() {
                        let (token, seq) = message[0];
                        planner.confirmed(Seq(seq), false);
                        model.settle(seq);
                        for (_, seq) in &message[1..] { model.settle(*seq); }
                        planner.acknowledged(token);
                        for (token, seq) in &message[1..] {
                            prop_assert_eq!(planner.acknowledged(*token), Some(Seq(*seq)));
                        }
                    },
                    11 => if let Some(seq) = model.waiting.pop_first() {
                        planner.unconfirmed(Seq(seq));
                        model.back(order);
                    },
                    // Not taken, one by one or a whole batch.
                    12 => if let Some(message) = model.flying.pop() {
                        for (token, seq) in message {
                            prop_assert_eq!(planner.again(token), Some(Seq(seq)));
                        }
                        model.back(order);
                    },
                    13 => {
                        planner.link_down();
                        planner.link_up(Seq(model.head));
                        (model.flying, model.probes) = (Vec::new(), Vec::new());
                        model.waiting.clear();
                        model.last.clear();
                    }
                    14 => if let Some((lane, seq)) = planner.next(Seq(model.head)) {
                        planner.settled(lane, seq);
                        model.last.insert(lane, seq.0);
                        model.settle(seq.0);
                        model.held.insert(seq.0);
                    },
                    15 => if let Some(seq) = model.held.pop_first() {
                        planner.owe(Seq(seq), Seq(seq));
                        model.owed.insert(seq);
                        model.back(order);
                    },
                    // A held record goes as a probe: it is owed neither before nor after.
                    16 => match (model.probes.pop(), model.held.last()) {
                        (Some((token, seq)), _) => {
                            prop_assert_eq!(planner.again(token), Some(Seq(seq)));
                            model.back(order);
                        }
                        (None, Some(seq)) => model.probes.push((planner.probing(Seq(*seq)), *seq)),
                        (None, None) => {}
                    },
                    _ => {
                        planner.turn(Seq(model.head));
                        model.back(order);
                    }
                }
                let count = planner.lanes().live.count_to(Seq(model.head)) + planner.lanes().backlog.count_to(Seq(model.head));
                prop_assert_eq!(count, model.owed.len() as u64);
            }
            // Whatever state that was, everything owed comes when the link is made anew.
            planner.link_down();
            planner.link_up(Seq(model.head));
            let mut came = BTreeSet::new();
            while let Some((lane, seq)) = planner.next(Seq(model.head)) {
                prop_assert!(came.insert(seq.0));
                let token = planner.sending(lane, seq);
                planner.acknowledged(token);
            }
            prop_assert_eq!(came, model.owed);
        }
    }
}
