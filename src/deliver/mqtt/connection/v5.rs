//! MQTT 5 packets, to and from octets.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, LastWill, Login, Packet,
    PingReq, PubAck, PubAckReason, Publish, PublishProperties, Subscribe,
};

use super::session::{Accepted, Heard, Hello, Received};
use crate::deliver::FaultClass;
use crate::deliver::mqtt::ended_by;
use crate::deliver::mqtt::link::{AckReason, LostReason, Message, RefusalCode};

/// A DISCONNECT without a reason may have no body at all (3.14.2.1), which the library does not read.
const BARE_DISCONNECT: [u8; 2] = [0xe0, 0x00];

pub fn connect(hello: &Hello<'_>, out: &mut BytesMut) {
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(hello.receive_maximum);
    properties.max_packet_size = Some(hello.max_packet);
    properties.session_expiry_interval = hello.session.map(|kept| u32::try_from(kept.as_secs()).unwrap_or(u32::MAX));
    let connect = Connect {
        keep_alive: hello.keep_alive_s(),
        client_id: hello.client_id.to_owned(),
        clean_start: hello.session.is_none(),
        properties: Some(properties),
    };
    let will = hello.will.map(|will| LastWill::new(&will.topic, will.payload.clone(), qos(hello.qos1), hello.retain, None));
    let login = hello.login.map(|login| Login::new(&login.username, login.password.as_str()));
    write(&Packet::Connect(connect, will, login), out);
}

/// `id` is absent at QoS 0.
pub fn publish(message: Message, id: Option<u16>, out: &mut BytesMut) {
    let properties = message
        .content_type
        .map(|content_type| PublishProperties { content_type: Some(content_type.to_owned()), ..PublishProperties::default() });
    let publish = Publish {
        qos: qos(id.is_some()),
        retain: message.retain,
        topic: Bytes::from(message.topic),
        pkid: id.unwrap_or(0),
        payload: Bytes::from(message.payload),
        properties,
        ..Publish::default()
    };
    write(&Packet::Publish(publish), out);
}

pub fn subscribe(topics: &[String], id: u16, out: &mut BytesMut) {
    let filters = topics.iter().map(|topic| Filter::new(topic, QoS::AtLeastOnce));
    write(&Packet::Subscribe(Subscribe { pkid: id, ..Subscribe::new_many(filters, None) }), out);
}

pub fn acknowledge(id: u16, out: &mut BytesMut) {
    write(&Packet::PubAck(PubAck::new(id, None)), out);
}

pub fn ping(out: &mut BytesMut) {
    write(&Packet::PingReq(PingReq), out);
}

pub fn disconnect(out: &mut BytesMut) {
    write(&Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)), out);
}

