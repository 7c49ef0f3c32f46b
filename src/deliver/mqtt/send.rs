//! The MQTT destination: joins `render`, `status` and a connection, and says what a broker's answer means.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::receipt::{Deaf, Ears, Listener};
use super::{AckReason, Link, LinkEvent, Message, NotTaken, RefusalCode, TopicTemplate, batch, render};
use crate::config::Unheard;
use crate::deliver::{Capabilities, Destination, FaultClass, Happened, Item, Lane, NotSent, Sent, Token, Verdict, Why};
use crate::monitor::Notice;

/// Message tokens of batches; those of the planner count from 0.
const BATCH: Token = 1 << 62;
/// A batch of fewer is no batch.
const MIN_BATCH: usize = 2;
/// After a batch was refused its records, and all for so long, go one by one: a broker without an access rule for the topic,
/// or a receiver that does not know batches, costs one refused message now and then.
const BATCH_PAUSE: Duration = Duration::from_secs(600);

/// Notices go under a token no record has; their acknowledgement settles nothing.
const NOTICE: Token = Token::MAX;

/// What a route wants of its MQTT destination.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    pub topic: TopicTemplate,
    /// As written in the config, for messages.
    pub topic_text: String,
    /// Whether a message nobody listens to counts as arrived.
    pub unheard: Unheard,
    pub batch: Option<BatchOptions>,
}

/// Many records as one message.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    pub topic: String,
    /// Not only the backlog: where the order is strict there is but one lane.
    pub all_lanes: bool,
}

/// `connect` makes a new connection, of any kind of link, and `listen` one that hears receipts: a test scripts both.
pub struct MqttDestination<L, C, E, F> {
    connect: C,
    link: Option<L>,
    receipts: Option<Listener<F, E>>,
    options: MqttOptions,
    /// Messages the connection takes at once, as the broker said.
    window: usize,
    /// Of each message of records under way.
    lanes: HashMap<Token, Lane>,
    /// Records of the batch to be sent next.
    open: VecDeque<(Token, Item)>,
    batches: HashMap<Token, Vec<Token>>,
    next_batch: Token,
    no_batch_until: Option<Instant>,
    /// What one answer said of many records.
    said: VecDeque<Happened>,
}

impl<L: Link, C: FnMut() -> L + Send> MqttDestination<L, C, Deaf, fn() -> Deaf> {
    /// One that settles on the broker's word.
    pub fn new(connect: C, options: MqttOptions) -> Self {
        Self::made(connect, None, options)
    }
}

impl<L: Link, C: FnMut() -> L + Send, E: Ears, F: FnMut() -> E + Send> MqttDestination<L, C, E, F> {
    /// One that hears receipts, over connections of their own.
    pub fn with_receipts(connect: C, listen: F, options: MqttOptions) -> Self {
        Self::made(connect, Some(Listener::new(listen)), options)
    }

    fn made(connect: C, receipts: Option<Listener<F, E>>, options: MqttOptions) -> Self {
        Self {
            connect,
            link: None,
            receipts,
            options,
            window: 0,
            lanes: HashMap::new(),
            open: VecDeque::new(),
            batches: HashMap::new(),
            next_batch: BATCH,
            no_batch_until: None,
            said: VecDeque::new(),
        }
    }

    fn publish(&mut self, token: Token, lane: Lane, message: Message) -> Result<Sent, NotTaken> {
        let Some(link) = &mut self.link else { return Err(NotTaken::Full) };
        let octets = link.publish(token, message)? as u64;
        self.lanes.insert(token, lane);
        Ok(Sent { messages: 1, octets })
    }

