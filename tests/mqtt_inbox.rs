//! Receiving over a connection of its own: nothing that was not taken care of is forgotten by the broker.

mod support;

use std::time::Duration;

use bedrail::config::Protocol;
use bedrail::deliver::mqtt::{
    Inbox, InboxEvent, Link, LinkEvent, LinkSettings, Message, Received, Subscription, connect, subscribe,
};
use support::broker::{Broker, BrokerOptions};

const PATIENCE: Duration = Duration::from_secs(30);
const BOTH: [Protocol; 2] = [Protocol::V5, Protocol::V311];

#[tokio::test]
async fn a_message_that_was_not_taken_comes_again_with_the_next_connection_of_the_session() {
    let broker = Broker::start(&BrokerOptions::default());
    for protocol in BOTH {
        let client_id = format!("inbox-{}", protocol.name());
        let settings = LinkSettings { protocol, ..LinkSettings::new("127.0.0.1", broker.port(), None, client_id) };
        let topics = vec![format!("receipts/{}", protocol.name())];
        let receipts = Subscription { topics: topics.clone(), session: Some(Duration::from_secs(3_600)) };
        let mut inbox = subscribe(&settings, receipts.clone());
        assert_eq!(next(&mut inbox).await, InboxEvent::Connected { resumed: false });
        publish(&broker, protocol, &topics[0], &["1", "2", "3"], false).await;
        for wanted in ["1", "2"] {
            let message = message(&mut inbox).await;
            assert_eq!(message.payload, wanted.as_bytes());
            inbox.taken(&message);
        }
        assert_eq!(message(&mut inbox).await.payload, "3", "heard, and not taken");
        drop(inbox);
        publish(&broker, protocol, &topics[0], &["4"], false).await;

        let mut inbox = subscribe(&settings, receipts);
        let (mut resumed, mut heard) = (false, Vec::new());
        while !resumed || heard.len() < 2 {
            match next(&mut inbox).await {
                InboxEvent::Connected { resumed: kept } => resumed = kept,
                InboxEvent::Message(message) => {
                    inbox.taken(&message);
                    heard.push(String::from_utf8(message.payload.to_vec()).expect("text"));
                }
                InboxEvent::Lost(reason) => panic!("{reason}"),
            }
        }
        assert_eq!(heard, ["3", "4"], "{}: what was not taken, and what was sent while nobody was connected", protocol.name());
        inbox.close().await;
    }
}

#[tokio::test]
async fn what_the_broker_keeps_is_told_from_what_is_new() {
    let broker = Broker::start(&BrokerOptions::default());
    for protocol in BOTH {
        publish(&broker, protocol, "fleet/gw-1/status", &["old"], true).await;
        let settings = LinkSettings { protocol, ..LinkSettings::new("127.0.0.1", broker.port(), None, "fleet") };
        let topics = vec!["fleet/#".to_owned()];
        let mut inbox = subscribe(&settings, Subscription { topics, session: None });
        // A broker may send what it keeps before it acknowledges the subscription.
        let (mut connected, mut kept) = (false, false);
        while !(connected && kept) {
            match next(&mut inbox).await {
                InboxEvent::Connected { resumed } => connected = !resumed,
                InboxEvent::Message(message) => kept = message.retain && message.topic == "fleet/gw-1/status",
                other => panic!("{other:?}"),
            }
        }
        publish(&broker, protocol, "fleet/gw-1/status", &["new"], true).await;
        let news = message(&mut inbox).await;
        assert_eq!((news.payload.as_ref(), news.retain), (&b"new"[..], false));
    }
}

#[tokio::test]
async fn more_than_is_taken_waits_at_the_broker_and_nothing_is_missed() {
    let broker = Broker::start(&BrokerOptions::default());
    let settings = LinkSettings::new("127.0.0.1", broker.port(), None, "inbox");
    let mut inbox = subscribe(&settings, Subscription { topics: vec!["many".to_owned()], session: None });
    assert!(matches!(next(&mut inbox).await, InboxEvent::Connected { .. }));
    let numbers: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    publish(&broker, Protocol::V5, "many", &numbers.iter().map(String::as_str).collect::<Vec<_>>(), false).await;
    for number in numbers {
        let message = message(&mut inbox).await;
        assert_eq!(message.payload, number.as_bytes());
        inbox.taken(&message);
    }
}

async fn next(inbox: &mut Inbox) -> InboxEvent {
    tokio::time::timeout(PATIENCE, inbox.event()).await.expect("the inbox said nothing")
}

async fn message(inbox: &mut Inbox) -> Received {
    match next(inbox).await {
        InboxEvent::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

async fn publish(broker: &Broker, protocol: Protocol, topic: &str, payloads: &[&str], retain: bool) {
    let settings = LinkSettings { protocol, ..LinkSettings::new("127.0.0.1", broker.port(), None, "publisher") };
    let mut link = connect(&settings);
    let (mut sent, mut acked) = (0, 0);
    while acked < payloads.len() {
        match tokio::time::timeout(PATIENCE, link.event()).await.expect("an event") {
            LinkEvent::Connected { .. } => {}
            LinkEvent::Acked { .. } => acked += 1,
            LinkEvent::Lost(reason) => panic!("{reason}"),
        }
        while sent < payloads.len() && link.room() > 0 {
            let message = Message { retain, ..Message::new(topic, payloads[sent].as_bytes()) };
            link.publish(sent as u64, message).expect("room");
            sent += 1;
        }
    }
    link.close().await;
}
