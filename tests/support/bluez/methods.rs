//! The `org.bluez` methods. Each answers as bluetoothd does; the function names in the comments are BlueZ's.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;
use zbus::{Connection, Message, OwnedObjectPath, OwnedVariant};

use super::bonding::{agent_manager, pair, secure};
use super::serve::{Shared, note, reply, reply_error};
use super::spec::{BluezError, CharacteristicSpec, Forgot, abort_by_local};
use super::world::*;

pub struct Call {
    pub path: String,
    pub interface: String,
    pub member: String,
    pub sender: String,
}

/// What a method gives back.
pub enum Answer {
    Nothing,
    Octets(Vec<u8>),
    /// No reply at all, ever.
    Silence,
}

pub type Outcome = Result<Answer, BluezError>;

pub const FAILED: &str = "org.bluez.Error.Failed";
const NOT_READY: &str = "org.bluez.Error.NotReady";
const IN_PROGRESS: &str = "org.bluez.Error.InProgress";
const NOT_PERMITTED: &str = "org.bluez.Error.NotPermitted";

/// The kernel gives up an LE connection attempt after this long (hci_core.h `HCI_LE_CONN_TIMEOUT`).
const KERNEL_CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a pending attempt looks whether its device came into range.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn error<T>(name: &'static str, text: &str) -> Result<T, BluezError> {
    Err((name, text.to_owned()))
}

pub async fn answer(connection: Connection, shared: Shared, call: Call, message: Message) {
    let outcome = run(&connection, &shared, &call, &message).await;
    let mut world = shared.lock();
    match outcome {
        Ok(Answer::Nothing) => reply(&world, &message, &()),
        Ok(Answer::Octets(octets)) => reply(&world, &message, &octets),
        Ok(Answer::Silence) => {}
        Err((name, text)) => reply_error(&world, &message, name, &text),
    }
    world.after_the_answer();
}

async fn run(connection: &Connection, shared: &Shared, call: &Call, message: &Message) -> Outcome {
    {
        let mut world = shared.lock();
        if !world.tree.get(&call.path).is_some_and(|object| object.contains_key(&call.interface)) {
            // The text gdbus gives for an object that is gone.
            let text =
                format!("Method \"{}\" with signature \"\" on interface \"{}\" doesn't exist", call.member, call.interface);
            return error("org.freedesktop.DBus.Error.UnknownObject", &text);
        }
        note(&mut world, &call.path, &call.member, &call.sender, detail(message, &call.member));
        let device = world.address_of(&call.path).and_then(|address| world.devices.get(&address));
        if device.is_some_and(|device| device.spec.behaviour.never_answers.contains(call.member.as_str())) {
            return Ok(Answer::Silence);
        }
    }
    match (call.interface.as_str(), call.member.as_str()) {
        (ADAPTER, member) => adapter(&mut shared.lock(), call, member, message),
        (DEVICE, "Connect") => connect(shared, call).await,
        (DEVICE, "Disconnect") => disconnect(shared, call).await,
        (DEVICE, "Pair") => pair(connection, shared, call).await,
        (DEVICE, "CancelPairing") => Ok(Answer::Nothing),
        (CHARACTERISTIC, "WriteValue") => write(&mut shared.lock(), call, message),
        (CHARACTERISTIC, "StopNotify") => stop_notify(&mut shared.lock(), call),
        (CHARACTERISTIC, member) => characteristic(connection, shared, call, member).await,
        (DESCRIPTOR, "ReadValue") => Ok(Answer::Octets(vec![1, 0])),
        (AGENT_MANAGER, member) => agent_manager(&mut shared.lock(), call, member, message),
        _ => error("org.freedesktop.DBus.Error.UnknownMethod", &call.member),
    }
}

