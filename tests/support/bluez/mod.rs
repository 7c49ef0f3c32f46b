//! A fake bluetoothd: enough of `org.bluez` for btleplug to run on it unmodified, and every way in which the real one
//! lets a gateway down. It is a handler of raw messages over a tree of objects, because a simulator must be able to leave
//! a property out, answer late or never, or vanish.
//!
//! Comments name the BlueZ source (5.66 and later) a behaviour follows. `[ran]` marks what was seen in a run of btleplug
//! 0.13.5 against a fake, `[ran, 5.66]` in a run against the real daemon in a virtual machine.

mod adapter;
mod bonding;
mod methods;
mod serve;
pub mod spec;
mod world;

use std::sync::{Arc, Mutex};

use uuid::Uuid;

pub use self::spec::{AdapterSpec, Behaviour, CharacteristicSpec, DeviceSpec, Forgot, ServiceSpec, abort_by_local, uuid16};
pub use self::world::{Answering, Call, Data, LiveValue};

use self::serve::{Daemon, Ending, Shared};
use self::world::{ADAPTER, BATTERY, Device, World, adapter_path, variant};

/// The handle tests hold. Everything here returns at once except `start`, `stop`, `crash` and `restart`, which wait for
/// the connection; no runtime is needed. Devices are named by their address.
pub struct FakeBluez {
    bus: String,
    shared: Shared,
    daemon: Mutex<Option<Daemon>>,
}

impl FakeBluez {
    /// A bluetoothd without an adapter, owning `org.bluez` on `bus`.
    pub fn start(bus: &str) -> Self {
        let shared = Shared::new(World::default());
        let daemon = Mutex::new(Some(Daemon::start(bus, &shared)));
        Self { bus: bus.to_owned(), shared, daemon }
    }

    pub fn add_adapter(&self, spec: AdapterSpec) {
        let (mut world, hci) = (self.shared.lock(), spec.hci.clone());
        world.adapters.insert(hci.clone(), spec);
        world.plug_adapter(&hci);
    }

    /// Unplugs it; its devices stay in the room and are heard again by `add_adapter` of the same name and a scan.
    pub fn remove_adapter(&self, hci: &str) {
        let mut world = self.shared.lock();
        world.unplug_adapter(hci);
        world.adapters.remove(hci);
    }

    pub fn set_powered(&self, hci: &str, on: bool) {
        let mut world = self.shared.lock();
        world.set_powered(hci, on);
        world.after_the_answer();
    }

    /// Puts a device into the room, switched off: BlueZ learns of it from `advertise`.
    pub fn add_device(&self, hci: &str, spec: DeviceSpec) {
        let device = Device {
            hci: hci.to_owned(),
            shown: spec.address.clone(),
            privates: 0,
            service_data: Default::default(),
            manufacturer_data: Default::default(),
            in_range: false,
            rssi: 0,
            paired: false,
            trusted: false,
            stored: false,
            exported: None,
            connecting: None,
            link: 0,
            live_values: Default::default(),
            answering: Default::default(),
            spec,
        };
        let (mut world, address) = (self.shared.lock(), device.spec.address.clone());
        world.devices.insert(address.clone(), device);
        world.rotate(&address);
    }

    /// It takes another private address, as such devices do every quarter of an hour.
    pub fn rotate(&self, address: &str) {
        self.shared.lock().rotate(address);
    }

    /// Somebody pairs with it by hand, as with bluetoothctl, and leaves the link to BlueZ.
    pub fn pair_by_hand(&self, address: &str) {
        let mut world = self.shared.lock();
        let link = world.link_up(address);
        world.resolve(address, link);
        bonding::bonded(&mut world, address);
    }

    /// The device is in range and advertises; it stays so until `out_of_range`. Heard only while a client scans.
    pub fn advertise(&self, address: &str, rssi: i16) {
        let mut world = self.shared.lock();
        let device = world.devices.get_mut(address).expect("add_device came first");
        (device.in_range, device.rssi) = (true, rssi);
        world.heard(address);
    }

    /// One advertisement with data in it, of a device that is in range. False when nobody listens.
    pub fn broadcast(&self, address: &str, data: Data) -> bool {
        let mut world = self.shared.lock();
        world.heard_with(address, data);
        world.outbox.is_some() && world.is(&adapter_path(&world.devices[address].hci), ADAPTER, "Discovering")
    }

    /// It no longer advertises or answers; a link it has is lost.
    pub fn out_of_range(&self, address: &str) {
        let mut world = self.shared.lock();
        world.devices.get_mut(address).expect("add_device came first").in_range = false;
        world.link_down(address);
    }

    pub fn drop_link(&self, address: &str) {
        self.shared.lock().link_down(address);
    }

    /// Link loss with all attributes under new handles in the next connection, as after a firmware update of the device.
    pub fn move_handles(&self, address: &str, base: u16) {
        let mut world = self.shared.lock();
        world.link_down(address);
        world.devices.get_mut(address).expect("add_device came first").spec.behaviour.handle_base = base;
    }

