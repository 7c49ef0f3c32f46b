//! A census: what it would change is shown and kept in memory, and carried out when it is confirmed, exactly as it was shown.

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::ward::NOW_MS;
use super::{Desk, DeskError};
use crate::reading::{SubjectKey, Timestamp};
use crate::store::StoreError;
use crate::ward::{CensusFormat, CensusRow, Change, EventSource, Phi, Ward, difference, one_person, parse_census};

/// How long what was shown may be confirmed: the time to read it.
const CONFIRM_WITHIN_MS: i64 = 15 * 60_000;

/// A patient's key, and the document to keep under it.
type Identified = (SubjectKey, Phi<Vec<u8>>);

/// What was shown and not made yet.
pub(super) struct PendingCensus {
    n: u64,
    /// When it was read: it speaks of that time, and what was measured since is not counted.
    at: Timestamp,
    /// The ward it was compared with.
    last_event: u64,
    changes: Vec<(Timestamp, Change)>,
    identities: Vec<Identified>,
    readings: u64,
    of_all_beds: bool,
}

impl Desk {
    /// What the list would change, under a number to confirm it by. The same list given again within the time is the same.
    pub(super) fn census(&mut self, file: &Phi<Zeroizing<Vec<u8>>>, format: CensusFormat) -> Result<Value, DeskError> {
        let now = self.now()?;
        let key = self.store.site_key().clone();
        let rows = parse_census(file.expose(), format, &self.settings.beds, |visit| key.subject_of_visit(visit))?;
        let ward = self.inputs.ward.borrow().clone();
        if let Some((one, other)) = one_person(&ward, &rows) {
            return Err(DeskError::OnePerson(one.clone(), other.clone()));
        }
        if let Some(row) = rows.iter().find(|row| row.since.is_some_and(|since| since > now.plus_ms(NOW_MS))) {
            return Err(DeskError::Future(row.since.unwrap_or(now)));
        }
        let identities = self.new_identities(&rows)?;
        let limit = i64::try_from(self.settings.back_dating.as_millis()).unwrap_or(i64::MAX);
        let shown = self.shown_census.take().filter(|shown| shown.may_be_confirmed(now, &ward)).filter(|shown| {
            let same = |rows: &[CensusRow]| difference(&ward, rows, shown.at, shown.at.plus_ms(-limit)) == shown.changes;
            same(&rows) && identities == shown.identities
        });
        let of_all_beds = self.settings.beds.iter().all(|bed| rows.iter().any(|row| row.bed == *bed));
        let pending = match shown {
            Some(shown) => PendingCensus { of_all_beds, ..shown },
            None => {
                let changes = difference(&ward, &rows, now, now.plus_ms(-limit));
                let readings = self.readings(&self.touched_by(&changes, now)?, now)?;
                let (n, last_event) = (self.censuses + 1, ward.last_event());
                PendingCensus { n, at: now, last_event, changes, identities, readings, of_all_beds }
            }
        };
        self.censuses = pending.n;
        let answer = self.describe_census(&ward, &rows, &pending)?;
        if pending.changes.is_empty() && pending.identities.is_empty() {
            self.census_was_read(&pending)?;
        } else {
            self.shown_census = Some(pending);
        }
        Ok(answer)
    }

    /// Carries out what was shown under this number. `yes` confirms how many readings of the past change hands.
    pub(super) fn confirm_census(&mut self, n: u64, yes: u64, actor: &str) -> Result<Value, DeskError> {
        let now = self.now()?;
        let ward = self.inputs.ward.borrow().clone();
        let shown = self.shown_census.take().filter(|shown| shown.n == n && shown.may_be_confirmed(now, &ward));
        let shown = shown.ok_or(DeskError::NoCensus)?;
        if shown.readings != yes {
            let (count, first) = (shown.readings, shown.changes.iter().map(|(at, _)| *at).min().unwrap_or(shown.at));
            let hours = format!("{first} to {}", shown.at);
            self.shown_census = Some(shown);
            return Err(DeskError::NeedsYes { count, hours });
        }
        let (events, identities) = (shown.changes.len(), shown.identities.len());
        self.audit(actor, "ward import", "census", &format!("{events} events, identifiers of {identities} patients"))?;
        for (key, document) in &shown.identities {
            self.ward_store.set_identity(key, document)?;
        }
        self.census_was_read(&shown)?;
        let said = shown.changes.into_iter().map(|(at, change)| (at, EventSource::Import, actor.to_owned(), change));
        if events > 0 {
            self.append(said.collect(), now)?;
        }
        Ok(json!({ "events": events, "identities": identities, "readings": yes }))
    }

