//! Lines that die in every way a line can, under both protocols: the link notices, says which way it was, and what was not
//! acknowledged goes again over the next one.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bedrail::config::Protocol;
use bedrail::deliver::mqtt::{Link, LinkEvent, LinkSettings, LostReason, Message, connect};
use support::broker::{Broker, BrokerOptions};
use support::chaos::ChaosProxy;
use support::link::{connected, lost, next};
use support::subscriber::{Receiver, Subscriber};

/// Far above what any step takes, so that a hang fails a test and does not stop the run.
const PATIENCE: Duration = Duration::from_secs(30);
const BOTH: [Protocol; 2] = [Protocol::V5, Protocol::V311];
const DEADLINE: Duration = Duration::from_secs(1);

/// The library's own loop hangs there for ever with MQTT 5: its flush waits, and no ping can.
#[tokio::test]
async fn a_broker_that_stops_reading_is_given_up_within_the_deadline() {
    for protocol in BOTH {
        let broker = Broker::start(&BrokerOptions::default());
        let mut link = connect(&LinkSettings { max_packet: 2 << 20, ..settings(protocol, broker.port()) });
        connected(&mut link).await;
        tokio::time::sleep(DEADLINE + DEADLINE / 2).await; // an idle line owes nothing
        assert!(tokio::time::timeout(DEADLINE / 10, link.event()).await.is_err(), "an idle link was given up");
        broker.freeze();
        let begun = Instant::now();
        // More than the socket buffers of both sides hold, so that the line takes no octet more.
        for token in 0..20 {
            link.publish(token, Message::new("t", vec![b'x'; 1 << 20])).expect("room");
        }
        let reason = lost(&mut link).await;
        assert!(matches!(reason, LostReason::NoProgress { in_flight: 20, .. }), "{reason}");
        assert!(begun.elapsed() >= DEADLINE, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_path_that_swallows_everything_is_given_up_and_everything_arrives_over_the_next_one() {
    for protocol in BOTH {
        let broker = Broker::start(&BrokerOptions::default());
        let proxy = ChaosProxy::start(broker.port());
        let subscriber = subscribe(&broker);
        proxy.delay(Duration::from_millis(5));
        let reason = send_over_lines(&proxy, protocol, |proxy| proxy.black_hole(true)).await;
        assert!(matches!(reason, LostReason::NoProgress { .. }), "{reason}");
        all_arrive(&subscriber);
    }
}

#[tokio::test]
async fn lost_acknowledgements_make_repeats_and_never_a_loss() {
    for protocol in BOTH {
        let broker = Broker::start(&BrokerOptions::default());
        let proxy = ChaosProxy::start(broker.port());
        let subscriber = subscribe(&broker);
        let reason = send_over_lines(&proxy, protocol, |proxy| proxy.drop_replies(true)).await;
        assert!(matches!(reason, LostReason::NoProgress { .. }), "{reason}");
        all_arrive(&subscriber);
        assert!(proxy.counters().bytes_dropped > 0, "no acknowledgement was lost");
    }
}

#[tokio::test]
async fn a_line_that_is_reset_is_told_at_once_and_loses_nothing() {
    for protocol in BOTH {
        let broker = Broker::start(&BrokerOptions::default());
        let proxy = ChaosProxy::start(broker.port());
        let subscriber = subscribe(&broker);
        let reason = send_over_lines(&proxy, protocol, |proxy| {
            proxy.reset_all();
        })
        .await;
        assert_eq!(reason.class().name(), "broken", "{reason}");
        all_arrive(&subscriber);
    }
}

/// Half open, with nothing to send: only a ping finds out.
#[tokio::test]
async fn an_idle_line_that_died_silently_is_noticed_within_two_keep_alives() {
    let broker = Broker::start(&BrokerOptions::default());
    let proxy = ChaosProxy::start(broker.port());
    let keep_alive = Duration::from_secs(5);
    let mut links = BOTH.map(|protocol| {
        let client_id = format!("idle-{}", protocol.name());
        connect(&LinkSettings { keep_alive, client_id, ..settings(protocol, proxy.port()) })
    });
    for link in &mut links {
        connected(link).await;
    }
    proxy.black_hole(true);
    let begun = Instant::now();
    let [v5, v4] = &mut links;
    for reason in <[_; 2]>::from(tokio::join!(lost(v5), lost(v4))) {
        assert_eq!(reason, LostReason::NoPing(keep_alive));
    }
    assert!(begun.elapsed() >= keep_alive, "{:?}", begun.elapsed());
}

const COUNT: u64 = 400;

/// Sends numbers, resending what was not acknowledged, over as many connections as it takes; a third of the way `fault`
/// happens, and is over once the link has noticed. Says what the link said.
async fn send_over_lines(proxy: &ChaosProxy, protocol: Protocol, fault: impl Fn(&ChaosProxy)) -> LostReason {
    let mut owed: BTreeSet<u64> = (0..COUNT).collect();
    let mut first = None;
    while !owed.is_empty() {
        let mut link = connect(&settings(protocol, proxy.port()));
        let mut to_send = owed.iter().copied().collect::<Vec<_>>().into_iter();
        loop {
            match next(&mut link).await {
                LinkEvent::Connected { .. } => {}
                LinkEvent::Acked { token, .. } => drop(owed.remove(&token)),
                LinkEvent::Lost(reason) => {
                    assert!(first.is_none(), "a second line was lost: {reason}");
                    first = Some(reason);
                    proxy.pass();
                    break;
                }
            }
            if first.is_none() && owed.len() as u64 == COUNT * 2 / 3 {
                fault(proxy);
            }
            if owed.is_empty() {
                break;
            }
            while link.room() > 0 {
                let Some(token) = to_send.next() else { break };
                link.publish(token, Message::new("t", token.to_string().into_bytes())).expect("room");
            }
        }
    }
    first.expect("no line was lost")
}

fn all_arrive(subscriber: &Subscriber) {
    let arrived = |messages: &[support::subscriber::Message]| {
        messages.iter().map(|message| message.raw.clone()).collect::<BTreeSet<_>>().len() as u64 == COUNT
    };
    assert!(subscriber.wait_until(PATIENCE, arrived), "{} of {COUNT} with repeats", subscriber.messages().len());
    // In order, repeats aside.
    let (mut highest, mut seen) = (None, BTreeSet::new());
    for number in subscriber.messages().iter().map(|message| message.raw.parse::<u64>().expect("a number")) {
        if seen.insert(number) {
            assert!(highest < Some(number), "{number} came first after {highest:?}");
            highest = Some(number);
        }
    }
}

fn settings(protocol: Protocol, port: u16) -> LinkSettings {
    LinkSettings { protocol, progress_deadline: DEADLINE, ..LinkSettings::new("127.0.0.1", port, None, "gw") }
}

fn subscribe(broker: &Broker) -> Subscriber {
    Subscriber::start(Receiver { port: broker.port(), client_id: "reader".into(), topic: "t".into(), tls: None, login: None })
}
