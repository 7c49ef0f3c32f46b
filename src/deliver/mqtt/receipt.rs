//! Receipts of the receiving application, schema `bedrail.receipt/1` (docs/mqtt.md, docs/schema/receipt-v1.schema.json), and
//! the connection they come over: a second one, made anew whenever it ends.

use std::future::Future;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::connection::{Inbox, InboxEvent};
use crate::deliver::retry::Backoff;
use crate::deliver::{Fault, Happened};
use crate::reading::DeliveryId;

pub const SCHEMA: &str = "bedrail.receipt/1";

/// A connection that receives. A test scripts one.
pub trait Ears: Send {
    /// The next thing that happened. Cancel safe.
    fn event(&mut self) -> impl Future<Output = Heard> + Send;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The subscription stands.
    Subscribed,
    Message(Vec<u8>),
    Lost(Fault),
}

/// What was heard need not be kept: a record that is not settled when the gateway ends goes again and is confirmed again.
impl Ears for Inbox {
    async fn event(&mut self) -> Heard {
        match Inbox::event(self).await {
            InboxEvent::Connected { .. } => Heard::Subscribed,
            InboxEvent::Message(message) => {
                self.taken(&message);
                Heard::Message(message.payload.into())
            }
            InboxEvent::Lost(reason) => Heard::Lost(reason.fault()),
        }
    }
}

/// Where nothing is listened to.
pub enum Deaf {}

impl Ears for Deaf {
    async fn event(&mut self) -> Heard {
        match *self {}
    }
}

#[derive(Deserialize)]
struct Receipt<'a> {
    schema: &'a str,
    #[serde(borrow)]
    received: Vec<&'a RawValue>,
}

/// What a message confirms, and how much in it made no sense. It is bounded by the connection's largest packet.
pub fn parse(payload: &[u8]) -> (Vec<DeliveryId>, u64) {
    let receipt = match serde_json::from_slice::<Receipt<'_>>(payload) {
        Ok(receipt) if receipt.schema == SCHEMA => receipt,
        _ => return (Vec::new(), 1),
    };
    let deliveries: Vec<DeliveryId> = receipt.received.iter().filter_map(|entry| delivery(entry)).collect();
    let unreadable = (receipt.received.len() - deliveries.len()) as u64;
    (deliveries, unreadable)
}

fn delivery(entry: &RawValue) -> Option<DeliveryId> {
    entry.get().strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// `listen` makes a new connection.
pub(super) struct Listener<C, E> {
    listen: C,
    ears: Option<E>,
    next: Option<Instant>,
    backoff: Backoff,
}

impl<E: Ears, C: FnMut() -> E + Send> Listener<C, E> {
    pub(super) fn new(listen: C) -> Self {
        Self { listen, ears: None, next: None, backoff: Backoff::default() }
    }

    /// Cancel safe.
    pub(super) async fn event(&mut self) -> Happened {
        loop {
            let Some(ears) = &mut self.ears else {
                if let Some(next) = self.next {
                    tokio::time::sleep_until(next).await;
                }
                self.ears = Some((self.listen)());
                continue;
            };
            match ears.event().await {
                Heard::Subscribed => {
                    self.backoff.reset();
                    return Happened::Hears(Ok(()));
                }
                Heard::Message(payload) => {
                    let (deliveries, unreadable) = parse(&payload);
                    return Happened::Received { deliveries, unreadable };
                }
                Heard::Lost(fault) => {
                    let chance = crate::store::key::random::<4>().map_or(u32::MAX / 2, u32::from_le_bytes);
                    self.next = Some(Instant::now() + self.backoff.after(fault.class, chance));
                    self.ears = None;
                    return Happened::Hears(Err(fault));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Op, Placement, RecordId};
    use proptest::prelude::*;

    fn id(n: u8) -> DeliveryId {
        DeliveryId { record: RecordId([n; 16]), placement: Placement([2; 16]), version: 3, op: Op::Put }
    }

    #[test]
    fn a_receipt_is_a_list_of_delivery_ids() {
        let text = format!(r#"{{"schema":"bedrail.receipt/1","received":["{}","{}"]}}"#, id(1), id(2));
        assert_eq!(parse(text.as_bytes()), (vec![id(1), id(2)], 0));
        assert_eq!(parse(br#"{"schema":"bedrail.receipt/1","received":[]}"#), (vec![], 0));
    }

    #[test]
    fn what_makes_no_sense_is_counted_and_spoils_nothing_else() {
        let text = format!(r#"{{"schema":"bedrail.receipt/1","more":1,"received":["{}",7,null,"x",{{"a":"b"}}]}}"#, id(1));
        assert_eq!(parse(text.as_bytes()), (vec![id(1)], 4));
        for wrong in
            ["", "7", "[]", r#"{"schema":"bedrail.receipt/2","received":[]}"#, r#"{"schema":"bedrail.receipt/1"}"#, "{\"a\":"]
        {
            assert_eq!(parse(wrong.as_bytes()), (vec![], 1), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_of_receipts_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&octets).0.is_empty());
        }
    }

    struct Scripted(Vec<Heard>);

    impl Ears for Scripted {
        async fn event(&mut self) -> Heard {
            match self.0.pop() {
                Some(heard) => heard,
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ended_is_made_anew_after_a_while() {
        let fault = Fault { class: crate::deliver::FaultClass::Broken, text: "cut".into() };
        let mut made = 0;
        let (said, lost) = (Heard::Message(b"x".to_vec()), Heard::Lost(fault.clone()));
        let mut listener = Listener::new(|| {
            made += 1;
            Scripted(vec![lost.clone(), said.clone(), Heard::Subscribed])
        });
        for _ in 0..3 {
            assert_eq!(listener.event().await, Happened::Hears(Ok(())));
            assert_eq!(listener.event().await, Happened::Received { deliveries: vec![], unreadable: 1 });
            let before = Instant::now();
            assert_eq!(listener.event().await, Happened::Hears(Err(fault.clone())));
            assert_eq!(before, Instant::now());
        }
        drop(listener);
        assert_eq!(made, 3);
    }
}
