//! The ward against a second, naive implementation (replay the log up to an instant and look), and its rules one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::reading::{ClockQuality, DeviceId, RecordId, SubjectKey, Timestamp, UserIndex, WallTime};

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

fn told(n: u64, at: i64, source: EventSource, change: Change) -> WardEvent {
    WardEvent { source, ..event(n, at, change) }
}

fn admit(who: &str, bed: &str) -> Change {
    Change::Admit { subject: subject(who), bed: Some(bed.into()) }
}

fn transfer(who: &str, bed: &str) -> Change {
    Change::Transfer { subject: subject(who), bed: bed.into() }
}

fn discharge(who: &str) -> Change {
    Change::Discharge { subject: subject(who) }
}

fn cancel(who: &str, of: Movement) -> Change {
    Change::Cancel { subject: subject(who), of }
}

#[test]
fn a_discharge_ends_the_visits_pairings_and_what_comes_later_is_told_apart() {
    let ward = ward(&[
        (0, place(OXIMETER, "B")),
        (0, admit("anna", "B")),
        (0, pair(CUFF, None, "anna")),
        (50, discharge("anna")),
        (90, admit("ben", "B")),
    ]);
    assert_eq!(bound(&ward, CUFF, None, 49), Ok("anna".into()));
    assert_eq!(bound(&ward, OXIMETER, None, 49), Ok("anna".into()), "what is sent late goes to the visit of its time");
    assert_eq!(bound(&ward, CUFF, None, 50), Err(HoldReason::AfterDischarge));
    assert_eq!(bound(&ward, OXIMETER, None, 50), Err(HoldReason::AfterDischarge));
    assert_eq!(bound(&ward, OXIMETER, None, 90), Ok("ben".into()));
    assert_eq!(bound(&ward, CUFF, None, 90), Err(HoldReason::AfterDischarge));
}

#[test]
fn what_is_cancelled_never_happened_and_a_cancellation_told_twice_takes_back_one() {
    let visit = [(0, place(OXIMETER, "A")), (0, place(CUFF, "B")), (10, admit("anna", "A")), (20, transfer("anna", "B"))];
    let with = |more: &[(i64, Change)]| ward(&[&visit[..], more].concat());
    let moved = with(&[]);
    assert_eq!(
        (bound(&moved, OXIMETER, None, 30), bound(&moved, CUFF, None, 30)),
        (Err(HoldReason::NoAssignment), Ok("anna".into()))
    );
    let stayed = with(&[(40, cancel("anna", Movement::Transfer)), (40, cancel("anna", Movement::Transfer))]);
    assert_eq!(
        (bound(&stayed, OXIMETER, None, 30), bound(&stayed, CUFF, None, 30)),
        (Ok("anna".into()), Err(HoldReason::NoAssignment))
    );
    let never = with(&[(40, cancel("anna", Movement::Admit))]);
    assert_eq!(
        (bound(&never, OXIMETER, None, 15), bound(&never, CUFF, None, 30)),
        (Err(HoldReason::NoAssignment), Ok("anna".into()))
    );
    let back = with(&[(50, discharge("anna")), (60, cancel("anna", Movement::Discharge))]);
    assert_eq!(bound(&back, CUFF, None, 70), Ok("anna".into()));
    let early = with(&[(15, cancel("anna", Movement::Transfer))]);
    assert_eq!(bound(&early, CUFF, None, 30), Ok("anna".into()), "it takes back what was before it");
}

#[test]
fn two_people_in_one_bed_are_a_conflict_until_somebody_says_who_left() {
    let both = [(0, place(OXIMETER, "B")), (10, admit("anna", "B")), (20, admit("ben", "B"))];
    let until = |more: &[(i64, Change)]| ward(&[&both[..], more].concat());
    assert_eq!(bound(&until(&[]), OXIMETER, None, 19), Ok("anna".into()));
    assert_eq!(bound(&until(&[]), OXIMETER, None, 20), Err(HoldReason::Conflict));
    let left = until(&[(20, discharge("anna"))]);
    assert_eq!(bound(&left, OXIMETER, None, 20), Ok("ben".into()), "typed late, it holds from when it happened");
    assert_eq!(bound(&until(&[(30, occupy("B", "ben"))]), OXIMETER, None, 30), Ok("ben".into()), "a person's word about the bed");
    let paired = until(&[(25, pair(OXIMETER, None, "anna"))]);
    assert_eq!(bound(&paired, OXIMETER, None, 25), Ok("anna".into()), "the bed does not say otherwise");
    assert_eq!(bound(&until(&[(25, pair(OXIMETER, None, "carl"))]), OXIMETER, None, 25), Err(HoldReason::Conflict));
}

#[test]
fn two_sources_that_disagree_are_left_to_a_person() {
    let ward = Ward::fold(&[
        told(1, 0, EventSource::Config, place(OXIMETER, "B")),
        told(2, 0, EventSource::Config, occupy("B", "anna")),
        told(3, 1_000_000, EventSource::Adt, admit("ben", "B")),
    ]);
    assert_eq!(bound(&ward, OXIMETER, None, 500_000), Ok("anna".into()));
    assert_eq!(bound(&ward, OXIMETER, None, 2_000_000), Err(HoldReason::Conflict));
}

