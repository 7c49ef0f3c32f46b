//! Random histories of a ward of 20 patients, and a second implementation of what they mean, which looks at all events for
//! each reading.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use bedrail::reading::*;
use bedrail::ward::{Change, Movement, WardEvent};

pub const PATIENTS: u64 = 20;
pub const DEVICES: u8 = 6;
const BEDS: u64 = 5;
/// Events lie at even times, readings at odd ones: which of two at the same time comes first is nobody's to say.
pub const SPAN: u64 = 200;

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).rev().for_each(|i| all.swap(i, self.below(i as u64 + 1) as usize));
    }

    pub fn patient(&mut self) -> SubjectKey {
        format!("p-{}", self.below(PATIENTS)).parse().unwrap()
    }

    pub fn bed(&mut self) -> String {
        self.below(BEDS).to_string()
    }

    pub fn device(&mut self) -> DeviceId {
        device(self.below(u64::from(DEVICES)) as u8)
    }

    pub fn change(&mut self) -> Change {
        match self.below(21) {
            0 | 1 => Change::Place { device: self.device(), bed: self.bed() },
            2 => Change::Unplace { device: self.device() },
            3..=5 => Change::Admit { subject: self.patient(), bed: (!self.one_in(5)).then(|| self.bed()) },
            6 | 7 => Change::Transfer { subject: self.patient(), bed: self.bed() },
            8 => Change::Discharge { subject: self.patient() },
            9 => {
                let of = [Movement::Admit, Movement::Transfer, Movement::Discharge][self.below(3) as usize];
                Change::Cancel { subject: self.patient(), of }
            }
            10 => Change::Swap { first: (self.patient(), self.bed()), second: (self.patient(), self.bed()) },
            11 => Change::Merge { from: self.patient(), into: self.patient() },
            12 => Change::Pair { device: self.device(), user: None, subject: self.patient() },
            13 => Change::Unpair { device: self.device(), user: None },
            14 => Change::Occupy { bed: self.bed(), subject: self.patient() },
            15 => Change::Vacate { bed: self.bed() },
            16 | 17 => {
                let for_ms = 2 * (1 + self.below(20)) as i64;
                Change::Spot { device: self.device(), subject: self.patient(), for_ms, readings: u16::MAX }
            }
            18 => Change::Replace { old: self.device(), new: self.device() },
            19 => Change::Retire { device: self.device() },
            _ => Change::Clean { device: self.device() },
        }
    }
}

pub fn device(n: u8) -> DeviceId {
    DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, n])
}

/// The second implementation. It keeps no intervals: for one reading it goes through everything that is known, in order of
/// time, and asks what it comes to.
pub mod naive {
    use super::*;

    pub fn whose(events: &[WardEvent], device: DeviceId, at: i64) -> Option<SubjectKey> {
        let mut in_order: Vec<&WardEvent> = events.iter().collect();
        in_order.sort_by_key(|event| (event.at.0, event.n));
        let past: Vec<&WardEvent> = in_order.iter().filter(|event| !is_cancelled(&in_order, event)).copied().collect();
        let past: Vec<&WardEvent> = past.into_iter().filter(|event| event.at.0 <= at).collect();
        let mut now = Now::default();
        for (i, event) in past.iter().enumerate() {
            now.take(event, &pairs(&past[..i]));
        }
        if now.retired.contains(&device) {
            return None;
        }
        // Who is who is known of all times, however late it was found out.
        let all: Vec<&WardEvent> = in_order.clone();
        let merged = pairs(&all);
        let in_bed: BTreeSet<SubjectKey> = now
            .lies
            .iter()
            .filter(|(_, bed)| Some(*bed) == now.stands.get(&device))
            .map(|(who, _)| last_key(&merged, who))
            .collect();
        let scanned = now.scanned.get(&device).filter(|(_, until)| at < *until).map(|(who, _)| who);
        match scanned.or(now.paired.get(&device)).map(|who| last_key(&merged, who)) {
            Some(who) => (in_bed.is_empty() || in_bed.contains(&who)).then_some(who),
            None => in_bed.first().filter(|_| in_bed.len() == 1).cloned(),
        }
    }

    /// All that holds at one moment.
    #[derive(Default)]
    struct Now {
        paired: BTreeMap<DeviceId, SubjectKey>,
        /// And until when.
        scanned: BTreeMap<DeviceId, (SubjectKey, i64)>,
        stands: BTreeMap<DeviceId, String>,
        lies: BTreeMap<SubjectKey, String>,
        retired: BTreeSet<DeviceId>,
    }