/// One whole packet.
pub fn read(mut frame: BytesMut) -> Result<Heard, LostReason> {
    if frame[..] == BARE_DISCONNECT {
        return Ok(Heard::Lost(ended(DisconnectReasonCode::NormalDisconnection, None)));
    }
    let packet = Packet::read(&mut frame, None).map_err(|error| LostReason::Broken(error.to_string()))?;
    Ok(match packet {
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Heard::Accepted(accepted(ack)),
        Packet::ConnAck(ack) => Heard::Lost(refused(ack)),
        Packet::PubAck(ack) => Heard::Acked(ack.pkid, ack_reason(ack.reason)),
        Packet::Publish(publish) => Heard::Message(Received {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            content_type: publish.properties.and_then(|properties| properties.content_type),
            payload: publish.payload,
            retain: publish.retain,
            id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
        }),
        Packet::SubAck(ack) => {
            use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
            let refused = ack.return_codes.iter().find(|code| !matches!(code, Success(_)));
            Heard::Subscribed(refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        Packet::Disconnect(end) => Heard::Lost(ended(end.reason_code, end.properties.and_then(|p| p.reason_string))),
        Packet::PingResp(_) => Heard::Pong,
        _ => Heard::Other,
    })
}

/// Of a whole PUBLISH (3.3): type, length, topic, packet id, length of properties, content type, payload.
pub fn publish_len(message: &Message, qos1: bool) -> usize {
    let properties = message.content_type.map_or(0, |content_type| 1 + 2 + content_type.len());
    let id = if qos1 { 2 } else { 0 };
    let remaining = 2 + message.topic.len() + id + length_octets(properties) + properties + message.payload.len();
    1 + length_octets(remaining) + remaining
}

/// A variable byte integer (1.5.5).
pub const fn length_octets(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

fn write(packet: &Packet, out: &mut BytesMut) {
    packet.write(out, None).expect("what is written was measured, and only its size could be wrong");
}

const fn qos(qos1: bool) -> QoS {
    if qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}

fn accepted(ack: ConnAck) -> Accepted {
    let mut accepted = Accepted { resumed: ack.session_present, ..Accepted::default() };
    if let Some(properties) = ack.properties {
        accepted.receive_maximum = properties.receive_max;
        accepted.max_packet = properties.max_packet_size;
        accepted.qos1 = properties.max_qos != Some(0);
        accepted.retain = properties.retain_available != Some(0);
        accepted.keep_alive = properties.server_keep_alive.map(|seconds| Duration::from_secs(seconds.into()));
    }
    accepted
}

fn refused(ack: ConnAck) -> LostReason {
    match ack.code {
        ConnectReturnCode::BadUserNamePassword => LostReason::BadLogin,
        ConnectReturnCode::NotAuthorized => LostReason::NotAuthorized,
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            LostReason::refused("it does not speak MQTT 5, so write protocol = \"3.1.1\"")
        }
        ConnectReturnCode::RetainNotSupported => LostReason::refused("it keeps no retained messages, so write retain = false"),
        ConnectReturnCode::QoSNotSupported => LostReason::refused("it takes no QoS 1 message, so write max_qos = 0"),
        other => {
            let code = match other {
                ConnectReturnCode::ServerBusy => 0x89,
                ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => 0x88,
                ConnectReturnCode::PacketTooLarge => 0x95,
                ConnectReturnCode::QuotaExceeded => 0x97,
                ConnectReturnCode::UseAnotherServer => 0x9C,
                ConnectReturnCode::ServerMoved => 0x9D,
                ConnectReturnCode::ConnectionRateExceeded => 0x9F,
                _ => 0x80,
            };
            LostReason::Refused { class: ended_by(code).unwrap_or(FaultClass::Refused), text: format!("{other:?}") }
        }
    }
}

fn ended(code: DisconnectReasonCode, text: Option<String>) -> LostReason {
    match code {
        DisconnectReasonCode::SessionTakenOver => LostReason::TakenOver,
        DisconnectReasonCode::NotAuthorized => LostReason::NotAuthorized,
        _ => LostReason::Ended {
            class: ended_by(code as u8).unwrap_or(FaultClass::Ended),
            text: text.unwrap_or_else(|| format!("{code:?}")),
        },
    }
}

const fn ack_reason(reason: PubAckReason) -> AckReason {
    match reason {
        PubAckReason::Success => AckReason::Success,
        PubAckReason::NoMatchingSubscribers => AckReason::NoMatchingSubscribers,
        PubAckReason::UnspecifiedError => AckReason::Refused(RefusalCode::UNSPECIFIED),
        PubAckReason::ImplementationSpecificError => AckReason::Refused(RefusalCode::IMPLEMENTATION_SPECIFIC),
        PubAckReason::NotAuthorized => AckReason::Refused(RefusalCode::NOT_AUTHORIZED),
        PubAckReason::TopicNameInvalid => AckReason::Refused(RefusalCode::TOPIC_NAME_INVALID),
        PubAckReason::PacketIdentifierInUse => AckReason::Refused(RefusalCode::PACKET_IDENTIFIER_IN_USE),
        PubAckReason::QuotaExceeded => AckReason::Refused(RefusalCode::QUOTA_EXCEEDED),
        PubAckReason::PayloadFormatInvalid => AckReason::Refused(RefusalCode::PAYLOAD_FORMAT_INVALID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_measured_as_the_library_writes_it() {
        for content_type in [None, Some("application/json")] {
            for size in [0, 94, 95, 100, 113, 114, 16_000, 16_370, 20_000, 2_100_000] {
                for id in [None, Some(7)] {
                    let message = Message { content_type, ..Message::new("bedrail/gw/oxi/spo2", vec![b'x'; size]) };
                    let measured = publish_len(&message, id.is_some());
                    let mut out = BytesMut::new();
                    publish(message, id, &mut out);
                    assert_eq!(measured, out.len(), "{size} {content_type:?} {id:?}");
                }
            }
        }
    }

    #[test]
    fn a_disconnect_without_a_body_is_an_orderly_end() {
        let heard = read(BytesMut::from(&BARE_DISCONNECT[..])).unwrap();
        assert!(matches!(heard, Heard::Lost(LostReason::Ended { text, .. }) if text == "NormalDisconnection"));
    }
}
