//! Bonds: how a device may pair, what is known of its bond, and how a lost one is told from radio trouble. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::session::Event;

/// How a device may pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bond {
    /// Pairing is refused.
    #[default]
    None,
    /// Pairing without a passkey is granted when the device asks for an encrypted link.
    JustWorks,
    /// The device is paired with the passkey it shows or has printed on it, and not without.
    Passkey(Passkey),
}

/// Six digits. They are never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Passkey(u32);

/// What is no passkey is not repeated: it may be one with a slip of the finger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a passkey is six digits, such as 042137")]
pub struct NoPasskey;

impl Passkey {
    /// As BlueZ wants it from the agent.
    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

impl FromStr for Passkey {
    type Err = NoPasskey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let six_digits = text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| six_digits);
        number.map(Self).ok_or(NoPasskey)
    }
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<passkey>")
    }
}

/// What is known of a device's bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BondState {
    #[default]
    None,
    /// It is being paired.
    Bonding,
    Bonded,
    /// Pairing did not work and is not tried again by itself.
    Refused(String),
    /// BlueZ has a bond and the device, by all signs, has it no more. It is never paired anew by itself: that is what somebody
    /// who imitates it would want.
    Lost(String),
}

impl BondState {
    const NAMES: [&'static str; 5] = ["none", "bonding", "bonded", "refused", "lost"];

    pub const fn name(&self) -> &'static str {
        let place = match self {
            BondState::None => 0,
            BondState::Bonding => 1,
            BondState::Bonded => 2,
            BondState::Refused(_) => 3,
            BondState::Lost(_) => 4,
        };
        Self::NAMES[place]
    }

    /// The same word, if it is one of ours.
    pub fn known(name: &str) -> Option<&'static str> {
        Self::NAMES.into_iter().find(|known| *known == name)
    }
}

/// A link that ends within this of its beginning was not lost on the way: the encryption was refused. A link at the edge of
/// the range lives through at least one supervision time and several tries.
const AT_ONCE: Duration = Duration::from_secs(2);
/// So many links in a row that came up and were of no use: one may be the radio, two a coincidence.
const SIGNS: u32 = 3;

/// Tells a lost bond from radio trouble: BlueZ has a bond, the device is heard, links come up, and each is refused or dropped
/// at once. What Connect answers is not looked at, for it varies.
#[derive(Debug, Default)]
pub struct BondWatch {
    /// Since when there is a link that is not ready yet and has not been counted.
    link: Option<Instant>,
    signs: u32,
}

impl BondWatch {
    /// What happened to the link; `true` when the bond is taken for lost from now on.
    pub fn note(&mut self, now: Instant, event: &Event, paired: bool) -> bool {
        match event {
            Event::LinkUp => {
                self.link = Some(now);
                false
            }
            Event::LinkDown | Event::Gone => {
                let dropped_at_once = self.link.take().is_some_and(|up| now.saturating_duration_since(up) <= AT_ONCE);
                dropped_at_once && self.sign(paired)
            }
            _ => false,
        }
    }

    /// The device refused to be read or subscribed to over this link.
    pub fn refused(&mut self, paired: bool) -> bool {
        self.link.take();
        self.sign(paired)
    }

    /// Everything is subscribed: the bond, if there is one, holds.
    pub fn ready(&mut self) {
        *self = Self::default();
    }

    fn sign(&mut self, paired: bool) -> bool {
        self.signs = if paired { self.signs + 1 } else { 0 };
        self.signs >= SIGNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passkey_is_six_digits_and_is_never_printed() {
        let passkey: Passkey = "012345".parse().unwrap();
        assert_eq!(passkey.number(), 12_345);
        assert_eq!(format!("{:?}", Bond::Passkey(passkey)), "Passkey(<passkey>)");
        for text in ["", "12345", "1234567", "12345a", "+12345", "12 345", "١٢٣٤٥٦"] {
            assert_eq!(text.parse::<Passkey>(), Err(NoPasskey), "{text}");
        }
        assert!(!NoPasskey.to_string().contains("12345"));
    }

    fn links(watch: &mut BondWatch, paired: bool, lasted: Duration, count: u32) -> bool {
        let now = Instant::now();
        (0..count).any(|_| {
            watch.note(now, &Event::LinkUp, paired);
            watch.note(now + lasted, &Event::LinkDown, paired)
        })
    }

    #[test]
    fn a_bond_is_taken_for_lost_after_links_in_a_row_that_end_at_once() {
        assert!(!links(&mut BondWatch::default(), true, Duration::from_millis(50), SIGNS - 1));
        assert!(links(&mut BondWatch::default(), true, Duration::from_millis(50), SIGNS));
    }

    #[test]
    fn radio_trouble_is_not_taken_for_a_lost_bond() {
        // Links that lived for a while, a device without a bond, and attempts that never came to a link.
        assert!(!links(&mut BondWatch::default(), true, AT_ONCE * 2, 50));
        assert!(!links(&mut BondWatch::default(), false, Duration::from_millis(50), 50));
        let (mut watch, now) = (BondWatch::default(), Instant::now());
        assert!(!(0..50).any(|_| watch.note(now, &Event::LinkDown, true) || watch.note(now, &Event::Gone, true)));
    }

    #[test]
    fn one_link_that_works_clears_the_suspicion() {
        let mut watch = BondWatch::default();
        for _ in 0..10 {
            assert!(!links(&mut watch, true, Duration::from_millis(50), SIGNS - 1));
            watch.note(Instant::now(), &Event::LinkUp, true);
            watch.ready();
            assert!(!watch.note(Instant::now(), &Event::LinkDown, true), "the end of a link that worked is no sign");
        }
    }

    #[test]
    fn a_link_counts_once_whether_it_is_refused_or_dropped_or_both() {
        let (mut watch, now) = (BondWatch::default(), Instant::now());
        for n in 1..=SIGNS {
            watch.note(now, &Event::LinkUp, true);
            assert_eq!(watch.refused(true), n == SIGNS);
            assert!(!watch.note(now, &Event::LinkDown, true));
        }
    }
}
