//! The ward against a second, naive implementation (replay the log up to an instant and look), and its rules one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::reading::{ClockQuality, DeviceId, SubjectKey, Timestamp, UserIndex, WallTime};

const CUFF: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 1]);
const OXIMETER: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0, 0, 2]);

fn subject(name: &str) -> SubjectKey {
    name.parse().expect("a patient key in a test")
}

fn event(n: u64, at: i64, change: Change) -> WardEvent {
    let (at, learned) = (Timestamp(at), Timestamp(at + 7));
    WardEvent { n, at, learned, source: EventSource::Command, operator: "nurse".into(), change }
}

fn pair(device: DeviceId, user: Option<UserIndex>, who: &str) -> Change {
    Change::Pair { device, user, subject: subject(who) }
}

fn place(device: DeviceId, bed: &str) -> Change {
    Change::Place { device, bed: bed.into() }
}

fn occupy(bed: &str, who: &str) -> Change {
    Change::Occupy { bed: bed.into(), subject: subject(who) }
}

fn ward(events: &[(i64, Change)]) -> Ward {
    let numbered = events.iter().enumerate().map(|(i, (at, change))| event(i as u64 + 1, *at, change.clone()));
    Ward::fold(&numbered.collect::<Vec<_>>())
}

fn around(at: i64, uncertainty_ms: u32) -> WallTime {
    WallTime { at: Timestamp(at), quality: ClockQuality::Ntp, uncertainty_ms }
}

fn bound(ward: &Ward, device: DeviceId, user: Option<UserIndex>, at: i64) -> Result<String, HoldReason> {
    ward.bind(device, user, around(at, 0)).map(|binding| binding.subject.to_string())
}

#[test]
fn a_reading_is_bound_by_its_bed_and_names_the_events_that_say_so() {
    let ward = ward(&[(100, place(OXIMETER, "B")), (200, occupy("B", "anna")), (300, occupy("B", "ben"))]);
    assert_eq!(bound(&ward, OXIMETER, None, 199), Err(HoldReason::BeforeAssignment));
    let binding = ward.bind(OXIMETER, None, around(200, 0)).expect("bound");
    assert_eq!((binding.subject, binding.rule, binding.evidence), (subject("anna"), Rule::Bed, vec![1, 2]));
    assert_eq!(bound(&ward, OXIMETER, None, 299), Ok("anna".into()));
    assert_eq!(bound(&ward, OXIMETER, None, 300), Ok("ben".into()));
    assert_eq!(bound(&ward, CUFF, None, 300), Err(HoldReason::NoAssignment));
    assert_eq!(ward.first_assignment(OXIMETER, None), Some(Timestamp(200)));
    let anna = ward.beds().next().expect("a first occupant").1;
    assert_eq!((anna.to, anna.began.learned, anna.ended.map(|e| e.n)), (Some(Timestamp(300)), Timestamp(207), Some(3)));
}

#[test]
fn a_patient_who_moves_leaves_the_old_bed() {
    let ward = ward(&[
        (0, place(OXIMETER, "A")),
        (0, place(CUFF, "B")),
        (10, occupy("A", "anna")),
        (50, occupy("B", "anna")),
        (90, Change::Vacate { bed: "B".into() }),
    ]);
    assert_eq!(bound(&ward, OXIMETER, None, 49), Ok("anna".into()));
    assert_eq!(bound(&ward, OXIMETER, None, 50), Err(HoldReason::NoAssignment));
    assert_eq!(bound(&ward, CUFF, None, 50), Ok("anna".into()));
    assert_eq!(bound(&ward, CUFF, None, 90), Err(HoldReason::NoAssignment));
}

