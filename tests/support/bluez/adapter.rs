//! What comes and goes with an adapter and its power.

use super::world::{ADAPTER, World, adapter_path, properties, variant};

impl World {
    pub fn plug_adapter(&mut self, hci: &str) {
        let Some(spec) = self.adapters.get(hci).cloned() else { return };
        let off = self.switched_off.remove(hci);
        let mut held = properties([
            ("Address", variant(spec.address)),
            ("AddressType", variant("public")),
            ("Name", variant("gateway")),
            ("Alias", variant("gateway")),
            ("Class", variant(0u32)),
            ("Powered", variant(spec.powered && !off)),
            ("Discoverable", variant(false)),
            ("Pairable", variant(true)),
            ("Discovering", variant(false)),
            ("UUIDs", variant(Vec::<String>::new())),
            ("Roles", variant(vec!["central".to_owned(), "peripheral".to_owned()])),
        ]);
        held.extend(spec.modalias.map(|text| ("Modalias".to_owned(), variant(text))));
        self.add_interfaces(&adapter_path(hci), [(ADAPTER.to_owned(), held)].into());
        // adapter.c load_devices: what is stored on disk is known again, the rest has to be heard.
        let stored: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, d)| d.hci == hci && (d.stored || d.paired || d.trusted))
            .map(|(a, _)| a.clone())
            .collect();
        for address in stored {
            // [ran, 5.66] On disk a bonded device is under its own address.
            if let Some(device) = self.devices.get_mut(&address).filter(|device| device.paired) {
                device.shown.clone_from(&address);
            }
            self.show_device(&address, None);
        }
        if off && spec.powered {
            self.power_told(&adapter_path(hci), true);
        }
    }

    /// [ran, 5.66] The kernel powers it off first, and that is told.
    pub fn unplug_adapter(&mut self, hci: &str) {
        let path = adapter_path(hci);
        self.power_told(&path, false);
        self.links_down(hci);
        self.remove_tree(&path);
    }

    /// [ran, 5.66] bluetoothd switches it off on its way out, and on again when it starts (main.conf `AutoEnable`).
    pub fn take_leave(&mut self, hci: &str) {
        let path = adapter_path(hci);
        self.links_down(hci);
        self.power_told(&path, false);
        self.remove_tree(&path);
        self.switched_off.insert(hci.to_owned());
    }

    /// Links and discovery end with the power, devices nobody connected are forgotten; nobody resumes any of it. [ran, 5.66]
    /// Links end before the answer, the rest is told after it.
    pub fn set_powered(&mut self, hci: &str, on: bool) {
        let path = adapter_path(hci);
        if let Some(spec) = self.adapters.get_mut(hci) {
            spec.powered = on;
        }
        if !on {
            self.links_down(hci);
            for address in self.of_adapter(hci) {
                let temporary = self.devices.get(&address).is_some_and(|d| !(d.stored || d.paired || d.trusted));
                if let Some(path) = self.path(&address).filter(|_| temporary) {
                    self.remove_tree(&path);
                }
            }
        }
        self.later(move |world| world.power_told(&path, on));
    }

    fn power_told(&mut self, path: &str, on: bool) {
        if on {
            self.set(path, ADAPTER, [("Powered", variant(true))]);
        } else {
            self.discovering.remove(path);
            // Both together, also when it was not discovering.
            self.set(path, ADAPTER, [("Discovering", variant(false)), ("Powered", variant(false))]);
        }
    }

    fn links_down(&mut self, hci: &str) {
        for address in self.of_adapter(hci) {
            self.cancel_connect(&address);
            self.link_down(&address);
        }
    }
}
