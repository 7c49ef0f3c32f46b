//! What a device kind of the configuration means on the air: its service, what to subscribe to and what to read.

use uuid::Uuid;

use super::{CgmMeasurement, Width, observe, read, sig_uuid};

#[derive(Clone, Copy, Debug)]
pub struct DeviceKind {
    /// The name in the configuration.
    pub name: &'static str,
    pub services: &'static [Uuid],
    /// Subscribed to where the device has them. Intermediate values (2A1E, 2A36) are never among them: nothing charts them.
    pub subscribe: &'static [Uuid],
    /// Read once after connecting, where the device has them, in this order: without these its values can't be read aright.
    pub features: &'static [Uuid],
    /// And then these.
    pub read: &'static [Uuid],
    /// It keeps records that are asked for.
    pub memory: Option<Memory>,
    /// It is worn for a session, and counts its minutes.
    pub session: bool,
}

/// How stored records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How wide its numbers are; `None` for a device that has none and is asked for everything each time.
    pub numbers: Option<Width>,
    /// Which characteristic says that it keeps any, and by which bits, all of them set; `None`: having a control point does.
    pub announced: Option<(Uuid, u16)>,
}

/// Where a device has the second of a pair, the first is not subscribed to: it tells the same measurement, and would be a
/// second record of it.
const TOLD_TWICE: &[(Uuid, Uuid)] = &[(sig_uuid(0x2A35), sig_uuid(0x2B34))];

/// What tells the same measurement better, where a device has it.
pub fn told_better_by(characteristic: Uuid) -> Option<Uuid> {
    TOLD_TWICE.iter().find(|(plain, _)| *plain == characteristic).map(|(_, better)| *better)
}

/// What a value that a device is asked for is to whoever counts its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many, with the number of the last where it has one.
    Records { count: usize, last: Option<u32> },
    /// A piece of one, or what belongs to one.
    Piece,
}

/// `None` for what is no stored record, such as a value of now beside them.
pub fn stored_record(characteristic: Uuid, octets: &[u8]) -> Option<Told> {
    const CONTEXT: Uuid = sig_uuid(0x2A34);
    const SEGMENT: Uuid = sig_uuid(0x2B36);
    const LAST_SEGMENT: u8 = 0b10;
    const CGM: Uuid = sig_uuid(0x2AA7);
    const NOW: [Uuid; 3] = [sig_uuid(0x2A35), sig_uuid(0x2B34), sig_uuid(0x2A5F)];
    match (characteristic, octets) {
        (uuid, _) if NOW.contains(&uuid) => None,
        (CONTEXT, _) => Some(Told::Piece),
        (SEGMENT, [header, low, high, ..]) if header & LAST_SEGMENT != 0 => {
            Some(Told::Records { count: 1, last: Some(u16::from_le_bytes([*low, *high]).into()) })
        }
        (SEGMENT, _) => Some(Told::Piece),
        (CGM, _) => {
            let records = read::<CgmMeasurement>(octets).map(|(value, _)| value.0).unwrap_or_default();
            let last = records.last().map(|record| record.time_offset_min.into());
            Some(Told::Records { count: records.len(), last })
        }
        _ => {
            let records = observe(characteristic, octets).and_then(Result::ok);
            Some(Told::Records { count: 1, last: records.and_then(|(records, _)| records.last()?.sequence) })
        }
    }
}

/// The clock first: the shorter after connecting, the better the comparison with the gateway's.
const AFTER_CONNECT: &[Uuid] = &[
    sig_uuid(0x2A2B),
    sig_uuid(0x2A08),
    sig_uuid(0x2A19),
    sig_uuid(0x2A29),
    sig_uuid(0x2A24),
    sig_uuid(0x2A25),
    sig_uuid(0x2A26),
    sig_uuid(0x2A27),
    sig_uuid(0x2A28),
];

/// What most do: tell what was measured, and be asked who they are.
const TELLS: DeviceKind =
    DeviceKind { name: "", services: &[], subscribe: &[], features: &[], read: AFTER_CONNECT, memory: None, session: false };

const NUMBERED: Option<Memory> = Some(Memory { numbers: Some(Width::U16), announced: None });
/// PLX Features: it stores spot checks, and puts a time on them. Without a time one that is read again would be a second one.
const STORES_DATED: (Uuid, u16) = (sig_uuid(0x2A60), 0b1100);