    fn take(&mut self, event: LinkEvent) -> Option<Happened> {
        match event {
            LinkEvent::Connected { window, .. } => {
                self.window = usize::from(window);
                Some(Happened::Up)
            }
            LinkEvent::Acked { token: NOTICE, reason } => Some(Happened::Announced(noticed(reason))),
            LinkEvent::Acked { token, reason } if token & BATCH != 0 => {
                self.lanes.remove(&token);
                self.batch_answered(token, reason);
                self.said.pop_front()
            }
            LinkEvent::Acked { token, reason } => {
                self.lanes.remove(&token);
                Some(Happened::Answered { token, verdict: classify(reason, &self.options.topic_text, self.options.unheard) })
            }
            LinkEvent::Lost(reason) => {
                if reason.class() == FaultClass::TooLarge && !self.batches.is_empty() {
                    self.pause_batches();
                }
                Some(Happened::Down(reason.fault()))
            }
        }
    }

    /// Only success is an answer for all of a batch. Any other is taken apart: its records go one by one, and each gets its own.
    fn batch_answered(&mut self, token: Token, reason: AckReason) {
        let tokens = self.batches.remove(&token).unwrap_or_default();
        let of_all = match classify(reason, &self.options.topic_text, self.options.unheard) {
            verdict @ (Verdict::Settled | Verdict::Owed(_) | Verdict::Waits { why: Why::Quota, .. }) => verdict,
            _ => {
                self.pause_batches();
                tracing::warn!(?reason, "the broker refused a batch; its records go one by one");
                Verdict::Again
            }
        };
        let answers = tokens.into_iter().map(|token| Happened::Answered { token, verdict: of_all.clone() });
        self.said.extend(answers);
    }

    fn pause_batches(&mut self) {
        self.no_batch_until = Some(Instant::now() + BATCH_PAUSE);
    }

    fn is_for_batches(&self, item: &Item) -> bool {
        let wanted = self.options.batch.as_ref().is_some_and(|batch| batch.all_lanes || item.lane == Lane::Backlog);
        wanted && self.no_batch_until.is_none_or(|until| until <= Instant::now())
    }

    fn send_one(&mut self, token: Token, item: &Item) -> Result<Sent, NotSent> {
        let rendered = render(item, &self.options.topic);
        self.publish(token, item.lane, Message::new(rendered.topic, rendered.payload)).map_err(|error| match error {
            NotTaken::Full => NotSent::NoRoom,
            NotTaken::TooLarge { .. } => NotSent::TooLarge(error.to_string()),
        })
    }

    /// The first `count` collected records as one message; `None`: they are too large for one.
    fn send_batch(&mut self, count: usize) -> Option<Result<Sent, NotTaken>> {
        let topic = self.options.batch.as_ref()?.topic.clone();
        let items: Vec<&Item> = self.open.iter().take(count).map(|(_, item)| item).collect();
        let lane = items.first()?.lane;
        let message = Message { content_type: Some(batch::CONTENT_TYPE), ..Message::new(topic, batch::render(&items)?) };
        let token = self.next_batch;
        match self.publish(token, lane, message) {
            Err(NotTaken::TooLarge { .. }) => None,
            Err(error) => Some(Err(error)),
            Ok(sent) => {
                self.next_batch += 1;
                self.batches.insert(token, self.open.drain(..count).map(|(token, _)| token).collect());
                Some(Ok(sent))
            }
        }
    }

    /// Sends what is collected, as far as there is room for it: what is too large for one message as halves, down to the one
    /// record that goes alone, and dies alone.
    fn send_collected(&mut self) -> Sent {
        let mut sent = Sent::default();
        let mut most = self.open.len();
        while self.open.front().is_some_and(|(_, first)| self.room_for(first.lane) > 0) {
            let count = most.min(self.open.len());
            if count < MIN_BATCH {
                let Some((token, item)) = self.open.pop_front() else { break };
                match self.send_one(token, &item) {
                    Ok(one) => sent += one,
                    Err(NotSent::TooLarge(detail)) => {
                        let verdict = Verdict::Dead { reason: "too_large", detail };
                        self.said.push_back(Happened::Answered { token, verdict });
                    }
                    Err(NotSent::NoRoom) => {
                        self.open.push_front((token, item));
                        break;
                    }
                }
                continue;
            }
            match self.send_batch(count) {
                Some(Ok(one)) => sent += one,
                Some(Err(_)) => break,
                None => most = count / 2,
            }
        }
        sent
    }
}