#[test]
fn a_pairing_that_disagrees_with_the_bed_is_left_to_a_person() {
    let ward = ward(&[
        (0, place(CUFF, "B")),
        (10, occupy("B", "anna")),
        (20, pair(CUFF, None, "ben")),
        (30, occupy("B", "ben")),
        (40, Change::Unpair { device: CUFF, user: None }),
    ]);
    assert_eq!(bound(&ward, CUFF, None, 20), Err(HoldReason::Conflict));
    let agreed = ward.bind(CUFF, None, around(30, 0)).expect("bound");
    assert_eq!((agreed.rule, agreed.evidence), (Rule::DevicePairing, vec![3]));
    assert_eq!(ward.bind(CUFF, None, around(40, 0)).map(|b| b.rule), Ok(Rule::Bed));
}

#[test]
fn a_user_nobody_paired_is_never_bound_to_the_general_pairing_or_the_bed() {
    let ward = ward(&[
        (0, place(CUFF, "B")),
        (0, occupy("B", "anna")),
        (0, pair(CUFF, None, "anna")),
        (100, pair(CUFF, Some(1), "ben")),
        (100, Change::Unplace { device: CUFF }),
        (200, Change::Unpair { device: CUFF, user: None }),
        (300, Change::Unpair { device: CUFF, user: Some(1) }),
    ]);
    assert_eq!(bound(&ward, CUFF, Some(2), 50), Ok("anna".into()), "a device paired as a whole covers all its users");
    assert_eq!(bound(&ward, CUFF, Some(2), 100), Err(HoldReason::UnknownUser));
    assert_eq!(bound(&ward, CUFF, Some(1), 100), Ok("ben".into()));
    assert_eq!(bound(&ward, CUFF, None, 100), Ok("anna".into()));
    assert_eq!(bound(&ward, CUFF, None, 200), Err(HoldReason::UnknownUser));
    assert_eq!(bound(&ward, CUFF, Some(1), 300), Err(HoldReason::NoAssignment));
}

#[test]
fn a_time_that_could_be_either_patients_is_held_and_one_that_could_not_is_bound() {
    let ward = ward(&[
        (0, pair(CUFF, None, "anna")),
        (1000, pair(CUFF, None, "anna")),
        (2000, pair(CUFF, None, "ben")),
        (3000, Change::Unpair { device: CUFF, user: None }),
    ]);
    let held = |at, uncertainty_ms| ward.bind(CUFF, None, around(at, uncertainty_ms)).map(|b| b.subject.to_string());
    assert_eq!(held(1000, 900), Ok("anna".into()), "the same patient on both sides is no edge");
    assert_eq!(held(1950, 49), Ok("anna".into()));
    assert_eq!(held(1950, 50), Err(HoldReason::Edge));
    assert_eq!(held(2000, 0), Ok("ben".into()));
    assert_eq!(held(2000, 1), Err(HoldReason::Edge));
    assert_eq!(held(2010, 10), Ok("ben".into()), "no time before the change is possible");
    assert_eq!(held(3010, 11), Err(HoldReason::Edge), "nobody's, or still his");
    assert_eq!(held(1500, u32::MAX), Err(HoldReason::Edge));
}

#[test]
fn a_window_is_cut_where_the_patient_changes_and_each_side_is_bound_as_a_whole() {
    let ward =
        ward(&[(0, place(OXIMETER, "B")), (0, occupy("B", "anna")), (500, occupy("B", "anna")), (700, occupy("B", "ben"))]);
    let at = |ms: i64| Timestamp(ms);
    assert_eq!(ward.edges(OXIMETER, None, at(0), at(1000)), [at(700)]);
    assert_eq!(ward.edges(OXIMETER, None, at(700), at(1000)), []);
    assert_eq!(ward.bind_span(OXIMETER, None, at(0), at(1000)), Err(HoldReason::Edge));
    let sides = [(at(0), at(700)), (at(700), at(1000))].map(|(from, to)| ward.bind_span(OXIMETER, None, from, to));
    assert_eq!(sides.map(|side| side.map(|b| b.subject)), [Ok(subject("anna")), Ok(subject("ben"))]);
}

