//! The life of one device's connection, without I/O and without a clock: events in, actions out.
//!
//! The rules it keeps: one operation at a time; an attempt that is given up is always followed by a Disconnect, because
//! BlueZ goes on with what nobody waits for any more; a device is tried only after it was heard, so that one that is
//! switched off does not hold up the others; and from every state there is a way on, by an answer or by a deadline.

use std::time::{Duration, Instant};

use super::settings::Deadlines;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// BlueZ heard it advertise.
    Seen,
    /// Nobody else connects through the adapter now.
    Turn,
    /// Connect answered well.
    Connected,
    LinkUp,
    LinkDown,
    /// BlueZ knows the device's services.
    Resolved,
    /// Everything wanted is subscribed.
    Subscribed,
    /// Connecting or subscribing did not work.
    Failed(Failure),
    /// Disconnect answered, well or not.
    Disconnected,
    /// A value of it is overdue.
    Silent,
    /// Others wait for its connection slot.
    MakeRoom,
    /// Somebody stands by it, who would wait in vain for the end of a long pause.
    Asked,
    /// BlueZ, the adapter or the device's object is no longer there.
    Gone,
    /// Time passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The next try usually works: `le-connection-abort-by-local`, `InProgress`.
    pub passing: bool,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait until nobody else connects; then `Turn`.
    AskTurn,
    ReleaseTurn,
    Connect,
    /// Find the characteristics, read the clock, subscribe.
    Subscribe,
    /// Whatever was under way is replaced by this.
    Disconnect,
    /// Whatever is under way has lost its object.
    Abandon,
    /// Begin discovery anew: BlueZ and the controller report a device once a discovery.
    Rescan,
    ReportReady,
    ReportLost(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Queued,
    Connecting { since: Instant },
    Resolving { since: Instant },
    Subscribing { since: Instant },
    Ready,
    Disconnecting { since: Instant, passing: bool },
    BackingOff { until: Instant },
}

/// A failure that usually passes is retried quickly this often in a row; then it counts like any other.
const QUICK_RETRIES: u32 = 3;
/// BlueZ going away in the middle of an attempt is a coincidence this often in a row; then the attempt is taken for the cause:
/// connecting to a device that lost its bond crashes bluetoothd on some kernels, and all other devices with it.
const COINCIDENCES: u32 = 1;
/// BlueZ that goes away within this of an attempt went with it: the answer that it failed may come first.
const WITH_IT: Duration = Duration::from_secs(2);
/// Each attempt with which BlueZ went away makes the wait before the next so much longer.
const SUSPICION: u32 = 4;

pub struct Session {
    state: State,
    deadlines: Deadlines,
    /// There is reason to believe that it would answer.
    heard: bool,
    link: bool,
    resolved: bool,
    holds_turn: bool,
    quick_retries: u32,
    /// When the last attempt was under way.
    tried: Option<Instant>,
    /// Attempts in a row with which BlueZ went away.
    taken_along: u32,
    delay: Duration,
    dice: Dice,
}

impl Session {
    /// `seed` spreads the retries of devices that failed together.
    pub fn new(deadlines: Deadlines, seed: u64) -> Self {
        Self {
            state: State::Idle,
            deadlines,
            heard: false,
            link: false,
            resolved: false,
            holds_turn: false,
            quick_retries: 0,
            tried: None,
            taken_along: 0,
            delay: deadlines.retry_first,
            dice: Dice(seed),
        }
    }

    pub fn poll(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let was_up = self.link;
        if !matches!(self.state, State::Idle | State::Queued | State::Ready | State::BackingOff { .. }) {
            self.tried = Some(now);
        }
        self.note(&event);
        let mut actions = self.step(now, &event, was_up);
        if self.state == State::Idle && self.heard {
            self.state = State::Queued;
            actions.push(Action::AskTurn);
        }
        actions
    }

