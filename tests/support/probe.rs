//! A client of bluetoothd that writes down all it is told, in order and in words that do not depend on where it was told:
//! answers, signals and questions to its agent. What a fake and a real bluetoothd have to say alike.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::runtime::Runtime;
use uuid::Uuid;
use zbus::message::Type;
use zbus::{Connection, DynamicType, Message, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, interface};

use super::room::ADAPTER;

const BLUEZ: &str = "org.bluez";
const DEVICE: &str = "org.bluez.Device1";
const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
const AGENT: &str = "/probe/agent";
/// What is told of each object; everything else depends on the room.
/// One signal is one line.
const TOLD: [&str; 8] = ["Bonded", "Connected", "Discovering", "Notifying", "Paired", "Powered", "ServicesResolved", "Value"];

type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;

#[derive(Clone, Default)]
struct Transcript(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    /// Device names by the end of their object path.
    names: BTreeMap<String, String>,
    /// What was asked, by serial number.
    asked: HashMap<NonZeroU32, String>,
    /// What characteristics are, by object path.
    uuids: HashMap<String, String>,
    last: Option<Instant>,
}

pub struct Probe {
    runtime: Runtime,
    connection: Connection,
    transcript: Transcript,
}

impl Probe {
    /// `devices` are (name in the transcript, address).
    pub fn connect(bus: &str, devices: &[(&str, &str)]) -> Self {
        let transcript = Transcript::default();
        for (name, address) in devices {
            transcript.lock().names.insert(format!("dev_{}", address.replace(':', "_")), (*name).to_owned());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let agent = Agent { transcript: transcript.clone() };
        let (bus, written) = (bus.to_owned(), transcript.clone());
        let connect = async move {
            let mut builder = zbus::connection::Builder::address(bus.as_str()).serve_at(AGENT, agent);
            if bus.starts_with("tcp:") {
                // Whoever forwards it is root at the other end.
                builder = builder.auth_mechanism(zbus::conn::AuthMechanism::External).user_id(0);
            }
            let connection = builder.build().await?;
            let stream = MessageStream::from(&connection);
            for rule in ["type='signal',sender='org.bluez'", "type='signal',member='NameOwnerChanged',arg0='org.bluez'"] {
                let bus = "org.freedesktop.DBus";
                connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "AddMatch", &rule).await?;
            }
            tokio::spawn(async move {
                let mut stream = stream;
                while let Some(Ok(message)) = stream.next().await {
                    written.take(&message);
                }
            });
            zbus::Result::Ok(connection)
        };
        let connection = runtime.block_on(connect).expect("the bus lets a client in");
        Self { runtime, connection, transcript }
    }

