//! Who is who: identifiers kept under an opaque key, and forgotten for good.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Desk, DeskError, ask};
use crate::config::Bind;
use crate::deliver::RouteCommand;
use crate::reading::SubjectKey;
use crate::ward::{Identity, Phi};

/// Identifiers of one patient, as a document.
const MAX_IDENTITY: usize = 64 << 10;

impl Desk {
    pub(super) fn patients(&self) -> Result<Value, DeskError> {
        let row = |row: crate::store::PatientRow| json!({ "key": row.key, "test": row.test, "identified": row.identified, "forgotten": row.forgotten });
        Ok(Value::Array(self.ward_store.patients()?.into_iter().map(row).collect()))
    }

    pub(super) fn set_patient(&mut self, key: &SubjectKey, document: &Phi<Vec<u8>>, actor: &str) -> Result<Value, DeskError> {
        self.check_identity(document)?;
        self.audit(actor, "patient set", key.as_str(), "")?;
        self.ward_store.set_identity(key, document)?;
        self.publish()?;
        Ok(json!({ "patient": key }))
    }

    pub(super) fn check_identity(&self, document: &Phi<Vec<u8>>) -> Result<(), DeskError> {
        let octets = document.expose().len();
        if octets > MAX_IDENTITY {
            return Err(DeskError::IdentityTooLarge(octets));
        }
        Identity::parse(document)?;
        Ok(())
    }

    /// Deletes who the patient is. What was sent stays in its chart; what was not waits for somebody who knows.
    pub(super) async fn forget_patient(&mut self, key: &SubjectKey, yes: Option<u64>, actor: &str) -> Result<Value, DeskError> {
        if !self.ward_store.patients()?.iter().any(|row| row.key == *key) {
            return Err(DeskError::UnknownPatient(key.clone()));
        }
        let count = self.unsent(key).await?;
        // Devices go on measuring while a person reads and types.
        let shown = self.forgetting.take().filter(|(of, _)| of == key).map(|(_, shown)| shown);
        if yes.is_none_or(|yes| yes != count && Some(yes) != shown) {
            self.forgetting = Some((key.clone(), count));
            return Err(DeskError::Forgets { key: key.clone(), count });
        }
        self.audit(actor, "patient forget", key.as_str(), &format!("{count} records were not sent yet"))?;
        self.ward_store.forget(key)?;
        self.publish()?;
        Ok(json!({ "patient": key, "unsent": count }))
    }

    /// Records that routes still owe to this patient, each route's counted.
    async fn unsent(&mut self, key: &SubjectKey) -> Result<u64, DeskError> {
        let mut count = 0;
        for (name, route) in self.inputs.routes.iter().filter(|(_, route)| route.bind == Bind::Patient) {
            let (done, answer) = oneshot::channel();
            ask(name, route, RouteCommand::Unsent { subject: key.clone(), done }).await?;
            count += answer.await.map_err(|_| DeskError::RouteSilent(name.clone()))?;
        }
        Ok(count)
    }
}
