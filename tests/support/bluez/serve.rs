//! The process "bluetoothd": its connection to the bus, in a thread of its own, and the standard D-Bus interfaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use zbus::message::Type;
use zbus::wire::DynamicType;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use super::methods;
use super::world::{ADAPTER, AGENT_MANAGER, Call, DEVICE, Interfaces, OBJECT_MANAGER, PROPERTIES, World, adapter_path};

const NO_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";

/// What the handle and the connection share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Also after a panic elsewhere: a failing test must still be able to clean up.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub enum Ending {
    /// The connection closes without a word.
    Crash,
    /// Objects are removed and the name released first.
    Orderly,
}

pub struct Daemon {
    end: Option<oneshot::Sender<Ending>>,
    hang: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Returns when `org.bluez` is owned and the adapters are there.
    pub fn start(bus: &str, shared: &Shared) -> Self {
        let (end, ending) = oneshot::channel();
        let (hang, hung) = watch::channel(false);
        let (ready, is_ready) = std_mpsc::channel();
        let (bus, shared) = (bus.to_owned(), shared.clone());
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the fake");
            runtime.block_on(run(&bus, shared, ready, hung, ending));
        };
        let thread = std::thread::Builder::new().name("fake-bluez".to_owned()).spawn(body).expect("a thread for the fake");
        is_ready.recv().expect("the fake BlueZ could not own org.bluez on the private bus");
        Self { end: Some(end), hang, thread: Some(thread) }
    }

    pub fn hang(&self, on: bool) {
        self.hang.send_replace(on);
    }

    pub fn end(&mut self, how: Ending) {
        if let Some(end) = self.end.take() {
            let _ = end.send(how);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    bus: &str,
    shared: Shared,
    ready: std_mpsc::Sender<()>,
    mut hung: watch::Receiver<bool>,
    mut ending: oneshot::Receiver<Ending>,
) {
    let connection = zbus::connection::Builder::address(bus).build().await.expect("the fake connects to the private bus");
    let mut stream = MessageStream::from(&connection);
    let rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'";
    let matched = connection
        .call_method(Some("org.freedesktop.DBus"), "/org/freedesktop/DBus", Some("org.freedesktop.DBus"), "AddMatch", &rule)
        .await;
    matched.expect("the bus takes a match rule");
    let (outbox, mut signals) = mpsc::unbounded_channel();
    {
        let mut world = shared.lock();
        world.outbox = Some(outbox);
        world.tree.insert("/org/bluez".to_owned(), [(AGENT_MANAGER.to_owned(), Default::default())].into());
    }
    connection.request_name("org.bluez").await.expect("org.bluez is free on the private bus");
    {
        let mut world = shared.lock();
        let adapters: Vec<String> = world.adapters.keys().cloned().collect();
        for hci in adapters {
            world.plug_adapter(&hci);
        }
    }
    let _ = ready.send(());
    let how = loop {
        if *hung.borrow_and_update() {
            // A stopped process neither reads nor writes; what was asked of it is answered when it goes on.
            tokio::select! {
                how = &mut ending => break how,
                _ = hung.changed() => continue,
            }
        }
        tokio::select! {
            how = &mut ending => break how,
            Ok(()) = hung.changed() => {}
            Some(signal) = signals.recv() => { let _ = connection.send(&signal).await; }
            Some(Ok(message)) = stream.next() => handle(&connection, &shared, message),
        }
    };
    if let Ok(Ending::Orderly) = how {
        {
            let mut world = shared.lock();
            let adapters: Vec<String> = world.adapters.keys().cloned().collect();
            adapters.iter().for_each(|hci| world.take_leave(hci));
        }
        while let Ok(signal) = signals.try_recv() {
            let _ = connection.send(&signal).await;
        }
        let _ = connection.release_name("org.bluez").await;
    }
    shared.lock().process_ended();
    let _ = connection.close().await;
}

fn handle(connection: &Connection, shared: &Shared, message: Message) {
    if message.message_type() == Type::Signal {
        if let Ok((name, _, new_owner)) = message.body().deserialize::<(String, String, String)>()
            && name.starts_with(':')
            && new_owner.is_empty()
        {
            shared.lock().client_left(&name);
        }
        return;
    }
    if message.message_type() != Type::MethodCall {
        return;
    }
    let header = message.header();
    let text = |part: Option<String>| part.unwrap_or_default();
    let path = text(header.path().map(|p| p.to_string()));
    let interface = text(header.interface().map(|i| i.to_string()));
    let member = text(header.member().map(|m| m.to_string()));
    let sender = text(header.sender().map(|s| s.to_string()));
    let mut world = shared.lock();
    match (interface.as_str(), member.as_str()) {
        ("org.freedesktop.DBus.Peer", "Ping") => reply(&world, &message, &()),
        ("org.freedesktop.DBus.Introspectable", "Introspect") => reply(&world, &message, &introspect(&world, &path)),
        (OBJECT_MANAGER, "GetManagedObjects") => {
            let owned = |path: &String| OwnedObjectPath::try_from(path.as_str()).expect("the fake makes valid paths");
            let objects: HashMap<OwnedObjectPath, &Interfaces> = world.tree.iter().map(|(p, o)| (owned(p), o)).collect();
            reply(&world, &message, &objects);
        }
        (PROPERTIES, "GetAll") => {
            let wanted: String = message.body().deserialize().unwrap_or_default();
            note(&mut world, &path, &member, &sender, wanted.clone());
            match world.tree.get(&path).and_then(|object| object.get(&wanted)) {
                Some(held) => reply(&world, &message, held),
                None => reply_error(&world, &message, NO_OBJECT, "no such object"),
            }
        }
        (PROPERTIES, "Get") => {
            let (wanted, name): (String, String) = message.body().deserialize().unwrap_or_default();
            match world.property(&path, &wanted, &name) {
                Some(value) => reply(&world, &message, value),
                None if !world.tree.contains_key(&path) => reply_error(&world, &message, NO_OBJECT, "no such object"),
                None => reply_error(&world, &message, "org.freedesktop.DBus.Error.InvalidArgs", "no such property"),
            }
        }
        (PROPERTIES, "Set") => set_property(&mut world, &message, &path, &sender),
        _ => {
            let call = methods::Call { path, interface, member, sender };
            tokio::spawn(methods::answer(connection.clone(), shared.clone(), call, message.clone()));
        }
    }
}

/// adapter.c and device.c: what their property tables let a client set, of what a gateway might want.
fn set_property(world: &mut World, message: &Message, path: &str, sender: &str) {
    let body = message.body();
    let Ok((interface, name, value)) = body.deserialize::<(String, String, OwnedVariant)>() else {
        return reply_error(world, message, "org.freedesktop.DBus.Error.InvalidArgs", "Set takes interface, name, value");
    };
    note(world, path, "Set", sender, format!("{name}={value:?}"));
    let flag = bool::try_from(value.clone());
    let last = path.rsplit('/').next().unwrap_or_default().to_owned();
    match (interface.as_str(), name.as_str(), flag) {
        (ADAPTER, "Powered", Ok(on)) => world.set_powered(&last, on),
        (ADAPTER, "Alias" | "Discoverable" | "Pairable", _) => world.set(path, ADAPTER, [(&name, value)]),
        (DEVICE, "Trusted", Ok(on)) => {
            let address = world.address_of(path).unwrap_or_default();
            if let Some(device) = world.devices.get_mut(&address) {
                device.trusted = on;
            }
            world.set(path, DEVICE, [(&name, value)]);
        }
        (DEVICE, "Alias" | "Blocked", _) => world.set(path, DEVICE, [(&name, value)]),
        _ => return reply_error(world, message, "org.freedesktop.DBus.Error.PropertyReadOnly", "property is not writable"),
    }
    reply(world, message, &());
    world.after_the_answer();
}

pub fn note(world: &mut World, path: &str, member: &str, sender: &str, detail: String) {
    let call = Call { at: Instant::now(), path: path.into(), member: member.into(), sender: sender.into(), detail };
    world.calls.push(call);
}

pub fn reply<B: serde::Serialize + DynamicType>(world: &World, call: &Message, body: &B) {
    world.send(Message::method_return(&call.header()).build(body));
}

pub fn reply_error(world: &World, call: &Message, name: &str, text: &str) {
    world.send(Message::error(&call.header(), name).build(&text));
}

/// bluez-async finds services and characteristics by introspection: node and interface names are all it reads.
fn introspect(world: &World, path: &str) -> String {
    let mut xml = String::from("<node>");
    for interface in world.tree.get(path).into_iter().flat_map(|object| object.keys()) {
        xml += &format!("<interface name=\"{interface}\"/>");
    }
    let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    let children: BTreeSet<&str> =
        world.tree.keys().filter_map(|p| p.strip_prefix(&below)).filter_map(|rest| rest.split('/').next()).collect();
    for child in children {
        xml += &format!("<node name=\"{child}\"/>");
    }
    xml + "</node>"
}
