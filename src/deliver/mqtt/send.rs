//! The MQTT destination: joins `render`, `status` and a connection, and says what a broker's answer means.

use std::collections::HashMap;

use super::{AckReason, Link, LinkEvent, Message, NotTaken, RefusalCode, TopicTemplate, packet_len, render, status};
use crate::config::Unheard;
use crate::deliver::{Capabilities, Destination, Happened, Item, Lane, NotSent, Sent, Token, Verdict, Why};

/// The gateway's own status goes under a token no record has; its acknowledgement settles nothing.
const STATUS: Token = Token::MAX;

/// What a route wants of its MQTT destination.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    pub topic: TopicTemplate,
    /// As written in the config, for messages.
    pub topic_text: String,
    pub gateway: String,
    /// Whether a message nobody listens to counts as arrived.
    pub unheard: Unheard,
}

/// `connect` makes a new connection, of any kind of link: a test scripts one.
pub struct MqttDestination<L, C> {
    connect: C,
    link: Option<L>,
    options: MqttOptions,
    /// Messages the connection takes at once, as the broker said.
    window: usize,
    /// Of each message of records under way.
    lanes: HashMap<Token, Lane>,
}

impl<L: Link, C: FnMut() -> L + Send> MqttDestination<L, C> {
    pub fn new(connect: C, options: MqttOptions) -> Self {
        Self { connect, link: None, options, window: 0, lanes: HashMap::new() }
    }

    fn publish(&mut self, token: Token, lane: Lane, message: Message) -> Result<Sent, NotTaken> {
        let Some(link) = &mut self.link else { return Err(NotTaken::Full) };
        let octets = packet_len(&message) as u64;
        link.publish(token, message)?;
        self.lanes.insert(token, lane);
        Ok(Sent { messages: 1, octets })
    }
}

impl<L: Link, C: FnMut() -> L + Send> Destination for MqttDestination<L, C> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { amend: true, retract: true, order: true, batch: 1 }
    }

    fn connect(&mut self) {
        self.lanes.clear();
        self.link = Some((self.connect)());
    }

    fn room(&self) -> usize {
        self.link.as_ref().map_or(0, Link::room)
    }

    fn room_for(&self, lane: Lane) -> usize {
        let room = self.room();
        match lane {
            Lane::Live => room,
            Lane::Backlog => {
                let share = (self.window * 3 / 4).max(1);
                let taken = self.lanes.values().filter(|lane| **lane == Lane::Backlog).count();
                room.min(share.saturating_sub(taken))
            }
        }
    }

    fn send(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        let rendered = render(item, &self.options.topic);
        self.publish(token, item.lane, Message::new(rendered.topic, rendered.payload)).map_err(|error| match error {
            NotTaken::Full => NotSent::NoRoom,
            NotTaken::TooLarge { .. } => NotSent::TooLarge(error.to_string()),
        })
    }

    fn flush(&mut self) -> Sent {
        Sent::default()
    }

    fn announce(&mut self, status: &status::Status) -> bool {
        let Some(link) = &mut self.link else { return false };
        let message = Message::new(status::topic(&self.options.gateway), status::online(status)).retained();
        link.publish(STATUS, message).is_ok()
    }

    async fn event(&mut self) -> Happened {
        let Some(link) = &mut self.link else { return std::future::pending().await };
        loop {
            match link.event().await {
                LinkEvent::Connected { window, .. } => {
                    self.window = usize::from(window);
                    return Happened::Up;
                }
                LinkEvent::Acked { token: STATUS, .. } => {}
                LinkEvent::Acked { token, reason } => {
                    self.lanes.remove(&token);
                    return Happened::Answered {
                        token,
                        verdict: classify(reason, &self.options.topic_text, self.options.unheard),
                    };
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
            let offline = status::offline(&self.options.gateway, env!("CARGO_PKG_VERSION"));
            let _ = link.publish(STATUS, Message::new(status::topic(&self.options.gateway), offline).retained());
        }
        link.close().await;
    }
}

/// What a broker's answer to one message means (MQTT 5, 3.4.2.1). `topic` is the route's, for the remedy.
pub fn classify(reason: AckReason, topic: &str, unheard: Unheard) -> Verdict {
    match reason {
        AckReason::Success => Verdict::Settled,
        AckReason::NoMatchingSubscribers if unheard == Unheard::Settle => Verdict::SettledUnheard,
        // Taken, and nobody has it: not a delivery. It stays owed until somebody listens.
        AckReason::NoMatchingSubscribers => Verdict::Waits {
            why: Why::Unheard,
            detail: format!(
                "nobody is subscribed to `{topic}`; start the consumer, let it subscribe to all of it, or filter the route"
            ),
        },
        AckReason::Refused(code) => match code {
            RefusalCode::PAYLOAD_FORMAT_INVALID | RefusalCode::TOPIC_NAME_INVALID => {
                Verdict::Dead { reason: "refused", detail: code.to_string() }
            }
            RefusalCode::NOT_AUTHORIZED => Verdict::Waits {
                why: Why::Forbidden,
                detail: format!("the broker refuses to take messages of this route ({code}); its topic is `{topic}`"),
            },
            RefusalCode::QUOTA_EXCEEDED => {
                Verdict::Waits { why: Why::Quota, detail: format!("the broker has had enough ({code})") }
            }
            // A packet id of ours that the broker still holds: it is out of step with us, and a new connection begins anew.
            RefusalCode::PACKET_IDENTIFIER_IN_USE => Verdict::Owed(format!("the broker is out of step ({code})")),
            _ => Verdict::Waits { why: Why::Refused, detail: format!("the broker did not take a message ({code})") },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/mqtt.md has the same table.
    #[test]
    fn each_answer_of_a_broker_means_one_thing() {
        let of = |reason| classify(reason, "t/#", Unheard::Wait);
        let waits = |reason| match of(reason) {
            Verdict::Waits { why, detail } => (why, detail),
            other => panic!("{reason:?}: {other:?}"),
        };
        let refused = |code| AckReason::Refused(RefusalCode(code));
        assert_eq!(of(AckReason::Success), Verdict::Settled);
        let (why, detail) = waits(AckReason::NoMatchingSubscribers);
        assert!(why == Why::Unheard && detail.contains("t/#"), "{detail}");
        assert_eq!(classify(AckReason::NoMatchingSubscribers, "t", Unheard::Settle), Verdict::SettledUnheard);
        let (why, detail) = waits(refused(0x87));
        assert!(why == Why::Forbidden && detail.contains("access rules") && detail.contains("t/#"), "{detail}");
        assert_eq!(waits(refused(0x97)).0, Why::Quota);
        for unexplained in [0x80, 0x83, 0xA0] {
            assert_eq!(waits(refused(unexplained)).0, Why::Refused, "0x{unexplained:02x}");
        }
        assert!(matches!(of(refused(0x91)), Verdict::Owed(_)));
        for malformed in [0x90, 0x99] {
            assert!(matches!(of(refused(malformed)), Verdict::Dead { reason: "refused", .. }), "0x{malformed:02x}");
        }
    }
}
