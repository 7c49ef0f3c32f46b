//! One MQTT connection as a state machine: octets and time in, octets and events out. No socket, no task, no clock.
//!
//! Of the client library only the packets are used. Its event loop drops what it accepted at a reconnect, hangs where a broker
//! stops reading (MQTT 5), can block itself over packet ids (3.1.1), and has no place for a proxy or a server name.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use super::{v4, v5};
use crate::config::Protocol;
use crate::deliver::mqtt::link::{AckReason, LinkSettings, Login, LostReason, Message, NotTaken, Will};

/// Shorter than that a mobile line's own delays look like a dead broker.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What a subscriber has taken and not acknowledged, at most: enough to keep a line busy, little enough to send again.
const RECEIVE_MAXIMUM: u16 = 64;
/// A CONNACK, SUBACK or PUBACK with properties is far smaller, whatever a config says about messages.
const LEAST_PACKET: u32 = 4 << 10;

/// What goes into a CONNECT.
pub struct Hello<'a> {
    pub client_id: &'a str,
    pub login: Option<&'a Login>,
    pub will: Option<&'a Will>,
    pub keep_alive: Duration,
    pub receive_maximum: u16,
    pub max_packet: u32,
    /// How long the broker keeps the session; `None`: it begins and ends with the connection.
    pub session: Option<Duration>,
    /// Of the will.
    pub qos1: bool,
    pub retain: bool,
}

impl Hello<'_> {
    pub fn keep_alive_s(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// What a CONNACK allows.
pub struct Accepted {
    /// The broker still had our session.
    pub resumed: bool,
    pub receive_maximum: Option<u16>,
    pub max_packet: Option<u32>,
    pub qos1: bool,
    pub retain: bool,
    pub keep_alive: Option<Duration>,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { resumed: false, receive_maximum: None, max_packet: None, qos1: true, retain: true, keep_alive: None }
    }
}

/// A message from the broker. One with an id is acknowledged when it was taken care of, else it comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    /// It was kept by the broker, and is not news.
    pub retain: bool,
    /// Media type, where the protocol carries one and the sender gave it.
    pub content_type: Option<String>,
    pub(super) id: Option<u16>,
}

/// What one packet says, whatever the protocol.
pub enum Heard {
    Accepted(Accepted),
    Acked(u16, AckReason),
    Message(Received),
    Subscribed(Result<(), String>),
    Pong,
    Lost(LostReason),
    Other,
}

/// What a session makes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Connected { window: u16, max_packet: u32, resumed: bool },
    Acked { token: u64, reason: AckReason },
    Message(Received),
    Lost(LostReason),
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    Publish,
    Subscribe { topics: Vec<String>, session: Option<Duration> },
}

pub struct Session {
    protocol: Protocol,
    purpose: Purpose,
    /// Read from the line and not looked at yet.
    pub inbound: BytesMut,
    outbound: BytesMut,
    /// Octets the line ever took.
    taken: u64,
    window: u16,
    max_packet: u32,
    /// Largest packet taken from the broker, which was told.
    max_inbound: u32,
    qos1: bool,
    retain: bool,
    keep_alive: Duration,
    connect_deadline: Duration,
    progress_deadline: Duration,
    connected: bool,
    resumed: bool,
    /// From packet id to token.
    in_flight: HashMap<u16, u64>,
    next_id: u16,
    /// QoS 0: after so many octets ever written, this token has gone.
    unconfirmed: VecDeque<(u64, u64)>,
    events: VecDeque<Event>,
    last_sent: Instant,
    last_heard: Instant,
    ping_sent: Option<Instant>,
    /// By when something must happen; `None` while nothing is owed.
    deadline: Option<Instant>,
    lost: Option<LostReason>,
}

impl Session {
    pub fn new(settings: &LinkSettings, purpose: Purpose, now: Instant) -> Self {
        Self {
            protocol: settings.protocol,
            purpose,
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            taken: 0,
            window: settings.window.max(1),
            max_packet: settings.max_packet,
            max_inbound: settings.max_packet.max(LEAST_PACKET),
            qos1: settings.max_qos > 0,
            retain: settings.retain,
            keep_alive: settings.keep_alive.max(MIN_KEEP_ALIVE),
            connect_deadline: settings.connect_deadline,
            progress_deadline: settings.progress_deadline,
            connected: false,
            resumed: false,
            in_flight: HashMap::new(),
            next_id: 1,
            unconfirmed: VecDeque::new(),
            events: VecDeque::new(),
            last_sent: now,
            last_heard: now,
            ping_sent: None,
            deadline: Some(now + settings.connect_deadline),
            lost: None,
        }
    }

