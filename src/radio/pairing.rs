//! Pairing a device whose link is up: btleplug has no call for it, and one that is given up must be cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::agent::MayPair;
use super::bluez::{Bus, CallError};
use super::bond::Bond;
use super::session::Failure;
use super::settings::RadioDevice;

#[derive(Clone, Debug, thiserror::Error)]
pub enum PairError {
    #[error(
        "device \"{0}\" does not take the passkey; put the one it shows into the secret that `passkey` names, restart bedrail, \
         then `bedrail pair {0}`"
    )]
    WrongPasskey(String),
    #[error("device \"{0}\" does not want to pair; put it into pairing mode, then `bedrail pair {0}`")]
    Unwilling(String),
    #[error(
        "device \"{0}\" bonded without asking for its passkey, and that bond was removed; write bond = \"just-works\" if it shows \
         none"
    )]
    WithoutPasskey(String),
    #[error("device \"{0}\" asks for a passkey; write bond = \"passkey\" and its `passkey` in the config, and restart bedrail")]
    NeedsPasskey(String),
    #[error("device \"{0}\" asks to pair and may not; write bond = \"just-works\" in the config, and restart bedrail")]
    NeedsBond(String),
    /// Trouble with the link or with BlueZ: it is tried again like any connection.
    #[error("pairing: {0}")]
    Passing(CallError),
}

impl PairError {
    /// Trying again by itself would not help, and devices that were given a wrong passkey too often lock up.
    pub const fn is_final(&self) -> bool {
        !matches!(self, PairError::Passing(_))
    }
}

impl From<&PairError> for Failure {
    fn from(error: &PairError) -> Self {
        let passing = matches!(error, PairError::Passing(said) if said.is_passing());
        Failure { passing, reason: error.to_string() }
    }
}

/// Whether a pairing was asked for and not answered.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<AtomicBool>);

impl UnderWay {
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whoever gives the pairing up learns by this that it is to be cancelled, once.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

pub async fn pair(
    bus: &Bus,
    path: &str,
    device: &RadioDevice,
    may_pair: &MayPair,
    limit: Duration,
    under_way: &UnderWay,
) -> Result<(), PairError> {
    may_pair.begin(path);
    under_way.0.store(true, Ordering::Relaxed);
    let Ok(answer) = tokio::time::timeout(limit, bus.pair(path)).await else {
        if under_way.take() {
            bus.cancel_pairing(path).await;
        }
        let text = format!("not done in {limit:?}");
        return Err(PairError::Passing(CallError { name: "Pair".to_owned(), text }));
    };
    under_way.take();
    let (given, name) = (may_pair.was_given(path), || device.name.clone());
    match answer {
        // BlueZ asks no agent about a pairing without a passkey that we began ourselves.
        Ok(()) if matches!(device.bond, Bond::Passkey(_)) && !given => Err(PairError::WithoutPasskey(name())),
        Ok(()) => {
            bus.trust(path).await;
            Ok(())
        }
        Err(error) if error.is_authentication() && given => Err(PairError::WrongPasskey(name())),
        Err(error) if error.is_authentication() => Err(PairError::Unwilling(name())),
        Err(error) => Err(PairError::Passing(error)),
    }
}
