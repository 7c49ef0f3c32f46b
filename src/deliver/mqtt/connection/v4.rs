//! MQTT 3.1.1 packets (protocol level 4), to and from octets. A broker that speaks it gives no reasons: what its access rules
//! refuse it acknowledges like everything else, and why it ends a connection it does not say.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
    SubscribeReasonCode,
};

use super::session::{Accepted, Heard, Hello, Received};
use super::v5::length_octets;
use crate::deliver::mqtt::link::{AckReason, LostReason, Message};

pub fn connect(hello: &Hello<'_>, out: &mut BytesMut) {
    let mut connect = Connect::new(hello.client_id);
    connect.keep_alive = hello.keep_alive_s();
    connect.clean_session = hello.session.is_none();
    connect.last_will = hello.will.map(|will| LastWill::new(&will.topic, will.payload.clone(), qos(hello.qos1), hello.retain));
    connect.login = hello.login.map(|login| Login::new(&login.username, login.password.as_str()));
    write(&Packet::Connect(connect), out);
}

/// `id` is absent at QoS 0. There is no room for a content type.
pub fn publish(message: Message, id: Option<u16>, out: &mut BytesMut) {
    let mut publish = Publish::from_bytes(message.topic, qos(id.is_some()), Bytes::from(message.payload));
    (publish.retain, publish.pkid) = (message.retain, id.unwrap_or(0));
    write(&Packet::Publish(publish), out);
}

pub fn subscribe(topics: &[String], id: u16, out: &mut BytesMut) {
    let filters = topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
    write(&Packet::Subscribe(Subscribe { pkid: id, ..Subscribe::new_many(filters) }), out);
}

pub fn acknowledge(id: u16, out: &mut BytesMut) {
    write(&Packet::PubAck(PubAck::new(id)), out);
}

pub fn ping(out: &mut BytesMut) {
    write(&Packet::PingReq, out);
}

pub fn disconnect(out: &mut BytesMut) {
    write(&Packet::Disconnect, out);
}

/// One whole packet.
pub fn read(mut frame: BytesMut) -> Result<Heard, LostReason> {
    let packet = Packet::read(&mut frame, usize::MAX).map_err(|error| LostReason::Broken(error.to_string()))?;
    Ok(match packet {
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
            Heard::Accepted(Accepted { resumed: ack.session_present, ..Accepted::default() })
        }
        Packet::ConnAck(ack) => Heard::Lost(refused(&ack)),
        Packet::PubAck(ack) => Heard::Acked(ack.pkid, AckReason::Success),
        Packet::Publish(publish) => Heard::Message(Received {
            topic: publish.topic,
            content_type: None,
            payload: publish.payload,
            retain: publish.retain,
            id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
        }),
        Packet::SubAck(ack) => {
            let refused = ack.return_codes.contains(&SubscribeReasonCode::Failure);
            Heard::Subscribed(if refused { Err("it gives no reason".to_owned()) } else { Ok(()) })
        }
        Packet::PingResp => Heard::Pong,
        _ => Heard::Other,
    })
}

/// Of a whole PUBLISH (3.3): type, length, topic, packet id, payload.
pub fn publish_len(message: &Message, qos1: bool) -> usize {
    let remaining = 2 + message.topic.len() + if qos1 { 2 } else { 0 } + message.payload.len();
    1 + length_octets(remaining) + remaining
}

fn write(packet: &Packet, out: &mut BytesMut) {
    packet.write(out, usize::MAX).expect("what is written was measured, and only its size could be wrong");
}

const fn qos(qos1: bool) -> QoS {
    if qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}

fn refused(ack: &ConnAck) -> LostReason {
    match ack.code {
        ConnectReturnCode::BadUserNamePassword => LostReason::BadLogin,
        ConnectReturnCode::NotAuthorized => LostReason::NotAuthorized,
        code => LostReason::refused(format!("{code:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_measured_as_the_library_writes_it() {
        for size in [0, 94, 95, 100, 113, 114, 16_000, 16_370, 20_000, 2_100_000] {
            for id in [None, Some(7)] {
                let message = Message::new("bedrail/gw/oxi/spo2", vec![b'x'; size]);
                let measured = publish_len(&message, id.is_some());
                let mut out = BytesMut::new();
                publish(message, id, &mut out);
                assert_eq!(measured, out.len(), "{size} {id:?}");
            }
        }
    }
}
