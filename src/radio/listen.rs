//! Feeds the fold of `watch` from the bus. Everything, answers included, is taken from the one stream of the connection in
//! the order the bus sent it: an answer that lists all objects and the signals around it then cannot contradict each other.

use std::collections::HashMap;
use std::num::NonZeroU32;

use futures::StreamExt;
use zbus::message::Type;
use zbus::{DynamicType, Message, MessageStream, OwnedObjectPath};

use super::adverts::Air;
use super::bluez::{ADAPTER, BLUEZ, Bus, DEVICE, PROPERTIES, address};
use super::boot::boot_now;
use super::error::RadioError;
use super::event::Advertised;
use super::watch::{Change, Effect, Interfaces, Properties, World};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

/// All that is ever asked to be told: a handful of the 512 rules a connection may hold, for any number of devices.
fn rules() -> [String; 4] {
    let changed = |interface: &str| {
        format!("type='signal',sender='{BLUEZ}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{interface}'")
    };
    [
        format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{BLUEZ}'"),
        format!("type='signal',sender='{BLUEZ}',interface='{OBJECT_MANAGER}'"),
        changed(ADAPTER),
        changed(DEVICE),
    ]
}

/// What an answer is an answer to.
enum Asked {
    Rule,
    Owner,
    Objects {
        owner: String,
    },
    /// How one device does.
    Device {
        owner: String,
        path: String,
    },
}

pub struct Listener {
    bus: Bus,
    world: World,
    air: Air,
    asked: HashMap<NonZeroU32, Asked>,
}

impl Listener {
    pub fn new(bus: Bus, world: World, air: Air) -> Self {
        Self { bus, world, air, asked: HashMap::new() }
    }

    /// Runs until the bus goes away. It must never wait for an answer: the connection stands still while nobody reads.
    pub async fn run(mut self) -> Result<(), RadioError> {
        let mut messages = MessageStream::from(self.bus.connection());
        for rule in rules() {
            self.ask(Asked::Rule, BUS, BUS_PATH, BUS, "AddMatch", &rule).await?;
        }
        self.ask(Asked::Owner, BUS, BUS_PATH, BUS, "GetNameOwner", &BLUEZ).await?;
        while let Some(message) = messages.next().await {
            self.take(&message.map_err(lost)?).await?;
        }
        Err(lost("the connection was closed"))
    }

    async fn take(&mut self, message: &Message) -> Result<(), RadioError> {
        match message.message_type() {
            Type::Signal => self.signal(message).await,
            Type::MethodReturn | Type::Error => {
                let asked = message.header().reply_serial().and_then(|serial| self.asked.remove(&serial));
                match asked {
                    Some(asked) => self.answer(asked, message).await,
                    None => Ok(()),
                }
            }
            Type::MethodCall => Ok(()),
        }
    }

    async fn answer(&mut self, asked: Asked, message: &Message) -> Result<(), RadioError> {
        let body = message.body();
        let refused = (message.message_type() == Type::Error).then(|| {
            let text: String = body.deserialize().unwrap_or_default();
            format!("{}: {text}", message.header().error_name().map(|name| name.as_str()).unwrap_or_default())
        });
        match (asked, refused) {
            (Asked::Rule, Some(reason)) => Err(RadioError::Refused { address: address(), reason }),
            (Asked::Rule, None) => Ok(()),
            // It does not run yet; NameOwnerChanged will say when it does, unless it just did.
            (Asked::Owner, Some(_)) if self.world.owner().is_some() => Ok(()),
            (Asked::Owner, Some(_)) => self.owner(None).await,
            (Asked::Owner, None) => self.owner(body.deserialize::<String>().ok()).await,
            // That process ended before it answered.
            (Asked::Objects { owner }, _) if self.world.owner() != Some(&owner) => Ok(()),
            (Asked::Objects { .. }, Some(reason)) => {
                self.world.apply(Change::Refused(reason));
                Ok(())
            }
            (Asked::Objects { .. }, None) => {
                let objects: HashMap<OwnedObjectPath, Interfaces> = body.deserialize().unwrap_or_default();
                for (path, interfaces) in objects {
                    // How old an advertisement is that BlueZ remembers, nobody knows: it is not taken.
                    self.world.apply(Change::Added { path: path.to_string(), interfaces });
                }
                self.world.apply(Change::Listed);
                Ok(())
            }
            // It ended, or the device went, meanwhile.
            (Asked::Device { .. }, Some(_)) => Ok(()),
            (Asked::Device { owner, .. }, None) if self.world.owner() != Some(&owner) => Ok(()),
            (Asked::Device { path, .. }, None) => {
                let properties: Properties = body.deserialize().unwrap_or_default();
                self.world.apply(Change::Known { path, properties });
                Ok(())
            }
        }
    }

