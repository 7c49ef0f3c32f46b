//! What the MQTT destination makes of records and of a broker's answers to batches; the broker is played.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod items;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrail::config::Unheard;
use bedrail::deliver::mqtt::{
    AckReason, BatchOptions, Link, LinkEvent, Message, MqttDestination, MqttOptions, NotTaken, RefusalCode, batch,
};
use bedrail::deliver::{Destination, Happened, Item, Lane, NotSent, Verdict, Why};
use bedrail::reading::*;
use futures::FutureExt as _;
use items::*;

const BATCHES: &str = "bedrail/gw/batch";

/// The answer to what it matches.
type Refusal = (AckReason, fn(&Message) -> bool);

/// A broker that answers at once, as the test says.
#[derive(Clone, Default)]
struct Played {
    got: Arc<Mutex<Vec<Message>>>,
    events: Arc<Mutex<VecDeque<LinkEvent>>>,
    under_way: Arc<Mutex<usize>>,
    refuses: Arc<Mutex<Option<Refusal>>>,
    window: usize,
    max_packet: usize,
    /// It keeps its answers to itself.
    silent: bool,
}

impl Link for Played {
    fn publish(&mut self, token: u64, message: Message) -> Result<usize, NotTaken> {
        if self.room() == 0 {
            return Err(NotTaken::Full);
        }
        if message.payload.len() > self.max_packet {
            return Err(NotTaken::TooLarge { bytes: message.payload.len(), max: self.max_packet as u32 });
        }
        let octets = message.payload.len();
        let refused = self.refuses.lock().unwrap().filter(|(_, matches)| matches(&message));
        self.got.lock().unwrap().push(message);
        *self.under_way.lock().unwrap() += 1;
        if !self.silent {
            let reason = refused.map_or(AckReason::Success, |(reason, _)| reason);
            self.events.lock().unwrap().push_back(LinkEvent::Acked { token, reason });
        }
        Ok(octets)
    }

    fn room(&self) -> usize {
        self.window - *self.under_way.lock().unwrap()
    }

    async fn event(&mut self) -> LinkEvent {
        let next = self.events.lock().unwrap().pop_front();
        let Some(event) = next else { return std::future::pending().await };
        if matches!(event, LinkEvent::Acked { .. }) {
            *self.under_way.lock().unwrap() -= 1;
        }
        event
    }

    async fn close(self) {}
}

fn played() -> Played {
    Played { window: 20, max_packet: 128 << 10, ..Played::default() }
}

/// Connected, with batches.
fn destination(broker: &Played) -> impl Destination + use<> {
    let link = broker.clone();
    let options = MqttOptions {
        topic: "bedrail/{gateway}/{device}/{metric}".parse().unwrap(),
        topic_text: "bedrail/{gateway}/{device}/{metric}".into(),
        unheard: Unheard::Wait,
        batch: Some(BatchOptions { topic: BATCHES.into(), all_lanes: false }),
    };
    let mut destination = MqttDestination::new(move || link.clone(), options);
    destination.connect();
    broker.events.lock().unwrap().push_back(LinkEvent::Connected { window: broker.window as u16, max_packet: 0 });
    assert_eq!(answers(&mut destination), [Happened::Up]);
    destination
}

/// Everything it has to say now.
fn answers(destination: &mut impl Destination) -> Vec<Happened> {
    std::iter::from_fn(|| destination.event().now_or_never()).collect()
}

fn verdicts(destination: &mut impl Destination) -> Vec<(u64, Verdict)> {
    let answered = |happened| match happened {
        Happened::Answered { token, verdict } => (token, verdict),
        other => panic!("{other:?}"),
    };
    answers(destination).into_iter().map(answered).collect()
}

fn record(n: u64, lane: Lane) -> Item {
    let mut item = Item { lane, seq: Seq(n), ..temperature() };
    item.record.id = RecordId(u128::from(n).to_be_bytes());
    item
}

fn send(destination: &mut impl Destination, lane: Lane, numbers: std::ops::Range<u64>) {
    for n in numbers {
        destination.send(n, &record(n, lane)).unwrap();
    }
}

fn topics(broker: &Played) -> Vec<String> {
    broker.got.lock().unwrap().iter().map(|message| message.topic.clone()).collect()
}

/// Records in each message that went to the batches' topic.
fn sizes(broker: &Played) -> Vec<usize> {
    let rows = |message: &Message| {
        let text = zstd::decode_all(&message.payload[..]).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["rows"].as_array().unwrap().len()
    };
    broker.got.lock().unwrap().iter().filter(|message| message.topic == BATCHES).map(rows).collect()
}

