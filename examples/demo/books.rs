//! The end of the story in numbers: what was made against what arrived, and every charted value against the script.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::gateway::Gateway;
use super::script::Truth;
use super::support::devices::MadeValue;
use super::support::ledger::{self, Arrived, Report};
use super::support::subscriber::Message;

pub struct Books {
    pub live: Report,
    /// Records in the log.
    pub durable: u64,
    /// Of these, how many are no value of a device: battery levels read at connection, windows.
    pub others: BTreeMap<String, usize>,
    pub chart: Chart,
    /// Values the chart route keeps back, by reason.
    pub held: BTreeMap<String, u64>,
}

#[derive(Default)]
pub struct Chart {
    pub charted: usize,
    pub by_patient: BTreeMap<String, usize>,
    /// Made so near to a change that either patient is right.
    pub near_a_change: usize,
    pub wrong: Vec<String>,
    /// In a chart, and no device made it.
    pub not_made: usize,
}

impl Books {
    pub fn missing(&self) -> usize {
        self.live.missing_seqs(self.durable).len()
    }

    /// Values that are neither charted nor held.
    pub fn unaccounted(&self) -> i64 {
        let held: u64 = self.held.values().sum();
        self.live.arrived as i64 - self.chart.charted as i64 - held as i64
    }

    pub fn is_complete(&self) -> bool {
        self.missing() == 0 && self.live.missing.is_empty() && self.unaccounted() == 0
    }

    /// Nothing lost, nothing invented, nothing in a wrong chart. Each fault in words.
    pub fn faults(&self) -> Vec<String> {
        let counts = [
            (self.missing(), "durable records did not arrive"),
            (self.live.missing.len(), "values were made and did not arrive"),
            (self.live.not_made.len(), "values arrived that no device made"),
            (self.live.out_of_order.len(), "values overtook another of their stream"),
            (self.live.changed_repeats.len(), "repeats differ from the first message"),
            (self.chart.wrong.len(), "values are in a wrong chart"),
            (self.chart.not_made, "charted values that no device made"),
            (self.unaccounted().unsigned_abs() as usize, "values are neither charted nor held, or both"),
        ];
        let mut faults: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if self.chart.charted == 0 {
            faults.push("nothing was charted at all".to_owned());
        }
        faults
    }
}

/// Closes the books when everything is accounted for, or when `limit` is over.
pub fn close(gateway: &Gateway, truth: &Truth, limit: Duration, mut meanwhile: impl FnMut() -> Result<()>) -> Result<Books> {
    let end = Instant::now() + limit;
    loop {
        let books = open(gateway, truth)?;
        if books.is_complete() || Instant::now() >= end {
            return Ok(books);
        }
        meanwhile()?;
    }
}

fn open(gateway: &Gateway, truth: &Truth) -> Result<Books> {
    let made = gateway.made();
    let durable = gateway.head()?;
    let route = gateway.route("chart")?;
    let held = route["held"].as_object().into_iter().flatten();
    let held = held.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or_default())).collect();
    let messages = gateway.live.messages();
    let live = ledger::compare(&made, &messages);
    let by_record = by_record(&live, &messages);
    let chart = chart(&made, &by_record, &gateway.chart.messages(), truth);
    Ok(Books { others: others(&live, &messages), live, durable, chart, held })
}

/// Which made value each record is: the same record has the same id on every route.
fn by_record(live: &Report, messages: &[Message]) -> BTreeMap<String, usize> {
    let id = |message: usize| Arrived::parse(&messages[message].raw).map(|arrived| arrived.record);
    live.matched.iter().filter_map(|&(made, message)| Some((id(message)?, made))).collect()
}

/// Kinds of the records that are no value of a device.
fn others(live: &Report, messages: &[Message]) -> BTreeMap<String, usize> {
    let matched: Vec<u64> = live.matched.iter().filter_map(|&(_, m)| Some(Arrived::parse(&messages[m].raw)?.seq)).collect();
    let mut kinds = BTreeMap::new();
    for arrived in messages.iter().filter_map(|message| Arrived::parse(&message.raw)) {
        if !matched.contains(&arrived.seq) {
            let what = if arrived.kind == "reading" { arrived.metric.unwrap_or(arrived.kind) } else { arrived.kind };
            kinds.insert(arrived.seq, what);
        }
    }
    kinds.into_values().fold(BTreeMap::new(), |mut counts, kind| {
        *counts.entry(kind).or_default() += 1;
        counts
    })
}

/// Looks at every value that is on file in the end, in whichever chart.
fn chart(made: &[MadeValue], by_record: &BTreeMap<String, usize>, messages: &[Message], truth: &Truth) -> Chart {
    let mut chart = Chart::default();
    for ((record, _), message) in ledger::on_file(messages) {
        chart.charted += 1;
        let subject = Arrived::parse(&messages[message].raw).and_then(|arrived| arrived.subject);
        *chart.by_patient.entry(subject.clone().unwrap_or_else(|| "nobody".to_owned())).or_default() += 1;
        let Some(value) = by_record.get(&record).map(|index| &made[*index]) else {
            chart.not_made += 1;
            continue;
        };
        let possible = truth.possible(&value.device, value.at);
        chart.near_a_change += usize::from(possible.len() > 1);
        if subject.is_none() || !possible.contains(&subject.as_deref()) {
            chart.wrong.push(format!("{} of {} went to {subject:?}, was of {possible:?}", value.metric, value.device));
        }
    }
    chart
}
