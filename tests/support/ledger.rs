//! The books: what the devices made against what arrived at the broker. Pure; it believes nobody but these two lists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::devices::MadeValue;
use super::subscriber::Message;

/// What the ledger reads of a payload. Numbers stay text: a binary float would forgive a lost digit.
#[derive(Debug, Deserialize)]
pub struct Arrived {
    pub record: String,
    pub placement: String,
    pub version: u64,
    pub op: String,
    pub lane: String,
    pub kind: String,
    pub seq: u64,
    pub subject: Option<String>,
    pub device: Option<ArrivedDevice>,
    pub metric: Option<String>,
    #[serde(default)]
    pub user: Option<u64>,
    #[serde(default)]
    pub site: Option<String>,
    #[serde(default)]
    pub modality: Option<String>,
    value: Option<Box<RawValue>>,
    components: Option<BTreeMap<String, Option<Part>>>,
}

#[derive(Debug, Deserialize)]
pub struct ArrivedDevice {
    pub id: String,
}

#[derive(Debug, Deserialize)]
struct Part {
    value: Box<RawValue>,
}

impl Arrived {
    pub fn parse(raw: &str) -> Option<Self> {
        serde_json::from_str(raw).ok()
    }

    /// The digits; `systolic/diastolic/mean` of a blood pressure, a missing part as `-`.
    pub fn value(&self) -> Option<String> {
        if let Some(value) = &self.value {
            return Some(value.get().trim_matches('"').to_owned());
        }
        let parts = self.components.as_ref()?;
        let part = |name: &str| match parts.get(name) {
            Some(Some(part)) => part.value.get().trim_matches('"').to_owned(),
            _ => "-".to_owned(),
        };
        Some(["systolic", "diastolic", "mean"].map(part).join("/"))
    }

    /// Its delivery id as a receipt has it.
    pub fn receipt(&self) -> String {
        let Self { record, placement, version, op, .. } = self;
        format!("{record}.{placement}.{version}.{op}")
    }

    fn delivery(&self) -> (String, String, u64, String) {
        (self.record.clone(), self.placement.clone(), self.version, self.op.clone())
    }

    fn stream_and_lane(&self) -> String {
        let device = self.device.as_ref().map(|device| device.id.as_str());
        format!("{device:?} {:?} {:?} {:?} {:?} {}", self.user, self.metric, self.site, self.modality, self.lane)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub made: usize,
    /// Of those made, what BlueZ had a listener for.
    pub sent: usize,
    /// Made values that arrived.
    pub arrived: usize,
    /// Messages whose delivery id had been seen before.
    pub duplicated: usize,
    /// Such repeats that differ in more than `lane` and `sent_at`; each a fault.
    pub changed_repeats: Vec<String>,
    /// Readings that arrived and that nobody made; each a fault.
    pub not_made: Vec<String>,
    /// Values that arrived with the right number and other digits (36.6 for 36.60).
    pub resolution_changed: usize,
    /// First arrivals that came after a later one of their stream and lane; each a fault.
    pub out_of_order: Vec<String>,
    /// Indices of the made values that did not arrive.
    pub missing: Vec<usize>,
    /// (made, message) indices of what belongs together.
    pub matched: Vec<(usize, usize)>,
    /// Log positions seen, of records of any kind.
    pub seqs: BTreeSet<u64>,
    /// Messages with a payload that is no record (a status, for instance).
    pub other: usize,
}

impl Report {
    /// Made values BlueZ had a listener for and that did not arrive.
    pub fn sent_but_missing(&self, made: &[MadeValue]) -> usize {
        self.missing.iter().filter(|&&index| made[index].sent).count()
    }

    /// Log positions up to `head` of which nothing arrived: with a route that carries everything, durable − arrived.
    pub fn missing_seqs(&self, head: u64) -> Vec<u64> {
        (1..=head).filter(|seq| !self.seqs.contains(seq)).collect()
    }

    /// One line for people; `durable` where somebody knows it.
    pub fn line(&self, durable: Option<usize>) -> String {
        let durable = durable.map_or("-".to_owned(), |durable| durable.to_string());
        format!(
            "made {} · durable {durable} · arrived {} · duplicated {} · not made {} · out of order {}",
            self.made,
            self.arrived,
            self.duplicated,
            self.not_made.len(),
            self.out_of_order.len()
        )
    }

