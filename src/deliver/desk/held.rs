//! What is held on the routes, why, and a person's word about whose it is.

use serde_json::{Value, json};

use super::{Desk, DeskError};
use crate::reading::{DeviceId, Record, Seq, SubjectKey, Timestamp};
use crate::store::{Held, READ_LIMIT, RouteRow, StoreError};
use crate::ward::{Change, EventSource, HoldReason};

/// Records of one word at most: each is named in the ward's log, and a person who means more means an assignment.
const MAX_NAMED: usize = 1_000;

impl Desk {
    pub(super) fn held(&self) -> Result<Value, DeskError> {
        let (anchors, ward) = (self.store.anchors()?, self.inputs.ward.borrow().clone());
        let mut rows = Vec::new();
        for route in self.store.routes()? {
            for run in self.store.held(route.n)? {
                let record = self.store.read(run.first, run.first, 1)?.pop().map(|(_, record)| record);
                let since = record.as_ref().and_then(|record| self.measured(&anchors, record));
                let mut row = self.row_of(&route.name, &run);
                row["since"] = json!(since.map(|at| at.to_string()));
                row["reason"] = json!(run.reason.name());
                let why = record
                    .map_or_else(|| run.reason.words().to_owned(), |record| self.say_why(&ward, &anchors, &record, run.reason));
                row["why"] = json!(why);
                rows.push(row);
            }
        }
        Ok(Value::Array(rows))
    }

    /// One of them: why in the words of this ward, when it was measured, and what would let it go.
    pub(super) fn held_run(&self, route: &str, first: Seq) -> Result<Value, DeskError> {
        let (row, run) = self.run_at(route, first)?;
        let (anchors, ward) = (self.store.anchors()?, self.inputs.ward.borrow().clone());
        let record = |seq| Ok::<_, StoreError>(self.store.read(seq, seq, 1)?.pop().map(|(_, record)| record));
        let (begins, ends) = (record(run.first)?, record(run.last)?);
        let measured = |record: &Option<Record>| record.as_ref().and_then(|record| self.measured(&anchors, record));
        let mut answer = self.row_of(&row.name, &run);
        answer["last"] = json!(run.last);
        answer["since"] = json!(measured(&begins).map(|at| at.to_string()));
        answer["until"] = json!(measured(&ends).map(|at| at.to_string()));
        answer["reason"] = json!(run.reason.name());
        let why =
            begins.map_or_else(|| run.reason.words().to_owned(), |record| self.say_why(&ward, &anchors, &record, run.reason));
        answer["why"] = json!(why);
        answer["released_by"] = json!(run.reason.released_by());
        answer["asks_whose"] = json!(run.reason.asks_whose());
        Ok(answer)
    }

    fn run_at(&self, route: &str, first: Seq) -> Result<(RouteRow, Held), DeskError> {
        let row = self.store.route(route)?.ok_or_else(|| DeskError::UnknownRoute(route.to_owned()))?;
        let run = self.store.held(row.n)?.into_iter().find(|run| run.first == first);
        let run = run.ok_or_else(|| DeskError::NotHeld { route: route.to_owned(), seq: first })?;
        Ok((row, run))
    }

    /// `None`: nobody's. It is said of the records, so it holds on every route.
    pub(super) fn name_held(
        &mut self,
        route: &str,
        first: Seq,
        patient: Option<SubjectKey>,
        actor: &str,
    ) -> Result<Value, DeskError> {
        if let Some(patient) = &patient {
            self.known(patient)?;
        }
        let (_, run) = self.run_at(route, first)?;
        let nobodys = patient.is_none() && run.reason == HoldReason::DeviceMismatch;
        if !run.reason.asks_whose() && !nobodys {
            return Err(DeskError::NotAQuestionOfWhose(run.reason));
        }
        let records = self.records_of(&run)?;
        if records.len() > MAX_NAMED {
            return Err(DeskError::TooManyHeld);
        }
        let (now, anchors) = (self.now()?, self.store.anchors()?);
        let times: Vec<Timestamp> = records.iter().filter_map(|record| self.measured(&anchors, record)).collect();
        let from = times.iter().min().copied().unwrap_or(now);
        let to = times.iter().max().copied().unwrap_or(now);
        let count = records.len();
        let action = if patient.is_some() { "held assign" } else { "held discard" };
        let whose = patient.as_ref().map_or("", |key| key.as_str());
        self.audit(actor, action, route, &format!("{count} records from {first} {whose}"))?;
        let ids = records.iter().map(|record| record.id).collect();
        let change = Change::Name { device: run.device, records: ids, subject: patient, from, to };
        let n = self.append(vec![(now, EventSource::Command, actor.to_owned(), change)], now)?;
        Ok(json!({ "event": n, "records": count }))
    }

    /// What every list says of a held run.
    pub(super) fn row_of(&self, route: &str, run: &Held) -> Value {
        json!({
            "route": route,
            "first": run.first,
            "records": run.count,
            "device": self.name_of(run.device),
            "metric": run.stream.map(|stream| stream.metric.name()),
        })
    }

    pub(super) fn name_of(&self, device: DeviceId) -> String {
        let named = self.settings.devices.iter().find(|(_, id)| **id == device);
        named.map_or_else(|| device.to_string(), |(name, _)| name.clone())
    }

    fn records_of(&self, run: &Held) -> Result<Vec<Record>, StoreError> {
        let (mut all, mut next) = (Vec::new(), run.first);
        while next <= run.last && all.len() <= MAX_NAMED {
            let records = self.store.read(next, run.last, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { break };
            next = last.next();
            let of_run = records.into_iter().map(|(_, record)| record);
            all.extend(of_run.filter(|record| (record.device, record.stream) == (run.device, run.stream)));
        }
        Ok(all)
    }
}
