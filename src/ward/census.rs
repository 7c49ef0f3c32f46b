//! A census: who lies in which bed by a list that somebody exported, as the events that bring the ward to it. An error names
//! line and column, and never repeats a cell: a column too far to the left is enough to make a bed of a name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Change, EventSource, Phi, Ward, WardEvent};
use crate::reading::{SubjectKey, Timestamp};

/// A ward's list has a few dozen lines; of a hospital's a gateway wants its own beds.
pub const MAX_CENSUS: usize = 1 << 20;
/// Beds in one list: each costs an event of the ward's log at most twice.
const MAX_ROWS: usize = 2_000;
/// Columns `identifiers.NAME` in one list.
const MAX_COLUMNS: usize = 64;
const IDENTIFIERS: &str = "identifiers.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CensusFormat {
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// One bed of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct CensusRow {
    pub bed: String,
    /// `None`: nobody lies there.
    pub patient: Option<SubjectKey>,
    /// Absent: since the list was read.
    pub since: Option<Timestamp>,
    pub identifiers: Phi<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CensusError {
    #[error("the census is {0} octets; one of at most {MAX_CENSUS} is read")]
    TooLarge(usize),
    #[error("the census has more than {MAX_ROWS} lines; give it the beds of this gateway alone")]
    TooManyRows,
    #[error(
        "column {0} of the first line is none that a census has; it has bed, patient or visit, since and identifiers.NAME, each once"
    )]
    UnknownColumn(usize),
    #[error("the first line names no column {0}; it has bed, patient or visit, since and identifiers.NAME")]
    NoColumn(&'static str),
    #[error("line {line}: {what}")]
    Line { line: u64, what: &'static str },
    #[error("line {line}, column {column}: {what}")]
    Cell { line: u64, column: &'static str, what: &'static str },
}

/// Reads a list. `key_of` makes the key of a visit's number.
pub fn parse(
    file: &[u8],
    format: CensusFormat,
    beds: &[String],
    key_of: impl Fn(&str) -> SubjectKey,
) -> Result<Vec<CensusRow>, CensusError> {
    if file.len() > MAX_CENSUS {
        return Err(CensusError::TooLarge(file.len()));
    }
    let file = file.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(file);
    let cells = match format {
        CensusFormat::Csv => csv_cells(file)?,
        CensusFormat::Ndjson => ndjson_cells(file)?,
    };
    let (mut known, mut placed) = (BTreeSet::new(), BTreeSet::new());
    cells
        .into_iter()
        .map(|cells| {
            let line = cells.line;
            let row = cells.row(beds, &key_of)?;
            let fail = |column, what| Err(CensusError::Cell { line, column, what });
            if !known.insert(row.bed.clone()) {
                return fail("bed", "the bed stands in the list a second time");
            }
            match &row.patient {
                Some(patient) if !placed.insert(patient.clone()) => {
                    fail("patient", "the patient stands in the list a second time")
                }
                _ => Ok(row),
            }
        })
        .collect()
}

/// A line's cells, empty ones left out.
#[derive(Default)]
struct Cells {
    line: u64,
    bed: Option<String>,
    patient: Option<String>,
    visit: Option<String>,
    since: Option<String>,
    identifiers: Map<String, Value>,
}

impl Cells {
    fn row(self, beds: &[String], key_of: impl Fn(&str) -> SubjectKey) -> Result<CensusRow, CensusError> {
        let Self { line, bed, patient, visit, since, mut identifiers } = self;
        let fail = |column, what| CensusError::Cell { line, column, what };
        let bed = bed.ok_or_else(|| fail("bed", "there is none"))?;
        if !beds.contains(&bed) {
            return Err(fail("bed", "it is no [[bed]] of the config"));
        }
        let patient = match (patient, visit) {
            (Some(_), Some(_)) => return Err(fail("visit", "a patient is named by `patient` or by `visit`, not by both")),
            (Some(key), None) => Some(key.parse().map_err(|_| {
                let what = "it is no patient key: a letter first, then letters, digits, `-`, `_`, `.`, no five digits in a row; a visit's number goes into the column visit";
                fail("patient", what)
            })?),
            (None, Some(visit)) => {
                let key = key_of(&visit);
                identifiers.insert("visit".to_owned(), Value::String(visit));
                Some(key)
            }
            (None, None) => None,
        };
        if patient.is_none() && !identifiers.is_empty() {
            return Err(fail("patient", "there are identifiers and nobody they are of"));
        }
        let born = identifiers.get("birth_date");
        if born.is_some_and(|born| born.as_str().is_none_or(|text| text.parse::<jiff::civil::Date>().is_err())) {
            return Err(fail("identifiers.birth_date", "it is not a date such as 1947-11-03"));
        }
        let since = since.map(|text| {
            let at = text.parse::<jiff::Timestamp>();
            at.map(|at| Timestamp(at.as_millisecond()))
                .map_err(|_| fail("since", "it is not a time with an offset such as 2026-11-23T10:30:00+01:00"))
        });
        Ok(CensusRow { bed, patient, since: since.transpose()?, identifiers: Phi::new(identifiers) })
    }

    fn put(&mut self, column: &Column, text: &str) {
        let text = text.trim();
        let cell = (!text.is_empty()).then(|| text.to_owned());
        match column {
            Column::Bed => self.bed = cell,
            Column::Patient => self.patient = cell,
            Column::Visit => self.visit = cell,
            Column::Since => self.since = cell,
            Column::Identifier(name) => self.identifiers.extend(cell.map(|text| (name.clone(), Value::String(text)))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Bed,
    Patient,
    Visit,
    Since,
    Identifier(String),
}

impl Column {
    fn of(name: &str) -> Option<Self> {
        Some(match name.trim() {
            "bed" => Self::Bed,
            "patient" => Self::Patient,
            "visit" => Self::Visit,
            "since" => Self::Since,
            other => Self::Identifier(other.strip_prefix(IDENTIFIERS).filter(|name| !name.is_empty())?.to_owned()),
        })
    }
}

fn csv_cells(file: &[u8]) -> Result<Vec<Cells>, CensusError> {
    let first = file.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let delimiter = if first.contains(&b';') && !first.contains(&b',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let header = reader.headers().map_err(|_| CensusError::Line { line: 1, what: "it is not UTF-8" })?;
    let mut columns = Vec::new();
    for (n, name) in header.iter().enumerate() {
        let column = Column::of(name).filter(|column| n < MAX_COLUMNS && !columns.contains(column));
        columns.push(column.ok_or(CensusError::UnknownColumn(n + 1))?);
    }
    if !columns.contains(&Column::Bed) {
        return Err(CensusError::NoColumn("bed"));
    }
    if !columns.contains(&Column::Patient) && !columns.contains(&Column::Visit) {
        return Err(CensusError::NoColumn("patient"));
    }
    let mut all = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| line_error(&error))?;
        let mut cells = Cells { line: record.position().map_or(0, csv::Position::line), ..Cells::default() };
        columns.iter().zip(record.iter()).for_each(|(column, text)| cells.put(column, text));
        all.push(cells);
        if all.len() > MAX_ROWS {
            return Err(CensusError::TooManyRows);
        }
    }
    Ok(all)
}

/// The reader's own message would quote the line.
fn line_error(error: &csv::Error) -> CensusError {
    let line = error.position().map_or(0, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths { .. } => "it has another number of cells than the first line",
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8",
        _ => "it is no line of a CSV file",
    };
    CensusError::Line { line, what }
}

fn ndjson_cells(file: &[u8]) -> Result<Vec<Cells>, CensusError> {
    let mut all = Vec::new();
    for (line, text) in (1..).zip(file.split(|octet| *octet == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let fail = |column, what| CensusError::Cell { line, column, what };
        let not_one = CensusError::Line { line, what: "it is no JSON object" };
        let Ok(Value::Object(object)) = serde_json::from_slice(text) else { return Err(not_one) };
        let mut cells = Cells { line, ..Cells::default() };
        for (name, value) in object {
            let column = match (name.as_str(), value) {
                (_, Value::Null) => continue,
                ("identifiers", Value::Object(identifiers)) => {
                    cells.identifiers.extend(identifiers);
                    continue;
                }
                ("identifiers", _) => return Err(fail("identifiers", "it is no JSON object")),
                ("bed", Value::String(text)) => (Column::Bed, text),
                ("patient", Value::String(text)) => (Column::Patient, text),
                ("visit", Value::String(text)) => (Column::Visit, text),
                ("since", Value::String(text)) => (Column::Since, text),
                ("bed" | "patient" | "visit" | "since", _) => {
                    return Err(CensusError::Line { line, what: "bed, patient, visit and since are text" });
                }
                _ => {
                    return Err(CensusError::Line {
                        line,
                        what: "it has a field other than bed, patient, visit, since, identifiers",
                    });
                }
            };
            cells.put(&column.0, &column.1);
        }
        all.push(cells);
        if all.len() > MAX_ROWS {
            return Err(CensusError::TooManyRows);
        }
    }
    Ok(all)
}

/// Two keys of the list that are one person by what is known now.
pub fn one_person<'a>(ward: &Ward, rows: &'a [CensusRow]) -> Option<(&'a SubjectKey, &'a SubjectKey)> {
    let mut people: BTreeMap<&SubjectKey, &SubjectKey> = BTreeMap::new();
    rows.iter().filter_map(|row| row.patient.as_ref()).find_map(|key| Some((people.insert(ward.known_as(key), key)?, key)))
}

/// The events that make the ward agree with the list at `at`, and since when the list says, as far back as `not_before`; none
/// when it does. Of what is longer ago it is only asked whether it still holds: how far one may go back moves on, and the same
/// list must not say anything new for it. Beds that are not in the list stay as they are.
pub fn difference(ward: &Ward, rows: &[CensusRow], at: Timestamp, not_before: Timestamp) -> Vec<(Timestamp, Change)> {
    let disagrees = |ward: &Ward, row: &CensusRow, at| !agrees(ward, row, at);
    let since = |row: &CensusRow| row.since.unwrap_or(at).max(not_before).min(at);
    let asked = |row: &CensusRow| if row.since.is_some_and(|since| since < not_before) { at } else { since(row) };
    let new = rows.iter().filter(|row| disagrees(ward, row, asked(row)));
    let mut said: Vec<(Timestamp, Change)> = new.map(|row| (since(row), change(row))).collect();
    said.sort_by_key(|(at, _)| *at);
    let after = with(ward, &said);
    said.extend(rows.iter().filter(|row| disagrees(&after, row, at)).map(|row| (at, change(row))));
    said
}

/// The ward as if it had been told this as well.
pub fn with(ward: &Ward, said: &[(Timestamp, Change)]) -> Ward {
    let next = ward.last_event() + 1;
    let events = (next..).zip(said).map(|(n, (at, change))| WardEvent {
        n,
        at: *at,
        learned: *at,
        source: EventSource::Import,
        operator: String::new(),
        change: change.clone(),
    });
    Ward::fold(&ward.events().iter().cloned().chain(events).collect::<Vec<_>>())
}

fn agrees(ward: &Ward, row: &CensusRow, at: Timestamp) -> bool {
    let people: BTreeSet<&SubjectKey> = ward.lying_in(&row.bed, at).collect();
    people == row.patient.iter().map(|patient| ward.known_as(patient)).collect()
}

fn change(row: &CensusRow) -> Change {
    match &row.patient {
        Some(subject) => Change::Occupy { bed: row.bed.clone(), subject: subject.clone() },
        None => Change::Vacate { bed: row.bed.clone() },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "bed,patient,since,identifiers.mrn\n";

    fn beds() -> Vec<String> {
        ["301-A", "301-B", "302"].map(str::to_owned).to_vec()
    }

    fn key(text: &str) -> SubjectKey {
        text.parse().expect("a key")
    }

    fn read(text: &str, format: CensusFormat) -> Result<Vec<CensusRow>, CensusError> {
        parse(text.as_bytes(), format, &beds(), |visit| key(&format!("v-{}", visit.len())))
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = "\u{feff}bed;visit;patient;since;identifiers.mrn\r\n301-A;;p-anna;2026-11-23T10:30:00+01:00;\"4711;a\"\r\n302;V-1;;;\r\n301-B;;;;\r\n";
        let ndjson = concat!(
            r#"{"bed":"301-A","patient":"p-anna","since":"2026-11-23T09:30:00Z","identifiers":{"mrn":"4711;a"}}"#,
            "\n\n",
            r#"{"bed":"302","visit":"V-1"}"#,
            "\n",
            r#"{"bed":"301-B","patient":null}"#
        );
        let rows = read(csv, CensusFormat::Csv).expect("a census");
        assert_eq!(rows, read(ndjson, CensusFormat::Ndjson).expect("a census"));
        assert_eq!(rows.iter().map(|row| row.patient.clone()).collect::<Vec<_>>(), [Some(key("p-anna")), Some(key("v-3")), None]);
        assert_eq!(rows[0].since.map(|at| at.to_string()), Some("2026-11-23T09:30:00.000Z".to_owned()));
        assert_eq!(rows[1].identifiers.expose().get("visit"), Some(&Value::String("V-1".into())));
    }

    #[test]
    fn an_error_names_line_and_column_and_never_repeats_a_cell() {
        const CANARY: &str = "Quastenflosser-47119";
        let csv = |line: &str| read(&format!("{HEAD}301-A,p-anna,,\n{line}\n"), CensusFormat::Csv);
        for (read, where_) in [
            (csv(&format!("{CANARY},p-bert,,")), "line 3, column bed: it is no [[bed]]"),
            (csv(&format!("302,{CANARY},,")), "line 3, column patient: it is no patient key"),
            (csv(&format!("302,p-bert,{CANARY},")), "line 3, column since: it is not a time"),
            (
                read(&format!("bed,patient,identifiers.birth_date\n302,p-bert,{CANARY}\n"), CensusFormat::Csv),
                "line 2, column identifiers.birth_date: it is not a date",
            ),
            (
                read(
                    &format!("{{\"bed\":\"302\",\"patient\":\"p-bert\",\"identifiers\":{{\"birth_date\":[\"{CANARY}\"]}}}}"),
                    CensusFormat::Ndjson,
                ),
                "line 1, column identifiers.birth_date: it is not a date",
            ),
            (csv(&format!("302,p-bert,,,{CANARY}")), "line 3: it has another number of cells"),
            (csv(&format!("302,,,{CANARY}")), "line 3, column patient: there are identifiers and nobody"),
            (csv("302,p-anna,,"), "line 3, column patient: the patient stands in the list a second time"),
            (csv("301-A,p-bert,,"), "line 3, column bed: the bed stands in the list a second time"),
            (read(&format!("bed,{CANARY}\n"), CensusFormat::Csv), "column 2 of the first line"),
            (read("patient\np-anna\n", CensusFormat::Csv), "names no column bed"),
            (read("bed\n302\n", CensusFormat::Csv), "names no column patient"),
            (read(&format!("{{\"bed\":{CANARY}"), CensusFormat::Ndjson), "line 1: it is no JSON object"),
            (read(&format!("{{\"bed\":\"302\",\"{CANARY}\":1}}"), CensusFormat::Ndjson), "line 1: it has a field other"),
            (read(&format!("{{\"bed\":\"302\",\"identifiers\":\"{CANARY}\"}}"), CensusFormat::Ndjson), "column identifiers"),
            (read(&" ".repeat(MAX_CENSUS + 1), CensusFormat::Csv), "octets; one of at most"),
        ] {
            let said = read.expect_err(where_).to_string();
            assert!(said.contains(where_) && !said.contains(CANARY), "{said}");
        }
    }

    fn arbitrary_change() -> impl Strategy<Value = Change> {
        let who = || prop::sample::select(vec!["p-a", "p-b", "p-c", "p-d"]).prop_map(key);
        let bed = || prop::sample::select(beds());
        prop_oneof![
            (bed(), who()).prop_map(|(bed, subject)| Change::Occupy { bed, subject }),
            bed().prop_map(|bed| Change::Vacate { bed }),
            (bed(), who()).prop_map(|(bed, subject)| Change::Admit { subject, bed: Some(bed) }),
            (bed(), who()).prop_map(|(bed, subject)| Change::Transfer { subject, bed }),
            who().prop_map(|subject| Change::Discharge { subject }),
            (who(), who()).prop_map(|(from, into)| Change::Merge { from, into }),
        ]
    }

    proptest! {
        /// Whatever the ward thought, it agrees with the list afterwards, so that the same list a second time says nothing.
        #[test]
        fn the_same_census_twice_changes_nothing(
            events in prop::collection::vec((0i64..100, arbitrary_change()), 0..14),
            people in Just(vec![Some("p-a"), Some("p-b"), Some("p-c"), None]).prop_shuffle(),
            since in prop::collection::vec(prop::option::of(0i64..130), 3),
            later in 0i64..50,
        ) {
            let ward = with(&Ward::default(), &events.into_iter().map(|(at, change)| (Timestamp(at), change)).collect::<Vec<_>>());
            let rows: Vec<CensusRow> = beds().into_iter().zip(people).zip(since).map(|((bed, patient), since)| CensusRow {
                bed,
                patient: patient.map(key),
                since: since.map(Timestamp),
                identifiers: Phi::new(Map::new()),
            }).collect();
            // Two keys that turned out to be one person can't lie in two beds.
            let keys = || rows.iter().filter_map(|row| row.patient.as_ref());
            let persons: BTreeSet<_> = keys().map(|key| ward.known_as(key)).collect();
            prop_assume!(persons.len() == keys().count());
            let (at, not_before) = (Timestamp(110), Timestamp(20));
            let said = difference(&ward, &rows, at, not_before);
            prop_assert!(said.iter().all(|(when, _)| not_before <= *when && *when <= at));
            let after = with(&ward, &said);
            for row in &rows {
                prop_assert!(agrees(&after, row, at), "{row:?} in {after:?}");
            }
            let (at, not_before) = (at.plus_ms(later), not_before.plus_ms(later));
            prop_assert_eq!(difference(&after, &rows, at, not_before), vec![]);
        }
    }
}
