//! The one folder that knows the MQTT client library: a connection to publish over, and one to receive over.
//!
//! A connection is made, ends once, and is dropped whole: what was not acknowledged is the shell's to send again, from the log.

mod inbox;
mod line;
mod session;
mod v4;
mod v5;

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::link::{Link, LinkEvent, LinkSettings, Message, NotTaken};
use line::Connection;
use session::{Event, Purpose};

pub use inbox::{Inbox, InboxEvent, Subscription, subscribe};
pub use session::Received;

/// How long a DISCONNECT may take before the connection is dropped without it.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Starts connecting; the first event says how that went. Inside a tokio runtime.
pub fn connect(settings: &LinkSettings) -> MqttLink {
    MqttLink { connection: Connection::open(settings.clone(), Purpose::Publish), connected: false }
}

pub struct MqttLink {
    connection: Connection,
    connected: bool,
}

impl Link for MqttLink {
    fn publish(&mut self, token: u64, message: Message) -> Result<usize, NotTaken> {
        if self.room() == 0 {
            return Err(NotTaken::Full);
        }
        self.connection.session.publish(token, message, Instant::now())
    }

    /// While a login is about to expire nothing new is taken, so that the line falls silent and can be made anew.
    fn room(&self) -> usize {
        if self.connection.renewal_due(Instant::now()) { 0 } else { self.connection.session.room() }
    }

    async fn event(&mut self) -> LinkEvent {
        loop {
            match self.connection.event().await {
                // Once: that a login was renewed is nobody's business.
                Event::Connected { window, max_packet, .. } if !self.connected => {
                    self.connected = true;
                    return LinkEvent::Connected { window, max_packet };
                }
                Event::Acked { token, reason } => return LinkEvent::Acked { token, reason },
                Event::Lost(reason) => return LinkEvent::Lost(reason),
                Event::Connected { .. } | Event::Message(_) => {}
            }
        }
    }

    async fn close(self) {
        let _ = timeout(CLOSE_GRACE, self.connection.close()).await;
    }
}
