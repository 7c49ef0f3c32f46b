//! What BlueZ says there is: its own presence, adapters, and the links of configured devices, folded from one ordered
//! stream of D-Bus messages into states that others watch. A state is overwritten, never queued, so a slow reader costs
//! nothing; what must not be missed between two looks is counted.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::watch;
use zbus::OwnedVariant;

use super::adverts::parts;
use super::agent::MayPair;
use super::bluez::{ADAPTER, DEVICE};
use super::bond::Bond;
use super::place::{Bonds, Held, Place, choose};
use crate::gatt::Source;
use crate::reading::DeviceId;

pub type Properties = HashMap<String, OwnedVariant>;
pub type Interfaces = HashMap<String, Properties>;

/// BlueZ and its adapters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterState {
    /// Counts bluetoothd processes seen; agents and scans belong to one.
    pub process: u64,
    pub running: bool,
    /// Nothing is known yet of a bluetoothd that may be there.
    pub asking: bool,
    /// Why BlueZ could not be asked, though it runs.
    pub refused: Option<String>,
    /// What is plugged in, by object path.
    pub adapters: BTreeMap<String, Adapter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    pub address: Option<DeviceId>,
    pub powered: bool,
    /// Some device may use it.
    pub wanted: bool,
    /// Which time it is that it has power: a scan does not live through an outage.
    pub epoch: u64,
}

impl AdapterState {
    /// Those that have power and are for us, by object path.
    pub fn usable(&self) -> impl Iterator<Item = (&String, &Adapter)> {
        self.adapters.iter().filter(|(_, adapter)| adapter.wanted && adapter.powered)
    }
}

