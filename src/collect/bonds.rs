//! With which adapter each device is bonded, kept over restarts: a gateway that starts without that adapter must not pair the
//! device with another.

use std::collections::BTreeMap;

use crate::reading::DeviceId;
use crate::store::{Store, StoreError};

/// Marks in the log, by the device's address; the value is the adapter's, 0 when there is none any more.
const BOND: &str = "bond:";

pub fn kept(store: &Store) -> Result<BTreeMap<DeviceId, DeviceId>, StoreError> {
    let marks = store.marks(BOND)?.into_iter();
    Ok(marks.filter_map(|(name, adapter)| Some((name.strip_prefix(BOND)?.parse().ok()?, unpack(adapter)?))).collect())
}

/// Writes what differs, in one commit.
pub(super) fn keep(
    store: &mut Store,
    before: &BTreeMap<DeviceId, DeviceId>,
    now: &BTreeMap<DeviceId, DeviceId>,
) -> Result<(), StoreError> {
    let gone = before.keys().filter(|device| !now.contains_key(*device)).map(|device| (device, 0));
    let new = now.iter().filter(|(device, adapter)| before.get(*device) != Some(*adapter));
    let marks = new.map(|(device, adapter)| (device, pack(*adapter))).chain(gone);
    let marks: Vec<(String, u64)> = marks.map(|(device, adapter)| (format!("{BOND}{device}"), adapter)).collect();
    let marks: Vec<(&str, u64)> = marks.iter().map(|(name, adapter)| (name.as_str(), *adapter)).collect();
    store.append_and_mark(Vec::new(), &marks).map(drop)
}

fn pack(adapter: DeviceId) -> u64 {
    adapter.octets().iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
}

fn unpack(value: u64) -> Option<DeviceId> {
    let [0, 0, octets @ ..] = value.to_be_bytes() else { return None };
    (value != 0).then(|| DeviceId::new(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_into_a_mark_and_comes_back() {
        let adapter = DeviceId::new([0xDC, 0xA6, 0x32, 1, 2, 3]);
        assert_eq!(unpack(pack(adapter)), Some(adapter));
        assert_eq!((unpack(0), unpack(1 << 48)), (None, None));
    }
}
