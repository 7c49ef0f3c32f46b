//! Which route may send, what it sends again, and which is forgotten.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, ask};
use crate::deliver::RouteCommand;
use crate::reading::Timestamp;

impl Desk {
    pub(super) fn routes(&self) -> Result<Value, DeskError> {
        let mut rows = Vec::new();
        for row in self.store.routes()? {
            rows.push(match self.inputs.routes.get(&row.name) {
                Some(route) => serde_json::to_value(&*route.status.borrow()).expect("a status is plain data"),
                None => json!({ "name": row.name, "kind": row.kind, "state": "orphaned" }),
            });
        }
        Ok(Value::Array(rows))
    }

    pub(super) async fn pause(&mut self, name: &str, reason: Option<String>, actor: &str) -> Result<Value, DeskError> {
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

    pub(super) async fn replay(&mut self, name: &str, from: Timestamp, to: Timestamp, actor: &str) -> Result<Value, DeskError> {
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
    pub(super) fn drop_route(&mut self, name: &str, actor: &str) -> Result<Value, DeskError> {
        let row = self.store.route(name)?.ok_or_else(|| DeskError::UnknownRoute(name.to_owned()))?;
        if self.inputs.routes.contains_key(name) {
            return Err(DeskError::RouteInUse(name.to_owned()));
        }
        let owed = self.store.lanes(row.n)?;
        let head = self.store.head()?;
        let dead = self.store.dead_count(row.n)?;
        let entry = self.entry(actor, "route drop", name, "");
        self.store.drop_route(row.n, &entry)?;
        Ok(json!({ "route": name, "unsent": owed.live.count_to(head) + owed.backlog.count_to(head), "dead": dead }))
    }
}