const DEVICE_KINDS: &[DeviceKind] = &[
    DeviceKind { name: "heart-rate", services: &[sig_uuid(0x180D)], subscribe: &[sig_uuid(0x2A37)], ..TELLS },
    DeviceKind { name: "thermometer", services: &[sig_uuid(0x1809)], subscribe: &[sig_uuid(0x2A1C)], ..TELLS },
    DeviceKind {
        name: "blood-pressure",
        services: &[sig_uuid(0x1810)],
        subscribe: &[sig_uuid(0x2A35), sig_uuid(0x2B34), sig_uuid(0x2B36)],
        features: &[sig_uuid(0x2A49)],
        memory: NUMBERED,
        ..TELLS
    },
    DeviceKind {
        name: "pulse-oximeter",
        services: &[sig_uuid(0x1822)],
        subscribe: &[sig_uuid(0x2A5E), sig_uuid(0x2A5F)],
        memory: Some(Memory { numbers: None, announced: Some(STORES_DATED) }),
        ..TELLS
    },
    DeviceKind { name: "weight-scale", services: &[sig_uuid(0x181D)], subscribe: &[sig_uuid(0x2A9D)], ..TELLS },
    DeviceKind {
        name: "body-composition",
        services: &[sig_uuid(0x181B), sig_uuid(0x181D)],
        subscribe: &[sig_uuid(0x2A9C), sig_uuid(0x2A9D)],
        ..TELLS
    },
    DeviceKind {
        name: "glucose-meter",
        services: &[sig_uuid(0x1808)],
        subscribe: &[sig_uuid(0x2A18), sig_uuid(0x2A34)],
        memory: NUMBERED,
        ..TELLS
    },
    DeviceKind {
        name: "glucose-sensor",
        services: &[sig_uuid(0x181F)],
        subscribe: &[sig_uuid(0x2AA7)],
        features: &[sig_uuid(0x2AA8), sig_uuid(0x2AAA)],
        memory: NUMBERED,
        session: true,
        ..TELLS
    },
];

pub const fn device_kinds() -> &'static [DeviceKind] {
    DEVICE_KINDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatt::{characteristic, observe};

    #[test]
    fn everything_a_kind_subscribes_to_pushes_measurements_of_its_own_service() {
        for kind in device_kinds() {
            for uuid in kind.subscribe {
                let row = characteristic(*uuid).expect("a known characteristic");
                assert!(row.properties.notify || row.properties.indicate, "{}", row.name);
                assert!(row.service.is_some_and(|service| kind.services.contains(&service)), "{}", row.name);
                assert!(!row.is_whole() || observe(*uuid, &[]).is_some(), "{}", row.name);
                assert!(!row.name.starts_with("intermediate"), "{}", row.name);
            }
            assert!(
                kind.features.iter().chain(kind.read).all(|uuid| characteristic(*uuid).is_some_and(|row| row.properties.read)),
                "{}",
                kind.name
            );
        }
    }

    #[test]
    fn what_is_asked_for_is_counted_by_record_and_what_is_of_now_is_not() {
        let glucose = [0x02, 7, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x6E, 0xB0, 0x11];
        assert_eq!(stored_record(sig_uuid(0x2A18), &glucose), Some(Told::Records { count: 1, last: Some(7) }));
        assert_eq!(stored_record(sig_uuid(0x2A34), &[0x42, 7, 0, 3, 0x41, 0xF0]), Some(Told::Piece));
        assert_eq!(stored_record(sig_uuid(0x2B36), &[0b01, 9, 0, 0x35, 0x2A, 0]), Some(Told::Piece));
        assert_eq!(
            stored_record(sig_uuid(0x2B36), &[0b110, 9, 0, 0x35, 0x2A, 0]),
            Some(Told::Records { count: 1, last: Some(9) })
        );
        assert_eq!(stored_record(sig_uuid(0x2A5F), &[0, 95, 0, 60, 0]), None);
        assert_eq!(stored_record(sig_uuid(0x2A5E), &[0, 95, 0, 60, 0]), Some(Told::Records { count: 1, last: None }));
        let two = [6, 0, 12, 16, 5, 0, 6, 0, 13, 16, 10, 0];
        assert_eq!(stored_record(sig_uuid(0x2AA7), &two), Some(Told::Records { count: 2, last: Some(10) }));
        assert_eq!(told_better_by(sig_uuid(0x2A35)), Some(sig_uuid(0x2B34)));
    }
}
