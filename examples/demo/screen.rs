//! What the person at the terminal sees: plain lines, the same with and without a terminal.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::books::Books;
use super::gateway::Gateway;
use super::script::PATIENTS;
use super::support::ledger::Arrived;

pub fn introduce(binary: &Path, seconds: u64) {
    println!(
        "bedrail demo: a small ward, for about {} seconds.

  6 simulated devices --(fake BlueZ, private D-Bus)--> bedrail --(MQTT 5, mutual TLS)--> mosquitto
  The program is the real one: {}
  Route \"live\"  sends every value as soon as it can. Route \"chart\" sends a value only when it is sure whose it is.
  p-ada lies in bed-1, p-ben wears a strap and uses cuff-2, p-cleo lies in bed-3. Nobody has a name here, only a key.
  On the way the broker goes away, the cuff changes hands and p-ada changes beds; at the end every value is accounted for.
  The lines below show what has arrived at the broker (values are patterns, not physiology).
",
        seconds + 10,
        binary.display(),
    );
}

pub fn heading() {
    println!(
        "{:>6}  {:6}  {:>7}  {:>7}  {:22}  {:22}  {:22}",
        "time", "broker", "arrived", "waiting", PATIENTS[0], PATIENTS[1], PATIENTS[2]
    );
}

/// One line: what the receiver has, and how much waits in the gateway.
pub fn show(gateway: &Gateway, elapsed: Duration, reachable: bool) {
    let mut latest: BTreeMap<(String, &str), String> = BTreeMap::new();
    let messages = gateway.live.messages();
    for arrived in messages.iter().filter_map(|message| Arrived::parse(&message.raw)) {
        let (Some(value), Some(subject), Some(metric)) = (arrived.value(), &arrived.subject, arrived.metric.as_deref()) else {
            continue;
        };
        if let Some((kind, text)) = short(metric, &value) {
            latest.insert((subject.clone(), kind), text);
        }
    }
    let of = |patient: &str| {
        let values: Vec<&str> = latest.iter().filter(|((of, _), _)| of == patient).map(|(_, text)| text.as_str()).collect();
        if values.is_empty() { "-".to_owned() } else { values.join("  ") }
    };
    let waiting = gateway.route("live").map_or("?".to_owned(), |route| {
        let count = |field: &str| route[field].as_u64().unwrap_or_default();
        (count("live") + count("backlog")).to_string()
    });
    let [ada, ben, cleo] = PATIENTS.map(of);
    let (seconds, broker) = (elapsed.as_secs(), if reachable { "there" } else { "away" });
    println!("{seconds:>4} s  {broker:6}  {:>7}  {waiting:>7}  {ada:22}  {ben:22}  {cleo:22}", messages.len());
}

pub fn event(elapsed: Duration, text: &str) {
    println!("{:>4} s  >>> {text}", elapsed.as_secs());
}

/// In the order in which they are shown.
fn short(metric: &str, value: &str) -> Option<(&'static str, String)> {
    match metric {
        "spo2" => Some(("1", format!("SpO2 {value} %"))),
        "heart_rate" => Some(("2", format!("heart {value}"))),
        "body_temperature" => Some(("3", format!("{value} °C"))),
        "blood_pressure" => {
            let (pressures, _mean) = value.rsplit_once('/')?;
            Some(("4", format!("BP {pressures}")))
        }
        _ => None,
    }
}

pub fn ledger(books: &Books, control: &Books) {
    let row = |name: &str, count: i64, remark: &str| println!("    {name:24} {count:>6}   {remark}");
    let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let Books { live, durable, chart, held, .. } = books;
    let list = |counts: &mut dyn Iterator<Item = (&String, &usize)>| {
        counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    println!("\nThe ledger\n\n  route \"live\", bind = \"device\"");
    row("made", size(live.made), "values, by the six devices");
    let others = list(&mut books.others.iter());
    row("durable", *durable as i64, &format!("records in the encrypted log: the values and {others}"));
    row("arrived", size(live.seqs.range(..=durable).count()), "of these records, at the broker");
    row("durable - arrived", size(books.missing()), "must be 0");
    row("duplicated", size(live.duplicated), "repeats under the same id, which a receiver drops");
    row("made, did not arrive", size(live.missing.len()), "must be 0");
    row("arrived, never made", size(live.not_made.len()), "must be 0");
    println!("\n  route \"chart\", bind = \"patient\"");
    row("charted", size(chart.charted), &list(&mut chart.by_patient.iter()));
    for (reason, count) in held {
        row(&format!("held: {reason}"), i64::try_from(*count).unwrap_or(i64::MAX), explain(reason));
    }
    row("neither", books.unaccounted(), "must be 0");
    row("near a change", size(chart.near_a_change), "charted, and made within 1 s of a change: either patient is right");
    row("in a wrong chart", size(chart.wrong.len()), "must be 0, by the simulator's own script");
    println!("\n  negative control: a second gateway that was told, wrongly, that p-ben's strap is p-ada's");
    row("charted", size(control.chart.charted), &list(&mut control.chart.by_patient.iter()));
    row("in a wrong chart", size(control.chart.wrong.len()), "must be more than 0: the check can fail");
}

fn explain(reason: &str) -> &'static str {
    match reason {
        "before_assignment" => "from a device before anybody was assigned to it",
        "no_assignment" => "from a device with nobody assigned",
        "edge" => "measured too near to a change to tell whose it is",
        _ => "",
    }
}