#[test]
fn a_transfer_learned_late_touches_the_hours_between_and_no_others() {
    let known = [event(1, 0, place(OXIMETER, "B")), event(2, 0, occupy("B", "anna")), event(3, 900, occupy("B", "ben"))];
    let mut all = known.to_vec();
    all.push(event(4, 600, Change::Vacate { bed: "B".into() }));
    let (before, after) = (Ward::fold(&known), Ward::fold(&all));
    let affected = Affected { device: OXIMETER, from: Timestamp(600), to: Timestamp(900) };
    assert_eq!(Ward::changes(&before, &after), [affected]);
    assert_eq!(Ward::changes(&after, &after), []);
    let nothing = Ward::fold(&[]);
    let first = Affected { device: OXIMETER, from: Timestamp(i64::MIN), to: Timestamp(i64::MAX) };
    assert_eq!(Ward::changes(&nothing, &before), [first], "what was unassigned is now before its first assignment");
}

/// The second implementation: what holds at an instant, by replaying everything up to it.
#[derive(Default)]
struct Snapshot {
    pairings: BTreeMap<(DeviceId, Option<UserIndex>), SubjectKey>,
    places: BTreeMap<DeviceId, String>,
    beds: BTreeMap<String, SubjectKey>,
}

fn snapshot(events: &[WardEvent], at: i64) -> Snapshot {
    let mut past: Vec<&WardEvent> = events.iter().filter(|event| event.at.0 <= at).collect();
    past.sort_by_key(|event| (event.at, event.n));
    let mut now = Snapshot::default();
    for event in past {
        match event.change.clone() {
            Change::Pair { device, user, subject } => drop(now.pairings.insert((device, user), subject)),
            Change::Unpair { device, user } => drop(now.pairings.remove(&(device, user))),
            Change::Place { device, bed } => drop(now.places.insert(device, bed)),
            Change::Unplace { device } => drop(now.places.remove(&device)),
            Change::Occupy { bed, subject } => {
                now.beds.retain(|_, other| *other != subject);
                now.beds.insert(bed, subject);
            }
            Change::Vacate { bed } => drop(now.beds.remove(&bed)),
        }
    }
    now
}

fn who(events: &[WardEvent], device: DeviceId, user: Option<UserIndex>, at: i64) -> Result<SubjectKey, HoldReason> {
    let now = snapshot(events, at);
    let someone_by_user = now.pairings.keys().any(|(d, u)| *d == device && u.is_some());
    let paired = match now.pairings.get(&(device, user)) {
        Some(own) => Some(own.clone()),
        None if someone_by_user => {
            let ever = user.is_some() && (0..SPAN).any(|at| snapshot(events, at).pairings.contains_key(&(device, user)));
            return Err(if ever { HoldReason::NoAssignment } else { HoldReason::UnknownUser });
        }
        None => now.pairings.get(&(device, None)).cloned(),
    };
    let by_bed = now.places.get(&device).and_then(|bed| now.beds.get(bed)).cloned();
    match (paired, by_bed) {
        (Some(paired), Some(by_bed)) if paired != by_bed => Err(HoldReason::Conflict),
        (Some(subject), _) | (None, Some(subject)) => Ok(subject),
        (None, None) => Err(HoldReason::NoAssignment),
    }
}

fn expected(
    events: &[WardEvent],
    device: DeviceId,
    user: Option<UserIndex>,
    at: i64,
    uncertainty: i64,
) -> Result<SubjectKey, HoldReason> {
    let here = who(events, device, user, at);
    if matches!(here, Err(HoldReason::Conflict | HoldReason::UnknownUser)) {
        return here;
    }
    if (at - uncertainty..=at + uncertainty).any(|near| who(events, device, user, near) != here) {
        return Err(HoldReason::Edge);
    }
    here.map_err(|reason| if assigned_by(events, device, user, at) { reason } else { not_yet(events, device, user) })
}