    /// When `Tick` is due.
    pub fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Queued | State::Ready => None,
            State::Connecting { since } => Some(since + self.deadlines.connect),
            State::Resolving { since } => Some(since + self.deadlines.resolve),
            State::Subscribing { since } => Some(since + self.deadlines.subscribe),
            State::Disconnecting { since, .. } => Some(since + self.deadlines.disconnect),
            State::BackingOff { until } => Some(until),
        }
    }

    /// BlueZ may hold a link or an attempt on our behalf.
    pub fn is_linked(&self) -> bool {
        self.link || !matches!(self.state, State::Idle | State::Queued | State::BackingOff { .. })
    }

    /// What is true whatever the state.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Seen => self.heard = true,
            // Also a link that BlueZ made by itself, to a bonded device.
            Event::LinkUp => (self.link, self.heard) = (true, true),
            Event::LinkDown | Event::Gone => (self.link, self.resolved, self.heard) = (false, false, false),
            Event::Resolved => self.resolved = true,
            _ => {}
        }
    }

    fn step(&mut self, now: Instant, event: &Event, was_up: bool) -> Vec<Action> {
        let due = self.timeout().is_some_and(|at| now >= at);
        match (self.state, event) {
            (_, Event::Gone) => self.gone(now),
            (State::Queued, Event::Turn) => {
                self.state = State::Connecting { since: now };
                self.holds_turn = true;
                vec![Action::Connect]
            }
            (State::Connecting { .. }, Event::Connected) if self.resolved => self.subscribe(now),
            (State::Connecting { .. }, Event::Connected) => {
                self.state = State::Resolving { since: now };
                vec![]
            }
            (State::Resolving { .. }, Event::Resolved) => self.subscribe(now),
            (State::Subscribing { .. }, Event::Subscribed) => {
                self.state = State::Ready;
                (self.quick_retries, self.taken_along, self.tried) = (0, 0, None);
                self.delay = self.deadlines.retry_first;
                vec![Action::ReportReady]
            }
            (State::Connecting { since }, Event::Failed(failure)) => {
                // An attempt that took long failed because nobody answered, whatever the text.
                let unanswered = now.saturating_duration_since(since) >= self.deadlines.connect / 2;
                self.heard &= !unanswered;
                self.abort(now, failure.passing && !unanswered, failure.reason.clone())
            }
            (State::Subscribing { .. }, Event::Failed(failure)) => self.abort(now, failure.passing, failure.reason.clone()),
            // Without a link before it, this is the end of an older one, told late.
            (State::Connecting { .. }, Event::LinkDown) if was_up => {
                self.abort(now, true, "the link broke while connecting".into())
            }
            (State::Resolving { .. }, Event::LinkDown) => {
                self.abort(now, true, "the link broke before the services were known".into())
            }
            (State::Subscribing { .. }, Event::LinkDown) => self.abort(now, true, "the link broke while subscribing".into()),
            (State::Connecting { .. }, _) if due => {
                self.heard = false;
                self.abort(now, false, "it did not answer in time".into())
            }
            (State::Resolving { .. }, _) if due => self.abort(now, false, "its services were not known in time".into()),
            (State::Subscribing { .. }, _) if due => self.abort(now, false, "subscribing took too long".into()),
            (State::Ready, Event::LinkDown) => {
                let mut actions = vec![Action::ReportLost("the link broke".into())];
                actions.extend(self.back_off(now, false));
                actions
            }
            (State::Ready, Event::Silent) => self.abort(now, false, "it is connected, but no value came in time".into()),
            (State::Ready, Event::MakeRoom) => self.abort(now, false, "it makes room for a device that waits".into()),
            (State::Disconnecting { passing, .. }, Event::Disconnected) => self.back_off(now, passing),
            (State::Disconnecting { passing, .. }, _) if due => self.back_off(now, passing),
            // BlueZ answers a Disconnect before the link is gone: only now would it be heard again.
            (State::BackingOff { .. }, Event::LinkDown) if was_up => vec![Action::Rescan],
            (State::BackingOff { .. }, Event::Asked) => {
                (self.state, self.delay) = (State::Idle, self.deadlines.retry_first);
                vec![]
            }
            (State::BackingOff { .. }, _) if due => {
                self.state = State::Idle;
                vec![]
            }
            _ => vec![],
        }
    }

    fn subscribe(&mut self, now: Instant) -> Vec<Action> {
        self.state = State::Subscribing { since: now };
        let mut actions = self.release_turn();
        actions.push(Action::Subscribe);
        actions
    }

    fn abort(&mut self, now: Instant, passing: bool, reason: String) -> Vec<Action> {
        self.state = State::Disconnecting { since: now, passing };
        vec![Action::ReportLost(reason), Action::Disconnect]
    }

    fn gone(&mut self, now: Instant) -> Vec<Action> {
        let reported = matches!(self.state, State::Idle | State::Queued | State::Disconnecting { .. } | State::BackingOff { .. });
        let was_idle = self.state == State::Idle;
        self.state = match self.state {
            _ if self.tried.take().is_some_and(|tried| now.saturating_duration_since(tried) <= WITH_IT) => self.suspect(now),
            State::BackingOff { until } if self.taken_along > COINCIDENCES => State::BackingOff { until },
            _ => State::Idle,
        };
        let mut actions = self.release_turn();
        if !was_idle {
            actions.push(Action::Abandon);
        }
        if !reported {
            actions.push(Action::ReportLost("BlueZ no longer has it".into()));
        }
        actions
    }

    /// Where an attempt goes with which BlueZ went away.
    fn suspect(&mut self, now: Instant) -> State {
        self.taken_along += 1;
        let Some(beyond) = self.taken_along.checked_sub(COINCIDENCES + 1) else { return State::Idle };
        let first = self.deadlines.retry_first * SUSPICION;
        let wait = first.saturating_mul(SUSPICION.saturating_pow(beyond)).min(self.deadlines.retry_suspect);
        State::BackingOff { until: now + wait }
    }

    fn back_off(&mut self, now: Instant, passing: bool) -> Vec<Action> {
        self.state = State::BackingOff { until: now + self.next_delay(passing) };
        let mut actions = self.release_turn();
        if !self.heard {
            actions.push(Action::Rescan);
        }
        actions
    }

    fn release_turn(&mut self) -> Vec<Action> {
        if std::mem::take(&mut self.holds_turn) { vec![Action::ReleaseTurn] } else { vec![] }
    }

    /// Decorrelated jitter: each wait is drawn between the first and three times the one before.
    fn next_delay(&mut self, passing: bool) -> Duration {
        if passing && self.quick_retries < QUICK_RETRIES {
            self.quick_retries += 1;
            return self.dice.between(self.deadlines.retry_quick / 2, self.deadlines.retry_quick);
        }
        let (first, most) = (self.deadlines.retry_first, self.deadlines.retry_most);
        self.delay = self.dice.between(first, self.delay * 3).min(most);
        self.delay
    }
}

