//! The real bluetoothd as a room.

use uuid::Uuid;

use super::super::bluez::DeviceSpec;
use super::super::room::{Devices, Room};
use super::{Air, Guest};

pub struct RealBluez {
    pub air: Air,
    pub guest: Guest,
}

impl RealBluez {
    /// With a powered adapter.
    pub fn boot() -> Self {
        let air = Air::start();
        let guest = Guest::boot(&air, None);
        guest.plug_adapter();
        guest.start_bluetoothd();
        guest.set_powered(true);
        Self { air, guest }
    }
}

impl Devices for Air {
    fn add(&self, spec: DeviceSpec) {
        self.place(&spec);
    }

    fn advertise(&self, address: &str) {
        Air::advertise(self, address);
    }

    fn away(&self, address: &str) {
        Air::away(self, address);
    }

    fn drop_link(&self, address: &str) {
        Air::drop_link(self, address);
    }

    fn move_handles(&self, address: &str) {
        Air::move_handles(self, address);
    }

    fn notify(&self, address: &str, characteristic: Uuid, octets: &[u8]) -> bool {
        Air::notify(self, address, characteristic, octets)
    }

    fn is_listening(&self, address: &str, characteristic: Uuid) -> bool {
        Air::is_listening(self, address, characteristic)
    }
}

impl Room for RealBluez {
    fn devices(&self) -> &dyn Devices {
        &self.air
    }

    fn kill_bluetoothd(&self) {
        self.guest.leave("bluetoothd", "KILL");
    }

    fn stop_bluetoothd(&self) {
        self.guest.leave("bluetoothd", "TERM");
    }

    fn start_bluetoothd(&self) {
        self.guest.start_bluetoothd();
        self.guest.set_powered(true);
    }

    fn unplug_adapter(&self) {
        self.air.set_plugged(false);
        self.guest.unplug_adapter();
    }

    fn plug_adapter(&self) {
        self.air.set_plugged(true);
        self.guest.plug_adapter();
        self.guest.set_powered(true);
    }
}