#[test]
fn a_swap_is_no_conflict_and_told_twice_is_one() {
    let swap = Change::Swap { first: (subject("anna"), "B".into()), second: (subject("ben"), "A".into()) };
    let ward = ward(&[
        (0, place(OXIMETER, "A")),
        (0, place(CUFF, "B")),
        (0, admit("anna", "A")),
        (0, admit("ben", "B")),
        (50, swap.clone()),
        (50, swap),
    ]);
    assert_eq!((bound(&ward, OXIMETER, None, 49), bound(&ward, CUFF, None, 49)), (Ok("anna".into()), Ok("ben".into())));
    assert_eq!((bound(&ward, OXIMETER, None, 50), bound(&ward, CUFF, None, 50)), (Ok("ben".into()), Ok("anna".into())));
}

#[test]
fn a_merge_moves_nothing_and_later_events_know_one_person() {
    let known = [event(1, 0, place(OXIMETER, "A")), event(2, 10, admit("unknown-1", "A")), event(3, 20, admit("anna", "A"))];
    let merge = Change::Merge { from: subject("unknown-1"), into: subject("anna") };
    let mut all = known.to_vec();
    all.push(event(4, 50, merge.clone()));
    let (before, after) = (Ward::fold(&known), Ward::fold(&all));
    assert_eq!(bound(&after, OXIMETER, None, 15), Ok("anna".into()));
    assert_eq!(bound(&after, OXIMETER, None, 30), Ok("anna".into()), "two keys of one person are no conflict");
    let released = Affected { device: OXIMETER, from: Timestamp(20), to: Timestamp(i64::MAX) };
    assert_eq!(Ward::changes(&before, &after), [released], "what went to the old key stays");
    all.push(event(5, 60, discharge("anna")));
    assert_eq!(bound(&Ward::fold(&all), OXIMETER, None, 60), Err(HoldReason::AfterDischarge), "under either key");
    let round = Change::Merge { from: subject("anna"), into: subject("unknown-1") };
    all.push(event(6, 70, round));
    assert_eq!(bound(&Ward::fold(&all), OXIMETER, None, 15), Ok("anna".into()), "a merge in a circle is none");
}

#[test]
fn a_scan_ties_a_device_to_a_patient_until_its_time_is_over_or_the_next_scan() {
    let spot = |who: &str| Change::Spot { device: CUFF, subject: subject(who), for_ms: 300, readings: 3 };
    let ward = ward(&[(100, spot("anna")), (250, spot("ben")), (1000, spot("anna")), (1100, discharge("anna"))]);
    assert_eq!(bound(&ward, CUFF, None, 99), Err(HoldReason::BeforeAssignment));
    let binding = ward.bind(CUFF, None, around(249, 0)).expect("bound");
    assert_eq!((binding.subject, binding.rule, binding.evidence), (subject("anna"), Rule::Spot, vec![1]));
    assert_eq!(bound(&ward, CUFF, None, 250), Ok("ben".into()));
    assert_eq!(bound(&ward, CUFF, None, 550), Err(HoldReason::NoAssignment), "never the last patient");
    assert_eq!(ward.bind(CUFF, None, around(549, 2)).map(|b| b.subject), Err(HoldReason::Edge));
    assert_eq!(bound(&ward, CUFF, None, 1100), Err(HoldReason::AfterDischarge));
}

#[test]
fn a_replaced_device_hands_on_what_it_was_for_and_what_is_learned_late_of_it_too() {
    let replace = Change::Replace { old: CUFF, new: OXIMETER };
    let known = [(0, place(CUFF, "B")), (10, occupy("B", "anna")), (10, pair(CUFF, Some(1), "anna")), (50, replace)];
    let ward_of = |more: &[(i64, Change)]| ward(&[&known[..], more].concat());
    let now = ward_of(&[]);
    assert_eq!((bound(&now, CUFF, Some(1), 49), bound(&now, OXIMETER, Some(1), 49)).0, Ok("anna".into()));
    assert_eq!(bound(&now, OXIMETER, Some(1), 49), Err(HoldReason::BeforeAssignment));
    assert_eq!(bound(&now, CUFF, Some(1), 50), Err(HoldReason::NoAssignment));
    let binding = now.bind(OXIMETER, Some(1), around(50, 0)).expect("bound");
    assert_eq!((binding.subject, binding.rule, binding.evidence), (subject("anna"), Rule::UserPairing, vec![4]));
    assert_eq!(now.places().find(|(device, _)| *device == OXIMETER).map(|(_, place)| place.value.as_str()), Some("B"));
    let late = ward_of(&[(40, occupy("B", "ben")), (40, pair(CUFF, Some(1), "ben"))]);
    assert_eq!(bound(&late, OXIMETER, Some(1), 60), Ok("ben".into()), "whom the old one turned out to be for");
}