fn detail(message: &Message, member: &str) -> String {
    let body = message.body();
    match member {
        "WriteValue" => match body.deserialize::<(Vec<u8>, HashMap<String, OwnedVariant>)>() {
            Ok((octets, _)) => octets.iter().map(|octet| format!("{octet:02x}")).collect(),
            Err(_) => String::new(),
        },
        "SetDiscoveryFilter" => {
            let filter: HashMap<String, OwnedVariant> = body.deserialize().unwrap_or_default();
            let mut parts: Vec<String> = filter.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            parts.sort();
            parts.join(" ")
        }
        "RegisterAgent" => body.deserialize::<(OwnedObjectPath, String)>().map(|(_, capability)| capability).unwrap_or_default(),
        "RemoveDevice" => body.deserialize::<OwnedObjectPath>().map(|path| path.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// adapter.c
fn adapter(world: &mut World, call: &Call, member: &str, message: &Message) -> Outcome {
    if matches!(member, "SetDiscoveryFilter" | "StartDiscovery" | "StopDiscovery") && !world.is(&call.path, ADAPTER, "Powered") {
        return error(NOT_READY, "Resource Not Ready");
    }
    match member {
        "SetDiscoveryFilter" => {
            let filter: HashMap<String, OwnedVariant> = message.body().deserialize().unwrap_or_default();
            let every_advert = filter.get("DuplicateData").is_some_and(|value| matches!(value.downcast_ref::<bool>(), Ok(true)));
            world.every_advert = every_advert;
            world.filters.push(detail(message, member));
        }
        "StartDiscovery" => {
            let refused = world.adapters.get_mut(last(&call.path)).and_then(|spec| spec.scan_errors.pop_front());
            if let Some(refused) = refused {
                return Err(refused);
            }
            let new = world.discovering.entry(call.path.clone()).or_default().insert(call.sender.clone());
            if !new {
                return error(IN_PROGRESS, "Operation already in progress");
            }
            // [ran, 5.66] Answered first; gdbus tells of properties when it is idle.
            let path = call.path.clone();
            world.later(move |world| {
                world.set(&path, ADAPTER, [("Discovering", variant(true))]);
                world.of_adapter(last(&path)).iter().for_each(|address| world.heard(address));
            });
        }
        "StopDiscovery" => {
            if !world.discovering.get(&call.path).is_some_and(|clients| clients.contains(&call.sender)) {
                return error(FAILED, "No discovery started");
            }
            let (path, sender) = (call.path.clone(), call.sender.clone());
            world.later(move |world| {
                world.stop_discovery(&path, &sender);
            });
        }
        "RemoveDevice" => {
            let path = message.body().deserialize::<OwnedObjectPath>().map(|path| path.to_string()).unwrap_or_default();
            let Some(address) = world.address_of(&path).filter(|_| world.tree.contains_key(&path)) else {
                return error("org.bluez.Error.DoesNotExist", "Does Not Exist");
            };
            world.cancel_connect(&address);
            if let Some(device) = world.devices.get_mut(&address) {
                (device.paired, device.trusted, device.stored) = (false, false, false);
            }
            if world.is(&path, DEVICE, "Connected") {
                // [ran, 5.66] The object goes with its link, after the answer.
                world.unresolve(&address);
                world.later(move |world| {
                    world.link_down(&address);
                    world.remove_tree(&path);
                    world.unknown_again(&address);
                });
            } else {
                world.remove_tree(&path);
                world.unknown_again(&address);
            }
        }
        _ => return error("org.freedesktop.DBus.Error.UnknownMethod", member),
    }
    Ok(Answer::Nothing)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// device.c dev_connect, att_connect_cb: answered when the link is up, before the services are known.
async fn connect(shared: &Shared, call: &Call) -> Outcome {
    let address = shared.lock().address_of(&call.path).unwrap_or_default();
    let (behaviour, mut cancelled) = {
        let mut world = shared.lock();
        let adapter = world.devices.get(&address).map(|device| adapter_path(&device.hci)).unwrap_or_default();
        if !world.is(&adapter, ADAPTER, "Powered") {
            // [ran, 5.66] strerror of what the socket says; only the adapter's own methods say NotReady.
            return error(FAILED, "Input/output error");
        }
        let connected = world.is(&call.path, DEVICE, "Connected");
        let Some(device) = world.devices.get_mut(&address) else { return error(FAILED, "no such device") };
        if connected {
            return Ok(Answer::Nothing);
        }
        device.stored = true;
        if device.connecting.is_some() {
            // [ran, 5.66] strerror(EALREADY) of device_connect_le.
            return error(FAILED, "Operation already in progress");
        }
        if let Some(next) = device.spec.behaviour.connect_errors.pop_front() {
            return Err(next);
        }
        let (cancel, cancelled) = oneshot::channel();
        device.connecting = Some(cancel);
        (device.spec.behaviour.clone(), cancelled)
    };
    // The attempt goes on also when whoever asked has stopped waiting [ran: an orphan link came up 2 s later].
    let attempt = async {
        if behaviour.connect_hangs {
            std::future::pending::<()>().await;
        }
        sleep(behaviour.connect_delay).await;
        let deadline = Instant::now() + KERNEL_CONNECT_TIMEOUT;
        loop {
            if shared.lock().devices.get(&address).is_some_and(|device| device.in_range) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(abort_by_local());
            }
            sleep_until(deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = attempt => outcome,
        why = &mut cancelled => match why {
            Ok(why) => return Err(why),
            Err(_) => return Ok(Answer::Silence),
        },
    };
    let mut world = shared.lock();
    if let Some(device) = world.devices.get_mut(&address) {
        device.connecting = None;
    }
    outcome?;
    let link = world.link_up(&address);
    let shared = shared.clone();
    tokio::spawn(async move {
        let forgot = behaviour.forgot_bond == Some(Forgot::Drops) && shared.lock().devices[&address].paired;
        if let Some(after) = behaviour.drop_before_resolve.or(forgot.then_some(LOOK_EVERY)) {
            sleep(after).await;
            let mut world = shared.lock();
            if world.devices.get(&address).is_some_and(|device| device.link == link) {
                world.link_down(&address);
            }
            return;
        }
        sleep(behaviour.resolve_delay).await;
        shared.lock().resolve(&address, link);
    });
    Ok(Answer::Nothing)
}

/// device.c dev_disconnect: also ends a pending Connect, which is answered first.
async fn disconnect(shared: &Shared, call: &Call) -> Outcome {
    let address = shared.lock().address_of(&call.path).unwrap_or_default();
    shared.lock().cancel_connect(&address);
    tokio::task::yield_now().await;
    let delay = {
        let world = shared.lock();
        if !world.is(&call.path, DEVICE, "Connected") {
            // [ran, 5.66] Also when there was nothing to end.
            return Ok(Answer::Nothing);
        }
        world.devices.get(&address).map(|device| device.spec.behaviour.disconnect_delay).unwrap_or_default()
    };
    // [ran, 5.66] The services are gone at once, the link after the answer.
    shared.lock().unresolve(&address);
    sleep(delay).await;
    shared.lock().later(move |world| world.link_down(&address));
    Ok(Answer::Nothing)
}

/// gatt-client.c
async fn characteristic(connection: &Connection, shared: &Shared, call: &Call, member: &str) -> Outcome {
    let Some((address, spec)) = characteristic_of(&shared.lock(), &call.path) else { return error(FAILED, "no such value") };
    let connected = shared.lock().device_is(&address, "Connected");
    if connected && spec.encrypted && !shared.lock().devices[&address].paired {
        match secure(connection, shared, &address).await {
            Ok(true) => {}
            // [ran, 5.66] Without an agent the security request is refused and StartNotify is never answered.
            Ok(false) => return Ok(Answer::Silence),
            Err(_) if shared.lock().devices[&address].spec.behaviour.silent_when_refused => return Ok(Answer::Silence),
            Err(_) => return error(NOT_PERMITTED, "Insufficient authentication"),
        }
    }
    if connected && spec.encrypted && shared.lock().devices[&address].spec.behaviour.forgot_bond == Some(Forgot::Refuses) {
        return error(NOT_PERMITTED, "Insufficient authentication");
    }
    let mut world = shared.lock();
    let has = |flag: &str| spec.flags.contains(&flag);
    match member {
        "StartNotify" => {
            if !has("notify") && !has("indicate") {
                return error("org.bluez.Error.NotSupported", "Operation is not supported");
            }
            let new = world.notifying.entry(call.path.clone()).or_default().insert(call.sender.clone());
            // characteristic_start_notify: a second one is fine while connected; a first one while disconnected is kept
            // for the next link.
            match (new, connected) {
                (false, false) => return error(IN_PROGRESS, "In Progress"),
                (true, true) if !world.is(&call.path, CHARACTERISTIC, "Notifying") => {
                    world.set(&call.path, CHARACTERISTIC, [("Notifying", variant(true))]);
                }
                _ => {}
            }
            Ok(Answer::Nothing)
        }
        _ if !connected => error(FAILED, "Not connected"),
        "ReadValue" => {
            if !has("read") {
                return error(NOT_PERMITTED, "Read not permitted");
            }
            let live = world.devices[&address].live_values.get(&spec.uuid).cloned();
            let octets = live.map_or(spec.value, |value| value());
            // What is read is announced too, like a notification.
            world.set(&call.path, CHARACTERISTIC, [("Value", variant(octets.clone()))]);
            Ok(Answer::Octets(octets))
        }
        _ => error("org.freedesktop.DBus.Error.UnknownMethod", member),
    }
}

/// The device answers by itself, after BlueZ has.
fn write(world: &mut World, call: &Call, message: &Message) -> Outcome {
    let Some((address, spec)) = characteristic_of(world, &call.path) else { return error(FAILED, "no such value") };
    if !world.device_is(&address, "Connected") {
        return error(FAILED, "Not connected");
    }
    if !spec.flags.iter().any(|flag| flag.starts_with("write")) {
        return error(NOT_PERMITTED, "Write not permitted");
    }
    let answering = world.devices[&address].answering.get(&spec.uuid).cloned();
    let written = message.body().deserialize::<(Vec<u8>, HashMap<String, OwnedVariant>)>();
    if let (Some(answering), Ok((octets, _))) = (answering, written) {
        let told = answering(&octets);
        world.later(move |world| {
            for (uuid, octets) in told {
                world.notify(&address, uuid, &octets);
            }
        });
    }
    Ok(Answer::Nothing)
}

fn stop_notify(world: &mut World, call: &Call) -> Outcome {
    let clients = world.notifying.entry(call.path.clone()).or_default();
    if !clients.remove(&call.sender) {
        return error(FAILED, "No notify session started");
    }
    if clients.is_empty() {
        world.set(&call.path, CHARACTERISTIC, [("Notifying", variant(false))]);
    }
    Ok(Answer::Nothing)
}

fn characteristic_of(world: &World, path: &str) -> Option<(String, CharacteristicSpec)> {
    let address = world.address_of(path)?;
    let text = world.property(path, CHARACTERISTIC, "UUID")?.downcast_ref::<&str>().ok()?;
    let uuid: Uuid = text.parse().ok()?;
    let mut all = world.devices.get(&address)?.spec.services.iter().flat_map(|service| &service.characteristics);
    all.find(|spec| spec.uuid == uuid).cloned().map(|spec| (address, spec))
}
