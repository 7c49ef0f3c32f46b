//! How soon values flow again when a link is back. Times are printed and gate nothing: they are the machine's too.

mod support;

use std::time::{Duration, Instant};

use support::devices::{Kind, VirtualDevice};
use support::process::wait_until;
use support::rig::{Rig, Shape};

const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");
const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_line_that_was_only_cut_is_back_with_the_first_try_and_a_longer_outage_ends_within_its_last_wait() {
    let thermometer = VirtualDevice::new(Kind::Thermometer, "A4:C1:38:00:00:03", "thermometer");
    let mut rig = Rig::new(BINARY, &[thermometer], "", "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    arrives(&mut rig);
    for round in 1..=3 {
        let before = rig.proxy.counters().accepted;
        assert_eq!(rig.proxy.reset_all(), 1);
        let back = Instant::now();
        let arrived = arrives(&mut rig);
        println!("cut, round {round}: {} ms to the first value", (arrived - back).as_millis());
        assert_eq!(rig.proxy.counters().accepted, before + 1, "it took more than one try");
    }
    for away in [Duration::from_secs(1), Duration::from_secs(4)] {
        rig.proxy.refuse(true);
        rig.proxy.reset_all();
        std::thread::sleep(away);
        rig.proxy.refuse(false);
        let back = Instant::now();
        let arrived = arrives(&mut rig);
        println!("away for {} s: {} ms to the first value", away.as_secs(), (arrived - back).as_millis());
    }
    rig.settle(SOON).assert_sound();
    rig.stop();
}

/// Measures, and says when that value arrived.
fn arrives(rig: &mut Rig) -> Instant {
    let before = rig.records().len();
    rig.measure(|_| true);
    rig.empty_devices(SOON);
    assert!(wait_until(SOON, || rig.records().len() > before), "{}", rig.logs());
    rig.records()[before].at
}
