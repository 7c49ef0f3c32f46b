//! The gateway beside a real bluetoothd on a real kernel, in a virtual machine, with virtual devices around it: what these
//! send is what arrives, whatever happens to radio, daemon and power. `make test-vm`; tests/vm/README.md.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::devices::{Kind, VirtualDevice};
use support::vm::{self, VmWard};

const STRAP: &str = "A4:C1:38:00:00:01";
const OXIMETER: &str = "00:1C:05:00:00:02";
const THERMOMETER: &str = "A4:C1:38:00:00:03";
const CUFF: &str = "A4:C1:38:00:00:04";
const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(30);

fn strap() -> VirtualDevice {
    VirtualDevice::new(Kind::HeartRateStrap, STRAP, "strap")
}

fn oximeter() -> VirtualDevice {
    VirtualDevice::new(Kind::OximeterContinuous, OXIMETER, "oximeter")
}

fn thermometer() -> VirtualDevice {
    VirtualDevice::new(Kind::Thermometer, THERMOMETER, "thermometer")
}

fn cuff() -> VirtualDevice {
    VirtualDevice::new(Kind::Cuff, CUFF, "cuff")
}

#[test]
fn values_of_four_kinds_reach_the_broker_as_they_were_sent() {
    if !vm::wanted("values_of_four_kinds_reach_the_broker_as_they_were_sent") {
        return;
    }
    let mut ward = VmWard::new(&[strap(), oximeter(), thermometer(), cuff()]);
    ward.start_gateway();
    ward.advertise();
    ward.measure_rounds(20, SECOND / 5);
    let report = ward.settle_with_all_sent(SETTLE);
    // Heart rate with up to two intervals, two of the oximeter, one of the thermometer, two of the cuff.
    assert!(report.arrived >= 20 * 6, "{report:?}");
    assert_eq!((report.sent, report.arrived), (report.made, report.made), "every one was listened to");
    assert_eq!(report.resolution_changed, 0);
    assert_eq!(ward.gateway_ended(), 0, "{}", ward.told());
}
