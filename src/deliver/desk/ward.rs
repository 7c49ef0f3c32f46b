//! Who measures whom and who is who: changes of the ward, and what they would do to the past.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, Target, ask};
use crate::config::Bind;
use crate::deliver::RouteCommand;
use crate::reading::{Anchors, Body, DeviceId, Instant, Record, Seq, SubjectKey, Timestamp};
use crate::store::{OPEN, READ_LIMIT, StoreError};
use crate::ward::{Change, EventSource, Ward, sync, with};

/// A request for a moment this close to now is one for now: people's and the gateway's clocks differ.
pub(super) const NOW_MS: i64 = 5_000;

impl Desk {
    /// A key nobody has spoken of is a slip of the pen, not a new patient.
    pub(super) fn assignment(&self, target: &Target, patient: &SubjectKey) -> Result<Change, DeskError> {
        self.known(patient)?;
        if let Target::Device { name, .. } | Target::Spot(name) = target {
            self.in_service(name)?;
        }
        Ok(match target {
            Target::Device { name, .. } if self.settings.spots.contains_key(&self.device(name)?) => {
                return Err(DeskError::Shared(name.clone()));
            }
            Target::Device { name, user } => Change::Pair { device: self.device(name)?, user: *user, subject: patient.clone() },
            Target::Bed(bed) => Change::Occupy { bed: self.bed(bed)?, subject: patient.clone() },
            Target::Spot(name) => self.spot(name, patient)?,
        })
    }

    /// The next readings of a shared device are this patient's.
    pub(super) fn spot(&self, name: &str, patient: &SubjectKey) -> Result<Change, DeskError> {
        let device = self.device(name)?;
        let spot = self.settings.spots.get(&device).ok_or_else(|| DeskError::NotShared(name.to_owned()))?;
        Ok(Change::Spot { device, subject: patient.clone(), for_ms: spot.lasts_ms(), readings: spot.readings })
    }

    pub(super) fn known(&self, patient: &SubjectKey) -> Result<(), DeskError> {
        let patients = self.ward_store.patients()?;
        match patients.iter().find(|row| row.key == *patient) {
            Some(row) if row.forgotten => Err(DeskError::Forgotten(patient.clone())),
            Some(_) => Ok(()),
            None => Err(DeskError::UnknownPatient(patient.clone())),
        }
    }

    pub(super) fn end(&self, target: &Target) -> Result<Change, DeskError> {
        Ok(match target {
            Target::Device { name, user } => Change::Unpair { device: self.device(name)?, user: *user },
            Target::Bed(bed) => Change::Vacate { bed: self.bed(bed)? },
            Target::Spot(name) => Change::Unpair { device: self.device(name)?, user: None },
        })
    }

