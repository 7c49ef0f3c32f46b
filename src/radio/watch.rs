//! What BlueZ says there is: its own presence, adapters, and the links of configured devices, folded from one ordered
//! stream of D-Bus messages into states that others watch. A state is overwritten, never queued, so a slow reader costs
//! nothing; what must not be missed between two looks is counted.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::watch;
use zbus::OwnedVariant;

use super::agent::MayPair;
use super::bluez::{ADAPTER, DEVICE};
use super::bond::Bond;
use crate::reading::DeviceId;

pub type Properties = HashMap<String, OwnedVariant>;
pub type Interfaces = HashMap<String, Properties>;

/// BlueZ and the adapter in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterState {
    /// Counts bluetoothd processes seen; agents and scans belong to one.
    pub process: u64,
    pub running: bool,
    /// Nothing is known yet of a bluetoothd that may be there.
    pub asking: bool,
    /// Why BlueZ could not be asked, though it runs.
    pub refused: Option<String>,
    /// Its object path, while it is plugged in.
    pub path: Option<String>,
    pub powered: bool,
    /// Counts how often it became unusable: a scan does not live through that.
    pub outages: u64,
}

impl Default for AdapterState {
    fn default() -> Self {
        Self { process: 0, running: false, asking: true, refused: None, path: None, powered: false, outages: 0 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// Its object path, while BlueZ knows it on the adapter in use.
    pub path: Option<String>,
    pub connected: bool,
    pub resolved: bool,
    pub paired: bool,
    /// Counts how often its object went away.
    pub losses: u64,
    /// Counts broken links.
    pub breaks: u64,
    /// Counts advertisements BlueZ told of.
    pub heard: u64,
}

/// One thing that BlueZ or the bus said.
#[derive(Debug)]
pub enum Change {
    /// Whoever owns `org.bluez` now.
    Owner(Option<String>),
    /// BlueZ is there but does not talk to us.
    Refused(String),
    /// All objects there are have been `Added`.
    Listed,
    Added {
        path: String,
        interfaces: Interfaces,
    },
    Removed {
        path: String,
        interfaces: Vec<String>,
    },
    Changed {
        path: String,
        interface: String,
        properties: Properties,
    },
}

pub struct Wanted {
    pub adapter: Option<DeviceId>,
    pub devices: Vec<DeviceId>,
    /// How those of them that may pair do.
    pub pairing: BTreeMap<DeviceId, Bond>,
}

/// The fold. It does no I/O; `listen` feeds it.
pub struct World {
    wanted: Wanted,
    may_pair: MayPair,
    owner: Option<String>,
    adapters: BTreeMap<String, Adapter>,
    objects: BTreeMap<String, Object>,
    adapter: watch::Sender<AdapterState>,
    devices: BTreeMap<DeviceId, watch::Sender<DeviceState>>,
}

struct Adapter {
    address: Option<DeviceId>,
    powered: bool,
}

/// A configured device as one adapter knows it.
struct Object {
    device: DeviceId,
    connected: bool,
    resolved: bool,
    paired: bool,
}

impl World {
    pub fn new(wanted: Wanted, may_pair: MayPair) -> Self {
        let devices = wanted.devices.iter().map(|id| (*id, watch::Sender::default())).collect();
        Self {
            wanted,
            may_pair,
            owner: None,
            adapters: BTreeMap::new(),
            objects: BTreeMap::new(),
            adapter: watch::Sender::default(),
            devices,
        }
    }

    pub fn watch_adapter(&self) -> watch::Receiver<AdapterState> {
        self.adapter.subscribe()
    }

    pub fn watch_device(&self, device: DeviceId) -> watch::Receiver<DeviceState> {
        self.devices.get(&device).expect("only configured devices are watched").subscribe()
    }

    /// The unique bus name of bluetoothd: signals of anybody else are not believed.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Owner(owner) => self.owner_changed(owner),
            Change::Refused(reason) => self.adapter.send_modify(|state| (state.asking, state.refused) = (false, Some(reason))),
            Change::Listed => self.adapter.send_modify(|state| state.asking = false),
            Change::Added { path, interfaces } => {
                for (interface, properties) in interfaces {
                    match interface.as_str() {
                        ADAPTER => self.adapter_added(&path, &properties),
                        DEVICE => self.device_changed(&path, &properties),
                        _ => {}
                    }
                }
            }
            Change::Removed { path, interfaces } => {
                if interfaces.iter().any(|interface| interface == ADAPTER) {
                    self.adapters.remove(&path);
                    self.choose_adapter();
                }
                if interfaces.iter().any(|interface| interface == DEVICE)
                    && let Some(object) = self.objects.remove(&path)
                {
                    self.may_pair.set(&path, Bond::None);
                    self.publish(object.device);
                }
            }
            Change::Changed { path, interface, properties } => match interface.as_str() {
                ADAPTER => self.adapter_changed(&path, &properties),
                DEVICE => self.device_changed(&path, &properties),
                _ => {}
            },
        }
    }

