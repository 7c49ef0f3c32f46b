//! What a route publishes beside its records: the latest notice of every topic, each once a connection and whenever it is
//! new. One at a time, and never two without a record between them while records are owed: neither starves the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::monitor::{Notice, Notices};

/// What there is to publish.
#[derive(Clone, Debug)]
pub struct Announcements {
    pub notices: watch::Receiver<Arc<Notices>>,
    /// Published once a connection, after those.
    pub standing: Arc<[Notice]>,
    /// The last word when the gateway stops.
    pub stopped: Notice,
}

/// What of it this connection has published. Pure.
#[derive(Debug, Default)]
pub struct Outbox {
    sent: BTreeMap<Arc<str>, u64>,
    in_flight: Option<(Arc<str>, u64)>,
    /// It is the records' turn.
    yields: bool,
    /// Nothing was left at the last look.
    done: bool,
}

impl Outbox {
    /// There may be something new; without it a look costs nothing.
    pub fn wake(&mut self) {
        self.done = false;
    }

    pub fn next<'n>(&mut self, notices: &'n Notices, standing: &'n [Notice], records_owed: bool) -> Option<&'n Notice> {
        if self.done || self.in_flight.is_some() || (self.yields && records_owed) {
            return None;
        }
        let next = notices.values().chain(standing).find(|notice| self.sent.get(&notice.topic) != Some(&notice.stamp));
        self.done = next.is_none();
        next
    }

    pub fn sending(&mut self, notice: &Notice) {
        self.in_flight = Some((notice.topic.clone(), notice.stamp));
    }

    /// Taken or refused: what is refused now is tried again when it is new.
    pub fn answered(&mut self) {
        self.sent.extend(self.in_flight.take());
        self.yields = true;
    }

    pub fn record_sent(&mut self) {
        self.yields = false;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn notice(topic: u8, stamp: u64) -> Notice {
        Notice { topic: format!("t/{topic}").into(), payload: stamp.to_string().into_bytes().into(), stamp }
    }

    /// What can happen to a route: a notice becomes new, the answer to one comes, a record goes, the link breaks.
    #[derive(Clone, Debug)]
    enum Step {
        New(u8),
        Answer,
        Record,
        Break,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![4 => (0u8..5).prop_map(Step::New), 6 => Just(Step::Answer), 4 => Just(Step::Record), 1 => Just(Step::Break)]
    }

    proptest! {
        #[test]
        fn each_connection_publishes_the_latest_of_every_topic_and_records_go_between(
            steps in proptest::collection::vec(step(), 0..120), owed in any::<bool>(),
        ) {
            let (mut board, mut outbox) = (Notices::new(), Outbox::default());
            let standing = [notice(9, 0)];
            let mut broker: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            let (mut stamp, mut on_the_way, mut since_record) = (0, None, 0);
            for step in steps {
                match step {
                    Step::New(topic) => {
                        stamp += 1;
                        let new = notice(topic, stamp);
                        board.insert(new.topic.clone(), new);
                        outbox.wake();
                    }
                    Step::Answer => if let Some(Notice { topic, stamp, .. }) = on_the_way.take() {
                        broker.insert(topic, stamp);
                        outbox.answered();
                    },
                    Step::Record => { outbox.record_sent(); since_record = 0; }
                    Step::Break => { (outbox, on_the_way) = (Outbox::default(), None); broker.clear(); since_record = 0; }
                }
                if let Some(next) = outbox.next(&board, &standing, owed).cloned() {
                    prop_assert!(on_the_way.is_none(), "two at once");
                    prop_assert_ne!(broker.get(&next.topic), Some(&next.stamp), "told twice on one connection");
                    outbox.sending(&next);
                    on_the_way = Some(next);
                    since_record += 1;
                }
                prop_assert!(!owed || since_record <= 2, "records wait for notices");
            }
            // Left alone, it publishes all there is and then rests.
            for _ in 0..20 {
                if let Some(Notice { topic, stamp, .. }) = on_the_way.take() {
                    broker.insert(topic, stamp);
                    outbox.answered();
                }
                if let Some(next) = outbox.next(&board, &standing, false).cloned() {
                    outbox.sending(&next);
                    on_the_way = Some(next);
                }
            }
            let told: BTreeSet<_> = broker.into_iter().collect();
            let all: BTreeSet<_> = board.values().chain(&standing).map(|n| (n.topic.clone(), n.stamp)).collect();
            prop_assert_eq!(told, all);
        }
    }
}
