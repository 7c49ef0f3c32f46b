//! Which one of its kind a device is. An address can be imitated, and a device swapped for another; so the config may say what
//! the device must say of itself.

use ring::digest;
use serde::{Deserialize, Serialize};

/// Serial number (2A25) and model (2A24) as a device tells them in Device Information, or as the config wants them told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nameplate {
    pub serial: Option<String>,
    pub model: Option<String>,
}

impl Nameplate {
    /// Of each text. A serial number has some twenty characters; a text beyond this makes no sense.
    pub const MAX_CHARS: usize = 64;

    pub const fn is_blank(&self) -> bool {
        self.serial.is_none() && self.model.is_none()
    }

    /// Whether what a device said of itself is what is wanted here. What is not wanted may be anything; what is wanted and was
    /// not told differs. A device that was never asked (`None`) is believed, as it was before anybody wanted to know.
    pub fn admits(&self, told: Option<&Nameplate>) -> bool {
        let Some(told) = told else { return true };
        let same = |wanted: &Option<String>, told: &Option<String>| wanted.is_none() || wanted == told;
        same(&self.serial, &told.serial) && same(&self.model, &told.model)
    }

    /// A number that another nameplate hardly has; 0 for a blank one. It fits a mark of the store.
    pub fn fingerprint(&self) -> u64 {
        if self.is_blank() {
            return 0;
        }
        let octets = postcard::to_stdvec(self).expect("texts always serialise");
        let digest = digest::digest(&digest::SHA256, &octets);
        let first = digest.as_ref()[..8].try_into().expect("SHA-256 is longer than eight octets");
        u64::from_be_bytes(first) >> 1 | 1
    }

    /// How what a device told differs from what is wanted here, for people; `None` where it does not.
    pub fn difference(&self, told: &Nameplate) -> Option<String> {
        let parts = [("serial number", &self.serial, &told.serial), ("model", &self.model, &told.model)];
        let differs = |(what, wanted, told): (&str, &Option<String>, &Option<String>)| {
            let wanted = wanted.as_deref().filter(|wanted| told.as_deref() != Some(wanted))?;
            let told = told.as_ref().map_or_else(|| format!("no {what}"), |told| format!("{what} {told:?}"));
            Some(format!("{told} where the config says {wanted:?}"))
        };
        let differences: Vec<String> = parts.into_iter().filter_map(differs).collect();
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plate(serial: Option<&str>, model: Option<&str>) -> Nameplate {
        Nameplate { serial: serial.map(str::to_owned), model: model.map(str::to_owned) }
    }

    #[test]
    fn what_is_wanted_must_be_told_and_what_is_not_wanted_may_be_anything() {
        let wanted = plate(Some("501482210"), None);
        assert!(wanted.admits(Some(&plate(Some("501482210"), Some("3230")))));
        assert!(!wanted.admits(Some(&plate(Some("501482211"), Some("3230")))));
        assert!(!wanted.admits(Some(&plate(None, None))), "no Device Information is no serial number");
        assert!(wanted.admits(None), "nobody asked");
        assert!(plate(None, None).admits(Some(&plate(Some("1"), None))));
        let both = plate(Some("1"), Some("3230"));
        assert!(!both.admits(Some(&plate(Some("1"), Some("3231")))) && !both.admits(Some(&plate(Some("2"), Some("3230")))));
    }

    #[test]
    fn a_difference_names_what_was_told_and_what_was_wanted() {
        let wanted = plate(Some("501482210"), Some("3230"));
        assert_eq!(wanted.difference(&wanted.clone()), None);
        let said = wanted.difference(&plate(Some("7"), None)).unwrap();
        assert_eq!(said, "serial number \"7\" where the config says \"501482210\", no model where the config says \"3230\"");
        for told in [plate(None, None), plate(Some("7"), Some("3230")), wanted.clone()] {
            assert_eq!(wanted.difference(&told).is_none(), wanted.admits(Some(&told)), "the two agree on {told:?}");
        }
    }
}
