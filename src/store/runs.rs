//! Runs of sequence numbers: what a route still owns, in a few octets however much it is. Pure.

use crate::reading::Seq;

/// The end of a run that takes in whatever is appended later.
pub const OPEN: Seq = Seq(i64::MAX as u64);

/// Sorted, disjoint, non-adjacent runs, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(Seq, Seq)>);

impl Runs {
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Seq, Seq)> + '_ {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Records in it up to and including `head`.
    pub fn count_to(&self, head: Seq) -> u64 {
        self.iter().filter(|(first, _)| *first <= head).map(|(first, last)| last.min(head).0 - first.0 + 1).sum()
    }

    pub fn contains(&self, seq: Seq) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        after > 0 && self.0[after - 1].1 >= seq
    }

    /// The lowest member at or after `from`.
    pub fn next_from(&self, from: Seq) -> Option<Seq> {
        let at = self.0.partition_point(|(_, last)| *last < from);
        self.0.get(at).map(|(first, _)| (*first).max(from))
    }

    /// The last member of the run `seq` is in.
    pub fn end_of(&self, seq: Seq) -> Option<Seq> {
        self.iter().find(|(first, last)| *first <= seq && seq <= *last).map(|(_, last)| last)
    }

    pub fn insert(&mut self, first: Seq, last: Seq) {
        if first > last {
            return;
        }
        let start = self.0.partition_point(|(_, l)| l.0.saturating_add(1) < first.0);
        let end = self.0.partition_point(|(f, _)| f.0 <= last.0.saturating_add(1));
        let merged = self.0[start..end].iter().fold((first, last), |(f, l), run| (f.min(run.0), l.max(run.1)));
        self.0.splice(start..end, [merged]);
    }

    pub fn remove(&mut self, first: Seq, last: Seq) {
        if first > last {
            return;
        }
        let start = self.0.partition_point(|(_, l)| *l < first);
        let end = self.0.partition_point(|(f, _)| *f <= last);
        if start >= end {
            return;
        }
        let (left, right) = (self.0[start].0, self.0[end - 1].1);
        let mut rest = Vec::with_capacity(2);
        if left < first {
            rest.push((left, Seq(first.0 - 1)));
        }
        if right > last {
            rest.push((last.next(), right));
        }
        self.0.splice(start..end, rest);
    }
}

impl Runs {
    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Runs) -> Runs {
        let pairs = self.iter().flat_map(|(a, b)| other.iter().map(move |(c, d)| (a.max(c), b.min(d))));
        pairs.filter(|(first, last)| first <= last).collect()
    }
}

impl FromIterator<(Seq, Seq)> for Runs {
    fn from_iter<I: IntoIterator<Item = (Seq, Seq)>>(runs: I) -> Self {
        let mut all = Self::default();
        runs.into_iter().for_each(|(first, last)| all.insert(first, last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn runs_hold_what_a_plain_set_holds(ops in proptest::collection::vec((any::<bool>(), 1u64..60, 0u64..12), 0..40)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (insert, first, length) in ops {
                let (first, last) = (Seq(first), Seq(first + length));
                if insert {
                    runs.insert(first, last);
                    set.extend(first.0..=last.0);
                } else {
                    runs.remove(first, last);
                    (first.0..=last.0).for_each(|seq| { set.remove(&seq); });
                }
                let members: BTreeSet<u64> = runs.iter().flat_map(|(f, l)| f.0..=l.0).collect();
                prop_assert_eq!(&members, &set);
                let pairs: Vec<_> = runs.iter().collect();
                prop_assert!(pairs.windows(2).all(|w| w[0].1.0 + 1 < w[1].0.0), "{:?}", pairs);
                for seq in 0..80 {
                    prop_assert_eq!(runs.contains(Seq(seq)), set.contains(&seq));
                    prop_assert_eq!(runs.next_from(Seq(seq)).map(|s| s.0), set.range(seq..).next().copied());
                }
                prop_assert_eq!(runs.count_to(Seq(30)), set.range(..=30).count() as u64);
                let some: Runs = [(Seq(10), Seq(20)), (Seq(30), Seq(31))].into_iter().collect();
                prop_assert!((0..80).map(Seq).all(|seq| runs.and(&some).contains(seq) == (runs.contains(seq) && some.contains(seq))));
            }
        }
    }

    #[test]
    fn an_open_run_takes_in_everything_to_come() {
        let mut runs: Runs = [(Seq(5), OPEN)].into_iter().collect();
        runs.remove(Seq(5), Seq(9));
        assert_eq!(runs.iter().collect::<Vec<_>>(), [(Seq(10), OPEN)]);
        runs.insert(Seq(7), Seq(9));
        assert_eq!(runs.iter().collect::<Vec<_>>(), [(Seq(7), OPEN)]);
        assert_eq!(runs.count_to(Seq(9)), 3);
        assert!(runs.contains(Seq(1 << 40)));
    }
}
