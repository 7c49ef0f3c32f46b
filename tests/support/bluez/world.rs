//! The state of the fake and every change to it. Changes and their signals happen under one lock, so clients see them in
//! one order, as from the single-threaded bluetoothd.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use zbus::{Message, ObjectPath, OwnedVariant, Variant};

use super::spec::{AdapterSpec, BluezError, DeviceSpec, uuid16};

pub const ADAPTER: &str = "org.bluez.Adapter1";
pub const DEVICE: &str = "org.bluez.Device1";
pub const SERVICE: &str = "org.bluez.GattService1";
pub const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
pub const DESCRIPTOR: &str = "org.bluez.GattDescriptor1";
pub const BATTERY: &str = "org.bluez.Battery1";
pub const AGENT_MANAGER: &str = "org.bluez.AgentManager1";
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

pub type Properties = BTreeMap<String, OwnedVariant>;
pub type Interfaces = BTreeMap<String, Properties>;
/// What a device tells when something is written to it.
pub type Answering = Arc<dyn Fn(&[u8]) -> Vec<(Uuid, Vec<u8>)> + Send + Sync>;
pub type LiveValue = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// A method call somebody made, for assertions.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    pub path: String,
    pub member: String,
    pub sender: String,
    /// What was given with it, for the calls where that matters.
    pub detail: String,
}

pub struct Agent {
    pub sender: String,
    pub path: String,
    pub capability: String,
}

pub struct Device {
    pub spec: DeviceSpec,
    pub hci: String,
    /// The address in its object path: the one it was first heard under.
    pub shown: String,
    /// The private addresses it had so far; the last is the one it advertises under.
    pub privates: u8,
    /// What it advertised beside its services: BlueZ keeps the last of each source.
    pub service_data: BTreeMap<Uuid, Vec<u8>>,
    pub manufacturer_data: BTreeMap<u16, Vec<u8>>,
    pub in_range: bool,
    pub rssi: i16,
    pub paired: bool,
    pub trusted: bool,
    /// Somebody called Connect or Pair: known again after bluetoothd restarts [ran, 5.66: device.c takes `temporary` off].
    pub stored: bool,
    /// The first handle its attributes were last seen under.
    pub exported: Option<u16>,
    /// A Connect that has no answer yet; sending an error into it cancels it.
    pub connecting: Option<oneshot::Sender<BluezError>>,
    /// Counts links, so that a late step of an old one does not touch the next.
    pub link: u64,
    pub live_values: BTreeMap<Uuid, LiveValue>,
    pub answering: BTreeMap<Uuid, Answering>,
}

/// Part of an advertisement.
pub enum Data {
    Service(Uuid, Vec<u8>),
    Company(u16, Vec<u8>),
}

impl Device {
    fn data(&self) -> Properties {
        let service = |(uuid, octets): (&Uuid, &Vec<u8>)| (uuid.to_string(), Variant::from(octets.clone()));
        let company = |(id, octets): (&u16, &Vec<u8>)| (*id, Variant::from(octets.clone()));
        let services: HashMap<String, Variant<'_>> = self.service_data.iter().map(service).collect();
        let companies: HashMap<u16, Variant<'_>> = self.manufacturer_data.iter().map(company).collect();
        let mut data = Properties::new();
        if !services.is_empty() {
            data.insert("ServiceData".to_owned(), variant(services));
        }
        if !companies.is_empty() {
            data.insert("ManufacturerData".to_owned(), variant(companies));
        }
        data
    }
}

#[derive(Default)]
pub struct World {
    pub tree: BTreeMap<String, Interfaces>,
    pub adapters: BTreeMap<String, AdapterSpec>,
    pub devices: BTreeMap<String, Device>,
    /// Whose the private addresses are.
    pub privates: BTreeMap<String, String>,
    /// Clients with a notify session, by characteristic path.
    pub notifying: BTreeMap<String, BTreeSet<String>>,
    /// Clients with a discovery session, by adapter path.
    pub discovering: BTreeMap<String, BTreeSet<String>>,
    pub filters: Vec<String>,
    /// Every advertisement is told, and not only what changed.
    pub every_advert: bool,
    pub agents: Vec<Agent>,
    pub calls: Vec<Call>,
    pub outbox: Option<mpsc::UnboundedSender<Message>>,
    later: Vec<Change>,
    /// Adapters that an orderly end left without power.
    pub switched_off: BTreeSet<String>,
}

