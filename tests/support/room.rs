//! What can be done to simulated devices, to bluetoothd and to the adapter, whether bluetoothd is the fake or a real one
//! with virtual devices around it.

use uuid::Uuid;

use super::bluez::{AdapterSpec, DeviceSpec, FakeBluez};

pub const ADAPTER: &str = "hci0";
/// The adapter's address in either room.
pub const ADAPTER_ADDRESS: &str = "00:1A:7D:DA:71:13";
/// Where attributes are after they moved.
const MOVED: u16 = 0x80;

/// By their address.
pub trait Devices {
    /// Into the room, switched off.
    fn add(&self, spec: DeviceSpec);
    /// In range and advertising, until `away`.
    fn advertise(&self, address: &str);
    fn away(&self, address: &str);
    /// The device ends its link.
    fn drop_link(&self, address: &str);
    /// It ends its link and has its attributes elsewhere afterwards.
    fn move_handles(&self, address: &str);
    /// False when nobody could receive it.
    fn notify(&self, address: &str, characteristic: Uuid, octets: &[u8]) -> bool;
    /// The next `notify` will be delivered.
    fn is_listening(&self, address: &str, characteristic: Uuid) -> bool;
}

pub trait Room {
    fn devices(&self) -> &dyn Devices;
    /// It goes without a word.
    fn kill_bluetoothd(&self);
    /// By the signal systemd sends.
    fn stop_bluetoothd(&self);
    fn start_bluetoothd(&self);
    fn unplug_adapter(&self);
    fn plug_adapter(&self);
}

impl Devices for FakeBluez {
    fn add(&self, spec: DeviceSpec) {
        self.add_device(ADAPTER, spec);
    }

    fn advertise(&self, address: &str) {
        FakeBluez::advertise(self, address, -60);
    }

    fn away(&self, address: &str) {
        self.out_of_range(address);
    }

    fn drop_link(&self, address: &str) {
        FakeBluez::drop_link(self, address);
    }

    fn move_handles(&self, address: &str) {
        FakeBluez::move_handles(self, address, MOVED);
    }

    fn notify(&self, address: &str, characteristic: Uuid, octets: &[u8]) -> bool {
        FakeBluez::notify(self, address, characteristic, octets)
    }

    fn is_listening(&self, address: &str, characteristic: Uuid) -> bool {
        FakeBluez::is_listening(self, address, characteristic)
    }
}

impl Room for FakeBluez {
    fn devices(&self) -> &dyn Devices {
        self
    }

    fn kill_bluetoothd(&self) {
        self.crash();
    }

    fn stop_bluetoothd(&self) {
        self.stop();
    }

    fn start_bluetoothd(&self) {
        self.restart();
    }

    fn unplug_adapter(&self) {
        self.remove_adapter(ADAPTER);
    }

    fn plug_adapter(&self) {
        self.add_adapter(AdapterSpec::new(ADAPTER, ADAPTER_ADDRESS));
    }
}
