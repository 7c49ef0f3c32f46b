//! A real bluetoothd: a guest of the machine (`guest`) with a virtual radio and devices around it (`air`), both put together
//! as a room (`real`) or as a whole ward with the gateway in the guest (`ward`). tests/vm/README.md says how it works.

pub mod air;
pub mod guest;
mod leash;
pub mod real;
pub mod ward;

use std::io::Write;
use std::path::PathBuf;

pub use air::Air;
pub use guest::Guest;
pub use real::RealBluez;
pub use ward::VmWard;

/// Where `make test-vm` put image and Python, by the environment.
const VARIABLE: &str = "BEDRAIL_VM";

/// Whether `test` may use the virtual machine; where not, that is said.
pub fn wanted(test: &str) -> bool {
    let wanted = std::env::var_os(VARIABLE).is_some();
    if !wanted {
        skipped(test, "it boots a virtual machine; run `make test-vm`");
    }
    wanted
}

/// Past libtest, which shows nothing of what passes.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

fn prepared(part: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(VARIABLE).expect("`wanted` was asked first")).join(part)
}
