//! One record: what it is, where it is and has been on each route, whose it was taken to be and by which events.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, ask};
use crate::config::Bind;
use crate::deliver::route::{RecordPlace, Traced};
use crate::deliver::{Decision, Lane, RouteCommand};
use crate::reading::{
    Anchors, Body, ChartId, DeliveryId, DeviceId, Op, Placement, Record, RecordId, Retraction, Seq, SubjectKey,
};
use crate::store::{READ_LIMIT, RouteRow, StoreError};
use crate::ward::{HoldReason, Ward};

/// Records looked through for an id in one answer, which has to come within 2 s from a slow card too; whoever asks goes on.
const LOOK_THROUGH: usize = 20 * READ_LIMIT;
/// Frames looked through for what takes a record back and for its other versions, for the same reason.
const MAX_FRAMES: usize = 20_000;

impl Desk {
    /// Looks for an id from below `below` down. An answer without `seq` says in `below` where to go on, or nothing at the end.
    pub(super) fn find_record(&self, id: RecordId, below: Option<Seq>) -> Result<Value, DeskError> {
        if let Some(seq) = self.store.seq_of(id)? {
            return Ok(json!({ "seq": seq }));
        }
        let mut last = below.map_or(self.store.head()?, |below| Seq(below.0.saturating_sub(1)));
        let oldest = self.store.stats()?.oldest;
        let end = Seq(last.0.saturating_sub(LOOK_THROUGH as u64)).max(oldest);
        while last >= end && last.0 > 0 {
            let first = Seq((last.0 + 1).saturating_sub(READ_LIMIT as u64)).max(end);
            let found = self.store.read(first, last, READ_LIMIT)?.into_iter().rev().find(|(_, record)| record.id == id);
            if let Some((seq, _)) = found {
                return Ok(json!({ "seq": seq }));
            }
            last = Seq(first.0.saturating_sub(1));
        }
        Ok(if end > oldest { json!({ "below": end }) } else { json!({}) })
    }

    pub(super) async fn record(&mut self, seq: Seq) -> Result<Value, DeskError> {
        let rows = self.store.routes()?;
        let (record, in_log) = self.record_at(&rows, seq)?;
        let (anchors, ward) = (self.store.anchors()?, self.inputs.ward.borrow().clone());
        let (mut routes, mut moved) = (Vec::new(), matches!(record.body, Body::Window(_)));
        for row in &rows {
            routes.push(match self.traced(&row.name, seq, &record).await? {
                Some((bind, traced)) => {
                    moved |= traced.row.as_ref().is_some_and(|row| !row.past.is_empty());
                    self.on_route(&ward, &anchors, row, bind, &record, &traced)
                }
                None => json!({ "route": row.name, "state": "orphaned" }),
            });
        }
        let Relatives { versions, retractions, complete } =
            if moved { self.relatives(&anchors, seq, &record)? } else { Relatives::none() };
        let mut taken_back = Vec::new();
        for (at, retraction, of) in retractions {
            let traced = self.traced(&of.route, at, &retraction).await?;
            let state = traced.map_or("orphaned", |(_, traced)| word_of(traced.place));
            taken_back.push(json!({ "seq": at, "route": of.route, "placement": of.placement.to_string(), "version": of.version, "state": state }));
        }
        let mut answer = self.header(&anchors, seq, &record);
        answer["in_log"] = json!(in_log);
        answer["versions"] = json!(versions);
        answer["retractions"] = Value::Array(taken_back);
        answer["all_found"] = json!(complete);
        answer["routes"] = Value::Array(routes);
        Ok(answer)
    }

    /// In the log, or kept by a dead letter.
    fn record_at(&self, rows: &[RouteRow], seq: Seq) -> Result<(Record, bool), DeskError> {
        if let Some((_, record)) = self.store.read(seq, seq, 1)?.pop() {
            return Ok((record, true));
        }
        let kept = rows.iter().find_map(|row| self.store.kept_record(row.n, seq).transpose());
        Ok((kept.transpose()?.ok_or(DeskError::NoRecord(seq))?, false))
    }

