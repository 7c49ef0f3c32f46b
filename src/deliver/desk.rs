//! Where people's requests are carried out: who measures whom, who is who, and which route may send. It owns `ward.db`,
//! keeps the folded ward that all routes follow, and audits what it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::route::RouteCommand;
use super::status::RouteStatus;
use crate::config::Bind;
use crate::radio::BootClock;
use crate::reading::{Anchors, Body, DeviceId, Instant, Record, Seq, SubjectKey, Timestamp, UserIndex};
use crate::store::{AuditEntry, OPEN, READ_LIMIT, Store, StoreError, WardStore};
use crate::ward::{Change, EventSource, Phi, Wanted, Ward, WardEvent, sync};

/// The ward's config is applied as soon as the clock is known; it is looked at this often until then.
const TICK: Duration = Duration::from_secs(1);
/// A request for a moment this close to now is one for now: people's and the gateway's clocks differ.
const NOW_MS: i64 = 5_000;
/// Identifiers of one patient, as a document.
const MAX_IDENTITY: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct DeskSettings {
    pub gateway: String,
    pub devices: BTreeMap<String, DeviceId>,
    pub beds: Vec<String>,
    pub zones: BTreeMap<DeviceId, TimeZone>,
    pub default_zone: TimeZone,
    pub back_dating: Duration,
    /// What the config says about who measures whom.
    pub wanted: Vec<Wanted>,
    pub patients: Vec<(SubjectKey, bool)>,
}

/// A route, as the desk sees it.
pub struct DeskRoute {
    pub bind: Bind,
    pub commands: mpsc::Sender<RouteCommand>,
    pub status: watch::Receiver<RouteStatus>,
}

pub struct DeskInputs {
    pub requests: mpsc::Receiver<(DeskRequest, oneshot::Sender<Result<Value, DeskError>>)>,
    pub routes: BTreeMap<String, DeskRoute>,
    pub ward: watch::Sender<Arc<Ward>>,
    pub stop: CancellationToken,
}

/// What is assigned to a patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Device { name: String, user: Option<UserIndex> },
    Bed(String),
}

#[derive(Debug)]
pub enum DeskRequest {
    Assign { target: Target, patient: SubjectKey, from: Option<Timestamp>, yes: Option<u64>, actor: String },
    Unassign { target: Target, at: Option<Timestamp>, yes: Option<u64>, actor: String },
    Assignments { at: Option<Timestamp> },
    Patients,
    SetPatient { key: SubjectKey, document: Phi<Vec<u8>>, actor: String },
    ForgetPatient { key: SubjectKey, actor: String },
    Routes,
    PauseRoute { name: String, reason: String, actor: String },
    ResumeRoute { name: String, actor: String },
    ReplayRoute { name: String, from: Timestamp, to: Timestamp, actor: String },
    DropRoute { name: String, actor: String },
}

