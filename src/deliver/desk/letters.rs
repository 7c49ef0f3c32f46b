//! Dead letters of all routes: read from the store, and given back or given up by the route that owns them.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, ask};
use crate::deliver::{LetterCommand, LettersDone, RouteCommand};
use crate::reading::{Anchors, DeviceId, Seq};
use crate::store::{DeadRow, RouteRow, StoreError};

/// Dead letters in one answer: half a megabyte.
const MAX_LISTED: usize = 500;
/// Dead letters named in one request.
pub const MAX_NAMED: usize = 500;

/// Where a list goes on: the number of a route, and a record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterPlace {
    route: i64,
    seq: Seq,
}

impl fmt::Display for LetterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.route, self.seq)
    }
}

impl FromStr for LetterPlace {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (route, seq) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { route: route.parse()?, seq: Seq(seq.parse()?) })
    }
}

impl Desk {
    /// A page of them; `next` is where the following one begins.
    pub(super) fn dead_letters(&self, route: Option<&str>, from: Option<LetterPlace>, limit: usize) -> Result<Value, DeskError> {
        let rows = match route {
            Some(name) => vec![self.row(name)?],
            None => self.store.routes()?,
        };
        let anchors = self.store.anchors()?;
        let limit = limit.clamp(1, MAX_LISTED);
        let (mut letters, mut next, mut total) = (Vec::new(), None, 0);
        for row in &rows {
            total += self.store.dead_count(row.n)?;
            let first = match from {
                Some(place) if row.n < place.route => continue,
                Some(place) if row.n == place.route => place.seq,
                _ => Seq(0),
            };
            // One more than fits says where it goes on.
            for dead in self.store.dead_letters(row.n, first, limit + 1 - letters.len())? {
                if letters.len() == limit {
                    next.get_or_insert(LetterPlace { route: row.n, seq: dead.seq });
                    break;
                }
                letters.push(self.letter(row, &dead, &anchors)?);
            }
        }
        Ok(json!({ "total": total, "letters": letters, "next": next.map(|place| place.to_string()) }))
    }

    /// One of them, with what would be sent.
    pub(super) async fn dead_letter(&mut self, name: &str, seq: Seq) -> Result<Value, DeskError> {
        let row = self.row(name)?;
        let dead = self.store.dead_letters(row.n, seq, 1)?.pop().filter(|dead| dead.seq == seq);
        let dead = dead.ok_or_else(|| DeskError::NoDeadLetter { route: name.to_owned(), seq })?;
        let mut letter = self.letter(&row, &dead, &self.store.anchors()?)?;
        letter["version"] = dead.record.version.into();
        if let Some(route) = self.inputs.routes.get(name) {
            let (done, answer) = oneshot::channel();
            let command = LetterCommand::Preview { seq, record: Box::new(dead.record), done };
            ask(name, route, RouteCommand::Letters(command)).await?;
            let preview = answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?;
            letter["if_retried"] = preview.fate.into();
            letter["to"] = preview.to.into();
            letter["payload"] = preview.payload.into();
        }
        Ok(letter)
    }

    pub(super) async fn retry_letters(&mut self, name: &str, seqs: Vec<Seq>, actor: &str) -> Result<Value, DeskError> {
        let entry = self.entry(actor, "dead-letters retry", name, "");
        self.letter_command(name, seqs, |seqs, done| LetterCommand::Retry { seqs, entry, done }).await
    }

    pub(super) async fn drop_letters(&mut self, name: &str, seqs: Vec<Seq>, yes: u64, actor: &str) -> Result<Value, DeskError> {
        if yes != seqs.len() as u64 {
            return Err(DeskError::WrongYes(seqs.len(), yes));
        }
        let entry = self.entry(actor, "dead-letters drop", name, "");
        self.letter_command(name, seqs, |seqs, done| LetterCommand::Drop { seqs, entry, done }).await
    }

    async fn letter_command(
        &mut self,
        name: &str,
        seqs: Vec<Seq>,
        command: impl FnOnce(Vec<Seq>, oneshot::Sender<LettersDone>) -> LetterCommand,
    ) -> Result<Value, DeskError> {
        if seqs.len() > MAX_NAMED {
            return Err(DeskError::TooMany(seqs.len()));
        }
        self.row(name)?;
        let route = self.inputs.routes.get(name).ok_or_else(|| DeskError::NotInConfig(name.to_owned()))?;
        let (done, answer) = oneshot::channel();
        ask(name, route, RouteCommand::Letters(command(seqs, done))).await?;
        let LettersDone { done, unknown, waiting } = answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?;
        let numbers = |seqs: Vec<Seq>| seqs.into_iter().map(|seq| seq.0).collect::<Vec<_>>();
        Ok(json!({ "route": name, "done": done, "unknown": numbers(unknown), "waiting": numbers(waiting) }))
    }

    fn letter(&self, row: &RouteRow, dead: &DeadRow, anchors: &Anchors) -> Result<Value, StoreError> {
        let record = &dead.record;
        let wall = |(boot, at)| anchors.wall(boot, at).map(|wall| wall.at.to_string());
        let named = self.settings.devices.iter().find(|(_, id)| **id == record.device).map(|(name, _)| name.clone());
        let device = match record.device {
            DeviceId::GATEWAY => None,
            device => Some(named.unwrap_or_else(|| device.to_string())),
        };
        Ok(json!({
            "route": row.name,
            "seq": dead.seq.0,
            "record": record.id.to_string(),
            "kind": record.body.kind(),
            "device": device,
            "metric": record.stream.map(|stream| stream.metric.name()),
            "measured_at": self.measured(anchors, record).map(|at| at.to_string()),
            "received_at": wall((record.stamp.boot, record.stamp.arrived)),
            "reason": dead.reason,
            "detail": dead.detail,
            "since": dead.since.and_then(wall),
            "in_log": self.store.next_present(dead.seq)? == Some(dead.seq),
        }))
    }

    fn row(&self, name: &str) -> Result<RouteRow, DeskError> {
        self.store.route(name)?.ok_or_else(|| DeskError::UnknownRoute(name.to_owned()))
    }
}
