use proptest::prelude::*;

use super::*;

/// A meter as its specification has it, by octets of its own: what it stores, and what it can't do.
struct Meter {
    stored: Vec<u16>,
    counts: bool,
    answers: bool,
    busy: u32,
    /// It stops in the middle of this many.
    breaks_after: Option<usize>,
}

impl Meter {
    fn new(stored: impl IntoIterator<Item = u16>) -> Self {
        Self { stored: stored.into_iter().collect(), counts: true, answers: true, busy: 0, breaks_after: None }
    }

    /// What it sends for a request: records by number, then what its control point says.
    fn asked(&mut self, request: &[u8]) -> (Vec<u16>, Option<Vec<u8>>) {
        if request == [3, 0] {
            return (vec![], self.answers.then(|| vec![6, 0, 3, 1]));
        }
        if self.busy > 0 {
            self.busy -= 1;
            return (vec![], Some(vec![6, 0, 1, 10]));
        }
        let from = match request {
            [1, 1 | 6] => 0,
            [1, 3, 1, low, high] if self.counts => u16::from_le_bytes([*low, *high]),
            [1, 3, ..] => return (vec![], self.answers.then(|| vec![6, 0, 1, 4])),
            other => panic!("never asked for: {other:?}"),
        };
        if request == [1, 6] {
            let newest: Vec<u16> = self.stored.last().copied().into_iter().collect();
            let code = if newest.is_empty() { 6 } else { 1 };
            return (newest, Some(vec![6, 0, 1, code]));
        }
        let found: Vec<u16> = self.stored.iter().copied().filter(|number| *number >= from).collect();
        if let Some(after) = self.breaks_after {
            return (found.into_iter().take(after).collect(), None);
        }
        let code = if found.is_empty() { 6 } else { 1 };
        (found, Some(vec![6, 0, 1, code]))
    }
}

/// Runs it to its end; the records that came, and how it ended.
fn run(meter: &mut Meter, last: Option<u32>) -> (Vec<u16>, Outcome) {
    let (mut retrieve, mut now, mut came) = (Retrieve::new(Width::U16, last), Instant::now(), vec![]);
    let mut actions = retrieve.poll(now, Event::Begin);
    for _ in 0..100 {
        let Some(action) = actions.pop() else {
            now = retrieve.timeout().expect("it ends or waits");
            actions = retrieve.poll(now, Event::Tick);
            continue;
        };
        let request = match action {
            Action::Done(outcome) => return (came, outcome),
            Action::Write(request) => request,
        };
        actions = retrieve.poll(now, Event::Written(true));
        let (records, answer) = meter.asked(&request);
        for record in records {
            assert_eq!(retrieve.poll(now, Event::Record(Some(record.into()))), []);
            came.push(record);
        }
        if let Some(answer) = answer {
            actions.extend(retrieve.poll(now, Event::Answer(&answer)));
        }
    }
    panic!("it never ends");
}

#[test]
fn it_asks_from_the_first_record_that_is_not_durable() {
    assert_eq!(run(&mut Meter::new(1..=9), None), ((1..=9).collect(), Outcome::Complete(9)));
    assert_eq!(run(&mut Meter::new(1..=9), Some(6)), (vec![7, 8, 9], Outcome::Complete(3)));
    // The newest comes once more, to see that nothing was numbered anew.
    assert_eq!(run(&mut Meter::new(1..=9), Some(9)), (vec![9], Outcome::Complete(0)));
    assert_eq!(run(&mut Meter::new([]), None), (vec![], Outcome::Complete(0)));
}

#[test]
fn a_meter_that_cannot_count_or_does_not_answer_is_asked_for_everything() {
    let refuses = Meter { counts: false, ..Meter::new(1..=4) };
    let silent = Meter { counts: false, answers: false, ..Meter::new(1..=4) };
    for mut meter in [refuses, silent] {
        assert_eq!(run(&mut meter, Some(2)), (vec![1, 2, 3, 4], Outcome::Complete(4)));
    }
    // At the end of the numbers nobody knows what comes next.
    assert_eq!(run(&mut Meter::new([0, 1]), Some(65_535)), (vec![0, 1], Outcome::Complete(2)));
}

#[test]
fn a_meter_that_began_its_numbers_anew_is_asked_for_everything() {
    assert_eq!(run(&mut Meter::new(0..=2), Some(500)), (vec![2, 0, 1, 2], Outcome::Complete(3)));
    assert_eq!(run(&mut Meter::new([]), Some(500)), (vec![], Outcome::Complete(0)));
}