    /// What every answer says of a record: never its value.
    fn header(&self, anchors: &Anchors, seq: Seq, record: &Record) -> Value {
        let wall = anchors.wall(record.stamp.boot, record.stamp.arrived);
        json!({
            "seq": seq,
            "record": record.id.to_string(),
            "version": record.version,
            "kind": record.body.kind(),
            "device": (record.device != DeviceId::GATEWAY).then(|| self.name_of(record.device)),
            "user": record.stream.and_then(|stream| stream.user),
            "metric": record.stream.map(|stream| stream.metric.name()),
            "measured_at": match &record.body {
                Body::Window(window) => Some(window.from.to_string()),
                _ => self.measured(anchors, record).map(|at| at.to_string()),
            },
            "received_at": wall.map(|wall| wall.at.to_string()),
            "stored_by_device": record.stamp.stored,
        })
    }

    /// `None` for a route that left the config.
    async fn traced(&mut self, name: &str, seq: Seq, record: &Record) -> Result<Option<(Bind, Traced)>, DeskError> {
        let Some(route) = self.inputs.routes.get(name) else { return Ok(None) };
        let (done, answer) = oneshot::channel();
        ask(name, route, RouteCommand::Trace { seq, record: Box::new(record.clone()), done }).await?;
        let traced = answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?;
        Ok(Some((route.bind, traced)))
    }

    fn on_route(&self, ward: &Ward, anchors: &Anchors, row: &RouteRow, bind: Bind, record: &Record, traced: &Traced) -> Value {
        let mut entry = json!({
            "route": row.name,
            "bind": bind.name(),
            "state": word_of(traced.place),
            "paused": row.paused,
            "by_now": self.decided(ward, anchors, record, traced),
            "deliveries": self.deliveries(record, traced),
        });
        match traced.place {
            RecordPlace::Pending(lane) => entry["lane"] = json!(lane.name()),
            RecordPlace::Held(reason) => {
                entry["held"] = json!(reason.name());
                entry["why"] = json!(self.say_why(ward, anchors, record, reason));
                entry["released_by"] = json!(reason.released_by());
            }
            _ => {}
        }
        if let Some(row) = traced.row.as_ref()
            && let Some(subject) = &row.subject
        {
            entry["stands"] = json!({
                "patient": subject,
                "rule": row.rule,
                "placement": row.placement.to_string(),
                "chart": ChartId::of(record.id, row.placement).to_string(),
                "events": self.events_of(ward, &row.evidence),
            });
        }
        entry
    }

    /// What becomes of it by what is known now.
    fn decided(&self, ward: &Ward, anchors: &Anchors, record: &Record, traced: &Traced) -> Value {
        let bound = |binding: &crate::ward::Binding| {
            json!({
                "patient": ward.known_as(&binding.subject),
                "rule": binding.rule.name(),
                "events": self.events_of(ward, &binding.evidence),
            })
        };
        match &traced.decision {
            _ if traced.not_chosen => json!({ "settled": "not_chosen" }),
            Decision::Send { binding: Some(binding), .. } | Decision::Choose(binding) => bound(binding),
            Decision::Send { binding: None, subject } => json!({ "patient": subject }),
            Decision::Settle(settled) => json!({ "settled": settled.name() }),
            Decision::Hold(reason) => json!({ "held": reason.name(), "why": self.say_why(ward, anchors, record, *reason) }),
            Decision::Cut(_) => json!({ "settled": "cut" }),
            Decision::Backlog => json!({}),
        }
    }

    pub(super) fn say_why(&self, ward: &Ward, anchors: &Anchors, record: &Record, reason: HoldReason) -> String {
        let at = match &record.body {
            Body::Window(window) => Some(window.from),
            _ => self.measured(anchors, record),
        };
        let user = record.stream.and_then(|stream| stream.user);
        let called = self.name_of(record.device);
        at.map_or_else(|| reason.words().to_owned(), |at| ward.say_why(reason, record.device, user, at, &called))
    }

    fn events_of(&self, ward: &Ward, numbers: &[u64]) -> Vec<Value> {
        let events = ward.events().iter().filter(|event| numbers.contains(&event.n));
        let say = |event: &crate::ward::WardEvent| {
            json!({
                "event": event.n,
                "at": event.at.to_string(),
                "learned": event.learned.to_string(),
                "source": event.source,
                "operator": event.operator,
                "says": event.change.say(|device| self.name_of(device)),
            })
        };
        events.map(say).collect()
    }

