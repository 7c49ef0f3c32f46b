//! What ends the radio. Everything less (a device away, no adapter, bluetoothd restarting) is an event and passes.

#[derive(Debug, thiserror::Error)]
pub enum RadioError {
    #[error(
        "no D-Bus system bus at {address}: {reason}; start dbus.service, or point DBUS_SYSTEM_BUS_ADDRESS at the bus (in a \
         container, mount /run/dbus/system_bus_socket)"
    )]
    NoBus { address: String, reason: String },
    #[error("the D-Bus system bus at {address} went away: {reason}; restart bedrail once dbus.service runs again")]
    BusLost { address: String, reason: String },
    #[error(
        "the D-Bus system bus at {address} refused to report on BlueZ: {reason}; see the limits and policy in its configuration"
    )]
    Refused { address: String, reason: String },
    #[error(
        "no device is heard any more, and neither power cycling nor resetting the radio helped; ending, so that systemd starts \
         bedrail again; if this comes back, see `bedrail status`, `journalctl -u bluetooth` and the adapter itself"
    )]
    Silent,
    #[error("the radio's {task} stopped unexpectedly: {reason}; restart bedrail and report this")]
    Task { task: &'static str, reason: String },
}