impl Default for AdapterState {
    fn default() -> Self {
        Self { process: 0, running: false, asking: true, refused: None, adapters: BTreeMap::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// Its object path at the adapter through which it is reached, while BlueZ knows it there.
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
    /// The adapter that has its bond, while that is not there or has no power.
    pub bond_away: Option<DeviceId>,
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
    /// All that is to be known of a device now, asked for.
    Known {
        path: String,
        properties: Properties,
    },
}

/// What follows from a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// This object turned out to be a configured device long after it appeared: how it does has to be asked.
    AskKnown { path: String },
    /// A device that is read by its advertisements was heard where it is read.
    Advertised { device: DeviceId, source: Source, octets: Vec<u8> },
}

pub struct Wanted {
    /// In the order in which devices go on from one to the next; none: all there are.
    pub adapters: Vec<DeviceId>,
    /// Devices that are reached through one adapter alone.
    pub pins: BTreeMap<DeviceId, DeviceId>,
    pub devices: Vec<DeviceId>,
    /// How those of them that may pair do.
    pub pairing: BTreeMap<DeviceId, Bond>,
    pub bonds: Bonds,
    /// What is taken of the advertisements of those that are read by them.
    pub adverts: BTreeMap<DeviceId, Vec<Source>>,
}

/// The fold. It does no I/O; `listen` feeds it.
pub struct World {
    wanted: Wanted,
    may_pair: MayPair,
    held: Held,
    owner: Option<String>,
    epochs: u64,
    objects: BTreeMap<String, Object>,
    adapter: watch::Sender<AdapterState>,
    devices: BTreeMap<DeviceId, watch::Sender<DeviceState>>,
    effects: Vec<Effect>,
}

/// A configured device as one adapter knows it.
struct Object {
    device: DeviceId,
    connected: bool,
    resolved: bool,
    paired: bool,
    /// How often it was heard at other adapters since it was heard at this one.
    unheard: u32,
}

impl World {
    pub fn new(wanted: Wanted, may_pair: MayPair, held: Held) -> Self {
        let devices = wanted.devices.iter().map(|id| (*id, watch::Sender::default())).collect();
        Self {
            wanted,
            may_pair,
            held,
            owner: None,
            epochs: 0,
            objects: BTreeMap::new(),
            adapter: watch::Sender::default(),
            devices,
            effects: Vec::new(),
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

    pub fn apply(&mut self, change: Change) -> Vec<Effect> {
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
                    self.adapters_changed(|adapters| adapters.retain(|known, _| *known != path));
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
                DEVICE => {
                    let known = self.objects.contains_key(&path);
                    self.device_changed(&path, &properties);
                    if !known && self.objects.contains_key(&path) {
                        self.effects.push(Effect::AskKnown { path });
                    }
                }
                _ => {}
            },
            Change::Known { path, properties } => {
                if let Some(device) = self.link_changed(&path, &properties) {
                    self.publish(device);
                }
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn owner_changed(&mut self, owner: Option<String>) {
        let running = owner.is_some();
        self.adapter.send_modify(|state| state.asking = running);
        if owner == self.owner {
            return;
        }
        self.objects.clear();
        self.may_pair.clear();
        self.adapter.send_modify(|state| {
            state.process += u64::from(running);
            (state.running, state.refused) = (running, None);
        });
        self.owner = owner;
        self.adapters_changed(BTreeMap::clear);
    }

    fn adapter_added(&mut self, path: &str, properties: &Properties) {
        let address = text(properties, "Address").and_then(|text| text.parse().ok());
        let powered = flag(properties, "Powered").unwrap_or(false);
        let wanted = match self.wanted.devices.as_slice() {
            // Somebody may want to know which there are.
            [] => self.listens_on(address),
            devices => devices.iter().any(|device| self.may_use(*device, address)),
        };
        let adapter = Adapter { address, powered, wanted, epoch: self.next_epoch() };
        self.adapters_changed(|adapters| adapters.extend([(path.to_owned(), adapter)]));
    }

    fn adapter_changed(&mut self, path: &str, properties: &Properties) {
        let Some(powered) = flag(properties, "Powered") else { return };
        let epoch = self.next_epoch();
        self.adapters_changed(|adapters| {
            if let Some(adapter) = adapters.get_mut(path).filter(|adapter| adapter.powered != powered) {
                (adapter.powered, adapter.epoch) = (powered, epoch);
            }
        });
    }

    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.epochs
    }

    fn adapters_changed(&mut self, change: impl FnOnce(&mut BTreeMap<String, Adapter>)) {
        let changed = self.adapter.send_if_modified(|state| {
            let before = state.adapters.clone();
            change(&mut state.adapters);
            before != state.adapters
        });
        if changed {
            self.wanted.devices.clone().into_iter().for_each(|device| self.publish(device));
        }
    }

    fn may_use(&self, device: DeviceId, adapter: Option<DeviceId>) -> bool {
        match (self.wanted.pins.get(&device), adapter) {
            (Some(pin), address) => address == Some(*pin),
            (None, address) => self.listens_on(address),
        }
    }

    fn listens_on(&self, adapter: Option<DeviceId>) -> bool {
        let named = &self.wanted.adapters;
        named.is_empty() || adapter.is_some_and(|address| named.contains(&address))
    }

    /// A device that has a bond with one adapter is paired with no other by itself.
    fn may_bond(&self, device: DeviceId, adapter: Option<DeviceId>) -> bool {
        self.wanted.pins.contains_key(&device) || self.wanted.bonds.of(device).is_none_or(|has| adapter == Some(has))
    }

    fn bond_away(&self, device: DeviceId) -> Option<DeviceId> {
        let has = self.wanted.bonds.of(device).filter(|_| !self.wanted.pins.contains_key(&device))?;
        let state = self.adapter.borrow();
        let works = |adapter: &Adapter| adapter.address == Some(has) && adapter.powered;
        (!state.adapters.is_empty() && !state.adapters.values().any(works)).then_some(has)
    }

    fn adapter_of(&self, path: &str) -> Option<DeviceId> {
        self.adapter.borrow().adapters.get(path.rsplit_once('/')?.0)?.address
    }

    /// The object through which the device is reached.
    fn place(&self, device: DeviceId) -> Option<String> {
        let state = self.adapter.borrow();
        let order = self.order(device, &state.adapters);
        let places = self.objects.iter().filter(|(_, object)| object.device == device).filter_map(|(path, object)| {
            let adapter = state.adapters.get(path.rsplit_once('/')?.0)?;
            let may_use = self.may_use(device, adapter.address) && (object.paired || self.may_bond(device, adapter.address));
            may_use.then(|| Place {
                path,
                powered: adapter.powered,
                connected: object.connected,
                paired: object.paired,
                unheard: object.unheard,
                order: order.iter().position(|address| Some(*address) == adapter.address).unwrap_or(order.len()),
            })
        });
        let current = self.devices[&device].borrow().path.clone();
        choose(places, current.as_deref(), self.held.contains(device)).map(str::to_owned)
    }

    /// The adapters from the device's own on: they are dealt out in turn.
    fn order(&self, device: DeviceId, adapters: &BTreeMap<String, Adapter>) -> Vec<DeviceId> {
        let mut order = self.wanted.adapters.clone();
        if order.is_empty() {
            order = adapters.values().filter_map(|adapter| adapter.address).collect();
            order.sort_unstable();
        }
        let place = self.wanted.devices.iter().position(|known| *known == device).unwrap_or_default();
        let own = place % order.len().max(1);
        order.rotate_left(own);
        order
    }

    /// Only configured devices are kept; the phones of the ward pass by.
    fn device_changed(&mut self, path: &str, properties: &Properties) {
        let address: Option<DeviceId> = text(properties, "Address").and_then(|text| text.parse().ok());
        // A device with a private address shows its identity address once it is bonded.
        if let Some(device) = address.filter(|device| self.devices.contains_key(device))
            && !self.objects.contains_key(path)
        {
            let object = Object { device, connected: false, resolved: false, paired: false, unheard: 0 };
            self.objects.insert(path.to_owned(), object);
        }
        let Some(device) = self.link_changed(path, properties) else { return };
        let advertised = ["RSSI", "ManufacturerData", "ServiceData"].iter().any(|name| properties.contains_key(*name));
        if advertised {
            for (place, object) in self.objects.iter_mut().filter(|(_, object)| object.device == device) {
                object.unheard = if place == path { 0 } else { object.unheard.saturating_add(1) };
            }
        }
        self.publish(device);
        if advertised {
            let here = self.devices[&device].send_if_modified(|state| {
                let here = state.path.as_deref() == Some(path);
                state.heard += u64::from(here);
                here
            });
            // Two adapters hear the same, one of them later.
            let wanted = self.wanted.adverts.get(&device).filter(|_| here);
            let parts = parts(properties, wanted.map_or(&[], Vec::as_slice));
            self.effects.extend(parts.into_iter().map(|(source, octets)| Effect::Advertised { device, source, octets }));
        }
    }

    fn link_changed(&mut self, path: &str, properties: &Properties) -> Option<DeviceId> {
        let object = self.objects.get_mut(path)?;
        object.connected = flag(properties, "Connected").unwrap_or(object.connected);
        object.resolved = flag(properties, "ServicesResolved").unwrap_or(object.resolved);
        object.paired = flag(properties, "Paired").unwrap_or(object.paired);
        let (device, paired) = (object.device, object.paired);
        // One that has a bond has no business to pair: should it have lost its own, a person decides.
        let may_pair = !paired && self.may_bond(device, self.adapter_of(path));
        let how = self.wanted.pairing.get(&device).copied().filter(|_| may_pair).unwrap_or_default();
        self.may_pair.set(path, how);
        Some(device)
    }

    fn publish(&self, device: DeviceId) {
        let found = self.place(device).and_then(|path| self.objects.get_key_value(&path));
        let bonds = self.wanted.pairing.get(&device).is_some_and(|bond| *bond != Bond::None);
        if let Some(adapter) = found.filter(|(_, object)| object.paired && bonds).and_then(|(path, _)| self.adapter_of(path)) {
            self.wanted.bonds.made(device, adapter);
        }
        let bond_away = self.bond_away(device);
        self.devices[&device].send_if_modified(|state| {
            let DeviceState { losses, breaks, heard, .. } = *state;
            let mut next = DeviceState { losses, breaks, heard, bond_away, ..Default::default() };
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
        let adapters = adapter.into_iter().collect();
        let wanted = Wanted {
            adapters,
            pins: BTreeMap::new(),
            devices: vec![STRAP],
            pairing: [(STRAP, Bond::JustWorks)].into(),
            adverts: [(STRAP, vec![Source::Manufacturer(1)])].into(),
            bonds: Bonds::default(),
        };
        let mut world = World::new(wanted, may_pair.clone(), Held::default());
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
        assert_eq!((adapter_state.borrow().usable().count(), device.borrow().path.clone()), (0, None));
        world.apply(adapter("hci1", "00:11:22:33:44:55"));
        let on_it = STRAP_PATH.replace("hci0", "hci1");
        world.apply(strap(&on_it));
        assert_eq!(adapter_state.borrow().usable().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["/org/bluez/hci1"]);
        assert_eq!(device.borrow().path.as_ref(), Some(&on_it));
        world.apply(Change::Removed { path: "/org/bluez/hci1".to_owned(), interfaces: vec![ADAPTER.to_owned()] });
        assert_eq!((adapter_state.borrow().usable().count(), device.borrow().losses), (0, 1));
    }

    #[test]
    fn a_device_goes_on_to_the_next_adapter_and_comes_back_when_nothing_is_under_way() {
        let (mut world, held) = (world(None, &MayPair::default()), Held::default());
        world.held = held.clone();
        let (own, next) = ("00:11:22:33:44:55", "66:66:66:66:66:66");
        let elsewhere = STRAP_PATH.replace("hci0", "hci1");
        let state = world.watch_device(STRAP);
        let path = || state.borrow().path.clone();
        [adapter("hci0", own), adapter("hci1", next)].into_iter().for_each(|change| drop(world.apply(change)));
        world.apply(strap(&elsewhere));
        assert_eq!(path().as_deref(), Some(&elsewhere[..]), "where it was heard");
        held.set(STRAP, true);
        world.apply(strap(STRAP_PATH));
        assert_eq!(path().as_deref(), Some(&elsewhere[..]), "a link is made there");
        held.set(STRAP, false);
        world.apply(changed(STRAP_PATH, &[("RSSI", (-61i16).into())]));
        assert_eq!((path().as_deref(), state.borrow().losses), (Some(STRAP_PATH), 1), "its own adapter hears it");
        for n in 0..4 {
            world.apply(changed(&elsewhere, &[("RSSI", (-60i16 - n).into())]));
        }
        assert_eq!(path().as_deref(), Some(&elsewhere[..]), "its own does not hear it any more");
        world.apply(changed(STRAP_PATH, &[("RSSI", (-62i16).into())]));
        let off = Change::Changed {
            path: "/org/bluez/hci0".to_owned(),
            interface: ADAPTER.to_owned(),
            properties: properties(&[("Powered", false.into())]),
        };
        held.set(STRAP, true);
        world.apply(off);
        assert_eq!(path().as_deref(), Some(&elsewhere[..]), "whatever was under way ended with the power");
    }

    #[test]
    fn devices_are_dealt_out_to_the_adapters_and_a_pinned_one_knows_no_other() {
        let devices: Vec<DeviceId> = (1..=4).map(|n| DeviceId::new([0xC0, 0xFF, 0xEE, 0, 0, n])).collect();
        let [one, two] = ["00:11:22:33:44:55", "66:66:66:66:66:66"];
        let pins = [(devices[3], one.parse().unwrap())].into();
        let wanted = Wanted {
            adapters: vec![],
            pins,
            devices: devices.clone(),
            pairing: [].into(),
            bonds: Bonds::default(),
            adverts: [].into(),
        };
        let mut world = World::new(wanted, MayPair::default(), Held::default());
        world.apply(Change::Owner(Some(":1.5".to_owned())));
        [adapter("hci0", one), adapter("hci1", two)].into_iter().for_each(|change| drop(world.apply(change)));
        for (hci, n) in ["hci1", "hci0"].into_iter().flat_map(|hci| (1..=4).map(move |n| (hci, n))) {
            let path = format!("/org/bluez/{hci}/dev_C0_FF_EE_00_00_0{n}");
            world.apply(added(&path, DEVICE, &[("Address", format!("C0:FF:EE:00:00:0{n}").into()), ("RSSI", (-60i16).into())]));
        }
        let at = |world: &World| -> Vec<Option<String>> {
            let adapter = |path: String| path.split('/').nth(3).map(str::to_owned);
            devices.iter().map(|device| world.watch_device(*device).borrow().path.clone().and_then(adapter)).collect()
        };
        let hci = |n: u8| Some(format!("hci{n}"));
        assert_eq!(at(&world), [hci(0), hci(1), hci(0), hci(0)]);
        world.apply(Change::Removed { path: "/org/bluez/hci0".to_owned(), interfaces: vec![ADAPTER.to_owned()] });
        assert_eq!(at(&world), [hci(1), hci(1), hci(1), None]);
    }

    #[test]
    fn what_is_advertised_is_taken_of_who_is_read_by_it_and_at_one_adapter() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        world.apply(adapter("hci1", "66:66:66:66:66:66"));
        let data = |octets: &[u8]| Variant::from(HashMap::from([(1u16, Variant::from(octets.to_vec()))]));
        let heard = |path: &str, octets: &[u8]| changed(path, &[("ManufacturerData", data(octets))]);
        world.apply(strap(STRAP_PATH));
        let elsewhere = STRAP_PATH.replace("hci0", "hci1");
        world.apply(strap(&elsewhere));
        let taken = Effect::Advertised { device: STRAP, source: Source::Manufacturer(1), octets: vec![1, 0, 7] };
        assert_eq!(world.apply(heard(STRAP_PATH, &[7])), [taken]);
        assert_eq!(world.apply(heard(&elsewhere, &[7])), [], "the other adapter heard the same");
        assert_eq!(world.apply(heard("/org/bluez/hci0/dev_5A_00_00_00_00_01", &[7])), [], "a phone");
        assert_eq!(world.apply(changed(STRAP_PATH, &[("RSSI", (-60i16).into())])), []);
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
        assert!(!adapter_state.running && adapter_state.adapters.is_empty());
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
    fn a_device_that_has_a_bond_waits_for_its_adapter_and_is_paired_with_no_other() {
        let may_pair = MayPair::default();
        let (mut world, own, next) = (world(None, &may_pair), "00:11:22:33:44:55", "66:66:66:66:66:66");
        let elsewhere = STRAP_PATH.replace("hci0", "hci1");
        let state = world.watch_device(STRAP);
        let at = || (state.borrow().path.clone(), state.borrow().bond_away);
        [adapter("hci0", own), adapter("hci1", next), strap(STRAP_PATH)].into_iter().for_each(|change| drop(world.apply(change)));
        world.apply(changed(STRAP_PATH, &[("Paired", true.into())]));
        world.apply(strap(&elsewhere));
        assert_eq!((may_pair.how(&elsewhere), at()), (Bond::None, (Some(STRAP_PATH.to_owned()), None)));
        for interface in [DEVICE, ADAPTER] {
            let path = if interface == DEVICE { STRAP_PATH } else { "/org/bluez/hci0" };
            world.apply(Change::Removed { path: path.to_owned(), interfaces: vec![interface.to_owned()] });
        }
        world.apply(changed(&elsewhere, &[("RSSI", (-50i16).into())]));
        assert_eq!((may_pair.how(&elsewhere), at()), (Bond::None, (None, own.parse().ok())), "it is heard there, and waits");
        // After a restart it is known as well.
        assert_eq!(world.wanted.bonds.all(), [(STRAP, own.parse().unwrap())].into());
        world.wanted.bonds.forget(STRAP);
        world.apply(changed(&elsewhere, &[("RSSI", (-51i16).into())]));
        assert_eq!((may_pair.how(&elsewhere), at()), (Bond::JustWorks, (Some(elsewhere.clone()), None)), "a person said so");
    }

    #[test]
    fn a_private_address_is_recognised_once_it_shows_its_identity() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        let path = "/org/bluez/hci0/dev_5A_00_00_00_00_01";
        world.apply(added(path, DEVICE, &[("Address", "5A:00:00:00:00:01".into())]));
        let state = world.watch_device(STRAP);
        assert_eq!(state.borrow().path, None);
        // It was connected and bonded before it told who it is.
        world.apply(changed(path, &[("Connected", true.into())]));
        world.apply(changed(path, &[("Paired", true.into())]));
        let adopted = changed(path, &[("Address", "C0:FF:EE:00:00:01".into())]);
        assert_eq!(world.apply(adopted), [Effect::AskKnown { path: path.to_owned() }]);
        assert_eq!(state.borrow().path.as_deref(), Some(path));
        let (on, heard) = (true.into(), state.borrow().heard);
        let known = properties(&[("Connected", on), ("Paired", true.into()), ("RSSI", (-60i16).into())]);
        assert_eq!(world.apply(Change::Known { path: path.to_owned(), properties: known }), []);
        let known = state.borrow().clone();
        assert_eq!((known.connected, known.paired, known.heard), (true, true, heard), "what is remembered was not just heard");
        assert_eq!(world.apply(changed(path, &[("Address", "C0:FF:EE:00:00:01".into())])), [], "it is asked once");
    }

    #[test]
    fn what_is_known_of_an_object_that_went_meanwhile_is_of_nobody() {
        let mut world = world(None, &MayPair::default());
        world.apply(adapter("hci0", "00:11:22:33:44:55"));
        let known = properties(&[("Address", "C0:FF:EE:00:00:01".into()), ("Connected", true.into())]);
        world.apply(Change::Known { path: STRAP_PATH.to_owned(), properties: known });
        assert_eq!(world.watch_device(STRAP).borrow().path, None);
    }
}