    /// BlueZ forgets the device, as after `TemporaryTimeout` or bluetoothctl's `remove`; a scan finds it again.
    pub fn remove_device(&self, address: &str) {
        let mut world = self.shared.lock();
        world.cancel_connect(address);
        let Some(path) = world.path(address) else { return };
        world.remove_tree(&path);
        if let Some(device) = world.devices.get_mut(address) {
            device.link += 1;
            device.stored = false;
        }
    }

    pub fn with_behaviour(&self, address: &str, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().devices.get_mut(address).expect("add_device came first").spec.behaviour);
    }

    /// A notification or indication; false when nobody could receive it (no link, no session, no daemon).
    pub fn notify(&self, address: &str, characteristic: Uuid, octets: &[u8]) -> bool {
        self.shared.lock().notify(address, characteristic, octets)
    }

    /// What a read of a characteristic gives from now on.
    pub fn set_value(&self, address: &str, characteristic: Uuid, octets: &[u8]) {
        let octets = octets.to_vec();
        self.set_live_value(address, characteristic, Arc::new(move || octets.clone()));
    }

    /// A value made when it is read, such as a clock.
    pub fn set_live_value(&self, address: &str, characteristic: Uuid, value: LiveValue) {
        let mut world = self.shared.lock();
        world.devices.get_mut(address).expect("add_device came first").live_values.insert(characteristic, value);
    }

    /// What the device tells, right after the answer, when something is written to a characteristic of it.
    pub fn set_answering(&self, address: &str, characteristic: Uuid, answering: Answering) {
        let mut world = self.shared.lock();
        world.devices.get_mut(address).expect("add_device came first").answering.insert(characteristic, answering);
    }

    /// `Battery1.Percentage`, for a device whose spec has a battery.
    pub fn set_battery(&self, address: &str, percentage: u8) {
        let mut world = self.shared.lock();
        world.devices.get_mut(address).expect("add_device came first").spec.battery = Some(percentage);
        if let Some(path) = world.path(address) {
            world.set(&path, BATTERY, [("Percentage", variant(percentage))]);
        }
    }

    /// An orderly end: objects removed, name released, connection closed.
    pub fn stop(&self) {
        self.end(Ending::Orderly);
    }

    pub fn crash(&self) {
        self.end(Ending::Crash);
    }

    /// A new process (after ending the old one): adapters are back, agents, scans and links are not, and only devices that
    /// somebody connected, paired or trusted are known. Not shown here: the kernel keeps a link for 2 s after its owner
    /// died, and a process that starts within them finds it, as connected, until it ends.
    pub fn restart(&self) {
        self.crash();
        *self.slot() = Some(Daemon::start(&self.bus, &self.shared));
    }

    /// While on, the name stays owned and nothing is read or written; what was asked meanwhile is answered afterwards.
    pub fn hang(&self, on: bool) {
        if let Some(daemon) = &*self.slot() {
            daemon.hang(on);
        }
    }

    pub fn is_connected(&self, address: &str) -> bool {
        self.shared.lock().device_is(address, "Connected")
    }

    /// The link is up and its services are known.
    pub fn is_resolved(&self, address: &str) -> bool {
        self.shared.lock().device_is(address, "ServicesResolved")
    }

    /// BlueZ has an object for it.
    pub fn is_known(&self, address: &str) -> bool {
        let world = self.shared.lock();
        world.path(address).is_some_and(|path| world.tree.contains_key(&path))
    }

    pub fn is_paired(&self, address: &str) -> bool {
        self.shared.lock().devices.get(address).is_some_and(|device| device.paired)
    }

    /// The link is up and a client has a notify session: the next `notify` will be delivered.
    pub fn is_listening(&self, address: &str, characteristic: Uuid) -> bool {
        let world = self.shared.lock();
        let path = world.characteristic_path(address, characteristic).filter(|_| world.device_is(address, "ServicesResolved"));
        path.is_some_and(|path| world.notifying.get(&path).is_some_and(|clients| !clients.is_empty()))
    }

    pub fn is_discovering(&self, hci: &str) -> bool {
        self.shared.lock().is(&adapter_path(hci), ADAPTER, "Discovering")
    }

    /// The filters clients have set, oldest first, as `name=value` texts.
    pub fn filters(&self) -> Vec<String> {
        self.shared.lock().filters.clone()
    }

    /// Capabilities of the registered agents.
    pub fn agents(&self) -> Vec<String> {
        self.shared.lock().agents.iter().map(|agent| agent.capability.clone()).collect()
    }

    /// Every `org.bluez` method call and property write so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// How often `member` was called on this device or anything below it.
    pub fn count(&self, address: &str, member: &str) -> usize {
        let world = self.shared.lock();
        let is_it = |call: &&Call| call.member == member && world.address_of(&call.path).as_deref() == Some(address);
        world.calls.iter().filter(is_it).count()
    }

    fn end(&self, how: Ending) {
        if let Some(mut daemon) = self.slot().take() {
            daemon.end(how);
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for FakeBluez {
    fn drop(&mut self) {
        self.crash();
    }
}