    /// The line stands: says who we are.
    pub fn begin(&mut self, settings: &LinkSettings, login: Option<&Login>, now: Instant) {
        let session = match &self.purpose {
            Purpose::Publish => None,
            Purpose::Subscribe { session, .. } => *session,
        };
        let hello = Hello {
            client_id: &settings.client_id,
            login,
            will: settings.will.as_ref(),
            keep_alive: self.keep_alive,
            receive_maximum: RECEIVE_MAXIMUM,
            max_packet: self.max_inbound,
            session,
            qos1: self.qos1,
            retain: self.retain,
        };
        match self.protocol {
            Protocol::V5 => v5::connect(&hello, &mut self.outbound),
            Protocol::V311 => v4::connect(&hello, &mut self.outbound),
        }
        self.last_sent = now;
    }

    /// How many messages it takes now.
    pub fn room(&self) -> usize {
        if !self.connected || self.lost.is_some() {
            return 0;
        }
        usize::from(self.window).saturating_sub(self.under_way())
    }

    /// Taken and not acknowledged.
    pub fn under_way(&self) -> usize {
        self.in_flight.len() + self.unconfirmed.len()
    }

    pub fn publish(&mut self, token: u64, mut message: Message, now: Instant) -> Result<usize, NotTaken> {
        if self.room() == 0 {
            return Err(NotTaken::Full);
        }
        let bytes = match self.protocol {
            Protocol::V5 => v5::publish_len(&message, self.qos1),
            Protocol::V311 => v4::publish_len(&message, self.qos1),
        };
        if bytes > self.max_packet as usize {
            return Err(NotTaken::TooLarge { bytes, max: self.max_packet });
        }
        message.retain &= self.retain;
        let id = self.qos1.then(|| self.free_id());
        match self.protocol {
            Protocol::V5 => v5::publish(message, id, &mut self.outbound),
            Protocol::V311 => v4::publish(message, id, &mut self.outbound),
        }
        match id {
            Some(id) => drop(self.in_flight.insert(id, token)),
            None => self.unconfirmed.push_back((self.taken + self.outbound.len() as u64, token)),
        }
        self.deadline.get_or_insert(now + self.progress_deadline);
        self.last_sent = now;
        Ok(bytes)
    }

    /// Tells the broker that a message was taken care of. In the order they came.
    pub fn acknowledge(&mut self, message: &Received, now: Instant) {
        let (Some(id), None) = (message.id, &self.lost) else { return };
        match self.protocol {
            Protocol::V5 => v5::acknowledge(id, &mut self.outbound),
            Protocol::V311 => v4::acknowledge(id, &mut self.outbound),
        }
        self.last_sent = now;
    }

    /// An orderly end: the broker drops the last will.
    pub fn disconnect(&mut self, now: Instant) {
        match self.protocol {
            Protocol::V5 => v5::disconnect(&mut self.outbound),
            Protocol::V311 => v4::disconnect(&mut self.outbound),
        }
        self.last_sent = now;
    }

    /// What is to be written to the line.
    pub fn outbound(&self) -> &[u8] {
        &self.outbound
    }

    /// The line took so many octets of it.
    pub fn took(&mut self, octets: usize) {
        self.outbound.advance(octets);
        self.taken += octets as u64;
    }

    /// The line has passed on whatever it took: all there is to know of a message at QoS 0.
    pub fn passed_on(&mut self, now: Instant) {
        while let Some((_, token)) = self.unconfirmed.front().copied().filter(|(end, _)| *end <= self.taken) {
            self.unconfirmed.pop_front();
            self.events.push_back(Event::Acked { token, reason: AckReason::Success });
            self.progressed(now);
        }
    }

