//! What joins several values of a device into one is bounded and loses nothing, whatever comes when. The input is a list of
//! steps: a delay, a length, so many octets.

#![no_main]

use bedrail::gatt::{
    BodyCompositionMeasurement, BodyCompositionParts, GlucoseMeasurement, GlucoseMeasurementContext, GlucosePairs, GlucoseRecord,
    RECORD_PREFIX, SegmentJoiner, read,
};
use bedrail::reading::BootMillis;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, steps)) = data.split_first() else { return };
    match which % 4 {
        0 => segments::<0>(steps),
        1 => segments::<RECORD_PREFIX>(steps),
        2 => glucose(steps),
        _ => body_composition(steps),
    }
});

/// Delays of up to 6 s: both within and beyond what a joiner waits.
fn each(mut steps: &[u8], mut take: impl FnMut(BootMillis, &[u8])) {
    let mut now = 0;
    while let [delay, length, rest @ ..] = steps {
        now += u64::from(*delay) * 24;
        let (octets, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        take(BootMillis(now), octets);
        steps = rest;
    }
}

fn segments<const PREFIX: usize>(steps: &[u8]) {
    let mut joiner = SegmentJoiner::<PREFIX>::default();
    let (mut given, mut got) = (0, 0);
    each(steps, |now, octets| {
        given += octets.len();
        let pushed = joiner.push(now, octets);
        got += pushed.value.map_or(0, |joined| joined.octets.len());
        assert!(got <= given, "nothing comes out that did not go in");
    });
    let _ = joiner.finish();
}

fn glucose(steps: &[u8]) {
    let mut pairs = GlucosePairs::default();
    let (mut given, mut got) = (0, 0);
    let count = |records: &[(u16, GlucoseRecord)]| -> usize {
        let parts = |(along, record): &(u16, GlucoseRecord)| {
            let (sequence, parts) = match record {
                GlucoseRecord::Paired(a, b) => {
                    assert_eq!(a.sequence, b.sequence);
                    (a.sequence, 2)
                }
                GlucoseRecord::Measured(measurement) => (measurement.sequence, 1),
                GlucoseRecord::Context(context) => (context.sequence, 1),
            };
            assert_eq!(*along, sequence);
            parts
        };
        records.iter().inspect(|(_, record)| drop(record.observed())).map(parts).sum()
    };
    each(steps, |now, octets| {
        let [kind, octets @ ..] = octets else { return };
        let done = if kind & 1 == 0 {
            let Ok((measurement, _)) = read::<GlucoseMeasurement>(octets) else { return };
            pairs.measured(now, measurement.sequence, measurement)
        } else {
            let Ok((context, _)) = read::<GlucoseMeasurementContext>(octets) else { return };
            pairs.context(now, context.sequence, context)
        };
        given += 1;
        got += count(&done);
        assert!(given - got <= GlucosePairs::<u16>::MAX_WAITING);
    });
    got += count(&pairs.finish());
    assert_eq!(given, got, "everything comes out once");
}

fn body_composition(steps: &[u8]) {
    let mut parts = BodyCompositionParts::default();
    let (mut given, mut got) = (0, 0);
    each(steps, |now, octets| {
        let Ok((measurement, _)) = read::<BodyCompositionMeasurement>(octets) else { return };
        given += measurement.parts.len();
        got += parts.push(now, (), measurement).iter().map(|((), done)| done.parts.len()).sum::<usize>();
    });
    got += parts.finish().map_or(0, |((), last)| last.parts.len());
    assert_eq!(given, got, "everything comes out once");
}
