//! Corrections that wait for a person: what stands in a chart it does not belong to, and what is done about it.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, ask};
use crate::deliver::{Placements, RouteCommand};
use crate::reading::Seq;
use crate::ward::HoldReason;

impl Desk {
    /// One entry a stream and run, with where it stands.
    pub(super) fn decisions(&self) -> Result<Value, DeskError> {
        let mut entries = Vec::new();
        for route in self.store.routes()? {
            let placements = Placements::new(self.store.bound(route.n)?);
            for run in self.store.held(route.n)?.into_iter().filter(|run| run.reason == HoldReason::AwaitingDecision) {
                let stands = run.stream.and_then(|stream| placements.of(&stream, run.first)?.subject.clone());
                let mut entry = self.row_of(&route.name, &run);
                entry["stands_with"] = json!(stands);
                entries.push(entry);
            }
        }
        Ok(Value::Array(entries))
    }

    /// `accept`: taken back and sent to where it belongs by now. Else it stays where it is.
    pub(super) async fn decide(&mut self, name: &str, first: Seq, accept: bool, actor: &str) -> Result<Value, DeskError> {
        let unknown = || DeskError::UnknownRoute(name.to_owned());
        let nothing = || DeskError::NothingToDecide { route: name.to_owned(), seq: first };
        let route = self.inputs.routes.get(name).ok_or_else(unknown)?;
        let waits = |run: &crate::store::Held| run.first == first && run.reason == HoldReason::AwaitingDecision;
        let row = self.store.route(name)?.ok_or_else(unknown)?;
        // What has come to wait since it was listed is another question.
        let last = self.store.held(row.n)?.iter().find(|run| waits(run)).ok_or_else(nothing)?.last;
        let (done, answer) = oneshot::channel();
        let word = if accept { "decide accept" } else { "decide refuse" };
        let entry = self.entry(actor, word, name, &format!("from record {first}"));
        self.store.audit(&entry)?;
        ask(name, route, RouteCommand::Decide { first, last, accept, done }).await?;
        let count = answer.await.map_err(|_| DeskError::RouteSilent(name.to_owned()))?.ok_or_else(nothing)?;
        Ok(json!({ "route": name, "records": count }))
    }
}
