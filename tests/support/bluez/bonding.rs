//! Pairing, and the agents that are asked about it.

use tokio::time::sleep;
use zbus::{Connection, Message, OwnedObjectPath};

use super::methods::{Answer, Call, FAILED, LOOK_EVERY, Outcome, error};
use super::serve::Shared;
use super::spec::BluezError;
use super::world::{Agent, DEVICE, World, object_path, variant};

const AUTHENTICATION_FAILED: &str = "org.bluez.Error.AuthenticationFailed";

/// device.c pair_device; what is told in which order is [ran, 5.66].
pub async fn pair(connection: &Connection, shared: &Shared, call: &Call) -> Outcome {
    let address = shared.lock().address_of(&call.path).unwrap_or_default();
    let link = {
        let mut world = shared.lock();
        let Some(device) = world.devices.get_mut(&address) else { return error(FAILED, "no such device") };
        if device.paired {
            // It tries the other bearer then, BR/EDR, which none of these has.
            return error(AUTHENTICATION_FAILED, "Authentication Failed");
        }
        if !device.in_range {
            return error("org.bluez.Error.ConnectionAttemptFailed", "Page Timeout");
        }
        device.stored = true;
        if world.is(&call.path, DEVICE, "Connected") { world.devices[&address].link } else { world.link_up(&address) }
    };
    if has_passkey(shared, &address) {
        // While somebody reads the passkey, the services are looked up.
        let known = shared.clone();
        let resolve = || known.lock().resolve(&address, link);
        return match ask_agent(connection, shared, &address).await {
            Ok(true) => {
                resolve();
                bonded(&mut shared.lock(), &address);
                Ok(Answer::Nothing)
            }
            Ok(false) => error(AUTHENTICATION_FAILED, "Authentication Failed"),
            Err(why) => {
                // A wrong passkey also costs the link.
                shared.lock().later(move |world| world.link_down(&address));
                Err(why)
            }
        };
    }
    // An explicit Pair asks no agent for Just Works, but needs one to be there.
    let mut world = shared.lock();
    if world.agents.is_empty() {
        return error(AUTHENTICATION_FAILED, "Authentication Failed");
    }
    if let Some(device) = world.devices.get_mut(&address) {
        (device.paired, device.spec.behaviour.forgot_bond) = (true, None);
    }
    world.set(&call.path, DEVICE, [("Bonded", variant(true))]);
    if world.awaits_services(&address, link) {
        world.set(&call.path, DEVICE, [("Paired", variant(true)), ("ServicesResolved", variant(true))]);
        world.export_services(&address);
    } else {
        world.set(&call.path, DEVICE, [("Paired", variant(true))]);
    }
    world.identified(&address);
    Ok(Answer::Nothing)
}

fn has_passkey(shared: &Shared, address: &str) -> bool {
    shared.lock().devices.get(address).is_some_and(|device| device.spec.behaviour.passkey.is_some())
}

/// Bonds, if the agent says so; `Ok(false)` when there is none.
pub async fn secure(connection: &Connection, shared: &Shared, address: &str) -> Result<bool, BluezError> {
    let granted = ask_agent(connection, shared, address).await?;
    if granted {
        bonded(&mut shared.lock(), address);
    }
    Ok(granted)
}

/// Asks the newest agent (agent.c: the default one); `Ok(false)` when there is none.
async fn ask_agent(connection: &Connection, shared: &Shared, address: &str) -> Result<bool, BluezError> {
    let (agent, device, passkey) = {
        let world = shared.lock();
        let Some(agent) = world.agents.last().map(|agent| (agent.sender.clone(), agent.path.clone())) else { return Ok(false) };
        (agent, world.path(address).unwrap_or_default(), world.devices[address].spec.behaviour.passkey)
    };
    // What was told before has to leave before the question, which takes another way.
    sleep(LOOK_EVERY).await;
    let question = if passkey.is_some() { "RequestPasskey" } else { "RequestAuthorization" };
    let asked = connection
        .call_method(Some(agent.0.as_str()), agent.1.as_str(), Some("org.bluez.Agent1"), question, &object_path(&device))
        .await;
    let Ok(said) = asked else { return error("org.bluez.Error.AuthenticationRejected", "Authentication Rejected") };
    if passkey.is_some_and(|wanted| said.body().deserialize::<u32>().ok() != Some(wanted)) {
        return error(AUTHENTICATION_FAILED, "Authentication Failed");
    }
    Ok(true)
}

pub fn bonded(world: &mut World, address: &str) {
    let Some(path) = world.path(address) else { return };
    if let Some(device) = world.devices.get_mut(address) {
        (device.paired, device.spec.behaviour.forgot_bond) = (true, None);
    }
    world.set(&path, DEVICE, [("Paired", variant(true)), ("Bonded", variant(true))]);
    world.identified(address);
}

/// agent.c
pub fn agent_manager(world: &mut World, call: &Call, member: &str, message: &Message) -> Outcome {
    match member {
        "RegisterAgent" => {
            let (path, capability): (OwnedObjectPath, String) =
                message.body().deserialize().map_err(|e| ("org.bluez.Error.InvalidArguments", e.to_string()))?;
            if world.agents.iter().any(|agent| agent.sender == call.sender) {
                return error("org.bluez.Error.AlreadyExists", "Already Exists");
            }
            world.agents.push(Agent { sender: call.sender.clone(), path: path.to_string(), capability });
        }
        "UnregisterAgent" => world.agents.retain(|agent| agent.sender != call.sender),
        "RequestDefaultAgent" => {
            let Some(at) = world.agents.iter().position(|agent| agent.sender == call.sender) else {
                return error("org.bluez.Error.DoesNotExist", "Does Not Exist");
            };
            let agent = world.agents.remove(at);
            world.agents.push(agent);
        }
        _ => return error("org.freedesktop.DBus.Error.UnknownMethod", member),
    }
    Ok(Answer::Nothing)
}