    /// A list of all beds is news even where it changes nothing; one of a few says nothing of the others.
    fn census_was_read(&mut self, census: &PendingCensus) -> Result<(), StoreError> {
        if census.of_all_beds {
            self.ward_store.census_was_read(census.at)?;
        }
        self.publish()
    }

    /// Up to when the last list of all beds speaks.
    pub(super) fn census_until(&self) -> Result<Option<Timestamp>, StoreError> {
        let Some(stale_after) = self.settings.stale_after else { return Ok(None) };
        let imported = || self.events.iter().filter(|event| event.source == EventSource::Import).map(|event| event.learned).min();
        let last = self.ward_store.last_census()?.or_else(imported);
        let lasts = i64::try_from(stale_after.as_millis()).unwrap_or(i64::MAX);
        Ok(last.map(|last| last.plus_ms(lasts)))
    }

    /// Documents that the list adds to. What is on file and not in the list stays.
    fn new_identities(&self, rows: &[CensusRow]) -> Result<Vec<Identified>, DeskError> {
        let mut new = Vec::new();
        for row in rows.iter().filter(|row| !row.identifiers.expose().is_empty()) {
            let Some(key) = &row.patient else { continue };
            let on_file = self.ward_store.identity(key)?;
            let on_file = on_file.and_then(|document| serde_json::from_slice::<Map<String, Value>>(document.expose()).ok());
            let mut document = on_file.clone().unwrap_or_default();
            document.extend(row.identifiers.expose().clone());
            if on_file.as_ref() != Some(&document) {
                let document = Phi::new(serde_json::to_vec(&document).expect("a JSON object"));
                self.check_identity(&document)?;
                new.push((key.clone(), document));
            }
        }
        Ok(new)
    }

    fn describe_census(&self, ward: &Ward, rows: &[CensusRow], census: &PendingCensus) -> Result<Value, DeskError> {
        let known = self.ward_store.patients()?;
        let at = census.at;
        let lying = |bed: &str| ward.lying_in(bed, at).cloned().collect::<Vec<SubjectKey>>();
        let changes = census.changes.iter().map(|(from, change)| {
            let (bed, patient) = match change {
                Change::Occupy { bed, subject } => (bed.as_str(), Some(subject)),
                Change::Vacate { bed } => (bed.as_str(), None),
                _ => ("", None),
            };
            let before = ward.beds().find(|(_, lies)| lies.holds(at) && patient.is_some_and(|key| lies.value == *key));
            json!({
                "bed": bed,
                "was": lying(bed),
                "patient": patient,
                "comes_from": before.map(|(bed, _)| bed).filter(|from| *from != bed),
                "new": patient.is_some_and(|key| !known.iter().any(|row| row.key == *key)),
                "from": from.to_string(),
            })
        });
        let listed = |bed: &str| rows.iter().any(|row| row.bed == bed);
        let left_out =
            self.settings.beds.iter().filter(|bed| !listed(bed)).map(|bed| json!({ "bed": bed, "patient": lying(bed) }));
        Ok(json!({
            "census": census.n,
            "at": at.to_string(),
            "rows": rows.len(),
            "changes": changes.collect::<Vec<_>>(),
            "identities": census.identities.len(),
            "readings": census.readings,
            "not_in_list": left_out.collect::<Vec<_>>(),
        }))
    }
}

impl PendingCensus {
    fn may_be_confirmed(&self, now: Timestamp, ward: &Ward) -> bool {
        self.last_event == ward.last_event() && now.0 - self.at.0 <= CONFIRM_WITHIN_MS
    }
}