    fn owner_changed(&mut self, owner: Option<String>) {
        let running = owner.is_some();
        self.adapter.send_modify(|state| state.asking = running);
        if owner == self.owner {
            return;
        }
        self.adapters.clear();
        self.objects.clear();
        self.may_pair.clear();
        self.adapter.send_modify(|state| {
            state.process += u64::from(running);
            (state.running, state.refused) = (running, None);
        });
        self.owner = owner;
        self.choose_adapter();
    }

    fn adapter_added(&mut self, path: &str, properties: &Properties) {
        let address = text(properties, "Address").and_then(|text| text.parse().ok());
        let powered = flag(properties, "Powered").unwrap_or(false);
        self.adapters.insert(path.to_owned(), Adapter { address, powered });
        self.choose_adapter();
    }

    fn adapter_changed(&mut self, path: &str, properties: &Properties) {
        if let (Some(adapter), Some(powered)) = (self.adapters.get_mut(path), flag(properties, "Powered")) {
            adapter.powered = powered;
            self.choose_adapter();
        }
    }

    fn choose_adapter(&mut self) {
        let fits = |adapter: &Adapter| self.wanted.adapter.is_none_or(|wanted| adapter.address == Some(wanted));
        let current = self.adapter.borrow().path.clone().filter(|path| self.adapters.contains_key(path));
        let chosen = current.or_else(|| self.adapters.iter().find(|(_, a)| fits(a)).map(|(path, _)| path.clone()));
        let powered = chosen.as_ref().is_some_and(|path| self.adapters[path].powered);
        let moved = self.adapter.send_if_modified(|state| {
            let before = (state.path.clone(), state.powered);
            let broke = before.0.is_some() && before.1 && (chosen != before.0 || !powered);
            state.outages += u64::from(broke);
            (state.path, state.powered) = (chosen.clone(), powered);
            before != (chosen, powered)
        });
        if moved {
            self.wanted.devices.clone().into_iter().for_each(|device| self.publish(device));
        }
    }

    /// Only configured devices are kept; the phones of the ward pass by.
    fn device_changed(&mut self, path: &str, properties: &Properties) {
        let address: Option<DeviceId> = text(properties, "Address").and_then(|text| text.parse().ok());
        // A device with a private address shows its identity address once it is bonded.
        if let Some(device) = address.filter(|device| self.devices.contains_key(device))
            && !self.objects.contains_key(path)
        {
            self.objects.insert(path.to_owned(), Object { device, connected: false, resolved: false, paired: false });
        }
        let Some(object) = self.objects.get_mut(path) else { return };
        object.connected = flag(properties, "Connected").unwrap_or(object.connected);
        object.resolved = flag(properties, "ServicesResolved").unwrap_or(object.resolved);
        object.paired = flag(properties, "Paired").unwrap_or(object.paired);
        let (device, paired) = (object.device, object.paired);
        // One that has a bond has no business to pair: should it have lost its own, a person decides.
        let how = self.wanted.pairing.get(&device).copied().filter(|_| !paired).unwrap_or_default();
        self.may_pair.set(path, how);
        self.publish(device);
        let advertised = ["RSSI", "ManufacturerData", "ServiceData"].iter().any(|name| properties.contains_key(*name));
        if advertised {
            self.devices[&device].send_if_modified(|state| {
                let here = state.path.as_deref() == Some(path);
                state.heard += u64::from(here);
                here
            });
        }
    }

