//! What a simulated device offers over GATT and how it misbehaves.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

/// A UUID the Bluetooth SIG assigned, from its short form.
pub const fn uuid16(short: u16) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_1000_8000_0080_5f9b_34fb | (short as u128) << 96)
}

#[derive(Clone, Debug)]
pub struct AdapterSpec {
    pub hci: String,
    pub address: String,
    /// `None` is main.conf's `DeviceID=false`: bluez-async then sees no adapter at all [ran].
    pub modalias: Option<String>,
    pub powered: bool,
    /// Errors that the next StartDiscovery calls answer with, in order. [ran, 5.66] `InProgress` from a new bluetoothd while
    /// the kernel still scans for one that died.
    pub scan_errors: VecDeque<BluezError>,
}

impl AdapterSpec {
    pub fn new(hci: &str, address: &str) -> Self {
        let modalias = Some("usb:v1D6Bp0246d0542".to_owned());
        Self { hci: hci.to_owned(), address: address.to_owned(), modalias, powered: true, scan_errors: VecDeque::new() }
    }
}

#[derive(Clone, Debug)]
pub struct DeviceSpec {
    pub address: String,
    pub random_address: bool,
    /// It advertises under private addresses, and `address` is known to who bonded.
    pub privacy: bool,
    pub name: String,
    pub advertised: Vec<Uuid>,
    pub services: Vec<ServiceSpec>,
    /// BlueZ's battery plug-in shows the Battery service as `Battery1` too.
    pub battery: Option<u8>,
    pub behaviour: Behaviour,
}

#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub uuid: Uuid,
    pub characteristics: Vec<CharacteristicSpec>,
}

#[derive(Clone, Debug)]
pub struct CharacteristicSpec {
    pub uuid: Uuid,
    /// As BlueZ names them: `read`, `write`, `notify`, `indicate`.
    pub flags: Vec<&'static str>,
    pub value: Vec<u8>,
    /// Needs an encrypted link, so BlueZ pairs on first use.
    pub encrypted: bool,
}

impl CharacteristicSpec {
    pub fn new(short: u16, flags: &[&'static str], value: &[u8]) -> Self {
        Self { uuid: uuid16(short), flags: flags.to_vec(), value: value.to_vec(), encrypted: false }
    }
}

/// A D-Bus error as (name, message).
pub type BluezError = (&'static str, String);

#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Until the link is up; 0.6 to 0.9 s with a real daemon [ran, 5.66].
    pub connect_delay: Duration,
    /// From the link to ServicesResolved (gatt-client.c btd_gatt_client_ready); 0.4 s [ran, 5.66].
    pub resolve_delay: Duration,
    /// A real Disconnect takes about 2 s (device.c `DISCONNECT_TIMER`; measured on 5.66).
    pub disconnect_delay: Duration,
    /// Errors that the next Connect calls answer with, in order.
    pub connect_errors: VecDeque<BluezError>,
    /// Connect stays pending until somebody calls Disconnect [ran: one that its caller dropped answered InProgress].
    pub connect_hangs: bool,
    /// The device drops the link this long after it came up, before its services are known [ran: btleplug's connect then
    /// waits its full 30 s].
    pub drop_before_resolve: Option<Duration>,
    /// Methods on the device and its characteristics that never get an answer [ran: a client gives up after 30 s; 5.66
    /// does this to StartNotify without an agent].
    pub never_answers: BTreeSet<&'static str>,
    /// The passkey the device shows; `None` pairs by Just Works.
    pub passkey: Option<u32>,
    /// It was reset, or paired elsewhere: a link to it cannot be encrypted with the bond BlueZ has, until it is paired anew.
    pub forgot_bond: Option<Forgot>,
    /// [ran, 5.66] When the agent refuses, StartNotify is not answered either.
    pub silent_when_refused: bool,
    /// First attribute handle, part of every path below the device (gatt-client.c service_create); an update moves it.
    pub handle_base: u16,
}

/// What comes of a link to a device that has no bond any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgot {
    /// [ran, 5.66] The link comes up and ends before the services are known.
    Drops,
    /// What is protected is refused.
    Refuses,
}

/// The error a failed LE connection attempt most often ends with: error.c `btd_error_le_str` for ECONNABORTED.
pub fn abort_by_local() -> BluezError {
    ("org.bluez.Error.Failed", "le-connection-abort-by-local".to_owned())
}