    /// Something happened that was not read from the line.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn lose(&mut self, reason: LostReason) {
        self.lost.get_or_insert(reason);
        self.outbound.clear();
    }

    /// The next thing that happened, of what was read. After `Lost` it says `Lost` again.
    pub fn event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(reason) = &self.lost {
                return Some(Event::Lost(reason.clone()));
            }
            let frame = match frame(&mut self.inbound, self.max_inbound) {
                Ok(frame) => frame?,
                Err(reason) => {
                    self.lose(reason);
                    continue;
                }
            };
            let heard = match self.protocol {
                Protocol::V5 => v5::read(frame),
                Protocol::V311 => v4::read(frame),
            };
            match heard {
                Ok(heard) => self.hear(heard, now),
                Err(reason) => self.lose(reason),
            }
        }
    }

    fn hear(&mut self, heard: Heard, now: Instant) {
        self.last_heard = now;
        match heard {
            Heard::Accepted(accepted) if !self.connected => self.accepted(accepted, now),
            Heard::Accepted(_) => self.lose(LostReason::Broken("a second CONNACK".to_owned())),
            Heard::Lost(reason) => self.lose(reason),
            _ if !self.connected => self.lose(LostReason::Broken("the first packet is no CONNACK".to_owned())),
            Heard::Acked(id, reason) => {
                // An acknowledgement of what was never sent is the broker's mistake, and nobody's loss.
                let Some(token) = self.in_flight.remove(&id) else { return };
                self.events.push_back(Event::Acked { token, reason });
                self.progressed(now);
            }
            Heard::Subscribed(Ok(())) => self.say_connected(),
            Heard::Subscribed(Err(reason)) => self.lose(LostReason::NotSubscribed(reason)),
            Heard::Message(message) => self.events.push_back(Event::Message(message)),
            Heard::Pong => self.ping_sent = None,
            Heard::Other => {}
        }
    }

    fn accepted(&mut self, accepted: Accepted, now: Instant) {
        if self.qos1 && !accepted.qos1 {
            return self.lose(LostReason::refused("it takes no QoS 1 message, so write max_qos = 0"));
        }
        self.connected = true;
        self.resumed = accepted.resumed;
        self.deadline = None;
        self.window = self.window.min(accepted.receive_maximum.unwrap_or(u16::MAX)).max(1);
        self.max_packet = self.max_packet.min(accepted.max_packet.unwrap_or(u32::MAX));
        self.retain &= accepted.retain;
        // Zero is a broker that does not look; a line that is dead is still to be noticed.
        if let Some(keep_alive) = accepted.keep_alive.filter(|keep_alive| !keep_alive.is_zero()) {
            self.keep_alive = self.keep_alive.min(keep_alive);
        }
        match &self.purpose {
            Purpose::Publish => self.say_connected(),
            Purpose::Subscribe { topics, .. } => {
                match self.protocol {
                    Protocol::V5 => v5::subscribe(topics, 1, &mut self.outbound),
                    Protocol::V311 => v4::subscribe(topics, 1, &mut self.outbound),
                }
                self.deadline = Some(now + self.progress_deadline);
                self.last_sent = now;
            }
        }
    }

    fn say_connected(&mut self) {
        self.deadline = None;
        let (window, max_packet, resumed) = (self.window, self.max_packet, self.resumed);
        self.events.push_back(Event::Connected { window, max_packet, resumed });
    }

    fn progressed(&mut self, now: Instant) {
        self.deadline = (self.under_way() > 0).then(|| now + self.progress_deadline);
    }

    /// When [`Session::late`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        if self.lost.is_some() {
            return None;
        }
        let keep_alive = self.connected.then(|| self.ping_sent.unwrap_or_else(|| self.quiet_since()) + self.keep_alive);
        [self.deadline, keep_alive].into_iter().flatten().min()
    }

    /// Something is due: a ping, or the end of patience.
    pub fn late(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return self.lose(match self.connected {
                true => LostReason::NoProgress { in_flight: self.under_way(), after: self.progress_deadline },
                false => LostReason::ConnectDeadline(self.connect_deadline),
            });
        }
        match self.ping_sent {
            // Whether it could not go out or was not answered: the line is dead.
            Some(sent) if sent + self.keep_alive <= now => self.lose(LostReason::NoPing(self.keep_alive)),
            None if self.connected && self.quiet_since() + self.keep_alive <= now => {
                match self.protocol {
                    Protocol::V5 => v5::ping(&mut self.outbound),
                    Protocol::V311 => v4::ping(&mut self.outbound),
                }
                self.ping_sent = Some(now);
                self.last_sent = now;
            }
            _ => {}
        }
    }

    /// A line over which only one side speaks is tried too: the other may be gone.
    fn quiet_since(&self) -> Instant {
        self.last_sent.min(self.last_heard)
    }

    /// Never one that is in use: a broker may acknowledge in any order.
    fn free_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&id) {
                return id;
            }
        }
    }
}

