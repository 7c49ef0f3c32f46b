//! Our own connection to the system bus, and what is asked of BlueZ over it: what btleplug has no call for, or a call that
//! cannot be given up. Every call is answered or ends by a time limit; properties are never cached.

use std::collections::HashMap;
use std::time::Duration;

use zbus::{Connection, DynamicType, Message, ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::agent::{AGENT_PATH, Agent};
use super::error::RadioError;
use super::watch::Interfaces;

pub const BLUEZ: &str = "org.bluez";
pub const ADAPTER: &str = "org.bluez.Adapter1";
pub const DEVICE: &str = "org.bluez.Device1";
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const STATS: &str = "org.freedesktop.DBus.Debug.Stats";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const AGENT_MANAGER: &str = "org.bluez.AgentManager1";

/// A bluetoothd that does not answer for this long is hung. libdbus gives btleplug's calls the same.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Discovery and agent calls are answered from bluetoothd's memory.
const SHORT_LIMIT: Duration = Duration::from_secs(5);
/// A system bus carries some dozens of connections; with more, those beyond are not looked at.
const MAX_CONNECTIONS: usize = 256;
const ADDRESS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";
const DEFAULT_ADDRESS: &str = "unix:path=/run/dbus/system_bus_socket";

#[derive(Clone, Debug)]
pub struct Bus {
    connection: Connection,
}

/// What BlueZ or the bus said no with.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name}: {text}")]
pub struct CallError {
    pub name: String,
    pub text: String,
}

impl CallError {
    /// The next try usually works: the controller dropped the attempt, or BlueZ is still busy with an older one.
    pub fn is_passing(&self) -> bool {
        // 5.66 calls a Connect beside another one `Failed` with the text of EALREADY.
        let texts = ["abort-by-local", "already in progress"];
        self.name.ends_with(".InProgress") || texts.iter().any(|text| self.text.contains(text))
    }

    /// The device and we do not agree on the passkey, or it does not want to pair now.
    pub fn is_authentication(&self) -> bool {
        ["AuthenticationFailed", "AuthenticationRejected"].iter().any(|name| self.is(name))
    }

    fn is(&self, name: &str) -> bool {
        self.name.rsplit('.').next() == Some(name)
    }
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => Self { name: name.to_string(), text: text.unwrap_or_default() },
            other => Self { name: "D-Bus".to_owned(), text: other.to_string() },
        }
    }
}

