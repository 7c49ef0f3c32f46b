//! Which stream speaks for a patient when several measure the same thing: a choice of one, with its device's name on it,
//! and never a mixture.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::reading::{Decimal, DeviceId, Unit, Window, WindowSummary};

/// A stream that covers less of a slot than this does not speak for the patient.
pub const MIN_COVERAGE_PERMILLE: u16 = 500;

/// One stream's window of the slot in question; all candidates are of one patient, metric and slot.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub device: DeviceId,
    pub device_name: &'a str,
    pub device_kind: &'a str,
    pub window: &'a Window,
}

/// How to choose: `prefer`, `agree_within` and `min_coverage` of the config.
#[derive(Clone, Copy, Debug)]
pub struct Preference<'a> {
    /// Device names or kinds, the most wanted first; what is not listed comes after all that is.
    pub prefer: &'a [String],
    /// A difference in a unit of the metric; `None` compares nothing.
    pub agree_within: Option<(Decimal, Unit)>,
    pub min_coverage_permille: u16,
}

impl Default for Preference<'_> {
    fn default() -> Self {
        Self { prefer: &[], agree_within: None, min_coverage_permille: MIN_COVERAGE_PERMILLE }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Place among the candidates; `None` when no stream covers enough: nothing is sent, and the slot is counted.
    pub chosen: Option<usize>,
    /// Every other device with a window of the slot, whatever its coverage, in order of its address.
    pub others: Vec<DeviceId>,
    /// Another stream with enough coverage says something else.
    pub sources_disagree: bool,
}

/// By preference, then by coverage, then by address: the same candidates in any order give the same stream.
pub fn choose(candidates: &[Candidate], preference: &Preference) -> Choice {
    let eligible =
        |candidate: &Candidate| candidate.window.n > 0 && candidate.window.coverage_permille >= preference.min_coverage_permille;
    let ranked = |(_, a): &(usize, &Candidate), (_, b): &(usize, &Candidate)| by_rank(a, b, preference.prefer);
    let chosen = candidates.iter().enumerate().filter(|(_, c)| eligible(c)).min_by(ranked);
    let speaker = chosen.map(|(_, candidate)| candidate.device);
    let others: BTreeSet<DeviceId> = candidates.iter().map(|c| c.device).filter(|device| Some(*device) != speaker).collect();
    let sources_disagree = match (chosen, preference.agree_within) {
        (Some((place, chosen)), Some(within)) => candidates
            .iter()
            .enumerate()
            .filter(|(other, candidate)| *other != place && eligible(candidate))
            .any(|(_, other)| !agree(chosen.window, other.window, within)),
        _ => false,
    };
    Choice { chosen: chosen.map(|(place, _)| place), others: others.into_iter().collect(), sources_disagree }
}

fn by_rank(a: &Candidate, b: &Candidate, prefer: &[String]) -> Ordering {
    let rank = |c: &Candidate| prefer.iter().position(|p| p == c.device_name || p == c.device_kind).unwrap_or(prefer.len());
    (rank(a).cmp(&rank(b)))
        .then(b.window.coverage_permille.cmp(&a.window.coverage_permille))
        .then(a.device.cmp(&b.device))
        .then(a.window.source.cmp(&b.window.source)) // two sites of one device
}

/// Whether two windows lie no further apart than `within`. Units are not converted here, and what cannot be compared does
/// not agree: the flag asks a person to look, it holds nothing back.
fn agree(chosen: &Window, other: &Window, (within, unit): (Decimal, Unit)) -> bool {
    let (Some(a), Some(b)) = (spoken(chosen), spoken(other)) else { return false };
    if chosen.unit != unit || other.unit != unit {
        return false;
    }
    a.checked_sub(b).and_then(magnitude).is_some_and(|apart| apart.cmp_value(within).is_le())
}

/// The one value a window stands for.
fn spoken(window: &Window) -> Option<Decimal> {
    match window.summary.as_ref()? {
        WindowSummary::Stats { median, .. } => Some(median.value),
        WindowSummary::Last { last } => Some(last.value),
        WindowSummary::Counter { increase, .. } => Some(*increase),
    }
}