type Change = Box<dyn FnOnce(&mut World) + Send>;

pub fn variant<'a>(value: impl Into<Variant<'a>>) -> OwnedVariant {
    value.into().try_to_owned().expect("no file descriptors in it")
}

fn path_variant(path: &str) -> OwnedVariant {
    variant(object_path(path))
}

pub fn object_path(path: &str) -> ObjectPath<'_> {
    ObjectPath::try_from(path).expect("the fake makes valid paths")
}

pub fn adapter_path(hci: &str) -> String {
    format!("/org/bluez/{hci}")
}

/// device.c `device_create`: the address with underscores under the adapter's path.
pub fn device_path(hci: &str, address: &str) -> String {
    format!("/org/bluez/{hci}/dev_{}", address.replace(':', "_"))
}

/// A resolvable private address of a device: its two highest bits are 01 (Core Specification, Vol 6, Part B, 1.3.2.2).
fn private_address(address: &str, number: u8) -> String {
    format!("5{:X}{}", number % 16, &address[2..])
}

/// The address in a path of a device or of anything below it.
fn address_in(path: &str) -> Option<String> {
    let rest = path.split("/dev_").nth(1)?;
    Some(rest.split('/').next()?.replace('_', ":"))
}

pub fn properties<const N: usize>(list: [(&str, OwnedVariant); N]) -> Properties {
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl World {
    pub fn send(&self, message: zbus::Result<Message>) {
        if let Some(outbox) = &self.outbox {
            // A connection that is going away reads no more; then nobody hears the signal.
            let _ = outbox.send(message.expect("the fake builds valid messages"));
        }
    }

    pub fn property(&self, path: &str, interface: &str, name: &str) -> Option<&OwnedVariant> {
        self.tree.get(path)?.get(interface)?.get(name)
    }

    pub fn is(&self, path: &str, interface: &str, name: &str) -> bool {
        matches!(self.property(path, interface, name).map(|v| bool::try_from(v.clone())), Some(Ok(true)))
    }

    pub fn set<const N: usize>(&mut self, path: &str, interface: &str, values: [(&str, OwnedVariant); N]) {
        let Some(held) = self.tree.get_mut(path).and_then(|o| o.get_mut(interface)) else { return };
        let values = properties(values);
        held.extend(values.clone());
        self.changed(path, interface, &values);
    }

    pub fn changed(&self, path: &str, interface: &str, values: &Properties) {
        let body = (interface, values, Vec::<String>::new());
        self.send(Message::signal(path, PROPERTIES, "PropertiesChanged").build(&body));
    }

    /// gdbus/object.c: an object and its interfaces are announced on `/`.
    pub fn add_interfaces(&mut self, path: &str, interfaces: Interfaces) {
        let body = (object_path(path), &interfaces);
        self.send(Message::signal("/", OBJECT_MANAGER, "InterfacesAdded").build(&body));
        self.tree.entry(path.to_owned()).or_default().extend(interfaces);
    }

    pub fn remove_tree(&mut self, root: &str) {
        let below = format!("{root}/");
        let paths: Vec<String> = self.tree.keys().filter(|p| *p == root || p.starts_with(&below)).cloned().collect();
        for path in paths.iter().rev() {
            let interfaces: Vec<String> = self.tree.remove(path).unwrap_or_default().into_keys().collect();
            self.notifying.remove(path);
            let body = (object_path(path), interfaces);
            self.send(Message::signal("/", OBJECT_MANAGER, "InterfacesRemoved").build(&body));
        }
    }

    pub fn of_adapter(&self, hci: &str) -> Vec<String> {
        self.devices.iter().filter(|(_, device)| device.hci == hci).map(|(address, _)| address.clone()).collect()
    }

    /// What is told after the answer to the call that is being answered.
    pub fn later(&mut self, change: impl FnOnce(&mut World) + Send + 'static) {
        self.later.push(Box::new(change));
    }

    pub fn after_the_answer(&mut self) {
        for change in std::mem::take(&mut self.later) {
            change(self);
        }
    }

    pub fn path(&self, address: &str) -> Option<String> {
        self.devices.get(address).map(|device| device_path(&device.hci, &device.shown))
    }

    /// Whose object, or what below it, is at this path: by its own address.
    pub fn address_of(&self, path: &str) -> Option<String> {
        let shown = address_in(path)?;
        Some(self.privates.get(&shown).cloned().unwrap_or(shown))
    }

    /// Nobody who is not bonded with it knows the next private address for its own: BlueZ makes another object of it.
    pub fn rotate(&mut self, address: &str) {
        let Some(device) = self.devices.get_mut(address).filter(|device| device.spec.privacy) else { return };
        device.privates += 1;
        let private = private_address(address, device.privates);
        if !device.paired {
            device.shown.clone_from(&private);
        }
        self.privates.insert(private, address.to_owned());
    }

    /// Without a bond it is nobody again.
    pub fn unknown_again(&mut self, address: &str) {
        if let Some(device) = self.devices.get_mut(address).filter(|device| device.spec.privacy) {
            device.shown = private_address(address, device.privates);
        }
    }

    /// device.c device_update_addr: the object stays where it is and shows who it is.
    pub fn identified(&mut self, address: &str) {
        let (Some(path), Some(device)) = (self.path(address), self.devices.get(address)) else { return };
        if device.spec.privacy {
            self.set(&path, DEVICE, [("Address", variant(address)), ("AddressType", variant("random"))]);
        }
    }

    pub fn device_is(&self, address: &str, name: &str) -> bool {
        self.path(address).is_some_and(|path| self.is(&path, DEVICE, name))
    }

    /// adapter.c btd_adapter_device_found: a device object appears with its first advertisement during discovery; RSSI is
    /// reported only then.
    pub fn heard(&mut self, address: &str) {
        let Some(device) = self.devices.get(address) else { return };
        let (path, rssi, adapter) = (device_path(&device.hci, &device.shown), device.rssi, adapter_path(&device.hci));
        if !device.in_range || !self.is(&adapter, ADAPTER, "Discovering") || self.device_is(address, "Connected") {
            return;
        }
        if self.tree.contains_key(&path) {
            self.set(&path, DEVICE, [("RSSI", variant(rssi))]);
        } else {
            self.show_device(address, Some(rssi));
        }
    }

    /// device.c device_set_service_data, device_set_manufacturer_data: told whole, with what was heard before.
    pub fn heard_with(&mut self, address: &str, data: Data) {
        let every_advert = self.every_advert;
        let Some(device) = self.devices.get_mut(address).filter(|device| device.in_range) else { return };
        let (path, adapter, rssi) = (device_path(&device.hci, &device.shown), adapter_path(&device.hci), device.rssi);
        let (name, changed) = match data {
            Data::Service(uuid, octets) => ("ServiceData", device.service_data.insert(uuid, octets.clone()) != Some(octets)),
            Data::Company(id, octets) => {
                ("ManufacturerData", device.manufacturer_data.insert(id, octets.clone()) != Some(octets))
            }
        };
        if !self.is(&adapter, ADAPTER, "Discovering") || self.device_is(address, "Connected") {
            return;
        }
        if !self.tree.contains_key(&path) {
            return self.show_device(address, Some(rssi));
        }
        if changed || every_advert {
            let value = self.devices[address].data().remove(name).expect("it has some now");
            self.set(&path, DEVICE, [("RSSI", variant(rssi)), (name, value)]);
        }
    }

    pub fn show_device(&mut self, address: &str, rssi: Option<i16>) {
        let Some(device) = self.devices.get(address) else { return };
        let spec = &device.spec;
        let uuids: Vec<String> = spec.advertised.iter().map(Uuid::to_string).collect();
        let mut held = properties([
            ("Address", variant(device.shown.as_str())),
            ("AddressType", variant(if spec.random_address { "random" } else { "public" })),
            ("Name", variant(spec.name.as_str())),
            ("Alias", variant(spec.name.as_str())),
            ("Paired", variant(device.paired)),
            ("Bonded", variant(device.paired)),
            ("Trusted", variant(device.trusted)),
            ("Blocked", variant(false)),
            ("LegacyPairing", variant(false)),
            ("Connected", variant(false)),
            ("ServicesResolved", variant(false)),
            ("UUIDs", variant(uuids)),
            ("Adapter", path_variant(&adapter_path(&device.hci))),
        ]);
        held.extend(rssi.map(|rssi| ("RSSI".to_owned(), variant(rssi))));
        held.extend(device.data());
        let path = device_path(&device.hci, &device.shown);
        self.add_interfaces(&path, [(DEVICE.to_owned(), held)].into());
    }

    pub fn link_up(&mut self, address: &str) -> u64 {
        let Some(path) = self.path(address) else { return 0 };
        let device = self.devices.get_mut(address).expect("it has a path");
        device.link += 1;
        let link = device.link;
        self.set(&path, DEVICE, [("Connected", variant(true))]);
        link
    }

    /// Attributes and notify sessions outlive the link: main.conf `Cache=always`, gatt-client.c
    /// btd_gatt_client_disconnected only clears the ATT registrations.
    pub fn link_down(&mut self, address: &str) {
        let Some(path) = self.path(address).filter(|path| self.is(path, DEVICE, "Connected")) else { return };
        self.devices.get_mut(address).expect("it has a path").link += 1;
        // [ran, 5.66] Together, when gdbus is idle.
        if self.is(&path, DEVICE, "ServicesResolved") {
            self.set(&path, DEVICE, [("ServicesResolved", variant(false)), ("Connected", variant(false))]);
        } else {
            self.set(&path, DEVICE, [("Connected", variant(false))]);
        }
    }

    pub fn unresolve(&mut self, address: &str) {
        if let Some(path) = self.path(address).filter(|path| self.is(path, DEVICE, "ServicesResolved")) {
            self.set(&path, DEVICE, [("ServicesResolved", variant(false))]);
        }
    }

    pub fn cancel_connect(&mut self, address: &str) {
        if let Some(pending) = self.devices.get_mut(address).and_then(|device| device.connecting.take()) {
            // Measured on 5.66: the cancelled Connect answers with the BR/EDR text, also on LE.
            let _ = pending.send(("org.bluez.Error.Failed", "br-connection-canceled".to_owned()));
        }
    }

    /// gatt-client.c: services, characteristics and descriptors are exported, then ServicesResolved turns true.
    pub fn resolve(&mut self, address: &str, link: u64) {
        if self.awaits_services(address, link) {
            self.export_services(address);
            let path = self.path(address).expect("it is connected");
            self.set(&path, DEVICE, [("ServicesResolved", variant(true))]);
        }
    }

    /// The link is still the one that was made, and its services are not known.
    pub fn awaits_services(&self, address: &str, link: u64) -> bool {
        let this_link = self.devices.get(address).is_some_and(|device| device.link == link);
        this_link && self.device_is(address, "Connected") && !self.device_is(address, "ServicesResolved")
    }

    pub fn export_services(&mut self, address: &str) {
        let Some(device) = self.devices.get(address) else { return };
        let (root, spec) = (device_path(&device.hci, &device.shown), device.spec.clone());
        let mut handle = spec.behaviour.handle_base;
        // [ran, 5.66] What moved is noticed when the services are looked up.
        if self.devices.get_mut(address).and_then(|device| device.exported.replace(handle)).is_some_and(|held| held != handle) {
            self.forget_attributes(address);
        }
        for service in &spec.services {
            let service_path = format!("{root}/service{handle:04x}");
            handle += 1;
            let held = properties([
                ("UUID", variant(service.uuid.to_string())),
                ("Primary", variant(true)),
                ("Device", path_variant(&root)),
            ]);
            self.export(&service_path, SERVICE, held);
            for characteristic in &service.characteristics {
                let path = format!("{service_path}/char{handle:04x}");
                handle += 2;
                let flags: Vec<String> = characteristic.flags.iter().map(|flag| (*flag).to_owned()).collect();
                // Value stays away until one is known: gatt-client.c characteristic_value_exists.
                let held = properties([
                    ("UUID", variant(characteristic.uuid.to_string())),
                    ("Service", path_variant(&service_path)),
                    ("Flags", variant(flags)),
                    ("Notifying", variant(false)),
                    ("MTU", variant(247u16)),
                ]);
                self.export(&path, CHARACTERISTIC, held);
                if characteristic.flags.iter().any(|flag| matches!(*flag, "notify" | "indicate")) {
                    let held =
                        properties([("UUID", variant(uuid16(0x2902).to_string())), ("Characteristic", path_variant(&path))]);
                    self.export(&format!("{path}/desc{handle:04x}"), DESCRIPTOR, held);
                    handle += 1;
                }
            }
        }
        if let Some(percentage) = spec.battery {
            self.export(&root, BATTERY, properties([("Percentage", variant(percentage))]));
        }
        let uuids: Vec<String> = spec.services.iter().map(|service| service.uuid.to_string()).collect();
        self.set(&root, DEVICE, [("UUIDs", variant(uuids))]);
    }

    fn export(&mut self, path: &str, interface: &str, held: Properties) {
        if !self.tree.get(path).is_some_and(|object| object.contains_key(interface)) {
            self.add_interfaces(path, [(interface.to_owned(), held)].into());
        }
    }

    /// What a firmware update or a lost cache does: the objects go and come back under other handles.
    pub fn forget_attributes(&mut self, address: &str) {
        let Some(root) = self.path(address) else { return };
        let below = format!("{root}/service");
        let services: Vec<String> =
            self.tree.keys().filter(|p| p.starts_with(&below) && !p[below.len()..].contains('/')).cloned().collect();
        for service in services {
            self.remove_tree(&service);
        }
    }

    pub fn characteristic_path(&self, address: &str, uuid: Uuid) -> Option<String> {
        let below = format!("{}/", self.path(address)?);
        let text = uuid.to_string();
        let is_it = |object: &Interfaces| {
            let found = object.get(CHARACTERISTIC).and_then(|held| held.get("UUID"));
            found.is_some_and(|found| found.downcast_ref::<&str>().is_ok_and(|found| found == text))
        };
        self.tree.iter().find(|(path, object)| path.starts_with(&below) && is_it(object)).map(|(path, _)| path.clone())
    }

    /// gatt-client.c notify_cb: a notified value is a PropertiesChanged, also when it did not change, and only while a
    /// client has a session and the link is up.
    pub fn notify(&mut self, address: &str, uuid: Uuid, octets: &[u8]) -> bool {
        let listening = self.device_is(address, "ServicesResolved");
        let Some(path) = self.characteristic_path(address, uuid).filter(|_| listening) else { return false };
        if self.outbox.is_none() || self.notifying.get(&path).is_none_or(|clients| clients.is_empty()) {
            return false;
        }
        self.set(&path, CHARACTERISTIC, [("Value", variant(octets.to_vec()))]);
        true
    }

    /// A client that left the bus takes its sessions along, not the links: gatt-client.c notify_client_disconnect,
    /// adapter.c discovery_disconnect, agent.c agent_disconnect.
    pub fn client_left(&mut self, client: &str) {
        let ended: Vec<String> =
            self.notifying.iter_mut().filter_map(|(path, clients)| clients.remove(client).then(|| path.clone())).collect();
        for path in ended {
            if self.notifying[&path].is_empty() {
                self.set(&path, CHARACTERISTIC, [("Notifying", variant(false))]);
            }
        }
        let adapters: Vec<String> = self.discovering.keys().cloned().collect();
        for adapter in adapters {
            self.stop_discovery(&adapter, client);
        }
        self.agents.retain(|agent| agent.sender != client);
    }

    pub fn stop_discovery(&mut self, adapter: &str, client: &str) -> bool {
        let Some(clients) = self.discovering.get_mut(adapter) else { return false };
        let was_there = clients.remove(client);
        if was_there && clients.is_empty() {
            self.set(adapter, ADAPTER, [("Discovering", variant(false))]);
        }
        was_there
    }

    /// What is left when the process is gone: the kernel drops the links, agents and sessions are forgotten.
    pub fn process_ended(&mut self) {
        self.outbox = None;
        self.tree.clear();
        self.notifying.clear();
        self.discovering.clear();
        self.agents.clear();
        self.later.clear();
        for device in self.devices.values_mut() {
            device.connecting = None;
            device.link += 1;
        }
    }
}