    fn publish(&self, device: DeviceId) {
        let adapter = self.adapter.borrow().path.clone();
        let below = adapter.map(|path| path + "/");
        let on_adapter = |path: &str| below.as_ref().is_some_and(|below| path.starts_with(below.as_str()));
        let found = self.objects.iter().find(|(path, object)| object.device == device && on_adapter(path));
        self.devices[&device].send_if_modified(|state| {
            let mut next = DeviceState { losses: state.losses, breaks: state.breaks, heard: state.heard, ..Default::default() };
            if let Some((path, object)) = found {
                next.path = Some(path.clone());
                (next.connected, next.resolved, next.paired) = (object.connected, object.resolved, object.paired);
            }
            next.losses += u64::from(state.path.is_some() && next.path != state.path);
            next.breaks += u64::from(state.connected && !next.connected);
            let differs = next != *state;
            *state = next;
            differs
        });
    }
}

pub fn text<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    properties.get(name)?.downcast_ref::<&str>().ok()
}

pub fn flag(properties: &Properties, name: &str) -> Option<bool> {
    properties.get(name)?.downcast_ref::<bool>().ok()
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    const STRAP: DeviceId = DeviceId::new([0xC0, 0xFF, 0xEE, 0, 0, 1]);
    const STRAP_PATH: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";

    fn properties(list: &[(&str, Variant<'_>)]) -> Properties {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.try_to_owned().unwrap())).collect()
    }

    fn added(path: &str, interface: &str, list: &[(&str, Variant<'_>)]) -> Change {
        Change::Added { path: path.to_owned(), interfaces: [(interface.to_owned(), properties(list))].into() }
    }

    fn changed(path: &str, list: &[(&str, Variant<'_>)]) -> Change {
        Change::Changed { path: path.to_owned(), interface: DEVICE.to_owned(), properties: properties(list) }
    }

    fn adapter(hci: &str, address: &str) -> Change {
        added(&format!("/org/bluez/{hci}"), ADAPTER, &[("Address", address.into()), ("Powered", true.into())])
    }

    fn strap(path: &str) -> Change {
        added(path, DEVICE, &[("Address", "C0:FF:EE:00:00:01".into()), ("RSSI", (-60i16).into())])
    }

    fn world(adapter: Option<DeviceId>, may_pair: &MayPair) -> World {
        let mut world =
            World::new(Wanted { adapter, devices: vec![STRAP], pairing: [(STRAP, Bond::JustWorks)].into() }, may_pair.clone());
        world.apply(Change::Owner(Some(":1.5".to_owned())));
        world
    }

    #[test]
    fn a_link_that_came_and_went_between_two_looks_is_counted() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        world.apply(strap(STRAP_PATH));
        let state = world.watch_device(STRAP);
        let before = state.borrow().clone();
        assert_eq!((before.path.as_deref(), before.heard), (Some(STRAP_PATH), 1));
        for up in [true, false, true] {
            world.apply(changed(STRAP_PATH, &[("Connected", up.into())]));
        }
        assert_eq!((state.borrow().connected, state.borrow().breaks), (true, before.breaks + 1));
        world.apply(Change::Removed { path: STRAP_PATH.to_owned(), interfaces: vec![DEVICE.to_owned()] });
        world.apply(strap(STRAP_PATH));
        assert_eq!((state.borrow().losses, state.borrow().breaks), (before.losses + 1, before.breaks + 2));
    }

    #[test]
    fn devices_nobody_configured_pass_by() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        let state = world.watch_device(STRAP);
        for n in 0..100u8 {
            let path = format!("/org/bluez/hci0/dev_AA_AA_AA_AA_AA_{n:02X}");
            world.apply(added(&path, DEVICE, &[("Address", format!("AA:AA:AA:AA:AA:{n:02X}").into())]));
            world.apply(changed(&path, &[("RSSI", (-70i16).into())]));
        }
        assert!(world.objects.is_empty() && state.borrow().path.is_none());
    }

    #[test]
    fn the_adapter_is_chosen_by_address_and_a_device_counts_on_it_alone() {
        let wanted = DeviceId::new([0, 0x11, 0x22, 0x33, 0x44, 0x55]);
        let mut world = world(Some(wanted), &MayPair::default());
        let (adapter_state, device) = (world.watch_adapter(), world.watch_device(STRAP));
        world.apply(adapter("hci0", "66:66:66:66:66:66"));
        world.apply(strap(STRAP_PATH));
        assert_eq!((adapter_state.borrow().path.clone(), device.borrow().path.clone()), (None, None));
        world.apply(adapter("hci1", "00:11:22:33:44:55"));
        let on_it = STRAP_PATH.replace("hci0", "hci1");
        world.apply(strap(&on_it));
        assert_eq!(adapter_state.borrow().path.as_deref(), Some("/org/bluez/hci1"));
        assert_eq!(device.borrow().path.as_ref(), Some(&on_it));
        world.apply(Change::Removed { path: "/org/bluez/hci1".to_owned(), interfaces: vec![ADAPTER.to_owned()] });
        assert_eq!((adapter_state.borrow().outages, device.borrow().losses), (1, 1));
    }

    #[test]
    fn when_bluetoothd_ends_nothing_of_it_is_left() {
        let may_pair = MayPair::default();
        let mut world = world(None, &may_pair);
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        world.apply(strap(STRAP_PATH));
        world.apply(changed(STRAP_PATH, &[("Connected", true.into())]));
        assert_eq!(may_pair.how(STRAP_PATH), Bond::JustWorks);
        world.apply(Change::Owner(None));
        let (adapter_state, device) = (world.watch_adapter().borrow().clone(), world.watch_device(STRAP).borrow().clone());
        assert!(!adapter_state.running && adapter_state.path.is_none());
        assert_eq!(may_pair.how(STRAP_PATH), Bond::None);
        assert_eq!((device.path, device.connected, device.losses, device.breaks), (None, false, 1, 1));
    }

    #[test]
    fn a_device_that_has_a_bond_may_not_pair_again() {
        let may_pair = MayPair::default();
        let mut world = world(None, &may_pair);
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        world.apply(strap(STRAP_PATH));
        world.apply(changed(STRAP_PATH, &[("Paired", true.into())]));
        assert_eq!(may_pair.how(STRAP_PATH), Bond::None);
        world.apply(changed(STRAP_PATH, &[("Paired", false.into())]));
        assert_eq!(may_pair.how(STRAP_PATH), Bond::JustWorks);
    }

    #[test]
    fn a_private_address_is_recognised_once_it_shows_its_identity() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        let path = "/org/bluez/hci0/dev_5A_00_00_00_00_01";
        world.apply(added(path, DEVICE, &[("Address", "5A:00:00:00:00:01".into())]));
        let state = world.watch_device(STRAP);
        assert_eq!(state.borrow().path, None);
        world.apply(changed(path, &[("Address", "C0:FF:EE:00:00:01".into())]));
        assert_eq!(state.borrow().path.as_deref(), Some(path));
    }
}