#[test]
fn a_device_out_of_service_is_nobodys_whatever_bed_it_stands_at() {
    let events = [
        (0, place(OXIMETER, "B")),
        (0, occupy("B", "anna")),
        (10, Change::Retire { device: OXIMETER }),
        (20, pair(OXIMETER, None, "anna")),
        (30, Change::Clean { device: OXIMETER }),
    ];
    let ward = ward(&events);
    let at = |at| bound(&ward, OXIMETER, None, at);
    assert_eq!([9, 10, 25].map(|t| at(t).err()), [None, Some(HoldReason::NoAssignment), Some(HoldReason::NoAssignment)]);
    assert_eq!(ward.bind(OXIMETER, None, around(30, 0)).map(|binding| binding.rule), Ok(Rule::Bed), "cleaning ended the pairing");
    assert_eq!(ward.edges(OXIMETER, None, Timestamp(0), Timestamp(99)), [Timestamp(10), Timestamp(30)]);
    let before = Ward::fold(&[event(1, 0, place(OXIMETER, "B")), event(2, 0, occupy("B", "anna"))]);
    let affected = Affected { device: OXIMETER, from: Timestamp(10), to: Timestamp(30) };
    assert_eq!(Ward::changes(&before, &ward), [affected]);
}

#[test]
fn a_feed_is_believed_as_far_as_it_says_when_it_happened() {
    let minutes = |n: i64| n * 60_000;
    let said = |source| {
        Ward::fold(&[
            event(1, 0, place(OXIMETER, "B")),
            event(2, 0, occupy("B", "anna")),
            told(3, minutes(100), source, Change::Vacate { bed: "B".into() }),
        ])
    };
    let at = |ward: &Ward, minute: i64| bound(ward, OXIMETER, None, minutes(minute));
    let timed = said(EventSource::Adt);
    assert_eq!(
        [97, 99, 101, 103].map(|m| at(&timed, m).err()),
        [None, Some(HoldReason::Edge), Some(HoldReason::Edge), Some(HoldReason::NoAssignment)]
    );
    let keyed = said(EventSource::AdtKeyed);
    assert_eq!(
        [69, 71, 104, 106].map(|m| at(&keyed, m).err()),
        [None, Some(HoldReason::Edge), Some(HoldReason::Edge), Some(HoldReason::NoAssignment)]
    );
    let sure = Guards { keyed_before_ms: 0, keyed_after_ms: 0, with_event_time_ms: 0, ..Guards::default() };
    assert_eq!(at(&said(EventSource::AdtKeyed).with_guards(sure), 99), Ok("anna".into()));
    let careful = Guards { command_ms: minutes(2), scan_ms: minutes(2), import_ms: minutes(2), ..Guards::default() };
    for source in [EventSource::Scan, EventSource::Command, EventSource::Import] {
        assert_eq!([99, 100].map(|m| at(&said(source), m).is_ok()), [true, false]);
        assert_eq!([97, 99].map(|m| at(&said(source).with_guards(careful), m).is_ok()), [true, false]);
    }
    assert_eq!((careful.widest_ms(), sure.widest_ms()), (minutes(30), 0));
}

#[test]
fn what_rests_on_a_silent_feed_waits_and_a_pairing_goes_on() {
    let ward = Ward::fold(&[
        event(1, 0, place(OXIMETER, "B")),
        told(2, 0, EventSource::Adt, admit("anna", "B")),
        event(3, 0, pair(CUFF, None, "anna")),
    ]);
    let ward = ward.with_feed_silent_since(Some(Timestamp(1_000_000)));
    assert_eq!(bound(&ward, OXIMETER, None, 999_999), Ok("anna".into()));
    assert_eq!(bound(&ward, OXIMETER, None, 1_000_000), Err(HoldReason::StaleFeed));
    assert_eq!(bound(&ward, CUFF, None, 1_000_000), Ok("anna".into()));
}

#[test]
fn what_a_person_says_of_a_record_outranks_all_else_and_touches_its_time() {
    let (one, other) = (RecordId([1; 16]), RecordId([2; 16]));
    let name = |who: Option<&str>| Change::Name {
        device: CUFF,
        records: vec![one],
        subject: who.map(subject),
        from: Timestamp(40),
        to: Timestamp(40),
    };
    let known = [event(1, 0, pair(CUFF, None, "anna")), event(2, 100, name(Some("ben")))];
    let (before, after) = (Ward::fold(&known[..1]), Ward::fold(&known));
    let said = after.named(&one).flatten().expect("bound");
    assert_eq!((said.subject, said.rule, said.evidence), (subject("ben"), Rule::Person, vec![2]));
    assert_eq!(after.named(&other), None);
    let affected = Affected { device: CUFF, from: Timestamp(40), to: Timestamp(41) };
    assert_eq!(Ward::changes(&before, &after), [affected]);
    let discarded = Ward::fold(&[known[0].clone(), known[1].clone(), event(3, 200, name(None))]);
    assert_eq!(discarded.named(&one), Some(None));
    assert_eq!(after, discarded.known_at(2));
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
            other => unreachable!("these histories are of people's commands: {other:?}"),
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