#[test]
fn a_busy_meter_is_asked_again_and_not_for_ever() {
    assert_eq!(run(&mut Meter { busy: 3, ..Meter::new([5]) }, Some(4)), (vec![5], Outcome::Complete(1)));
    assert_eq!(run(&mut Meter { busy: 100, ..Meter::new([5]) }, None), (vec![], Outcome::Busy));
}

#[test]
fn a_meter_that_falls_silent_is_told_to_stop_and_what_came_is_kept() {
    let mut meter = Meter { breaks_after: Some(2), ..Meter::new(1..=5) };
    assert_eq!(run(&mut meter, None), (vec![1, 2], Outcome::Silent(2)));
    meter.answers = false;
    assert_eq!(run(&mut meter, None), (vec![1, 2], Outcome::Silent(2)), "nor does it wait for the answer for ever");
}

#[test]
fn the_silence_counts_from_the_last_record() {
    let (mut retrieve, begun) = (Retrieve::new(Width::U16, None), Instant::now());
    retrieve.poll(begun, Event::Begin);
    for second in (20..=200).step_by(20) {
        assert_eq!(retrieve.poll(begun + Duration::from_secs(second), Event::Record(None)), []);
    }
    let last = begun + Duration::from_secs(200);
    assert_eq!(retrieve.poll(last + SILENCE - Duration::from_millis(1), Event::Tick), []);
    assert_eq!(retrieve.poll(last + SILENCE, Event::Tick), [Action::Write(vec![3, 0])]);
}

#[test]
fn whoever_sends_without_end_is_stopped() {
    let (mut retrieve, now) = (Retrieve::new(Width::U16, None), Instant::now());
    retrieve.poll(now, Event::Begin);
    let stopped = (0..=MAX_RECORDS).find_map(|_| retrieve.poll(now, Event::Record(None)).pop());
    assert_eq!(stopped, Some(Action::Write(vec![3, 0])));
    assert_eq!(retrieve.poll(now, Event::Answer(&[6, 0, 3, 1])), [Action::Done(Outcome::Endless)]);
}

#[test]
fn a_control_point_that_takes_no_writes_is_told() {
    let (mut retrieve, now) = (Retrieve::new(Width::U32, Some(7)), Instant::now());
    assert_eq!(retrieve.poll(now, Event::Begin), [Action::Write(vec![1, 3, 1, 8, 0, 0, 0])]);
    assert_eq!(retrieve.poll(now, Event::Written(false)), [Action::Write(vec![1, 1])]);
    assert_eq!(retrieve.poll(now, Event::Written(false)), [Action::Done(Outcome::NotWritable)]);
    assert_eq!(retrieve.timeout(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Written(bool),
    Answer(Vec<u8>),
    Record,
    Wait(u64),
    Stop,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Written),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Step::Answer),
        (0u8..=12).prop_map(|code| Step::Answer(vec![6, 0, 1, code])),
        Just(Step::Record),
        (0u64..40).prop_map(Step::Wait),
        Just(Step::Stop),
    ]
}

proptest! {
    /// Whatever a device sends: it ends once, soon after the device is silent, and nothing but "report" and "stop" is ever written.
    #[test]
    fn it_ends_once_and_writes_nothing_that_deletes(
        last in prop::option::of(any::<u32>()), wide: bool, steps in prop::collection::vec(any_step(), 0..60)
    ) {
        let width = if wide { Width::U32 } else { Width::U16 };
        let (mut retrieve, mut now) = (Retrieve::new(width, last), Instant::now());
        let mut actions = retrieve.poll(now, Event::Begin);
        for step in steps {
            let event = match &step {
                Step::Written(taken) => Event::Written(*taken),
                Step::Answer(octets) => Event::Answer(octets),
                Step::Record => Event::Record(None),
                Step::Stop => Event::Stop,
                Step::Wait(seconds) => {
                    now += Duration::from_secs(*seconds);
                    Event::Tick
                }
            };
            actions.extend(retrieve.poll(now, event));
        }
        for _ in 0..50 {
            if let Some(due) = retrieve.timeout() {
                now = now.max(due);
                actions.extend(retrieve.poll(now, Event::Tick));
            }
        }
        prop_assert_eq!(retrieve.timeout(), None);
        prop_assert_eq!(actions.iter().filter(|action| matches!(action, Action::Done(_))).count(), 1);
        for action in actions {
            if let Action::Write(octets) = action {
                prop_assert!(octets == [3, 0] || octets == [1, 1] || octets == [1, 6] || octets.starts_with(&[1, 3, 1]), "{octets:?}");
            }
        }
    }
}
