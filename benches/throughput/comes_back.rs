//! From a line's being back to the first value at a subscriber, which is after its PUBACK left the broker. A line that was only
//! cut is back at once; one that was away is tried again after a random wait, which is most of what is seen then.

use std::time::{Duration, Instant};

use crate::BINARY;
use crate::support::process::wait_until;
use crate::support::rig::{Rig, Shape};
use crate::table::{Table, median};
use crate::world::{ROUNDS, oximeter};

const SOON: Duration = Duration::from_secs(90);
/// The first tries fail.
const AWAY: Duration = Duration::from_secs(3);

pub fn measure(table: &mut Table) {
    let mut rig = Rig::new(BINARY, &[oximeter(1)], "carry = [\"readings\"]", "");
    rig.start(Shape::OneProcess);
    rig.wait_until_heard(SOON);
    let cut = median((0..ROUNDS).map(|_| back_after(&mut rig, Duration::ZERO)).collect());
    let away = median((0..ROUNDS).map(|_| back_after(&mut rig, AWAY)).collect());
    rig.stop();
    let show = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    table.row("line cut to the first value arrived", show(cut), "-".into(), None, "<= 1 s");
    let what = format!("line back after {} s to the first value arrived", AWAY.as_secs());
    table.row(&what, show(away), "-".into(), None, "<= 1 s");
}

/// Seconds until what was measured meanwhile arrives.
fn back_after(rig: &mut Rig, away: Duration) -> f64 {
    let before = rig.records().len();
    rig.proxy.refuse(!away.is_zero());
    rig.proxy.reset_all();
    rig.measure(|_| true);
    std::thread::sleep(away);
    rig.proxy.refuse(false);
    let back = Instant::now();
    assert!(wait_until(SOON, || rig.records().len() > before), "{}", rig.logs());
    rig.records()[before].at.saturating_duration_since(back).as_secs_f64()
}