fn assigned_by(events: &[WardEvent], device: DeviceId, user: Option<UserIndex>, at: i64) -> bool {
    (0..=at).any(|at| matches!(who(events, device, user, at), Ok(_) | Err(HoldReason::Conflict)))
}

fn not_yet(events: &[WardEvent], device: DeviceId, user: Option<UserIndex>) -> HoldReason {
    if assigned_by(events, device, user, SPAN) { HoldReason::BeforeAssignment } else { HoldReason::NoAssignment }
}

/// Times of the random histories lie in `0..SPAN`.
const SPAN: i64 = 24;

fn any_history() -> impl Strategy<Value = Vec<WardEvent>> {
    let device = prop_oneof![Just(CUFF), Just(OXIMETER)];
    let user = prop_oneof![3 => Just(None), 1 => Just(Some(1)), 1 => Just(Some(2))];
    let bed = prop_oneof![Just("A".to_owned()), Just("B".to_owned())];
    let who = prop_oneof![Just(subject("anna")), Just(subject("ben")), Just(subject("carl"))];
    let change = (0..9, device, user, bed, who).prop_map(|(kind, device, user, bed, subject)| match kind {
        0 | 1 => Change::Pair { device, user, subject },
        2 => Change::Unpair { device, user },
        3 | 4 => Change::Place { device, bed },
        5 => Change::Unplace { device },
        6 | 7 => Change::Occupy { bed, subject },
        _ => Change::Vacate { bed },
    });
    prop::collection::vec((0..SPAN, change), 0..14)
        .prop_map(|all| all.into_iter().enumerate().map(|(i, (at, change))| event(i as u64 + 1, at, change)).collect())
}

fn everyone() -> impl Iterator<Item = (DeviceId, Option<UserIndex>)> {
    [CUFF, OXIMETER].into_iter().flat_map(|device| [None, Some(1), Some(2), Some(7)].map(|user| (device, user)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_events_in_any_order_make_the_same_ward(
        (events, shuffled) in any_history().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let ward = Ward::fold(&events);
        prop_assert_eq!(&ward, &Ward::fold(&shuffled));
        let twice: Vec<WardEvent> = shuffled.iter().chain(&events).cloned().collect();
        prop_assert_eq!(&ward, &Ward::fold(&twice));
    }

    #[test]
    fn binding_agrees_with_replaying_the_log_to_that_instant(events in any_history(), uncertainty in 0i64..4) {
        let ward = Ward::fold(&events);
        for (device, user) in everyone() {
            for at in -1..SPAN + 2 {
                let bound = ward.bind(device, user, around(at, uncertainty as u32)).map(|binding| binding.subject);
                prop_assert_eq!(bound, expected(&events, device, user, at, uncertainty), "{} {:?} at {}", device, user, at);
            }
        }
    }

    #[test]
    fn cutting_and_corrections_touch_exactly_what_changes(events in any_history(), known in 0usize..14) {
        let (before, after) = (&events[..known.min(events.len())], &events[..]);
        let (old, new) = (Ward::fold(before), Ward::fold(after));
        let affected = Ward::changes(&old, &new);
        for at in -1..SPAN {
            for device in [CUFF, OXIMETER] {
                let span = affected.iter().any(|a| a.device == device && a.from.0 <= at && at < a.to.0);
                let users = || everyone().filter(|(d, _)| *d == device).map(|(_, user)| user);
                let differs = users().any(|u| expected(before, device, u, at, 0) != expected(after, device, u, at, 0));
                prop_assert_eq!(span, differs, "{} at {}", device, at);
                for user in users() {
                    let edge = new.edges(device, user, Timestamp(-1), Timestamp(SPAN)).contains(&Timestamp(at));
                    let turn = at > -1 && who(after, device, user, at - 1) != who(after, device, user, at);
                    prop_assert_eq!(edge, turn);
                }
            }
        }
    }
}
