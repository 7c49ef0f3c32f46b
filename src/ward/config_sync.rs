//! What the config says about assignments, as events: a line that appears begins something, a line that goes ends what it
//! began. It speaks only when its text changed, so a restart never overrides what a person said since.

use std::collections::{BTreeMap, BTreeSet};

use super::fold::{Interval, Timeline, Topic, topic};
use super::{Change, EventSource, Ward};
use crate::reading::{DeviceId, SubjectKey, Timestamp, UserIndex};

/// One assignment the config asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub standing: Standing,
    /// Absent: from when the line is first applied, never "always".
    pub from: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Pair { device: DeviceId, user: Option<UserIndex>, subject: SubjectKey },
    Place { device: DeviceId, bed: String },
    Occupy { bed: String, subject: SubjectKey },
}

/// The events that bring the ward's log to what the config says, in the order to append them, with source
/// [`EventSource::Config`]; none when nothing changed since it last spoke. Of two lines about one thing the later counts.
///
/// An event in the past comes only from a `from` that somebody wrote: whether it may still move what was sent is the
/// caller's to check, with [`Ward::changes`].
pub fn sync(ward: &Ward, wanted: &[Wanted], now: Timestamp) -> Vec<(Timestamp, Change)> {
    let wanted: BTreeMap<Topic, (Change, Option<Timestamp>)> = wanted
        .iter()
        .map(|w| (w.standing.change(), w.from))
        .filter_map(|(change, from)| Some((topic(&change)?, (change, from))))
        .collect();
    let mut events = Vec::new();
    for topic in ward.configured.keys().filter(|topic| !wanted.contains_key(topic)) {
        let lasting = begun_by_config(ward, topic).into_iter().filter(|(_, to)| to.is_none_or(|to| now < to));
        events.extend(lasting.map(|(from, _)| (from.max(now), topic.end())));
    }
    for (topic, (change, from)) in &wanted {
        let said = ward.configured.get(topic);
        let last = said.and_then(|said| said.values().next_back()).filter(|(_, last)| last == change);
        if last.is_some_and(|(at, _)| from.is_none_or(|from| from == *at)) {
            continue;
        }
        let begins = from.unwrap_or(now);
        if let Some((at, _)) = last.filter(|(at, _)| *at < begins) {
            events.push((*at, topic.end())); // the same line, now with a later beginning
        }
        // Whatever the config said of later times, it now says this.
        let later: BTreeSet<Timestamp> = said.into_iter().flat_map(BTreeMap::values).map(|(at, _)| *at).collect();
        events.extend(later.into_iter().filter(|at| begins < *at).map(|at| (at, change.clone())));
        events.push((begins, change.clone()));
    }
    events
}

impl Standing {
    fn change(&self) -> Change {
        match self.clone() {
            Standing::Pair { device, user, subject } => Change::Pair { device, user, subject },
            Standing::Place { device, bed } => Change::Place { device, bed },
            Standing::Occupy { bed, subject } => Change::Occupy { bed, subject },
        }
    }
}

impl Topic {
    fn end(&self) -> Change {
        match self.clone() {
            Topic::Pairing(device, user) => Change::Unpair { device, user },
            Topic::Place(device) => Change::Unplace { device },
            Topic::Bed(bed) => Change::Vacate { bed },
        }
    }
}

type Span = (Timestamp, Option<Timestamp>);

fn begun_by_config(ward: &Ward, topic: &Topic) -> Vec<Span> {
    match topic {
        Topic::Pairing(device, user) => spans(ward.pairings.get(&(*device, *user))),
        Topic::Place(device) => spans(ward.places.get(device)),
        Topic::Bed(bed) => ward.beds.get(bed).into_iter().flatten().filter_map(span_of_config).collect(),
    }
}

fn spans<T: Clone>(timeline: Option<&Timeline<T>>) -> Vec<Span> {
    timeline.into_iter().flat_map(Timeline::iter).filter_map(span_of_config).collect()
}

