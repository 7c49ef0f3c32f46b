//! Through which adapter a device is reached, where several may: decided without I/O from what BlueZ says of it at each.
//!
//! A device stays where it has a link. Otherwise it goes where it has a bond and where it is heard; among those to its own
//! adapter, so that the devices are spread and come back to an adapter that was away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::reading::DeviceId;

/// Heard so often elsewhere and not once here: it is out of reach here. An advertisement is told twice with its scan response.
const OUT_OF_REACH: u32 = 4;

/// A device at one adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub path: &'a str,
    pub powered: bool,
    pub connected: bool,
    pub paired: bool,
    /// How often it was heard elsewhere since it was heard here.
    pub unheard: u32,
    /// 0: its own adapter; then in the order in which it would go on.
    pub order: usize,
}

/// `held`: a link, or an attempt, is under way where it is.
pub fn choose<'a>(places: impl IntoIterator<Item = Place<'a>>, current: Option<&str>, held: bool) -> Option<&'a str> {
    let rank = |place: &Place<'a>| {
        let leaves = !(held && current == Some(place.path));
        (!place.powered, leaves, !place.connected, !place.paired, place.unheard >= OUT_OF_REACH, place.order)
    };
    places.into_iter().min_by_key(rank).map(|place| place.path)
}

/// Devices that are not to be moved now; kept by their tasks, which alone know what is under way.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<BTreeSet<DeviceId>>>);

impl Held {
    pub fn set(&self, device: DeviceId, held: bool) {
        let mut devices = self.devices();
        if held {
            devices.insert(device);
        } else {
            devices.remove(&device);
        }
    }

    pub fn contains(&self, device: DeviceId) -> bool {
        self.devices().contains(&device)
    }

    fn devices(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        self.0.lock().expect("nobody panics while holding the devices")
    }
}

/// With which adapter each device that bonds has its bond: known from the start, or as BlueZ says. It stays while that adapter
/// is away, so that the device is paired with no other by itself; whoever stores it shares it.
#[derive(Clone, Debug, Default)]
pub struct Bonds(Arc<Mutex<BTreeMap<DeviceId, DeviceId>>>);

impl Bonds {
    pub fn new(known: BTreeMap<DeviceId, DeviceId>) -> Self {
        Self(Arc::new(Mutex::new(known)))
    }

    pub fn all(&self) -> BTreeMap<DeviceId, DeviceId> {
        self.adapters().clone()
    }

    pub(super) fn of(&self, device: DeviceId) -> Option<DeviceId> {
        self.adapters().get(&device).copied()
    }

    /// The first one counts until it is forgotten.
    pub(super) fn made(&self, device: DeviceId, adapter: DeviceId) {
        self.adapters().entry(device).or_insert(adapter);
    }

    pub(super) fn forget(&self, device: DeviceId) {
        self.adapters().remove(&device);
    }

    fn adapters(&self) -> MutexGuard<'_, BTreeMap<DeviceId, DeviceId>> {
        self.0.lock().expect("nobody panics while holding the bonds")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Place<'_> = Place { path: "here", powered: true, connected: false, paired: false, unheard: 0, order: 0 };
    const THERE: Place<'_> = Place { path: "there", order: 1, ..HERE };

    #[test]
    fn a_device_is_at_its_own_adapter_unless_it_is_not_heard_there() {
        assert_eq!(choose([THERE, HERE], None, false), Some("here"));
        assert_eq!(choose([THERE, HERE], Some("there"), false), Some("here"), "it comes back");
        let far = Place { unheard: OUT_OF_REACH, ..HERE };
        assert_eq!(choose([far.clone(), THERE], Some("here"), false), Some("there"));
        assert_eq!(choose([far], None, false), Some("here"), "there is no other");
    }

    #[test]
    fn a_bond_a_link_and_power_count_for_more_than_order() {
        assert_eq!(choose([HERE, Place { paired: true, ..THERE }], None, false), Some("there"));
        assert_eq!(choose([Place { paired: true, ..HERE }, Place { connected: true, ..THERE }], None, false), Some("there"));
        assert_eq!(choose([Place { powered: false, connected: true, ..HERE }, THERE], Some("here"), true), Some("there"));
    }

    fn any_place(path: &'static str) -> impl Strategy<Value = Place<'static>> {
        (any::<[bool; 3]>(), 0u32..8, 0usize..4).prop_map(move |([powered, connected, paired], unheard, order)| Place {
            path,
            powered,
            connected,
            paired,
            unheard,
            order,
        })
    }

    proptest! {
        #[test]
        fn what_is_under_way_is_not_moved_while_its_adapter_has_power_and_nothing_wavers(
            places in (any_place("a"), any_place("b"), any_place("c")),
            held: bool,
        ) {
            let places = [places.0, places.1, places.2];
            for current in &places {
                let chosen = choose(places.clone(), Some(current.path), held).unwrap();
                if held && current.powered {
                    prop_assert_eq!(chosen, current.path);
                }
                let place = places.iter().find(|place| place.path == chosen).unwrap();
                prop_assert!(place.powered || places.iter().all(|place| !place.powered));
                prop_assert_eq!(choose(places.clone(), Some(chosen), held).unwrap(), chosen, "it would go on at once");
            }
        }
    }
}