    /// Appends one event of the ward, if the past it touches allows it.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn change_ward(
        &mut self,
        change: Change,
        at: Option<Timestamp>,
        yes: Option<u64>,
        actor: &str,
        action: &str,
        object: &str,
        detail: &str,
    ) -> Result<Value, DeskError> {
        let now = self.now()?;
        let at = at.unwrap_or(now);
        if at > now.plus_ms(NOW_MS) {
            return Err(DeskError::Future(at));
        }
        let back_dated = at < now.plus_ms(-NOW_MS);
        if back_dated && now.0 - at.0 > i64::try_from(self.settings.back_dating.as_millis()).unwrap_or(i64::MAX) {
            return Err(DeskError::TooLongAgo { at, limit: self.settings.back_dating });
        }
        let at = if back_dated { at } else { now };
        let mut count = 0;
        if back_dated {
            let touched = self.touched(&change, at, now)?;
            count = self.readings(&touched, now)?;
            if !touched.is_empty() && !self.is_confirmed(&change, at, &touched, yes)? {
                self.shown = Some((change, at, now));
                return Err(DeskError::NeedsYes { count, hours: format!("{at} to {now}") });
            }
        }
        self.shown = None;
        self.audit(actor, action, object, detail)?;
        let n = self.append(vec![(at, EventSource::Command, actor.to_owned(), change)], now)?;
        Ok(json!({ "event": n, "at": at.to_string(), "readings": count }))
    }

    /// Whether `yes` is the number of readings that was shown for this very change. Devices go on measuring while a person
    /// reads and types: what was measured since is not counted.
    fn is_confirmed(
        &self,
        change: &Change,
        at: Timestamp,
        touched: &[(Seq, Record)],
        yes: Option<u64>,
    ) -> Result<bool, DeskError> {
        let shown = self.shown.as_ref().filter(|(shown, from, _)| shown == change && *from == at);
        let until = shown.map_or(Timestamp(i64::MAX), |(_, _, when)| *when);
        Ok(yes == Some(self.readings(touched, until)?))
    }

    /// How many of `records` are readings measured before `until`: windows and events follow their readings.
    pub(super) fn readings(&self, records: &[(Seq, Record)], until: Timestamp) -> Result<u64, StoreError> {
        let anchors = self.store.anchors()?;
        let counts = |record: &Record| {
            matches!(record.body, Body::Reading(_)) && self.measured(&anchors, record).is_some_and(|at| at < until)
        };
        Ok(records.iter().filter(|(_, record)| counts(record)).count() as u64)
    }

    /// The records whose binding the change would alter.
    fn touched(&self, change: &Change, at: Timestamp, now: Timestamp) -> Result<Vec<(Seq, Record)>, StoreError> {
        self.touched_by(&[(at, change.clone())], now)
    }

    pub(super) fn touched_by(&self, changes: &[(Timestamp, Change)], now: Timestamp) -> Result<Vec<(Seq, Record)>, StoreError> {
        let before = Ward::fold(&self.events);
        let affected = Ward::changes(&before, &with(&before, changes));
        let at = changes.iter().map(|(at, _)| *at).min().unwrap_or(now);
        let anchors = self.store.anchors()?;
        // Nothing arrives before it was measured.
        let before = |boot, arrived| anchors.wall(boot, arrived).is_some_and(|wall| wall.at < at);
        let (mut touched, mut next) = (Vec::new(), self.store.first_after(before)?);
        while !affected.is_empty() {
            let records = self.store.read(next, OPEN, READ_LIMIT)?;
            let Some((last, _)) = records.last() else { break };
            next = last.next();
            touched.extend(records.into_iter().filter(|(_, record)| {
                let measured = self.measured(&anchors, record);
                let inside = |at: Timestamp| affected.iter().any(|a| a.device == record.device && a.from <= at && at < a.to);
                record.stream.is_some_and(|stream| !stream.metric.row().about_device) && measured.is_some_and(inside)
            }));
        }
        Ok(touched)
    }

    pub(super) fn measured(&self, anchors: &Anchors, record: &Record) -> Option<Timestamp> {
        let zone = self.settings.zones.get(&record.device).unwrap_or(&self.settings.default_zone);
        match anchors.of(&record.stamp, record.stream, zone) {
            Instant::Unknown | Instant::Ambiguous(_) => None,
            instant => instant.wall().map(|wall| wall.at),
        }
    }

    /// The first route that sent any of them to a chart, and how many.
    async fn already_sent(&mut self, touched: &[(Seq, Record)]) -> Result<Option<(String, u64)>, DeskError> {
        if touched.is_empty() {
            return Ok(None);
        }
        let records = Arc::new(touched.to_vec());
        for (name, route) in self.inputs.routes.iter().filter(|(_, route)| route.bind == Bind::Patient) {
            let (done, answer) = oneshot::channel();
            ask(name, route, RouteCommand::Sent { records: records.clone(), done }).await?;
            let count = answer.await.map_err(|_| DeskError::RouteSilent(name.clone()))?;
            if count > 0 {
                return Ok(Some((name.clone(), count)));
            }
        }
        Ok(None)
    }

    /// What the config says about the ward becomes events, once, when the clock is known.
    pub(super) async fn apply_config(&mut self) -> Result<(), StoreError> {
        let Ok(now) = self.now() else { return Ok(()) };
        self.synced = true;
        let changes = sync(&Ward::fold(&self.events), &self.settings.wanted, now);
        for (at, change) in changes {
            let touched = if at < now { self.touched(&change, at, now)? } else { Vec::new() };
            let sent = self.already_sent(&touched).await.ok().flatten();
            let at = if let Some((route, count)) = sent {
                tracing::warn!(%route, count, "an assignment of the config begins in the past, where readings were sent; it begins now instead");
                now
            } else {
                at
            };
            self.audit("config", "assign", "config", &describe(&change))?;
            self.append(vec![(at, EventSource::Config, "config".to_owned(), change)], now)?;
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        events: Vec<(Timestamp, EventSource, String, Change)>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let events = events.into_iter().map(|(at, source, operator, change)| (at, now, source, operator, change)).collect();
        let appended = self.ward_store.append(events)?;
        let n = appended.last().map_or(0, |event| event.n);
        self.events.extend(appended);
        self.publish()?;
        Ok(n)
    }

    /// All routes follow the ward that is known now.
    pub(super) fn publish(&mut self) -> Result<(), StoreError> {
        let forgotten = self.ward_store.patients()?.into_iter().filter(|row| row.forgotten).map(|row| row.key).collect();
        let ward = Ward::fold(&self.events).with_guards(self.settings.guards).with_forgotten(forgotten);
        let ward = ward.with_census_until(self.census_until()?);
        self.inputs.ward.send_replace(Arc::new(ward));
        Ok(())
    }

    pub(super) fn device(&self, name: &str) -> Result<DeviceId, DeskError> {
        self.settings.devices.get(name).copied().ok_or_else(|| DeskError::UnknownDevice(name.to_owned()))
    }

    fn bed(&self, name: &str) -> Result<String, DeskError> {
        let known = self.settings.beds.iter().any(|bed| bed == name);
        known.then(|| name.to_owned()).ok_or_else(|| DeskError::UnknownBed(name.to_owned()))
    }
}

fn describe(change: &Change) -> String {
    serde_json::to_string(change).expect("a change is plain data")
}
