//! Tries what bedrail needs of a broker on this machine, under both protocols, and prints what it found:
//! `cargo run --example broker_check -- 1883`. It is how docs/brokers.md comes by the word "verified".

use std::time::{Duration, Instant};

use bedrail::config::Protocol;
use bedrail::deliver::mqtt::{
    AckReason, Inbox, InboxEvent, Link, LinkEvent, LinkSettings, Message, MqttLink, Received, Subscription, Will, connect,
    subscribe,
};

const COUNT: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(1883);
    for protocol in [Protocol::V5, Protocol::V311] {
        println!("MQTT {}", protocol.name());
        if let Err(error) = check(port, protocol).await {
            println!("  FAILS: {error}");
        }
    }
}

async fn check(port: u16, protocol: Protocol) -> anyhow::Result<()> {
    limits(port, protocol).await?;
    everything_arrives_in_order(port, protocol).await?;
    a_session_is_kept(port, protocol).await?;
    a_will_is_published(port, protocol).await
}

async fn limits(port: u16, protocol: Protocol) -> anyhow::Result<()> {
    let mut link = connect(&settings(port, protocol, "limits"));
    let LinkEvent::Connected { window, max_packet } = next(&mut link).await? else { anyhow::bail!("not connected") };
    println!("  connects: window {window}, largest packet {max_packet}");
    link.publish(1, Message::new("bedrail-check/nobody", b"1".to_vec()))?;
    match next(&mut link).await? {
        LinkEvent::Acked { reason: AckReason::NoMatchingSubscribers, .. } => println!("  says that nobody subscribed (0x10)"),
        LinkEvent::Acked { reason, .. } => println!("  acknowledges what nobody subscribed to: {reason:?}"),
        other => anyhow::bail!("{other:?}"),
    }
    // A topic and a header take some 40 octets.
    let large = vec![b'x'; max_packet as usize - 64];
    link.publish(2, Message::new("bedrail-check/large", large))?;
    let event = next(&mut link).await?;
    anyhow::ensure!(matches!(event, LinkEvent::Acked { .. }), "the largest packet: {event:?}");
    println!("  takes the largest packet");
    link.close().await;
    Ok(())
}

async fn everything_arrives_in_order(port: u16, protocol: Protocol) -> anyhow::Result<()> {
    let topic = "bedrail-check/values".to_owned();
    let mut inbox = subscribe(&settings(port, protocol, "reader"), Subscription { topics: vec![topic.clone()], session: None });
    anyhow::ensure!(matches!(event(&mut inbox).await?, InboxEvent::Connected { .. }), "not subscribed");
    let mut link = connect(&settings(port, protocol, "writer"));
    let (mut sent, mut acked, mut heard) = (0, 0, 0);
    let begun = Instant::now();
    while acked < COUNT || heard < COUNT {
        tokio::select! {
            event = next(&mut link) => match event? {
                LinkEvent::Connected { .. } => {}
                LinkEvent::Acked { token, reason: AckReason::Success } => {
                    anyhow::ensure!(token == acked, "acknowledged out of order");
                    acked += 1;
                }
                other => anyhow::bail!("{other:?}"),
            },
            event = event(&mut inbox) => match event? {
                InboxEvent::Message(message) => {
                    anyhow::ensure!(message.payload == heard.to_string().as_bytes(), "arrived out of order: {:?} in place of {heard}", message.payload);
                    inbox.taken(&message);
                    heard += 1;
                }
                other => anyhow::bail!("{other:?}"),
            },
        }
        while sent < COUNT && link.room() > 0 {
            link.publish(sent, Message::new(&topic, sent.to_string().into_bytes()))?;
            sent += 1;
        }
    }
    println!(
        "  {COUNT} messages acknowledged and received, in order, {} a second",
        (COUNT as f64 / begun.elapsed().as_secs_f64()) as u64
    );
    link.close().await;
    inbox.close().await;
    Ok(())
}

