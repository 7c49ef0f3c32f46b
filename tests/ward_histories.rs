//! Random histories of a ward of 20 patients, told late, twice, out of order, with cancellations and contradictions, against
//! a second implementation that looks at all events for each reading. What stands in the charts in the end is what it says.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bedrail::deliver::Placements;
use bedrail::reading::*;
use bedrail::ward::{Change, EventSource, Movement, Ward, WardEvent};

const PATIENTS: u64 = 20;
const DEVICES: u8 = 6;
const BEDS: u64 = 5;
/// Events lie at even times, readings at odd ones: which of two at the same time comes first is nobody's to say.
const SPAN: u64 = 200;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).rev().for_each(|i| all.swap(i, self.below(i as u64 + 1) as usize));
    }

    fn patient(&mut self) -> SubjectKey {
        format!("p-{}", self.below(PATIENTS)).parse().unwrap()
    }

    fn bed(&mut self) -> String {
        self.below(BEDS).to_string()
    }

    fn device(&mut self) -> DeviceId {
        device(self.below(u64::from(DEVICES)) as u8)
    }

    fn change(&mut self) -> Change {
        match self.below(16) {
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
            _ => Change::Vacate { bed: self.bed() },
        }
    }
}

fn device(n: u8) -> DeviceId {
    DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, n])
}

/// The second implementation. It keeps no intervals: for one reading it goes through everything that is known, in order of
/// time, and asks what it comes to.
mod naive {
    use super::*;

