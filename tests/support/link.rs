//! What a link to a broker says next, for tests that hold it themselves.

use std::time::Duration;

use bedrail::deliver::mqtt::{Link, LinkEvent, LostReason, MqttLink};

const PATIENCE: Duration = Duration::from_secs(30);

pub async fn next(link: &mut MqttLink) -> LinkEvent {
    tokio::time::timeout(PATIENCE, link.event()).await.expect("the link said nothing")
}

pub async fn connected(link: &mut MqttLink) {
    let event = next(link).await;
    assert!(matches!(event, LinkEvent::Connected { .. }), "{event:?}");
}

pub async fn lost(link: &mut MqttLink) -> LostReason {
    match next(link).await {
        LinkEvent::Lost(reason) => reason,
        other => panic!("{other:?}"),
    }
}
