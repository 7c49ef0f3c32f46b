//! The MQTT destination: joins `render`, `status` and a connection, and says what a broker's answer means.

use super::{AckReason, Link, LinkEvent, Message, NotTaken, RefusalCode, TopicTemplate, render};
use crate::deliver::{Capabilities, Destination, Happened, Item, NotSent, Token, Verdict};
use crate::monitor::Notice;

/// Notices go under a token no record has; their acknowledgement settles nothing.
const NOTICE: Token = Token::MAX;

/// `connect` makes a new connection, of any kind of link: a test scripts one.
pub struct MqttDestination<L, C> {
    connect: C,
    link: Option<L>,
    topic: TopicTemplate,
    /// As written in the config, for messages.
    topic_text: String,
}

impl<L: Link, C: FnMut() -> L + Send> MqttDestination<L, C> {
    pub fn new(connect: C, topic: TopicTemplate, topic_text: String) -> Self {
        Self { connect, link: None, topic, topic_text }
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

    fn preview(&self, item: &Item) -> (String, String) {
        let rendered = render(item, &self.topic);
        (rendered.topic, String::from_utf8_lossy(&rendered.payload).into_owned())
    }

    fn announce(&mut self, notice: &Notice) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.publish(NOTICE, Message::new(&*notice.topic, &*notice.payload).retained()).is_ok()
    }

    async fn event(&mut self) -> Happened {
        let Some(link) = &mut self.link else { return std::future::pending().await };
        match link.event().await {
            LinkEvent::Connected { .. } => Happened::Up,
            LinkEvent::Acked { token: NOTICE, reason } => Happened::Announced(noticed(reason)),
            LinkEvent::Acked { token, reason } => Happened::Answered { token, verdict: classify(reason, &self.topic_text) },
            LinkEvent::Lost(reason) => Happened::Down(reason.fault()),
        }
    }

    async fn close(&mut self, farewell: Option<&Notice>) {
        let Some(mut link) = self.link.take() else { return };
        if let Some(farewell) = farewell {
            // The broker drops the will at an orderly end, so the gateway says itself that it is gone. Without room for it
            // the retained state stays behind; there is nobody left to wait.
            let _ = link.publish(NOTICE, Message::new(&*farewell.topic, &*farewell.payload).retained());
        }
        link.close().await;
    }
}

/// Retained, a notice is of use also to whoever subscribes later.
fn noticed(reason: AckReason) -> Result<(), String> {
    match reason {
        AckReason::Success | AckReason::NoMatchingSubscribers => Ok(()),
        AckReason::Refused(code) => Err(format!(
            "the broker refuses to take the gateway's state ({code}); check its access rules for monitor.topic, or set announce = false"
        )),
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