    impl Now {
        fn take(&mut self, event: &WardEvent, merged: &[(SubjectKey, SubjectKey)]) {
            let same = |a: &SubjectKey, b: &SubjectKey| last_key(merged, a) == last_key(merged, b);
            let lies = &mut self.lies;
            let mut lay = |who: &SubjectKey, bed: &String| {
                lies.retain(|other, _| !same(other, who));
                lies.insert(who.clone(), bed.clone());
            };
            match &event.change {
                Change::Pair { device, subject, .. } => {
                    self.scanned.remove(device);
                    self.paired.insert(*device, subject.clone());
                }
                Change::Unpair { device, .. } => self.let_go(*device),
                Change::Spot { device, subject, for_ms, .. } => {
                    self.scanned.insert(*device, (subject.clone(), event.at.0 + for_ms));
                }
                Change::Place { device, bed } => drop(self.stands.insert(*device, bed.clone())),
                Change::Unplace { device } => drop(self.stands.remove(device)),
                Change::Admit { subject, bed: Some(bed) } | Change::Transfer { subject, bed } => lay(subject, bed),
                Change::Swap { first, second } => {
                    lay(&first.0, &first.1);
                    lay(&second.0, &second.1);
                }
                Change::Occupy { bed, subject } => {
                    lies.retain(|other, of| of != bed && !same(other, subject));
                    lies.insert(subject.clone(), bed.clone());
                }
                Change::Vacate { bed } => lies.retain(|_, of| of != bed),
                Change::Discharge { subject } => {
                    lies.retain(|other, _| !same(other, subject));
                    self.paired.retain(|_, other| !same(other, subject));
                    self.scanned.retain(|_, (other, _)| !same(other, subject));
                }
                Change::Replace { old, new } => {
                    let (paired, stands) = (self.paired.get(old).cloned(), self.stands.get(old).cloned());
                    self.let_go(*old);
                    self.retired.insert(*old);
                    paired.map(|who| self.paired.insert(*new, who));
                    if let Some(bed) = stands {
                        self.stands.remove(old);
                        self.stands.insert(*new, bed);
                    }
                }
                Change::Retire { device } => {
                    self.let_go(*device);
                    self.retired.insert(*device);
                }
                Change::Clean { device } => {
                    self.let_go(*device);
                    self.retired.remove(device);
                }
                Change::Admit { bed: None, .. } | Change::Cancel { .. } | Change::Merge { .. } | Change::Name { .. } => {}
            }
        }

        fn let_go(&mut self, device: DeviceId) {
            self.scanned.remove(&device);
            self.paired.remove(&device);
        }
    }

    pub fn person(events: &[WardEvent], who: &SubjectKey) -> SubjectKey {
        let mut in_order: Vec<&WardEvent> = events.iter().collect();
        in_order.sort_by_key(|event| (event.at.0, event.n));
        last_key(&pairs(&in_order), who)
    }

    fn is_cancelled(in_order: &[&WardEvent], event: &WardEvent) -> bool {
        let kind = |event: &WardEvent| match &event.change {
            Change::Admit { subject, .. } => Some((subject.clone(), Movement::Admit)),
            Change::Transfer { subject, .. } => Some((subject.clone(), Movement::Transfer)),
            Change::Discharge { subject } => Some((subject.clone(), Movement::Discharge)),
            _ => None,
        };
        let Some(of) = kind(event) else { return false };
        // Like brackets: going on from the event, each cancellation takes the nearest before it that is still open.
        let (mut open, mut told, mut reached) = (0, BTreeSet::new(), false);
        for other in in_order {
            if let Change::Cancel { subject, of: what } = &other.change {
                let first = told.insert((other.at.0, subject.clone(), *what));
                if first && reached && (subject, what) == (&of.0, &of.1) {
                    if open == 0 {
                        return true;
                    }
                    open -= 1;
                }
            } else if other.n == event.n {
                reached = true;
            } else if reached && kind(other).as_ref() == Some(&of) {
                open += 1;
            }
        }
        false
    }

    fn pairs(events: &[&WardEvent]) -> Vec<(SubjectKey, SubjectKey)> {
        let merge = |event: &&WardEvent| match &event.change {
            Change::Merge { from, into } => Some((from.clone(), into.clone())),
            _ => None,
        };
        events.iter().filter_map(merge).collect()
    }

    /// Every key carries a name; a merge renames all who carry the one to the other.
    fn last_key(merges: &[(SubjectKey, SubjectKey)], who: &SubjectKey) -> SubjectKey {
        let mut named: BTreeMap<SubjectKey, SubjectKey> = BTreeMap::new();
        for (from, into) in merges {
            let name = |key: &SubjectKey| named.get(key).unwrap_or(key).clone();
            let (old, new) = (name(from), name(into));
            named.entry(from.clone()).or_insert_with(|| from.clone());
            named.entry(into.clone()).or_insert_with(|| into.clone());
            named.values_mut().filter(|name| **name == old).for_each(|name| *name = new.clone());
        }
        named.get(who).unwrap_or(who).clone()
    }
}
