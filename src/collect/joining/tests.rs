use super::*;
use crate::gatt::{DecodeError, SegmentFault, Status};
use crate::reading::{DeviceId, Flag, SecurityLevel};

const DEVICE: DeviceId = DeviceId::new([0xA4, 0xC1, 0x38, 0x11, 0x22, 0x33]);
const START: [u8; 9] = [0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x04, 0x00];

fn heard(uuid: Uuid, octets: &[u8], at: u64) -> Heard {
    Heard {
        device: DEVICE,
        characteristic: uuid,
        octets: octets.to_vec(),
        arrived: BootMillis(at),
        indicated: false,
        device_clock: None,
        security: SecurityLevel::Encrypted,
        nameplate: None,
    }
}

fn metrics(joined: &Joined) -> Vec<Vec<Metric>> {
    assert_eq!(joined.errors, []);
    let of = |whole: &Whole| whole.records.iter().flat_map(|record| &record.values).map(|value| value.metric).collect();
    joined.wholes.iter().map(of).collect()
}

/// With a context to follow.
fn glucose(sequence: u8) -> [u8; 13] {
    [0x12, sequence, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 0x6E, 0xB0, 0x11]
}

/// Fasting; HbA1c.
fn context(sequence: u8) -> [u8; 6] {
    [0x42, sequence, 0, 3, 0x41, 0xF0]
}

#[test]
fn a_glucose_waits_for_its_context_and_is_one_record_with_its_flags() {
    let mut joining = Joining::default();
    assert_eq!(metrics(&joining.take(heard(GLUCOSE, &glucose(7), 0))), Vec::<Vec<Metric>>::new());
    let joined = joining.take(heard(GLUCOSE_CONTEXT, &context(7), 20));
    assert_eq!(metrics(&joined), [vec![Metric::Glucose, Metric::Hba1c]]);
    assert_eq!(joined.wholes[0].heard.characteristic, GLUCOSE);
    assert!(joined.wholes[0].records[0].values[0].status.contains(&Status::Flag(Flag::Fasting)));
}

#[test]
fn a_glucose_whose_context_never_comes_goes_alone_at_the_end_of_the_transfer_the_link_or_its_time() {
    let alone = [vec![Metric::Glucose]];
    let waits = || {
        let mut joining = Joining::default();
        joining.take(heard(GLUCOSE, &glucose(7), 0));
        joining
    };
    assert_eq!(metrics(&waits().told_all()), alone);
    assert_eq!(metrics(&waits().finish()), alone);
    let mut joining = waits();
    assert_eq!(metrics(&joining.due(BootMillis(5_000))), Vec::<Vec<Metric>>::new());
    assert_eq!(metrics(&joining.due(BootMillis(5_001))), alone);
    assert_eq!(metrics(&joining.finish()), Vec::<Vec<Metric>>::new(), "once");
}

/// 70.000 kg of user 1 at ten o'clock.
const WEIGHING: [u8; 11] = [0x06, 0xB0, 0x36, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 1];

/// Body fat 20 %, the same time and user, muscle 40 %, and that weight in steps of 5 g.
fn composition(user: u8, weight: u16) -> Vec<u8> {
    let parts = [&[200, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, user, 0x90, 0x01][..], &weight.to_le_bytes()].concat();
    [&(0b100_0001_0110u16).to_le_bytes()[..], &parts].concat()
}

#[test]
fn a_scale_with_both_services_weighs_once() {
    let both = [vec![Metric::BodyFatPercent, Metric::MusclePercent, Metric::BodyWeight]];
    let told = |value: Vec<u8>, after: u64| {
        let mut joining = Joining::default();
        assert_eq!(metrics(&joining.take(heard(WEIGHT, &WEIGHING, 0))), [vec![Metric::BodyWeight]]);
        metrics(&joining.take(heard(BODY_COMPOSITION, &value, after)))
    };
    assert_eq!(told(composition(1, 14_000), 900), [vec![Metric::BodyFatPercent, Metric::MusclePercent]]);
    assert_eq!(told(composition(2, 14_000), 900), both, "another person of the same weight");
    assert_eq!(told(composition(1, 14_001), 900), both, "another weight");
    assert_eq!(told(composition(1, 14_000), ONE_WEIGHING_MS + 1), both, "another weighing");
    let mut joining = Joining::default();
    assert_eq!(metrics(&joining.take(heard(BODY_COMPOSITION, &composition(1, 14_000), 0))), both);
    assert_eq!(metrics(&joining.take(heard(WEIGHT, &WEIGHING, 900))), [vec![]], "whichever comes first");
}