fn span_of_config<T>(interval: &Interval<T>) -> Option<Span> {
    (interval.began.source == EventSource::Config).then_some((interval.from, interval.to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{ClockQuality, WallTime};
    use crate::ward::{HoldReason, WardEvent};
    use proptest::prelude::*;

    const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 1]);

    fn subject(name: &str) -> SubjectKey {
        name.parse().expect("a patient key in a test")
    }

    fn pair(who: &str, from: Option<i64>) -> Wanted {
        let standing = Standing::Pair { device: CUFF, user: None, subject: subject(who) };
        Wanted { standing, from: from.map(Timestamp) }
    }

    #[derive(Default)]
    struct Log(Vec<WardEvent>);

    impl Log {
        fn append(&mut self, source: EventSource, at: Timestamp, change: Change) {
            let n = self.0.len() as u64 + 1;
            self.0.push(WardEvent { n, at, learned: at, source, operator: "somebody".into(), change });
        }

        /// Applies a config and says how many events it took.
        fn apply(&mut self, wanted: &[Wanted], now: i64) -> usize {
            let events = sync(&Ward::fold(&self.0), wanted, Timestamp(now));
            let count = events.len();
            for (at, change) in events {
                self.append(EventSource::Config, at, change);
            }
            count
        }

        fn command(&mut self, at: i64, who: &str) {
            let change = Change::Pair { device: CUFF, user: None, subject: subject(who) };
            self.append(EventSource::Command, Timestamp(at), change);
        }

        fn at(&self, at: i64) -> Result<String, HoldReason> {
            let at = WallTime { at: Timestamp(at), quality: ClockQuality::Ntp, uncertainty_ms: 0 };
            Ward::fold(&self.0).bind(CUFF, None, at).map(|binding| binding.subject.to_string())
        }
    }

    #[test]
    fn a_line_begins_when_it_is_first_applied_and_ends_when_it_goes() {
        let mut log = Log::default();
        assert_eq!(log.apply(&[pair("anna", None)], 100), 1);
        assert_eq!(log.apply(&[pair("anna", None)], 200), 0, "a restart says nothing new");
        assert_eq!(log.apply(&[], 300), 1);
        assert_eq!((log.at(99), log.at(100)), (Err(HoldReason::BeforeAssignment), Ok("anna".into())));
        assert_eq!((log.at(299), log.at(300)), (Ok("anna".into()), Err(HoldReason::NoAssignment)));
        assert_eq!(log.apply(&[pair("anna", None)], 400), 1, "the line is back");
        assert_eq!((log.at(399), log.at(400)), (Err(HoldReason::NoAssignment), Ok("anna".into())));
    }

    #[test]
    fn a_restart_or_a_line_removed_never_undoes_what_a_person_said() {
        let mut log = Log::default();
        log.apply(&[pair("anna", None)], 100);
        log.command(200, "ben");
        assert_eq!(log.apply(&[pair("anna", None)], 300), 0);
        assert_eq!(log.apply(&[], 400), 0);
        assert_eq!(log.at(500), Ok("ben".into()));
        log.apply(&[pair("carl", None)], 600);
        assert_eq!((log.at(599), log.at(600)), (Ok("ben".into()), Ok("carl".into())), "a new text is said");
    }

    #[test]
    fn a_beginning_that_is_moved_moves_and_one_withdrawn_before_its_time_never_was() {
        let mut log = Log::default();
        log.apply(&[pair("anna", Some(100))], 10);
        log.apply(&[pair("anna", Some(200))], 20);
        assert_eq!((log.at(150), log.at(200)), (Err(HoldReason::BeforeAssignment), Ok("anna".into())));
        log.apply(&[pair("anna", Some(50))], 30);
        assert_eq!((log.at(49), log.at(50)), (Err(HoldReason::BeforeAssignment), Ok("anna".into())));
        let mut log = Log::default();
        log.apply(&[pair("anna", Some(500))], 10);
        log.apply(&[], 20);
        assert_eq!(log.at(600), Err(HoldReason::NoAssignment));
        log.apply(&[pair("anna", Some(500))], 30);
        log.apply(&[pair("ben", None)], 40);
        assert_eq!((log.at(40), log.at(600)), (Ok("ben".into()), Ok("ben".into())), "the plan for later was replaced");
    }

    fn any_wanted() -> impl Strategy<Value = Vec<Wanted>> {
        let who = || prop_oneof![Just(subject("anna")), Just(subject("ben"))];
        let pair = (prop::option::of(1u8..3), who()).prop_map(|(user, subject)| Standing::Pair { device: CUFF, user, subject });
        let place = "[AB]".prop_map(|bed| Standing::Place { device: CUFF, bed });
        let occupy = ("[AB]", who()).prop_map(|(bed, subject)| Standing::Occupy { bed, subject });
        let wanted = (prop_oneof![pair, place, occupy], prop::option::of(0i64..1000))
            .prop_map(|(standing, from)| Wanted { standing, from: from.map(Timestamp) });
        prop::collection::vec(wanted, 0..4)
    }

    proptest! {
        #[test]
        fn a_config_applied_twice_says_nothing_new(configs in prop::collection::vec(any_wanted(), 1..6)) {
            let mut log = Log::default();
            for (i, config) in configs.iter().enumerate() {
                let now = 100 * (i as i64 + 1);
                log.apply(config, now);
                prop_assert_eq!(log.apply(config, now + 50), 0);
            }
        }

        #[test]
        fn a_device_paired_by_config_alone_is_bound_as_the_config_says(
            configs in prop::collection::vec(prop::option::of(("[a-c]", prop::option::of(0i64..1000))), 1..8),
        ) {
            let mut log = Log::default();
            let mut now = 0;
            for config in &configs {
                now += 100;
                log.apply(&config.iter().map(|(who, from)| pair(who, *from)).collect::<Vec<_>>(), now);
            }
            let last = configs.last().expect("one at least");
            let expected = last.as_ref().map(|(who, _)| who.clone());
            prop_assert_eq!(log.at(now.max(1000)).ok(), expected);
        }
    }
}