    async fn signal(&mut self, message: &Message) -> Result<(), RadioError> {
        let header = message.header();
        let (Some(sender), Some(member)) = (header.sender(), header.member()) else { return Ok(()) };
        let body = message.body();
        if sender.as_str() == BUS && member.as_str() == "NameOwnerChanged" {
            let Ok((name, _, owner)) = body.deserialize::<(String, String, String)>() else { return Ok(()) };
            let owner = Some(owner).filter(|owner| !owner.is_empty());
            return if name == BLUEZ { self.owner(owner).await } else { Ok(()) };
        }
        if self.world.owner() != Some(sender.as_str()) {
            return Ok(());
        }
        let change = match member.as_str() {
            "InterfacesAdded" => body
                .deserialize::<(OwnedObjectPath, Interfaces)>()
                .map(|(path, interfaces)| Change::Added { path: path.to_string(), interfaces }),
            "InterfacesRemoved" => body
                .deserialize::<(OwnedObjectPath, Vec<String>)>()
                .map(|(path, interfaces)| Change::Removed { path: path.to_string(), interfaces }),
            "PropertiesChanged" => {
                let path = header.path().map(|path| path.to_string()).unwrap_or_default();
                body.deserialize::<(String, Properties, Vec<String>)>().map(|(interface, properties, _)| Change::Changed {
                    path,
                    interface,
                    properties,
                })
            }
            _ => return Ok(()),
        };
        match change {
            Ok(change) => {
                for effect in self.world.apply(change) {
                    self.carry_out(effect, sender.as_str()).await?;
                }
            }
            Err(error) => tracing::debug!(%member, %error, "a signal of BlueZ could not be read"),
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect, owner: &str) -> Result<(), RadioError> {
        match effect {
            Effect::AskKnown { path } => {
                let asked = Asked::Device { owner: owner.to_owned(), path: path.clone() };
                self.ask(asked, BLUEZ, &path, PROPERTIES, "GetAll", &DEVICE).await
            }
            Effect::Advertised { device, source, octets } => {
                self.air.hand_on(Advertised { device, source, octets, arrived: boot_now() });
                Ok(())
            }
        }
    }

    async fn owner(&mut self, owner: Option<String>) -> Result<(), RadioError> {
        if owner.is_some() && owner.as_deref() == self.world.owner() {
            return Ok(());
        }
        self.world.apply(Change::Owner(owner.clone()));
        match owner {
            Some(owner) => self.ask(Asked::Objects { owner }, BLUEZ, "/", OBJECT_MANAGER, "GetManagedObjects", &()).await,
            None => Ok(()),
        }
    }

    async fn ask<B>(
        &mut self,
        asked: Asked,
        destination: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<(), RadioError>
    where
        B: serde::Serialize + DynamicType,
    {
        let call = Message::method_call(path, method)
            .destination(destination)
            .interface(interface)
            .build(body)
            .expect("the names are constants, and the paths BlueZ's own");
        self.asked.insert(call.primary_header().serial_num(), asked);
        self.bus.connection().send(&call).await.map_err(lost)
    }
}

fn lost(reason: impl ToString) -> RadioError {
    RadioError::BusLost { address: address(), reason: reason.to_string() }
}