async fn a_session_is_kept(port: u16, protocol: Protocol) -> anyhow::Result<()> {
    let topic = format!("bedrail-check/session/{}", protocol.name());
    let subscription = Subscription { topics: vec![topic.clone()], session: Some(Duration::from_secs(60)) };
    let settings_of = || settings(port, protocol, "session");
    let mut inbox = subscribe(&settings_of(), subscription.clone());
    anyhow::ensure!(matches!(event(&mut inbox).await?, InboxEvent::Connected { .. }), "not subscribed");
    let mut link = connect(&settings(port, protocol, "writer"));
    anyhow::ensure!(matches!(next(&mut link).await?, LinkEvent::Connected { .. }), "not connected");
    publish(&mut link, Message::new(&topic, b"1".to_vec())).await?;
    let first = message(&mut inbox).await?;
    drop(inbox);
    publish(&mut link, Message::new(&topic, b"2".to_vec())).await?;
    let mut inbox = subscribe(&settings_of(), subscription);
    let (mut resumed, mut heard) = (false, Vec::new());
    while !resumed || heard.len() < 2 {
        match event(&mut inbox).await? {
            InboxEvent::Connected { resumed: kept } => {
                anyhow::ensure!(kept, "the broker forgot the session");
                resumed = true;
            }
            InboxEvent::Message(message) => {
                inbox.taken(&message);
                heard.push(message.payload);
            }
            InboxEvent::Lost(reason) => anyhow::bail!("{reason}"),
        }
    }
    anyhow::ensure!(heard[0] == first.payload && heard[1] == "2", "{heard:?}");
    println!("  keeps a session: what was not taken comes again, what was missed comes later");
    inbox.close().await;
    // A session of ours is not left behind.
    let ended = subscribe(&settings_of(), Subscription { topics: vec![topic], session: None });
    tokio::time::sleep(Duration::from_millis(200)).await;
    ended.close().await;
    link.close().await;
    Ok(())
}

async fn a_will_is_published(port: u16, protocol: Protocol) -> anyhow::Result<()> {
    let topic = format!("bedrail-check/will/{}", protocol.name());
    let will = Some(Will { topic: topic.clone(), payload: b"gone".to_vec() });
    let mut link = connect(&LinkSettings { will, ..settings(port, protocol, "will") });
    anyhow::ensure!(matches!(next(&mut link).await?, LinkEvent::Connected { .. }), "not connected");
    drop(link);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut inbox = subscribe(&settings(port, protocol, "reader"), Subscription { topics: vec![topic.clone()], session: None });
    let heard = message(&mut inbox).await?;
    println!("  publishes a last will{}", if heard.retain { ", and keeps it" } else { "" });
    inbox.taken(&heard);
    let mut link = connect(&settings(port, protocol, "will"));
    anyhow::ensure!(matches!(next(&mut link).await?, LinkEvent::Connected { .. }), "not connected");
    publish(&mut link, Message::new(&topic, Vec::new()).retained()).await?;
    link.close().await;
    Ok(())
}

fn settings(port: u16, protocol: Protocol, client: &str) -> LinkSettings {
    LinkSettings { protocol, ..LinkSettings::new("127.0.0.1", port, None, format!("bedrail-check-{client}-{}", protocol.name())) }
}

async fn publish(link: &mut MqttLink, message: Message) -> anyhow::Result<()> {
    link.publish(1, message)?;
    anyhow::ensure!(matches!(next(link).await?, LinkEvent::Acked { .. }), "not acknowledged");
    Ok(())
}

async fn next(link: &mut MqttLink) -> anyhow::Result<LinkEvent> {
    match tokio::time::timeout(PATIENCE, link.event()).await? {
        LinkEvent::Lost(reason) => Err(reason.into()),
        event => Ok(event),
    }
}

async fn event(inbox: &mut Inbox) -> anyhow::Result<InboxEvent> {
    match tokio::time::timeout(PATIENCE, inbox.event()).await? {
        InboxEvent::Lost(reason) => Err(reason.into()),
        event => Ok(event),
    }
}

async fn message(inbox: &mut Inbox) -> anyhow::Result<Received> {
    loop {
        if let InboxEvent::Message(message) = event(inbox).await? {
            return Ok(message);
        }
    }
}