#[tokio::test]
async fn the_backlog_goes_in_batches_and_what_is_live_goes_alone_and_at_once() {
    let broker = played();
    let mut destination = destination(&broker);
    send(&mut destination, Lane::Backlog, 0..700);
    assert_eq!(sizes(&broker), [batch::MAX_RECORDS], "a full one does not wait");
    send(&mut destination, Lane::Live, 700..701);
    let sent = destination.flush();
    assert_eq!(sent.messages, 0, "what was collected went before it");
    assert_eq!(sizes(&broker), [512, 188]);
    assert_eq!(topics(&broker)[2], "bedrail/3w-gw-01/oxi-07/body_temperature");
    let content_types: Vec<_> = broker.got.lock().unwrap().iter().map(|message| message.content_type).collect();
    assert_eq!(content_types, [Some(batch::CONTENT_TYPE), Some(batch::CONTENT_TYPE), None]);
    assert_eq!(verdicts(&mut destination), (0..701).map(|n| (n, Verdict::Settled)).collect::<Vec<_>>());

    send(&mut destination, Lane::Backlog, 701..702);
    destination.flush();
    assert_eq!(topics(&broker)[3], "bedrail/3w-gw-01/oxi-07/body_temperature", "one alone is no batch");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_is_taken_apart_and_one_record_holds_up_no_other() {
    for (reason, whole) in [
        (AckReason::NoMatchingSubscribers, false),
        (AckReason::Refused(RefusalCode::NOT_AUTHORIZED), false),
        (AckReason::Refused(RefusalCode::PAYLOAD_FORMAT_INVALID), false),
        (AckReason::Refused(RefusalCode::TOPIC_NAME_INVALID), false),
        (AckReason::Refused(RefusalCode::UNSPECIFIED), false),
        (AckReason::Refused(RefusalCode::QUOTA_EXCEEDED), true),
    ] {
        let broker = played();
        let mut destination = destination(&broker);
        *broker.refuses.lock().unwrap() = Some((reason, |message| message.topic == BATCHES));
        send(&mut destination, Lane::Backlog, 0..10);
        destination.flush();
        let said = verdicts(&mut destination);
        assert_eq!(said.len(), 10);
        if whole {
            assert!(said.iter().all(|(_, verdict)| matches!(verdict, Verdict::Waits { why: Why::Quota, .. })), "{said:?}");
            continue;
        }
        assert!(said.iter().all(|(_, verdict)| *verdict == Verdict::Again), "{reason:?}: {said:?}");
        // They come again, one by one, and each gets its own answer.
        send(&mut destination, Lane::Backlog, 0..10);
        destination.flush();
        assert_eq!(sizes(&broker), [10], "{reason:?}");
        assert!(verdicts(&mut destination).iter().all(|(_, verdict)| *verdict == Verdict::Settled));
        tokio::time::advance(Duration::from_secs(601)).await;
        *broker.refuses.lock().unwrap() = None;
        send(&mut destination, Lane::Backlog, 10..20);
        destination.flush();
        assert_eq!(sizes(&broker), [10, 10], "after a while batches are tried again");
    }
}

#[tokio::test]
async fn a_batch_too_large_for_the_broker_goes_in_halves_and_a_record_too_large_dies_alone() {
    let broker = Played { max_packet: 4_000, ..played() };
    let mut destination = destination(&broker);
    let long = |n: u64, samples: usize| {
        let samples = (0..samples as i32).map(|n| n.wrapping_mul(0x9E37_79B1u32 as i32)).collect();
        let waveform = Waveform { origin: Decimal::ZERO, scale: Decimal::new(1, 0), unit: Unit::One, period_us: 1, samples };
        let stream = Some(stream(Metric::Spo2, Modality::Continuous));
        Item { record: item(stream, Body::Waveform(waveform)).record, ..record(n, Lane::Backlog) }
    };
    for n in 0..16 {
        let record = long(n, if n == 5 { 2_000 } else { 60 });
        destination.send(n, &record).unwrap();
    }
    destination.flush();
    let mut said = verdicts(&mut destination);
    said.sort_by_key(|(token, _)| *token);
    let dead: Vec<u64> = said
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Dead { reason: "too_large", .. }))
        .map(|(n, _)| *n)
        .collect();
    assert_eq!((said.len(), dead), (16, vec![5]));
    assert!(broker.got.lock().unwrap().len() < 16, "not all of them went alone");
}

#[tokio::test]
async fn the_backlog_leaves_a_quarter_of_the_window_the_broker_gives() {
    let broker = Played { silent: true, ..played() };
    let mut destination = destination(&broker);
    let mut n = 0;
    while destination.room_for(Lane::Backlog) > 0 {
        // Two at a time, so that each pair is a batch.
        send(&mut destination, Lane::Backlog, n..n + 2);
        destination.flush();
        n += 2;
    }
    assert_eq!((sizes(&broker).len(), destination.room_for(Lane::Live)), (15, 5));
    send(&mut destination, Lane::Live, 100..105);
    assert_eq!(destination.send(105, &record(105, Lane::Live)), Err(NotSent::NoRoom));
}
