//! The MQTT destination: joins `render`, `status` and a connection, and says what a broker's answer means.

use super::{AckReason, Link, LinkEvent, Message, NotTaken, RefusalCode, TopicTemplate, render, status};
use crate::deliver::{Capabilities, Destination, Happened, Item, NotSent, Token, Verdict};

/// The gateway's own status goes under a token no record has; its acknowledgement settles nothing.
const STATUS: Token = Token::MAX;

/// `connect` makes a new connection, of any kind of link: a test scripts one.
pub struct MqttDestination<L, C> {
    connect: C,
    link: Option<L>,
    topic: TopicTemplate,
    /// As written in the config, for messages.
    topic_text: String,
    gateway: String,
}

impl<L: Link, C: FnMut() -> L + Send> MqttDestination<L, C> {
    pub fn new(connect: C, topic: TopicTemplate, topic_text: String, gateway: String) -> Self {
        Self { connect, link: None, topic, topic_text, gateway }
    }
}

impl<L: Link, C: FnMut() -> L + Send> Destination for MqttDestination<L, C> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        self.link = Some((self.connect)());
    }

    fn room(&self) -> usize {
        self.link.as_ref().map_or(0, Link::room)
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<(), NotSent> {
        let Some(link) = &mut self.link else { return Err(NotSent::NoRoom) };
        let rendered = render(item, &self.topic);
        link.publish(token, Message::new(rendered.topic, rendered.payload)).map_err(|error| match error {
            NotTaken::Full => NotSent::NoRoom,
            NotTaken::TooLarge { .. } => NotSent::TooLarge(error.to_string()),
        })
    }

    fn announce(&mut self, status: &status::Status) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.publish(STATUS, Message::new(status::topic(&self.gateway), status::online(status)).retained()).is_ok()
    }

    async fn event(&mut self) -> Happened {
        let Some(link) = &mut self.link else { return std::future::pending().await };
        loop {
            match link.event().await {
                LinkEvent::Connected { .. } => return Happened::Up,
                LinkEvent::Acked { token: STATUS, .. } => {}
                LinkEvent::Acked { token, reason } => {
                    return Happened::Answered { token, verdict: classify(reason, &self.topic_text) };
                }
                LinkEvent::Lost(reason) => return Happened::Down(reason.fault()),
            }
        }
    }

    async fn close(&mut self, farewell: bool) {
        let Some(mut link) = self.link.take() else { return };
        if farewell {
            // The broker drops the will at an orderly end, so the gateway says itself that it is gone. Without room for it
            // the retained status stays behind; there is nobody left to wait.
            let offline = status::offline(&self.gateway, env!("CARGO_PKG_VERSION"));
            let _ = link.publish(STATUS, Message::new(status::topic(&self.gateway), offline).retained());
        }
        link.close().await;
    }
}

/// What a broker's answer to one message means (MQTT 5, 3.4.2.1). `topic` is the route's, for the remedy.
pub fn classify(reason: AckReason, topic: &str) -> Verdict {
    match reason {
        AckReason::Success => Verdict::Settled,
        // Taken, and nobody has it: not a delivery. It stays owed until somebody listens.
        AckReason::NoMatchingSubscribers => Verdict::Owed(format!(
            "nobody is subscribed to `{topic}`; start the consumer, let it subscribe to all of it, or filter the route"
        )),
        AckReason::Refused(code @ (RefusalCode::PAYLOAD_FORMAT_INVALID | RefusalCode::TOPIC_NAME_INVALID)) => {
            Verdict::Dead { reason: "refused", detail: code.to_string() }
        }
        // It is the route that is refused, and a person has to change something.
        AckReason::Refused(code) => Verdict::Owed(format!(
            "the broker refuses to take messages of this route ({code}); check the broker's access rules for topic `{topic}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_settles_and_only_a_malformed_message_dies() {
        assert_eq!(classify(AckReason::Success, "t"), Verdict::Settled);
        assert!(matches!(classify(AckReason::NoMatchingSubscribers, "t/#"), Verdict::Owed(text) if text.contains("t/#")));
        for code in [0x80, 0x83, 0x87, 0x91, 0x97] {
            let verdict = classify(AckReason::Refused(RefusalCode(code)), "t");
            assert!(matches!(verdict, Verdict::Owed(_)), "0x{code:02x}: {verdict:?}");
        }
        for code in [0x90, 0x99] {
            let verdict = classify(AckReason::Refused(RefusalCode(code)), "t");
            assert!(matches!(verdict, Verdict::Dead { .. }), "0x{code:02x}: {verdict:?}");
        }
    }
}
