//! Random histories of a ward of 20 patients, told late, twice, out of order, with cancellations and contradictions, against
//! a second implementation that looks at all events for each reading. What stands in the charts in the end is what it says.

#![allow(clippy::unwrap_used)]

mod histories;

use std::collections::{BTreeMap, BTreeSet};

use bedrail::deliver::Placements;
use bedrail::reading::*;
use bedrail::ward::{EventSource, Ward, WardEvent};
use histories::{Random, SPAN, naive};

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