    /// What was written since it was last asked, once that `is_it`, or nothing was for `limit`; and then what comes in `quiet`.
    pub fn lines(&self, is_it: impl Fn(&[String]) -> bool, limit: Duration, quiet: Duration) -> Vec<String> {
        let asked = Instant::now();
        loop {
            let (are_there, since) = {
                let written = self.transcript.lock();
                let last = written.last.unwrap_or(asked).max(asked);
                (is_it(&written.lines), last.elapsed())
            };
            if are_there || since >= limit {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Time for what should not come.
        std::thread::sleep(quiet);
        std::mem::take(&mut self.transcript.lock().lines)
    }

    pub fn adapter(&self, method: &'static str) {
        self.ask(method.to_owned(), &adapter_path(), "org.bluez.Adapter1", method, &());
    }

    pub fn set_filter(&self) {
        let filter: HashMap<&str, Variant<'_>> = [("Transport", Variant::from("le"))].into();
        self.ask("SetDiscoveryFilter".to_owned(), &adapter_path(), "org.bluez.Adapter1", "SetDiscoveryFilter", &(filter,));
    }

    pub fn set_powered(&self, on: bool) {
        let body = ("org.bluez.Adapter1", "Powered", Variant::from(on));
        self.ask(format!("Powered={on}"), &adapter_path(), "org.freedesktop.DBus.Properties", "Set", &body);
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        let path = ObjectPath::try_from(path.as_str()).expect("a valid path");
        self.ask(format!("RemoveDevice {name}"), &adapter_path(), "org.bluez.Adapter1", "RemoveDevice", &(path,));
    }

    pub fn device(&self, name: &str, method: &'static str) {
        self.ask(format!("{method} {name}"), &self.path(name), DEVICE, method, &());
    }

    /// The first characteristic of that kind, wherever it is now.
    pub fn characteristic(&self, name: &str, uuid: Uuid, method: &'static str) {
        let below = format!("{}/", self.path(name));
        let wanted = uuid.to_string();
        let objects = self.objects();
        let is_it = |(path, interfaces): (&OwnedObjectPath, &HashMap<String, HashMap<String, OwnedVariant>>)| {
            let held = interfaces.get(CHARACTERISTIC)?.get("UUID")?.downcast_ref::<&str>().ok()?;
            (path.as_str().starts_with(&below) && held == wanted).then(|| path.to_string())
        };
        let Some(path) = objects.iter().find_map(is_it) else {
            self.transcript.write(format!("{method} {name}: there is no such characteristic"));
            return;
        };
        self.transcript.lock().uuids.insert(path.clone(), wanted);
        let label = format!("{method} {name}");
        match method {
            "ReadValue" => self.ask(label, &path, CHARACTERISTIC, method, &(HashMap::<&str, Variant<'_>>::new(),)),
            _ => self.ask(label, &path, CHARACTERISTIC, method, &()),
        }
    }

    pub fn register_agent(&self, capability: &'static str) {
        let path = ObjectPath::from_static_str_unchecked(AGENT);
        let manager = "org.bluez.AgentManager1";
        self.ask("RegisterAgent".to_owned(), "/org/bluez", manager, "RegisterAgent", &(&path, capability));
        self.ask("RequestDefaultAgent".to_owned(), "/org/bluez", manager, "RequestDefaultAgent", &(&path,));
    }

    fn path(&self, name: &str) -> String {
        let end = self.transcript.lock().names.iter().find(|(_, held)| *held == name).map(|(end, _)| end.clone());
        format!("{}/{}", adapter_path(), end.expect("a device of this scenario"))
    }

    fn objects(&self) -> Objects {
        let manager = "org.freedesktop.DBus.ObjectManager";
        let asked = self.connection.call_method(Some(BLUEZ), "/", Some(manager), "GetManagedObjects", &());
        let answer = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), asked).await });
        answer.ok().and_then(Result::ok).and_then(|answer| answer.body().deserialize().ok()).unwrap_or_default()
    }

    /// The answer is written when it comes.
    fn ask<B: serde::Serialize + DynamicType>(&self, label: String, path: &str, interface: &str, method: &str, body: &B) {
        let call = Message::method_call(path, method).destination(BLUEZ).interface(interface).build(body).expect("a call");
        self.transcript.lock().asked.insert(call.primary_header().serial_num(), label);
        self.runtime.block_on(self.connection.send(&call)).expect("the bus is there");
    }
}

impl Transcript {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Services and what is in them come and go together.
    fn write(&self, line: String) {
        let mut written = self.lock();
        written.last = Some(Instant::now());
        if written.lines.last() != Some(&line) || !line.contains("services") {
            written.lines.push(line);
        }
    }

    fn take(&self, message: &Message) {
        match message.message_type() {
            Type::Signal => self.signal(message),
            Type::MethodReturn | Type::Error => {
                let header = message.header();
                let Some(label) = header.reply_serial().and_then(|serial| self.lock().asked.remove(&serial)) else { return };
                let body = message.body();
                let said = match message.message_type() {
                    Type::Error => {
                        let text: String = body.deserialize().unwrap_or_default();
                        let name = header.error_name().map(|name| name.as_str().to_owned()).unwrap_or_default();
                        format!("{} ({})", name.rsplit('.').next().unwrap_or_default(), text.trim())
                    }
                    _ => match body.deserialize::<Vec<u8>>() {
                        Ok(octets) => hex(&octets),
                        Err(_) => "ok".to_owned(),
                    },
                };
                self.write(format!("{label}: {said}"));
            }
            Type::MethodCall => {}
        }
    }