    /// Each delivery it had or has, the first first, under the ids a receiver knows.
    fn deliveries(&self, record: &Record, traced: &Traced) -> Vec<Value> {
        if matches!(record.body, Body::Retraction(_)) {
            return Vec::new();
        }
        let say = |subject: Option<&SubjectKey>, placement: Placement, op: Op| {
            let id = DeliveryId { record: record.id, placement, version: record.version, op };
            json!({ "patient": subject, "op": op.name(), "placement": placement.to_string(), "delivery": id.to_string() })
        };
        let Some(row) = &traced.row else {
            let everybodys = matches!(traced.decision, Decision::Send { binding: None, .. });
            let sent = everybodys && matches!(traced.place, RecordPlace::Settled | RecordPlace::UnderWay);
            let nowhere = self.store.site_key().placement(None, 0);
            return sent.then(|| say(None, nowhere, Op::Put)).into_iter().collect();
        };
        let mut all = Vec::new();
        for (n, subject) in row.past.iter().enumerate() {
            let times = row.past[..n].iter().filter(|before| *before == subject).count();
            let placement = self.store.site_key().placement(Some(subject), u32::try_from(times).unwrap_or(u32::MAX));
            all.push(say(Some(subject), placement, Op::Put));
            all.extend(traced.retracts.then(|| say(Some(subject), placement, Op::Retract)));
        }
        all.extend(row.subject.as_ref().map(|subject| say(Some(subject), row.placement, Op::Put)));
        all
    }

    /// Other versions of the record and what takes it back, in the order of the log, and whether all of the log since was
    /// looked through.
    fn relatives(&self, anchors: &Anchors, seq: Seq, record: &Record) -> Result<Relatives, StoreError> {
        let (mut versions, mut retractions) = (Vec::new(), Vec::new());
        let Some(stream) = &record.stream else { return Ok(Relatives::none()) };
        let arrived = anchors.wall(record.stamp.boot, record.stamp.arrived).map(|wall| wall.at);
        // A window of several versions has earlier ones; nothing else has any.
        let reaches_back = i64::from(matches!(record.body, Body::Window(_))) * crate::deliver::HORIZON_MS;
        let mut frames = 0;
        let more = |boot, last| {
            frames += 1;
            let earlier = match (boot == record.stamp.boot, arrived, anchors.wall(boot, last)) {
                (true, ..) if reaches_back == 0 => last < record.stamp.arrived,
                (_, Some(arrived), Some(wall)) => wall.at < arrived.plus_ms(-reaches_back),
                _ => false,
            };
            !earlier && frames <= MAX_FRAMES
        };
        self.store.read_stream_back(stream, more, |at, found| match &found.body {
            Body::Retraction(of) if of.of == record.id => {
                let of = of.clone();
                retractions.push((at, found, of));
            }
            Body::Retraction(_) => {}
            _ if found.id == record.id && at != seq => versions.push(json!({ "seq": at, "version": found.version })),
            _ => {}
        })?;
        versions.sort_by_key(|version| version["seq"].as_u64());
        retractions.sort_by_key(|(at, ..)| *at);
        Ok(Relatives { versions, retractions, complete: frames <= MAX_FRAMES })
    }
}

/// What else in the log is about a record.
struct Relatives {
    versions: Vec<Value>,
    retractions: Vec<(Seq, Record, Retraction)>,
    /// Nothing of the log that may hold more was left out.
    complete: bool,
}

impl Relatives {
    const fn none() -> Self {
        Self { versions: Vec::new(), retractions: Vec::new(), complete: true }
    }
}

const fn word_of(place: RecordPlace) -> &'static str {
    match place {
        RecordPlace::Pending(Lane::Live | Lane::Backlog) => "pending",
        RecordPlace::UnderWay => "under_way",
        RecordPlace::Held(_) => "held",
        RecordPlace::Dead => "dead",
        RecordPlace::Settled => "settled",
    }
}
