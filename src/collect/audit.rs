//! What people have this half do is in the audit trail before it is done. The writer, which alone writes to the log here,
//! puts it there.

use tokio::sync::{mpsc, oneshot};

/// Actions that wait for their row: people ask one at a time.
const WAITING: usize = 16;

/// Who does what to which thing.
#[derive(Debug)]
pub struct Action {
    pub actor: String,
    pub action: &'static str,
    pub object: String,
    pub detail: String,
}

/// An action, and whom to tell that its row is on the card.
#[derive(Debug)]
pub struct ToAudit {
    pub(super) action: Action,
    pub(super) written: oneshot::Sender<Result<(), NotAudited>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAudited {
    #[error("it can't be audited, so it was not done: {0}")]
    Store(String),
    #[error("bedrail is stopping; nothing was done")]
    Stopping,
}

#[derive(Clone, Debug)]
pub struct Audit(mpsc::Sender<ToAudit>);

impl Audit {
    pub fn channel() -> (Self, mpsc::Receiver<ToAudit>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// When it returns `Ok`, the row is on the card. One that is given up before is not written.
    pub async fn write(&self, action: Action) -> Result<(), NotAudited> {
        let (written, outcome) = oneshot::channel();
        self.0.send(ToAudit { action, written }).await.map_err(|_| NotAudited::Stopping)?;
        outcome.await.unwrap_or(Err(NotAudited::Stopping))
    }
}
