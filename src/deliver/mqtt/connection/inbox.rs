//! A connection to receive over: receipts, other gateways' status. It is one of its own, under a client id of its own, so that
//! nothing that arrives can hold up what is sent.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::CLOSE_GRACE;
use super::line::Connection;
use super::session::{Event, Purpose, Received};
use crate::deliver::mqtt::link::{LinkSettings, LostReason};

/// What to listen to.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    /// Topic filters, at QoS 1. Not empty.
    pub topics: Vec<String>,
    /// How long the broker keeps what arrives while nobody is connected (MQTT 5; with 3.1.1 the broker decides). `None`: it
    /// keeps nothing, and what is retained comes anew at every connection.
    pub session: Option<Duration>,
}

/// Starts connecting and subscribing; the first event says how that went. Inside a tokio runtime.
///
/// `settings.client_id` must differ from the publishing link's: a broker throws out the older of two clients of one name. The
/// last will is not for a receiver; leave it out.
///
/// ```no_run
/// # use std::time::Duration;
/// # use bedrail::deliver::mqtt::{InboxEvent, LinkSettings, Subscription, subscribe};
/// # async fn example(settings: LinkSettings) {
/// let topics = vec!["receipts/gw-1".to_owned()];
/// let mut inbox = subscribe(&settings, Subscription { topics, session: Some(Duration::from_secs(86_400)) });
/// loop {
///     match inbox.event().await {
///         // What was sent while `resumed` is false and nobody was connected is gone: ask again.
///         InboxEvent::Connected { resumed: _ } => {}
///         InboxEvent::Message(message) => {
///             // … first what it asks for is done and durable …
///             inbox.taken(&message);
///         }
///         // Wait a while, then subscribe anew.
///         InboxEvent::Lost(reason) => return eprintln!("{reason}"),
///     }
/// }
/// # }
/// ```
pub fn subscribe(settings: &LinkSettings, subscription: Subscription) -> Inbox {
    let Subscription { topics, session } = subscription;
    Inbox { connection: Connection::open(settings.clone(), Purpose::Subscribe { topics, session }) }
}

/// One connection that ends once, with [`InboxEvent::Lost`]. Memory is bounded: packets are read one at a time as they are
/// asked for, none larger than `max_packet`, and a broker sends no more than 64 that were not [taken](Inbox::taken) (MQTT 5;
/// with 3.1.1 as many as it likes, which then wait in the line).
pub struct Inbox {
    connection: Connection,
}

#[derive(Debug, PartialEq, Eq)]
pub enum InboxEvent {
    /// The subscription stands. `resumed`: the broker still had the session, so nothing was missed; what waited in it may come
    /// before this is said.
    Connected {
        resumed: bool,
    },
    /// May come more than once: only what was taken does not come again.
    Message(Received),
    Lost(LostReason),
}

impl Inbox {
    /// The next thing that happened. Cancel safe. After `Lost` it says `Lost` again.
    pub async fn event(&mut self) -> InboxEvent {
        loop {
            match self.connection.event().await {
                Event::Connected { resumed, .. } => return InboxEvent::Connected { resumed },
                Event::Message(message) => return InboxEvent::Message(message),
                Event::Lost(reason) => return InboxEvent::Lost(reason),
                Event::Acked { .. } => {}
            }
        }
    }

    /// The message was taken care of, durably: the broker may forget it. In the order they came; what is not said here comes
    /// again with the next connection of the session. It goes out with the next call of [`Inbox::event`].
    pub fn taken(&mut self, message: &Received) {
        self.connection.session.acknowledge(message, Instant::now());
    }

    /// An orderly end; a session is kept by the broker as long as was agreed.
    pub async fn close(self) {
        let _ = timeout(CLOSE_GRACE, self.connection.close()).await;
    }
}