fn magnitude(value: Decimal) -> Option<Decimal> {
    Some(Decimal::new(value.mantissa().checked_abs()?, value.exponent()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Sample, Seq, Timestamp, Unit};

    fn d(text: &str) -> Decimal {
        text.parse().expect("a decimal in a test")
    }

    fn device(last: u8) -> DeviceId {
        DeviceId::new([0, 0x1C, 5, 1, 2, last])
    }

    fn window(median: &str, coverage_permille: u16) -> Window {
        let sample = Sample { at: Timestamp(60_000), value: d(median) };
        let summary = WindowSummary::Stats { median: sample, min: sample, max: sample, mean: d(median) };
        Window {
            start: Timestamp(60_000),
            length_s: 60,
            from: Timestamp(60_000),
            to: Timestamp(120_000),
            n: 1,
            unit: Unit::Percent,
            summary: Some(summary),
            coverage_permille,
            excluded: vec![],
            source: (Seq(1), Seq(1)),
        }
    }

    fn candidate<'a>(last: u8, name: &'a str, window: &'a Window) -> Candidate<'a> {
        Candidate { device: device(last), device_name: name, device_kind: "pulse-oximeter", window }
    }

    #[test]
    fn a_preferred_device_speaks_unless_it_covers_too_little() {
        let (steady, short) = (window("97", 1000), window("91", 499));
        let (a, b) = (candidate(1, "oxi-01", &steady), candidate(7, "oxi-07", &short));
        let prefer = ["oxi-07".to_owned(), "pulse-oximeter".to_owned()];
        let preference = Preference { prefer: &prefer, ..Default::default() };
        let choice = choose(&[a, b], &preference);
        assert_eq!(choice, Choice { chosen: Some(0), others: vec![device(7)], sources_disagree: false });
        let enough = window("91", 500);
        assert_eq!(choose(&[a, candidate(7, "oxi-07", &enough)], &preference).chosen, Some(1));
    }

    #[test]
    fn without_preference_the_better_covered_stream_speaks_and_then_the_lower_address() {
        let (less, more) = (window("97", 700), window("96", 900));
        let both = [candidate(1, "a", &less), candidate(2, "b", &more)];
        assert_eq!(choose(&both, &Preference::default()).chosen, Some(1));
        let equal = [candidate(2, "b", &more), candidate(1, "a", &more)];
        assert_eq!(choose(&equal, &Preference::default()).chosen, Some(1));
    }

    #[test]
    fn a_slot_nobody_covers_has_no_value() {
        let (a, b) = (window("97", 100), window("96", 499));
        let choice = choose(&[candidate(2, "b", &b), candidate(1, "a", &a)], &Preference::default());
        assert_eq!(choice, Choice { chosen: None, others: vec![device(1), device(2)], sources_disagree: false });
        assert_eq!(choose(&[], &Preference::default()).chosen, None);
    }

    #[test]
    fn sources_disagree_by_exact_decimals_in_the_metrics_unit() {
        let chosen = window("50", 1000);
        let disagree = |other: &str, within: &str| {
            let other = window(other, 900);
            let preference = Preference { agree_within: Some((d(within), Unit::Percent)), ..Default::default() };
            choose(&[candidate(1, "a", &chosen), candidate(2, "b", &other)], &preference).sources_disagree
        };
        assert!(!disagree("46", "4"), "four points, not four hundredths of 50");
        assert!(disagree("45.99", "4"));
        assert!(!disagree("54.0", "4"));
        assert!(!disagree("49.5", "0.5"));
        assert!(disagree("49.49", "0.5"));
    }

    #[test]
    fn a_stream_with_too_little_coverage_is_listed_but_no_witness() {
        let (chosen, brief) = (window("97", 1000), window("60", 200));
        let preference = Preference { agree_within: Some((d("4"), Unit::Percent)), ..Default::default() };
        let choice = choose(&[candidate(1, "a", &chosen), candidate(2, "b", &brief)], &preference);
        assert_eq!((choice.others, choice.sources_disagree), (vec![device(2)], false));
    }
}
