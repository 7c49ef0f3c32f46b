//! What a device kind of the configuration means on the air: its service, what to subscribe to and what to read.

use uuid::Uuid;

use super::{Width, sig_uuid};

#[derive(Clone, Copy, Debug)]
pub struct DeviceKind {
    /// The name in the configuration.
    pub name: &'static str,
    pub service: Uuid,
    /// Subscribed to where the device has them. Intermediate values (2A1E, 2A36) are never among them: nothing charts them.
    pub subscribe: &'static [Uuid],
    /// Read once after connecting, where the device has them, in this order.
    pub read: &'static [Uuid],
    /// It keeps records that are asked for.
    pub retrieve: Option<Width>,
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
const TELLS: DeviceKind = DeviceKind { name: "", service: sig_uuid(0x1800), subscribe: &[], read: AFTER_CONNECT, retrieve: None };

const DEVICE_KINDS: &[DeviceKind] = &[
    DeviceKind { name: "heart-rate", service: sig_uuid(0x180D), subscribe: &[sig_uuid(0x2A37)], ..TELLS },
    DeviceKind { name: "thermometer", service: sig_uuid(0x1809), subscribe: &[sig_uuid(0x2A1C)], ..TELLS },
    DeviceKind { name: "blood-pressure", service: sig_uuid(0x1810), subscribe: &[sig_uuid(0x2A35)], ..TELLS },
    DeviceKind { name: "pulse-oximeter", service: sig_uuid(0x1822), subscribe: &[sig_uuid(0x2A5E), sig_uuid(0x2A5F)], ..TELLS },
    DeviceKind { name: "weight-scale", service: sig_uuid(0x181D), subscribe: &[sig_uuid(0x2A9D)], ..TELLS },
    DeviceKind {
        name: "glucose-meter",
        service: sig_uuid(0x1808),
        subscribe: &[sig_uuid(0x2A18), sig_uuid(0x2A34)],
        retrieve: Some(Width::U16),
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
                assert_eq!(row.service, Some(kind.service), "{}", row.name);
                assert!(observe(*uuid, &[]).is_some(), "{}", row.name);
                assert!(!row.name.starts_with("intermediate"), "{}", row.name);
            }
            assert!(kind.read.iter().all(|uuid| characteristic(*uuid).is_some_and(|row| row.properties.read)), "{}", kind.name);
        }
    }
}