/// splitmix64: enough to spread retries, and the same in every run of a test.
struct Dice(u64);

impl Dice {
    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let span = high.saturating_sub(low).as_millis() as u64;
        low + Duration::from_millis((z ^ (z >> 31)) % (span + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        Session::new(Deadlines::default(), 7)
    }

    fn failed(passing: bool) -> Event {
        Event::Failed(Failure { passing, reason: "no".into() })
    }

    /// Feeds events at one moment and returns what the last one led to.
    fn feed(session: &mut Session, now: Instant, events: &[Event]) -> Vec<Action> {
        events.iter().fold(vec![], |_, event| session.poll(now, event.clone()))
    }

    const TO_READY: [Event; 6] = [Event::Seen, Event::Turn, Event::LinkUp, Event::Connected, Event::Resolved, Event::Subscribed];

    #[test]
    fn a_device_that_was_heard_becomes_ready_in_one_go() {
        let (mut session, now) = (session(), Instant::now());
        assert_eq!(session.poll(now, Event::Seen), [Action::AskTurn]);
        assert_eq!(session.poll(now, Event::Turn), [Action::Connect]);
        assert_eq!(feed(&mut session, now, &[Event::LinkUp, Event::Connected]), []);
        assert_eq!(session.poll(now, Event::Resolved), [Action::ReleaseTurn, Action::Subscribe]);
        assert_eq!(session.poll(now, Event::Subscribed), [Action::ReportReady]);
        assert_eq!(session.timeout(), None);
    }

    #[test]
    fn services_known_before_connect_answers_are_not_waited_for_again() {
        let (mut session, now) = (session(), Instant::now());
        let actions = feed(&mut session, now, &[Event::Seen, Event::Turn, Event::LinkUp, Event::Resolved, Event::Connected]);
        assert_eq!(actions, [Action::ReleaseTurn, Action::Subscribe]);
    }

    #[test]
    fn a_link_that_bluez_made_by_itself_is_taken_up_without_an_advertisement() {
        let (mut session, now) = (session(), Instant::now());
        assert_eq!(feed(&mut session, now, &[Event::LinkUp]), [Action::AskTurn]);
        let actions = feed(&mut session, now, &[Event::Resolved, Event::Turn, Event::Connected]);
        assert_eq!(actions, [Action::ReleaseTurn, Action::Subscribe]);
    }

    #[test]
    fn a_connect_that_hangs_is_cancelled_by_a_disconnect_and_waits_to_be_heard_again() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &[Event::Seen, Event::Turn]);
        let late = session.timeout().unwrap();
        assert_eq!(late, now + Deadlines::default().connect);
        assert!(session.poll(late, Event::Tick).contains(&Action::Disconnect));
        assert_eq!(session.poll(late, Event::Disconnected), [Action::ReleaseTurn, Action::Rescan]);
        assert_eq!(session.poll(session.timeout().unwrap(), Event::Tick), [], "it does not hold the adapter up again");
        assert_eq!(session.poll(late, Event::Seen), [Action::AskTurn]);
    }

    #[test]
    fn a_link_lost_before_the_services_are_known_is_given_up_at_once() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &[Event::Seen, Event::Turn, Event::LinkUp, Event::Connected]);
        assert!(session.poll(now, Event::LinkDown).contains(&Action::Disconnect));
    }

    #[test]
    fn the_end_of_an_older_link_does_not_cancel_a_queued_attempt() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &[Event::Seen]);
        assert_eq!(session.poll(now, Event::LinkDown), []);
        assert_eq!(session.poll(now, Event::Turn), [Action::Connect]);
    }

    #[test]
    fn passing_failures_are_retried_quickly_but_not_for_ever() {
        let (mut session, mut now) = (session(), Instant::now());
        let mut waits = vec![];
        for _ in 0..=QUICK_RETRIES {
            feed(&mut session, now, &[Event::Seen, Event::Turn, failed(true), Event::Disconnected]);
            let until = session.timeout().unwrap();
            waits.push(until - now);
            now = until;
            session.poll(now, Event::Tick);
        }
        let (last, quick) = waits.split_last().unwrap();
        assert!(quick.iter().all(|wait| *wait <= Deadlines::default().retry_quick), "{quick:?}");
        assert!(*last >= Deadlines::default().retry_first, "{last:?}");
    }

    #[test]
    fn an_abort_after_the_kernels_own_deadline_means_nobody_answered() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &[Event::Seen, Event::Turn]);
        let late = now + Deadlines::default().connect / 2;
        assert!(session.poll(late, failed(true)).contains(&Action::Disconnect));
        assert!(session.poll(late, Event::Disconnected).contains(&Action::Rescan));
    }

    #[test]
    fn a_lost_link_is_reported_once_and_looked_for_by_a_new_scan() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &TO_READY);
        let actions = session.poll(now, Event::LinkDown);
        assert_eq!(actions, [Action::ReportLost("the link broke".into()), Action::Rescan]);
        assert_eq!(session.poll(now, Event::LinkDown), []);
        assert_eq!(feed(&mut session, now, &[Event::Seen]), []);
        assert_eq!(session.poll(session.timeout().unwrap(), Event::Tick), [Action::AskTurn]);
    }

    #[test]
    fn a_link_that_ends_after_the_answer_to_disconnect_is_looked_for_by_a_new_scan() {
        let (mut session, now) = (session(), Instant::now());
        feed(&mut session, now, &TO_READY[..5]);
        feed(&mut session, now, &[failed(false)]);
        assert_eq!(session.poll(now, Event::Disconnected), []);
        assert_eq!(session.poll(now, Event::LinkDown), [Action::Rescan]);
    }

    #[test]
    fn when_bluez_is_gone_the_device_is_lost_at_once_and_nothing_stays_held() {
        for steps in 1..=TO_READY.len() {
            let (mut session, now) = (session(), Instant::now());
            feed(&mut session, now, &TO_READY[..steps]);
            let held = session.holds_turn;
            let actions = session.poll(now, Event::Gone);
            assert_eq!(actions.contains(&Action::ReleaseTurn), held, "after {steps} steps");
            assert_eq!(actions.iter().any(|a| matches!(a, Action::ReportLost(_))), steps >= 2, "after {steps} steps");
            assert!(!session.is_linked());
            assert_eq!(feed(&mut session, now, &TO_READY), [Action::ReportReady], "and it can begin again");
        }
    }

    #[test]
    fn a_device_that_takes_bluez_along_each_time_is_tried_ever_more_seldom_until_it_once_is_ready() {
        let (mut session, mut now) = (session(), Instant::now());
        let mut waits = vec![];
        for round in 0..8 {
            // Sometimes the failure is told before bluetoothd is gone.
            let told = [failed(true), Event::Disconnected];
            feed(&mut session, now, &[&[Event::Seen, Event::Turn, Event::LinkUp], &told[..round % 3], &[Event::Gone]].concat());
            let until = session.timeout().unwrap_or(now);
            waits.push((until - now).as_secs());
            if until > now {
                // BlueZ goes again for another reason, and it is heard again: neither shortens the wait.
                session.poll(now, Event::Gone);
                assert_eq!(session.poll(now, Event::Seen), []);
                assert_eq!(session.timeout(), Some(until));
                session.poll(now, Event::Gone);
            }
            now = until;
            session.poll(now, Event::Tick);
        }
        assert_eq!(waits, [0, 4, 16, 64, 256, 900, 900, 900]);
        feed(&mut session, now, &TO_READY);
        feed(&mut session, now, &[Event::LinkDown]);
        now = session.timeout().unwrap();
        session.poll(now, Event::Tick);
        feed(&mut session, now, &[Event::Seen, Event::Turn, Event::Gone]);
        assert_eq!(session.timeout(), None, "it starts anew");
    }

    /// What a shell would have under way for the session.
    #[derive(Default)]
    struct Shell {
        operation: Option<Action>,
        holds_turn: bool,
        ready: bool,
        /// A connection was begun and neither ended by BlueZ nor by a Disconnect.
        attempt: bool,
    }

    impl Shell {
        fn carry_out(&mut self, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::AskTurn => {
                        assert_eq!(self.operation, None, "one operation at a time");
                        assert!(!self.holds_turn);
                        self.operation = Some(action);
                    }
                    Action::Connect => {
                        assert_eq!(self.operation, None, "one operation at a time");
                        assert!(self.holds_turn, "nobody connects out of turn");
                        assert!(!self.attempt, "the attempt before was never ended");
                        self.attempt = true;
                        self.operation = Some(action);
                    }
                    Action::Subscribe => {
                        assert_eq!(self.operation, None, "one operation at a time");
                        assert!(self.attempt);
                        self.operation = Some(action);
                    }
                    Action::Disconnect => {
                        assert!(self.attempt);
                        (self.operation, self.attempt) = (Some(action), false);
                    }
                    Action::ReleaseTurn => {
                        assert!(self.holds_turn, "released twice");
                        self.holds_turn = false;
                    }
                    Action::Abandon => (self.operation, self.attempt) = (None, false),
                    Action::ReportReady => self.ready = true,
                    Action::ReportLost(_) => self.ready = false,
                    Action::Rescan => {}
                }
            }
        }

        /// The answer to what is under way: `how` chooses among those possible.
        fn answer(&mut self, how: u8) -> Event {
            match self.operation.take() {
                Some(Action::AskTurn) => {
                    self.holds_turn = true;
                    Event::Turn
                }
                Some(Action::Connect) => [Event::Connected, failed(true), failed(false)][usize::from(how % 3)].clone(),
                Some(Action::Subscribe) => [Event::Subscribed, failed(true), failed(false)][usize::from(how % 3)].clone(),
                Some(Action::Disconnect) => Event::Disconnected,
                _ => Event::Tick,
            }
        }
    }

    #[test]
    fn whoever_stands_by_a_device_does_not_wait_for_the_end_of_its_pause() {
        let (mut session, mut now) = (session(), Instant::now());
        session.poll(now, Event::Seen);
        for _ in 0..8 {
            feed(&mut session, now, &[Event::Turn, failed(false), Event::Disconnected]);
            now = session.timeout().expect("it pauses");
            session.poll(now, Event::Tick);
        }
        feed(&mut session, now, &[Event::Turn, failed(false), Event::Disconnected]);
        assert_eq!(session.poll(now, Event::Asked), [Action::AskTurn], "it was heard before");
        assert_eq!(feed(&mut session, now, &[Event::Asked]), [], "one that is under way goes on");
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_rules_and_ends_ready_once_the_device_behaves(
            seed: u64, history in proptest::collection::vec((0u8..9, 0u8..12, 0u64..40_000), 0..200),
        ) {
            let (mut session, mut shell, mut now) = (Session::new(Deadlines::default(), seed), Shell::default(), Instant::now());
            for (what, how, wait) in history {
                now += Duration::from_millis(wait);
                let event = match what {
                    0 => Event::Seen,
                    1 => Event::LinkUp,
                    2 => {
                        // BlueZ ended the link itself; a ready session needs no Disconnect.
                        shell.attempt &= !shell.ready;
                        Event::LinkDown
                    }
                    3 => Event::Resolved,
                    4 if how == 0 => Event::Gone,
                    5..=7 => shell.answer(how),
                    8 if how < 4 => Event::Silent,
                    8 if how < 6 => Event::Asked,
                    _ => Event::Tick,
                };
                let actions = session.poll(now, event);
                if let Some(at) = session.timeout() {
                    prop_assert!(at <= now + Deadlines::default().retry_suspect, "it waits too long");
                }
                if matches!(session.state, State::BackingOff { .. }) {
                    shell.operation = None;
                }
                shell.carry_out(actions);
            }
            for _ in 0..20 {
                if shell.ready {
                    return Ok(());
                }
                now = session.timeout().unwrap_or(now).max(now);
                for event in [Event::Tick, Event::Seen] {
                    let actions = session.poll(now, event);
                    if matches!(session.state, State::BackingOff { .. }) {
                        shell.operation = None;
                    }
                    shell.carry_out(actions);
                }
                for _ in 0..4 {
                    let answer = shell.answer(0);
                    let connected = answer == Event::Connected;
                    let actions = session.poll(now, answer);
                    shell.carry_out(actions);
                    if connected {
                        let actions = session.poll(now, Event::Resolved);
                        shell.carry_out(actions);
                    }
                }
            }
            prop_assert!(shell.ready, "no way on from {:?}", session.state);
        }
    }
}
