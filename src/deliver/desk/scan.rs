//! The scan stations: what they scan, as events of the ward. A wristband is turned into the patient's key here and kept
//! nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Desk, DeskError};
use crate::reading::{SubjectKey, Timestamp};
use crate::ward::{Change, Code, CodeFormats, EventSource, Phi, Scanned, Step};

/// Stations of one gateway that are in the middle of something. A ward has a few carts.
const MAX_STATIONS: usize = 64;

#[derive(Clone, Debug)]
pub struct ScanSettings {
    pub formats: CodeFormats,
    /// How long a wristband waits for its device.
    pub within: Duration,
    /// Names of the devices by their inventory numbers.
    pub assets: BTreeMap<String, String>,
}

impl Desk {
    /// What a station is to tell whoever stands there. A code that does nothing is an answer like any other.
    pub(super) fn scan(&mut self, station: &str, code: &Phi<String>, actor: &str) -> Result<Value, DeskError> {
        let settings = self.settings.scan.clone().ok_or(DeskError::NoScan)?;
        let (now, within) = (self.now()?, settings.within);
        let scanned = self.recognise(&settings, code)?;
        let clock = Duration::from_millis(self.boot.now().0);
        if !self.stations.contains_key(station) {
            self.stations.retain(|_, station| !station.is_idle(clock, within));
            if self.stations.len() >= MAX_STATIONS {
                return Err(DeskError::TooManyStations);
            }
        }
        let step = self.stations.entry(station.to_owned()).or_default().scan(scanned, clock, within);
        match step {
            Step::Waits => {
                let say = format!("wristband read; scan the device within {} s", within.as_secs());
                Ok(json!({ "done": "waits", "say": say, "within_ms": within.as_millis() as u64 }))
            }
            Step::Tie { device, patient } => self.tie(&device, &patient, now, actor),
            Step::Release { device, late } => self.release(&device, late, now, actor),
            Step::Again => Ok(json!({ "done": "again", "say": "done already" })),
            Step::Refused(Scanned::Stranger) => {
                Ok(json!({ "done": "refused", "say": "nobody known here has this wristband; nothing was done" }))
            }
            Step::Refused(Scanned::StrangeDevice) => Ok(
                json!({ "done": "refused", "keeps": true, "say": "no device of this gateway has this label; nothing was done" }),
            ),
            Step::Refused(_) => Ok(
                json!({ "done": "refused", "keeps": true, "say": "neither a wristband nor the label of a device; scan it again" }),
            ),
        }
    }

    fn recognise(&self, settings: &ScanSettings, code: &Phi<String>) -> Result<Scanned, DeskError> {
        let key: Option<SubjectKey> = match settings.formats.read(code.expose()) {
            Code::Visit(visit) => Some(self.store.site_key().subject_of_visit(visit.expose())),
            Code::Key(key) => key.expose().parse().ok(),
            Code::Asset(asset) => {
                let name = settings.assets.get(&asset).cloned();
                return Ok(name.map_or(Scanned::StrangeDevice, Scanned::Device));
            }
            Code::Name(name) if self.settings.devices.contains_key(&name) => return Ok(Scanned::Device(name)),
            Code::Name(_) => return Ok(Scanned::StrangeDevice),
            Code::Other => return Ok(Scanned::Other),
        };
        let known = self.ward_store.patients()?;
        let known = key.filter(|key| known.iter().any(|row| row.key == *key && !row.forgotten));
        Ok(known.map_or(Scanned::Stranger, Scanned::Patient))
    }

    fn tie(&mut self, name: &str, patient: &SubjectKey, now: Timestamp, actor: &str) -> Result<Value, DeskError> {
        let (device, subject) = (self.device(name)?, patient.clone());
        // A device that is not shared keeps its patient.
        let (change, until, say) = match self.settings.spots.get(&device) {
            Some(spot) => (
                self.spot(name, patient)?,
                Some(now.plus_ms(spot.lasts_ms())),
                format!("{name}: measure now; its next readings within {} s are this patient's", spot.lasts.as_secs()),
            ),
            None => (Change::Pair { device, user: None, subject }, None, format!("{name} measures this patient from now on")),
        };
        self.audit(actor, "scan", &format!("device {name}"), patient.as_str())?;
        let n = self.append(vec![(now, EventSource::Scan, actor.to_owned(), change)], now)?;
        Ok(json!({ "done": "tied", "say": say, "device": name, "event": n, "until": until.map(|until| until.to_string()) }))
    }

    /// A scan of the device alone ends what a scan began, and nothing else.
    fn release(&mut self, name: &str, late: bool, now: Timestamp, actor: &str) -> Result<Value, DeskError> {
        let device = self.device(name)?;
        let tied = self.inputs.ward.borrow().spot(device, now).is_some();
        if tied {
            self.audit(actor, "scan", &format!("device {name}"), "ends")?;
            self.append(vec![(now, EventSource::Scan, actor.to_owned(), Change::Unpair { device, user: None })], now)?;
        }
        let why = if late {
            "too late: scan the wristband again, then the device"
        } else {
            "scan the wristband first, then the device"
        };
        let say = if tied { format!("{why}; {name} is nobody's now") } else { why.to_owned() };
        Ok(json!({ "done": if tied { "released" } else { "refused" }, "say": say, "device": name }))
    }
}
