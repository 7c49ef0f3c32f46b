//! Who is where: beds, devices and people at a time, by whose word, and since when this gateway knows it.

use serde_json::{Value, json};

use super::{Desk, DeskError};
use crate::reading::{ClockQuality, DeviceId, Timestamp, UserIndex, WallTime};
use crate::ward::{Interval, Ward};

impl Desk {
    /// At a time, or now, by all that is known now. Patients are their keys, never their names.
    pub(super) fn who_is_where(&self, at: Option<Timestamp>) -> Result<Value, DeskError> {
        let at = match at {
            Some(at) => at,
            None => self.now()?,
        };
        let ward = self.inputs.ward.borrow().clone();
        let devices = ward.pairings().filter(|(_, _, pairing)| pairing.holds(at)).map(|(device, user, pairing)| {
            self.entry_of(
                &ward,
                pairing,
                &[("device", json!(self.name_of(device))), ("user", json!(user)), ("patient", json!(pairing.value))],
            )
        });
        let spots = ward.spots().filter(|(_, spot)| spot.holds(at)).map(|(device, spot)| {
            let fields = [
                ("device", json!(self.name_of(device))),
                ("patient", json!(spot.value.subject)),
                ("readings", json!(spot.value.readings)),
                ("to", json!(spot.to.map(|to| to.to_string()))),
            ];
            self.entry_of(&ward, spot, &fields)
        });
        let places = ward.places().filter(|(_, place)| place.holds(at)).map(|(device, place)| {
            self.entry_of(&ward, place, &[("device", json!(self.name_of(device))), ("bed", json!(place.value))])
        });
        let mut beds: Vec<Value> = ward
            .beds()
            .filter(|(_, occupant)| occupant.holds(at))
            .map(|(bed, occupant)| self.entry_of(&ward, occupant, &[("bed", json!(bed)), ("patient", json!(occupant.value))]))
            .collect();
        let empty = self.settings.beds.iter().filter(|bed| !beds.iter().any(|entry| entry["bed"] == **bed));
        let empty: Vec<Value> = empty.map(|bed| json!({ "bed": bed, "patient": null })).collect();
        beds.extend(empty);
        Ok(json!({
            "at": at.to_string(),
            "beds": beds,
            "places": places.collect::<Vec<_>>(),
            "devices": devices.collect::<Vec<_>>(),
            "spots": spots.collect::<Vec<_>>(),
            "measures": self.measures(&ward, at),
        }))
    }

    /// Of each device, and of each user of it somebody named: whose a reading of that time is, or why it is nobody's.
    fn measures(&self, ward: &Ward, at: Timestamp) -> Vec<Value> {
        let mut all = Vec::new();
        for (name, device) in &self.settings.devices {
            let named = ward.pairings().filter(|(of, user, pairing)| of == device && user.is_some() && pairing.holds(at));
            let mut users: Vec<Option<UserIndex>> = named.map(|(_, user, _)| user).collect();
            if users.is_empty() {
                users.push(None);
            }
            all.extend(users.into_iter().map(|user| self.measure(ward, name, *device, user, at)));
        }
        all
    }

    fn measure(&self, ward: &Ward, name: &str, device: DeviceId, user: Option<UserIndex>, at: Timestamp) -> Value {
        let certain = WallTime { at, quality: ClockQuality::Ntp, uncertainty_ms: 0 };
        let mut row = json!({ "device": name, "user": user, "bed": ward.bed_of(device, at) });
        match ward.bind(device, user, certain) {
            Ok(binding) => {
                row["patient"] = json!(ward.known_as(&binding.subject));
                row["rule"] = json!(binding.rule.name());
                row["events"] = json!(binding.evidence);
            }
            Err(reason) => {
                row["held"] = json!(reason.name());
                row["why"] = json!(ward.say_why(reason, device, user, at, name));
            }
        }
        row
    }

    /// Since when it holds, and by what event it is known.
    fn entry_of<T>(&self, ward: &Ward, interval: &Interval<T>, fields: &[(&str, Value)]) -> Value {
        let began = &interval.began;
        let operator = ward.events().iter().find(|event| event.n == began.n).map(|event| event.operator.as_str());
        let mut entry = json!({
            "from": interval.from.to_string(),
            "learned": began.learned.to_string(),
            "source": began.source,
            "operator": operator,
            "event": began.n,
        });
        for (field, value) in fields {
            entry[*field] = value.clone();
        }
        entry
    }
}