#[test]
fn a_stored_blood_pressure_comes_under_the_name_of_the_live_one() {
    let value = [0x1E, 120, 0, 80, 0, 93, 0, 0xEA, 0x07, 0x0B, 0x17, 0x0A, 0, 0, 60, 0, 1, 0, 0];
    let mut joining = Joining::default();
    let first = [&[0b01, 9, 0, 0x35, 0x2A][..], &value[..10]].concat();
    let last = [&[0b110, 9, 0, 0x35, 0x2A][..], &value[10..]].concat();
    assert_eq!(metrics(&joining.take(heard(BLOOD_PRESSURE_RECORD, &first, 0))), Vec::<Vec<Metric>>::new());
    let joined = joining.take(heard(BLOOD_PRESSURE_RECORD, &last, 10));
    assert_eq!(metrics(&joined), [vec![Metric::BloodPressure, Metric::PulseRateCuff]]);
    let whole = &joined.wholes[0];
    assert_eq!((whole.heard.characteristic, &whole.heard.octets[..]), (sig_uuid(0x2A35), &value[..]));
    assert_eq!((whole.records[0].sequence, whole.records[0].stored), (Some(9), true));

    joining.take(heard(BLOOD_PRESSURE_RECORD, &first, 20));
    assert_eq!(joining.finish().errors, [DecodeError::Segment(SegmentFault::NoLast)], "half of one is none, and counted");
}

#[test]
fn a_sensors_minutes_wait_for_the_start_of_its_session_and_are_never_taken_for_now_without_it() {
    let record = [6, 0, 12, 16, 5, 0];
    let mut joining = Joining::default();
    joining.take(heard(CGM, &record, 0));
    let dated = joining.take(heard(CGM_SESSION_START, &START, 800));
    let time = |joined: &Joined| joined.wholes[0].records[0].device_time.map(|time| time.to_string());
    assert_eq!(time(&dated).as_deref(), Some("2026-11-23T10:05:00"));
    assert_eq!(dated.wholes[0].records[0].sequence, Some(5));

    let mut joining = Joining::default();
    joining.take(heard(CGM, &record, 0));
    let undated = joining.due(BootMillis(SESSION_WAIT_MS + 1));
    assert_eq!((time(&undated), undated.wholes[0].records[0].stored), (None, true));

    let mut joining = Joining::default();
    joining.take(heard(CGM_SESSION_START, &[0; 9], 0));
    let unset = joining.take(heard(CGM, &record, 10));
    assert_eq!((time(&unset), unset.wholes[0].records[0].stored), (None, true));
}

#[test]
fn a_sensor_that_announces_checksums_is_held_to_them() {
    let mut joining = Joining::default();
    let feature = [0x00, 0x10, 0x00, 0x11];
    let crc = crate::gatt::crc16(&feature);
    joining.take(heard(CGM_FEATURE, &[&feature[..], &crc.to_le_bytes()].concat(), 0));
    let start = [&START[..], &crate::gatt::crc16(&START).to_le_bytes()].concat();
    assert_eq!(joining.take(heard(CGM_SESSION_START, &start, 5)).errors, []);
    let joined = joining.take(heard(CGM, &[6, 0, 12, 16, 5, 0], 10));
    assert!(joined.wholes.is_empty() && joined.errors.len() == 1, "{joined:?}");
}

#[test]
fn what_waits_for_a_session_is_bounded_and_nothing_of_it_is_lost() {
    let mut joining = Joining::default();
    let mut told = 0;
    for minute in 0..200u8 {
        told += joining.take(heard(CGM, &[6, 0, 12, 16, minute, 0], u64::from(minute))).wholes.len();
        assert!(joining.session.waiting.len() <= MAX_WITHOUT_SESSION);
    }
    assert_eq!(told + joining.finish().wholes.len(), 200);
}