/// The next whole packet (2.1): type, length in up to four octets, the rest.
fn frame(inbound: &mut BytesMut, max: u32) -> Result<Option<BytesMut>, LostReason> {
    let mut remaining = 0;
    for n in 0..4 {
        let Some(octet) = inbound.get(1 + n) else { return Ok(None) };
        remaining |= usize::from(octet & 0x7f) << (7 * n);
        if octet & 0x80 != 0 {
            continue;
        }
        let whole = 2 + n + remaining;
        if whole > max as usize {
            return Err(LostReason::Broken(format!("a packet of {whole} octets, and at most {max} were allowed")));
        }
        return Ok((inbound.len() >= whole).then(|| inbound.split_to(whole)));
    }
    Err(LostReason::Broken("a length of more than four octets".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];
    const BOTH: [Protocol; 2] = [Protocol::V5, Protocol::V311];

    fn connack(protocol: Protocol) -> &'static [u8] {
        if protocol == Protocol::V5 { &CONNACK } else { &[0x20, 2, 0, 0] }
    }

    fn settings(protocol: Protocol) -> LinkSettings {
        LinkSettings { protocol, window: 8, ..LinkSettings::new("127.0.0.1", 1883, None, "gw") }
    }

    fn connected(settings: &LinkSettings, now: Instant) -> Session {
        let mut session = Session::new(settings, Purpose::Publish, now);
        session.begin(settings, None, now);
        session.inbound.extend_from_slice(connack(settings.protocol));
        assert!(matches!(session.event(now), Some(Event::Connected { window: 8, .. })));
        let octets = session.outbound().len();
        session.took(octets);
        session
    }

    fn lost(session: &mut Session, now: Instant) -> LostReason {
        match session.event(now) {
            Some(Event::Lost(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        /// A broker may acknowledge in any order and more than it was sent; ids go round, and none is used twice at once.
        #[test]
        fn acknowledgements_in_any_order_never_block_it_nor_settle_another(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..400), v5: bool) {
            let now = Instant::now();
            let settings = settings(if v5 { Protocol::V5 } else { Protocol::V311 });
            let mut session = connected(&settings, now);
            session.next_id = u16::MAX - 20;
            let (mut token, mut acked) = (0, Vec::new());
            for pick in picks {
                while session.room() > 0 {
                    session.publish(token, Message::new("t", b"x".to_vec()), now).unwrap();
                    token += 1;
                }
                prop_assert_eq!(session.in_flight.len(), 8);
                let mut ids: Vec<(u16, u64)> = session.in_flight.iter().map(|(id, token)| (*id, *token)).collect();
                ids.sort_unstable();
                let (id, wanted) = ids[pick.index(ids.len())];
                for _ in 0..2 {
                    session.inbound.extend_from_slice(&[0x40, 2, (id >> 8) as u8, id as u8]);
                }
                prop_assert_eq!(session.event(now), Some(Event::Acked { token: wanted, reason: AckReason::Success }));
                prop_assert_eq!(session.event(now), None, "an acknowledgement that comes twice counts once");
                acked.push(wanted);
            }
            acked.sort_unstable();
            let len = acked.len();
            acked.dedup();
            prop_assert_eq!(acked.len(), len);
        }

        /// Whatever a broker says, in whatever pieces: events or one end, and memory as much as it sent.
        #[test]
        fn no_octets_of_a_broker_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300), known in 0usize..5, v5: bool, greeted: bool) {
            let now = Instant::now();
            let settings = settings(if v5 { Protocol::V5 } else { Protocol::V311 });
            let mut session = if greeted { connected(&settings, now) } else { Session::new(&settings, Purpose::Publish, now) };
            // Most random octets are no packet: some begin like one.
            let begun: &[u8] = [&[][..], &[0x20], &[0x30, 0x20, 0, 3], &[0x90, 0x08], &[0xe0, 0x10]][known];
            session.inbound.extend_from_slice(begun);
            for piece in octets.chunks(7) {
                session.inbound.extend_from_slice(piece);
                for _ in 0..piece.len() + 2 {
                    match session.event(now) {
                        None | Some(Event::Lost(_)) => break,
                        Some(_) => {}
                    }
                }
            }
        }
    }

    #[test]
    fn a_broker_that_takes_nothing_and_answers_nothing_is_noticed_on_an_idle_line_too() {
        for protocol in BOTH {
            let now = Instant::now();
            let settings = settings(protocol);
            let mut session = connected(&settings, now);
            assert_eq!(session.due(), Some(now + settings.keep_alive));
            session.late(now + settings.keep_alive);
            assert_eq!(session.outbound(), [0xc0, 0], "a ping, which nobody takes");
            session.late(now + 2 * settings.keep_alive);
            assert_eq!(lost(&mut session, now), LostReason::NoPing(settings.keep_alive));
            assert_eq!(session.due(), None);
        }
    }

    #[test]
    fn a_line_over_which_only_we_speak_is_tried() {
        let now = Instant::now();
        let settings = LinkSettings { max_qos: 0, ..settings(Protocol::V5) };
        let mut session = connected(&settings, now);
        let later = now + settings.keep_alive;
        session.publish(1, Message::new("t", b"x".to_vec()), later).unwrap();
        session.late(later);
        assert!(session.outbound().ends_with(&[0xc0, 0]), "{:?}", session.outbound());
    }

    #[test]
    fn at_qos_0_a_message_is_done_when_the_line_has_passed_it_on_and_not_before() {
        for protocol in BOTH {
            let now = Instant::now();
            let settings = LinkSettings { max_qos: 0, retain: false, ..settings(protocol) };
            let mut session = connected(&settings, now);
            session.publish(1, Message::new("t", b"x".to_vec()).retained(), now).unwrap();
            assert_eq!(session.outbound()[0], 0x30, "QoS 0, not retained");
            let whole = session.outbound().len();
            session.took(whole - 1);
            session.passed_on(now);
            assert_eq!(session.event(now), None);
            session.took(1);
            assert_eq!(session.event(now), None, "taken is not passed on");
            session.passed_on(now);
            assert_eq!(session.event(now), Some(Event::Acked { token: 1, reason: AckReason::Success }));
            assert_eq!(session.room(), 8);
        }
    }

    #[test]
    fn what_the_broker_does_not_take_is_not_sent_to_it() {
        let now = Instant::now();
        // Receive maximum 3, maximum packet size 50, retain unavailable, server keep alive 7 s.
        let connack = [0x20, 16, 0, 0, 13, 0x21, 0, 3, 0x27, 0, 0, 0, 50, 0x25, 0, 0x13, 0, 7];
        let settings = settings(Protocol::V5);
        let mut session = Session::new(&settings, Purpose::Publish, now);
        session.begin(&settings, None, now);
        let octets = session.outbound().len();
        session.took(octets);
        session.inbound.extend_from_slice(&connack);
        assert_eq!(session.event(now), Some(Event::Connected { window: 3, max_packet: 50, resumed: false }));
        let large = session.publish(1, Message::new("t", vec![b'x'; 60]), now);
        assert!(matches!(large, Err(NotTaken::TooLarge { max: 50, .. })), "{large:?}");
        session.publish(1, Message::new("t", b"x".to_vec()).retained(), now).unwrap();
        assert_eq!(session.outbound()[0], 0x32, "QoS 1, not retained");
        assert_eq!(session.keep_alive, Duration::from_secs(7));
        for token in 2..4 {
            session.publish(token, Message::new("t", b"x".to_vec()), now).unwrap();
        }
        assert_eq!(session.publish(4, Message::new("t", b"x".to_vec()), now), Err(NotTaken::Full));
    }

    #[test]
    fn a_broker_without_qos_1_is_told_of_before_a_message_is_lost_to_it() {
        let now = Instant::now();
        let mut session = Session::new(&settings(Protocol::V5), Purpose::Publish, now);
        session.inbound.extend_from_slice(&[0x20, 5, 0, 0, 2, 0x24, 0]);
        let reason = lost(&mut session, now);
        assert!(reason.to_string().contains("max_qos = 0"), "{reason}");
    }

    #[test]
    fn a_subscription_the_broker_refuses_is_told_as_that() {
        for (protocol, suback) in [(Protocol::V5, &[0x90, 4, 0, 1, 0, 0x87][..]), (Protocol::V311, &[0x90, 3, 0, 1, 0x80])] {
            let now = Instant::now();
            let purpose = Purpose::Subscribe { topics: vec!["elsewhere/#".to_owned()], session: None };
            let mut session = Session::new(&settings(protocol), purpose, now);
            session.inbound.extend_from_slice(connack(protocol));
            session.inbound.extend_from_slice(suback);
            let reason = lost(&mut session, now);
            assert!(matches!(reason, LostReason::NotSubscribed(_)), "{reason}");
            assert_eq!(reason.class().name(), "not_authorized");
        }
    }

    #[test]
    fn a_packet_larger_than_allowed_ends_the_connection_before_it_is_read() {
        let now = Instant::now();
        let mut session = connected(&settings(Protocol::V5), now);
        session.inbound.extend_from_slice(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
        let reason = lost(&mut session, now);
        assert!(reason.to_string().contains("at most 131072 were allowed"), "{reason}");
    }
}
