//! `make bench`: what bedrail does, beside what its bare parts do on the same machine in the same run.
//!
//! The rule it keeps: a figure alone says nothing on a shared machine with an unknown card. Every rate is measured in rounds
//! that alternate with a bare control (SQLCipher without bedrail, an MQTT client without bedrail), and what is compared with
//! an aim is the median of the ratios of the rounds.

mod comes_back;
mod commits;
mod drain;
mod ingest;
mod live;
mod machine;
mod memory;
mod monitoring;
mod process;
mod table;
mod upstream;
mod world;
mod written;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Instant;

use table::Table;

/// The release process under test; cargo builds it with this bench's profile.
const BINARY: &str = env!("CARGO_BIN_EXE_bedrail");

type Measure = fn(&mut Table);

fn main() {
    // The process that leaves a log behind as a kill does: see `process`.
    if let Some(site) = std::env::var_os(process::FILL) {
        process::fill_and_die(Path::new(&site));
    }
    let started = Instant::now();
    let mut table = Table::new();
    // `cargo bench -- drain` measures one part; cargo itself passes `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, Measure); 11] = [
        ("machine", machine::measure),
        ("ingest", ingest::measure),
        ("written", written::measure),
        ("drain", drain::measure),
        ("commits", commits::measure),
        ("live", live::measure),
        ("comes_back", comes_back::measure),
        ("process", process::measure),
        ("monitoring", monitoring::measure),
        ("memory", memory::measure),
        ("backlog", memory::measure_long),
    ];
    for (name, measure) in parts {
        if wanted.is_empty() || wanted.iter().any(|part| part == name) {
            measure(&mut table);
        }
    }
    table.print();
    println!("\nRatios are medians of {} rounds, each beside its control; only ratios compare between machines.", world::ROUNDS);
    println!("Took {} s.", started.elapsed().as_secs());
}