impl Bus {
    pub async fn connect(agent: Agent) -> Result<Self, RadioError> {
        let builder = zbus::connection::Builder::system().method_timeout(CALL_LIMIT).serve_at(AGENT_PATH, agent);
        match builder.build().await {
            Ok(connection) => Ok(Self { connection }),
            Err(error) => Err(RadioError::NoBus { address: address(), reason: error.to_string() }),
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub async fn connect_device(&self, path: &str) -> Result<(), CallError> {
        match self.call(path, DEVICE, "Connect", &()).await {
            Err(error) if error.is("AlreadyConnected") => Ok(()),
            outcome => outcome,
        }
    }

    /// Also ends a Connect that is under way. There is nothing to do about an error: the link is gone or will be.
    pub async fn disconnect_device(&self, path: &str) {
        if let Err(error) = self.call(path, DEVICE, "Disconnect", &()).await
            && !error.is("NotConnected")
        {
            tracing::debug!(path, %error, "disconnect");
        }
    }

    pub async fn pair(&self, path: &str) -> Result<(), CallError> {
        match self.call(path, DEVICE, "Pair", &()).await {
            Err(error) if error.is("AlreadyExists") => Ok(()),
            outcome => outcome,
        }
    }

    /// BlueZ goes on with a pairing nobody waits for any more. There may be none.
    pub async fn cancel_pairing(&self, path: &str) {
        if let Err(error) = limited(self.call(path, DEVICE, "CancelPairing", &())).await {
            tracing::debug!(path, %error, "cancel pairing");
        }
    }

    /// A trusted device is kept and may connect without anybody being asked.
    pub async fn trust(&self, path: &str) {
        let trusted = (DEVICE, "Trusted", Variant::from(true));
        if let Err(error) = limited(self.call(path, PROPERTIES, "Set", &trusted)).await {
            tracing::warn!(path, %error, "BlueZ does not note it as trusted");
        }
    }

    /// With its bond.
    pub async fn remove_device(&self, path: &str) -> Result<(), CallError> {
        let adapter = path.rsplit_once('/').map_or(path, |(adapter, _)| adapter);
        let device =
            ObjectPath::try_from(path).map_err(|error| CallError { name: "path".to_owned(), text: error.to_string() })?;
        match limited(self.call(adapter, ADAPTER, "RemoveDevice", &(&device,))).await {
            Err(error) if error.is("DoesNotExist") => Ok(()),
            outcome => outcome,
        }
    }

    pub async fn objects(&self) -> Result<HashMap<OwnedObjectPath, Interfaces>, CallError> {
        const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
        let asked = self.connection.call_method(Some(BLUEZ), "/", Some(OBJECT_MANAGER), "GetManagedObjects", &());
        let silent = || CallError { name: "D-Bus".to_owned(), text: "no answer from bluetoothd".to_owned() };
        let answer = tokio::time::timeout(SHORT_LIMIT, asked).await.map_err(|_| silent())??;
        answer.body().deserialize().map_err(CallError::from)
    }

    /// As BlueZ sees it now; `false` when it cannot be asked.
    pub async fn is_paired(&self, path: &str) -> bool {
        let asked = self.connection.call_method(Some(BLUEZ), path, Some(PROPERTIES), "Get", &(DEVICE, "Paired"));
        let answer = tokio::time::timeout(SHORT_LIMIT, asked).await.ok().and_then(Result::ok);
        let value = answer.and_then(|answer| answer.body().deserialize::<OwnedVariant>().ok());
        value.is_some_and(|value| bool::try_from(value).unwrap_or(false))
    }

    /// LE only, every device reported once a discovery: a busy ward holds hundreds of phones.
    pub async fn start_discovery(&self, adapter: &str, every_advert: bool) -> Result<(), CallError> {
        let filter: HashMap<&str, Variant<'_>> =
            [("Transport", Variant::from("le")), ("DuplicateData", Variant::from(every_advert))].into();
        limited(self.call(adapter, ADAPTER, "SetDiscoveryFilter", &(filter,))).await?;
        let outcome = limited(self.call(adapter, ADAPTER, "StartDiscovery", &())).await;
        // Either it scans for us already, or it does not for anybody: a new bluetoothd says the same while the kernel has
        // not ended the scan of one that died. Ending ours tells which, by the next try.
        if outcome.as_ref().is_err_and(|error| error.is("InProgress")) {
            self.stop_discovery(adapter).await;
        }
        outcome
    }

    pub async fn stop_discovery(&self, adapter: &str) {
        if let Err(error) = limited(self.call(adapter, ADAPTER, "StopDiscovery", &())).await {
            tracing::debug!(adapter, %error, "stop discovery");
        }
    }

    pub async fn set_powered(&self, adapter: &str, on: bool) -> Result<(), CallError> {
        limited(self.call(adapter, PROPERTIES, "Set", &(ADAPTER, "Powered", Variant::from(on)))).await
    }

    /// Whether bluetoothd answers anything at all.
    pub async fn ping(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.call("/", "org.freedesktop.DBus.Peer", "Ping", &())).await.is_ok()
    }

    /// Has systemd start a unit; `Ok` once it took the job.
    pub async fn start_unit(&self, unit: &str) -> Result<(), CallError> {
        let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
        let body = (unit, "replace");
        let started = self.connection.call_method(Some(SYSTEMD), path, Some(interface), "StartUnit", &body);
        limited(async { Ok(started.await.map(drop)?) }).await
    }

    /// Match rules of that connection of this process that holds most; the bus allows each 512. Whose is whose is told by the
    /// process id as the bus sees it, because btleplug does not tell its connection.
    pub async fn match_rules(&self) -> Result<u32, CallError> {
        let ours = self.connection.unique_name().map(ToString::to_string).unwrap_or_default();
        let process: u32 = self.ask_bus(BUS, "GetConnectionUnixProcessID", &ours).await?;
        let names: Vec<String> = self.ask_bus(BUS, "ListNames", &()).await?;
        let mut most = 0;
        for name in names.iter().filter(|name| name.starts_with(':')).take(MAX_CONNECTIONS) {
            // Somebody who left meanwhile is nobody of ours.
            if self.ask_bus::<u32>(BUS, "GetConnectionUnixProcessID", name).await.ok() != Some(process) {
                continue;
            }
            let stats: HashMap<String, OwnedVariant> = self.ask_bus(STATS, "GetConnectionStats", name).await?;
            let rules = stats.get("MatchRules").and_then(|rules| rules.downcast_ref::<u32>().ok());
            most = most.max(rules.unwrap_or_default());
        }
        Ok(most)
    }

    async fn ask_bus<T>(
        &self,
        interface: &str,
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> Result<T, CallError>
    where
        T: serde::de::DeserializeOwned + zbus::Type,
    {
        let asked = self.connection.call_method(Some(BUS), BUS_PATH, Some(interface), method, body);
        let silent = |_| CallError { name: "D-Bus".to_owned(), text: format!("no answer in {SHORT_LIMIT:?}") };
        let answer = tokio::time::timeout(SHORT_LIMIT, asked).await.map_err(silent)??;
        Ok(answer.body().deserialize()?)
    }

    /// The default agent, too: bonding that starts with a subscription asks no particular one.
    pub async fn register_agent(&self, capability: &str) -> Result<(), CallError> {
        let path = ObjectPath::from_static_str_unchecked(AGENT_PATH);
        match limited(self.call("/org/bluez", AGENT_MANAGER, "RegisterAgent", &(&path, capability))).await {
            Err(error) if !error.is("AlreadyExists") => return Err(error),
            _ => {}
        }
        limited(self.call("/org/bluez", AGENT_MANAGER, "RequestDefaultAgent", &(&path,))).await
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<(), CallError>
    where
        B: serde::Serialize + DynamicType,
    {
        let _: Message = self.connection.call_method(Some(BLUEZ), path, Some(interface), method, body).await?;
        Ok(())
    }
}

async fn limited(call: impl Future<Output = Result<(), CallError>>) -> Result<(), CallError> {
    let silent = || CallError { name: "D-Bus".to_owned(), text: format!("no answer in {SHORT_LIMIT:?}") };
    tokio::time::timeout(SHORT_LIMIT, call).await.unwrap_or_else(|_| Err(silent()))
}

/// Where the system bus was looked for.
pub fn address() -> String {
    std::env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| DEFAULT_ADDRESS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_try_usually_does_not_see_is_told_from_what_it_will() {
        let said = |name: &str, text: &str| CallError { name: format!("org.bluez.Error.{name}"), text: text.to_owned() };
        assert!(said("Failed", "le-connection-abort-by-local").is_passing());
        assert!(said("InProgress", "In Progress").is_passing());
        assert!(said("Failed", "Operation already in progress").is_passing());
        assert!(!said("Failed", "Input/output error").is_passing());
        assert!(!said("NotReady", "Resource Not Ready").is_passing());
    }
}
