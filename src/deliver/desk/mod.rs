//! Where people's requests are carried out: who measures whom, who is who, and which route may send. It owns `ward.db`,
//! keeps the folded ward that all routes follow, and audits what it does.

mod census;
mod decisions;
mod devices;
mod held;
mod letters;
mod patients;
mod records;
mod routes;
mod scan;
mod ward;
mod who;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use self::letters::LetterPlace;
pub use self::scan::ScanSettings;
use super::route::RouteCommand;
use super::status::RouteStatus;
use crate::config::{Bind, SpotSettings};
use crate::radio::BootClock;
use crate::reading::{DeviceId, RecordId, Seq, SubjectKey, Timestamp, UserIndex};
use crate::store::{AuditEntry, Store, StoreError, WardStore};
use crate::ward::{CensusError, CensusFormat, Change, Guards, HoldReason, IdentityError, Phi, Station, Wanted, Ward, WardEvent};

/// The ward's config is applied as soon as the clock is known; it is looked at this often until then.
const TICK: Duration = Duration::from_secs(1);

/// The longest name an answer repeats; a name written out in another notation is longer.
const MAX_QUOTED: usize = 24;
/// Beds are numbered, and no date of birth is so short.
const MAX_BED_NUMBER: usize = 7;

#[derive(Clone, Debug)]
pub struct DeskSettings {
    pub gateway: String,
    pub devices: BTreeMap<String, DeviceId>,
    /// Devices that are whoever's is next.
    pub spots: BTreeMap<DeviceId, SpotSettings>,
    pub beds: Vec<String>,
    pub zones: BTreeMap<DeviceId, TimeZone>,
    pub default_zone: TimeZone,
    pub back_dating: Duration,
    pub guards: Guards,
    /// How long a census speaks for the beds it filled; absent: until it is contradicted.
    pub stale_after: Option<Duration>,
    /// What the config says about who measures whom.
    pub wanted: Vec<Wanted>,
    pub patients: Vec<(SubjectKey, bool)>,
    /// Absent: no code is known.
    pub scan: Option<ScanSettings>,
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
    Device {
        name: String,
        user: Option<UserIndex>,
    },
    Bed(String),
    /// The next readings of a shared device.
    Spot(String),
}

#[derive(Debug)]
pub enum DeskRequest {
    Assign { target: Target, patient: SubjectKey, from: Option<Timestamp>, yes: Option<u64>, actor: String },
    Unassign { target: Target, at: Option<Timestamp>, yes: Option<u64>, actor: String },
    WhoIsWhere { at: Option<Timestamp> },
    Patients,
    SetPatient { key: SubjectKey, document: Phi<Vec<u8>>, actor: String },
    ForgetPatient { key: SubjectKey, yes: Option<u64>, actor: String },
    FindRecord { id: RecordId, below: Option<Seq> },
    Record { seq: Seq },
    Replace { old: String, new: String, actor: String },
    Retire { device: String, actor: String },
    Clean { device: String, actor: String },
    Held,
    HeldRun { route: String, seq: Seq },
    NameHeld { route: String, seq: Seq, patient: Option<SubjectKey>, actor: String },
    Decisions,
    Decide { route: String, seq: Seq, accept: bool, actor: String },
    Routes,
    PauseRoute { name: String, reason: String, actor: String },
    ResumeRoute { name: String, actor: String },
    ReplayRoute { name: String, from: Timestamp, to: Timestamp, actor: String },
    DropRoute { name: String, actor: String },
    DeadLetters { route: Option<String>, from: Option<LetterPlace>, limit: usize },
    DeadLetter { route: String, seq: Seq },
    RetryLetters { route: String, seqs: Vec<Seq>, actor: String },
    DropLetters { route: String, seqs: Vec<Seq>, yes: u64, actor: String },
    Census { file: Phi<Zeroizing<Vec<u8>>>, format: CensusFormat },
    ConfirmCensus { n: u64, yes: u64, actor: String },
    Scan { station: String, code: Phi<String>, actor: String },
}