    fn signal(&self, message: &Message) {
        let (header, body) = (message.header(), message.body());
        let member = header.member().map(|member| member.as_str().to_owned()).unwrap_or_default();
        match member.as_str() {
            "NameOwnerChanged" => {
                let Ok((_, _, owner)) = body.deserialize::<(String, String, String)>() else { return };
                self.write(format!("bluetoothd is {}", if owner.is_empty() { "gone" } else { "there" }));
            }
            "InterfacesAdded" => {
                type Added = (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>);
                let Ok((path, interfaces)) = body.deserialize::<Added>() else { return };
                self.came_or_went(path.as_str(), interfaces.keys().map(String::as_str).collect(), "added");
            }
            "InterfacesRemoved" => {
                let Ok((path, interfaces)) = body.deserialize::<(OwnedObjectPath, Vec<String>)>() else { return };
                self.came_or_went(path.as_str(), interfaces.iter().map(String::as_str).collect(), "removed");
            }
            "PropertiesChanged" => {
                let path = header.path().map(|path| path.to_string()).unwrap_or_default();
                let changed = body.deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>();
                let (Some(name), Ok((_, properties, _))) = (self.name(&path), changed) else { return };
                let mut told = Vec::new();
                for property in TOLD.iter().filter(|property| properties.contains_key(**property)) {
                    let value = &properties[*property];
                    match (value.downcast_ref::<bool>(), Vec::<u8>::try_from(value.clone())) {
                        (Ok(flag), _) => told.push(format!("{property}={flag}")),
                        (_, Ok(octets)) => told.push(format!("{property}={}", hex(&octets))),
                        _ => {}
                    }
                }
                if !told.is_empty() {
                    self.write(format!("{name} {}", told.join(" ")));
                }
            }
            _ => {}
        }
    }

    fn came_or_went(&self, path: &str, interfaces: Vec<&str>, what: &str) {
        let Some(name) = self.name(path) else { return };
        let has = |interface: &str| interfaces.contains(&interface);
        if has("org.bluez.Adapter1") || has(DEVICE) {
            self.write(format!("{name} {what}"));
        } else if interfaces.iter().any(|interface| interface.starts_with("org.bluez.Gatt")) && path.contains("/dev_") {
            self.write(format!("{name} services {what}"));
        }
    }

    /// `adapter`, or the device that the object is or belongs to.
    fn name(&self, path: &str) -> Option<String> {
        let mut parts = path.strip_prefix("/org/bluez/")?.split('/');
        let hci = parts.next()?;
        match parts.next() {
            Some(device) => self.lock().names.get(device).cloned(),
            None => hci.starts_with("hci").then(|| "adapter".to_owned()),
        }
    }
}

/// Says yes to every device of the scenario, and to a passkey 123456.
struct Agent {
    transcript: Transcript,
}

impl Agent {
    fn asked(&self, what: &str, device: &ObjectPath<'_>) {
        let name = self.transcript.name(device.as_str()).unwrap_or_default();
        self.transcript.write(format!("{what} {name}?"));
    }
}

#[interface(name = "org.bluez.Agent1")]
impl Agent {
    fn release(&self) {}

    fn cancel(&self) {
        self.transcript.write("Cancel".to_owned());
    }

    fn request_authorization(&self, device: ObjectPath<'_>) {
        self.asked("RequestAuthorization", &device);
    }

    fn authorize_service(&self, device: ObjectPath<'_>, _uuid: String) {
        self.asked("AuthorizeService", &device);
    }

    fn request_confirmation(&self, device: ObjectPath<'_>, _passkey: u32) {
        self.asked("RequestConfirmation", &device);
    }

    fn request_passkey(&self, device: ObjectPath<'_>) -> u32 {
        self.asked("RequestPasskey", &device);
        123_456
    }
}

fn adapter_path() -> String {
    format!("/org/bluez/{ADAPTER}")
}

fn hex(octets: &[u8]) -> String {
    let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    if text.is_empty() { "nothing".to_owned() } else { text }
}
