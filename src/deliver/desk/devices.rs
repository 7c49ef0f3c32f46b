//! What becomes of a device itself: another one takes its place, it goes out of service, it is made ready for the next patient.

use serde_json::{Value, json};

use super::{Desk, DeskError};
use crate::ward::{Change, Ward};

impl Desk {
    /// Whom and where the old one was for, the new one is for from now on.
    pub(super) async fn replace(&mut self, old: &str, new: &str, actor: &str) -> Result<Value, DeskError> {
        let (from, to) = (self.device(old)?, self.device(new)?);
        self.in_service(old)?;
        self.in_service(new)?;
        let (ward, now) = (Ward::fold(&self.events), self.now()?);
        let holds = |at: crate::reading::Timestamp, end: Option<_>| at <= now && end.is_none_or(|end| now < end);
        let is_paired = ward.pairings().any(|(device, _, i)| device == to && holds(i.from, i.to));
        let stands = ward.places().any(|(device, i)| device == to && holds(i.from, i.to));
        if from == to || is_paired || stands || ward.spot(to, now).is_some() {
            return Err(DeskError::NotFree(new.to_owned()));
        }
        let change = Change::Replace { old: from, new: to };
        self.change_device(change, actor, "devices replace", old, &format!("by device {new}")).await
    }

    pub(super) async fn retire(&mut self, name: &str, actor: &str) -> Result<Value, DeskError> {
        let device = self.device(name)?;
        self.in_service(name)?;
        self.change_device(Change::Retire { device }, actor, "devices retire", name, "").await
    }

    pub(super) async fn clean(&mut self, name: &str, actor: &str) -> Result<Value, DeskError> {
        let device = self.device(name)?;
        self.change_device(Change::Clean { device }, actor, "devices clean", name, "").await
    }

    pub(super) fn in_service(&self, name: &str) -> Result<(), DeskError> {
        let (device, now) = (self.device(name)?, self.now()?);
        let retired = Ward::fold(&self.events).is_retired(device, now);
        if retired { Err(DeskError::Retired(name.to_owned())) } else { Ok(()) }
    }

    async fn change_device(
        &mut self,
        change: Change,
        actor: &str,
        action: &str,
        name: &str,
        detail: &str,
    ) -> Result<Value, DeskError> {
        let done = self.change_ward(change, None, None, actor, action, &format!("device {name}"), detail).await?;
        Ok(json!({ "device": name, "at": done["at"] }))
    }
}