#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("no device is called {}; `bedrail status` lists them", named(.0))]
    UnknownDevice(String),
    #[error("device \"{0}\" is shared: nobody keeps it; `bedrail assign --device {0} PATIENT --spot` ties its next readings")]
    Shared(String),
    #[error(
        "device \"{0}\" is not shared, so no scan ties its readings; write use = \"shared\" in its section, or assign it without --spot"
    )]
    NotShared(String),
    #[error("device \"{0}\" is retired; `bedrail devices clean {0}` takes it back into service")]
    Retired(String),
    #[error("device \"{0}\" is somebody's already; end that first, or name a device that is free")]
    NotFree(String),
    #[error("no bed is called {}; beds are named in the config as [[bed]]", named(.0))]
    UnknownBed(String),
    #[error("no route is called {}; `bedrail route list` lists them", named(.0))]
    UnknownRoute(String),
    #[error(
        "nobody is known as {}; `bedrail patient list` lists the keys; a new one enters by [[patient]] or `bedrail patient set`",
        named(.0.as_str())
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
    #[error("record {0} is not in the log: retention took it, or it was never given")]
    NoRecord(Seq),
    #[error(
        "this deletes for good who {key} is; {count} records not sent yet then wait as patient_unknown; if that is meant, repeat it with --yes {count}"
    )]
    Forgets { key: SubjectKey, count: u64 },
    #[error("{0} was forgotten; `bedrail patient set {0} --identifiers-file FILE` says anew who that is")]
    Forgotten(SubjectKey),
    #[error("nothing that is held on route \"{route}\" begins with record {seq}; `bedrail held list` shows what does")]
    NotHeld { route: String, seq: Seq },
    #[error("these wait for another reason than whose they are: {}", .0.words())]
    NotAQuestionOfWhose(HoldReason),
    #[error("more than 1,000 records are held there; an assignment with --from says it for all")]
    TooManyHeld,
    #[error(
        "nothing that waits for a decision on route \"{route}\" begins with record {seq}; `bedrail decide list` shows what does"
    )]
    NothingToDecide { route: String, seq: Seq },
    #[error("the identifiers are {0} octets; a document of at most 65,536 octets is kept")]
    IdentityTooLarge(usize),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("route \"{0}\" is in the config; take it out and restart before dropping it")]
    RouteInUse(String),
    #[error("record {seq} is no dead letter of route \"{route}\"; `bedrail dead-letters list` shows which are")]
    NoDeadLetter { route: String, seq: Seq },
    #[error("{0} records were named and {1} confirmed; nothing was dropped")]
    WrongYes(usize, u64),
    #[error("at most {limit} records are named at once, not {0}", limit = letters::MAX_NAMED)]
    TooMany(usize),
    #[error("route \"{0}\" is not in the config: it sends nothing; `bedrail route drop` forgets it with its dead letters")]
    NotInConfig(String),
    #[error("{0}")]
    Census(#[from] CensusError),
    #[error("{0} and {1} are one person by now, and the list has them in two beds")]
    OnePerson(SubjectKey, SubjectKey),
    #[error("the ward, or the list, is not what was shown any more; nothing was changed: look at the difference again")]
    NoCensus,
    #[error("the config does not say how wristbands and labels look; write scan.patient and scan.device")]
    NoScan,
    #[error("more stations than a gateway serves are in the middle of a scan; try again in a minute")]
    TooManyStations,
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
    /// Whom somebody was about to forget, and how many unsent records that was shown to touch.
    forgetting: Option<(SubjectKey, u64)>,
    /// Likewise of a census, and how many were read.
    shown_census: Option<census::PendingCensus>,
    censuses: u64,
    stations: BTreeMap<String, Station>,
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
        let mut desk = Self {
            settings,
            store,
            ward_store,
            events,
            boot,
            inputs,
            synced: false,
            shown: None,
            forgetting: None,
            shown_census: None,
            censuses: 0,
            stations: BTreeMap::new(),
        };
        desk.publish()?;
        Ok(desk)
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
            DeskRequest::WhoIsWhere { at } => self.who_is_where(at),
            DeskRequest::Patients => self.patients(),
            DeskRequest::SetPatient { key, document, actor } => self.set_patient(&key, &document, &actor),
            DeskRequest::ForgetPatient { key, yes, actor } => self.forget_patient(&key, yes, &actor).await,
            DeskRequest::FindRecord { id, below } => self.find_record(id, below),
            DeskRequest::Record { seq } => self.record(seq).await,
            DeskRequest::Replace { old, new, actor } => self.replace(&old, &new, &actor).await,
            DeskRequest::Retire { device, actor } => self.retire(&device, &actor).await,
            DeskRequest::Clean { device, actor } => self.clean(&device, &actor).await,
            DeskRequest::Held => self.held(),
            DeskRequest::HeldRun { route, seq } => self.held_run(&route, seq),
            DeskRequest::NameHeld { route, seq, patient, actor } => self.name_held(&route, seq, patient, &actor),
            DeskRequest::Decisions => self.decisions(),
            DeskRequest::Decide { route, seq, accept, actor } => self.decide(&route, seq, accept, &actor).await,
            DeskRequest::Routes => self.routes(),
            DeskRequest::PauseRoute { name, reason, actor } => self.pause(&name, Some(reason), &actor).await,
            DeskRequest::ResumeRoute { name, actor } => self.pause(&name, None, &actor).await,
            DeskRequest::ReplayRoute { name, from, to, actor } => self.replay(&name, from, to, &actor).await,
            DeskRequest::DropRoute { name, actor } => self.drop_route(&name, &actor),
            DeskRequest::DeadLetters { route, from, limit } => self.dead_letters(route.as_deref(), from, limit),
            DeskRequest::DeadLetter { route, seq } => self.dead_letter(&route, seq).await,
            DeskRequest::RetryLetters { route, seqs, actor } => self.retry_letters(&route, seqs, &actor).await,
            DeskRequest::DropLetters { route, seqs, yes, actor } => self.drop_letters(&route, seqs, yes, &actor).await,
            DeskRequest::Census { file, format } => self.census(&file, format),
            DeskRequest::ConfirmCensus { n, yes, actor } => self.confirm_census(n, yes, &actor),
            DeskRequest::Scan { station, code, actor } => self.scan(&station, &code, &actor),
        }
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

/// What somebody asked for, quoted where it is shaped like a name of the config: who typed a patient's name or number finds it
/// in no answer.
fn named(asked: &str) -> String {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let number = asked.as_bytes().windows(5).any(|five| five.iter().all(u8::is_ascii_digit));
    let shaped = asked.starts_with(|first: char| first.is_ascii_alphabetic()) || asked.len() <= MAX_BED_NUMBER;
    if shaped && !number && asked.len() <= MAX_QUOTED && asked.bytes().all(allowed) {
        format!("\"{asked}\"")
    } else {
        "that".to_owned()
    }
}

async fn ask(name: &str, route: &DeskRoute, command: RouteCommand) -> Result<(), DeskError> {
    route.commands.send(command).await.map_err(|_| DeskError::RouteSilent(name.to_owned()))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Device { name, user: None } => write!(f, "device {name}"),
            Target::Device { name, user: Some(user) } => write!(f, "device {name} user {user}"),
            Target::Bed(bed) => write!(f, "bed {bed}"),
            Target::Spot(name) => write!(f, "device {name}"),
        }
    }
}