impl<L: Link, C: FnMut() -> L + Send, E: Ears, F: FnMut() -> E + Send> Destination for MqttDestination<L, C, E, F> {
    fn capabilities(&self) -> Capabilities {
        let batch = if self.options.batch.is_some() { batch::MAX_RECORDS } else { 1 };
        Capabilities { amend: true, retract: true, order: true, batch }
    }

    fn connect(&mut self) {
        self.lanes.clear();
        self.open.clear();
        self.batches.clear();
        self.said.clear();
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
        let mut sent = Sent::default();
        let collect = self.is_for_batches(item);
        if self.open.front().is_some_and(|(_, first)| !collect || first.lane != item.lane) {
            sent += self.send_collected();
            if !self.open.is_empty() {
                return Err(NotSent::NoRoom);
            }
        }
        if !collect {
            sent += self.send_one(token, item)?;
            return Ok(sent);
        }
        if self.room() == 0 {
            return Err(NotSent::NoRoom);
        }
        self.open.push_back((token, item.clone()));
        if self.open.len() >= batch::MAX_RECORDS {
            sent += self.send_collected();
        }
        Ok(sent)
    }

    fn flush(&mut self) -> Sent {
        self.send_collected()
    }

    fn preview(&self, item: &Item) -> (String, String) {
        let rendered = render(item, &self.options.topic);
        (rendered.topic, String::from_utf8_lossy(&rendered.payload).into_owned())
    }

    fn announce(&mut self, notice: &Notice) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.publish(NOTICE, Message::new(&*notice.topic, &*notice.payload).retained()).is_ok()
    }

    async fn event(&mut self) -> Happened {
        loop {
            if let Some(said) = self.said.pop_front() {
                return said;
            }
            let Some(link) = &mut self.link else { return std::future::pending().await };
            let event = match &mut self.receipts {
                None => link.event().await,
                Some(receipts) => tokio::select! {
                    event = link.event() => event,
                    happened = receipts.event() => return happened,
                },
            };
            if let Some(happened) = self.take(event) {
                return happened;
            }
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

/// What it means for coming back that a broker refused or ended a connection with this code (MQTT 5, 3.2.2.2 and 3.14.2.1);
/// `None`: nothing in particular.
pub const fn ended_by(code: u8) -> Option<FaultClass> {
    match code {
        0x87 => Some(FaultClass::NotAuthorized),
        0x88 | 0x89 | 0x8B => Some(FaultClass::Busy),
        0x8E => Some(FaultClass::TakenOver),
        0x95 => Some(FaultClass::TooLarge),
        // Our window is the broker's own limit, so 0x93 (receive maximum exceeded) comes only from one that changed its mind.
        0x93 | 0x96 | 0x97 | 0x9F => Some(FaultClass::Quota),
        0x9C | 0x9D => Some(FaultClass::Moved),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/mqtt.md has the same table.
    #[test]
    fn each_end_of_a_connection_means_one_thing() {
        let named = (0..=0xFF).filter_map(|code| Some((code, ended_by(code)?)));
        let expected = [
            (0x87, FaultClass::NotAuthorized),
            (0x88, FaultClass::Busy),
            (0x89, FaultClass::Busy),
            (0x8B, FaultClass::Busy),
            (0x8E, FaultClass::TakenOver),
            (0x93, FaultClass::Quota),
            (0x95, FaultClass::TooLarge),
            (0x96, FaultClass::Quota),
            (0x97, FaultClass::Quota),
            (0x9C, FaultClass::Moved),
            (0x9D, FaultClass::Moved),
            (0x9F, FaultClass::Quota),
        ];
        assert_eq!(named.collect::<Vec<_>>(), expected);
    }

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
