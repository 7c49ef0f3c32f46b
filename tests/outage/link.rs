//! A link as times: when it is up, how long a message takes, what was on the way when it broke.

use std::collections::VecDeque;

use bedrail::deliver::{Lane, Token};

/// One way, in ms.
const WAY: u64 = 10;

#[derive(Clone, Copy, Debug)]
pub struct Flying {
    pub token: Token,
    pub lane: Lane,
    pub seq: u64,
    sent: u64,
}

/// One connection. Messages arrive in order, a while after they were sent, and are acknowledged a while later.
#[derive(Default)]
pub struct Connection {
    flying: VecDeque<Flying>,
    /// How many of them have arrived.
    arrived: usize,
    backlog: usize,
}

impl Connection {
    pub fn send(&mut self, now: u64, token: Token, lane: Lane, seq: u64) {
        self.backlog += usize::from(lane == Lane::Backlog);
        self.flying.push_back(Flying { token, lane, seq, sent: now });
    }

    pub fn len(&self) -> usize {
        self.flying.len()
    }

    /// Of the backlog.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// The next message that has arrived since it was asked last.
    pub fn arrived(&mut self, now: u64) -> Option<Flying> {
        let flying = *self.flying.get(self.arrived).filter(|flying| flying.sent + WAY <= now)?;
        self.arrived += 1;
        Some(flying)
    }

    /// The next acknowledgement that is here.
    pub fn acknowledged(&mut self, now: u64) -> Option<Flying> {
        self.flying.front().filter(|flying| flying.sent + 2 * WAY <= now)?;
        let flying = self.flying.pop_front()?;
        self.arrived -= 1;
        self.backlog -= usize::from(flying.lane == Lane::Backlog);
        Some(flying)
    }
}

/// When the link is up: spans in ms, in order.
pub struct Weather(Vec<(u64, u64)>);

impl Weather {
    /// Down until `back`.
    pub fn outage(back: u64) -> Self {
        Self(vec![(back, u64::MAX)])
    }

    /// Until `back` it comes for moments: up for up to `up` ms, down for up to `down` ms.
    pub fn flapping(back: u64, up: u64, down: u64, mut chance: impl FnMut() -> u64) -> Self {
        let (mut spans, mut at) = (Vec::new(), 0);
        while at < back {
            let from = at + 1 + chance() % down;
            let to = from + 1 + chance() % up;
            spans.push((from, to.min(back)));
            at = to;
        }
        spans.retain(|(from, to)| from < to);
        spans.push((back, u64::MAX));
        Self(spans)
    }

    /// Until when it is up; `None` while it is down.
    pub fn up_until(&self, now: u64) -> Option<u64> {
        let after = self.0.partition_point(|(from, _)| *from <= now);
        self.0[..after].last().map(|(_, to)| *to).filter(|to| now < *to)
    }
}