    pub fn assert_sound(&self) {
        assert!(self.not_made.is_empty(), "arrived and was never made: {:?}", self.not_made);
        assert!(self.changed_repeats.is_empty(), "a repeat differs from the first: {:?}", self.changed_repeats);
        assert!(self.out_of_order.is_empty(), "out of order: {:?}", self.out_of_order);
    }
}

/// `made` in the order each device made it, `messages` in the order they arrived.
pub fn compare(made: &[MadeValue], messages: &[Message]) -> Report {
    let mut report = Report { made: made.len(), sent: made.iter().filter(|value| value.sent).count(), ..Report::default() };
    let mut first_texts = HashMap::new();
    let mut last_seq: HashMap<String, u64> = HashMap::new();
    let mut readings: Vec<(usize, Arrived)> = Vec::new();
    let mut records = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let Some(arrived) = Arrived::parse(&message.raw) else {
            report.other += 1;
            continue;
        };
        report.seqs.insert(arrived.seq);
        let text = without_attempt(&message.raw);
        if let Some(first) = first_texts.get(&arrived.delivery()) {
            report.duplicated += 1;
            if *first != text {
                report.changed_repeats.push(message.raw.clone());
            }
            continue;
        }
        first_texts.insert(arrived.delivery(), text);
        let last = last_seq.entry(arrived.stream_and_lane()).or_default();
        if arrived.seq < *last {
            report.out_of_order.push(format!("seq {} after {last} in {}", arrived.seq, arrived.stream_and_lane()));
        }
        *last = arrived.seq.max(*last);
        // A battery level is read at every connection, whenever that is: nobody keeps a list of them.
        let is_first_of_record = arrived.metric.as_deref() != Some("battery_level")
            && arrived.kind == "reading"
            && arrived.op == "put"
            && records.insert(arrived.record.clone());
        if is_first_of_record {
            readings.push((index, arrived));
        }
    }
    // A late lane overtakes an early one on the way, never in the log.
    readings.sort_by_key(|(_, arrived)| arrived.seq);
    match_up(made, &readings, &mut report);
    report
}

/// What a receiver that follows the rules has on file in the end: for each record and placement the message (by index) with
/// the highest version, a retraction winning over a put of its version. What was taken back is absent.
pub fn on_file(messages: &[Message]) -> BTreeMap<(String, String), usize> {
    let mut best: BTreeMap<(String, String), (u64, bool, usize)> = BTreeMap::new();
    for (index, message) in messages.iter().enumerate() {
        let Some(arrived) = Arrived::parse(&message.raw) else { continue };
        let rank = (arrived.version, arrived.op == "retract", index);
        let held = best.entry((arrived.record, arrived.placement)).or_insert(rank);
        if (rank.0, rank.1) > (held.0, held.1) {
            *held = rank;
        }
    }
    let stand = best.into_iter().filter(|(_, (_, retracted, _))| !retracted);
    stand.map(|(key, (_, _, index))| (key, index)).collect()
}

/// Gap records with this reason: what each says, in the order they arrived, each record once.
pub fn gaps(messages: &[Message], reason: &str) -> Vec<serde_json::Value> {
    let mut seen = HashSet::new();
    let payloads = messages.iter().map(|message| &message.payload).filter(|payload| payload["kind"] == "gap");
    let once = payloads.filter(|payload| payload["gap"]["reason"] == reason && seen.insert(payload["record"].to_string()));
    once.map(|payload| payload["gap"].clone()).collect()
}

/// The payload without what may differ between two attempts at one delivery.
fn without_attempt(raw: &str) -> BTreeMap<String, String> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw).expect("it was parsed before");
    let same = fields.into_iter().filter(|(name, _)| name != "lane" && name != "sent_at");
    same.map(|(name, value)| (name, value.get().to_owned())).collect()
}

/// What is in the log of a (device, metric) must be a part of what was made, in that order.
fn match_up(made: &[MadeValue], readings: &[(usize, Arrived)], report: &mut Report) {
    let mut streams: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (index, value) in made.iter().enumerate() {
        streams.entry((&value.device, value.metric)).or_default().push(index);
    }
    let mut next: HashMap<(&str, &str), usize> = HashMap::new();
    let mut matched = HashSet::new();
    for (message, arrived) in readings {
        let device = arrived.device.as_ref().map_or("", |device| &device.id);
        let key = (device, arrived.metric.as_deref().unwrap_or_default());
        let value = arrived.value().unwrap_or_default();
        let of_stream = streams.get(&key).map_or(&[][..], Vec::as_slice);
        let from = next.get(&key).copied().unwrap_or_default();
        let found = of_stream[from..].iter().position(|&index| is_same(&made[index].value, &value));
        if let Some(ahead) = found {
            let index = of_stream[from + ahead];
            next.insert(key, from + ahead + 1);
            matched.insert(index);
            report.matched.push((index, *message));
            report.resolution_changed += usize::from(made[index].value != value);
            continue;
        }
        let late =
            of_stream[..from].iter().copied().find(|index| !matched.contains(index) && is_same(&made[*index].value, &value));
        match late {
            Some(index) => {
                matched.insert(index);
                report.matched.push((index, *message));
                report
                    .out_of_order
                    .push(format!("seq {}: {key:?} {value} was made before what the log has before it", arrived.seq));
            }
            None => report.not_made.push(format!("seq {}: {key:?} {value}", arrived.seq)),
        }
    }
    report.arrived = matched.len();
    report.missing = (0..made.len()).filter(|index| !matched.contains(index)).collect();
}

fn is_same(made: &str, arrived: &str) -> bool {
    let plain = |text: &str| {
        let parts = text.split('/').map(|part| match part.contains('.') {
            true => part.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => part.to_owned(),
        });
        parts.collect::<Vec<_>>()
    };
    made == arrived || plain(made) == plain(arrived)
}