    pub fn whose(events: &[WardEvent], device: DeviceId, at: i64) -> Option<SubjectKey> {
        let mut in_order: Vec<&WardEvent> = events.iter().collect();
        in_order.sort_by_key(|event| (event.at.0, event.n));
        let past: Vec<&WardEvent> = in_order.iter().filter(|event| !is_cancelled(&in_order, event)).copied().collect();
        let past: Vec<&WardEvent> = past.into_iter().filter(|event| event.at.0 <= at).collect();
        let (mut paired, mut stands, mut lies) = (None, None, BTreeMap::<SubjectKey, String>::new());
        for (i, event) in past.iter().enumerate() {
            let merged = pairs(&past[..i]);
            let same = |a: &SubjectKey, b: &SubjectKey| last_key(&merged, a) == last_key(&merged, b);
            let mut lay = |who: &SubjectKey, bed: &String| {
                lies.retain(|other, _| !same(other, who));
                lies.insert(who.clone(), bed.clone());
            };
            match &event.change {
                Change::Pair { device: of, subject, .. } if *of == device => paired = Some(subject.clone()),
                Change::Unpair { device: of, .. } if *of == device => paired = None,
                Change::Place { device: of, bed } if *of == device => stands = Some(bed.clone()),
                Change::Unplace { device: of } if *of == device => stands = None,
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
                    paired = paired.filter(|other| !same(other, subject));
                }
                _ => {}
            }
        }
        // Who is who is known of all times, however late it was found out.
        let all: Vec<&WardEvent> = in_order.clone();
        let merged = pairs(&all);
        let in_bed: BTreeSet<SubjectKey> =
            lies.iter().filter(|(_, bed)| Some(*bed) == stands.as_ref()).map(|(who, _)| last_key(&merged, who)).collect();
        match paired.map(|who| last_key(&merged, &who)) {
            Some(who) => (in_bed.is_empty() || in_bed.contains(&who)).then_some(who),
            None => in_bed.first().filter(|_| in_bed.len() == 1).cloned(),
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

/// A chart that files by record and placement: at one version a retraction wins, whatever comes when.
#[derive(Default)]
struct Chart(BTreeMap<(u64, Placement), (SubjectKey, bool)>);

impl Chart {
    fn put(&mut self, record: u64, placement: Placement, subject: &SubjectKey) {
        self.0.entry((record, placement)).or_insert_with(|| (subject.clone(), false));
    }

    fn retract(&mut self, record: u64, placement: Placement) {
        self.0.get_mut(&(record, placement)).expect("only what was put is taken back").1 = true;
    }

    fn standing(&self, record: u64) -> Vec<SubjectKey> {
        let all = self.0.iter().filter(|((of, _), (_, retracted))| *of == record && !retracted);
        all.map(|(_, (subject, _))| subject.clone()).collect()
    }
}

/// What a route does with its readings, in the small: those not settled are sent, answers get lost, and at each new event
/// what was sent is looked at again.
struct Gateway {
    site: SiteKey,
    events: Vec<WardEvent>,
    ward: Ward,
    /// By record number: of which device and time, and whether it is settled.
    readings: BTreeMap<u64, (DeviceId, i64, bool)>,
    placements: Placements,
    chart: Chart,
    sent: BTreeSet<u64>,
    /// To whom each went, in order.
    path: BTreeMap<u64, Vec<SubjectKey>>,
}

impl Gateway {
    fn stream(device: DeviceId) -> StreamKey {
        StreamKey { device, user: None, metric: Metric::Spo2, site: None, modality: Modality::Spot }
    }

    fn learn(&mut self, event: WardEvent) {
        self.events.push(event);
        self.ward = Ward::fold(&self.events);
        for (n, (device, at, settled)) in &mut self.readings {
            let stream = Self::stream(*device);
            let Some(row) = self.placements.of(&stream, Seq(*n)).filter(|_| self.sent.contains(n)) else { continue };
            let Some(stands) = row.subject.clone() else { continue };
            let time = WallTime { at: Timestamp(*at), quality: ClockQuality::Ntp, uncertainty_ms: 0 };
            let belongs = self.ward.bind(*device, None, time).ok().map(|binding| binding.subject);
            if belongs.as_ref() != Some(self.ward.known_as(&stands)) {
                self.chart.retract(*n, row.placement);
                self.placements.take_back(&stream, Seq(*n));
                self.sent.remove(n);
                *settled = false;
            }
        }
    }

    /// Sends what it may; one answer in `lost` is lost (0: none).
    fn send(&mut self, random: &mut Random, lost: u64) {
        let due: Vec<u64> = self.readings.iter().filter(|(_, (_, _, settled))| !settled).map(|(n, _)| *n).collect();
        for n in due {
            let (device, at, _) = self.readings[&n];
            let time = WallTime { at: Timestamp(at), quality: ClockQuality::Ntp, uncertainty_ms: 0 };
            let Ok(binding) = self.ward.bind(device, None, time) else { continue };
            assert_eq!(Some(&binding.subject), naive::whose(&self.events, device, at).as_ref(), "against what was known");
            let stream = Self::stream(device);
            let row = self.placements.of(&stream, Seq(n)).filter(|row| row.subject.is_some() && self.sent.contains(&n));
            let placement = match row {
                Some(row) => row.placement,
                // Nothing behind it was sent before something that was.
                None => {
                    let until = self.sent.range(n + 1..).next().map_or(n, |next| next - 1);
                    self.placements.place(&self.site, &stream, Seq(n), Seq(until), &binding)
                }
            };
            if self.sent.insert(n) {
                self.path.entry(n).or_default().push(binding.subject.clone());
            }
            self.chart.put(n, placement, &binding.subject);
            self.readings.get_mut(&n).unwrap().2 = lost == 0 || !random.one_in(lost);
        }
    }
}

/// One random ward, told in random order; answers how many records moved and how many moved back.
fn one_history(seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let count = 30 + random.below(60);
    let mut told: Vec<WardEvent> = (1..=count)
        .map(|n| {
            let at = Timestamp(2 * random.below(SPAN / 2) as i64);
            let source = if random.one_in(2) { EventSource::Command } else { EventSource::Scan };
            WardEvent { n, at, learned: at, source, operator: "nurse".into(), change: random.change() }
        })
        .collect();
    // Some are told twice, some never, and all in any order; those of one time keep theirs.
    let again: Vec<WardEvent> = told.iter().filter(|_| random.one_in(8)).cloned().collect();
    told.retain(|_| !random.one_in(12));
    told.extend(again);
    random.shuffle(&mut told);
    let site = SiteKey::new(&[7; 32]);
    let mut gateway = Gateway {
        site,
        events: Vec::new(),
        ward: Ward::default(),
        readings: BTreeMap::new(),
        placements: Placements::default(),
        chart: Chart::default(),
        sent: BTreeSet::new(),
        path: BTreeMap::new(),
    };
    let mut next = 1;
    for event in told {
        for _ in 0..random.below(4) {
            gateway.readings.insert(next, (random.device(), 1 + 2 * random.below(SPAN / 2) as i64, false));
            next += 1;
        }
        if !random.one_in(3) {
            gateway.send(&mut random, 4);
        }
        gateway.learn(event);
    }
    gateway.send(&mut random, 0);
    for (n, (device, at, _)) in &gateway.readings {
        let standing: Vec<SubjectKey> =
            gateway.chart.standing(*n).iter().map(|who| naive::person(&gateway.events, who)).collect();
        let belongs: Vec<SubjectKey> = naive::whose(&gateway.events, *device, *at).into_iter().collect();
        assert_eq!(standing, belongs, "seed {seed}: record {n} of {device} at {at}");
    }
    let moved = gateway.path.values().filter(|path| path.len() > 1).count() as u64;
    let back = |path: &&Vec<SubjectKey>| path.iter().collect::<BTreeSet<_>>().len() < path.len();
    (moved, gateway.path.values().filter(back).count() as u64)
}

#[test]
fn the_charts_in_the_end_are_those_of_the_history_however_late_it_is_told() {
    let histories = if std::env::var_os("BEDRAIL_LONG").is_some() { 20_000 } else { 150 };
    let (mut moved, mut back) = (0, 0);
    for seed in 0..histories {
        let (some, again) = one_history(seed);
        (moved, back) = (moved + some, back + again);
    }
    println!("{histories} histories: {moved} records went to more than one chart, {back} of them to one of these twice");
    assert!(moved > histories / 2 && back > 0, "the histories move nothing: {moved}, {back}");
}