#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("no device is called \"{0}\"; `bedrail status` lists them")]
    UnknownDevice(String),
    #[error("no bed is called \"{0}\"; beds are named in the config as [[bed]]")]
    UnknownBed(String),
    #[error("no route is called \"{0}\"; `bedrail route list` lists them")]
    UnknownRoute(String),
    #[error(
        "nobody is known as \"{0}\"; `bedrail patient list` lists the keys; a new one enters by [[patient]] or `bedrail patient set`"
    )]
    UnknownPatient(SubjectKey),
    #[error("the gateway does not know the time yet, so it cannot say from when; try again when `bedrail status` shows a clock")]
    NoClock,
    #[error("{0} lies in the future; assignments begin now or earlier")]
    Future(Timestamp),
    #[error("{at} is longer ago than back-dating allows ({} min, ward.back_dating)", limit.as_secs() / 60)]
    TooLongAgo { at: Timestamp, limit: Duration },
    #[error("this changes whose {count} readings are ({hours}); if that is meant, repeat it with --yes {count}")]
    NeedsYes { count: u64, hours: String },
    #[error(
        "{count} of these readings were already sent to a chart by route \"{route}\"; they can't be taken back yet, so the past stays as it is: leave out the time to begin now"
    )]
    AlreadySent { count: u64, route: String },
    #[error("the identifiers are {0} octets; a document of at most 65,536 octets is kept")]
    IdentityTooLarge(usize),
    #[error("the identifiers are not a JSON object")]
    IdentityNotJson,
    #[error("route \"{0}\" is in the config; take it out and restart before dropping it")]
    RouteInUse(String),
    #[error("route \"{0}\" does not answer")]
    RouteSilent(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct Desk {
    settings: DeskSettings,
    store: Store,
    ward_store: WardStore,
    events: Vec<WardEvent>,
    boot: BootClock,
    inputs: DeskInputs,
    /// The config's assignments are in the log.
    synced: bool,
    /// The last change of the past that was shown and not made: what, from when, and when it was shown.
    shown: Option<(Change, Timestamp, Timestamp)>,
}

impl Desk {
    pub fn new(
        settings: DeskSettings,
        store: Store,
        mut ward_store: WardStore,
        boot: BootClock,
        inputs: DeskInputs,
    ) -> Result<Self, StoreError> {
        for (key, test) in &settings.patients {
            ward_store.know_patient(key, *test)?;
        }
        let events = ward_store.events()?;
        inputs.ward.send_replace(Arc::new(Ward::fold(&events)));
        Ok(Self { settings, store, ward_store, events, boot, inputs, synced: false, shown: None })
    }

    /// Runs until told to stop. Only a store that fails ends it with an error.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                () = self.inputs.stop.cancelled() => return Ok(()),
                _ = tick.tick(), if !self.synced => match self.apply_config().await {
                    // What was applied is in the log; the rest follows when the disk takes it.
                    Err(error) if error.is_passing() => self.synced = false,
                    done => done?,
                },
                Some((request, done)) = self.inputs.requests.recv() => {
                    let answer = match self.answer(request).await {
                        Err(DeskError::Store(error)) if !error.is_passing() => return Err(error),
                        answer => answer,
                    };
                    // Whoever asked may have gone; what was asked is done all the same.
                    let _ = done.send(answer);
                }
            }
        }
    }

    async fn answer(&mut self, request: DeskRequest) -> Result<Value, DeskError> {
        match request {
            DeskRequest::Assign { target, patient, from, yes, actor } => {
                let change = self.assignment(&target, &patient)?;
                self.change_ward(change, from, yes, &actor, "assign", &target.to_string(), patient.as_str()).await
            }
            DeskRequest::Unassign { target, at, yes, actor } => {
                let change = self.end(&target)?;
                self.change_ward(change, at, yes, &actor, "unassign", &target.to_string(), "").await
            }
            DeskRequest::Assignments { at } => self.assignments(at),
            DeskRequest::Patients => self.patients(),
            DeskRequest::SetPatient { key, document, actor } => self.set_patient(&key, &document, &actor),
            DeskRequest::ForgetPatient { key, actor } => self.forget_patient(&key, &actor),
            DeskRequest::Routes => self.routes(),
            DeskRequest::PauseRoute { name, reason, actor } => self.pause(&name, Some(reason), &actor).await,
            DeskRequest::ResumeRoute { name, actor } => self.pause(&name, None, &actor).await,
            DeskRequest::ReplayRoute { name, from, to, actor } => self.replay(&name, from, to, &actor).await,
            DeskRequest::DropRoute { name, actor } => self.drop_route(&name, &actor),
        }
    }

    /// A key nobody has spoken of is a slip of the pen, not a new patient.
    fn assignment(&self, target: &Target, patient: &SubjectKey) -> Result<Change, DeskError> {
        if !self.ward_store.patients()?.iter().any(|row| row.key == *patient) {
            return Err(DeskError::UnknownPatient(patient.clone()));
        }
        Ok(match target {
            Target::Device { name, user } => Change::Pair { device: self.device(name)?, user: *user, subject: patient.clone() },
            Target::Bed(bed) => Change::Occupy { bed: self.bed(bed)?, subject: patient.clone() },
        })
    }

    fn end(&self, target: &Target) -> Result<Change, DeskError> {
        Ok(match target {
            Target::Device { name, user } => Change::Unpair { device: self.device(name)?, user: *user },
            Target::Bed(bed) => Change::Vacate { bed: self.bed(bed)? },
        })
    }

    /// Appends one event of the ward, if the past it touches allows it.
    #[allow(clippy::too_many_arguments)]
    async fn change_ward(
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
            if let Some((route, count)) = self.already_sent(&touched).await? {
                return Err(DeskError::AlreadySent { count, route });
            }
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
    fn readings(&self, records: &[(Seq, Record)], until: Timestamp) -> Result<u64, StoreError> {
        let anchors = self.store.anchors()?;
        let counts = |record: &Record| {
            matches!(record.body, Body::Reading(_)) && self.measured(&anchors, record).is_some_and(|at| at < until)
        };
        Ok(records.iter().filter(|(_, record)| counts(record)).count() as u64)
    }

    /// The records whose binding the change would alter.
    fn touched(&self, change: &Change, at: Timestamp, now: Timestamp) -> Result<Vec<(Seq, Record)>, StoreError> {
        let event =
            |n| WardEvent { n, at, learned: now, source: EventSource::Command, operator: String::new(), change: change.clone() };
        let mut events = self.events.clone();
        events.push(event(self.events.last().map_or(1, |event| event.n + 1)));
        let affected = Ward::changes(&Ward::fold(&self.events), &Ward::fold(&events));
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

    fn measured(&self, anchors: &Anchors, record: &Record) -> Option<Timestamp> {
        let zone = self.settings.zones.get(&record.device).unwrap_or(&self.settings.default_zone);
        match anchors.measured(&record.stamp, zone) {
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
    async fn apply_config(&mut self) -> Result<(), StoreError> {
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

    fn append(&mut self, events: Vec<(Timestamp, EventSource, String, Change)>, now: Timestamp) -> Result<u64, StoreError> {
        let events = events.into_iter().map(|(at, source, operator, change)| (at, now, source, operator, change)).collect();
        let appended = self.ward_store.append(events)?;
        let n = appended.last().map_or(0, |event| event.n);
        self.events.extend(appended);
        self.inputs.ward.send_replace(Arc::new(Ward::fold(&self.events)));
        Ok(n)
    }

    fn assignments(&self, at: Option<Timestamp>) -> Result<Value, DeskError> {
        let at = match at {
            Some(at) => at,
            None => self.now()?,
        };
        let ward = Ward::fold(&self.events);
        let holds = |from: Timestamp, to: Option<Timestamp>| from <= at && to.is_none_or(|to| at < to);
        let name = |device: DeviceId| {
            let named = self.settings.devices.iter().find(|(_, id)| **id == device);
            named.map_or_else(|| device.to_string(), |(name, _)| name.clone())
        };
        let devices = ward.pairings().filter(|(_, _, i)| holds(i.from, i.to)).map(
            |(device, user, i)| json!({ "device": name(device), "user": user, "patient": i.value, "from": i.from.to_string() }),
        );
        let places = ward
            .places()
            .filter(|(_, i)| holds(i.from, i.to))
            .map(|(device, i)| json!({ "device": name(device), "bed": i.value, "from": i.from.to_string() }));
        let beds = ward
            .beds()
            .filter(|(_, i)| holds(i.from, i.to))
            .map(|(bed, i)| json!({ "bed": bed, "patient": i.value, "from": i.from.to_string() }));
        Ok(json!({
            "at": at.to_string(),
            "devices": devices.collect::<Vec<_>>(),
            "places": places.collect::<Vec<_>>(),
            "beds": beds.collect::<Vec<_>>(),
        }))
    }

    fn patients(&self) -> Result<Value, DeskError> {
        let row = |row: crate::store::PatientRow| json!({ "key": row.key, "test": row.test, "identified": row.identified, "forgotten": row.forgotten });
        Ok(Value::Array(self.ward_store.patients()?.into_iter().map(row).collect()))
    }

    fn set_patient(&mut self, key: &SubjectKey, document: &Phi<Vec<u8>>, actor: &str) -> Result<Value, DeskError> {
        if document.expose().len() > MAX_IDENTITY {
            return Err(DeskError::IdentityTooLarge(document.expose().len()));
        }
        // The parser's own message would quote the document.
        if !serde_json::from_slice::<Value>(document.expose()).is_ok_and(|value| value.is_object()) {
            return Err(DeskError::IdentityNotJson);
        }
        self.audit(actor, "patient set", key.as_str(), "")?;
        self.ward_store.set_identity(key, document)?;
        Ok(json!({ "patient": key }))
    }

    fn forget_patient(&mut self, key: &SubjectKey, actor: &str) -> Result<Value, DeskError> {
        self.audit(actor, "patient forget", key.as_str(), "")?;
        if !self.ward_store.forget(key)? {
            return Err(DeskError::UnknownPatient(key.clone()));
        }
        Ok(json!({ "patient": key }))
    }

    fn routes(&self) -> Result<Value, DeskError> {
        let mut rows = Vec::new();
        for row in self.store.routes()? {
            rows.push(match self.inputs.routes.get(&row.name) {
                Some(route) => serde_json::to_value(&*route.status.borrow()).expect("a status is plain data"),
                None => json!({ "name": row.name, "kind": row.kind, "state": "orphaned" }),
            });
        }
        Ok(Value::Array(rows))
    }

    async fn pause(&mut self, name: &str, reason: Option<String>, actor: &str) -> Result<Value, DeskError> {
        let row = self.store.route(name)?.ok_or_else(|| DeskError::UnknownRoute(name.to_owned()))?;
        let route = self.inputs.routes.get(name).ok_or_else(|| DeskError::UnknownRoute(name.to_owned()))?;
        let action = if reason.is_some() { "route pause" } else { "route resume" };
        let entry = self.entry(actor, action, name, reason.as_deref().unwrap_or_default());
        self.store.set_paused(row.n, reason.as_deref(), &entry)?;
        let (done, answer) = oneshot::channel();
        let command = match reason {
            Some(reason) => RouteCommand::Pause { reason, done },
            None => RouteCommand::Resume { done },
        };
        ask(name, route, command).await?;
        answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?;
        Ok(json!({ "route": name }))
    }

    async fn replay(&mut self, name: &str, from: Timestamp, to: Timestamp, actor: &str) -> Result<Value, DeskError> {
        if !self.inputs.routes.contains_key(name) {
            return Err(DeskError::UnknownRoute(name.to_owned()));
        }
        self.audit(actor, "route replay", name, &format!("{from} to {to}"))?;
        let route = &self.inputs.routes[name];
        let (done, answer) = oneshot::channel();
        ask(name, route, RouteCommand::Replay { from, to, done }).await?;
        let count = answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?;
        Ok(json!({ "route": name, "records": count }))
    }

    /// Only a route that left the config: one that runs would come back with nothing of what it owed.
    fn drop_route(&mut self, name: &str, actor: &str) -> Result<Value, DeskError> {
        let row = self.store.route(name)?.ok_or_else(|| DeskError::UnknownRoute(name.to_owned()))?;
        if self.inputs.routes.contains_key(name) {
            return Err(DeskError::RouteInUse(name.to_owned()));
        }
        let owed = self.store.lanes(row.n)?;
        let head = self.store.head()?;
        let entry = self.entry(actor, "route drop", name, "");
        self.store.drop_route(row.n, &entry)?;
        Ok(json!({ "route": name, "unsent": owed.live.count_to(head) + owed.backlog.count_to(head) }))
    }

    fn device(&self, name: &str) -> Result<DeviceId, DeskError> {
        self.settings.devices.get(name).copied().ok_or_else(|| DeskError::UnknownDevice(name.to_owned()))
    }

    fn bed(&self, name: &str) -> Result<String, DeskError> {
        let known = self.settings.beds.iter().any(|bed| bed == name);
        known.then(|| name.to_owned()).ok_or_else(|| DeskError::UnknownBed(name.to_owned()))
    }

    fn now(&self) -> Result<Timestamp, DeskError> {
        let wall = self.store.anchors()?.wall(self.boot.id(), self.boot.now());
        wall.map(|wall| wall.at).ok_or(DeskError::NoClock)
    }

    fn audit(&mut self, actor: &str, action: &str, object: &str, detail: &str) -> Result<(), StoreError> {
        let entry = self.entry(actor, action, object, detail);
        self.store.audit(&entry)
    }

    fn entry(&self, actor: &str, action: &str, object: &str, detail: &str) -> AuditEntry {
        AuditEntry {
            boot: self.boot.id(),
            at: self.boot.now(),
            wall: self.now().ok(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail: detail.to_owned(),
        }
    }
}

async fn ask(name: &str, route: &DeskRoute, command: RouteCommand) -> Result<(), DeskError> {
    route.commands.send(command).await.map_err(|_| DeskError::RouteSilent(name.to_owned()))
}

fn describe(change: &Change) -> String {
    serde_json::to_string(change).expect("a change is plain data")
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Device { name, user: None } => write!(f, "device {name}"),
            Target::Device { name, user: Some(user) } => write!(f, "device {name} user {user}"),
            Target::Bed(bed) => write!(f, "bed {bed}"),
        }
    }
}
